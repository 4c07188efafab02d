"""The field's own terms are used everywhere: retired words stand only where they are explained or accepted."""

import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]
RETIRED = {
    "leaflet": "domain",
    "saccule": "validator",
    "rekey": "repartition",
    "keyed anew": "repartitioned",
    "told": "reported, emitted",
    "texts": "strings",
    "put down": "recorded, written",
    "buried": "written to the dead letters",
    "patience": "retry policy",
    "trouble": "retry notice",
    "wish": "control command",
    "let_on": "resume",
    "hold_back": "pause",
    "nobody back": "does not delay the watermark",
    "was wanted": "expected Y, got X",
    "were wanted": "expected Y, got X",
    "seed 00": "a page of docs/",
    "charter": "the dna envelope",
}
EXPLAIN = {"docs/glossary.md", "CHANGELOG.md", "tests/docs/test_words.py"}
ACCEPT = {  # files that accept a former name, or say so
    "agents/rules/validators.py": "saccule",
    "agents/rules/reading/yaml.py": "saccule",
    "docs/rules.md": "saccule",
    "pipeline/settings.py": "rekey",
    "tests/unit/agents/ingest/test_validate.py": "saccule",
}


def files() -> list[str]:
    done = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"], capture_output=True, text=True, cwd=ROOT, check=True
    )
    ends = (".py", ".md", ".yaml", ".toml", "Makefile", "run")
    return [name for name in done.stdout.splitlines() if name.endswith(ends) and (ROOT / name).is_file()]


def test_retired_words_are_explained_or_accepted_and_used_nowhere_else():
    pattern = re.compile(
        r"(?<![a-z])(" + "|".join(map(re.escape, RETIRED)) + r")(s|d|ed|er|ers)?(?![a-z])", re.IGNORECASE
    )
    found = []
    for name in files():
        if name in EXPLAIN:
            continue
        found += [
            f"{name}:{number}: {match[0]!r}; say {RETIRED[match[1].lower()]}"
            for number, line in enumerate((ROOT / name).read_text().splitlines(), 1)
            for match in pattern.finditer(line)
            if ACCEPT.get(name) != match[1].lower()
        ]
    assert found == []

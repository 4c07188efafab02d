"""Rule files by path or by the name of a shipped one, joined into one rule set."""

from __future__ import annotations

from collections.abc import Iterable
from importlib import resources
from pathlib import Path
from typing import Final

from astrocyte.agents.loading import load_rules
from astrocyte.agents.rules.model import RuleSet
from astrocyte.agents.rules.problems import combined
from astrocyte.schemas.errors import InvalidRule

__all__ = ["DEFAULT_RULES", "join_rule_sets", "read_rule_files", "shipped_rules"]

DEFAULT_RULES: Final = ("axons",)
"""Rules of a worker for which none are set."""


def shipped_rules() -> dict[str, Path]:
    """Path of every rule file that comes with Astrocyte, by name."""
    folder = Path(str(resources.files("astrocyte.pipeline"))) / "rules"
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def read_rule_files(files: Iterable[str | Path]) -> RuleSet:
    """The rules, windows, streams and validators of all files together. Raises InvalidRule, naming the file."""
    shipped = shipped_rules()
    sets = []
    for file in files:
        path = Path(file)
        if not path.is_file() and str(file) in shipped:
            path = shipped[str(file)]  # a folder of that name is not a rule file
        if path.is_dir():
            raise InvalidRule(f"{str(file)!r} is a folder; name the rule files in it")
        if not path.exists():
            raise InvalidRule(
                f"no rule file {str(file)!r}; give a path, or the name of a shipped one: {', '.join(shipped)}"
            )
        sets.append(load_rules(path))
    return join_rule_sets(sets)


def join_rule_sets(sets: Iterable[RuleSet]) -> RuleSet:
    """One rule set of several; a name may occur once over all of them. Raises InvalidRule."""
    sets = list(sets)
    parts = {name: tuple(item for each in sets for item in getattr(each, name)) for name in RuleSet.model_fields}
    try:
        return combined(lambda: RuleSet(**parts))
    except InvalidRule as error:
        raise InvalidRule(f"the rule files cannot be combined: {error}") from None

"""Rule files by path or by the name of a shipped one, joined into one rule set; whether a group has the same ones."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterable, Mapping
from importlib import resources
from pathlib import Path
from typing import Final

from astrocyte.agents.loading import load_rules
from astrocyte.agents.rules.model import RuleSet
from astrocyte.pipeline.settings import Settings
from astrocyte.schemas.errors import InvalidRule

__all__ = [
    "DEFAULT_RULES",
    "GroupRules",
    "digest_of",
    "join_rule_sets",
    "other_rules",
    "read_rule_files",
    "shipped_rules",
]

logger = logging.getLogger(__name__)

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
        return RuleSet(**parts)
    except ValueError as error:
        raise InvalidRule(f"the rule files cannot be combined: {error}") from None


def digest_of(ruleset: RuleSet, settings: Settings) -> str:
    """Digest of what results depend on: the rules, and the settings of event time."""
    text = ruleset.model_dump_json() + f"/{settings.lateness}/{settings.clock_tolerance}/{settings.consistency}"
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def other_rules(digests: Mapping[str, int]) -> str | None:
    """What to say of a group whose members have several digests (number of members by digest); None for one or none."""
    if len(digests) < 2:
        return None
    counts = ", ".join(str(count) for count in sorted(digests.values(), reverse=True))
    return (
        f"the workers of the group have {len(digests)} different sets of rule files or of the settings lateness, clock "
        f"tolerance and consistency ({counts} workers): each works by its own, on its own partitions. "
        "This ends once all are replaced where a new version is being rolled out; otherwise start them with the same "
        "files and settings, or in groups of their own (ASTROCYTE_GROUP)"
    )


class GroupRules:
    """Says in the log when the workers of a group begin to have different rule files, and when that ends."""

    def __init__(self) -> None:
        self._said: str | None = None

    def note(self, digests: Mapping[str, int]) -> None:
        """The digests of the members, as each assignment gives them."""
        line = other_rules(digests)
        if line is not None and line != self._said:
            logger.warning("%s", line)
        elif line is None and self._said is not None:
            logger.warning("all workers of the group have the same rule files and settings again")
        self._said = line

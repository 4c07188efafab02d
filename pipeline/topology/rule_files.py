"""Rule files by path or by the name of a shipped one, joined into one rule set."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from importlib import resources
from pathlib import Path
from typing import Final

from astrocyte.agents.loading import load_rules
from astrocyte.agents.rules.model import RuleSet
from astrocyte.schemas.catalog import CATALOG
from astrocyte.schemas.errors import InvalidRule
from astrocyte.schemas.registry import did_you_mean
from astrocyte.schemas.topics import mono_topic

__all__ = ["DEFAULT_RULES", "join_rule_sets", "misspelt_streams", "path_of", "read_rule_files", "shipped_rules"]

DEFAULT_RULES: Final = ("axons",)
"""Rules of a worker for which none are set."""


def shipped_rules() -> dict[str, Path]:
    """Path of every rule file that comes with Astrocyte, by name."""
    folder = Path(str(resources.files("astrocyte.pipeline"))) / "rules"
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def read_rule_files(files: Iterable[str | Path]) -> RuleSet:
    """The rules, windows, streams and validators of all files together. Raises InvalidRule, naming the file."""
    return join_rule_sets([load_rules(path_of(file)) for file in files])


def path_of(file: str | Path) -> Path:
    """Path of a rule file that is given by its path, or by the name of a shipped one. Raises InvalidRule."""
    shipped = shipped_rules()
    path = Path(file)
    if not path.is_file() and str(file) in shipped:
        path = shipped[str(file)]  # a folder of that name is not a rule file
    if path.is_dir():
        raise InvalidRule(f"{str(file)!r} is a folder; name the rule files in it")
    if not path.exists():
        raise InvalidRule(
            f"no rule file {str(file)!r}; give a path, or the name of a shipped one: {', '.join(shipped)}"
        )
    return path


def join_rule_sets(sets: Iterable[RuleSet]) -> RuleSet:
    """One rule set of several; a name may occur once over all of them. Raises InvalidRule."""
    sets = list(sets)
    parts = {name: tuple(item for each in sets for item in getattr(each, name)) for name in RuleSet.model_fields}
    try:
        return RuleSet(**parts)
    except InvalidRule as error:
        raise InvalidRule(f"the rule files cannot be combined: {error}") from None


def misspelt_streams(ruleset: RuleSet, existing: Collection[str]) -> Iterator[str]:
    """Sentences on streams that nothing declares or makes but whose names are nearly those of others.

    Such a rule is valid, but nothing comes. Not those of which ``existing``, the topics of a broker, has the topic.
    """
    known = {each.name for each in ruleset.streams} | ruleset.made | {each.stream for each in CATALOG}
    for stream in sorted(ruleset.read - known):
        similar = did_you_mean(stream, known, similarity=0.75)
        if similar and not {stream, mono_topic(stream)} & set(existing):
            yield f"stream {stream!r} is not declared and is read from {mono_topic(stream)}{similar}"
    for stream in sorted(
        {each for validator in ruleset.validators for each in validator.stream} - known - ruleset.read
    ):
        if not {stream, mono_topic(stream)} & set(existing):
            similar = did_you_mean(stream, known | ruleset.read)
            yield f"a validator of stream {stream!r} checks nothing: it is not declared, and no rule reads it{similar}"

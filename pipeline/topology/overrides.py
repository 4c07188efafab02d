"""Which of several rule files a rule in force comes from, where they give one name to several."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Final, NamedTuple

from astrocyte.agents.rules.model import RuleSet
from astrocyte.agents.rules.reading.yaml import KINDS

__all__ = ["OWN_FILES", "Origins", "Override", "origin_changes", "origins_of", "overrides", "published_label"]

OWN_FILES: Final = "the worker's own files"
_NAMED: Final = ("rules", "windows", "insight", "junctions", "streams")
"""Lists of a rule file whose entries have names."""

Origins = Mapping[tuple[str, str], tuple[str, ...]]
"""By kind and name of an entry: labels of the files that have it, of which the last one is in force."""


class Override(NamedTuple):
    """An entry that several files have: that of ``winner`` runs, those of ``losers`` do not."""

    kind: str
    """``rule``, ``window``, ``statistic``, ``junction`` or ``stream``."""
    name: str
    winner: str
    losers: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.kind} {self.name!r} is that of {self.winner}, and not that of {' or '.join(self.losers)}"


def published_label(name: str) -> str:
    """What messages call the file that was published under a name."""
    return f"the published file {name!r}"


def origins_of(files: Iterable[tuple[str, RuleSet]]) -> Origins:
    """The files that have each name. ``files`` are labels with rules, of which the last one of a name wins."""
    found: dict[tuple[str, str], tuple[str, ...]] = {}
    for label, ruleset in files:
        for section in _NAMED:
            for each in getattr(ruleset, section):
                of = (KINDS[section], each.name)
                found[of] = (*found.get(of, ()), label)
    return found


def overrides(origins: Origins) -> list[Override]:
    """The names that several files have."""
    return [Override(*of, labels[-1], labels[:-1]) for of, labels in origins.items() if len(labels) > 1]


def origin_changes(before: Origins, after: Origins) -> Iterator[str]:
    """Sentences on names that come from another file than before, or from one of several."""
    found = {(each.kind, each.name): each for each in overrides(after)}
    for of, labels in after.items():
        old = before.get(of)
        if old == labels or (old is None and of not in found):
            continue
        if of in found:
            yield str(found[of])
        elif old is not None and old[-1] != labels[-1]:
            yield f"{of[0]} {of[1]!r} is that of {labels[-1]} again"

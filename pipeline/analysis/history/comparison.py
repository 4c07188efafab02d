"""Rules before and after a change over one history: which of them differ, and in what."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from astrocyte.agents.rules.graph.links import sources_of
from astrocyte.agents.rules.model import RuleSet
from astrocyte.pipeline.analysis.history.results import RuleMatches, find_matches
from astrocyte.pipeline.analysis.history.tapes import History, Tapes

__all__ = ["Change", "Compared", "compare_rule_sets", "differing", "to_compare"]


@dataclass(frozen=True, slots=True)
class Change:
    """One rule before and after; None where it is not there."""

    name: str
    before: RuleMatches | None
    after: RuleMatches | None
    only_before: NDArray[np.int64]
    """Numbers of the matches before that are none after, by their events."""
    only_after: NDArray[np.int64]
    both: NDArray[np.int64]
    """Numbers, after, of the matches that are the same."""

    @property
    def kind(self) -> str:
        """``new``, ``removed`` or ``changed``."""
        return "new" if self.before is None else "removed" if self.after is None else "changed"


@dataclass(frozen=True, slots=True)
class Compared:
    """Rules that differ, and the history over which they do."""

    changes: tuple[Change, ...]
    unchanged: tuple[str, ...]
    tapes: Tapes
    """Of the rules after the change."""
    anew: bool
    """Whether the rules after the change take other events than those before, so that all of them were run."""

    def side(self, name: str, *, after: bool) -> RuleMatches | None:
        """Matches of a rule before or after."""
        for change in self.changes:
            if change.name == name:
                return change.after if after else change.before
        return None


def differing(before: RuleSet, after: RuleSet) -> set[str]:
    """Names of the rules that may find something else: changed, new or gone, or over what such a rule or window makes.

    A rule whose ``version`` is set by hand is compared by its content as well.
    """
    sides: list[dict[str, object]] = [
        {each.name: each for each in (*side.rules, *side.windows, *side.insight)}
        | {each.name: each for each in side.junctions}
        for side in (before, after)
    ]
    found = {name for name in sides[0].keys() | sides[1].keys() if sides[0].get(name) != sides[1].get(name)}
    reads = [each for side in (before, after) for each in sources_of(side).items()]
    grown = True
    while grown:
        more = {name for name, streams in reads if not found.isdisjoint(streams)}
        grown = not more <= found
        found |= more
    return found


def to_compare(before: RuleSet, after: RuleSet, *, anew: bool) -> set[str]:
    """Names of the rules of both sides that must be run: those that differ, or all where the events do (``anew``)."""
    names = {rule.name for side in (before, after) for rule in side.rules}
    return names if anew else differing(before, after) & names


def compare_rule_sets(
    history: History,
    before: RuleSet,
    after: RuleSet,
    *,
    known: Mapping[str, RuleMatches] | None = None,
    most_matches: int = 2**62,
) -> Compared:
    """What rules find before and after a change. Matches are the same if a rule of that name took the same events.

    ``known`` are the matches before of all rules `to_compare`, where a caller has kept them. Raises as `History.tapes`
    and `find_matches`.
    """
    tapes_before, tapes_after = history.tapes(before), history.tapes(after)
    anew = tapes_before is not tapes_after
    changed = to_compare(before, after, anew=anew)
    old = find_matches(before, tapes_before, only=changed) if known is None else known
    new = find_matches(after, tapes_after, only=changed, most_matches=most_matches)
    order = [rule.name for rule in (*after.rules, *before.rules) if rule.name in changed]
    changes = [_change(name, old.get(name), new.get(name)) for name in dict.fromkeys(order)]
    unchanged = tuple(rule.name for rule in after.rules if rule.name not in changed)
    return Compared(tuple(changes), unchanged, tapes_after, anew)


def _change(name: str, before: RuleMatches | None, after: RuleMatches | None) -> Change:
    sides = [_identities(before), _identities(after)]
    shared = [_shared(own, other) for own, other in (sides, sides[::-1])]
    return Change(
        name, before, after, np.flatnonzero(~shared[0]), np.flatnonzero(~shared[1]), np.flatnonzero(shared[1])
    )  # fmt: skip


def _identities(side: RuleMatches | None) -> NDArray[np.void]:
    return np.empty(0, [("", np.uint64)] * 2) if side is None else side.identities()


def _shared(own: NDArray[np.void], other: NDArray[np.void]) -> NDArray[np.bool_]:
    """Which of ``own`` are in ``other`` as well: of n equal ones the first m, where the other side has m."""
    if not len(own) or not len(other):
        return np.zeros(len(own), np.bool_)
    both = np.concatenate([own, other])
    numbers = _numbers(both)
    mine, theirs = numbers[: len(own)], numbers[len(own) :]
    counts = np.bincount(theirs, minlength=int(numbers.max()) + 1)
    order = np.argsort(mine, kind="stable")
    ordered = mine[order]
    first = np.searchsorted(ordered, ordered)
    shared = np.empty(len(own), np.bool_)
    shared[order] = np.arange(len(own)) - first < counts[ordered]
    return shared


def _numbers(words: NDArray[np.void]) -> NDArray[np.int64]:
    """Numbers that are equal where the words are."""
    pairs = words.view(np.uint64).reshape(-1, 2)
    order = np.lexsort((pairs[:, 1], pairs[:, 0]))
    ordered = pairs[order]
    new = np.append(False, (ordered[1:] != ordered[:-1]).any(axis=1))
    numbers = np.empty(len(words), np.int64)
    numbers[order] = np.cumsum(new)
    return numbers

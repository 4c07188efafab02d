"""What a change of rules changes, as the page shows it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from astrocyte.pipeline.analysis.history.comparison import Change, Compared
from astrocyte.pipeline.analysis.history.results import RuleMatches
from astrocyte.pipeline.analysis.score import Planted, score_matches, slack_of
from astrocyte.pipeline.page.aggregates.axis import EMPTY, Axis

__all__ = ["SLACK_US", "report"]

_LISTED: Final = 50
"""Matches of each list that are shown."""
_KEYS: Final = 12
"""Keys with the most matches that are listed."""
SLACK_US: Final = 10_000_000
"""How long after a planted interval an alert still counts: the default of ``astrocyte score``."""
_MOST_SCORED: Final = 100_000
"""Matches of a rule beyond which it is not scored here."""


@dataclass(frozen=True, slots=True)
class _Side:
    """Matches of a rule before or after, of which there may be millions, with their columns."""

    found: RuleMatches
    times_us: NDArray[np.int64]
    keys: list[str | None]


def _side(found: RuleMatches | None) -> _Side | None:
    return None if found is None else _Side(found, found.times_us(), found.keys())


def report(compared: Compared, planted: Sequence[Planted]) -> dict[str, Any]:
    """Counts, buckets, keys, differences and scores by rule."""
    times = compared.tapes.times_us
    axis = EMPTY if times is None else EMPTY.covering(*times)
    # What time decides after the last event, such as an absence, is counted in the bucket of its time as well.
    sides = [(_side(change.before), _side(change.after)) for change in compared.changes]
    for side in chain.from_iterable(sides):
        for time_us in () if side is None else side.times_us[-1:].tolist():
            axis = axis.covering(time_us, time_us)
    return {
        "events": compared.tapes.events,
        "late": compared.tapes.late,
        "refused": compared.tapes.dead,
        "from": None if times is None else times[0],
        "to": None if times is None else times[1],
        "start": axis.start_us,
        "width": axis.width_us,
        "used": axis.used,
        "anew": compared.anew,
        "unchanged": compared.unchanged,
        "rules": [_change(change, *both, axis, planted) for change, both in zip(compared.changes, sides, strict=True)],
    }


def _change(
    change: Change, before: _Side | None, after: _Side | None, axis: Axis, planted: Sequence[Planted]
) -> dict[str, Any]:
    own = [each for each in planted if each.rule == change.name]
    old, new = (Counter([] if side is None else side.keys) for side in (before, after))
    return {
        "name": change.name,
        "kind": change.kind,
        "before": _figures(before, len(old), axis, own),
        "after": _figures(after, len(new), axis, own),
        "both": len(change.both),
        "only_before": len(change.only_before),
        "only_after": len(change.only_after),
        "keys": [{"key": key, "before": old[key], "after": new[key]} for key, _ in (old | new).most_common(_KEYS)],
        "lists": {
            "only_before": _listed(before, change.only_before),
            "only_after": _listed(after, change.only_after),
            "both": _listed(after, change.both),
        },
    }


def _figures(side: _Side | None, keys: int, axis: Axis, planted: Sequence[Planted]) -> dict[str, Any] | None:
    if side is None:
        return None
    found, times_us = side.found, side.times_us
    counts = np.zeros(axis.used, np.int64)
    if len(times_us):
        counts = np.bincount(np.clip(axis.positions(times_us), 0, axis.used - 1), minlength=axis.used)
    return {
        "matches": found.count,
        "alerts": found.alerts,
        "suppressed": found.suppressed,
        "grouped": found.grouped,
        "keys": keys,
        "first": int(times_us.min()) if len(times_us) else None,
        "last": int(times_us.max()) if len(times_us) else None,
        "buckets": counts.tolist(),
        "score": _score(found, planted),
    }


def _score(found: RuleMatches, planted: Sequence[Planted]) -> dict[str, Any] | None:
    """As ``astrocyte score`` gives it; None where nothing was planted for the rule, or too much was found."""
    if not planted or found.count > _MOST_SCORED:
        return None
    rule = found.rule
    made = found.made() if rule.alert is None else found.raised()
    return score_matches(rule.name, planted, made, slack_us=SLACK_US + slack_of(rule)).as_json()


def _listed(side: _Side | None, numbers: NDArray[np.int64]) -> list[dict[str, Any]]:
    """The newest of some matches, by time."""
    if side is None or not len(numbers):
        return []
    newest = numbers[np.argsort(side.times_us[numbers], kind="stable")][-_LISTED:]
    return [
        {"n": number, "t": int(side.times_us[number]), "key": side.keys[number]} for number in newest[::-1].tolist()
    ]

"""What a change of rules changes, as the page shows it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from astrocyte.agents.rules.model import Rule
from astrocyte.pipeline.analysis.history.comparison import Change, Compared
from astrocyte.pipeline.analysis.history.results import RuleMatches
from astrocyte.pipeline.analysis.score import Planted, score_matches, slack_of
from astrocyte.pipeline.page.aggregates.axis import EMPTY, Axis

__all__ = ["SLACK_US", "report"]

_LISTED: Final = 50
"""Matches of each list that are shown."""
SLACK_US: Final = 10_000_000
"""How long after a planted interval an alert still counts: the default of ``astrocyte score``."""
_MOST_SCORED: Final = 100_000
"""Matches of a rule beyond which it is not scored here."""


def report(compared: Compared, planted: Sequence[Planted]) -> dict[str, Any]:
    """Counts, buckets, keys, differences and scores by rule."""
    times = compared.tapes.times_us
    axis = EMPTY if times is None else EMPTY.covering(*times)
    # What time decides after the last event, such as an absence, is counted in the bucket of its time as well.
    found = [each for change in compared.changes for side in (change.before, change.after) if side is not None
             for each in side.times_us()[-1:].tolist()]  # fmt: skip
    for time_us in found:
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
        "rules": [_change(change, axis, planted) for change in compared.changes],
    }


def _change(change: Change, axis: Axis, planted: Sequence[Planted]) -> dict[str, Any]:
    own = [each for each in planted if each.rule == change.name]
    keys_before, keys_after = change.numbers_of_keys()
    return {
        "name": change.name,
        "kind": change.kind,
        "before": _side(change.before, keys_before, axis, own),
        "after": _side(change.after, keys_after, axis, own),
        "both": len(change.both),
        "only_before": len(change.only_before),
        "only_after": len(change.only_after),
        "keys": [{"key": key, "before": before, "after": after} for key, before, after in change.top_keys()],
        "lists": {
            "only_before": _listed(change.before, change.only_before),
            "only_after": _listed(change.after, change.only_after),
            "both": _listed(change.after, change.both),
        },
    }


def _side(side: RuleMatches | None, keys: int, axis: Axis, planted: Sequence[Planted]) -> dict[str, Any] | None:
    if side is None:
        return None
    times_us = side.times_us()
    counts = np.zeros(axis.used, np.int64)
    if len(times_us):
        counts = np.bincount(np.clip(axis.positions(times_us), 0, axis.used - 1), minlength=axis.used)
    return {
        "matches": side.count,
        "alerts": side.alerts,
        "suppressed": side.suppressed,
        "grouped": side.grouped,
        "keys": keys,
        "first": int(times_us.min()) if len(times_us) else None,
        "last": int(times_us.max()) if len(times_us) else None,
        "buckets": counts.tolist(),
        "score": _score(side, side.rule, planted),
    }


def _score(side: RuleMatches, rule: Rule, planted: Sequence[Planted]) -> dict[str, Any] | None:
    """As ``astrocyte score`` gives it; None where nothing was planted for the rule."""
    if not planted or side.count > _MOST_SCORED:
        return None
    made = side.made() if rule.alert is None else side.raised()
    return score_matches(rule.name, planted, made, slack_us=SLACK_US + slack_of(rule)).as_json()


def _listed(side: RuleMatches | None, numbers: NDArray[np.int64]) -> list[dict[str, Any]]:
    """The newest of some matches, by time."""
    if side is None or not len(numbers):
        return []
    times_us, keys = side.times_us(), side.keys()
    newest = numbers[np.argsort(times_us[numbers], kind="stable")][-_LISTED:]
    return [{"n": number, "t": int(times_us[number]), "key": keys[number]} for number in newest[::-1].tolist()]

"""Keys of a sample whose clocks are ahead of Kafka's time, and how many of their events a worker would hold back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from astrocyte.agents.event_time.clock_guard import NO_KAFKA_TIME_US
from astrocyte.pipeline.analysis.inspect.clocks.rows import Rows

__all__ = ["Ahead", "ahead_of"]

_MOST: Final = 0.5
"""Greatest share of the events that are left out for being ahead: more of them rather are what is usual."""


@dataclass(frozen=True, slots=True)
class Ahead:
    """Events of one key that are ahead of Kafka's time, or that a worker would hold."""

    key: str | None
    events: int
    held: int
    """How many of them a worker would still hold at the end of the sample."""
    lead_us: int | None
    """Median of their times less their Kafka timestamps; None where these are not known."""
    partition: int
    time_us: int
    """Partition and time of the one that is ahead the most."""
    is_left_out: bool
    """Whether figures leave them out."""


def ahead_of(
    sources: Sequence[Rows], names: Sequence[str | None], *, tolerance_us: int
) -> tuple[list[Ahead], list[Rows]]:
    """The keys that are ahead, and the events that are left when they are left out.

    A key is ahead if half of its events or more are ahead of their Kafka timestamps by more than the tolerance. Of
    other keys those events are ahead that a worker would hold.
    """
    chosen = _chosen(sources, len(names), tolerance_us)
    count = sum(int(each.sum()) for each in chosen)
    is_left_out = count <= _MOST * sum(len(rows.times) for rows in sources)
    by_key: dict[int, list[Rows]] = {}
    for rows, mask in zip(sources, chosen, strict=True):
        some = rows.only(mask)
        for key in np.unique(some.keys).tolist():
            by_key.setdefault(key, []).append(some.only(some.keys == key))
    found = [
        Ahead(
            names[key],
            sum(len(each.times) for each in parts),
            sum(int(each.held.sum()) for each in parts),
            _lead_us(parts),
            *_foremost(parts),
            is_left_out,
        )
        for key, parts in by_key.items()
        if is_left_out or any(each.held.any() for each in parts)
    ]
    rest = [rows.only(~mask) for rows, mask in zip(sources, chosen, strict=True)]
    return sorted(found, key=lambda each: -each.events), rest if is_left_out and count else list(sources)


def _chosen(sources: Sequence[Rows], keys: int, tolerance_us: int) -> list[NDArray[np.bool_]]:
    """By source: which of its events are ahead."""
    totals, leading = np.zeros(keys, np.int64), np.zeros(keys, np.int64)
    for rows in sources:
        known = rows.kafka_us != NO_KAFKA_TIME_US
        leads = np.where(known, rows.times - np.where(known, rows.kafka_us, 0), 0)
        totals += np.bincount(rows.keys[known] % keys, minlength=keys)
        leading += np.bincount(rows.keys[leads > tolerance_us] % keys, minlength=keys)
    wrong = np.flatnonzero((totals > 0) & (2 * leading >= totals))
    return [rows.held | np.isin(rows.keys % keys, wrong) for rows in sources]


def _foremost(parts: Sequence[Rows]) -> tuple[int, int]:
    """Partition and time of the event that is ahead the most."""
    leads = [rows.times - np.where(rows.kafka_us == NO_KAFKA_TIME_US, 0, rows.kafka_us) for rows in parts]
    best = max(range(len(parts)), key=lambda number: int(leads[number].max()))
    return parts[best].partition, int(parts[best].times[leads[best].argmax()])


def _lead_us(parts: Sequence[Rows]) -> int | None:
    times = np.concatenate([each.times for each in parts])
    kafka_us = np.concatenate([each.kafka_us for each in parts])
    known = kafka_us != NO_KAFKA_TIME_US
    return int(np.median(times[known] - kafka_us[known])) if known.any() else None

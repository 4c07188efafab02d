"""Events of a sample whose clocks seem wrong: times far from nearly all others, and keys far from all others.

Figures leave them out and name them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from astrocyte.schemas.frames import Frame
from astrocyte.schemas.values.mixed import concat_columns, key_column

__all__ = ["LEAST_US", "Apart", "keys_apart", "usual_times"]

_TAIL: Final = 0.025
"""Share of the events at either end that may be strays."""
_LEAST: Final = 40
"""Number of events from which on one of them may be a stray."""
_FAR: Final = 10
"""How many times the span of the others a stray is away from them."""
_MOST_APART: Final = 5
"""Most keys that are looked for."""
_SHARE_APART: Final = 0.25
"""Greatest share of the events that such keys have together: else they rather are what is usual."""
_LESS: Final = 4
"""How many times smaller the lateness has to be without them."""
LEAST_US: Final = 60_000_000
"""Lateness from which on they are looked for: less is the disorder of any network."""


def usual_times(times_us: NDArray[np.int64]) -> tuple[int, int] | None:
    """The first and last time of the events that are not far from nearly all others; None without an event."""
    if not len(times_us):
        return None
    if len(times_us) < _LEAST:
        return int(times_us.min()), int(times_us.max())
    low = int(np.quantile(times_us, _TAIL, method="higher"))
    high = int(np.quantile(times_us, 1 - _TAIL, method="lower"))
    margin = _FAR * (high - low)
    if margin <= 0:  # nearly all are at one time: nothing says what is far
        return int(times_us.min()), int(times_us.max())
    usual = times_us[(times_us >= low - margin) & (times_us <= high + margin)]
    return int(usual.min()), int(usual.max())


@dataclass(frozen=True, slots=True)
class Apart:
    """A key whose events are so far from the others that they alone need most of the lateness."""

    key: str | None
    events: int
    partition: int
    time_us: int
    """Partition and time of one of its events, the one that shows it most."""
    ahead: bool
    """It makes others late; else it is late itself."""


def keys_apart(
    frames: Mapping[int, Iterable[Frame]], usual: tuple[int, int] | None = None
) -> tuple[list[Apart], NDArray[np.int64]]:
    """Few keys without which a much smaller lateness is enough, and the lateness that each other event needs.

    No key if there are none. Events outside ``usual`` count as though they were not there.
    """
    left, names = _sources(frames, usual)
    total = sum(len(times) for _, times, _ in left)
    widest = first = _widest(left)
    found: list[Apart] = []
    while first.lag_us >= LEAST_US and widest.lag_us * _LESS > first.lag_us:
        choices = []
        for event, ahead in ((widest.newest, True), (widest.late, False)):
            rest = [_only(each, each[2] != event.key) for each in left]
            count = sum(map(_size, left)) - sum(map(_size, rest))
            apart = Apart(names[event.key], count, widest.partition, event.time_us, ahead)
            choices.append((_widest(rest), count, rest, apart))
        widest, _, left, apart = min(choices, key=lambda each: (each[0].lag_us, each[1]))
        found.append(apart)
        if len(found) > _MOST_APART or sum(each.events for each in found) > _SHARE_APART * total:
            return [], np.empty(0, np.int64)
    lags = [_lags(times) for _, times, _ in left] if found else []
    return found, np.concatenate([np.empty(0, np.int64), *lags])


_Rows = tuple[int, NDArray[np.int64], NDArray[np.int32]]
"""Partition, times and numbers of the keys of the events of one source."""


def _sources(
    frames: Mapping[int, Iterable[Frame]], usual: tuple[int, int] | None
) -> tuple[list[_Rows], list[str | None]]:
    """The events of each source, and the keys by number; no key is the number -1."""
    kept = [(number, frame) for number, every in frames.items() for frame in every if frame.num_rows]
    if not kept:
        return [], []
    encoded = concat_columns([key_column(frame.column("key")) for _, frame in kept]).dictionary_encode()
    numbers = encoded.indices.fill_null(-1).to_numpy()
    parts: dict[tuple[int, str], list[tuple[NDArray[np.int64], NDArray[np.int32]]]] = {}
    first = 0
    for number, frame in kept:
        parts.setdefault((number, frame.origin), []).append(
            (frame.timestamps(), numbers[first : first + frame.num_rows])
        )
        first += frame.num_rows
    sources = []
    for (number, _), each in parts.items():
        rows = (number, np.concatenate([times for times, _ in each]), np.concatenate([keys for _, keys in each]))
        within = np.ones(len(rows[1]), np.bool_) if usual is None else (rows[1] >= usual[0]) & (rows[1] <= usual[1])
        sources.append(_only(rows, within))
    return sources, [*encoded.dictionary.to_pylist(), None]


def _only(rows: _Rows, chosen: NDArray[np.bool_]) -> _Rows:
    return rows[0], rows[1][chosen], rows[2][chosen]


def _lags(times: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.maximum.accumulate(times) - times


def _size(rows: _Rows) -> int:
    return len(rows[1])


class _Event(NamedTuple):
    key: int
    time_us: int


class _Widest(NamedTuple):
    """The greatest lateness that an event needs, that event, and the one that makes it late."""

    lag_us: int = 0
    partition: int = 0
    late: _Event = _Event(-1, 0)
    newest: _Event = _Event(-1, 0)


def _widest(sources: Sequence[_Rows]) -> _Widest:
    best = _Widest()
    for number, times, keys in sources:
        if len(times):
            lags = _lags(times)
            at = int(lags.argmax())
            newest = int(times[: at + 1].argmax())
            if lags[at] > best.lag_us:
                events = (_Event(int(keys[each]), int(times[each])) for each in (at, newest))
                best = _Widest(int(lags[at]), number, *events)
    return best

"""Events of a sample whose clocks seem wrong: times far from nearly all others, and keys far from all others.

Figures leave them out and name them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from astrocyte.schemas.frames import Frame
from astrocyte.schemas.times import DOUBTED_US
from astrocyte.schemas.values.mixed import concat_columns, key_column

__all__ = ["Apart", "Clocks", "Stray", "clocks_of", "usual_times"]

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
_LEAST_US: Final = 60_000_000
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
    is_wrong: bool = False
    """Whether its clock is wrong: figures leave its events out. One that is behind may have sent late instead."""


@dataclass(frozen=True, slots=True)
class Stray:
    """An event far from nearly all others."""

    partition: int
    time_us: int
    key: str | None


@dataclass(frozen=True, slots=True)
class Clocks:
    """What the times of a sample say of the clocks by which they were taken."""

    usual: tuple[int, int] | None = None
    """First and last time of the events that are neither strays nor of a wrong clock."""
    strays: list[Stray] = field(default_factory=list)
    apart: list[Apart] = field(default_factory=list)
    enough_us: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    """Lateness that each event needs where the keys ``apart`` are left out; empty without any."""
    lags_us: dict[int, NDArray[np.int64]] = field(default_factory=dict)
    """The same by partition where only those with wrong clocks are left out; empty where no clock is wrong."""

    @property
    def wrong(self) -> list[Apart]:
        """The keys whose clocks are wrong."""
        return [each for each in self.apart if each.is_wrong]

    @property
    def left_out(self) -> int:
        """Number of events that are strays or of wrong clocks."""
        return len(self.strays) + sum(each.events for each in self.wrong)

    @property
    def usual_span_us(self) -> int:
        """Time from the first usual event to the last."""
        return 0 if self.usual is None else self.usual[1] - self.usual[0]


def clocks_of(frames: Mapping[int, Iterable[Frame]], *, tolerance_us: int) -> Clocks:
    """Which keys and events of a sample are far from the others, and which clocks are wrong by more than a tolerance.

    A clock that is ahead of all other keys of its partition is wrong. One that is behind is wrong if it is so by nearly
    the same time in all events (its 10th and 90th percentile differ by at most a tenth of the median), or shows a time
    before 1980; else the events rather were sent late.
    """
    every, names = _sources(frames)
    times = np.concatenate([np.empty(0, np.int64), *(rows[1] for rows in every)])
    usual = usual_times(times)
    if usual is None:
        return Clocks()
    found, left = _all_apart([_within(rows, usual) for rows in every], names)
    numbers = {name: number for number, name in enumerate(names[:-1])} | {None: -1}
    base = [numbers[each.key] for each in found]
    found = [replace(each, is_wrong=_is_wrong(each, numbers[each.key], every, base, tolerance_us)) for each in found]
    wrong = [numbers[each.key] for each in found if each.is_wrong]
    kept = [_only(rows, ~np.isin(rows[2], wrong)) for rows in every] if wrong else every
    if wrong:
        usual = usual_times(np.concatenate([np.empty(0, np.int64), *(rows[1] for rows in kept)])) or usual
        found = [replace(each, events=_count(every, numbers[each.key])) if each.is_wrong else each for each in found]
    strays = [
        Stray(number, time_us, names[key])
        for number, stamps, keys in kept
        for far in [(stamps < usual[0]) | (stamps > usual[1])]
        for time_us, key in zip(stamps[far].tolist(), keys[far].tolist(), strict=True)
    ]
    lags: dict[int, NDArray[np.int64]] = {}
    for rows in (_within(rows, usual) for rows in kept) if wrong else ():
        lags[rows[0]] = np.concatenate([lags.get(rows[0], np.empty(0, np.int64)), _lags(rows[1])])
    enough = np.concatenate([np.empty(0, np.int64), *(_lags(rows[1]) for rows in left if found)])
    return Clocks(usual, strays, found, enough, lags)


def _all_apart(left: list[_Rows], names: Sequence[str | None]) -> tuple[list[Apart], list[_Rows]]:
    """Few keys without which a much smaller lateness is enough, and the events of the others.

    One key may hide another whose time is less far from the others: each time some were found, the rest is searched.
    """
    total = sum(map(_size, left))
    found: list[Apart] = []
    while (more := _apart(left, names, found, total)) is not None:
        found, left = more
    return found, left


def _apart(
    left: list[_Rows], names: Sequence[str | None], known: Sequence[Apart], total: int
) -> tuple[list[Apart], list[_Rows]] | None:
    """``known`` and the keys without which the lateness is much smaller; None where there are no such."""
    widest = first = _widest(left)
    found = list(known)
    if first.lag_us < _LEAST_US:
        return None
    while widest.lag_us * _LESS > first.lag_us:
        choices = []
        for event, ahead in ((widest.newest, True), (widest.late, False)):
            rest = [_only(each, each[2] != event.key) for each in left]
            count = sum(map(_size, left)) - sum(map(_size, rest))
            apart = Apart(names[event.key], count, widest.partition, event.time_us, ahead)
            choices.append((_widest(rest), count, rest, apart))
        widest, _, left, apart = min(choices, key=lambda each: (each[0].lag_us, each[1]))
        found.append(apart)
        if len(found) > _MOST_APART or sum(each.events for each in found) > _SHARE_APART * total:
            return None
    return found, left


def _is_wrong(each: Apart, key: int, sources: Sequence[_Rows], apart: Sequence[int], tolerance_us: int) -> bool:
    """Whether the clock of a key is wrong, from the times of its events and of the keys that are not ``apart``."""
    leads = [np.empty(0, np.int64)]
    for _, times, keys in sources:
        base = ~np.isin(keys, apart)
        if base.any():
            newest = np.maximum.accumulate(np.where(base, times, int(times[base][0])))
            leads.append((times - newest)[keys == key])
    lead = np.concatenate(leads)
    if not len(lead):
        return False
    if each.ahead:
        return int(lead.max()) > tolerance_us
    low, middle, high = np.quantile(-lead, (0.1, 0.5, 0.9))
    return bool(middle > tolerance_us and (high - low <= middle / 10 or each.time_us < DOUBTED_US))


_Rows = tuple[int, NDArray[np.int64], NDArray[np.int32]]
"""Partition, times and numbers of the keys of the events of one source."""


def _sources(frames: Mapping[int, Iterable[Frame]]) -> tuple[list[_Rows], list[str | None]]:
    """The events of each source, and the keys by number; no key is the number -1."""
    kept = [(number, frame) for number, every in frames.items() for frame in every if frame.num_rows]
    if not kept:
        return [], [None]
    encoded = concat_columns([key_column(frame.column("key")) for _, frame in kept]).dictionary_encode()
    numbers = encoded.indices.fill_null(-1).to_numpy()
    parts: dict[tuple[int, str], list[tuple[NDArray[np.int64], NDArray[np.int32]]]] = {}
    first = 0
    for number, frame in kept:
        parts.setdefault((number, frame.origin), []).append(
            (frame.timestamps(), numbers[first : first + frame.num_rows])
        )
        first += frame.num_rows
    sources = [
        (number, np.concatenate([times for times, _ in each]), np.concatenate([keys for _, keys in each]))
        for (number, _), each in parts.items()
    ]
    return sources, [*encoded.dictionary.to_pylist(), None]


def _within(rows: _Rows, span: tuple[int, int]) -> _Rows:
    return _only(rows, (rows[1] >= span[0]) & (rows[1] <= span[1]))


def _count(sources: Sequence[_Rows], key: int) -> int:
    return sum(int((keys == key).sum()) for _, _, keys in sources)


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

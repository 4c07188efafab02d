"""Events of a sample whose clocks seem wrong: ahead of Kafka's time, or far from nearly all others.

Figures leave them out and name them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from astrocyte.pipeline.analysis.inspect.clocks.ahead import Ahead, ahead_of
from astrocyte.pipeline.analysis.inspect.clocks.rows import Rows, Taken, sources_of
from astrocyte.schemas.times import DOUBTED_US

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
    ahead: list[Ahead] = field(default_factory=list)
    """Keys with events that are ahead of Kafka's time, or that a worker would hold."""
    apart: list[Apart] = field(default_factory=list)
    enough_us: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    """Lateness that each event needs where the keys ``apart`` are left out; empty without any."""
    lags_us: dict[int, NDArray[np.int64]] = field(default_factory=dict)
    """The same by partition where only the events of wrong clocks are left out; empty where no clock is wrong."""

    @property
    def wrong(self) -> list[Apart]:
        """The keys whose clocks are wrong."""
        return [each for each in self.apart if each.is_wrong]

    @property
    def leave_out(self) -> bool:
        """Whether figures leave out events of wrong clocks."""
        return bool(self.wrong) or any(each.is_left_out for each in self.ahead)

    @property
    def left_out(self) -> int:
        """Number of events that are strays or of wrong clocks."""
        ahead = sum(each.events for each in self.ahead if each.is_left_out)
        return len(self.strays) + sum(each.events for each in self.wrong) + ahead

    @property
    def usual_span_us(self) -> int:
        """Time from the first usual event to the last."""
        return 0 if self.usual is None else self.usual[1] - self.usual[0]


def clocks_of(taken: Mapping[int, Iterable[Taken]], *, tolerance_us: int) -> Clocks:
    """Which keys and events of a sample are far from the others, and which clocks are wrong by more than a tolerance.

    ``taken``: by partition. What is ahead of Kafka's time (`ahead_of`) is left out of all that follows. A clock that is
    ahead of all other keys of its partition is wrong. One that is behind is wrong if it is so by nearly the same time
    in all events (its 10th and 90th percentile differ by at most a tenth of the median), or shows a time before 1980;
    else the events rather were sent late.
    """
    every, names = sources_of(taken)
    ahead, every = ahead_of(every, names, tolerance_us=tolerance_us)
    usual = usual_times(np.concatenate([np.empty(0, np.int64), *(rows.times for rows in every)]))
    if usual is None:
        return Clocks(ahead=ahead)
    found, left = _all_apart([_within(rows, usual) for rows in every], names)
    numbers = {name: number for number, name in enumerate(names[:-1])} | {None: -1}
    base = [numbers[each.key] for each in found]
    found = [replace(each, is_wrong=_is_wrong(each, numbers[each.key], every, base, tolerance_us)) for each in found]
    wrong = [numbers[each.key] for each in found if each.is_wrong]
    kept = [rows.only(~np.isin(rows.keys, wrong)) for rows in every] if wrong else every
    if wrong:
        usual = usual_times(np.concatenate([np.empty(0, np.int64), *(rows.times for rows in kept)])) or usual
        found = [replace(each, events=_count(every, numbers[each.key])) if each.is_wrong else each for each in found]
    strays = [
        Stray(rows.partition, time_us, names[key])
        for rows in kept
        for far in [rows.only((rows.times < usual[0]) | (rows.times > usual[1]))]
        for time_us, key in zip(far.times.tolist(), far.keys.tolist(), strict=True)
    ]
    lags: dict[int, NDArray[np.int64]] = {}
    for rows in (_within(rows, usual) for rows in kept) if wrong or any(each.is_left_out for each in ahead) else ():
        lags[rows.partition] = np.concatenate([lags.get(rows.partition, np.empty(0, np.int64)), _lags(rows.times)])
    enough = np.concatenate([np.empty(0, np.int64), *(_lags(rows.times) for rows in left if found)])
    return Clocks(usual, strays, ahead, found, enough, lags)


def _all_apart(left: list[Rows], names: Sequence[str | None]) -> tuple[list[Apart], list[Rows]]:
    """Few keys without which a much smaller lateness is enough, and the events of the others.

    One key may hide another whose time is less far from the others: each time some were found, the rest is searched.
    """
    total = sum(map(_size, left))
    found: list[Apart] = []
    while (more := _apart(left, names, found, total)) is not None:
        found, left = more
    return found, left


def _apart(
    left: list[Rows], names: Sequence[str | None], known: Sequence[Apart], total: int
) -> tuple[list[Apart], list[Rows]] | None:
    """``known`` and the keys without which the lateness is much smaller; None where there are no such."""
    widest = first = _widest(left)
    found = list(known)
    if first.lag_us < _LEAST_US:
        return None
    while widest.lag_us * _LESS > first.lag_us:
        choices = []
        for event, ahead in ((widest.newest, True), (widest.late, False)):
            rest = [each.only(each.keys != event.key) for each in left]
            count = sum(map(_size, left)) - sum(map(_size, rest))
            apart = Apart(names[event.key], count, widest.partition, event.time_us, ahead)
            choices.append((_widest(rest), count, rest, apart))
        widest, _, left, apart = min(choices, key=lambda each: (each[0].lag_us, each[1]))
        found.append(apart)
        if len(found) > _MOST_APART or sum(each.events for each in found) > _SHARE_APART * total:
            return None
    return found, left


def _is_wrong(each: Apart, key: int, sources: Sequence[Rows], apart: Sequence[int], tolerance_us: int) -> bool:
    """Whether the clock of a key is wrong, from the times of its events and of the keys that are not ``apart``."""
    leads = [np.empty(0, np.int64)]
    for rows in sources:
        base = ~np.isin(rows.keys, apart)
        if base.any():
            newest = np.maximum.accumulate(np.where(base, rows.times, int(rows.times[base][0])))
            leads.append((rows.times - newest)[rows.keys == key])
    lead = np.concatenate(leads)
    if not len(lead):
        return False
    if each.ahead:
        return int(lead.max()) > tolerance_us
    low, middle, high = np.quantile(-lead, (0.1, 0.5, 0.9))
    return bool(middle > tolerance_us and (high - low <= middle / 10 or each.time_us < DOUBTED_US))


def _within(rows: Rows, span: tuple[int, int]) -> Rows:
    return rows.only((rows.times >= span[0]) & (rows.times <= span[1]))


def _count(sources: Sequence[Rows], key: int) -> int:
    return sum(int((rows.keys == key).sum()) for rows in sources)


def _lags(times: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.maximum.accumulate(times) - times


def _size(rows: Rows) -> int:
    return len(rows.times)


class _Event(NamedTuple):
    key: int
    time_us: int


class _Widest(NamedTuple):
    """The greatest lateness that an event needs, that event, and the one that makes it late."""

    lag_us: int = 0
    partition: int = 0
    late: _Event = _Event(-1, 0)
    newest: _Event = _Event(-1, 0)


def _widest(sources: Sequence[Rows]) -> _Widest:
    best = _Widest()
    for rows in sources:
        if len(rows.times):
            lags = _lags(rows.times)
            at = int(lags.argmax())
            newest = int(rows.times[: at + 1].argmax())
            if lags[at] > best.lag_us:
                events = (_Event(int(rows.keys[each]), int(rows.times[each])) for each in (at, newest))
                best = _Widest(int(lags[at]), rows.partition, *events)
    return best

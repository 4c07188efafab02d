"""Operators of a stratum that make streams, windows and statistics, each with the rows that wait for it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from astrocyte.agents.event_time.event_store import Block, EventStore
from astrocyte.agents.event_time.reorder import Pending, Reorder
from astrocyte.agents.ingest.faults import OperatorFailed
from astrocyte.agents.insight.operator import InsightOperator
from astrocyte.agents.insight.rows import Rows
from astrocyte.agents.rules.insight import StatisticSpec
from astrocyte.agents.rules.windows import Window
from astrocyte.agents.windows import WindowOperator, WindowRows
from astrocyte.schemas.catalog import Catalog
from astrocyte.schemas.frames import Frame

__all__ = ["Making", "MakingStatistic", "MakingWindow", "joined", "only"]

Refs = NDArray[np.int64]


class Making:
    """An operator that makes the stream ``spec.name``, and the rows that wait for it."""

    spec: Window | StatisticSpec
    operator: WindowOperator | InsightOperator
    streams: frozenset[str]
    """Streams that it reads."""
    waiting: tuple[Reorder[Any], ...]
    kind: str

    def prepare(self, frame: Frame, refs: Refs, rank: int) -> list[Callable[[], None]]:
        """Steps that let the rows of a frame of its streams wait; ``refs`` are their handles."""
        raise NotImplementedError

    def revise(self, frame: Frame) -> list[Callable[[], object]]:  # noqa: ARG002  windows use it
        """Steps that give it late rows; none if its results are final."""
        return []

    def _close(self, watermark_us: int, store: EventStore) -> Iterator[tuple[Frame | None, bool]]:
        raise NotImplementedError

    def close(self, watermark_us: int, store: EventStore) -> Iterator[tuple[Frame, bool]]:
        """Results of what the watermark has passed; the flag says whether rules may read them (preliminary ones: not).

        Raises OperatorFailed.
        """
        try:
            made = list(self._close(watermark_us, store))
        except Exception as error:
            raise OperatorFailed(f"{self.kind} {self.spec.name!r} failed: {type(error).__name__}: {error}") from error
        yield from ((frame, final) for frame, final in made if frame is not None)

    def refs(self) -> list[Refs]:
        """Handles of the events that wait."""
        return [refs for waiting in self.waiting for refs in waiting.refs()]

    def times_us(self) -> list[int | None]:
        """Oldest times of the state and of what waits."""
        return [self.operator.low_water_us(), *(waiting.oldest_us() for waiting in self.waiting)]

    def snapshot(self) -> dict[str, Any]:
        """State, and the handles of the rows that wait."""
        return {"state": self.operator.snapshot(), "waiting": joined(self.refs())}

    def restore(self, snapshot: Mapping[str, Any], blocks: Sequence[Block], rank_of: Callable[[str], int]) -> None:
        """Take over a snapshot; the rows that wait are prepared anew from ``blocks``."""
        self.operator.restore(snapshot["state"])
        for waiting in self.waiting:
            waiting.clear()
        wanted = np.unique(snapshot["waiting"])
        for block in blocks:
            if block.frame.stream in self.streams:
                part, named = only(block.frame, block.all_refs(), wanted)
                for step in [] if part is None else self.prepare(part, named, rank_of(block.frame.stream)):
                    step()


class MakingWindow(Making):
    """A window."""

    kind = "window"
    spec: Window
    operator: WindowOperator

    def __init__(self, spec: Window, catalog: Catalog) -> None:
        self.spec = spec
        self.streams = frozenset([spec.source])
        self._rows: Reorder[WindowRows] = Reorder()
        self.waiting = (self._rows,)
        self.operator = WindowOperator(spec, catalog=catalog, waiting=self._rows.rows)

    def prepare(self, frame: Frame, refs: Refs, rank: int) -> list[Callable[[], None]]:
        """See `Making.prepare`."""
        chosen = self.operator.prepare(frame)
        if not len(chosen):
            return []
        return [partial(self._rows.push, Pending.of(frame, chosen, refs[chosen.row], rank))]

    def revise(self, frame: Frame) -> list[Callable[[], object]]:
        """See `Making.revise`."""
        if self.spec.late != "revise":
            return []
        return [partial(self.operator.add, self.operator.prepare(frame))]

    def _close(self, watermark_us: int, store: EventStore) -> Iterator[tuple[Frame | None, bool]]:
        ready = self._rows.pop(watermark_us, store)
        if ready is not None:
            self.operator.add(ready[0])
        yield self.operator.updates(), False
        yield self.operator.advance(watermark_us), True


class MakingStatistic(Making):
    """A statistic, with the rows that wait for each of its sources."""

    kind = "statistic"
    spec: StatisticSpec
    operator: InsightOperator

    def __init__(self, spec: StatisticSpec) -> None:
        self.spec = spec
        self.operator = InsightOperator(spec.built)
        self.streams = frozenset(self.operator.streams)
        self.waiting: tuple[Reorder[Rows], ...] = tuple(Reorder() for _ in spec.built.sources)

    def prepare(self, frame: Frame, refs: Refs, rank: int) -> list[Callable[[], None]]:
        """See `Making.prepare`."""
        return [
            partial(self.waiting[number].push, Pending.of(frame, rows, refs[rows.row], rank))
            for number, rows in self.operator.prepare(frame)
        ]

    def times_us(self) -> list[int | None]:
        """See `Making.times_us`; without rows that are kept for windows of which none has come yet."""
        kept_us, *waiting = super().times_us()
        return [None if self.operator.next_close_us() is None else kept_us, *waiting]

    def _close(self, watermark_us: int, store: EventStore) -> Iterator[tuple[Frame | None, bool]]:  # noqa: ARG002
        # The operator orders the rows of a window itself, by their contents.
        for number, waiting in enumerate(self.waiting):
            for part in waiting.older(watermark_us):
                self.operator.take(number, part.rows)
        yield self.operator.advance(watermark_us), True


def joined(parts: Sequence[Refs]) -> Refs:
    """All handles of the parts."""
    return np.concatenate([*parts, np.empty(0, np.int64)])


def only(frame: Frame, refs: Refs, wanted: Refs) -> tuple[Frame | None, Refs]:
    """The rows of a frame whose handles are wanted, with these; None if there are none."""
    rows = np.flatnonzero(np.isin(refs, wanted))
    if not len(rows):
        return None, refs[:0]
    return (frame, refs) if len(rows) == len(refs) else (frame.take(rows), refs[rows])

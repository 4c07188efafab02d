"""Rules, windows and statistics in strata: each reads only results of earlier strata.

Within one stratum nothing depends on anything else, so a stratum takes all rows older than the watermark at once; the
results that it makes of them are older than the watermark too and reach the later strata in the same step. That gives
the same results as taking every row and every result one by one in order of time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from graphlib import CycleError, TopologicalSorter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from astrocyte.agents.cep.match_columns import MatchBatch
from astrocyte.agents.cep.matcher import Matcher
from astrocyte.agents.cep.rows import Prepared
from astrocyte.agents.engine.operators import Making, MakingStatistic, MakingWindow, joined, only
from astrocyte.agents.event_time.event_store import Block, EventStore
from astrocyte.agents.event_time.reorder import Pending, Reorder
from astrocyte.agents.ingest.faults import OperatorFailed
from astrocyte.agents.rules.graph.circles import refuse_circles
from astrocyte.agents.rules.graph.links import junction_sources, sources_of
from astrocyte.agents.rules.insight import StatisticSpec
from astrocyte.agents.rules.model import Rule, RuleSet
from astrocyte.agents.rules.windows import Window
from astrocyte.schemas.catalog import Catalog
from astrocyte.schemas.errors import InvalidRule
from astrocyte.schemas.frames import Frame

__all__ = ["Stratum", "revision", "stratify"]

Refs = NDArray[np.int64]
Maker = Window | StatisticSpec
"""What makes a stream of results."""


def stratify(ruleset: RuleSet) -> list[tuple[list[Rule], list[Maker]]]:
    """Rules, and windows and statistics, by stratum.

    Raises InvalidRule where results would have to be known before their own causes.
    """
    refuse_circles(ruleset)
    led, made = junction_sources(ruleset), sources_of(ruleset)
    sources = {name: [source for source in read if source in made] for name, read in made.items()}
    levels: dict[str, int] = {}
    try:
        order = [*TopologicalSorter(sources).static_order()]
    except CycleError as error:
        raise InvalidRule(
            f"a circle of junctions: {' -> '.join(error.args[1][::-1])}; one engine cannot run it: run these rules by "
            "'astrocyte match' or in a worker"
        ) from None
    for name in order:
        # A junction only renames the matches of its rules: it has their level.
        levels[name] = max((levels[source] + (name not in led) for source in sources[name]), default=0)
    strata: list[tuple[list[Rule], list[Maker]]] = [([], []) for _ in range(max(levels.values(), default=0) + 1)]
    for rule in ruleset.rules:
        strata[levels[rule.name]][0].append(rule)
    for maker in (*ruleset.windows, *ruleset.insight):
        strata[levels[maker.name]][1].append(maker)
    return strata


def revision(strata: Iterable[Stratum], late: Frame) -> Callable[[], bool]:
    """A function that gives late rows to the windows with ``late: revise``; it returns whether there is one.

    A row that a window cannot take raises here, before anything has changed. The function raises OperatorFailed.
    """
    steps = [step for stratum in strata for step in stratum.revise(late)]

    def revise() -> bool:
        try:
            for step in steps:
                step()
        except Exception as error:
            raise OperatorFailed(f"a window over {late.stream} failed: {type(error).__name__}: {error}") from error
        return bool(steps)

    return revise


class Stratum:
    """Rules, windows and statistics that need nothing of one another, with the rows that wait for them."""

    def __init__(self, catalog: Catalog, clock: Callable[[], int] | None) -> None:
        self._catalog = catalog
        self.waiting: Reorder[Prepared] = Reorder()
        self.matcher = Matcher([], clock=clock, waiting=self.waiting.rows)
        self._makers: dict[str, Making] = {}

    def update(self, rules: Sequence[Rule], makers: Sequence[Maker], watermark_us: int) -> None:
        """Put rules, windows and statistics in force; unchanged ones keep their state. Raises InvalidRule."""
        kept = self._makers
        made = {
            spec.name: kept[spec.name] if spec.name in kept and kept[spec.name].spec == spec else self._making(spec)
            for spec in makers
        }
        self.matcher.update(rules)
        self._makers = made
        self.pass_time(watermark_us)

    def _making(self, spec: Maker) -> Making:
        return MakingWindow(spec, self._catalog) if isinstance(spec, Window) else MakingStatistic(spec)

    def pass_time(self, watermark_us: int) -> None:
        """Tell operators that have seen no row how far event time is."""
        for maker in self._makers.values():
            maker.operator.pass_time(watermark_us)

    @property
    def streams(self) -> frozenset[str]:
        """Streams that the stratum reads."""
        return self.matcher.streams.union(*(maker.streams for maker in self._makers.values()))

    def prepare(self, frame: Frame, first_ref: int, rank: int) -> list[Callable[[], None]]:
        """Steps that let the rows of a frame wait, none if no row can matter. Row i has the ref ``first_ref`` + i.

        All that a row can cause to fail happens here, and changes nothing but the numbers of keys and strings.
        """
        steps: list[Callable[[], None]] = []
        if frame.stream in self.matcher.streams:
            rows = self.matcher.prepare(frame, first_ref)
            if len(rows):
                steps.append(partial(self.waiting.push, Pending.of(frame, rows, rows.ref, rank)))
        for maker in self._makers.values():
            if frame.stream in maker.streams:
                steps += maker.prepare(frame, np.arange(first_ref, first_ref + frame.num_rows), rank)
        return steps

    def push(self, frame: Frame, first_ref: int, rank: int) -> bool:
        """Let the rows of a frame wait; False if none can matter."""
        steps = self.prepare(frame, first_ref, rank)
        for step in steps:
            step()
        return bool(steps)

    def revise(self, frame: Frame) -> list[Callable[[], object]]:
        """Steps that give late rows to the windows that revise their results, none if there is no such window."""
        makers = [maker for maker in self._makers.values() if frame.stream in maker.streams]
        return [step for maker in makers for step in maker.revise(frame)]

    def advance(self, watermark_us: int, store: EventStore) -> MatchBatch:
        """Matches of rows older than the watermark, and matches and timeouts decided by time before it."""
        batches = []
        ready = self.waiting.pop(watermark_us, store)
        if ready is not None:
            batches.append(self.matcher.process(ready[0]))
        # An instant counts as past only when the watermark is beyond it: each step then puts out whole instants, and
        # the order of all outputs does not depend on where the steps lie.
        batches.append(self.matcher.advance(watermark_us - 1))
        return MatchBatch.concat(batches)

    def decided(self, batch: MatchBatch, newest_us: int) -> MatchBatch:
        """The matches without those of ``at_end: ignore`` that are newer than the newest event of the input."""
        ignores = np.array([rule.at_end == "ignore" for rule in self.matcher.rules], np.bool_)
        if not ignores.any():
            return batch
        return batch.take(np.flatnonzero(~ignores[batch.rule] | (batch.time_us <= newest_us)))

    def close(self, watermark_us: int, store: EventStore) -> Iterable[tuple[Frame, bool]]:
        """Results of the stratum's windows and statistics; the flag says whether rules may read them.

        Raises OperatorFailed.
        """
        for maker in self._makers.values():
            yield from maker.close(watermark_us, store)

    def flush(self) -> tuple[MatchBatch, list[Frame]]:
        """All input is over, and all rows were taken by `advance` and `close`: everything ends."""
        frames = [maker.operator.flush() for maker in self._makers.values()]
        return self.matcher.flush(), [frame for frame in frames if frame is not None]

    def pending_refs(self) -> list[Refs]:
        """Handles of the events that wait."""
        return [*self.waiting.refs(), *(refs for maker in self._makers.values() for refs in maker.refs())]

    def low_water_us(self) -> int | None:
        """Oldest time that anything here still depends on."""
        times = [self.matcher.low_water_us(), self.waiting.oldest_us()]
        for maker in self._makers.values():
            times += maker.times_us()
        return min((time for time in times if time is not None), default=None)

    def counters(self) -> Iterable[tuple[Rule, dict[str, int]]]:
        """The rules, each with what came of it."""
        return zip(self.matcher.rules, self.matcher.counters(), strict=True)

    def size(self) -> int:
        """Rows that wait."""
        return len(self.waiting) + sum(len(rows) for maker in self._makers.values() for rows in maker.waiting)

    def snapshot(self) -> dict[str, Any]:
        """State, and the handles of the rows that wait."""
        makers = {name: maker.snapshot() for name, maker in self._makers.items()}
        return {"matcher": self.matcher.snapshot(), "waiting": joined(self.waiting.refs()), "windows": makers}

    def restore(self, snapshot: Mapping[str, Any], blocks: Sequence[Block], rank_of: Callable[[str], int]) -> None:
        """Take over a snapshot; the rows that wait are prepared anew from ``blocks``."""
        self.matcher.restore(snapshot["matcher"])
        self.waiting.clear()
        waiting = np.unique(snapshot["waiting"])
        for name, maker in self._makers.items():
            maker.restore(snapshot["windows"][name], blocks, rank_of)
        for block in blocks:
            frame, refs, rank = block.frame, block.all_refs(), rank_of(block.frame.stream)
            if frame.stream in self.matcher.streams:
                part, named = only(frame, refs, waiting)
                if part is not None:
                    rows = self.matcher.prepare(part, 0)
                    rows = replace(rows, ref=named[rows.ref])
                    self.waiting.push(Pending.of(part, rows, rows.ref, rank))

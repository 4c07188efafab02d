"""Rules and windows in strata: each reads only results of earlier strata.

Within one stratum nothing depends on anything else, so a stratum takes all rows older than the watermark at once; the
results that it makes of them are older than the watermark too and reach the later strata in the same step. That gives
the same results as taking every row and every result one by one in order of time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from graphlib import TopologicalSorter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from astrocyte.agents.cep.match_columns import MatchBatch
from astrocyte.agents.cep.matcher import Matcher
from astrocyte.agents.cep.rows import Prepared
from astrocyte.agents.event_time.event_store import Block, EventStore
from astrocyte.agents.event_time.reorder import Pending, Reorder
from astrocyte.agents.ingest.faults import OperatorFailed
from astrocyte.agents.rules.circles import refuse_circles
from astrocyte.agents.rules.model import Rule, RuleSet
from astrocyte.agents.rules.windows import Window
from astrocyte.agents.windows import WindowOperator, WindowRows
from astrocyte.schemas.catalog import Catalog
from astrocyte.schemas.frames import Frame

__all__ = ["Stratum", "revision", "stratify"]

Refs = NDArray[np.int64]


def stratify(ruleset: RuleSet) -> list[tuple[list[Rule], list[Window]]]:
    """Rules and windows by stratum. Raises InvalidRule where results would have to be known before their own causes."""
    refuse_circles(ruleset)
    sources: dict[str, Sequence[str]] = {window.name: [window.source] for window in ruleset.windows}
    sources |= {rule.name: rule.streams for rule in ruleset.rules}
    sources = {name: [source for source in read if source in sources] for name, read in sources.items()}
    levels: dict[str, int] = {}
    for name in TopologicalSorter(sources).static_order():
        levels[name] = max((levels[source] + 1 for source in sources[name]), default=0)
    strata: list[tuple[list[Rule], list[Window]]] = [([], []) for _ in range(max(levels.values(), default=0) + 1)]
    for rule in ruleset.rules:
        strata[levels[rule.name]][0].append(rule)
    for window in ruleset.windows:
        strata[levels[window.name]][1].append(window)
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


class _Window:
    """A window operator and the rows that wait for it."""

    def __init__(self, spec: Window, catalog: Catalog) -> None:
        self.waiting: Reorder[WindowRows] = Reorder()
        self.operator = WindowOperator(spec, catalog=catalog, waiting=self.waiting.rows)


class Stratum:
    """Rules and windows that need nothing of one another, with the rows that wait for them."""

    def __init__(self, catalog: Catalog, clock: Callable[[], int] | None) -> None:
        self._catalog = catalog
        self.waiting: Reorder[Prepared] = Reorder()
        self.matcher = Matcher([], clock=clock, waiting=self.waiting.rows)
        self._windows: dict[str, _Window] = {}

    def update(self, rules: Sequence[Rule], windows: Sequence[Window], watermark_us: int) -> None:
        """Put rules and windows in force; unchanged ones keep their state. Raises InvalidRule."""
        kept = self._windows
        made = {
            spec.name: kept[spec.name]
            if spec.name in kept and kept[spec.name].operator.spec == spec
            else _Window(spec, self._catalog)
            for spec in windows
        }
        self.matcher.update(rules)
        self._windows = made
        self.pass_time(watermark_us)

    def pass_time(self, watermark_us: int) -> None:
        """Tell windows that have seen no row how far event time is."""
        for window in self._windows.values():
            window.operator.pass_time(watermark_us)

    @property
    def streams(self) -> frozenset[str]:
        """Streams that the stratum reads."""
        return self.matcher.streams | {window.operator.spec.source for window in self._windows.values()}

    def prepare(self, frame: Frame, first_ref: int, rank: int) -> list[Callable[[], None]]:
        """Steps that let the rows of a frame wait, none if no row can matter. Row i has the ref ``first_ref`` + i.

        All that a row can cause to fail happens here, and changes nothing but the numbers of keys and strings.
        """
        steps: list[Callable[[], None]] = []
        if frame.stream in self.matcher.streams:
            rows = self.matcher.prepare(frame, first_ref)
            if len(rows):
                steps.append(partial(self.waiting.push, Pending.of(frame, rows, rows.ref, rank)))
        for window in self._windows.values():
            if window.operator.spec.source == frame.stream:
                chosen = window.operator.prepare(frame)
                if len(chosen):
                    pending = Pending.of(frame, chosen, first_ref + chosen.row, rank)
                    steps.append(partial(window.waiting.push, pending))
        return steps

    def push(self, frame: Frame, first_ref: int, rank: int) -> bool:
        """Let the rows of a frame wait; False if none can matter."""
        steps = self.prepare(frame, first_ref, rank)
        for step in steps:
            step()
        return bool(steps)

    def revise(self, frame: Frame) -> list[Callable[[], object]]:
        """Steps that give late rows to the windows that revise their results, none if there is no such window."""
        windows = [w.operator for w in self._windows.values() if w.operator.spec.late == "revise"]
        windows = [operator for operator in windows if operator.spec.source == frame.stream]
        return [partial(operator.add, operator.prepare(frame)) for operator in windows]

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
        """Results of the stratum's windows; the flag says whether rules may read them (preliminary ones: not)."""
        for name, window in self._windows.items():
            try:
                ready = window.waiting.pop(watermark_us, store)
                if ready is not None:
                    window.operator.add(ready[0])
                made = ((window.operator.updates(), False), (window.operator.advance(watermark_us), True))
            except Exception as error:
                raise OperatorFailed(f"window {name!r} failed: {type(error).__name__}: {error}") from error
            for frame, final in made:
                if frame is not None:
                    yield frame, final

    def flush(self) -> tuple[MatchBatch, list[Frame]]:
        """All input is over, and all rows were taken by `advance` and `close`: everything ends."""
        frames = [window.operator.flush() for window in self._windows.values()]
        return self.matcher.flush(), [frame for frame in frames if frame is not None]

    def pending_refs(self) -> list[Refs]:
        """Handles of the events that wait."""
        found = self.waiting.refs()
        for window in self._windows.values():
            found += window.waiting.refs()
        return found

    def low_water_us(self) -> int | None:
        """Oldest time that anything here still depends on."""
        times = [self.matcher.low_water_us(), self.waiting.oldest_us()]
        for window in self._windows.values():
            times += [window.operator.low_water_us(), window.waiting.oldest_us()]
        return min((time for time in times if time is not None), default=None)

    def size(self) -> int:
        """Rows that wait."""
        return len(self.waiting) + sum(len(window.waiting) for window in self._windows.values())

    def snapshot(self) -> dict[str, Any]:
        """State, and the handles of the rows that wait."""
        windows = {
            name: {"state": window.operator.snapshot(), "waiting": _joined(window.waiting.refs())}
            for name, window in self._windows.items()
        }
        return {"matcher": self.matcher.snapshot(), "waiting": _joined(self.waiting.refs()), "windows": windows}

    def restore(self, snapshot: Mapping[str, Any], blocks: Sequence[Block], rank_of: Callable[[str], int]) -> None:
        """Take over a snapshot; the rows that wait are prepared anew from ``blocks``."""
        self.matcher.restore(snapshot["matcher"])
        self.waiting.clear()
        waiting = np.unique(snapshot["waiting"])
        for name, window in self._windows.items():
            window.operator.restore(snapshot["windows"][name]["state"])
            window.waiting.clear()
        for block in blocks:
            frame, refs, rank = block.frame, block.all_refs(), rank_of(block.frame.stream)
            if frame.stream in self.matcher.streams:
                part, named = _only(frame, refs, waiting)
                if part is not None:
                    rows = self.matcher.prepare(part, 0)
                    rows = replace(rows, ref=named[rows.ref])
                    self.waiting.push(Pending.of(part, rows, rows.ref, rank))
            for name, window in self._windows.items():
                if window.operator.spec.source == frame.stream:
                    part, named = _only(frame, refs, np.unique(snapshot["windows"][name]["waiting"]))
                    if part is not None:
                        chosen = window.operator.prepare(part)
                        window.waiting.push(Pending.of(part, chosen, named[chosen.row], rank))


def _joined(parts: Sequence[Refs]) -> Refs:
    return np.concatenate([*parts, np.empty(0, np.int64)])


def _only(frame: Frame, refs: Refs, wanted: Refs) -> tuple[Frame | None, Refs]:
    rows = np.flatnonzero(np.isin(refs, wanted))
    if not len(rows):
        return None, refs[:0]
    return (frame, refs) if len(rows) == len(refs) else (frame.take(rows), refs[rows])

"""Results of windows and statistics among the sources of a multi event, traced to what they were computed from.

Such a result is a function of the events of one key, or run, in one span of time; those are found again in a recorded
log or on a broker by the definition of the window or statistic.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from astrocyte.agents.ingest.validate import Validators
from astrocyte.agents.ingest.validate_rows import validate_rows
from astrocyte.agents.insight.operator import InsightOperator
from astrocyte.agents.rules.insight import StatisticSpec
from astrocyte.agents.rules.model import RuleSet
from astrocyte.agents.rules.windows import Window
from astrocyte.agents.sinks.base import SourcedFrame
from astrocyte.agents.windows.operator import WindowOperator, result_ids
from astrocyte.pipeline.analysis.explain import Explained, SourceEvent
from astrocyte.pipeline.kafka.record import ConsumedRecord
from astrocyte.pipeline.recording.frames import chunks_of
from astrocyte.pipeline.topology.plan import contracts_of, decoders_of
from astrocyte.schemas.event_types.insight import RESULTS
from astrocyte.schemas.frames import Frame
from astrocyte.schemas.ids import format_ids
from astrocyte.schemas.times import NEVER_US
from astrocyte.schemas.topics import metrics_topic

__all__ = ["Ancestry", "WindowSpan"]

_CARRIED = "it also follows individuals from window to window, so that all earlier events of the run are behind it"
_OF_WINDOW = frozenset({"simulation_id", "window_start", "window_end"})
"""Fields of a statistic's result that say of which window it is."""


@dataclass(frozen=True, slots=True)
class WindowSpan:
    """One result of a window or statistic: its span (start included, end excluded), and its fields if they are known.

    ``key`` is that of a window's result, ``run`` that of a statistic's.
    """

    key: str | None
    start_us: int
    end_us: int
    fields: dict[str, Any]
    run: str | None = None


class Store(Protocol):
    """What tracing reads: topics, and stored results of windows and statistics."""

    def records(self, topic: str) -> Iterable[ConsumedRecord]:
        """Messages of a topic, in the order of their offsets in each partition; nothing if it is not there."""

    def window_result(self, window: str, result_id: str, end_us: int) -> WindowSpan | None:
        """A stored result of a window or statistic, whose window ends at ``end_us``."""


class Ancestry:
    """Traces the sources that ``rules`` took from windows and statistics; reads each topic once."""

    def __init__(self, ruleset: RuleSet, stores: Sequence[Store]) -> None:
        self._windows = {window.name: window for window in ruleset.windows}
        self._statistics = {spec.name: spec for spec in ruleset.insight}
        self._made = ruleset.made
        self._contracts = contracts_of(ruleset)
        self._decoders = decoders_of(self._contracts)
        self._validators = Validators(ruleset.validators)
        self._stores = stores
        self._read: dict[str, list[SourcedFrame]] = {}
        self._computed: dict[tuple[str, int], Frame | None] = {}

    def of_result(self, source: SourceEvent) -> Explained | None:
        """The result of a window or statistic with the events behind it; None for what is neither."""
        if source.time_us is None:
            return None
        stream = source.stream or ""
        if (window := self._windows.get(stream)) is not None:
            span = self._window_span(window, source)
            sources = [] if span is None else list(self._window_inputs(window, span))
            key = None if span is None else span.key
            return _explained(f"window {stream}", source, span, sources, streams=(window.source,), key=key)
        if (spec := self._statistics.get(stream)) is not None:
            span = self._statistic_span(spec, source)
            sources = [] if span is None else list(self._statistic_inputs(spec, span))
            carried = _CARRIED if spec.built.carries_state else None
            run = None if span is None else span.run
            name = f"statistic {stream}"
            return _explained(name, source, span, sources, streams=spec.streams, key=run, note=carried)
        return None

    def _window_span(self, window: Window, source: SourceEvent) -> WindowSpan | None:
        """Key and span of the result: as stored, else from the key among the events whose result has the id."""
        if (stored := self._stored(window.name, source, window.select)) is not None:
            return stored
        assert source.time_us is not None
        if window.kind == "session":
            return None  # the start of a session is known only from its result
        start_us, end_us = source.time_us - window.size_us, source.time_us
        for _, _, keys in self._rows(window, start_us, end_us):
            for key in set(keys):
                if format_ids(result_ids(window.name, [key], [start_us], [end_us]))[0] == source.event_id:
                    return WindowSpan(key, start_us, end_us, {})
        return None

    def _statistic_span(self, spec: StatisticSpec, source: SourceEvent) -> WindowSpan | None:
        """Run and span of the result: as stored, else computed again from the events."""
        fields = [name for name in RESULTS[spec.statistic].about if name not in _OF_WINDOW]
        if (stored := self._stored(spec.name, source, fields)) is not None:
            return stored
        assert source.time_us is not None
        frame = self._compute(spec, source.time_us)
        names = [] if frame is None else format_ids(frame.ids())
        if frame is None or source.event_id not in names:
            return None
        return _span_of(fields, frame, names.index(source.event_id))

    def _stored(self, stream: str, source: SourceEvent, fields: Iterable[str]) -> WindowSpan | None:
        """The result as a database or the topic of the results has it; its time is the end of its window."""
        assert source.time_us is not None
        for store in self._stores:
            found = store.window_result(stream, source.event_id, source.time_us)
            if found is not None:
                return found
        for item in self._frames(metrics_topic(stream)):
            for row, name in enumerate(format_ids(item.frame.ids())):
                if name == source.event_id:
                    return _span_of(fields, item.frame, row)
        return None

    def _compute(self, spec: StatisticSpec, end_us: int) -> Frame | None:
        """Results of a statistic up to a window's end. Of one that carries state from all events before."""
        if (spec.name, end_us) not in self._computed:
            operator = InsightOperator(spec.built)
            first_us = NEVER_US if spec.built.carries_state else end_us - spec.size
            for stream in spec.streams:
                for _, frame, _ in self._passed(stream):
                    times = frame.timestamps()
                    rows = np.flatnonzero((times >= first_us) & (times < end_us))
                    if len(rows):
                        operator.add(frame.take(rows))
            self._computed[spec.name, end_us] = operator.advance(end_us)
        return self._computed[spec.name, end_us]

    def _window_inputs(self, window: Window, span: WindowSpan) -> Iterator[SourceEvent]:
        for item, rows, keys in self._rows(window, span.start_us, span.end_us):
            own = [row for row, key in zip(rows.tolist(), keys, strict=True) if key == span.key]
            yield from _events(item, np.array(own, np.int64))

    def _statistic_inputs(self, spec: StatisticSpec, span: WindowSpan) -> Iterator[SourceEvent]:
        runs: dict[str, int] = {}
        for stream in spec.streams:
            for item, frame, places in self._passed(stream):
                read = [each.read(frame, runs) for each in spec.built.sources if each.stream == stream]
                own = [
                    rows.row[
                        (rows.t >= span.start_us) & (rows.t < span.end_us) & (rows.run == runs.get(span.run or "", -1))
                    ]
                    for rows in read
                ]
                yield from _events(item, places[np.unique(np.concatenate(own))])

    def _rows(
        self, window: Window, start_us: int, end_us: int
    ) -> Iterator[tuple[SourcedFrame, NDArray[np.int64], list[str | None]]]:
        """Rows of the window's input in a span of time, and their keys as the window groups them."""
        operator = WindowOperator(window)
        for item, frame, places in self._passed(window.source):
            rows = operator.prepare(frame)
            rows = rows.take(np.flatnonzero((rows.t >= start_us) & (rows.t < end_us)))
            if len(rows):
                yield item, places[rows.row], operator.keys_of(rows)

    def _passed(self, stream: str) -> Iterator[tuple[SourcedFrame, Frame, NDArray[np.int64]]]:
        """Messages of a stream, each with the rows that validators let pass, and their places in it."""
        topic = metrics_topic(stream) if stream in self._made else self._contracts.topic_of(stream)
        for item in self._frames(topic):
            if item.frame.stream == stream:
                passed = validate_rows(self._validators, item.frame)
                yield item, passed.frame, passed.rows

    def _frames(self, topic: str) -> list[SourcedFrame]:
        if topic not in self._read:
            self._read[topic] = list(self._decoded(topic))
        return self._read[topic]

    def _decoded(self, topic: str) -> Iterator[SourcedFrame]:
        for store in self._stores:
            found = False
            for item in chunks_of(store.records(topic), derived=True, on_bad="skip", decoders=self._decoders):
                found = True
                if item.frame.num_rows:
                    yield item
            if found:
                return


def _explained(
    name: str,
    source: SourceEvent,
    span: WindowSpan | None,
    sources: list[SourceEvent],
    *,
    streams: Sequence[str],
    key: str | None,
    note: str | None = None,
) -> Explained:
    if not sources:
        note = f"its events from {' and '.join(streams)} are not where it was searched: add --log or -b"
    assert source.time_us is not None
    found = Explained(source.event_id, name, source.time_us, sources, key=key, note=note)
    if span is not None:
        found.details, found.window_us = span.fields, (span.start_us, span.end_us)
    return found


def _events(item: SourcedFrame, rows: NDArray[np.int64]) -> Iterator[SourceEvent]:
    """Rows of a message as sources, each with its place."""
    if not len(rows):
        return
    times = item.frame.timestamps()
    for row, name in zip(rows.tolist(), item.frame.id_strings(rows), strict=True):
        yield SourceEvent(
            name, item.frame.stream, None, int(times[row]), item.topic, item.partition, item.offset_of(row)
        )


def _span_of(names: Iterable[str], frame: Frame, row: int) -> WindowSpan:
    values = frame.slice(row, row + 1).rows()[0]
    fields = {name: values[name] for name in names if name in values}
    return WindowSpan(
        values["key"], values["window_start"], values["window_end"], fields, values.get("simulation_id", frame.run)
    )

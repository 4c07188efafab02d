"""Results of windows among the sources of a multi event, traced to the events from which they were computed.

A window's result is a function of the events of one key in one span of time; those are found again in a recorded log or
on a broker by the window's definition.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from astrocyte.agents.ingest.validate import Validators
from astrocyte.agents.ingest.validate_rows import validate_rows
from astrocyte.agents.rules.model import RuleSet
from astrocyte.agents.rules.windows import Window
from astrocyte.agents.sinks.base import SourcedFrame
from astrocyte.agents.windows.operator import WindowOperator, result_ids
from astrocyte.pipeline.analysis.explain import Explained, SourceEvent
from astrocyte.pipeline.kafka.record import ConsumedRecord
from astrocyte.pipeline.recording.frames import chunks_of
from astrocyte.pipeline.topology.plan import contracts_of, decoders_of
from astrocyte.schemas.ids import format_ids
from astrocyte.schemas.topics import metrics_topic

__all__ = ["Ancestry", "WindowSpan"]


@dataclass(frozen=True, slots=True)
class WindowSpan:
    """One result of a window: its key and span (start included, end excluded), and its fields if they are known."""

    key: str | None
    start_us: int
    end_us: int
    fields: dict[str, Any]


class Store(Protocol):
    """What tracing reads: topics, and stored results of windows."""

    def records(self, topic: str) -> Iterable[ConsumedRecord]:
        """Messages of a topic, in the order of their offsets in each partition; nothing if it is not there."""

    def window_result(self, window: str, result_id: str) -> WindowSpan | None:
        """A stored result of a window."""


class Ancestry:
    """Traces the sources that ``rules`` took from windows; reads each topic once."""

    def __init__(self, ruleset: RuleSet, stores: Sequence[Store]) -> None:
        self._windows = {window.name: window for window in ruleset.windows}
        self._made = {*self._windows, *(rule.name for rule in ruleset.rules)}
        self._contracts = contracts_of(ruleset)
        self._decoders = decoders_of(self._contracts)
        self._validators = Validators(ruleset.validators)
        self._stores = stores
        self._read: dict[str, list[SourcedFrame]] = {}

    def of_window(self, source: SourceEvent) -> Explained | None:
        """The result of a window with the events from which it was computed; None for what is no window's result."""
        window = self._windows.get(source.stream or "")
        if window is None or source.time_us is None:
            return None
        span = self._span(window, source)
        sources = [] if span is None else list(self._inputs(window, span))
        note = None if sources else f"its events from {window.source} are not where it was searched: add --log or -b"
        made_of = Explained(source.event_id, f"window {window.name}", source.time_us, sources, note=note)
        if span is not None:
            made_of.key, made_of.details = span.key, span.fields
        return made_of

    def _span(self, window: Window, source: SourceEvent) -> WindowSpan | None:
        """Key and span of the result: as stored, else from the key among the events whose result has the id."""
        for store in self._stores:
            found = store.window_result(window.name, source.event_id)
            if found is not None:
                return found
        for item in self._frames(metrics_topic(window.name)):
            for row, name in enumerate(format_ids(item.frame.ids())):
                if name == source.event_id:
                    return _span_of(window, item, row)
        assert source.time_us is not None
        if window.kind == "session":
            return None  # the start of a session is known only from its result
        start_us, end_us = source.time_us - window.size_us, source.time_us
        for _, _, keys in self._rows(window, start_us, end_us):
            for key in set(keys):
                if format_ids(result_ids(window.name, [key], [start_us], [end_us]))[0] == source.event_id:
                    return WindowSpan(key, start_us, end_us, {})
        return None

    def _inputs(self, window: Window, span: WindowSpan) -> Iterator[SourceEvent]:
        for item, rows, keys in self._rows(window, span.start_us, span.end_us):
            own = [row for row, key in zip(rows.tolist(), keys, strict=True) if key == span.key]
            if not own:
                continue
            names = item.frame.id_strings(np.array(own))
            times = item.frame.timestamps()
            for row, name in zip(own, names, strict=True):
                place = (item.topic, item.partition, item.offset_of(row))
                yield SourceEvent(name, item.frame.stream, None, int(times[row]), *place)

    def _rows(
        self, window: Window, start_us: int, end_us: int
    ) -> Iterator[tuple[SourcedFrame, np.ndarray[Any, np.dtype[np.int64]], list[str | None]]]:
        """Rows of the window's input in a span of time, and their keys as the window groups them."""
        operator = WindowOperator(window)
        for item in self._frames(self._topic_of(window.source)):
            passed = validate_rows(self._validators, item.frame)
            rows = operator.prepare(passed.frame)
            rows = rows.take(np.flatnonzero((rows.t >= start_us) & (rows.t < end_us)))
            if len(rows):
                yield item, passed.rows[rows.row], operator.keys_of(rows)

    def _topic_of(self, stream: str) -> str:
        return metrics_topic(stream) if stream in self._made else self._contracts.topic_of(stream)

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


def _span_of(window: Window, item: SourcedFrame, row: int) -> WindowSpan:
    values = item.frame.slice(row, row + 1).rows()[0]
    fields = {name: values[name] for name in window.select if name in values}
    return WindowSpan(values["key"], values["window_start"], values["window_end"], fields)

"""Assembly of rounds into frames: the one place where device arrays become event columns."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from astrocyte.schemas.catalog import CATALOG, arrow_type
from astrocyte.schemas.errors import PluginError
from astrocyte.schemas.frames import Frame
from astrocyte.schemas.topics import TRUTH
from astrocyte.simulator.config import ScenarioConfig
from astrocyte.simulator.emission.columns import (
    KeyStrings,
    Part,
    Piece,
    check_columns,
    encode_stream,
    host_columns,
    row_order,
)
from astrocyte.simulator.event_spec import EventSpec, HostRow
from astrocyte.simulator.runtime.controls import CONTROLS_STREAM, Control
from astrocyte.simulator.runtime.world import Round
from astrocyte.simulator.scenario import Interval, Rows, Scenario

__all__ = ["Assembler"]


@dataclass(slots=True)
class _Stream:
    specs: tuple[EventSpec, ...]
    keys: KeyStrings


class _LazyRows(Mapping[str, Rows]):
    """Rows by kind, created on access: most reports need few of them or none."""

    def __init__(self, parts: Mapping[str, Part], sequences: Mapping[str, NDArray[np.int64]]) -> None:
        self._parts, self._sequences = parts, sequences

    def __getitem__(self, kind: str) -> Rows:
        part = self._parts[kind]
        return Rows(part.ticks, part.islands, part.timestamps, self._sequences[kind], host_columns(part))

    def __iter__(self) -> Iterator[str]:
        return iter(self._parts)

    def __len__(self) -> int:
        return len(self._parts)


class Assembler:
    """Turns rounds into frames that end at multiples of ``frame_ticks``. Expects rounds in order; skips repeated ticks.

    The last frame of a stream in an interval carries the watermark: every row before the interval's end has been
    written. The other frames carry none. A stream without rows in an interval gets an empty frame with the watermark.
    """

    def __init__(
        self,
        scenario: Scenario,
        config: ScenarioConfig,
        run: str,
        *,
        frame_ticks: int = 10,
        frame_rows: int = 65_536,
        next_tick: int = 0,
        sequences: Mapping[str, int] | None = None,
        memory: Mapping[str, Any] | None = None,
        controls: Sequence[Control] = (),
    ) -> None:
        self.run, self.next_tick = run, next_tick
        self._scenario, self._config = scenario, config
        self._frame_ticks, self._frame_rows = frame_ticks, frame_rows
        self._static = scenario.static(config)
        self._streams: dict[str, _Stream] = {}
        for spec in scenario.events(self._static):
            known = self._streams.get(spec.stream)
            specs = (*known.specs, spec) if known else (spec,)
            self._streams[spec.stream] = _Stream(specs, known.keys if known else KeyStrings(run))
        for stream, entry in self._streams.items():
            check_columns(scenario.name, entry.specs, CATALOG.find(stream))
        added = (*scenario.report_streams(config), *((TRUTH,) if config.plants else ()))
        self._reported = tuple(dict.fromkeys((*added, *((CONTROLS_STREAM,) if scenario.controls else ()))))
        self._controls = controls
        self.sequences = dict.fromkeys((*self._streams, *self._reported), 0) | dict(sequences or {})
        """Next sequence number of each stream."""
        self.memory: dict[str, Any] = dict(memory or {})
        """State of `Scenario.report` over the run."""
        self.last: Interval | None = None
        """The last interval that was assembled."""
        self._pending: list[Piece] = []

    @property
    def streams(self) -> tuple[str, ...]:
        """All streams of the run."""
        return tuple(self.sequences)

    def time_us(self, tick: int) -> int:
        """Event time at the start of ``tick``."""
        return self._config.tick_time_us(tick)

    def begin(self) -> Iterator[Frame]:
        """One empty frame per stream, so that readers know all streams before the first event of any."""
        now = self.time_us(self.next_tick)
        for stream in self.streams:
            yield self._frames_meta(stream, self._empty(stream), watermark_us=now)

    def add(self, round_: Round) -> Iterator[Frame]:
        """Frames that this round completes."""
        while self.next_tick < round_.end_tick:
            boundary = (self.next_tick // self._frame_ticks + 1) * self._frame_ticks
            end = min(boundary, round_.end_tick)
            self._pending.append(Piece(round_, self.next_tick, end))
            self.next_tick = end
            if end == boundary:
                yield from self._cut()

    def finish(self) -> Iterator[Frame]:
        """Frames of the remaining rows, then one empty frame per stream that ends it."""
        if self._pending:
            yield from self._cut()
        now = self.time_us(self.next_tick)
        for stream in self.streams:
            yield self._frames_meta(stream, self._empty(stream), watermark_us=now, end=True)

    def _cut(self) -> Iterator[Frame]:
        pieces, self._pending = self._pending, []
        first, end = pieces[0].first_tick, pieces[-1].end_tick
        parts: dict[str, Part] = {}
        numbers: dict[str, NDArray[np.int64]] = {}
        for stream, entry in self._streams.items():
            own = [Part.gather(spec, pieces, self._config) for spec in entry.specs]
            order = row_order(own)
            batch = encode_stream(CATALOG.find(stream), entry.specs, own, order, entry.keys)
            start = self.sequences[stream]
            position = np.arange(start, start + batch.num_rows, dtype=np.int64)
            if order is not None:
                inverse = np.empty_like(position)
                inverse[order] = position
                position = inverse
            at = 0
            for spec, part in zip(entry.specs, own, strict=True):
                parts[spec.kind], numbers[spec.kind] = part, position[at : at + len(part)]
                at += len(part)
            yield from self._split(stream, batch, end)
        interval = Interval(self.run, first, end, _metrics(self._scenario, pieces), _LazyRows(parts, numbers))
        self.last = interval
        rows = [*self._planted(first, end), *self._scenario.report(self._config, interval, self.memory)]
        rows += [control.row() for control in self._controls if first <= control.tick < end and self._scenario.controls]
        stray = {row.stream for row in rows} - set(self._reported)
        if stray:
            raise PluginError(f"report() added rows to {min(stray)!r}, which report_streams() does not list")
        for stream in self._reported:
            yield from self._split(stream, self._host_batch(stream, [row for row in rows if row.stream == stream]), end)

    def _split(self, stream: str, batch: pa.RecordBatch, end_tick: int) -> Iterator[Frame]:
        watermark = self.time_us(end_tick)
        rows = max(batch.num_rows, 1)
        for start in range(0, rows, self._frame_rows):
            piece = batch.slice(start, self._frame_rows)
            last = start + self._frame_rows >= rows
            frame = self._frames_meta(stream, piece, watermark_us=watermark if last else None)
            self.sequences[stream] += piece.num_rows
            yield frame

    def _frames_meta(self, stream: str, batch: pa.RecordBatch, *, watermark_us: int | None, end: bool = False) -> Frame:
        listed = CATALOG.find(stream)
        entry = self._streams.get(stream)
        return Frame(
            stream=stream,
            run=self.run,
            batch=batch,
            first_seq=self.sequences[stream],
            version=listed.version if listed else 1,
            origin=self.run,
            peers=self.streams,
            watermark_us=watermark_us,
            end=end,
            weight=entry.specs[0].weight if entry else 1.0,
        )

    def _empty(self, stream: str) -> pa.RecordBatch:
        entry = self._streams.get(stream)
        if entry is None:
            return self._host_batch(stream, [])
        parts = [Part.gather(spec, [], self._config) for spec in entry.specs]
        return encode_stream(CATALOG.find(stream), entry.specs, parts, None, entry.keys)

    def _planted(self, first: int, end: int) -> Iterator[HostRow]:
        for plant in self._config.plants:
            if not first <= plant.at_tick < end:
                continue
            kind = self._config.plant_kinds[plant.kind]
            end_tick = plant.at_tick + plant.ticks
            truths = [("planted", rule, end_tick) for rule in kind.rules or ("",)]
            truths += [("possible", rule, end_tick + (kind.rest or 0)) for rule in kind.may_follow]
            for sort, rule, until in truths:
                values = {"kind": plant.kind, "rule": rule, "until": self.time_us(until), "members": "[]"}
                yield HostRow(TRUTH, plant.at_tick, sort, values)

    def _host_batch(self, stream: str, rows: Iterable[HostRow]) -> pa.RecordBatch:
        timed = sorted(
            (self.time_us(row.tick) if row.timestamp_us is None else row.timestamp_us, number, row)
            for number, row in enumerate(rows)
        )
        ordered = [row for _, _, row in timed]
        arrays: dict[str, pa.Array] = {
            "timestamp": pa.array([time for time, _, _ in timed], pa.int64()),
            "key": _strings([self.run if row.key is None else row.key for row in ordered]),
            "type": _strings([row.type for row in ordered]),
        }
        listed = CATALOG.find(stream)
        names = list(listed.fields) if listed else sorted({name for row in ordered for name in row.values})
        for name in names:
            values = [row.values.get(name) for row in ordered]
            kind = arrow_type(listed.fields[name]) if listed else None
            is_text = kind is not None and pa.types.is_dictionary(kind)
            try:
                arrays[name] = _strings(values) if is_text else pa.array(values, kind)
            except (pa.ArrowException, TypeError, ValueError) as error:
                raise PluginError(
                    f"report() of scenario {self._scenario.name!r} gave the field {name!r} of {stream!r} values that "
                    f"it cannot hold{f' (the catalog lists {listed.fields[name]})' if listed else ''}: {error}"
                ) from error
        return pa.RecordBatch.from_arrays(list(arrays.values()), names=list(arrays))


def _strings(values: list[Any]) -> pa.Array:
    return pa.array(values, pa.utf8()).dictionary_encode().cast(arrow_type("string"))


def _metrics(scenario: Scenario, pieces: list[Piece]) -> dict[str, NDArray[Any]]:
    ints = np.concatenate([piece.metrics("ints") for piece in pieces]).astype(np.int64)
    floats = np.concatenate([piece.metrics("floats") for piece in pieces]).astype(np.float64)
    found: dict[str, NDArray[Any]] = {name: floats[:, :, lane] for lane, name in enumerate(scenario.float_metrics)}
    at = 0
    for name, width in scenario.lanes().items():
        values = ints[:, :, at : at + width]
        at += width
        if name in scenario.sum_metrics:
            found[name] = values[:, :, 0] * 65_536 + values[:, :, 1]
        else:
            found[name] = values if name in scenario.vector_metrics else values[:, :, 0]
    return found

"""The window operator: takes rows of one stream and returns results of one window, as frames of a stream of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

import numpy as np
import orjson
import pyarrow as pa
from numpy.typing import NDArray

from astrocyte.agents.cep.keys import KeyTable
from astrocyte.agents.cep.rows import plain
from astrocyte.agents.expressions.columns import predicate
from astrocyte.agents.expressions.values import Columns
from astrocyte.agents.rules.windows import Window
from astrocyte.agents.windows.groups import Groups
from astrocyte.agents.windows.panes import FOREVER_US, PaneWindows, Results
from astrocyte.agents.windows.rows import WindowRows
from astrocyte.agents.windows.selection import Layout, kinds_of
from astrocyte.agents.windows.sessions import SessionWindows
from astrocyte.agents.windows.sliding import SlidingWindows
from astrocyte.agents.windows.tokens import hash_strings
from astrocyte.schemas.arrow.columns import TEXT
from astrocyte.schemas.catalog import CATALOG, Catalog
from astrocyte.schemas.frames import Frame, pack_frames, unpack_frames
from astrocyte.schemas.ids import Ids, match_ids
from astrocyte.schemas.times import NEVER_US
from astrocyte.schemas.values.mixed import MIXED, column_of, concat_columns, members

__all__ = ["WindowOperator", "result_ids"]

_Windows = PaneWindows | SessionWindows | SlidingWindows
_EVICT_ABOVE: Final = 4_096
_NULL: Final = "\0null"
"""Represents the null key in the table of keys, which holds strings only."""
_SECOND: Final = 0x9E37_79B9_7F4A_7C15


class WindowOperator:
    """State and step of one window. Reads no clock; the same rows in the same order give bit-identical results.

    `prepare` makes rows of a frame, which are then passed to `add` in processing order, each before the watermark that
    passes it is given to `advance`. Results do not depend on how rows are divided into calls. They are frames of stream
    ``spec.name`` whose timestamp is the window's end; their ids are functions of (window, key, start, end). Late rows
    (older than the watermark, with no window open for them) are left out, and `add` returns them.

    Memory is proportional to the open windows: one slot per key and pane, plus the values that quantile,
    count_distinct and entropy keep (see `agents.rules.select.AggregateCall`). ``waiting`` gives all rows that were
    prepared and not added yet: with it, keys to which neither these nor the state refer are forgotten (None: they are
    kept for ever).
    """

    def __init__(
        self,
        spec: Window,
        *,
        catalog: Catalog = CATALOG,
        waiting: Callable[[], Iterable[WindowRows]] | None = None,
    ) -> None:
        self.spec = spec
        self._catalog = catalog
        self._select = spec.parsed
        self._where = spec.where_node
        self._keys = KeyTable(least=_EVICT_ABOVE)
        self._waiting = waiting
        self._runs: dict[str, int] = {}
        self._by_type: pa.DataType | None = None
        self._layout: Layout | None = None
        self._windows: _Windows | None = None
        self._corrections: list[Frame] = []
        self._passed_us = NEVER_US

    def pass_time(self, watermark_us: int) -> None:
        """The watermark before this operator began: windows that it closed, and keeps no longer, take no late row."""
        self._passed_us = max(self._passed_us, watermark_us)

    def prepare(self, frame: Frame) -> WindowRows:
        """The rows of a frame that satisfy ``where``, with the columns that the aggregates read."""
        fields = Columns.of(frame)
        row = np.arange(frame.num_rows)
        if self._where is not None:
            kept = predicate(self._where, fields)
            if not kept.all():
                row = np.flatnonzero(kept)
                fields = fields.subset(row)
        if self._layout is None:
            if not len(row):
                return self._no_rows()
            self._build(Layout(self._select, kinds_of(self._select, frame.stream, self._catalog)))
        assert self._layout is not None
        whole = len(row) == frame.num_rows
        t = plain(frame.timestamps()) if whole else frame.timestamps()[row]
        numbers = np.full(frame.num_rows, -1, np.int32)
        words = np.zeros(frame.num_rows, np.uint64)
        words[row] = 1
        selected = self._keys.select(self._key_column(frame), words, frame.timestamps(), 0)
        numbers[selected.rows] = selected.key
        numbers = numbers if whole else numbers[row]
        if (numbers < 0).any():
            numbers[numbers < 0] = self._keys.number(_NULL)
        run = np.full(len(row), self._runs.setdefault(frame.run, len(self._runs)), np.int32)
        weights = None if frame.weight == 1.0 else np.full(len(row), frame.weight)
        return WindowRows(t, row, numbers, run, weights, self._layout.columns(fields))

    def keys_of(self, rows: WindowRows) -> list[str | None]:
        """Key of each prepared row as text, None where it has none."""
        return [None if key == _NULL else key for key in self._keys.strings(rows.key).to_pylist()]

    def add(self, rows: WindowRows | Frame) -> NDArray[np.int64]:
        """Add rows in processing order; returns the indices in ``rows`` of those that were late and left out."""
        if isinstance(rows, Frame):
            rows = self.prepare(rows)
        if not len(rows) or self._windows is None:
            return np.empty(0, np.int64)
        self._windows.groups.reserve_keys(self._keys.numbers)
        return np.flatnonzero(self._windows.add(rows))

    def advance(self, watermark_us: int) -> Frame | None:
        """Results of the windows that end at or before the watermark, in order of end, then key; None if none do.

        All rows older than the watermark must have been added.
        """
        self.pass_time(watermark_us)
        if self._windows is None:
            return None
        if self.spec.late == "revise":
            self._corrections += self._frames(self._windows.updates(preliminary=False))
        frame = self._join(self._frames(self._windows.close(watermark_us)))
        live = self._live_keys() if self._keys.due else None
        if live is not None:
            self._keys.recycle(live)
            self._windows.groups.keep_keys(self._keys.numbers)
        return frame

    def updates(self) -> Frame | None:
        """Results other than the one at close: preliminary ones (``emit: update``) and corrections (``late: revise``).

        Preliminary results have ``final`` false and depend on when this is called; rules should not read them.
        ``revision`` counts the results of one window and key from 0; all of them have the same id.
        """
        if self._windows is None or (self.spec.emit == "close" and self.spec.late == "drop"):
            return None
        frames, self._corrections = self._corrections, []
        return self._join([*frames, *self._frames(self._windows.updates(preliminary=self.spec.emit == "update"))])

    def flush(self) -> Frame | None:
        """Results of all open windows; the state is empty afterwards, and event time may start again.

        Rows that were prepared before this call must not be added after it.
        """
        frame = self.advance(FOREVER_US)
        self._passed_us = NEVER_US
        if self._layout is not None:
            # The types of the columns are kept; keys, runs and the watermark are not.
            self._build(Layout(self._select, self._layout.kinds))
            self._keys, self._runs = KeyTable(least=_EVICT_ABOVE), {}
        return frame

    def low_water_us(self) -> int | None:
        """Time of the oldest row in the state; None if the state is empty."""
        if isinstance(self._windows, SlidingWindows):
            return self._windows.low_water_us()
        return None if self._windows is None else self._windows.groups.low_water_us()

    def next_close_us(self) -> int | None:
        """A time before which `advance` returns no result; None if no window is open."""
        return None if self._windows is None else self._windows.next_close_us()

    def snapshot(self) -> dict[str, Any]:
        """State as nested mappings of arrays and bytes."""
        parts: dict[str, Any] = {
            "keys": self._keys.snapshot(self._live_keys()),
            "runs": orjson.dumps(list(self._runs)),
            "corrections": pack_frames(self._corrections),
        }
        if self._layout is not None and self._windows is not None:
            parts["kinds"] = orjson.dumps(self._layout.kinds)
            parts["windows"] = self._windows.snapshot()
            parts["by_type"] = pa.schema([("by", self._by_type)]).serialize().to_pybytes()
        return parts

    def restore(self, snapshot: Mapping[str, Any]) -> None:
        """Restore the snapshot of an operator with the same specification."""
        self._keys = KeyTable(least=_EVICT_ABOVE)
        self._keys.restore(snapshot["keys"])
        self._runs = {run: number for number, run in enumerate(orjson.loads(bytes(snapshot["runs"])))}
        self._corrections = unpack_frames(snapshot["corrections"])
        self._layout, self._windows, self._passed_us = None, None, NEVER_US
        if "windows" in snapshot:
            windows = self._build(Layout(self._select, orjson.loads(bytes(snapshot["kinds"]))))
            windows.restore(snapshot["windows"])
            self._by_type = pa.ipc.read_schema(pa.py_buffer(bytes(snapshot["by_type"]))).field(0).type

    def _build(self, layout: Layout) -> _Windows:
        spec = self.spec
        groups = Groups(layout.states)
        windows: _Windows
        if spec.kind == "session":
            windows = SessionWindows(groups, gap_us=spec.size_us)
        elif spec.kind == "sliding":
            windows = SlidingWindows(groups, size_us=spec.size_us)
        else:
            keep_us = spec.keep or 0 if spec.late == "revise" else 0
            windows = PaneWindows(
                groups, size_us=spec.size_us, step_us=spec.step_us, offset_us=spec.offset or 0, keep_us=keep_us
            )
        for _ in windows.close(self._passed_us):
            pass  # nothing is open yet
        self._layout, self._windows = layout, windows
        return windows

    def _no_rows(self) -> WindowRows:
        nothing = np.empty(0, np.int64)
        return WindowRows(nothing, nothing, nothing.astype(np.int32), nothing.astype(np.int32), None, ())

    def _key_column(self, frame: Frame) -> pa.Array:
        by = self.spec.by
        event_type = self._catalog.find(frame.stream)
        if not frame.has(by) and event_type is not None and event_type.key == by:
            by = "key"  # by the catalog, this field is the key of the stream
        if not frame.has(by):
            # In a frame without the field the keys are null, as they would be beside records that have it.
            return pa.DictionaryArray.from_arrays(pa.nulls(frame.num_rows, pa.int32()), pa.array([], pa.utf8()))
        column = frame.column(by)
        self._by_type = _together(self._by_type, column)
        return column

    def _live_keys(self) -> NDArray[np.bool_] | None:
        """A flag for every number of a key: whether something refers to it. None if that is not known."""
        capacity = self._keys.numbers
        if self._waiting is None:
            return None
        if self._windows is None:
            live = np.zeros(capacity, np.bool_)
        elif isinstance(self._windows, SlidingWindows):
            live = self._windows.live_keys(capacity)
        else:
            live = self._windows.groups.live_keys(capacity)
        for rows in self._waiting():
            live[rows.key] = True
        return live

    def _frames(self, due: Iterable[Results]) -> list[Frame]:
        """Frames of the results, made while their groups still have their slots."""
        return [self._frame(results) for results in due]

    def _frame(self, results: Results) -> Frame:
        assert self._layout is not None
        count = len(results.slots)
        selected = self._layout.results(results.slots.astype(np.int32), results.start, results.end)
        strings = self._keys.strings(results.key)
        ids = self._ids(results, strings)
        strings = pa.compute.if_else(pa.compute.equal(strings, _NULL), None, strings)
        order = pa.compute.sort_indices(
            pa.table({"end": results.end, "key": strings, "start": results.start}),
            sort_keys=[("end", "ascending"), ("key", "ascending"), ("start", "ascending")],
        )
        runs = pa.array(list(self._runs), pa.utf8())
        run = pa.DictionaryArray.from_arrays(pa.array(results.run, mask=results.run < 0), runs)
        columns: dict[str, Any] = {"timestamp": pa.array(results.end), "key": strings.dictionary_encode().cast(TEXT)}
        columns["type"] = pa.DictionaryArray.from_arrays(pa.array(np.zeros(count, np.int32)), [self.spec.name])
        if self.spec.by not in ("key", "type", "timestamp"):
            columns[self.spec.by] = self._by_column(columns["key"])
        columns |= selected
        columns["window_start"], columns["window_end"] = pa.array(results.start), pa.array(results.end)
        columns["revision"] = pa.array(results.revision)
        columns["final"] = pa.array(np.full(count, results.final))
        if self.spec.by != "simulation_id":
            columns["simulation_id"] = run
        columns["event_id"] = ids
        taken = {name: column.take(order) for name, column in columns.items()}
        single = count > 0 and results.run[0] >= 0 and bool((results.run == results.run[0]).all())
        return Frame.from_columns(self.spec.name, runs[int(results.run[0])].as_py() if single else "", taken)

    def _by_column(self, keys: pa.Array) -> pa.Array:
        """The keys in the type of the field."""
        if self._by_type is None or self._by_type == TEXT:
            return keys
        if self._by_type == MIXED:
            return column_of([None if text is None else _number(text) for text in keys.to_pylist()])
        try:
            return keys.cast(pa.utf8()).cast(self._by_type)
        except pa.ArrowInvalid:
            return keys  # earlier records had text there

    def _ids(self, results: Results, strings: pa.Array) -> pa.Array:
        """Ids of the results as a column."""
        data = pa.py_buffer(_ids_of(self.spec.name, strings, results.start, results.end).astype(">u8").tobytes())
        return pa.FixedSizeBinaryArray.from_buffers(pa.binary(16), len(results.slots), [None, data])

    def _join(self, frames: list[Frame]) -> Frame | None:
        """One frame of the results of several windows, in order of their end."""
        frames = [frame for frame in frames if frame.num_rows]
        if len(frames) <= 1:
            return frames[0] if frames else None
        columns = {}
        for name in frames[0].batch.schema.names:
            pieces = [frame.batch.column(name) for frame in frames]
            if len({piece.type for piece in pieces}) == 1:
                columns[name] = pa.chunked_array(pieces).unify_dictionaries().combine_chunks()
            else:
                columns[name] = concat_columns(pieces)
        runs = {frame.run for frame in frames}
        return Frame.from_columns(self.spec.name, runs.pop() if len(runs) == 1 else "", columns)


def result_ids(window: str, keys: Sequence[str | None], start_us: Sequence[int], end_us: Sequence[int]) -> Ids:
    """Ids of results of a window, which are functions of (window, key, start, end); shape [n, 2]."""
    strings = pa.array([_NULL if key is None else key for key in keys], pa.utf8())
    return _ids_of(window, strings, np.array(start_us, np.int64), np.array(end_us, np.int64))


def _ids_of(window: str, strings: pa.Array, start: NDArray[np.int64], end: NDArray[np.int64]) -> Ids:
    count = len(strings)
    parts = np.empty((count, 2, 2), np.uint64)
    parts[:, 0, 0], parts[:, 0, 1] = hash_strings(strings), hash_strings(strings, _SECOND)
    parts[:, 1, 0] = start.astype(np.int64).view(np.uint64)
    parts[:, 1, 1] = end.astype(np.int64).view(np.uint64)
    return match_ids(window, "window", parts.reshape(-1, 2), np.tile([0, 1], count), np.arange(0, 2 * count + 1, 2))


def _together(known: pa.DataType | None, column: pa.Array) -> pa.DataType | None:
    """Type of a field that had ``known`` before: text if it ever holds some, `MIXED` for numbers of several types."""
    kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    if pa.types.is_string(kind) or (kind == MIXED and {"text", "bool"} & members(column).keys()):
        return TEXT
    if known is None or known == kind:
        return kind
    if pa.types.is_null(kind) or column.null_count == len(column):
        return known
    numeric = all(each == MIXED or pa.types.is_integer(each) or pa.types.is_floating(each) for each in (known, kind))
    return MIXED if numeric else TEXT


def _number(text: str) -> int | float:
    try:
        return int(text)
    except ValueError:
        return float(text)

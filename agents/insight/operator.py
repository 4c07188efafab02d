"""The operator of a statistic: takes rows of its streams, returns results of its windows as frames of a stream."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import orjson
import pyarrow as pa
from numpy.typing import NDArray

from astrocyte.agents.insight.rows import Rows
from astrocyte.agents.insight.statistic import State, Statistic, Window
from astrocyte.schemas.errors import InvalidSettings
from astrocyte.schemas.frames import Frame
from astrocyte.schemas.ids import Ids, hash_id
from astrocyte.schemas.times import NEVER_US

__all__ = ["InsightOperator"]

FOREVER_US: Final = 2**63 - 1


class InsightOperator:
    """State and step of one statistic. Reads no clock; the same rows give bit-identical results in any order.

    Frames are given to `add`, in any order, each row before the watermark that passes it is given to `advance`. Rows of
    windows that have closed are late: they are left out, and `add` returns them. A window has results for each run that
    has rows in its last step. Results are frames of the stream ``statistic.result.stream``, whose timestamp is the
    window's end and whose key is the run; their ids are functions of (stream, run, identity, start, end).

    Memory: the columns that the statistic reads, for the rows of the open windows, and the state of each run.
    """

    def __init__(self, statistic: Statistic) -> None:
        if statistic.carries_state and statistic.windows.overlap:
            raise InvalidSettings(
                f"statistic {statistic.result.stream!r}: its windows of {statistic.windows.size_us} us overlap (step "
                f"{statistic.windows.step_us} us), but it follows individuals from window to window: leave the step out"
            )
        self.statistic = statistic
        self._clear()
        self._closed_us = NEVER_US

    def _clear(self) -> None:
        self._runs: dict[str, int] = {}
        self._parts: list[list[Rows]] = [[source.no_rows()] for source in self.statistic.sources]
        self._states: dict[int, State] = {}
        self._pending: set[tuple[int, int]] = set()

    @property
    def streams(self) -> tuple[str, ...]:
        """Streams that are read."""
        return tuple(dict.fromkeys(source.stream for source in self.statistic.sources))

    def pass_time(self, watermark_us: int) -> None:
        """The watermark before this operator began: windows that ended before it take no late row."""
        if watermark_us > NEVER_US:
            self._closed_us = max(self._closed_us, self._last_end_us(watermark_us))

    def add(self, frame: Frame) -> NDArray[np.int64]:
        """Add the rows of a frame; returns the indices of those that were late and left out.

        A frame of a stream that the statistic does not read adds nothing. Raises SchemaMismatch.
        """
        late = [np.empty(0, np.int64)]
        for number, rows in self.prepare(frame):
            passed = rows.t < self._closed_us
            if passed.any():
                late.append(rows.row[passed])
                rows = rows.take(~passed)
            self.take(number, rows)
        return _distinct(np.concatenate(late))

    def prepare(self, frame: Frame) -> list[tuple[int, Rows]]:
        """The rows of a frame that the statistic reads, with the number of the source that reads them.

        Changes nothing but the numbers of runs. The rows are for `take`, before the next `flush`. Raises
        SchemaMismatch.
        """
        if not frame.num_rows:
            return []
        sources = enumerate(self.statistic.sources)
        read = [(number, source.read(frame, self._runs)) for number, source in sources if source.stream == frame.stream]
        return [(number, rows) for number, rows in read if len(rows)]

    def take(self, number: int, rows: Rows) -> None:
        """Add prepared rows of a source, none of a window that has closed."""
        if len(rows):
            self._parts[number].append(rows)
            ends = self.statistic.windows.ends_us(rows.t)
            first = np.r_[True, (ends[1:] != ends[:-1]) | (rows.run[1:] != rows.run[:-1])]
            self._pending |= set(zip(ends[first].tolist(), rows.run[first].tolist(), strict=True))

    def advance(self, watermark_us: int) -> Frame | None:
        """Results of the windows that end at or before the watermark, in order of end, then run; None if none do.

        All rows older than the watermark must have been added.
        """
        closed_us = self._last_end_us(watermark_us)
        due = sorted(each for each in self._pending if each[0] <= closed_us)
        self._closed_us = max(self._closed_us, closed_us)
        if not due:
            return None
        names = list(self._runs)
        due.sort(key=lambda each: (each[0], names[each[1]]))
        tables = [Rows.concat(parts).ordered() for parts in self._parts]
        results: list[tuple[Window, dict[str, Any]]] = []
        size_us = self.statistic.windows.size_us
        for end_us, run in due:
            window = Window(names[run], end_us - size_us, end_us)
            rows = [_part(table, run, window) for table in tables]
            state, found = self.statistic.step(window, rows, self._states.get(run, {}))
            if self.statistic.carries_state:
                self._states[run] = state
            results += [(window, each) for each in found]
        self._pending -= set(due)
        needed_us = closed_us + self.statistic.windows.step_us - size_us
        self._parts = [[table.take(table.t >= needed_us)] for table in tables]
        return self._frame(results) if results else None

    def flush(self) -> Frame | None:
        """Results of all open windows; the state is empty afterwards, and event time may start again."""
        frame = self.advance(FOREVER_US)
        self._clear()
        self._closed_us = NEVER_US
        return frame

    def low_water_us(self) -> int | None:
        """Time of the oldest row that is kept; None if there is none."""
        return min((int(rows.t.min()) for parts in self._parts for rows in parts if len(rows)), default=None)

    def next_close_us(self) -> int | None:
        """A time before which `advance` returns no result; None if no window is open."""
        return min((end for end, _ in self._pending), default=None)

    def snapshot(self) -> dict[str, Any]:
        """State as nested mappings of arrays and bytes."""
        return {
            "runs": orjson.dumps(list(self._runs)),
            "closed_us": int(self._closed_us),
            "sources": {str(number): Rows.concat(parts).snapshot() for number, parts in enumerate(self._parts)},
            "states": {str(run): dict(state) for run, state in self._states.items()},
        }

    def restore(self, snapshot: Mapping[str, Any]) -> None:
        """Restore the snapshot of an operator of the same statistic."""
        self._clear()
        self._runs = {run: number for number, run in enumerate(orjson.loads(bytes(snapshot["runs"])))}
        self._closed_us = int(snapshot["closed_us"])
        self._parts = [[Rows.restore(snapshot["sources"][str(number)])] for number in range(len(self._parts))]
        self._states = {int(run): state for run, state in snapshot["states"].items()}
        for (rows,) in self._parts:
            fresh = rows.take(rows.t >= self._closed_us)
            ends = self.statistic.windows.ends_us(fresh.t).tolist()
            self._pending |= set(zip(ends, fresh.run.tolist(), strict=True))

    def _last_end_us(self, watermark_us: int) -> int:
        return self.statistic.windows.last_end_us(min(max(watermark_us, NEVER_US // 2), FOREVER_US))

    def _frame(self, results: list[tuple[Window, dict[str, Any]]]) -> Frame:
        kind = self.statistic.result
        windows, fields = [window for window, _ in results], [each for _, each in results]
        start, end = [window.start_us for window in windows], [window.end_us for window in windows]
        runs = [window.run for window in windows]
        given = {"timestamp": end, "key": runs, "type": [kind.types[0]] * len(results), "window_start": start}
        given |= {"window_end": end, "simulation_id": runs}
        columns: dict[str, Any] = {}
        for field in kind.arrow_schema():
            values = given[field.name] if field.name in given else [each[field.name] for each in fields]
            is_text = pa.types.is_dictionary(field.type)
            column = pa.array(values, pa.utf8() if is_text else field.type)
            columns[field.name] = column.dictionary_encode().cast(field.type) if is_text else column
        identity = self.statistic.identity
        names = ["\0".join([run, *(str(each[name]) for name in identity)]) for (run, _, _), each in results]
        frame = Frame.from_columns(kind.stream, runs[0] if len(set(runs)) == 1 else "", columns)
        return frame.with_ids(_ids(kind.stream, names, start, end))


def _ids(stream: str, names: list[str], start: list[int], end: list[int]) -> Ids:
    """Ids of results, functions of (stream, run and identity, start, end); shape [n, 2]."""
    found = (hash_id(stream, name, str(first), str(last)) for name, first, last in zip(names, start, end, strict=True))
    return np.frombuffer(b"".join(each.bytes for each in found), ">u8").astype(np.uint64).reshape(-1, 2)


def _distinct(values: NDArray[np.int64]) -> NDArray[np.int64]:
    """Distinct values, ascending. By sorting: NumPy's own is hash-based and slower where most are equal."""
    values = np.sort(values)
    return values[np.r_[True, values[1:] != values[:-1]]] if len(values) else values


def _part(table: Rows, run: int, window: Window) -> Rows:
    """The rows of a run and window, of rows that are ordered by run and time."""
    first, last = np.searchsorted(table.run, [run, run + 1])
    t = table.t[first:last]
    low, high = np.searchsorted(t, [window.start_us, window.end_us])
    return table.take(slice(first + low, first + high))

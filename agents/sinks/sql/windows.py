"""Results of windows and statistics as rows of ``window_results``: one row for each field of a result."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import orjson
import pyarrow as pa

from astrocyte.agents.sinks.sql.rows import Rows, find_problems, simulation_ids
from astrocyte.agents.sinks.sql.targets import WINDOWS
from astrocyte.schemas.event_types.insight import result_identity
from astrocyte.schemas.frames import Frame
from astrocyte.schemas.ids import format_ids
from astrocyte.schemas.values.mixed import to_list

__all__ = ["stage_window"]

_ABOUT: Final = frozenset({"simulation_id", "window_start", "window_end", "revision", "final"})
"""Columns that say of what a result is, not what it is."""


def stage_window(frame: Frame, recorded_at: int) -> Rows:
    """The results of one window or statistic, each as a row for each of its fields; row n of the frame is unit n."""
    count = frame.num_rows
    keys = _keys(frame)
    names = [name for name in frame.fields if name not in _ABOUT]
    values: list[float | None] = []
    strings: list[str | None] = []
    for name in names:
        for value in to_list(frame.column(name)):
            number = _number(value)
            values.append(number)
            strings.append(None if value is None or number is not None else _text(value))
    times = len(names)
    ends = frame.column("window_end") if frame.has("window_end") else frame.column("timestamp")
    starts = frame.column("window_start") if frame.has("window_start") else ends
    columns = {
        "window_name": pa.array([frame.stream] * count * times),
        "simulation_id": _repeated(simulation_ids(frame), times),
        "event_key": pa.array(keys * times, pa.utf8()),
        "field": pa.array(np.repeat(np.array(names, dtype=object), count), pa.utf8()),
        "window_end": _repeated(ends, times),
        "window_start": _repeated(starts, times),
        "value": pa.array(values, pa.float64()),
        "text": pa.array(strings, pa.utf8()),
        "result_id": pa.array(format_ids(frame.ids()) * times, pa.utf8()),
        "recorded_at": pa.array(np.full(count * times, recorded_at, np.int64)),
    }
    rows = Rows(WINDOWS, columns, np.tile(np.arange(count), times))
    find_problems(rows)
    return rows


def _keys(frame: Frame) -> list[str]:
    """Key of each result: of a statistic, whose key is the run, what tells the results of a window apart."""
    identity = result_identity(frame)
    if not identity:
        return [key if key is not None else "" for key in to_list(frame.column("key"))]
    parts = zip(*(to_list(frame.column(name)) for name in identity), strict=True)
    return ["/".join(str(part) for part in each if part is not None) for each in parts]


def _repeated(column: pa.Array, times: int) -> pa.Array:
    return pa.chunked_array([column] * times, column.type).combine_chunks() if times else column.slice(0, 0)


def _number(value: Any) -> float | None:
    """The value as a finite number; None for everything else, NaN and infinities included."""
    if isinstance(value, bool | int | float):
        try:
            number = float(value)
        except OverflowError:
            return None
        return number if np.isfinite(number) else None
    return None


def _text(value: Any) -> str:
    if isinstance(value, float):
        return "NaN" if np.isnan(value) else str(value)
    return value if isinstance(value, str) else orjson.dumps(value, default=str).decode()

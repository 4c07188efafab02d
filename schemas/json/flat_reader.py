"""Reader of chunks in which every record is a flat object with the same members, column by column.

This is how other programs write most of their streams: ``{"timestamp": ..., "user": ..., "value": ...}``. For any other
chunk the reader here returns None, and the general reader (`schemas.json.reader`) reads it record by record; both give
the same frames.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, Final, Protocol

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from astrocyte.schemas.arrow.columns import column_name
from astrocyte.schemas.json.kafka_keys import key_text
from astrocyte.schemas.json.text import has_long_fraction
from astrocyte.schemas.times import CEILING_US, PER_UNIT, TIME_NAMES, time_us, unit_of, us_from_ms, us_of_floats
from astrocyte.schemas.values.mixed import MIXED, column_of, members

__all__ = ["flat_columns"]

_APART: Final = frozenset(
    {"source_stream", "stream", "metadata", "event_id", "type", "key", "key_", "payload", "op", "specversion"}
)
"""Members that may have a meaning of their own (`schemas.contract`): the general reader knows which."""
_US: Final = pa.timestamp("us", "UTC")


class _Record(Protocol):
    @property
    def timestamp(self) -> int: ...
    @property
    def key(self) -> bytes | None: ...
    @property
    def value(self) -> bytes | None: ...
    @property
    def headers(self) -> Sequence[tuple[str, bytes]]: ...


def flat_columns(records: Sequence[_Record], exact: Collection[str] = ()) -> dict[str, Any] | None:
    """Columns of the fields, with ``timestamp`` (int64, microseconds) and ``key``; None if the records differ in form.

    The stream must neither be declared nor listed in the catalog, so that no type is given. The columns ``exact``
    distinguish events.
    """
    if not records or records[0].value is None:
        return None
    try:
        first = orjson.loads(records[0].value)
        if not isinstance(first, dict) or not _APART.isdisjoint(first):
            return None
        if any(name in ("ce_id", "ce_specversion") for record in records for name, _ in record.headers):
            return None
        bodies = [orjson.loads(record.value) for record in records]  # type: ignore[arg-type]
        names = tuple(first)
        if not all(type(body) is dict and tuple(body) == names for body in bodies):
            return None
        time_name = next((name for name in TIME_NAMES if name in first), None)
        times = _kafka_times(records) if time_name is None else _times([body[time_name] for body in bodies])
        if times is None:
            return None
        columns: dict[str, Any] = {"timestamp": times, "key": _keys(records)}
        for name in names:
            if name != time_name:
                column = columns[column_name(name)] = column_of([body[name] for body in bodies])
                if _may_be_rounded(column) or (column_name(name) in exact and _are_long(column, records)):
                    return None
    except (orjson.JSONDecodeError, TypeError, pa.ArrowInvalid, OverflowError, UnicodeEncodeError):
        return None  # the general reader finds the record that is wrong, and says why
    return columns


def _may_be_rounded(column: pa.Array) -> bool:
    """Whether a number of the column may be an integer beyond 64 bits, of which the parser here makes a float."""
    return any((np.abs(values) >= 2.0**63).any() for values in _floats(column))


def _are_long(column: pa.Array, records: Sequence[_Record]) -> bool:
    """Whether numbers of the column may have more digits than the floats that the parser here makes of them."""
    return any(map(len, _floats(column))) and any(has_long_fraction(record.value or b"") for record in records)


def _floats(column: pa.Array) -> list[NDArray[np.floating]]:
    parts = members(column).values() if column.type == MIXED else (column,)
    return [part.drop_null().to_numpy() for part in parts if pa.types.is_floating(part.type)]


def _kafka_times(records: Sequence[_Record]) -> NDArray[np.int64] | None:
    times = [us_from_ms(record.timestamp) for record in records]
    return None if None in times else np.array(times, np.int64)


def _times(values: list[Any]) -> NDArray[np.int64] | None:
    """Microseconds, as `schemas.times.time_us` of each; None where one is null or they are of several types."""
    kinds = set(map(type, values))
    if kinds == {str}:
        return np.asarray(pc.cast(pa.array(values), _US).cast(pa.int64()))
    if kinds not in ({float}, {int}):
        return None
    least, most = min(values, key=abs), max(values, key=abs)
    unit = unit_of(most)
    if unit is None or unit_of(least) != unit:
        return np.array([time_us(value) for value in values], np.int64)
    factor, divisor = PER_UNIT[unit]
    if kinds == {int}:
        return np.array(values, np.int64) * factor // divisor
    numbers = np.array(values)
    if time_us(most) >= CEILING_US or (numbers < 0).any():
        return np.array([time_us(value) for value in values], np.int64)
    return us_of_floats(numbers, unit)


def _keys(records: Sequence[_Record]) -> pa.Array:
    keys = [record.key for record in records]
    strings = {key: None if key is None else key_text(key) for key in set(keys)}
    return pa.array([strings[key] for key in keys], pa.utf8())

"""Staged rows: Arrow columns of a batch for one table, and the problems found in them.

All values that some database would reject or silently change are found here, by column: NaN becomes NULL in SQLite,
NUL ends a string in C tools and is rejected by PostgreSQL, SQLite ignores the length of a VARCHAR. So all databases
hold the same rows, and an invalid row does not affect others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from sqlalchemy import JSON, BigInteger, Boolean, DateTime, Float, Integer, LargeBinary, String, Text
from sqlalchemy.types import TypeEngine

from astrocyte.agents.sinks.sql.targets import Also, Target
from astrocyte.schemas.arrow.columns import TEXT
from astrocyte.schemas.catalog import CATALOG, Catalog
from astrocyte.schemas.frames import Frame, conform
from astrocyte.schemas.ids import mixed
from astrocyte.schemas.tables import TextArray, Vector
from astrocyte.schemas.times import us_from_datetime, us_from_iso

__all__ = [
    "EXTERNAL",
    "Rows",
    "concat_rows",
    "find_problems",
    "from_mappings",
    "parent_rows",
    "row_numbers",
    "simulation_ids",
    "stage_frame",
    "stage_some",
]

EXTERNAL: Final = "external"
"""Simulation id of rows without a run (JSON records of other programs)."""

_INT32: Final = np.iinfo(np.int32)
_FIRST_US: Final = -62_135_596_800_000_000
_LAST_US: Final = 253_402_300_799_999_999
_OWN_ID_BIT: Final = np.uint64(1 << 62)


@dataclass(slots=True)
class Rows:
    """Rows for one table as staged columns of equal length.

    ``origin`` is, for each row, the number of the unit (event or record) from which it was made: all rows of a refused
    unit are refused.
    """

    target: Target
    columns: dict[str, pa.Array]
    origin: NDArray[np.int64]
    bad: dict[int, str] = field(default_factory=dict)
    """Unit -> why its rows cannot be written."""

    def __len__(self) -> int:
        return len(self.origin)

    def take(self, rows: NDArray[np.integer]) -> Rows:
        """The given rows, in that order."""
        indices = pa.array(rows)
        return Rows(
            self.target, {name: column.take(indices) for name, column in self.columns.items()}, self.origin[rows]
        )

    def between(self, start: int, stop: int) -> Rows:
        """Rows of the units from ``start`` up to ``stop``."""
        return self.take(np.flatnonzero((self.origin >= start) & (self.origin < stop)))

    def without(self, units: Iterable[int]) -> Rows:
        """Rows of all other units."""
        dropped = np.fromiter(units, np.int64)
        return self if not len(dropped) else self.take(np.flatnonzero(~np.isin(self.origin, dropped)))


def row_numbers(frame: Frame) -> NDArray[np.int64]:
    """A number for each row that is unique in its run and stream, and the same each time the event is read.

    The event's sequence number; for records whose producer set the ids, 2**62 plus 62 bits of the id.
    """
    if frame.batch.schema.get_field_index("event_id") < 0:
        return frame.sequences()
    own: NDArray[np.int64] = ((mixed(frame.ids()) & (_OWN_ID_BIT - np.uint64(1))) | _OWN_ID_BIT).view(np.int64)
    return own


def stage_frame(
    frame: Frame, target: Target, recorded_at: int, first_unit: int = 0, catalog: Catalog = CATALOG
) -> Rows:
    """The frame's events as rows of ``target``. Raises SchemaMismatch if its fields do not fit the catalog's."""
    simulation = simulation_ids(frame)
    event_type = catalog.find(frame.stream)
    if event_type is not None:
        frame = conform(frame, event_type)
    count = frame.num_rows
    columns: dict[str, pa.Array] = {}
    for name, source in target.staged.items():
        if source == "simulation_id":
            columns[name] = simulation
        elif source == "recorded_at":
            columns[name] = pa.array(np.full(count, recorded_at, np.int64))
        elif source == "id" and not frame.has("id"):
            columns[name] = pa.array(row_numbers(frame))
        elif source == "stream" and not frame.has("stream"):
            columns[name] = pa.array([frame.stream] * count).dictionary_encode().cast(TEXT)
        elif frame.has(source):
            columns[name] = frame.column(source)
        else:
            columns[name] = pa.nulls(count, pa.utf8())
    rows = Rows(target, columns, np.arange(first_unit, first_unit + count))
    find_problems(rows)
    return rows


def stage_some(frame: Frame, also: Also, recorded_at: int, first_unit: int = 0, catalog: Catalog = CATALOG) -> Rows:
    """The events that go to a further table as well, as its rows. Raises SchemaMismatch as `stage_frame`."""
    if also.where is None:
        return stage_frame(frame, also.target, recorded_at, first_unit, catalog)
    chosen = np.zeros(frame.num_rows, np.bool_)
    if frame.has(also.where):
        column = frame.column(also.where)
        if pa.types.is_dictionary(column.type):
            column = column.cast(column.type.value_type)
        if pa.types.is_string(column.type):
            chosen = np.asarray(pc.equal(column, also.equals).fill_null(False))
    indices = np.flatnonzero(chosen)
    rows = stage_frame(frame.take(indices), also.target, recorded_at, 0, catalog)
    return Rows(rows.target, rows.columns, first_unit + indices, {first_unit + int(indices[unit]): reason
                                                                  for unit, reason in rows.bad.items()})  # fmt: skip


def simulation_ids(frame: Frame) -> pa.Array:
    """Simulation of each row, dictionary-encoded: its own field, else the frame's run, else `EXTERNAL`."""
    ids = frame.column("simulation_id")
    if not pa.types.is_dictionary(ids.type):
        ids = ids.cast(pa.utf8()).dictionary_encode().cast(TEXT)
    if ids.null_count:
        ids = pc.fill_null(ids.cast(pa.utf8()), frame.run).dictionary_encode().cast(TEXT)
    names = ids.dictionary
    empty = pc.equal(names, "")
    if pc.any(empty).as_py():
        ids = pa.DictionaryArray.from_arrays(ids.indices, pc.if_else(empty, EXTERNAL, names))
    return ids


def from_mappings(
    target: Target, records: Sequence[Mapping[str, Any]], origin: NDArray[np.int64] | None = None
) -> Rows:
    """Rows of dictionaries whose keys are the table's columns; a missing key is null."""
    units = np.arange(len(records)) if origin is None else origin
    rows = Rows(target, {}, units)
    for name in target.staged:
        kind = target.table.c[name].type
        values = [record.get(name) for record in records]
        rows.columns[name] = _array(name, values, kind, units, rows.bad)
    find_problems(rows)
    return rows


def parent_rows(rows: Rows) -> list[Rows]:
    """The parent rows to which ``rows`` refer and which must be written first, one for each distinct key."""
    found = []
    for parent in rows.target.parents:
        keys = rows.columns[parent.key]
        simulations = rows.columns["simulation_id"]
        present = np.flatnonzero(pc.is_valid(keys).to_numpy(zero_copy_only=False))
        if not len(present):
            continue
        simulation_codes = _codes(simulations)[present]
        pairs = _codes(keys)[present] * (int(simulation_codes.max()) + 1) + simulation_codes
        first = present[np.sort(np.unique(pairs, return_index=True)[1])]
        chosen = rows.take(first)
        columns = {name: chosen.columns[source] for name, source in parent.columns.items()}
        found.append(Rows(parent.target, columns, chosen.origin))
    return found


def _codes(column: pa.Array) -> NDArray[np.int64]:
    """A number for each value of the column, equal where values are equal; nulls have any number."""
    encoded = column if pa.types.is_dictionary(column.type) else column.dictionary_encode()
    codes: NDArray[np.int64] = encoded.indices.fill_null(0).to_numpy(zero_copy_only=False).astype(np.int64)
    return codes


def concat_rows(parts: Sequence[Rows]) -> Rows:
    """Concatenation of rows of several frames for the same table."""
    first = parts[0]
    if len(parts) == 1:
        return first
    columns = {}
    for name in first.columns:
        chunks = [part.columns[name] for part in parts]
        kinds = {chunk.type for chunk in chunks}
        if len(kinds) > 1:
            # A column that a frame lacks is staged as null strings; the type of the other frames is used.
            wanted = next(chunk.type for chunk in chunks if chunk.null_count < len(chunk) or chunk.type != pa.utf8())
            chunks = [chunk if chunk.type == wanted else _cast(chunk, wanted) for chunk in chunks]
        chunked = pa.chunked_array(chunks)
        if pa.types.is_dictionary(chunked.type):
            chunked = chunked.unify_dictionaries()
        columns[name] = chunked.combine_chunks()
    bad = {unit: reason for part in parts for unit, reason in part.bad.items()}
    return Rows(first.target, columns, np.concatenate([part.origin for part in parts]), bad)


def _cast(chunk: pa.Array, wanted: pa.DataType) -> pa.Array:
    if chunk.null_count == len(chunk):
        return pa.nulls(len(chunk), wanted)
    if pa.types.is_dictionary(wanted):
        return chunk.cast(pa.utf8()).dictionary_encode().cast(wanted)
    return chunk.cast(wanted)


def find_problems(rows: Rows) -> None:
    """Add every unit that some database would reject or change to ``rows.bad``, with the reason."""
    for name, column in rows.columns.items():
        if name not in rows.target.table.c:
            continue
        declared = rows.target.table.c[name]
        if column.null_count and not declared.nullable:
            _mark(rows, pc.is_null(column), f"column {name!r} is null; expected a value")
        _find_in_column(rows, name, column, declared.type)


def _find_in_column(rows: Rows, name: str, column: pa.Array, declared: TypeEngine[Any]) -> None:
    kind = column.type
    if pa.types.is_dictionary(kind) or pa.types.is_string(kind):
        _find_in_text(rows, name, column, declared)
    elif pa.types.is_floating(kind):
        if not np.isfinite(column.to_numpy(zero_copy_only=False)).all():
            mask = pc.and_(pc.is_valid(column), pc.invert(pc.is_finite(column)))
            _mark(rows, mask, f"column {name!r} holds NaN or an infinity; expected a finite number or null")
    elif isinstance(declared, DateTime):
        mask = pc.or_(pc.greater(column, _LAST_US), pc.less(column, _FIRST_US))
        _mark(rows, mask, f"column {name!r} holds a time outside the years 1 to 9999")
    elif kind == pa.int64() and isinstance(declared, Integer) and not isinstance(declared, BigInteger):
        # int32 columns are always in range, so only wider ones are checked.
        mask = pc.or_(pc.greater(column, int(_INT32.max)), pc.less(column, int(_INT32.min)))
        if pc.any(mask).as_py():
            reason = f"column {name!r} holds a number out of its range {_INT32.min} to {_INT32.max}"
            _mark(rows, mask, reason)
    elif isinstance(declared, Vector):
        for row, value in enumerate(column):
            numbers = value.values
            if numbers is not None and (
                len(numbers) != declared.size or not np.isfinite(numbers.to_numpy(False)).all()
            ):
                reason = f"column {name!r} holds {numbers.to_pylist()}; expected {declared.size} finite numbers"
                rows.bad.setdefault(int(rows.origin[row]), reason)


def _find_in_text(rows: Rows, name: str, column: pa.Array, declared: TypeEngine[Any]) -> None:
    encoded = pa.types.is_dictionary(column.type)
    values = column.dictionary if encoded else column
    limit = declared.length if isinstance(declared, String) and not isinstance(declared, Text) else None
    for mask, reason in (
        (
            None if limit is None else pc.greater(pc.utf8_length(values), limit),
            f"column {name!r} holds a string of more than {limit} characters",
        ),
        (pc.match_substring(values, "\0"), f"column {name!r} holds a string with the character NUL"),
    ):
        if mask is not None and pc.any(mask).as_py():
            _mark(rows, pc.take(mask, column.indices) if encoded else mask, f"{reason}, which the store cannot hold")


def _mark(rows: Rows, mask: pa.Array, reason: str) -> None:
    for unit in rows.origin[np.flatnonzero(pc.fill_null(mask, False).to_numpy(zero_copy_only=False))].tolist():
        rows.bad.setdefault(unit, reason)


_ARROW_OF: Final[tuple[tuple[type[TypeEngine[Any]], pa.DataType], ...]] = (
    (Boolean, pa.bool_()),
    (Integer, pa.int64()),
    (Float, pa.float64()),
    (Vector, pa.list_(pa.float32())),
    (LargeBinary, pa.binary()),
    (DateTime, pa.int64()),
)


def _array(
    name: str, values: list[Any], declared: TypeEngine[Any], units: NDArray[np.int64], bad: dict[int, str]
) -> pa.Array:
    """Arrow array of Python values for a column; a value that does not fit its type becomes null and is marked bad."""
    kind = next((arrow for sql, arrow in _ARROW_OF if isinstance(declared, sql)), pa.utf8())
    plain = _plain_of(declared)
    try:
        return pa.array(values if plain is None else [None if each is None else plain(each) for each in values], kind)
    except (pa.ArrowException, TypeError, ValueError, OverflowError, UnicodeError):
        fitting: list[Any] = []
        for row, value in enumerate(values):
            try:
                made = value if plain is None or value is None else plain(value)
                pa.array([made], kind)
                fitting.append(made)
            except (pa.ArrowException, TypeError, ValueError, OverflowError, UnicodeError) as error:
                fitting.append(None)
                bad.setdefault(int(units[row]), f"column {name!r} cannot hold {value!r:.80}: {error}")
        return pa.array(fitting, kind)


def _plain_of(declared: TypeEngine[Any]) -> Callable[[Any], Any] | None:
    """What makes a value of a column one that Arrow takes; None where it takes the values as they are."""
    if isinstance(declared, TextArray):
        return _strings
    if isinstance(declared, JSON):
        return _json
    if isinstance(declared, DateTime):
        return _microseconds
    if isinstance(declared, String):
        return str
    return _number if isinstance(declared, Float) else None


def _json(value: Any) -> str:
    return orjson.dumps(value).decode()


def _strings(value: Any) -> str:
    return value if isinstance(value, str) else _json(value)


def _number(value: Any) -> Any:
    return value if isinstance(value, bool) else float(value)


def _microseconds(value: datetime | str | int) -> int:
    if isinstance(value, str):
        return us_from_iso(value)
    if isinstance(value, datetime):
        return us_from_datetime(value)
    return value

"""Columns of emitted rows: gathered from the buffers of rounds, put in order, encoded as Arrow."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from astrocyte.schemas.catalog import EventType, FieldType, arrow_type
from astrocyte.schemas.errors import PluginError, shown_object
from astrocyte.simulator.config import ScenarioConfig
from astrocyte.simulator.event_spec import PLACE_BITS, Column, EventSpec
from astrocyte.simulator.runtime.world import Round

__all__ = ["KeyStrings", "Part", "Piece", "check_columns", "encode_stream", "host_columns", "row_order"]

Values = dict[str, Any]
_NO_PLACE = np.uint32(0xFFFFFFFF)
_CACHED_KEYS = 1 << 22


@dataclass(frozen=True, slots=True)
class Piece:
    """The ticks [first_tick, end_tick) of a round."""

    round: Round
    first_tick: int
    end_tick: int

    def metrics(self, name: str) -> NDArray[Any]:
        """Metrics "ints" or "floats", shape [ticks, islands, lanes]."""
        per_group = []
        for output in self.round.outputs:
            array = np.asarray(getattr(output, name))
            per_group.append(array[:, None, :] if array.ndim == 2 else array)
        whole = np.concatenate(per_group, axis=1)
        return whole[self.first_tick - self.round.first_tick : self.end_tick - self.round.first_tick]

    def slices(self, spec: EventSpec) -> Iterator[tuple[NDArray[np.uint32], int, int]]:
        """(uint32[columns, rows], tick, island) for every tick and island that emitted rows of the kind."""
        groups = []
        for islands, output in zip(self.round.islands, self.round.outputs, strict=True):
            groups.append((islands, np.asarray(output.counts[spec.kind]), np.asarray(output.events[spec.kind])))
        row = 0
        for tick in range(self.round.first_tick, self.end_tick):
            offset = tick - self.round.first_tick
            for islands, counts, packed in groups if tick >= self.first_tick else ():
                for member in np.flatnonzero(counts[offset]):
                    if not spec.active(tick):
                        raise ValueError(f"kind {spec.kind!r} has rows at tick {tick}, but every={spec.every}")
                    found = packed[row] if counts.ndim == 1 else packed[row, member]
                    count = counts[offset] if counts.ndim == 1 else counts[offset, member]
                    yield found[:, :count], tick, int(islands[member])
            row += spec.active(tick)


@dataclass(frozen=True, slots=True)
class Part:
    """All rows of one kind in an interval, ordered by (tick, island, lane)."""

    spec: EventSpec
    ticks: NDArray[np.int64]
    islands: NDArray[np.int64]
    timestamps: NDArray[np.int64]
    values: Values

    def __len__(self) -> int:
        return len(self.ticks)

    @classmethod
    def gather(cls, spec: EventSpec, pieces: Sequence[Piece], config: ScenarioConfig) -> Self:
        """Rows of ``spec.kind`` from all pieces."""
        found = [entry for piece in pieces for entry in piece.slices(spec)]
        rows = np.array([packed.shape[1] for packed, _, _ in found], np.int64)
        ticks = np.repeat(np.array([tick for _, tick, _ in found], np.int64), rows)
        islands = np.repeat(np.array([island for _, _, island in found], np.int64), rows)
        width = sum(len(column.words) for column in spec.columns) + spec.timed
        none = np.zeros((width, 0), np.uint32)
        words = np.concatenate([packed for packed, _, _ in found], axis=1) if found else none
        values: Values = {}
        at = 0
        for column in spec.columns:
            parts = [_unpacked(words[at + number], kind) for number, kind in enumerate(column.words)]
            at += len(parts)
            if column.kind == "tick":
                values[column.name] = ticks
            elif column.kind != "derived":
                values[column.name] = tuple(parts) if column.kind in ("id", "list") else parts[0]
        times = config.epoch_us + ticks * config.tick_us
        if spec.timed:
            times = times + _unpacked(words[at], "int32")
        return cls(spec, ticks, islands, times, values)


def _unpacked(words: NDArray[np.uint32], dtype: str) -> NDArray[Any]:
    return words.astype(np.bool_) if dtype == "bool" else words.view(dtype)


def whole_ids(ticks: NDArray[np.int64], births: NDArray[np.uint32], places: NDArray[np.uint32]) -> NDArray[np.int64]:
    """Ids from the 32 bits of the birth tick that devices keep; -1 where the place is missing.

    The tick of the row is known in full and no individual is 2**32 ticks old, so 32 bits give the exact age. The birth
    tick is the tick after the one in which the birth happened, hence the 1.
    """
    later = ticks + 1
    age = (later.astype(np.uint32) - births).astype(np.int64)
    return np.where(places == _NO_PLACE, -1, ((later - age) << PLACE_BITS) | places.astype(np.int64))


def check_columns(scenario: str, specs: Sequence[EventSpec], listed: EventType | None) -> None:
    """Raise PluginError for a column that cannot become the field of its name, as the catalog lists it."""
    for spec in specs:
        for column in spec.columns:
            if listed is None or column.kind == "hidden" or column.name not in listed.fields:
                continue
            where = f"scenario {scenario!r}, kind {spec.kind!r}: column {column.name!r}"
            field = listed.fields[column.name]
            made = column.dtype if column.kind == "value" else column.kind
            if made not in _MADE_OF[field]:
                raise PluginError(
                    f"{where} is {'an' if made[0] in 'aei' else 'a'} {made}; the catalog lists the field as {field}, "
                    f"which is made of: {', '.join(_MADE_OF[field])}. Declare it as one of them, or change the catalog"
                )


_NUMBERS: Final = ("float32", "int32", "bool", "fixed", "tick", "id", "derived")
_MADE_OF: Final[Mapping[FieldType, tuple[str, ...]]] = {
    "string": ("enum", "derived"),
    "json": ("derived",),
    "list<float32>": ("list", "derived"),
    "bool": ("bool", "derived"),
    "int32": ("int32", "bool", "derived"),
    "int64": ("int32", "bool", "id", "tick", "derived"),
    "float32": _NUMBERS,
    "float64": _NUMBERS,
}
"""Columns of which a field of each type of the catalog can be made: their kind, of a ``value`` its dtype."""


def host_columns(part: Part) -> Values:
    """Columns as NumPy arrays, hidden ones included: ids as int64 (-1 for null), lists as [rows, width]."""
    return {column.name: _host(part, column) for column in part.spec.columns}


def _host(part: Part, column: Column) -> NDArray[Any]:
    if column.derive is not None:
        known = {other.name: _host(part, other) for other in part.spec.columns if other.kind != "derived"}
        made: NDArray[Any] = column.derive({**known, "tick": part.ticks, "timestamp": part.timestamps})
        if not hasattr(made, "__len__") or len(made) != len(part):
            got = f"{len(made)} values" if hasattr(made, "__len__") else shown_object(made)
            raise PluginError(
                f"derive of column {column.name!r}, kind {part.spec.kind!r}, returned {got}; expected one for each of "
                f"the {len(part)} rows"
            )
        return made
    value = part.values[column.name]
    if column.kind == "id":
        return whole_ids(part.ticks, value[0], value[1])
    if column.kind == "list":
        return np.stack(value, axis=1)
    if column.kind == "fixed":
        return np.asarray(value / column.scale)
    return np.asarray(value)


def row_order(parts: Sequence[Part]) -> NDArray[np.int64] | None:
    """Order of the concatenated rows by (time, kind, island, lane), or None if they are in order already."""
    times = parts[0].timestamps if len(parts) == 1 else np.concatenate([part.timestamps for part in parts])
    if len(times) < 2 or bool((times[1:] >= times[:-1]).all()):
        return None
    since = times - times.min()
    bits = len(times).bit_length()
    if int(since.max()) >> (62 - bits):
        return np.argsort(times, kind="stable")
    # Row numbers in the low bits make a plain (vectorised) sort stable: ten times faster than a stable argsort.
    packed = (since << bits) | np.arange(len(times))
    packed.sort()
    return np.asarray(packed & ((1 << bits) - 1))


class KeyStrings:
    """Dictionary-encoded keys of one stream; numbers are formatted once."""

    def __init__(self, run: str) -> None:
        self._run = run
        self._strings: pa.Array | None = None

    def encode(self, specs: Sequence[EventSpec], parts: Sequence[Part]) -> tuple[NDArray[np.int32], pa.Array]:
        """Codes of the concatenated rows and the dictionary, which holds only keys that occur, in numeric order."""
        spec = specs[0]
        if spec.key == "run":
            return np.zeros(sum(map(len, parts)), np.int32), pa.array([self._run], pa.utf8())
        if spec.key == "island":
            numbers, form = np.concatenate([part.islands for part in parts]), "i{:05d}"
        else:
            numbers = np.concatenate([part.values[spec.key] for part in parts]).astype(np.int64)
            form = spec.key_format
        if not len(numbers):
            return np.zeros(0, np.int32), pa.array([], pa.utf8())
        top = int(numbers.max()) + 1
        if int(numbers.min()) < 0 or top > _CACHED_KEYS:
            unique, codes = np.unique(numbers, return_inverse=True)
            return codes.astype(np.int32), pa.array([form.format(number) for number in unique.tolist()], pa.utf8())
        if self._strings is None or len(self._strings) < top:
            size = min(max(2 * top, 64), _CACHED_KEYS)
            self._strings = pa.array([form.format(number) for number in range(size)], pa.utf8())
        present = np.zeros(top, bool)
        present[numbers] = True
        unique = np.flatnonzero(present)
        rank = np.zeros(top, np.int32)
        rank[unique] = np.arange(len(unique), dtype=np.int32)
        return rank[numbers], self._strings.take(pa.array(unique))


def encode_stream(
    listed: EventType | None,
    specs: Sequence[EventSpec],
    parts: Sequence[Part],
    order: NDArray[np.int64] | None,
    keys: KeyStrings,
) -> pa.RecordBatch:
    """One record batch of the rows of all kinds of a stream, in ``order``, with exactly the catalog's fields."""
    codes, strings = keys.encode(specs, parts)
    times = np.concatenate([part.timestamps for part in parts])
    arrays: dict[str, pa.Array] = {
        "timestamp": pa.array(_sorted(times, order)),
        "key": pa.DictionaryArray.from_arrays(pa.array(_sorted(codes, order)), strings),
        "type": _types(listed, parts, order),
    }
    names = list(listed.fields) if listed else _field_names(specs)
    for name in names:
        kind = arrow_type(listed.fields[name]) if listed else None
        arrays[name] = _field(name, kind, parts, order)
    return pa.RecordBatch.from_arrays(list(arrays.values()), names=list(arrays))


def _field_names(specs: Sequence[EventSpec]) -> list[str]:
    return list(dict.fromkeys(c.name for spec in specs for c in spec.columns if c.kind != "hidden"))


def _sorted(values: NDArray[Any], order: NDArray[np.int64] | None) -> NDArray[Any]:
    return values if order is None else values[order]


def _types(listed: EventType | None, parts: Sequence[Part], order: NDArray[np.int64] | None) -> pa.Array:
    strings: list[str] = list(listed.types) if listed else []
    pieces = []
    for part in parts:
        column = next((c for c in part.spec.columns if c.name == part.spec.type and c.kind == "enum"), None)
        categories = column.categories if column else (part.spec.type,)
        strings += [text for text in categories if text not in strings]
        lookup = np.array([strings.index(text) for text in categories], np.int32)
        pieces.append(lookup[part.values[column.name]] if column else np.full(len(part), lookup[0], np.int32))
    codes = _sorted(np.concatenate(pieces), order)
    return pa.DictionaryArray.from_arrays(pa.array(codes), pa.array(strings, pa.utf8()))


def _field(name: str, kind: Any, parts: Sequence[Part], order: NDArray[np.int64] | None) -> pa.Array:
    columns = [next((c for c in part.spec.columns if c.name == name and c.kind != "hidden"), None) for part in parts]
    model = next((column for column in columns if column is not None), None)
    if model is None:
        return pa.nulls(sum(map(len, parts)), kind)
    if model.kind == "list":
        return _list(name, parts, order)
    if model.kind == "derived":
        return _derived(kind, parts, columns, order)
    pieces, masks = [], []
    for part, column in zip(parts, columns, strict=True):
        piece = _host(part, column) if column is not None else np.zeros(len(part), np.float32)
        absent = np.full(len(part), column is None)
        if column is not None and column.kind == "id":
            absent = piece < 0
        pieces.append(piece)
        masks.append(absent)
    dtype = next(piece.dtype for piece, column in zip(pieces, columns, strict=True) if column is not None)
    values = _sorted(np.concatenate([piece.astype(dtype, copy=False) for piece in pieces]), order)
    mask: NDArray[np.bool_] | None = _sorted(np.concatenate(masks), order)
    if mask is not None and not mask.any():
        mask = None
    if model.kind == "enum":
        codes = pa.array(values.astype(np.int32, copy=False), mask=mask)
        return pa.DictionaryArray.from_arrays(codes, pa.array(model.categories, pa.utf8()))
    if kind is not None:
        values = values.astype(kind.to_pandas_dtype(), copy=False)
    return pa.array(values, mask=mask)


def _derived(
    kind: Any, parts: Sequence[Part], columns: Sequence[Column | None], order: NDArray[np.int64] | None
) -> pa.Array:
    text = kind is not None and pa.types.is_dictionary(kind)
    plain = pa.utf8() if text else kind
    pieces = [
        pa.nulls(len(part), plain) if column is None else _derived_part(part, column, plain)
        for part, column in zip(parts, columns, strict=True)
    ]
    whole = pa.concat_arrays(pieces)
    if order is not None:
        whole = whole.take(pa.array(order))
    return whole.dictionary_encode().cast(kind) if text else whole


def _derived_part(part: Part, column: Column, kind: Any) -> pa.Array:
    values = _host(part, column)
    try:
        return pa.array(values, kind)
    except (pa.ArrowException, TypeError, ValueError) as error:
        raise PluginError(
            f"derive of column {column.name!r}, kind {part.spec.kind!r}, returned values that are no {kind}: {error}"
        ) from error


def _list(name: str, parts: Sequence[Part], order: NDArray[np.int64] | None) -> pa.Array:
    matrices = [np.stack(part.values[name], axis=1) for part in parts if len(part)]
    matrix = _sorted(np.concatenate(matrices), order) if matrices else np.zeros((0, 1), np.float32)
    offsets = np.arange(0, matrix.size + 1, matrix.shape[1], dtype=np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(np.ascontiguousarray(matrix).ravel()))

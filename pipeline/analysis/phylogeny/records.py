"""What the events of a run say of births, deaths and parents, collected as arrays."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from astrocyte.schemas.errors import AstrocyteError
from astrocyte.schemas.frames import Frame

__all__ = ["NONE", "PEDIGREES", "Ints", "InvalidLineage", "Pedigree", "Records"]

Ints = NDArray[np.int64]

NONE: Final = -1
"""Id or row of a parent that there is not; a generation that is not known."""


class InvalidLineage(AstrocyteError):
    """Births that cannot be those of one population, or a source that holds none."""


@dataclass(frozen=True, slots=True)
class Pedigree:
    """Which fields and types of a stream tell of births and deaths."""

    stream: str
    individual: str
    """What a row of the lineage is, in messages."""
    id: str
    parents: str
    """Field with the parent's id, or with a JSON list of ids."""
    births: tuple[str, ...]
    """Types of events at a birth; one that names no parents is a birth only if it is of the first type."""
    death: str
    """Type of the event at a death."""
    traits: tuple[str, ...] = ()
    """Further fields of a birth, float32."""
    birth_time: str = ""
    """Field with the event time of the birth in microseconds, if every event has one."""


PEDIGREES: Final[Mapping[str, Pedigree]] = {
    each.stream: each
    for each in (
        Pedigree(
            "evolutionary_events", "cell", "cell_id", "parent_id", ("birth", "division"), "death",
            traits=("mutation_magnitude", "fitness_delta"),
        ),
        Pedigree(
            "kernel_geometry", "kernel", "kernel_id", "parent_kernels", ("spawned", "bred", "merged"), "retired",
            birth_time="spawned_at",
        ),
    )
}  # fmt: skip
"""The streams whose events name parents."""


@dataclass(slots=True)
class Records:
    """What the events of one stream and run say, batch after batch; `column` joins the batches.

    ``born_*`` are of events that name parents or are a birth: id, first and second parent, us (event time), at_birth
    (whether that is the time of the birth), generation and traits. ``seen_id`` and ``seen_generation`` are of the other
    events, ``died_id`` and ``died_us`` of deaths.
    """

    first_us: int = np.iinfo(np.int64).max
    last_us: int = np.iinfo(np.int64).min
    events: int = 0
    without_id: int = 0
    """Events that name no individual."""
    _parts: dict[str, list[NDArray[Any]]] = field(default_factory=dict)

    def column(self, name: str) -> NDArray[Any]:
        """A column of all batches, in the order in which they came."""
        parts = self._parts[name]
        if len(parts) > 1:
            parts[:] = [np.concatenate(parts)]
        return parts[0]

    def extend(self, later: Records) -> None:
        """Take what other events of the stream and run say, which came after these."""
        self.first_us = min(self.first_us, later.first_us)
        self.last_us = max(self.last_us, later.last_us)
        self.events += later.events
        self.without_id += later.without_id
        for name, parts in later._parts.items():
            self._parts.setdefault(name, []).extend(parts)

    def put(self, rows: NDArray[np.bool_], **columns: NDArray[Any]) -> None:
        """Take the marked rows of columns."""
        for name, values in columns.items():
            self._parts.setdefault(name, []).append(values[rows])

    def add_frame(self, pedigree: Pedigree, frame: Frame) -> None:
        """Take the events of a frame. Raises InvalidLineage."""
        names = {pedigree.id, pedigree.parents, "generation", pedigree.birth_time, *pedigree.traits} - {""}
        columns = {name: frame.column(name) for name in names if frame.has(name)}
        self.add(pedigree, frame.column("type"), frame.timestamps(), columns)

    def add(self, pedigree: Pedigree, kinds: pa.Array, times: Ints, columns: Mapping[str, pa.Array]) -> None:
        """Take a batch: types of events as text, event times in microseconds, and columns. Raises InvalidLineage."""
        n = len(times)
        if not n:
            return
        self.first_us = min(self.first_us, int(times.min()))
        self.last_us = max(self.last_us, int(times.max()))
        self.events += n
        ids = _integers(columns.get(pedigree.id), n, f"{pedigree.stream}.{pedigree.id}")
        first, second = _parents(columns.get(pedigree.parents), n, pedigree)
        generation = _integers(columns.get("generation"), n, f"{pedigree.stream}.generation").astype(np.int32)
        named = ids >= 0
        self.without_id += n - int(named.sum())
        birth_us, at_birth = (
            times,
            _of_kinds(kinds, pedigree.births) & ((first >= 0) | _of_kinds(kinds, pedigree.births[:1])),
        )
        if pedigree.birth_time:
            birth_us = _integers(columns.get(pedigree.birth_time), n, f"{pedigree.stream}.{pedigree.birth_time}")
            at_birth = birth_us >= 0
        born = named & (at_birth | (first >= 0))
        died = named & _of_kinds(kinds, (pedigree.death,))
        seen = named & ~born
        self.put(died, died_id=ids, died_us=times)
        self.put(seen, seen_id=ids, seen_generation=generation)
        self.put(
            born, born_id=ids, born_first=first, born_second=second, born_us=birth_us, born_at_birth=at_birth,
            born_generation=generation, **{f"born_{name}": _floats(columns.get(name), n) for name in pedigree.traits},
        )  # fmt: skip


def _of_kinds(kinds: pa.Array, wanted: tuple[str, ...]) -> NDArray[np.bool_]:
    """Which rows are of these types; ``mutation.point`` is a mutation. A type that is null is of none."""
    encoded = kinds if pa.types.is_dictionary(kinds.type) else kinds.dictionary_encode()
    names = encoded.dictionary.to_pylist()
    matching = np.array([name is not None and name.partition(".")[0] in wanted for name in names] + [False])
    codes: Ints = pc.fill_null(encoded.indices, len(names)).to_numpy(zero_copy_only=False).astype(np.int64)
    found: NDArray[np.bool_] = matching[codes]
    return found


def _integers(column: pa.Array | None, n: int, name: str) -> Ints:
    """Whole numbers from 0 on, with `NONE` for null. Raises InvalidLineage."""
    if column is None:
        return np.full(n, NONE, np.int64)
    try:
        cast = pc.cast(column, pa.int64())
    except pa.ArrowException as error:
        raise InvalidLineage(f"{name}: expected whole numbers, got {column.type}: {error}") from None
    lowest = pc.min(cast).as_py()
    if lowest is not None and lowest < 0:
        raise InvalidLineage(f"{name}: expected a number from 0 on, got {lowest}")
    values: Ints = pc.fill_null(cast, NONE).to_numpy(zero_copy_only=False)
    return values


def _floats(column: pa.Array | None, n: int) -> NDArray[np.float32]:
    if column is None:
        return np.full(n, np.nan, np.float32)
    values: NDArray[np.float32] = pc.cast(column, pa.float32(), safe=False).to_numpy(zero_copy_only=False)
    return values


def _parents(column: pa.Array | None, n: int, pedigree: Pedigree) -> tuple[Ints, Ints]:
    """Ids of the parents; a column of text holds JSON lists of none, one or two ids. Raises InvalidLineage."""
    name = f"{pedigree.stream}.{pedigree.parents}"
    if column is None or not (pa.types.is_string(column.type) or pa.types.is_dictionary(column.type)):
        return _integers(column, n, name), np.full(n, NONE, np.int64)
    text = pc.replace_substring_regex(pc.cast(column, pa.utf8()), r'[\[\]\s"]', "")
    text = pc.if_else(pc.equal(text, ""), pa.scalar(None, pa.utf8()), text)
    pieces = pc.split_pattern(text, ",")
    most = pc.max(pc.list_value_length(pieces)).as_py() or 0
    if most > 2:
        raise InvalidLineage(f"{name}: expected at most two parents, got {most}")
    of_row = pc.list_parent_indices(pieces).to_numpy()
    values = _integers(pc.list_flatten(pieces), len(of_row), name)
    is_second = np.concatenate([np.zeros(1, np.bool_), of_row[1:] == of_row[:-1]])[: len(of_row)]
    first, second = np.full(n, NONE, np.int64), np.full(n, NONE, np.int64)
    first[of_row[~is_second]] = values[~is_second]
    second[of_row[is_second]] = values[is_second]
    return first, np.where(second == first, NONE, second)

"""The events that pending rows, open windows and partial matches may still refer to, by their handles.

A handle (``ref``) is a number given to each row in order of arrival. Frames are held by reference at first. Once most
of the held rows are no longer in use, the rows in use are copied and the frames released. Memory use then follows the
rows in use, and one row does not keep its whole frame in memory.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import orjson
import pyarrow as pa
from numpy.typing import NDArray

from astrocyte.schemas.frames import Frame, decode_frame, encode_frame
from astrocyte.schemas.ids import Ids

__all__ = ["Block", "EventStore", "Located", "Origin", "chosen_rows"]

Refs = NDArray[np.int64]
KEEP_WHOLE: Final = 0.25
"""A frame is kept whole while at least this share of its rows is in use."""
_SMALL_ROWS: Final = 256
"""Rows of a block that is joined with others: copying more costs as much as the questions."""


@dataclass(frozen=True, slots=True)
class Origin:
    """Topic and partition of a frame, with the offset of its message, or of each row."""

    topic: str
    partition: int
    offsets: int | NDArray[np.int64]

    def take(self, rows: NDArray[np.integer]) -> Origin:
        """Origin of the given rows."""
        if isinstance(self.offsets, int):
            return self
        return Origin(self.topic, self.partition, self.offsets[rows])

    def offset_of(self, row: int) -> int:
        """Offset of the message that held ``row``."""
        return self.offsets if isinstance(self.offsets, int) else int(self.offsets[row])


@dataclass(frozen=True, slots=True, eq=False)
class Block:
    """Rows of one frame. Their refs are consecutive from ``first``, or those in ``refs``."""

    first: int
    frame: Frame
    refs: Refs | None
    origin: Origin | None

    def rows_of(self, refs: Refs) -> NDArray[np.int64]:
        """Rows of the frame that have the given refs."""
        return refs - self.first if self.refs is None else np.searchsorted(self.refs, refs)

    def all_refs(self) -> Refs:
        """Refs of all rows."""
        if self.refs is not None:
            return self.refs
        return np.arange(self.first, self.first + self.frame.num_rows, dtype=np.int64)

    def take(self, refs: Refs) -> Block:
        """Copy of the rows with these refs."""
        rows = self.rows_of(refs)
        frame = self.frame.take(rows)
        return Block(self.first, frame, refs, None if self.origin is None else self.origin.take(rows))


@dataclass(frozen=True, slots=True, eq=False)
class Located:
    """Events as positions in blocks: event i is row ``row[i]`` of ``blocks[block[i]]``. Outlives store changes."""

    blocks: tuple[Block, ...]
    block: NDArray[np.int64]
    row: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.row)

    def parts(self) -> Iterable[tuple[Block, NDArray[np.int64], NDArray[np.int64]]]:
        """(block, positions among the events, rows in the block) for every block that holds one of the events."""
        if len(self.blocks) == 1:
            yield self.blocks[0], np.arange(len(self.row)), self.row
            return
        order = np.argsort(self.block, kind="stable")
        bounds = np.searchsorted(self.block[order], np.arange(len(self.blocks) + 1))
        for number, block in enumerate(self.blocks):
            positions = order[bounds[number] : bounds[number + 1]]
            if len(positions):
                yield block, positions, self.row[positions]

    def timestamps(self) -> NDArray[np.int64]:
        """Event times in microseconds."""
        times = np.empty(len(self.row), np.int64)
        for block, positions, rows in self.parts():
            times[positions] = block.frame.timestamps()[rows]
        return times

    def ids(self) -> Ids:
        """Event ids, shape [n, 2]."""
        ids = np.empty((len(self.row), 2), np.uint64)
        for block, positions, rows in self.parts():
            ids[positions] = block.frame.ids(rows)
        return ids

    def refs(self) -> Refs:
        """Refs of the events."""
        refs = np.empty(len(self.row), np.int64)
        for block, positions, rows in self.parts():
            refs[positions] = block.all_refs()[rows]
        return refs

    def take(self, positions: NDArray[np.integer]) -> Located:
        """The events at the given positions."""
        return Located(self.blocks, self.block[positions], self.row[positions])

    def joined(self) -> Located:
        """The same events in fewer blocks: small ones of one producer, stream and topic are copied into one.

        For events of which much is asked: each question costs as much for a block as for a hundred events.
        """
        groups: dict[Any, list[int]] = {}
        for number, block in enumerate(self.blocks):
            if block.frame.num_rows <= _SMALL_ROWS:
                groups.setdefault(_kind_of(block), []).append(number)
        groups = {kind: numbers for kind, numbers in groups.items() if len(numbers) > 1 and _is_flat(kind[0])}
        if not groups:
            return self
        blocks: list[Block] = []
        to, shift = np.zeros((2, len(self.blocks)), np.int64)
        for numbers in groups.values():
            parts = [self.blocks[number] for number in numbers]
            counts = [part.frame.num_rows for part in parts]
            to[numbers], shift[numbers] = len(blocks), np.cumsum([0, *counts[:-1]])
            blocks.append(_joined(parts, counts))
        single = set(range(len(self.blocks))).difference(*groups.values())
        for number in sorted(single):
            to[number] = len(blocks)
            blocks.append(self.blocks[number])
        return Located(tuple(blocks), to[self.block], self.row + shift[self.block])


def _kind_of(block: Block) -> tuple[Any, ...]:
    """What blocks have in common that can be one; first the schema."""
    frame, origin = block.frame, block.origin
    place = None if origin is None else (origin.topic, origin.partition)
    return frame.batch.schema, frame.stream, frame.run, frame.version, frame.weight, place


def _is_flat(schema: pa.Schema) -> bool:
    """Whether columns of this schema can be joined whatever their values are."""
    return not any(pa.types.is_nested(kind) or isinstance(kind, pa.BaseExtensionType) for kind in schema.types)


def _joined(parts: Sequence[Block], counts: Sequence[int]) -> Block:
    """One block of the rows of several of a kind (`_kind_of`)."""
    first = parts[0]
    table = pa.Table.from_batches([part.frame.batch for part in parts]).unify_dictionaries().combine_chunks()
    (batch,) = table.to_batches()
    if batch.schema.get_field_index("seq") < 0:
        batch = batch.append_column("seq", pa.array(np.concatenate([part.frame.sequences() for part in parts])))
    origin = first.origin
    if origin is not None:
        offsets = [
            np.broadcast_to(np.asarray(part.origin.offsets, np.int64), count)
            for part, count in zip(parts, counts, strict=True)
            if part.origin is not None
        ]
        origin = replace(origin, offsets=np.concatenate(offsets))
    refs = np.concatenate([part.all_refs() for part in parts])
    return Block(first.first, replace(first.frame, batch=batch), refs, origin)


class EventStore:
    """Events by ref, in blocks ordered by their refs."""

    def __init__(self) -> None:
        self._blocks: list[Block] = []
        self._firsts = np.empty(0, np.int64)
        self.next_ref = 0
        self.rows = 0
        """Rows held, in use or not."""

    def add(self, frame: Frame, origin: Origin | None) -> int:
        """Add a frame; returns the ref of its first row."""
        first = self.next_ref
        self._append(Block(first, frame, None, origin))
        self.next_ref += frame.num_rows
        return first

    def _append(self, block: Block) -> None:
        if len(self._blocks) == len(self._firsts):
            self._firsts = np.concatenate([self._firsts, np.zeros(max(16, len(self._firsts)), np.int64)])
        self._firsts[len(self._blocks)] = block.first
        self._blocks.append(block)
        self.rows += block.frame.num_rows

    def insert(self, first: int, frame: Frame) -> None:
        """Add a frame whose refs, from ``first`` on, were assigned before."""
        at = int(np.searchsorted(self._firsts[: len(self._blocks)], first))
        later = self._blocks[at:]
        del self._blocks[at:]
        self.rows -= sum(block.frame.num_rows for block in later)
        for block in (Block(first, frame, None, None), *later):
            self._append(block)

    def forget_last(self) -> None:
        """Undo the last `add`, none of whose rows are in use. Its refs are not reused."""
        self.rows -= self._blocks.pop().frame.num_rows

    def locate(self, refs: Refs) -> Located:
        """Positions of the events with these refs, all of which must be held."""
        number = np.searchsorted(self._firsts[: len(self._blocks)], refs, side="right") - 1
        used, block = np.unique(number, return_inverse=True)
        blocks = tuple(self._blocks[each] for each in used.tolist())
        if all(each.refs is None for each in blocks):
            return Located(blocks, block, refs - self._firsts[number])
        row = np.empty(len(refs), np.int64)
        for index, each in enumerate(blocks):
            mine = block == index
            row[mine] = each.rows_of(refs[mine])
        return Located(blocks, block, row)

    def compact(self, needed: Refs, *, thorough: bool = False) -> None:
        """Release the rows that are not in ``needed`` (sorted refs); ``thorough``: also from frames mostly in use."""
        bounds = np.searchsorted(needed, np.append(self._firsts[: len(self._blocks)], self.next_ref))
        kept = []
        for number, block in enumerate(self._blocks):
            mine = needed[bounds[number] : bounds[number + 1]]
            if len(mine) == 0:
                continue
            rows = block.frame.num_rows
            whole = len(mine) == rows if thorough else len(mine) >= KEEP_WHOLE * rows
            kept.append(block if whole else block.take(mine))
        self._blocks, self.rows = [], 0
        for block in kept:
            self._append(block)

    def blocks(self) -> tuple[Block, ...]:
        """All blocks, oldest first."""
        return tuple(self._blocks)

    def clear(self) -> None:
        """Release all events."""
        self._blocks, self.rows = [], 0

    def snapshot(self) -> dict[str, Any]:
        """Frames as bytes, with their refs and origins."""
        about: list[Any] = []
        parts: dict[str, Any] = {}
        for number, block in enumerate(self._blocks):
            origin = block.origin
            single = origin.offsets if origin is not None and isinstance(origin.offsets, int) else None
            about.append([block.first, None if origin is None else [origin.topic, origin.partition, single]])
            parts[f"frame{number}"] = encode_frame(block.frame)
            if block.refs is not None:
                parts[f"refs{number}"] = block.refs
            if origin is not None and not isinstance(origin.offsets, int):
                parts[f"offsets{number}"] = origin.offsets
        return {"about": orjson.dumps({"next": self.next_ref, "blocks": about}), **parts}

    def restore(self, snapshot: Mapping[str, Any]) -> None:
        """Restore the state of `snapshot`."""
        about = orjson.loads(bytes(snapshot["about"]))
        self.clear()
        for number, (first, place) in enumerate(about["blocks"]):
            origin = None
            if place is not None:
                topic, partition, single = place
                origin = Origin(topic, partition, snapshot[f"offsets{number}"] if single is None else single)
            frame = decode_frame(bytes(snapshot[f"frame{number}"]), bounded=False)
            self._append(Block(first, frame, snapshot.get(f"refs{number}"), origin))
        self.next_ref = about["next"]


def chosen_rows(frame: Frame, origin: Origin | None, keep: NDArray[np.bool_]) -> tuple[Frame, Origin | None]:
    """The rows to keep of a frame, with their origin."""
    rows = np.flatnonzero(keep)
    return frame.take(rows), None if origin is None else origin.take(rows)

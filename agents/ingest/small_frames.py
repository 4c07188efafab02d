"""Small frames, many at once: those of one stream and producer cost a third of what they cost one by one."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Final

import pyarrow as pa

from astrocyte.schemas.arrow.heads import Head, Heads, body_of, head_of, read_bodies
from astrocyte.schemas.arrow.stream import MOST_BYTES
from astrocyte.schemas.frames import Frame, decode_frame

__all__ = ["decode_small_frames"]

_SMALL: Final = 1 << 16
"""Bytes of a message that is read with others."""
_MOST_AT_ONCE: Final = 1 << 20
"""Bytes that are read at once: as long as one of the frames is kept, so are they."""
_MOST_MISSES: Final = 8
"""Schemas of a call that are read in vain. Frames of other programs are then left alone."""
_MOST_NUMBER: Final = 2**62

_Waiting = list[tuple[int, Mapping[bytes, bytes], bytes]]
"""Number of each message, its numbers, and its messages after the schema."""


def decode_small_frames(payloads: Sequence[bytes | None], *, exact: Collection[str] | None = ()) -> list[Frame | None]:
    """What `schemas.frames.decode_frame` makes of each of many messages of one topic.

    None where it is left to that, as for all large messages, for those which it refuses, and for most that other
    programs wrote.
    """
    found: list[Frame | None] = [None] * len(payloads)
    groups: dict[Head[Frame], _Waiting] = {}
    sizes: dict[Head[Frame], int] = {}
    misses = 0
    for number, payload in enumerate(payloads):
        if not payload or len(payload) > _SMALL:
            continue
        data = head_of(payload)
        known = _HEADS.find(data)
        if known is None and data and misses < _MOST_MISSES:
            if _HEADS.learn(data):
                known = _HEADS.find(data)
            else:
                misses += 1
        if known is None:
            continue
        head, numbers = known
        body = body_of(payload, len(data), head.dictionaries)
        if body == b"":
            found[number] = _frame(head.about, numbers, head.about.batch)
        elif body is not None:
            waiting = groups.setdefault(head, [])
            size = sizes.get(head, 0) + len(body)
            if size > _MOST_AT_ONCE:
                _read(head, waiting, found, exact)
                waiting.clear()
                size = len(body)
            waiting.append((number, numbers, body))
            sizes[head] = size
    for head, waiting in groups.items():
        _read(head, waiting, found, exact)
    return found


def _read(head: Head[Frame], waiting: _Waiting, found: list[Frame | None], exact: Collection[str] | None) -> None:
    batches = read_bodies(head, [body for _, _, body in waiting], exact)
    if batches is not None:
        for (number, numbers, _), batch in zip(waiting, batches, strict=True):
            found[number] = _frame(head.about, numbers, batch)


def _frame(first: Frame, numbers: Mapping[bytes, bytes], batch: pa.RecordBatch) -> Frame | None:
    """A frame of the kind of another one, with its own numbers and rows."""
    try:
        found = {name: int(text) for name, text in numbers.items()}
    except ValueError:
        return None
    if any(abs(number) > _MOST_NUMBER for number in found.values()):
        return None
    if batch.num_rows * (len(first.run) + len(first.stream)) > MOST_BYTES:
        return None
    return Frame(
        first.stream,
        first.run,
        batch,
        first_seq=found.get(b"seq", first.first_seq),
        version=first.version,
        origin=first.origin,
        watermark_us=found.get(b"watermark"),
        end=first.end,
        peers=first.peers,
        weight=first.weight,
    )


_HEADS: Final = Heads(decode_frame)

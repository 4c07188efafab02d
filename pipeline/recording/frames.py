"""The events of a recorded log as frames, from both frames and JSON records.

`pipeline.recording.reader.read_log` yields the records unchanged, `frames_of` the events in them::

    for topic, partition, offset, frame in frames_of("run.jsonl.zst"):
        print(topic, frame.num_rows, frame.timestamps()[0])
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Final, Literal

from astrocyte.agents.ingest.decode import decode_chunk
from astrocyte.agents.ingest.decoders import Decoders
from astrocyte.agents.sinks.base import SourcedFrame
from astrocyte.pipeline.kafka.record import ConsumedRecord
from astrocyte.pipeline.recording.format import InvalidLog
from astrocyte.pipeline.recording.reader import read_log
from astrocyte.schemas.catalog import CATALOG, Catalog
from astrocyte.schemas.events import DeadLetter
from astrocyte.schemas.frames import Frame
from astrocyte.schemas.json.reader import RawRecord
from astrocyte.schemas.topics import is_derived

__all__ = ["OnBad", "chunks_of", "frames_of", "raw_record"]

log = logging.getLogger(__name__)

_GROUP: Final = 1024
"""Number of messages decoded together; JSON records among them share a frame."""
_GROUP_BYTES: Final = 1 << 20


OnBad = Literal["raise", "skip"] | Callable[[DeadLetter], None]


def raw_record(record: ConsumedRecord) -> RawRecord:
    """The record in the form that decoders take."""
    headers = tuple((name, value or b"") for name, value in record.headers)
    return RawRecord(record.offset, record.timestamp_ms, record.key, record.value, headers)


def chunks_of(
    source: str | Path | Iterable[ConsumedRecord],
    *,
    catalog: Catalog = CATALOG,
    derived: bool = False,
    on_bad: OnBad = "raise",
    decoders: Decoders | None = None,
) -> Iterator[SourcedFrame]:
    """Events of a log (or of records) as frames with the offset of each row; within a partition in order.

    Topics that the pipeline writes (`is_derived`) are left out unless ``derived``; a topic whose name contains no
    stream is its own stream. ``decoders`` are those of declared streams. ``on_bad`` decides about a message without an
    event: raise InvalidLog, skip it, or call the given function.
    """
    records = read_log(source) if isinstance(source, str | Path) else source
    for group in _groups(records, derived):
        parts: dict[tuple[str, int], list[RawRecord]] = {}
        for record in group:
            parts.setdefault((record.topic, record.partition), []).append(raw_record(record))
        for (topic, partition), raws in parts.items():
            frames, letters = decode_chunk(topic, partition, raws, catalog, decoders)
            for letter in letters:
                _report(letter, on_bad)
            yield from frames


def frames_of(
    source: str | Path | Iterable[ConsumedRecord],
    *,
    catalog: Catalog = CATALOG,
    derived: bool = False,
    on_bad: OnBad = "raise",
) -> Iterator[tuple[str, int, int, Frame]]:
    """(topic, partition, offset, frame) of every frame of `chunks_of`; for JSON records, the offset of the first."""
    for chunk in chunks_of(source, catalog=catalog, derived=derived, on_bad=on_bad):
        yield chunk.topic, chunk.partition, chunk.offset, chunk.frame


def _groups(records: Iterable[ConsumedRecord], derived: bool) -> Iterator[list[ConsumedRecord]]:
    """Groups of up to `_GROUP` messages or `_GROUP_BYTES`: small frames are read many at once, a large one alone."""
    group: list[ConsumedRecord] = []
    size = 0
    for record in records:
        if not derived and is_derived(record.topic):
            continue
        group.append(record)
        size += len(record.value or b"")
        if len(group) >= _GROUP or size >= _GROUP_BYTES:
            yield group
            group, size = [], 0
    if group:
        yield group


def _report(letter: DeadLetter, on_bad: OnBad) -> None:
    if callable(on_bad):
        on_bad(letter)
    elif on_bad == "raise":
        raise InvalidLog(f"{letter.topic}[{letter.partition}]@{letter.offset} holds no event: {letter.reason}")
    else:
        log.debug("%s[%d]@%d skipped: %s", letter.topic, letter.partition, letter.offset, letter.reason)

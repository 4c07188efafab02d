"""Kafka messages to frames, one chunk of a partition at a time, in which frames, JSON and other forms may be mixed.

Every message is accounted for: it is in a frame, or it is a dead letter with its reason and its bytes.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np

from astrocyte.agents.ingest.declared import enforce
from astrocyte.agents.ingest.decoders import ARROW, Decoder, Decoders, run_decoder
from astrocyte.agents.sinks.base import SourcedFrame
from astrocyte.schemas.catalog import CATALOG, Catalog
from astrocyte.schemas.contract import Contract, Contracts
from astrocyte.schemas.errors import InvalidEvent, InvalidFrame, SchemaMismatch
from astrocyte.schemas.events import DeadLetter
from astrocyte.schemas.frames import Frame, conform, decode_frame
from astrocyte.schemas.ids import hash_id
from astrocyte.schemas.json.reader import KafkaRecord, RawRecord, frame_to_records, records_to_frame
from astrocyte.schemas.times import iso_from_us

__all__ = ["dead_letter", "decode_chunk"]


def dead_letter(
    record: KafkaRecord, topic: str, partition: int, *, reason: str, stage: str, row: int | None = None
) -> DeadLetter:
    """The record as a dead letter; its id is a function of its offset, so that writing it again is idempotent."""
    return DeadLetter.model_validate(
        {
            "letter_id": str(hash_id("dead", topic, str(partition), str(record.offset), str(row), stage)),
            "reason": reason,
            "stage": stage,
            "topic": topic,
            "partition": partition,
            "offset": record.offset,
            "row": row,
            "timestamp": iso_from_us(record.timestamp * 1000),
            "key_b64": None if record.key is None else b64encode(record.key).decode(),
            "payload_b64": None if record.value is None else b64encode(record.value).decode(),
            "headers": tuple((name, b64encode(value or b"").decode()) for name, value in record.headers),
        }
    )


def decode_chunk(
    topic: str,
    partition: int,
    records: Sequence[KafkaRecord],
    catalog: Catalog = CATALOG,
    decoders: Decoders | None = None,
) -> tuple[list[SourcedFrame], list[DeadLetter]]:
    """Frames of the chunk in offset order, and dead letters of the messages that cannot be decoded.

    The types of the catalog and of the declarations (those of ``decoders``) are enforced. Messages that hold no event
    by their stream's declaration are in neither (`schemas.contract.Contract.skips`).
    """
    decoders = decoders or Decoders(Contracts(catalog=catalog))
    contract = decoders.contracts.of_topic(topic)
    if contract.declaration is not None:
        records = [record for record in records if not contract.skips(record.value)]
    frames: list[SourcedFrame] = []
    letters: list[DeadLetter] = []
    for decoder, run in _runs(records, decoders.chosen(records, contract)):
        if decoder.is_json:
            _read_json(_Run(topic, partition, run, contract, decoder.envelope), frames, letters)
            continue
        for record in run:
            try:
                made = (
                    decode_frame(record.value or b"")
                    if decoder is ARROW
                    else run_decoder(decoder, record, topic, partition)
                )
                if isinstance(made, Frame):
                    event_type = None if made.has("window_start") else catalog.find(made.stream)
                    made = conform(made, event_type) if event_type is not None else made
            except (InvalidFrame, InvalidEvent, SchemaMismatch) as error:
                letters.append(dead_letter(record, topic, partition, reason=str(error), stage="decode"))
                continue
            if isinstance(made, Frame):
                made = _enforce(made, contract, SourcedFrame(made, topic, partition, record.offset), letters)
                frames.append(SourcedFrame(made, topic, partition, record.offset))
            else:
                _read_json(_Run(topic, partition, made, contract, None, record), frames, letters)
    return frames, letters


def _enforce(frame: Frame, contract: Contract, sourced: SourcedFrame, letters: list[DeadLetter]) -> Frame:
    """The frame with the declared types; rows that do not fit them become dead letters."""
    if contract.declaration is None or frame.stream != contract.stream:
        return frame
    found, refused = enforce(frame, contract.declaration)
    for row, reason in refused.items():
        key, value, headers = frame_to_records(frame.take(np.array([row])))[0]
        raw = RawRecord(sourced.offset, int(frame.timestamps()[row]) // 1000, key, value, headers)
        letters.append(dead_letter(raw, sourced.topic, sourced.partition, reason=reason, stage="decode", row=row))
    return found


@dataclass(frozen=True, slots=True)
class _Run:
    """Consecutive JSON records of one partition; ``source`` is the message from which a decoder made them, if any."""

    topic: str
    partition: int
    records: Sequence[KafkaRecord]
    contract: Contract
    envelope: str | None = None
    source: KafkaRecord | None = None


def _read_json(run: _Run, frames: list[SourcedFrame], letters: list[DeadLetter]) -> None:
    records = run.records
    decoded, index, refused = records_to_frame(
        run.topic, run.partition, run.contract.stream, records, contract=run.contract, envelope=run.envelope
    )
    for item in refused:
        record, row = (records[item.index], None) if run.source is None else (run.source, item.index)
        reason = item.reason
        letters.append(dead_letter(record, run.topic, run.partition, reason=reason, stage="decode", row=row))
    if decoded is not None:
        offsets = np.array([records[row].offset for row in index], np.int64)
        last = records[-1].offset
        received = [records[row] if run.source is None else run.source for row in index]
        frames.append(
            SourcedFrame(
                decoded, run.topic, run.partition, int(offsets[0]), offsets, last_offset=last, received=received
            )
        )


def _runs(records: Sequence[KafkaRecord], chosen: Sequence[Decoder]) -> Iterator[tuple[Decoder, Sequence[KafkaRecord]]]:
    first = 0
    for decoder, same in groupby(chosen):
        last = first + len(list(same))
        yield decoder, records[first:last]
        first = last

"""Output of a domain as Kafka records: topic, partition and headers."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, Protocol

import orjson
import pyarrow as pa

from astrocyte.agents.ingest.copies import COPY_HEADER, SILENT_HEADER, Copy
from astrocyte.agents.ingest.letters import dead_letter
from astrocyte.agents.lane import unraised
from astrocyte.agents.promises import Results
from astrocyte.pipeline.transport.producer_record import ProducerRecord
from astrocyte.schemas.events import DeadLetter
from astrocyte.schemas.frames import CONTENT_TYPE, Frame, encode_frame
from astrocyte.schemas.ids import hash_id
from astrocyte.schemas.json.cloudevents import OWN_SOURCE
from astrocyte.schemas.json.reader import JsonRecord, RawRecord, cloud_headers
from astrocyte.schemas.partitioning import split_by_partition
from astrocyte.schemas.times import us_from_iso
from astrocyte.schemas.topics import ALERTS, DEAD_LETTERS, LATE, MULTI_EVENTS, STATS, TOPOLOGY, metrics_topic

if TYPE_CHECKING:  # roles that write records and do not correlate load no kernels
    from astrocyte.agents.domain import Domain, DomainOutput
    from astrocyte.agents.promises import Sent
    from astrocyte.pipeline.roles.stalls import Stall

__all__ = [
    "FRAME_HEADERS",
    "copy_records",
    "frame_records",
    "led_of",
    "letter_record",
    "producer_records",
    "sent_records",
    "stats_record",
    "waiting_of",
]

FRAME_HEADERS: Final = (("content-type", CONTENT_TYPE.encode()),)
_MOST_BYTES: Final = 31 << 20
"""Of a record: the topics of the pipeline, and its producer, take 32 MiB with what frames a batch."""
_POSITION: Final = "astrocyte position"
"""Column that lasts only until the rows are divided."""


def letter_record(letter: DeadLetter, partition: int) -> ProducerRecord:
    """One dead letter; its key is topic and partition of the refused record."""
    time_us = us_from_iso(letter.timestamp) if letter.timestamp else 0
    source = f"{OWN_SOURCE}{letter.topic}/{letter.partition}"
    headers = cloud_headers(letter.letter_id, "astrocyte.dead_letter", source, time_us)
    key = f"{letter.topic}/{letter.partition}".encode()
    return ProducerRecord(DEAD_LETTERS, letter.model_dump_json().encode(), key, partition, headers)


def _fitting(record: ProducerRecord, stage: str, partition: int) -> ProducerRecord:
    """The record, or a dead letter of it where no topic of the pipeline would take it; the role would end otherwise."""
    size = len(record.value or b"")
    if size > _MOST_BYTES // 2:  # headers are never larger than the value
        size += len(record.key or b"") + sum(len(name) + len(value) for name, value in record.headers)
    if size <= _MOST_BYTES:
        return record
    reason = f"the record for {record.topic!r} has {size:,} bytes; expected at most {_MOST_BYTES:,}"
    raw = RawRecord(-1, -1, record.key, record.value, record.headers)
    letter = dead_letter(raw, record.topic, record.partition or 0, reason=reason, stage=stage)
    digest = hashlib.sha256(record.value or b"").hexdigest()
    letter = letter.model_copy(update={"letter_id": str(hash_id("dead", stage, record.topic, digest))})
    return letter_record(letter, partition)


def frame_records(topic: str, frame: Frame, partitions: int) -> list[ProducerRecord]:
    """A frame, one record for each partition that it concerns."""
    if not frame.num_rows:
        return _everywhere(topic, frame, partitions, FRAME_HEADERS)
    return [
        ProducerRecord(topic, encode_frame(part), None, partition, FRAME_HEADERS)
        for partition, part in split_by_partition(frame, partitions)
    ]


class KeyedTopic(Protocol):
    """An internal topic and the field by which it is partitioned."""

    @property
    def topic(self) -> str:
        """Its name."""

    @property
    def field(self) -> str:
        """The field; empty where all events come together."""


def copy_records(to: KeyedTopic, copy: Copy, partitions: int) -> list[ProducerRecord]:
    """A frame for an internal topic, one record for each partition that it concerns, with where its rows come from."""
    topic, copied = to.topic, copy.copied
    if not copy.frame.num_rows:
        return _everywhere(topic, copy.frame, partitions, _headers_of(copy))
    if copied is None:
        return frame_records(topic, copy.frame, partitions)
    marked = copy.frame.with_column(_POSITION, pa.array(copied.positions))
    records = []
    for partition, part in split_by_partition(marked, partitions, by=to.field):
        header = replace(copied, positions=part.column(_POSITION).to_numpy()).pack()
        frame = replace(part, batch=part.batch.drop_columns([_POSITION]))
        record = ProducerRecord(topic, encode_frame(frame), None, partition, (*FRAME_HEADERS, (COPY_HEADER, header)))
        records.append(_fitting(record, "repartition", partition))
    return records


def sent_records(sent: Sent, partitions: int) -> list[ProducerRecord]:
    """What a domain sends to those that wait for it, one record for each partition that it concerns."""
    if not isinstance(sent.link, Results):
        return copy_records(sent.link, sent.copy, partitions)
    # Whatever the keys: the domain of each partition is the only one that speaks of event time there.
    data = encode_frame(sent.copy.frame)
    return [ProducerRecord(sent.link.topic, data, None, sent.link.partition, _headers_of(sent.copy))]


def _headers_of(copy: Copy) -> tuple[tuple[str, bytes], ...]:
    copied = () if copy.copied is None else ((COPY_HEADER, copy.copied.pack()),)
    return (*FRAME_HEADERS, *copied, *(((SILENT_HEADER, b""),) if copy.silent else ()))


def _everywhere(
    topic: str, frame: Frame, partitions: int, headers: Sequence[tuple[str, bytes]]
) -> list[ProducerRecord]:
    """A frame without rows, which says to each partition how far time is."""
    data = encode_frame(frame)
    return [ProducerRecord(topic, data, None, partition, headers) for partition in range(partitions)]


def producer_records(
    output: DomainOutput, partition: int, partitions: int
) -> dict[tuple[str, int], list[ProducerRecord]]:
    """Records of one domain's output by (topic, partition), in order.

    All records of a domain go to the partition of its own number: their keys hash to it anyway (a rule's key
    is the partition key), and so each partition has one writer. Only what the events of a repartitioned topic with more
    partitions than there are domains cause, late events and dead letters, is divided over all, and so are the events of
    junctions, whose origin names the domain.
    """
    batches: dict[tuple[str, int], list[ProducerRecord]] = {}
    partition %= partitions

    def add(topic: str, records: Iterable[JsonRecord], stage: str) -> None:
        for record in records:
            made = _fitting(
                ProducerRecord(topic, record.value, record.key, partition, record.headers), stage, partition
            )
            batches.setdefault((made.topic, partition), []).append(made)

    add(MULTI_EVENTS, output.multi_events, "emit")
    add(ALERTS, output.alerts, "alert")
    add(LATE, output.late, "late")
    add(TOPOLOGY, output.topology, "emit")
    for letter in output.dead_letters:
        batches.setdefault((DEAD_LETTERS, partition), []).append(letter_record(letter, partition))
    sent = [record for each in output.led for record in sent_records(each, partitions)]
    timed = {record.topic for record in sent}
    for frame in output.frames:
        topic = metrics_topic(frame.stream)
        for record in () if topic in timed else frame_records(topic, frame, partitions):
            batches.setdefault((topic, record.partition or 0), []).append(record)
    for record in sent:
        batches.setdefault((record.topic, record.partition or 0), []).append(record)
    return batches


def waiting_of(domain: Domain) -> int:
    """Number of events of a domain that are read and not processed yet."""
    return domain.waiting + sum(group.waiting for group in domain.groups_time)


def led_of(domain: Domain) -> dict[str, Counter[str]]:
    """By junction: what became of its rules' matches here, and of its events if it forms (`MATCHES`, `EVENTS`)."""
    from astrocyte.agents.accounting import summed

    engines = [group.engine for group in domain.groups]
    return summed(counts for engine in engines for counts in (engine.junctions.counts, engine.gates.counts))


def stats_record(role: str, domain: Domain, stalls: Sequence[Stall], now_us: int) -> ProducerRecord:
    """Counters of a domain of a role as they are now, and for what it waits."""
    stats: dict[str, Any] = domain.counters.as_dict() | {"watermark_us": domain.watermark_us, "reported_us": now_us}
    stats |= {
        "unused": domain.unused.as_json(),
        "copies": domain.copies,
        "unraised": unraised(domain.groups),
        "led": led_of(domain),
        "joined": {name: count for group in domain.groups for name, count in group.engine.gates.joined.items()},
        "left_out": domain.leaving_out.counts,
        "corrections": {rule: counts for group in domain.groups for rule, counts in group.engine.corrections.items()},
    }
    stats["partition"] = domain.partition
    stats["keys"] = {
        topic: {"limit": sample.limit, "keys": sample.keys, "by": domain.placed_by.get(topic, "key")}
        for topic, sample in domain.keys.items()
    }
    if domain.groups:
        stats["absent"] = domain.fields.absent(domain.made)
    stats |= {"waiting": waiting_of(domain), "doubted": domain.doubted, "stalls": [stall.as_json() for stall in stalls]}
    return ProducerRecord(STATS, orjson.dumps(stats), f"{role}/{domain.partition}".encode(), 0)

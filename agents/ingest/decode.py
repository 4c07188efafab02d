"""Kafka messages to frames, one chunk of a partition at a time, in which frames, JSON and other forms may be mixed.

Every message is accounted for: it is in a frame, or it is a dead letter with its reason and its bytes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import groupby
from typing import Final

import numpy as np
from numpy.typing import NDArray

from astrocyte.agents.event_time.clock_guard import NO_KAFKA_TIME_US
from astrocyte.agents.ingest.declared import enforce, unmixed
from astrocyte.agents.ingest.decoders import ARROW, Decoder, Decoders, of_retried, row_ids, run_decoder
from astrocyte.agents.ingest.faults import apart, reason_of
from astrocyte.agents.ingest.letters import dead_letter, row_letter
from astrocyte.agents.ingest.small_frames import decode_small_frames
from astrocyte.agents.sinks.base import SourcedFrame
from astrocyte.schemas.catalog import CATALOG, Catalog
from astrocyte.schemas.contract import Contract, Contracts
from astrocyte.schemas.errors import InvalidEvent, TransientError
from astrocyte.schemas.events import DeadLetter
from astrocyte.schemas.frames import Frame, conform, decode_frame
from astrocyte.schemas.json.reader import KafkaRecord, is_retried, records_to_frame, retried_rows
from astrocyte.schemas.json.types import Nulled
from astrocyte.schemas.times import us_from_ms

__all__ = ["RETRY_ORIGIN", "KafkaTimes", "decode_chunk", "placed"]

_MOST_RECORDS: Final = 20_000
"""Records of decoders after which they are read, although more of the chunk follow."""
RETRY_ORIGIN: Final = "astrocyte.retry"
"""Origin of the frames of dead letters that were sent again."""


def decode_chunk(
    topic: str,
    partition: int,
    records: Sequence[KafkaRecord],
    catalog: Catalog = CATALOG,
    decoders: Decoders | None = None,
) -> tuple[list[SourcedFrame], list[DeadLetter]]:
    """Frames of the chunk in offset order, and dead letters of the messages that cannot be decoded.

    The types of the catalog and of the declarations (those of ``decoders``) are enforced. A message that raises
    anything at all is a dead letter, and the others are read; only a decoder's TransientError is raised. Messages that
    hold no event by their stream's declaration are in neither (`schemas.contract.Contract.skips`).
    """
    decoders = decoders or Decoders(Contracts(catalog=catalog))
    contract = decoders.contracts.of_topic(topic)
    if contract.declaration is not None:
        records = [record for record in records if not contract.skips(record.value)]
    exact, typed = contract.exact_columns, _held_columns(contract)
    frames: list[SourcedFrame] = []
    letters: list[DeadLetter] = []
    for decoder, retried, run in _runs(records, decoders.chosen(records, contract)):
        if decoder.is_json:
            _read_json(_Run(topic, partition, run, contract, decoder.envelope), frames, letters)
            continue
        batch = _Batch(topic, partition, contract)
        read: Sequence[Frame | None] = [None] * len(run)
        if decoder is ARROW:
            read = decode_small_frames([record.value for record in run], exact=exact)
        for record, found in zip(run, read, strict=True):
            try:
                made = (
                    found or decode_frame(record.value or b"", exact=exact, typed=typed)
                    if decoder is ARROW
                    else run_decoder(decoder, record, topic, partition)
                )
                if isinstance(made, Frame):
                    made = made if decoder is ARROW else made.settled(exact, typed)
                    made = placed(made, topic, partition, record)
                    sourced, refused = _typed(SourcedFrame(made, topic, partition, record.offset), contract, catalog)
                else:
                    numbers = _meant(record, len(made))
            except (MemoryError, TransientError):
                raise
            except Exception as error:  # noqa: BLE001  a message that raises is refused, whatever it raises
                reason = reason_of("decoding a message", error)
                batch.refused.append(dead_letter(record, topic, partition, reason=reason, stage="decode"))
                continue
            if isinstance(made, Frame):
                batch.refused += refused
                batch.read(frames, letters)
                frames.append(replace(sourced, frame=_retried_frame(sourced.frame)) if retried else sourced)
            elif made:  # else it is a message without events
                single = len(made) == 1
                if single != batch.single or batch.is_full:
                    batch.read(frames, letters)
                batch.single = single
                batch.add([made[number] for number in numbers], record, numbers)
        batch.read(frames, letters)
    return frames, letters


def placed(frame: Frame, topic: str, partition: int, record: KafkaRecord) -> Frame:
    """The frame that a message holds; rows without a run and ids get ids made of their place. Raises InvalidEvent."""
    return frame if frame.is_identified else frame.with_ids(row_ids(record, topic, partition, frame.num_rows))


def _held_columns(contract: Contract) -> frozenset[str]:
    """Columns that `enforce` alone holds to their types; those of a stream of the catalog are the catalog's."""
    if contract.declaration is None or contract.event_type is not None:
        return frozenset()
    return contract.declaration.typed_columns


def _typed(sourced: SourcedFrame, contract: Contract, catalog: Catalog) -> tuple[SourcedFrame, list[DeadLetter]]:
    """The frame with the types of the catalog and the declaration, and dead letters of the rows that do not fit them.

    Raises SchemaMismatch for a column of which no row fits the catalog.
    """
    frame, reasons = sourced.frame, dict[int, str]()
    rows: NDArray[np.int64] | None = None
    nulled: Sequence[Nulled] = ()

    def leave(refused: dict[int, str]) -> None:
        nonlocal rows
        if refused:
            rows = np.arange(sourced.frame.num_rows) if rows is None else rows
            reasons.update({int(rows[row]): reason for row, reason in refused.items()})
            rows = np.delete(rows, list(refused))

    event_type = None if frame.has("window_start") else catalog.find(frame.stream)
    if event_type is not None:
        if frame.num_rows and not event_type.has_columns(frame.batch.schema, in_run=bool(frame.run)):
            frame, refused = unmixed(frame, event_type.fields)
            leave(refused)
        frame = conform(frame, event_type)
    if frame.num_rows and contract.declaration is not None and frame.stream == contract.stream:
        frame, refused, nulled = enforce(frame, contract.declaration)
        leave(refused)
    else:  # nothing has held it to the declared types
        frame = frame.settled(contract.exact_columns)
    letters = [
        row_letter(sourced, row, reason=reason, stage="decode", catalog=catalog)
        for row, reason in sorted(reasons.items())
    ]
    if frame is sourced.frame and not nulled:
        return sourced, letters
    return replace(sourced, frame=frame, numbers=rows, nulled=nulled), letters


@dataclass(frozen=True, slots=True)
class _Run:
    """Consecutive JSON records of one partition; ``sources`` are the messages of which a decoder made them, if any."""

    topic: str
    partition: int
    records: Sequence[KafkaRecord]
    contract: Contract
    envelope: str | None = None
    sources: Sequence[KafkaRecord] | None = None
    numbers: Sequence[int] | None = None
    """Number of each record inside its message; None where each message holds one."""


class _Batch:
    """Consecutive messages of which a decoder made records: these are read at once, as JSON records are.

    A frame for each message would cost a hundred times as much.
    """

    def __init__(self, topic: str, partition: int, contract: Contract) -> None:
        self._place = topic, partition, contract
        self._records: list[KafkaRecord] = []
        self._sources: list[KafkaRecord] = []
        self._numbers: list[int] = []
        self.single = True
        """Whether each message holds one record."""
        self.refused: list[DeadLetter] = []
        """Dead letters of messages among these."""

    @property
    def is_full(self) -> bool:
        """Whether it should be read, since the memory for more at once is better saved."""
        return len(self._records) >= _MOST_RECORDS

    def add(self, records: Sequence[KafkaRecord], source: KafkaRecord, numbers: Sequence[int]) -> None:
        """Add the records of a message, and their numbers in it."""
        self._records += records
        self._sources += [source] * len(records)
        self._numbers += numbers

    def read(self, frames: list[SourcedFrame], letters: list[DeadLetter]) -> None:
        """Add the frame of the messages and all dead letters in the order of their offsets; then there are none."""
        refused = self.refused
        if self._records:
            topic, partition, contract = self._place
            numbers = None if self.single else self._numbers
            run = _Run(topic, partition, self._records, contract, None, self._sources, numbers)
            _read_json(run, frames, refused)
        letters += sorted(refused, key=lambda letter: letter.offset)
        self._records, self._sources, self._numbers, self.refused = [], [], [], []


def _read_json(run: _Run, frames: list[SourcedFrame], letters: list[DeadLetter]) -> None:
    def attempt(first: int, last: int) -> None:
        records = run.records[first:last] if last - first < len(run.records) else run.records
        nulled: list[Nulled] = []
        decoded, index, refused = records_to_frame(
            run.topic,
            run.partition,
            run.contract.stream,
            records,
            contract=run.contract,
            envelope=run.envelope,
            nulled=nulled,
        )
        for item in refused:
            refuse_record(first + item.index, item.reason)
        if decoded is not None:
            sources = run.records if run.sources is None else run.sources
            if is_retried(sources[first]):
                decoded = _retried_frame(decoded)
            offsets = np.array([records[row].offset for row in index], np.int64)
            end = records[-1].offset
            received = [sources[first + row] for row in index]
            made = None if run.sources is None else [records[row] for row in index]
            numbered = run.numbers
            numbers = None if numbered is None else np.array([numbered[first + row] for row in index], np.int64)
            frames.append(
                SourcedFrame(
                    decoded,
                    run.topic,
                    run.partition,
                    int(offsets[0]),
                    offsets,
                    end,
                    received,
                    made=made,
                    numbers=numbers,
                    nulled=nulled,
                )
            )

    def refuse_record(at: int, reason: str) -> None:
        record = run.records[at] if run.sources is None else run.sources[at]
        row = None if run.sources is None else 0 if run.numbers is None else run.numbers[at]
        letters.append(dead_letter(record, run.topic, run.partition, reason=reason, stage="decode", row=row))

    def refuse(at: int, error: Exception) -> None:
        refuse_record(at, reason_of("decoding a message", error))

    apart(len(run.records), attempt, refuse)


def _meant(record: KafkaRecord, count: int) -> Sequence[int]:
    """Numbers of the events of a message that are meant: all ``count``, except in one that was sent again for some.

    Raises InvalidEvent.
    """
    given = retried_rows(record)
    if given is None:
        return range(count)
    numbers = [int(number) for number in given.split(b",") if number.isdigit()]
    if not numbers or max(numbers) >= count:
        raise InvalidEvent(
            f"the dead letter is of event {given.decode('ascii', 'replace')} of the message, which now holds {count} "
            "events; send the message itself again"
        )
    return numbers


def _runs(
    records: Sequence[KafkaRecord], chosen: Sequence[Decoder]
) -> Iterator[tuple[Decoder, bool, Sequence[KafkaRecord]]]:
    """Consecutive records with the same decoder, and whether they are messages that were sent again."""
    first = 0
    retried = list(map(is_retried, records))
    if any(retried):
        chosen = [
            of_retried(record, decoder) if again else decoder
            for record, decoder, again in zip(records, chosen, retried, strict=True)
        ]
    # Messages that were sent again say nothing about event time, so they form frames of their own.
    for (decoder, again), same in groupby(zip(chosen, retried, strict=True)):
        last = first + len(list(same))
        yield decoder, again, records[first:last]
        first = last


class KafkaTimes:
    """Kafka timestamps of the messages of a chunk. They are read once, for the first frame that asks for some."""

    def __init__(self, records: Sequence[KafkaRecord]) -> None:
        self._records = records

    def of(self, sourced: SourcedFrame, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Timestamp of each row's message in microseconds; `NO_KAFKA_TIME_US` where it has none that can be true."""
        offsets, times_us = self._known
        wanted = np.full(len(rows), sourced.offset, np.int64) if sourced.offsets is None else sourced.offsets[rows]
        return times_us[np.searchsorted(offsets, wanted)]

    @cached_property
    def _known(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        count = len(self._records)
        offsets = np.fromiter((record.offset for record in self._records), np.int64, count)
        times = (us_from_ms(record.timestamp) for record in self._records)
        known = (NO_KAFKA_TIME_US if time_us is None else time_us for time_us in times)
        times_us = np.fromiter(known, np.int64, count)
        order = np.argsort(offsets, kind="stable")  # of a broker they are in order, of a file they need not be
        return offsets[order], times_us[order]


def _retried_frame(frame: Frame) -> Frame:
    """The frame of a dead letter that was sent again: it comes from a source that never delays event time."""
    return replace(frame, origin=RETRY_ORIGIN, watermark_us=None, end=False, peers=())

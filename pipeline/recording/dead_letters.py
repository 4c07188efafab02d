"""Dead letters of a broker or a recorded log: selecting them, and sending them again.

A letter is sent to the topic and partition of the message that was refused, with its key, value and headers, after two
headers of its own (`schemas.json.reader.LETTER_HEADER`, `OFFSET_HEADER`). Events have their ids from the offset at
which the message was first written, so that an event keeps its id however often it is sent. A third header,
`ROW_HEADER`, follows where the letter was of one event among several of a message, which is sent once and names those
whose letters are sent. A letter that holds an event itself (a row of a frame, a row that a store refused) has that
header already.

The topic ``control.retries`` notes each letter that was sent, so that none is sent twice, and where a retry began: one
that was killed is completed by the next, which first finds in the topics what had been sent.
"""

from __future__ import annotations

import asyncio
import fnmatch
from base64 import b64decode
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

import orjson

from astrocyte.pipeline.kafka.client import consumer_client, ensure_topics, producer_client, scan, topic_partitions
from astrocyte.pipeline.kafka.offsets import Start
from astrocyte.pipeline.kafka.record import ConsumedRecord, Headers
from astrocyte.schemas.errors import InvalidSettings
from astrocyte.schemas.events import DeadLetter
from astrocyte.schemas.json.reader import CUT_HEADER, LETTER_HEADER, OFFSET_HEADER, ROW_ALONE, ROW_HEADER
from astrocyte.schemas.times import us_from_iso
from astrocyte.schemas.topics import DEAD_LETTERS, RETRIES

__all__ = [
    "RESULT_STAGES",
    "Found",
    "LetterFilter",
    "Letters",
    "Message",
    "Retried",
    "letters_of",
    "letters_of_broker",
    "matching",
    "message_of",
    "one_of",
    "retried_ids",
    "retried_messages",
    "retry",
]

RESULT_STAGES: Final = ("emit", "alert")
"""Stages of letters that hold a result of a rule, not a message."""
_BATCH: Final = 500
_BEGUN: Final = b"begun"


class Found(NamedTuple):
    """A dead letter and when it was written, in milliseconds since 1970."""

    letter: DeadLetter
    written_ms: int


@dataclass(slots=True)
class Letters:
    """Dead letters in the order in which they were written; copies of one letter count once."""

    found: list[Found] = field(default_factory=list)
    unreadable: int = 0
    """Messages of the topic that are no dead letters."""
    _ids: set[str] = field(default_factory=set)

    def add(self, record: ConsumedRecord) -> None:
        """Take one message of the topic of dead letters."""
        try:
            letter = DeadLetter.model_validate_json(record.value or b"")
            # Anyone may write to the topic: what should be base64 must be that, before it is used anywhere.
            for text in (letter.key_b64, letter.payload_b64, *(value for _, value in letter.headers)):
                b64decode(text or "", validate=True)
        except ValueError:
            self.unreadable += 1
            return
        if letter.letter_id not in self._ids:
            self._ids.add(letter.letter_id)
            self.found.append(Found(letter, record.timestamp_ms))


@dataclass(frozen=True, slots=True)
class LetterFilter:
    """Selects dead letters: each condition that is given must hold."""

    ids: tuple[str, ...] = ()
    """Ids, or their first characters."""
    topics: tuple[str, ...] = ()
    """Topics of the refused messages, or patterns such as ``mono.*``."""
    stages: tuple[str, ...] = ()
    reason: str | None = None
    """Text in the reason, in any case."""
    key: str | None = None
    since_ms: int | None = None
    """When the letter was written: at or after."""
    until_ms: int | None = None
    """When the letter was written: before."""

    @property
    def selects_all(self) -> bool:
        """Whether no condition is given."""
        return self == LetterFilter()

    def __call__(self, found: Found) -> bool:
        """Whether the letter is selected."""
        letter, written_ms = found
        key = None if letter.key_b64 is None else b64decode(letter.key_b64).decode("utf-8", "replace")
        return (
            (not self.ids or letter.letter_id.startswith(self.ids))
            and (not self.topics or any(fnmatch.fnmatchcase(letter.topic, each) for each in self.topics))
            and (not self.stages or letter.stage in self.stages)
            and (self.reason is None or self.reason.casefold() in letter.reason.casefold())
            and (self.key is None or self.key == key)
            and (self.since_ms is None or written_ms >= self.since_ms)
            and (self.until_ms is None or written_ms < self.until_ms)
        )


def letters_of(records: Iterable[ConsumedRecord]) -> Letters:
    """Dead letters among the records of a log."""
    letters = Letters()
    for record in records:
        if record.topic == DEAD_LETTERS:
            letters.add(record)
    return letters


async def letters_of_broker(broker: str) -> Letters:
    """Dead letters of a broker, up to the present end of their topic."""
    letters = Letters()
    async for record in _all(broker, DEAD_LETTERS):
        letters.add(record)
    return letters


async def _all(broker: str, topic: str) -> AsyncIterator[ConsumedRecord]:
    known = await topic_partitions(broker)
    if topic not in known:
        return
    async with consumer_client(broker) as client:
        async for batch in scan(client, {topic: known[topic]}):
            for record in batch:
                yield record


class Message(NamedTuple):
    """A message that a dead letter becomes again."""

    topic: str
    partition: int
    key: bytes | None
    value: bytes | None
    headers: Headers
    timestamp_ms: int | None


def message_of(letter: DeadLetter) -> Message | str:
    """The message to send again, or the reason for which there is none."""
    if letter.stage in RESULT_STAGES:
        return (
            "it is a result of a rule, not a message: mend the rule, and find its matches in a recorded log with "
            "'astrocyte match'"
        )
    if letter.offset < 0 or (letter.payload_b64 is None and letter.row is not None):
        return "it does not hold the event"
    if letter.headers and letter.headers[0][0] == CUT_HEADER:
        return "it holds only the begin of a message that is too large for a dead letter"
    headers: list[tuple[str, bytes | None]] = [(name, b64decode(value)) for name, value in letter.headers]
    first = next((value for name, value in headers if name == OFFSET_HEADER), None) or str(letter.offset).encode()
    headers = [each for each in headers if each[0] not in (LETTER_HEADER, OFFSET_HEADER)]
    marks: list[tuple[str, bytes | None]] = [(LETTER_HEADER, letter.letter_id.encode()), (OFFSET_HEADER, first)]
    if letter.row is not None and (ROW_HEADER, ROW_ALONE) not in headers:
        headers = [each for each in headers if each[0] != ROW_HEADER]
        marks.append((ROW_HEADER, str(letter.row).encode()))
    return Message(
        letter.topic,
        letter.partition,
        None if letter.key_b64 is None else b64decode(letter.key_b64),
        None if letter.payload_b64 is None else b64decode(letter.payload_b64),
        (*marks, *headers),
        None if letter.timestamp is None else us_from_iso(letter.timestamp) // 1000,
    )


def retried_messages(letters: Iterable[DeadLetter]) -> tuple[list[Message], list[tuple[DeadLetter, str]]]:
    """The messages to send again for some letters, and the letters for which there is none, with the reason."""
    groups, refused = _grouped(letters, None)
    return [_message_of_all(group) for group in groups], refused


def _grouped(
    letters: Iterable[DeadLetter], known: Mapping[str, int] | None
) -> tuple[list[list[tuple[DeadLetter, Message]]], list[tuple[DeadLetter, str]]]:
    """Letters with their messages, those of one message together, and the letters without one, with the reason."""
    groups: dict[tuple[Any, ...], list[tuple[DeadLetter, Message]]] = {}
    refused: list[tuple[DeadLetter, str]] = []
    for letter in letters:
        message = message_of(letter)
        if isinstance(message, Message) and known is not None and not _exists(message, known):
            message = f"the broker has no partition {message.partition} of topic {message.topic!r}"
        if isinstance(message, str):
            refused.append((letter, message))
        else:
            place = (letter.topic, letter.partition, letter.offset, message.value)
            groups.setdefault(place, []).append((letter, message))
    return list(groups.values()), refused


def _exists(message: Message, known: Mapping[str, int]) -> bool:
    return 0 <= message.partition < known.get(message.topic, 0)


def _message_of_all(group: Sequence[tuple[DeadLetter, Message]]) -> Message:
    """The message to send for letters of several of its events."""
    rows = [dict(each.headers).get(ROW_HEADER) for _, each in group]
    message = group[rows.index(None) if None in rows else 0][1]  # rather that of a letter of the whole message
    joined = {LETTER_HEADER: b",".join(letter.letter_id.encode() for letter, _ in group)}
    if None not in rows:
        joined[ROW_HEADER] = b",".join(dict.fromkeys(row for row in rows if row is not None))
    headers = tuple((name, joined.get(name, value)) for name, value in message.headers)
    return message._replace(headers=headers)


@dataclass(slots=True)
class Retried:
    """Result of a retry."""

    sent: list[DeadLetter] = field(default_factory=list)
    """Letters whose messages were sent now."""
    before: int = 0
    """Letters that an earlier retry had sent."""
    resumed: int = 0
    """Of these, letters that a retry had sent which ended before it could note so."""
    refused: list[tuple[DeadLetter, str]] = field(default_factory=list)
    """Letters that cannot be sent, with the reason."""

    def as_json(self) -> dict[str, Any]:
        """Counts, and the ids of what was sent and of what cannot be sent."""
        return {
            "sent": [letter.letter_id for letter in self.sent],
            "before": self.before,
            "resumed": self.resumed,
            "refused": [{"letter_id": letter.letter_id, "reason": reason} for letter, reason in self.refused],
        }


async def retried_ids(broker: str) -> tuple[set[str], dict[tuple[str, int], int]]:
    """Ids of letters that were sent again; and, of a retry that did not end, where each partition ended before it."""
    ids: set[str] = set()
    begun: dict[tuple[str, int], int] = {}
    async for record in _all(broker, RETRIES):
        if record.key == _BEGUN:
            places = orjson.loads(record.value or b"[]")
            begun = {(topic, partition): offset for topic, partition, offset in places}
        elif record.key is not None:
            ids.add(record.key.decode())
    return ids, begun


async def retry(broker: str, letters: Sequence[DeadLetter], *, replication: int = 1, dry_run: bool = False) -> Retried:
    """Send letters again that were not sent before. Raises BrokerUnavailable; calling again then completes the work."""
    ids, begun = await retried_ids(broker)
    known = await topic_partitions(broker)
    unnoted = await _sent_since(broker, begun, known) - ids
    result = Retried(resumed=len(unnoted))
    fresh = [letter for letter in letters if letter.letter_id not in ids and letter.letter_id not in unnoted]
    result.before = len(letters) - len(fresh)
    groups, result.refused = _grouped(fresh, known)
    if dry_run:
        result.sent = [letter for group in groups for letter, _ in group]
        return result
    if groups or unnoted:
        await ensure_topics(
            broker, {RETRIES: 1}, replication=replication, config={RETRIES: {"cleanup.policy": "compact"}}
        )
        await _send(broker, groups, unnoted, result)
    return result


async def _send(
    broker: str, groups: Sequence[list[tuple[DeadLetter, Message]]], unnoted: Iterable[str], result: Retried
) -> None:
    async with producer_client(broker) as producer:

        async def note(*entries: tuple[bytes, Any]) -> None:
            sent = [await producer.send(RETRIES, orjson.dumps(body), key, partition=0) for key, body in entries]
            await asyncio.gather(*sent)

        await note(*((letter_id.encode(), {"resumed": True}) for letter_id in sorted(unnoted)))
        places = sorted({(group[0][1].topic, group[0][1].partition) for group in groups})
        ends = await _ends(broker, places)
        await note((_BEGUN, [[*place, ends[place]] for place in places]))
        for first in range(0, len(groups), _BATCH):
            batch = groups[first : first + _BATCH]
            messages = [_message_of_all(group)._asdict() for group in batch]
            futures = [await producer.send(**each | {"headers": list(each["headers"])}) for each in messages]
            places_sent = await asyncio.gather(*futures)
            notes: list[tuple[bytes, Any]] = []
            for group, sent in zip(batch, places_sent, strict=True):
                body = {"topic": sent.topic, "partition": sent.partition, "offset": sent.offset}
                notes += [(letter.letter_id.encode(), body) for letter, _ in group]
            await note(*notes)
            result.sent += [letter for group in batch for letter, _ in group]
        await note((_BEGUN, []))


async def _ends(broker: str, places: Sequence[tuple[str, int]]) -> dict[tuple[str, int], int]:
    from aiokafka import TopicPartition

    if not places:
        return {}
    async with consumer_client(broker) as client:
        found = await client.end_offsets([TopicPartition(*place) for place in places])
    return {(place.topic, place.partition): offset for place, offset in found.items()}


async def _sent_since(broker: str, begun: Mapping[tuple[str, int], int], known: Mapping[str, int]) -> set[str]:
    """Ids of the letters among the messages of some partitions from these offsets on."""
    ids: set[str] = set()
    for (topic, partition), offset in begun.items():
        if partition >= known.get(topic, 0):
            continue
        async with consumer_client(broker) as client:
            start = Start("offset", offset)
            async for batch in scan(client, {topic: known[topic]}, start=start, partitions=[partition]):
                ids.update(_letter_ids(batch))
    return ids


def _letter_ids(records: Iterable[ConsumedRecord]) -> Iterator[str]:
    for record in records:
        for name, value in record.headers[:1]:
            if name == LETTER_HEADER and value is not None:
                yield from value.decode().split(",")


def matching(letters: Sequence[Found], given: str) -> list[Found]:
    """The letters with this id, or whose ids begin so. Raises InvalidSettings if there is none."""
    chosen = [found for found in letters if found.letter.letter_id.startswith(given)]
    if not chosen:
        raise InvalidSettings(f"no dead letter has the id {given!r}; 'astrocyte dead-letters ls' lists them")
    return chosen


def one_of(letters: Sequence[Found], given: str) -> Found:
    """The letter with this id, or whose id begins so. Raises InvalidSettings."""
    chosen = matching(letters, given)
    if len(chosen) == 1:
        return chosen[0]
    raise InvalidSettings(f"{len(chosen)} dead letters have ids that begin with {given!r}; give more characters")

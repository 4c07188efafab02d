"""Accounting of a domain: each event that it was given is processed, late, a duplicate, sampled or a dead letter.

Nothing here raises because of an event: one that no JSON record can hold is a dead letter as well.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from astrocyte.agents.ingest.copies import Originals
from astrocyte.agents.ingest.decode import RETRY_ORIGIN
from astrocyte.agents.ingest.letters import events_in, row_letter, row_records
from astrocyte.agents.ingest.unused.counts import IDLE, Cause, FieldsSeen, Unused
from astrocyte.agents.ingest.unused.doubted_times import doubted_times
from astrocyte.agents.ingest.unused.not_numbers import NumberFields
from astrocyte.agents.ingest.unused.reasons import reason_kind
from astrocyte.agents.ingest.validate import Passed
from astrocyte.agents.promises import Sent
from astrocyte.agents.rules.model import RuleSet
from astrocyte.agents.rules.named_fields import correlated_by, named_fields, number_reads_of
from astrocyte.agents.sinks.base import SourcedFrame
from astrocyte.schemas.arrow.stream import ARROW_MAGIC
from astrocyte.schemas.catalog import Catalog
from astrocyte.schemas.contract import Contract
from astrocyte.schemas.events import DeadLetter
from astrocyte.schemas.frames import Frame
from astrocyte.schemas.json.reader import JsonRecord, KafkaRecord, is_retried
from astrocyte.schemas.json.types import Nulled
from astrocyte.schemas.partitioning import KeySample
from astrocyte.schemas.times import iso_from_us
from astrocyte.schemas.topics import KEYED_PREFIX, METRICS_PREFIX, metrics_topic

if TYPE_CHECKING:
    from astrocyte.agents.engine.output import EngineOutput, FailedRow
    from astrocyte.agents.matches.records import FailedMatch

__all__ = [
    "OUTCOMES",
    "Accounting",
    "Counters",
    "DomainOutput",
    "Intake",
    "UnusedEvent",
    "accounted",
    "lacking",
    "summed",
]

_MADE: Final = (KEYED_PREFIX, METRICS_PREFIX)
"""Topics that the pipeline itself writes: nobody else reports what happens to their events."""
OUTCOMES: Final = ("processed", "late", "dead", "duplicate", "sampled", "skipped")
"""Counters of events, of which each that was received counts in exactly one."""


@dataclass(slots=True)
class Counters:
    """Counts of a domain's events: received is the sum of the `OUTCOMES`.

    An event that waits until the log shows whether its clock is right (`ClockGuard`) is not counted before that.
    """

    received: int = 0
    """Rows of frames, also of those refused as a whole, and messages that could not be decoded."""
    processed: int = 0
    late: int = 0
    dead: int = 0
    duplicate: int = 0
    """Events with the id of one that is still in the reorder buffer."""
    sampled: int = 0
    """Events left out by a validator's sampling, and by the policy of a stream whose reader was behind."""
    skipped: int = 0
    """Messages that hold no event by their stream's declaration, such as the tombstones of Debezium."""
    matches: int = 0
    alerts: int = 0

    def as_dict(self) -> dict[str, int]:
        """Names and values."""
        return {name: int(getattr(self, name)) for name in self.__slots__}


def accounted(counts: Mapping[str, int]) -> int:
    """Number of events of which the counters say what became of them."""
    return sum(counts.get(name, 0) for name in OUTCOMES)


class UnusedEvent(NamedTuple):
    """One event that took no part, with its place and JSON record, and the reason."""

    cause: Cause
    reason: str
    topic: str
    partition: int
    offset: int
    record: JsonRecord
    read: str
    """Topic in which it was read: a repartitioned copy of ``topic``, or that itself."""


@dataclass(slots=True)
class DomainOutput:
    """Output of one step of a domain, in order."""

    multi_events: list[JsonRecord] = field(default_factory=list)
    alerts: list[JsonRecord] = field(default_factory=list)
    late: list[JsonRecord] = field(default_factory=list)
    dead_letters: list[DeadLetter] = field(default_factory=list)
    frames: list[Frame] = field(default_factory=list)
    """Results of windows, and matches that other groups read, by their stream."""
    led: list[Sent] = field(default_factory=list)
    """What junctions lead to other domains, and how far event time has come for these."""
    topology: list[JsonRecord] = field(default_factory=list)
    """Junctions that formed or dissolved between two domains (`agents.engine.gates.formed_records`)."""
    unused: list[UnusedEvent] = field(default_factory=list)
    """Duplicates and events without a key, where the domain lists them."""
    ended: list[str] = field(default_factory=list)
    """Rules whose sources have all ended, so that everything of them is decided."""

    def extend(self, other: DomainOutput) -> None:
        """Append the output of a later step."""
        for name in self.__slots__:
            getattr(self, name).extend(getattr(other, name))

    def __bool__(self) -> bool:
        return any(getattr(self, name) for name in self.__slots__ if name != "ended")


@dataclass(frozen=True, slots=True)
class Intake:
    """One frame on its way through a domain."""

    sourced: SourcedFrame
    output: DomainOutput
    counted: bool
    """False for rows that were counted, and whose refusals were reported, where they were first read."""
    originals: Originals | None = None
    """Where the rows of a repartitioned copy come from."""
    failed: dict[int, str] = field(default_factory=dict)
    """Rows on which an engine raised, with the reason."""

    def origin(self, row: int) -> tuple[str, int, int]:
        """Topic, partition and offset of the message that a row was, or that held it."""
        if self.originals is None:
            return self.sourced.topic, self.sourced.partition, self.sourced.offset_of(row)
        return self.originals.topic, self.originals.partition, int(self.originals.offsets[row])

    def origins(self, rows: NDArray[np.int64]) -> tuple[str, int, int | NDArray[np.int64]]:
        """`origin` of several rows: one offset if they were one message."""
        found, sourced = self.originals, self.sourced
        if found is not None:
            return found.topic, found.partition, found.offsets[rows]
        return sourced.topic, sourced.partition, sourced.offset if sourced.offsets is None else sourced.offsets[rows]

    def place(self, row: int) -> str:
        """Place of a row, as text."""
        number = self.sourced.row_of(row)
        inside = "" if number is None or self.originals is not None else f" row {number}"
        topic, partition, offset = self.origin(row)
        return f"{topic}[{partition}]@{offset}{inside}"


def summed(parts: Iterable[Mapping[str, Mapping[str, int]]]) -> dict[str, Counter[str]]:
    """Counts by name and cause of several domains, added up, in the order of the names."""
    total: dict[str, Counter[str]] = {}
    for part in parts:
        for name, counts in part.items():
            total.setdefault(name, Counter()).update(counts)
    return dict(sorted(total.items()))


def lacking(frame: Frame, by: str | None) -> NDArray[np.bool_]:
    """Which rows of a frame lack the field ``by``; none where it is None."""
    if by is None or not frame.num_rows:
        return np.zeros(frame.num_rows, np.bool_)
    if not frame.has(by):
        return np.ones(frame.num_rows, np.bool_)
    column = frame.column(by)
    column = column.indices if pa.types.is_dictionary(column.type) else column
    return np.asarray(column.is_null()) if column.null_count else np.zeros(frame.num_rows, np.bool_)


class Accounting:
    """Counters of a domain, and the outputs for events that took no part; ``listed``: also the ones without a topic.

    ``unused``, ``fields`` and ``keys`` begin with this object: they are not part of a snapshot, except the kinds of the
    fields' first values.
    """

    def __init__(self, partition: int, internal: Iterable[str], catalog: Catalog, *, listed: bool) -> None:
        self.partition = partition
        self.counters = Counters()
        self.unused = Unused()
        self.fields = FieldsSeen()
        self.numbers = NumberFields()
        self.keys: dict[str, KeySample] = {}
        """Some keys of each topic that is read as its producer partitions it."""
        self.made: frozenset[str] = frozenset()
        """Streams that the rules and windows for which is reported make themselves."""
        self._correlated_by: dict[str, frozenset[str | None]] = {}
        self._internal = frozenset(internal)
        self._catalog = catalog
        self._listed = listed

    def report_for(self, rulesets: Sequence[RuleSet]) -> None:
        """Say what of the events these rules do not use."""
        self.made = frozenset(chain.from_iterable(ruleset.made for ruleset in rulesets))
        self.fields.update(chain.from_iterable(map(named_fields, rulesets)))
        self.numbers.update(chain.from_iterable(map(number_reads_of, rulesets)))
        self._correlated_by = correlated_by(rulesets)

    def useless(self, frame: Frame) -> NDArray[np.bool_]:
        """Which rows lack every field by which the rules and windows of their stream correlate."""
        fields = self._correlated_by.get(frame.stream, frozenset())
        rows = np.full(frame.num_rows, bool(fields))
        for name in fields:
            rows &= lacking(frame, name)
        return rows

    def is_counted(self, topic: str) -> bool:
        """Whether the events of a topic are counted here; others were counted where they were first read."""
        return topic not in self._internal

    def _reports(self, topic: str) -> bool:
        """Whether what happens to events of a topic is reported here: for each topic one domain does so."""
        return self.is_counted(topic) or topic.startswith(_MADE)

    def undecoded(self, topic: str, letters: Sequence[DeadLetter], output: DomainOutput) -> None:
        """Messages of a topic that could not be decoded. A whole one in a topic of copies is none that was copied."""
        if not self._reports(topic):
            letters = [letter for letter in letters if letter.row is None]
        output.dead_letters += letters
        for letter in letters:
            events = events_in(letter)
            if events:
                self.unused.add_letter(letter, events)
            if self.is_counted(topic):
                self.counters.dead += events
                self.counters.received += events

    def skipped(self, topic: str, records: Sequence[KafkaRecord], contract: Contract) -> None:
        """Count the messages that hold no event by their stream's declaration."""
        if contract.declaration is not None and self.is_counted(topic):
            skipped = sum(contract.skips(record.value) for record in records)
            self.counters.skipped += skipped
            self.counters.received += skipped

    def left_out(self, count: int) -> None:
        """Events that were left out because the reader was behind."""
        self.counters.received += count
        self.counters.sampled += count

    def unkeyed(
        self, topic: str, records: Sequence[KafkaRecord], frames: Iterable[SourcedFrame], by: str | None
    ) -> None:
        """Count messages without a Kafka key of a topic that is taken to be partitioned by ``by``, which they hold.

        Frames have their keys in their rows, and messages that were sent again are where they were. What is no event,
        or has no such field, is no sign of how the topic is partitioned.
        """
        if by is None:
            return
        without = {
            record.offset
            for record in records
            if record.key is None
            and record.value
            and not record.value.startswith(ARROW_MAGIC)
            and not is_retried(record)
        }
        found: set[int] = set()
        for sourced in frames if without else ():
            if sourced.offsets is not None:
                named = np.asarray(sourced.frame.column("key").is_valid())
                if sourced.frame.has(by):
                    named = named | np.asarray(sourced.frame.column(by).is_valid())
                found |= without.intersection(sourced.offsets[named].tolist())
        if found:
            example = f"{topic}[{self.partition}]@{min(found)}"
            self.unused.add("unkeyed", topic, example, detail=by, count=len(found))

    def refused(self, intake: Intake, row: int, reason: str, stage: str) -> None:
        """A row that was refused where it was first read; for rows of other topics this was said before."""
        if intake.counted:
            self._dead(intake, row, reason, stage)

    def validated(self, intake: Intake, passed: Passed) -> None:
        """A frame that validators were given, and what they made of it. Frames come in the order of their topics."""
        if self._judges(intake):
            self.fields.begin(intake.sourced.topic, passed.frame)
        for row, reason in passed.refused:
            self.refused(intake, row, reason, "validate")
        if intake.counted:
            self.counters.received += intake.sourced.frame.num_rows
            self.counters.sampled += passed.sampled
            self._nulled(intake)

    def _nulled(self, intake: Intake) -> None:
        """Count the values that became null because they were of another type than declared."""
        by_field: dict[str, list[Nulled]] = {}
        for each in intake.sourced.nulled:
            by_field.setdefault(each.field, []).append(each)
        for name, found in by_field.items():
            example = f"{intake.place(found[0].row)}: {found[0].reason}"
            self.unused.add("nulled", intake.sourced.frame.stream, example, detail=name, count=len(found))

    def _judges(self, intake: Intake) -> bool:
        """Whether the values of rows are judged here, which is where they were first read."""
        return intake.counted or intake.sourced.topic.startswith(METRICS_PREFIX)

    def taken(self, intake: Intake, kept: Frame, rows: NDArray[np.int64]) -> None:
        """Note the fields of the rows that validators let pass; values only where they were first read."""
        for changed in self.fields.note(intake.sourced.topic, kept):
            place = intake.place(int(rows[changed.row]))
            self.unused.add(
                "kind", kept.stream, f"{place}: {changed.kinds}", detail=changed.field, count=changed.values
            )
        for found in self.numbers.note(kept) if self._judges(intake) else ():
            example = f"{intake.place(int(rows[found.row]))}: {found.value} in {found.reader}"
            self.unused.add("no_number", kept.stream, example, detail=found.field, count=found.rows, kind=found.kind)

    def dated(self, intake: Intake, kept: Frame, rows: NDArray[np.int64], contract: Contract) -> None:
        """Count the rows of another stream, and those of JSON records whose times are rather none."""
        self._foreign(intake, kept, rows, contract)
        found = doubted_times(intake.sourced, kept, rows, contract) if intake.counted else None
        if found is not None:
            example = f"{intake.place(int(rows[found.row]))}{found.example}"
            self.unused.add(found.cause, kept.stream, example, detail=found.detail, count=found.rows)

    def _foreign(self, intake: Intake, kept: Frame, rows: NDArray[np.int64], contract: Contract) -> None:
        """Count the rows of a frame of another stream than its topic carries."""
        if intake.counted and len(rows) and kept.stream != contract.stream:
            place = intake.place(int(rows[0]))
            self.unused.add("stream", intake.sourced.topic, place, detail=kept.stream, count=len(rows))

    def placed(self, intake: Intake, kept: Frame, by: str | None) -> None:
        """Note the keys of a topic that is taken to be partitioned by ``by``; where each stands shows whether it is."""
        if by is not None and kept.num_rows and kept.origin != RETRY_ORIGIN:
            self.keys.setdefault(intake.sourced.topic, KeySample()).add(kept, by)

    def keyless(
        self, intake: Intake, stream: str, without: Mapping[str, NDArray[np.int64]], useless: NDArray[np.int64]
    ) -> None:
        """Count the rows of a stream without a field by which rules correlate it: ``without``, by field.

        Rows that are late are not among them: an event has one cause. The ``useless`` ones, of which no other rule
        makes any use, are listed; one that lacks several fields is so once.
        """
        listed = np.empty(0, np.int64)
        for by, every in without.items():
            rows = np.setdiff1d(every, list(intake.failed)) if intake.failed else every
            if len(rows):
                self.unused.add("no_key", stream, intake.place(int(rows[0])), detail=by, count=len(rows))
                unlisted = np.setdiff1d(np.intersect1d(rows, useless), listed)
                self._list(intake, unlisted, "no_key", f"no {by!r}, by which rules correlate")
                listed = np.union1d(listed, rows)

    def judged(
        self,
        intake: Intake,
        kept: Frame,
        rows: NDArray[np.int64],
        *,
        late: NDArray[np.bool_],
        idle: NDArray[np.bool_],
        repeated: NDArray[np.int64],
        limits_us: NDArray[np.int64],
    ) -> None:
        """Outputs and counts of rows ``rows`` of a frame, which are ``kept`` as validators gave them.

        ``limits_us``: the watermark that made each late row late, in microseconds; ``idle``: whether only because event
        time went on while its source was idle.
        """
        if intake.failed:
            late = late & ~np.isin(rows, list(intake.failed))
            repeated = np.setdiff1d(repeated, list(intake.failed))
        for row, reason in sorted(intake.failed.items()):
            self._dead(intake, row, reason, "correlate")
        written = (
            self._put_late(intake, kept, rows, late=np.flatnonzero(late), idle=idle, limits_us=limits_us)
            if late.any()
            else 0
        )
        if len(repeated) and self._reports(intake.sourced.topic):
            self.unused.add("duplicate", intake.sourced.topic, intake.place(int(repeated[0])), count=len(repeated))
            self._list(intake, repeated, "duplicate", "an event with this id came before")
        if intake.counted:
            counters = self.counters
            counters.late += written
            counters.duplicate += len(repeated)
            counters.processed += kept.num_rows - int(late.sum()) - len(intake.failed) - len(repeated)
        intake.failed.clear()

    def _put_late(
        self,
        intake: Intake,
        kept: Frame,
        rows: NDArray[np.int64],
        *,
        late: NDArray[np.integer],
        idle: NDArray[np.bool_],
        limits_us: NDArray[np.int64],
    ) -> int:
        """Late rows as records of the topic of late events; returns how many there are."""
        sourced = intake.sourced
        copy = [] if intake.originals is None else [("source_copy", sourced.topic.encode())]
        found = row_records(kept, late.tolist(), self._catalog)
        for row, record in zip(found.rows, found.records, strict=True):
            topic, partition, offset = intake.origin(int(rows[row]))
            place = [
                ("source_topic", topic.encode()),
                ("source_partition", str(partition).encode()),
                ("late_watermark_us", str(int(limits_us[row])).encode()),
                ("source_offset", str(offset).encode()),
            ]
            intake.output.late.append(JsonRecord(record.key, record.value, [*record.headers, *copy, *place]))
        for detail in ("", IDLE) if self._reports(sourced.topic) else ():
            counted = [row for row in found.rows if idle[row] == (detail == IDLE)]
            if counted:
                example = f"{intake.place(int(rows[counted[0]]))} of {iso_from_us(int(kept.timestamps()[counted[0]]))}"
                self.unused.add("late", sourced.topic, example, detail=detail, count=len(counted))
        for row, reason in found.failed:
            self._dead(intake, int(rows[row]), f"a late event; {reason}", "late")
        return len(found.rows)

    def emitted(self, result: EngineOutput, output: DomainOutput) -> None:
        """What an engine gave, as records for other topics."""
        from astrocyte.agents.engine.gates import formed_records
        from astrocyte.agents.matches.grouped import grouped_alert_records
        from astrocyte.agents.matches.records import match_records

        made = match_records(result.matches)
        if made.failed or result.failed:
            self._failed_results(made.failed, result.failed, output)
        self.counters.matches += len(made.multi_events)
        self.counters.alerts += len(made.alerts) + len(result.grouped)
        output.multi_events += made.multi_events
        output.alerts += made.alerts + grouped_alert_records(result.grouped)
        output.frames += result.frames
        output.topology += formed_records(result.formed)

    def _failed_results(self, matches: Sequence[FailedMatch], rows: Sequence[FailedRow], output: DomainOutput) -> None:
        """Matches and results of windows of which something raised."""
        from astrocyte.agents.matches.records import FailedMatch, match_letter
        from astrocyte.agents.matches.table import MatchTable

        matches = [
            *matches,
            *(FailedMatch(each.result, "emit", each.reason) for each in rows if isinstance(each.result, MatchTable)),
        ]
        for match in matches:
            letter = match_letter(match, self.partition)
            output.dead_letters.append(letter)
            rule = match.match.rules[match.match.rule[0]].name
            example = f"{letter.topic}[{letter.partition}]@{letter.offset}: {match.reason}"
            kind = reason_kind(match.reason)
            self.unused.add("failed", f"rule {rule!r}", example, detail=match.stage, kind=kind)
        for each in rows:
            if isinstance(each.result, Frame):
                topic = metrics_topic(each.result.stream)
                sourced = SourcedFrame(each.result, topic, self.partition, int(each.result.sequences()[0]))
                self._dead(Intake(sourced, output, counted=False), 0, each.reason, "correlate")

    def _dead(self, intake: Intake, row: int, reason: str, stage: str) -> None:
        letter = row_letter(intake.sourced, row, reason=reason, stage=stage, catalog=self._catalog)
        intake.output.dead_letters.append(letter)
        self.unused.add_letter(letter)
        if intake.counted:
            self.counters.dead += 1

    def _list(self, intake: Intake, rows: NDArray[np.int64], cause: Cause, reason: str) -> None:
        if not self._listed:
            return
        sourced = intake.sourced
        found = row_records(sourced.frame, rows.tolist(), self._catalog)
        blank = [(row, JsonRecord(None, b"null", [])) for row, _ in found.failed]
        for row, record in sorted([*zip(found.rows, found.records, strict=True), *blank], key=lambda each: each[0]):
            intake.output.unused.append(UnusedEvent(cause, reason, *intake.origin(row), record, sourced.topic))

"""What was found in one topic or file: figures for people (`text`) and for programs (`as_json`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from astrocyte.agents.ingest.unused.reasons import reason_kind
from astrocyte.pipeline.analysis.inspect.clock_lines import clock_lines
from astrocyte.pipeline.analysis.inspect.clocks.strays import Stray
from astrocyte.pipeline.analysis.inspect.columns import FieldStats, KeyStats, field_stats, key_stats, unnamed_notes
from astrocyte.pipeline.analysis.inspect.forms import MAJORITY
from astrocyte.pipeline.analysis.inspect.numerals import text_notes
from astrocyte.pipeline.analysis.inspect.proposals.proposal import Proposal
from astrocyte.pipeline.analysis.inspect.reading import Reading, lateness_for
from astrocyte.pipeline.console import short
from astrocyte.pipeline.kafka.record import ConsumedRecord, is_frame
from astrocyte.schemas.contract import Contract
from astrocyte.schemas.errors import AstrocyteError
from astrocyte.schemas.events import DeadLetter
from astrocyte.schemas.times import doubted_before_us, iso_from_us

__all__ = [
    "REASONS",
    "SHARES",
    "Fit",
    "Inspection",
    "NothingFound",
    "Refusal",
    "RuleResult",
    "StreamReport",
    "make_report",
]

SHARES: Final = (0.0, 0.001, 0.01)
"""Shares of late events for which the lateness is given."""
REASONS: Final = 5
"""Most reasons of refusals that are given for one topic."""
_LONGEST_S: Final = 10_000_000
"""Longest range of times in seconds of which the busiest second is found."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """Messages or rows that are refused for one reason."""

    stage: str
    count: int
    example: str
    """The first: place and reason."""


@dataclass(slots=True)
class StreamReport:
    """What one topic holds, as a worker reads it."""

    topic: str
    contract: Contract
    """Contract by which the events were read."""
    form: str
    """``topic``, ``log``, or the form of a file."""
    counts: Mapping[str, int]
    """Messages of a part of the sample, by form."""
    partitions: dict[int, int]
    """Messages of the sample by partition."""
    held: int | None
    reading: Reading
    fields: list[FieldStats]
    types: dict[str, int]
    keys: KeyStats
    refused: list[Refusal]
    proposal: Proposal | None = None
    """What was proposed for a stream that is not declared."""
    is_proposed: bool = False
    """Whether the events were read as proposed."""
    doubts: list[str] = field(default_factory=list)
    """What is strange about the names of columns of a file."""
    partition_count: int = 1
    duplicates: int = 0
    """Events with the id of an earlier one."""
    equal: int = 0
    """Messages that are equal to an earlier one in key and value."""
    kafka_span_s: float = 0.0
    messages: int = 0
    readable_as: str | None = None
    """How most messages can be read where rules declare the stream wrongly, such as ``with decoder: csv``."""
    studied_times: list[float] = field(default_factory=list)
    """Numbers that stand where the event time is declared, of a part of the sample."""

    def keys_by(self, name: str) -> KeyStats:
        """Statistics of another field by which rules correlate."""
        return self.keys if name == self.key_field else key_stats(self.reading.frames, name)

    @property
    def key_field(self) -> str:
        """The field that the key is, as rules name it: ``key`` where that is no field of the events."""
        return _key_field(self.contract, self.reading)

    @property
    def keys_never_meet(self) -> bool:
        """Whether keys have events in several partitions of a topic that is taken to be partitioned by them."""
        declared = self.contract.declaration
        return self.keys.spread > 0 and (declared is None or declared.is_partitioned)

    @property
    def hints(self) -> list[str]:
        """What to look at before the declaration is used."""
        return self.doubts + ([] if self.proposal is None else self.proposal.hints)

    @property
    def without_key(self) -> str | None:
        """A sentence on the events that lack the key; None if all have one, or none has."""
        keys = self.keys
        if not keys.without or not keys.counts:
            return None
        events, take = ("1 event", "takes") if keys.without == 1 else (f"{keys.without:,} events", "take")
        return f"{events} without {short(self.key_field)} {take} part in no rule by it"

    @property
    def identifiers(self) -> set[str]:
        """Fields that are the key or the id of the events."""
        declared = self.contract.declaration
        return {self.key_field} | ({declared.id} if declared is not None and declared.id is not None else set())

    @property
    def notes(self) -> list[str]:
        """The hints, which fields hold numbers written as text, and which have no name."""
        return [*self.hints, *text_notes(self.fields, self.identifiers), *unnamed_notes(self.fields)]

    @property
    def span_us(self) -> int:
        """Time from the oldest event to the newest."""
        times = self.reading.times_us()
        return int(times.max() - times.min()) if len(times) else 0

    @property
    def declares_wrongly(self) -> bool:
        """Whether rules declare the stream so that nearly all messages are refused."""
        declared = self.contract.declaration is not None and not self.is_proposed
        return declared and sum(each.count for each in self.refused) >= MAJORITY * self.messages

    @property
    def usual_span_us(self) -> int:
        """Time from the oldest event to the newest, without those far from the others and those of wrong clocks."""
        return self.reading.clocks.usual_span_us

    @property
    def strays(self) -> list[Stray]:
        """Events that are far from nearly all others."""
        return self.reading.clocks.strays

    @property
    def problems(self) -> list[str]:
        """Messages and events that differ from nearly all others."""
        lines = [] if self.proposal is None else list(self.proposal.problems)
        # The keys of wrong clocks are named below, with the number of all their events.
        named = {str(each.key) for each in self.reading.clocks.wrong}
        odd = None if self.proposal is None else self.proposal.odd
        if odd is not None and not (odd.keys and odd.keys <= named):
            lines.append(odd.line)
        reading = self.reading
        doubted = None if self.proposal is None else self.proposal.doubted
        if self.is_proposed and doubted is not None:
            lines.append(doubted.line(int((reading.times_us() < doubted_before_us(doubted.example)).sum())))
        if nameless := self.keys.counts[""]:
            what = "1 event has" if nameless == 1 else f"{nameless:,} events have"
            lines.append(
                f"{what} an empty {short(self.key_field)}, which is a key like any other: rules take all these events "
                "for those of one; leave the member out, or send null, where it is not known"
            )
        makes_late = bool((reading.all_lags_us() > self.usual_span_us).any())
        lines += clock_lines(reading.clocks, reading.refused_clocks, self.key_field, makes_late=makes_late)
        return lines

    @property
    def rate(self) -> float | None:
        """Events for each second of event time, without those far from the others; None where all have one time."""
        span_us = self.usual_span_us
        return (self.reading.events - self.reading.clocks.left_out) / (span_us / 1e6) if span_us else None

    @property
    def peak(self) -> int | None:
        """Most events in one second of event time, without those that are far from the others."""
        times = self.reading.times_us()
        found = self.reading.clocks.usual
        if found is None or found[1] - found[0] > _LONGEST_S * 1e6:
            return None
        usual = times[(times >= found[0]) & (times <= found[1])]
        return int(np.bincount((usual - found[0]) // 1_000_000).max())

    @property
    def lateness(self) -> dict[str, dict[float, int]]:
        """Needed lateness in microseconds by share of late events, for each partition and for ``all``."""
        parts = {str(number): lags for number, lags in self.reading.usual_lags_us().items() if len(lags)}
        parts["all"] = self.usual_lags_us
        return {name: {share: lateness_for(lags, share) for share in SHARES} for name, lags in parts.items()}

    @property
    def usual_lags_us(self) -> NDArray[np.int64]:
        """The lateness that each event needs, without those of wrong clocks."""
        return np.concatenate([np.empty(0, np.int64), *self.reading.usual_lags_us().values()])

    @property
    def recommended_us(self) -> int:
        """Lateness at which none of the events is late, apart from what strays and wrong clocks do."""
        return self.reading.recommended_us

    def as_json(self) -> dict[str, Any]:
        """The report for a program to read; times in microseconds and as text."""
        times = self.reading.times_us()
        lags = self.usual_lags_us
        heaviest = self.keys.heaviest
        return {
            "topic": self.topic,
            "stream": self.contract.stream,
            "form": self.form,
            "messages": {"sampled": self.messages, "held": self.held, "by_form": dict(self.counts)},
            "partitions": {str(number): count for number, count in self.partitions.items()},
            "partition_count": self.partition_count,
            "events": self.reading.events,
            "declared": self.contract.declaration is not None and not self.is_proposed,
            "proposal": None if self.proposal is None else self.proposal.declaration,
            "needs": [] if self.proposal is None else self.proposal.needs,
            "problems": self.problems,
            "hints": self.notes,
            "time": {
                "read_from": None if self.proposal is None else self.proposal.time,
                "first": iso_from_us(int(times.min())) if len(times) else None,
                "last": iso_from_us(int(times.max())) if len(times) else None,
                "span_us": self.span_us,
                "out_of_order": int((lags > 0).sum()),
            },
            "lateness_us": {
                name: {f"{share:g}": value for share, value in values.items()} for name, values in self.lateness.items()
            },
            "recommended_lateness_us": self.recommended_us,
            "rate": {"event_time": self.rate, "peak": self.peak, "kafka_time": self.kafka_rate},
            "key": {
                "field": self.key_field,
                "distinct": len(self.keys.counts),
                "without": self.keys.without,
                "heaviest": None if heaviest is None else {"key": heaviest[0], "share": heaviest[1]},
                "in_several_partitions": self.keys.spread,
            },
            "clocks_ahead": [
                {"key": each.key, "events": each.events, "held": each.held, "lead_us": each.lead_us}
                for each in self.reading.clocks.ahead
            ],
            "types": self.types,
            "fields": [
                {
                    "name": each.name,
                    "type": each.type,
                    "kinds": dict(each.kinds),
                    "nulls": each.nulls,
                    "range": None if each.least is None else [each.least, each.most],
                    "distinct": None if each.overflown else len(each.values),
                    "examples": each.examples(),
                }
                for each in self.fields
            ],
            "refused": [{"stage": each.stage, "count": each.count, "example": each.example} for each in self.refused],
            "duplicates": {"by_id": self.duplicates, "equal_messages": self.equal},
            "skipped": self.reading.skipped,
        }

    @property
    def kafka_rate(self) -> float | None:
        """Messages for each second of Kafka's time."""
        return self.messages / self.kafka_span_s if self.kafka_span_s else None


def make_report(
    topic: str, contract: Contract, form: str, records: Mapping[int, Sequence[ConsumedRecord]], reading: Reading
) -> StreamReport:
    """The report on one topic, without what is known of its declaration and its messages' forms."""
    frames = reading.all_frames
    types = key_stats(reading.frames, "type").counts
    stamps = [record.timestamp_ms for each in records.values() for record in each if record.timestamp_ms >= 0]
    return StreamReport(
        topic,
        contract,
        form,
        {},
        {number: len(each) for number, each in records.items()},
        None,
        reading,
        field_stats(frames),
        dict(types.most_common()),
        key_stats(reading.frames, _key_field(contract, reading)),
        _refusals_of(reading.letters),
        duplicates=_duplicates(reading),
        equal=_equal(records),
        kafka_span_s=(max(stamps) - min(stamps)) / 1000 if stamps else 0.0,
        messages=sum(map(len, records.values())),
    )


def _key_field(contract: Contract, reading: Reading) -> str:
    return contract.key_field if any(frame.has(contract.key_field) for frame in reading.all_frames) else "key"


def _duplicates(reading: Reading) -> int:
    seen: set[str] = set()
    count = 0
    for frame in reading.all_frames:
        if frame.has_own_ids:
            ids = frame.id_strings()
            count += len(ids)
            seen.update(ids)
    return count - len(seen)


def _equal(records: Mapping[int, Sequence[ConsumedRecord]]) -> int:
    whole = [
        (record.key, record.value, record.headers)
        for each in records.values()
        for record in each
        if record.value is not None and not is_frame(record)
    ]
    return len(whole) - len(set(whole))


def _refusals_of(letters: Sequence[DeadLetter]) -> list[Refusal]:
    """Dead letters by reason, most frequent first; reasons that differ in values only are one."""
    groups: dict[tuple[str, str], list[DeadLetter]] = {}
    for letter in letters:
        groups.setdefault((letter.stage, reason_kind(letter.reason)), []).append(letter)
    found = []
    for (stage, _), group in groups.items():
        found.append(Refusal(stage, len(group), f"{group[0].place}: {group[0].reason}"))
    return sorted(found, key=lambda each: -each.count)


class NothingFound(AstrocyteError):
    """What was inspected holds no message or no event."""


@dataclass(slots=True)
class Inspection:
    """Reports on all topics of a sample."""

    name: str
    form: str
    complete: bool
    cut: bool = False
    """Whether reading a topic ended because it took too long."""
    reports: list[StreamReport] = field(default_factory=list)
    empty: list[str] = field(default_factory=list)
    """Topics without a message."""

    @property
    def recommended_us(self) -> int:
        """Lateness at which no event of any topic is late: a process has one for all."""
        return max((report.recommended_us for report in self.reports), default=0)


@dataclass(frozen=True, slots=True)
class RuleResult:
    """What one rule gives on the sample."""

    name: str
    matches: int
    keys: int
    example: str | None
    open_events: float | None
    """Events in its time limit at the sample's rate: what it may have to keep."""


@dataclass(slots=True)
class Fit:
    """How rules fit a sample."""

    rules: list[RuleResult] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    """What keeps a rule from working as it is meant."""
    notes: list[str] = field(default_factory=list)
    late: int = 0
    lateness_us: int = 0

    def as_json(self) -> dict[str, Any]:
        """The result for a program to read."""
        return {
            "rules": [
                {
                    "name": each.name,
                    "matches": each.matches,
                    "keys": each.keys,
                    "example": each.example,
                    "open_events": each.open_events,
                }
                for each in self.rules
            ],
            "problems": self.problems,
            "notes": self.notes,
            "late": self.late,
            "lateness_us": self.lateness_us,
        }

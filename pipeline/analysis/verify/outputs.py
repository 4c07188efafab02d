"""The records of the output topics: what was found, and what the rules make of the input."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from astrocyte.agents.accounting import DomainOutput
from astrocyte.pipeline.analysis.verify.bodies import IDENTITIES, about, item_of, kind_of, window_items
from astrocyte.pipeline.analysis.verify.ledger import Entry, Item, Ledger, Seen
from astrocyte.pipeline.analysis.verify.report import Difference, Place
from astrocyte.pipeline.analysis.verify.retries import Retries
from astrocyte.pipeline.kafka.record import ConsumedRecord
from astrocyte.pipeline.recording.frames import raw_record
from astrocyte.pipeline.roles.output_records import letter_record
from astrocyte.pipeline.transport.producer_record import ProducerRecord
from astrocyte.schemas.errors import AstrocyteError
from astrocyte.schemas.frames import decode_frame
from astrocyte.schemas.json.reader import RawRecord
from astrocyte.schemas.topics import ALERTS, DEAD_LETTERS, LATE, METRICS_PREFIX, MULTI_EVENTS, TOPOLOGY, metrics_topic

__all__ = ["SENT_AGAIN", "WITHDRAWN", "OutputTopic", "Outputs", "Span"]

_OF_DOMAINS: Final = frozenset(
    {"decode", "validate", "clock", "rules", "emit", "alert", "late", "correlate", "repartition"}
)
"""Stages of the dead letters that domains and copies of repartitioned streams make; others are those of sinks."""

MOVED: Final = "of domains that went from worker to worker, which follow from their load"
WITHDRAWN: Final = "of provisional or retracted matches, which are no results"
SENT_AGAIN: Final = "of events that dead-letters retry sent again: as expected, but for the offset of that message"
_AGAIN: Final = "records that are there again, the same under the same id, as after a crash; stores hold each once"

Excuse = Callable[[Entry, str], str | None]
"""Why a record of a topic that is lost or unexpected is not compared; None where it is."""


@dataclass(frozen=True, slots=True)
class Span:
    """Event times from ``since_us`` up to ``until_us``, excluded; None: without limit."""

    since_us: int | None = None
    until_us: int | None = None

    @property
    def limited(self) -> bool:
        """Whether there is any limit."""
        return self.since_us is not None or self.until_us is not None

    def holds(self, time_us: int | None) -> bool:
        """Whether a time is inside; a record without a time is in every span."""
        if time_us is None:
            return True
        return (self.since_us is None or time_us >= self.since_us) and (
            self.until_us is None or time_us < self.until_us
        )


@dataclass(slots=True)
class OutputTopic:
    """What is known of one output topic beside its records."""

    first_us: dict[int, int] = field(default_factory=dict)
    """By partition of which the beginning is gone: event time of the first record that is left."""
    next_offsets: dict[int, int] = field(default_factory=dict)
    left_out: Counter[str] = field(default_factory=Counter)
    notes: Counter[str] = field(default_factory=Counter)


class Outputs:
    """The records of the output topics in a ledger, both what is there and what should be."""

    def __init__(
        self,
        ledger: Ledger,
        topics: Iterable[str],
        *,
        span: Span,
        versions: Mapping[str, str],
        retries: Retries,
        on_foreign: Callable[[ConsumedRecord], None],
    ) -> None:
        self.topics: dict[str, OutputTopic] = {topic: OutputTopic() for topic in topics}
        """Topics that are compared."""
        self.runs: set[str | None] = set()
        """Runs of the records that are expected."""
        self.span = span
        self.versions = versions
        """Version of each rule in force."""
        self.other_versions: dict[str, int] = {}
        """By rule that has records of other versions: the newest event time of these."""
        self._retries = retries
        self._on_foreign = on_foreign
        self.unread: Counter[str] = Counter()
        """Records of each topic that could not be read."""
        self._ledger = ledger

    # -- what is there

    def found(self, record: ConsumedRecord) -> None:
        """Enter a message of an output topic."""
        topic = self.topics.get(record.topic)
        if topic is None:
            return
        items = self._items(record)
        truncated = record.partition not in topic.next_offsets and record.offset > 0
        topic.next_offsets[record.partition] = record.offset + 1
        for item in items:
            self._note_version(item)
            if truncated and item.time_us is not None:
                topic.first_us.setdefault(record.partition, item.time_us)
            if not self.span.holds(item.time_us):
                continue
            if item.status in ("provisional", "retracted"):
                topic.notes[WITHDRAWN] += 1
                continue
            if record.topic == TOPOLOGY and item.body.get("kind") == "moved":
                topic.notes[MOVED] += 1
                continue
            if record.topic == DEAD_LETTERS and item.body.get("stage") not in _OF_DOMAINS:
                topic.notes[f"dead letters of stage {item.body.get('stage')}, which rules do not make"] += 1
                self._on_foreign(record)
                continue
            place = (record.partition, record.offset)
            self._ledger.found(record.topic, item, place)

    def _note_version(self, item: Item) -> None:
        rule = str(item.body.get("correlation_rule") or item.body.get("rule"))
        version = item.body.get("rule_version")
        if rule in self.versions and version not in (None, self.versions[rule]) and item.time_us is not None:
            self.other_versions[rule] = max(self.other_versions.get(rule, item.time_us), item.time_us)

    def _items(self, record: ConsumedRecord) -> list[Item]:
        try:
            if record.topic in IDENTITIES:
                return [item_of(record.topic, raw_record(record))]
            return list(window_items(decode_frame(record.value or b"")))
        except (AstrocyteError, KeyError, TypeError, ValueError, AttributeError):
            self.unread[record.topic] += 1
            return []

    # -- what should be there

    def expect(self, output: DomainOutput, *, due: bool, unsettled: frozenset[str] = frozenset()) -> None:
        """Enter what the rules made; of rules and windows that are ``unsettled`` it is not due."""
        for topic, item in expected_items(output):
            self.runs.add(item.run)
            if topic in self.topics and self.span.holds(item.time_us):
                maker = item.body.get("correlation_rule") or item.body.get("rule") or topic.removeprefix(METRICS_PREFIX)
                must = due and maker not in unsettled
                self._ledger.expect(topic, item, due=must)

    def expect_letter(self, letter: ProducerRecord, *, due: bool) -> bool:
        """Enter a dead letter that a sink makes of an event no rule reads; False for other letters of sinks."""
        item = item_of(DEAD_LETTERS, RawRecord(-1, -1, letter.key, letter.value, tuple(letter.headers)))
        if item.body.get("stage") not in _OF_DOMAINS:
            return False
        if DEAD_LETTERS in self.topics and self.span.holds(item.time_us):
            self._ledger.expect(DEAD_LETTERS, item, due=due)
        return True

    def seen(self, topic: str, identity: str) -> Seen:
        """Where a record was found."""
        return self._ledger.seen(topic, identity)

    # -- the comparison

    def compare(
        self, topic: str, *, show: int, excuse: Excuse, tell: Callable[[Difference], None] | None = None
    ) -> Place:
        """Counts and differences of one topic."""
        known = self.topics[topic]
        place = Place(f"topic {topic}", left_out=known.left_out, notes=known.notes, tell=tell)
        place.expected, place.found, place.waiting = self._ledger.counts(topic)
        if self.unread[topic]:
            place.notes["records that cannot be read"] += self.unread[topic]
        for entry in self._ledger.differing(topic):
            self._judge(place, topic, entry, show, excuse)
        return place

    def _judge(self, place: Place, topic: str, entry: Entry, show: int, excuse: Excuse) -> None:
        kind, differing = kind_of(entry)
        if kind == "wrong":
            kind, differing = kind_of(self._retries.at_first(entry))
            if kind != "wrong":
                place.notes[SENT_AGAIN] += 1
        if kind is None:
            return
        if kind == "twice":
            place.notes[_AGAIN] += entry.times - 1
        elif (why := excuse(entry, topic)) is not None:
            place.leave_out(kind, why)
        else:
            what = about(topic, entry.expected or entry.found or {})
            at = f"{topic}[{entry.partition}]@{entry.offset}" if entry.times else ""
            place.add(Difference(kind, place.name, entry.identity, entry.time_us, what, at, differing), show)


def expected_items(output: DomainOutput) -> Iterator[tuple[str, Item]]:
    """What a step of a domain made, by topic."""
    made: Mapping[str, Iterable[Any]] = {
        MULTI_EVENTS: output.multi_events,
        ALERTS: output.alerts,
        LATE: output.late,
        DEAD_LETTERS: [letter_record(letter, 0) for letter in output.dead_letters],
        TOPOLOGY: output.topology,
    }
    for topic, records in made.items():
        for each in records:
            yield topic, item_of(topic, RawRecord(-1, -1, each.key, each.value, tuple(each.headers)))
    for frame in output.frames:
        yield from ((metrics_topic(frame.stream), item) for item in window_items(frame))

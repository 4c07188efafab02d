"""What event time waits for, in virtual time: each cause is found, named and withdrawn when it is over."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pytest

from astrocyte.agents.domain import Domain, DomainGroup
from astrocyte.agents.engine.engine import Engine
from astrocyte.agents.ingest.copies import Copied, Copy
from astrocyte.agents.loading import load_rules
from astrocyte.pipeline.kafka.partition_end import AtEnd, Unread
from astrocyte.pipeline.roles.idleness import Idleness
from astrocyte.pipeline.roles.output_records import copy_records
from astrocyte.pipeline.roles.stalls import StallWatch, Standing
from astrocyte.pipeline.topology.plan import Repartition
from astrocyte.schemas.frames import Frame, encode_frame
from astrocyte.schemas.json.reader import RawRecord, frame_to_records
from astrocyte.schemas.topics import TopicPartition

START_US = 1_750_000_000_000_000
A, B, OTHER = "mono.quiet_a", "mono.quiet_b", "mono.other"
KEYED = "keyed.place.quiet_a"
BOTH = load_rules("rules: [{name: both, within: 1s, all: [{as: a, stream: quiet_a}, {as: b, stream: quiet_b}]}]")
PLACE = load_rules("rules: [{name: placed, by: place, within: 1s, seq: [{as: a, stream: quiet_a}]}]")


@dataclass
class Watched:
    """A domain, its topics as the broker's answers show them, and the watch over it; time passes only by `after`."""

    domain: Domain
    topics: Sequence[str]
    copies: dict[str, str] = field(default_factory=dict)
    makers: dict[str, tuple[str, str]] = field(default_factory=dict)
    now_s: float = 0.0
    unwritten: bool = False
    lines: list[str] = field(default_factory=list)
    unread: dict[str, Unread] = field(default_factory=dict)
    queued: dict[str, int] = field(default_factory=dict)
    """Topics of which a chunk that ends at an offset was handed to the agent, and not processed."""

    def __post_init__(self) -> None:
        self.sources = Idleness(self._at_end)
        for topic in self.topics:
            if topic not in self.domain.linked:
                self.sources.assigned(TopicPartition(topic, 0), 0.0)
        self.watch = StallWatch(
            15.0,
            5.0,
            60.0,
            lambda place: self.unread.get(place.topic),
            self.copies,
            self.makers,
            say=self.lines.append,
        )
        self.changed: list[int] = []

    def _at_end(self, place: TopicPartition) -> AtEnd | None:
        if place.topic in self.unread:
            return None
        return AtEnd(0, 0.0, self.now_s, 0.0, self.queued.get(place.topic))

    def feed(self, topic: str, *values: bytes, headers: tuple = (), stamp_us: int = START_US) -> None:
        first = self.domain.positions.get(topic, 0)
        records = [
            RawRecord(first + number, stamp_us // 1000, b"k", value, headers) for number, value in enumerate(values)
        ]
        before = self.domain.counters.received
        self.domain.feed(topic, records)
        place = TopicPartition(topic, 0)
        self.sources.processed(place, first + len(records), self.now_s)
        self.watch.processed(place, first, self.domain.counters.received - before)

    def after(self, seconds: float, *, idle: bool = True) -> None:
        """Time in which fetches are answered and this process runs; ``idle``: silent topics become idle."""
        for _ in range(round(seconds)):
            self.now_s += 1.0
            fresh = self.sources.silent(5.0) - self.sources.idle if idle else set()
            if fresh and not self.unwritten:
                self.sources.idle |= fresh
                self.domain.mark_idle(sorted(fresh))
            self.look()

    def look(self) -> None:
        standing = {0: Standing(self.domain, self.sources, self.unwritten)}
        now_us = START_US + int(self.now_s * 1e6)
        self.changed += self.watch.look(standing, self.now_s, now_us)

    @property
    def causes(self) -> list[tuple[str, str]]:
        return [(stall.topic, stall.why) for stall in self.watch.stalls]


def two_streams(*others: str) -> Watched:
    topics = {"quiet_a": A, "quiet_b": B}
    names = [A, B, *others]
    return Watched(Domain(0, [DomainGroup("key", Engine(BOTH), topics)], topics=names), names)


def placed() -> Watched:
    group = DomainGroup("place", Engine(PLACE), {"quiet_a": KEYED})
    domain = Domain(0, [group], topics=[A, KEYED], internal=[KEYED], copied_by={A: ("place",)}, copies={KEYED: A})
    return Watched(domain, [A, KEYED], {KEYED: A})


def frame(stream: str, at_s: float, sequence: int = 0, **meta) -> Frame:
    columns = {"timestamp": np.array([START_US + int(at_s * 1e6)]), "key": ["k"], "value": [1.0], "place": ["p"]}
    return Frame.from_columns(stream, "run", columns, first_seq=sequence, **meta)


def record(stream: str, at_s: float, sequence: int = 0) -> bytes:
    return frame_to_records(frame(stream, at_s, sequence))[0].value


def asserted(stream: str, at_s: float, sequence: int = 0, **meta) -> bytes:
    meta = {"watermark_us": START_US + int(at_s * 1e6) + 1, "origin": "run"} | meta
    return encode_frame(frame(stream, at_s, sequence, **meta))


def test_nothing_is_reported_where_event_time_advances_or_nothing_waits():
    watched = two_streams()
    watched.after(100)
    for number in range(40):
        watched.feed(A, record("quiet_a", number, number))
        watched.feed(B, record("quiet_b", number, number))
        watched.after(1)
    assert (watched.causes, watched.lines) == ([], [])
    assert watched.changed == [0], "the first report of a worker replaces that of the one before"


def test_a_producer_that_sends_watermarks_and_went_silent_is_named_with_its_origin():
    watched = two_streams()
    watched.feed(A, asserted("quiet_a", 1.0))
    watched.feed(B, asserted("quiet_b", 1.0))
    watched.after(3)
    watched.feed(A, asserted("quiet_a", 9.0, 1))
    watched.after(14)
    assert watched.causes == []
    watched.after(2)
    (stall,) = watched.watch.stalls
    assert (stall.topic, stall.origin, stall.why, stall.waiting) == (B, "run", "asserts", 1)
    assert abs(stall.since_us - START_US - 3_000_000) <= 1_000_000
    (line,) = watched.lines
    assert "partition 0, rules by key: 1 events wait since 2025-06-15T" in line
    assert f"waits for {B} of run" in line
    assert "ASTROCYTE_PRODUCER_TIMEOUT" in line
    watched.feed(B, asserted("quiet_b", 9.0, 1))
    watched.after(1)
    assert watched.causes == []
    assert len(watched.lines) == 2
    assert "event time goes on at" in watched.lines[1]
    assert watched.changed == [0, 0, 0]


def test_a_peer_that_was_announced_and_never_sends_is_named():
    watched = two_streams()
    watched.feed(A, asserted("quiet_a", 1.0, peers=("quiet_a", "quiet_b")))
    watched.after(20)
    assert watched.causes == [(B, "asserts")]
    assert "has sent nothing yet" in watched.lines[0]


def test_a_source_that_never_came_is_named_while_it_is_not_idle_yet():
    watched = two_streams()
    watched.feed(A, record("quiet_a", 1.0))
    watched.after(20, idle=False)
    assert watched.causes == [(B, "never")]
    assert "nothing has come from it yet, and its topic is silent for 1" in watched.lines[0]
    assert "ASTROCYTE_IDLE_TIMEOUT" in watched.lines[0]


def test_a_silent_source_is_named_while_it_is_not_idle_yet():
    watched = two_streams()
    watched.feed(A, record("quiet_a", 1.0))
    watched.feed(B, record("quiet_b", 1.0))
    watched.after(1, idle=False)
    for second in range(2, 22):
        watched.feed(A, record("quiet_a", second, second))
        watched.after(1, idle=False)
    assert watched.causes == [(B, "silent")]


@pytest.mark.parametrize(
    ("why", "said"),
    [("behind", "1,234 of its records are not read yet"), ("paused", "is paused"), ("unanswered", "has not said")],
)
def test_a_source_that_is_not_read_to_its_end_is_named(why, said):
    watched = two_streams()
    watched.feed(A, record("quiet_a", 1.0))
    watched.unread[B] = Unread(why, 1234)
    watched.after(20)
    assert watched.causes == [(B, why)]
    assert said in watched.lines[0]


def test_records_that_are_not_read_are_a_stall_though_no_event_waits_in_the_domain():
    watched = two_streams()
    watched.unread[B] = Unread("behind", 5)
    watched.after(20)
    assert watched.causes == [(B, "behind")]
    assert "nothing comes out" in watched.lines[0]
    assert "event time has not begun" in watched.lines[0]


def test_records_that_wait_in_the_worker_differ_from_output_that_waits_for_the_broker():
    watched = two_streams()
    watched.feed(A, record("quiet_a", 1.0))
    watched.queued[B] = 7
    watched.after(20)
    assert watched.causes == [(B, "queued")]
    watched.unwritten = True
    watched.after(1)
    assert watched.causes == [(B, "unwritten")]


def test_a_broker_that_takes_no_records_keeps_sources_from_being_idle():
    watched = two_streams()
    watched.feed(A, record("quiet_a", 1.0))
    watched.unwritten = True
    watched.after(20)
    assert watched.causes == [(A, "unwritten")] or watched.causes == [(B, "unwritten")]
    assert "the broker does not confirm" in watched.lines[0]


def test_a_source_that_sends_only_old_times_is_named():
    watched = two_streams()
    watched.feed(A, record("quiet_a", 50.0))
    for number in range(20):
        watched.feed(B, record("quiet_b", 1.0, number))
        watched.after(1)
    assert watched.causes == [(B, "stands")]
    assert "look at the times of its events" in watched.lines[0]


def test_events_whose_clock_is_doubted_are_named():
    watched = two_streams()
    watched.feed(A, record("quiet_a", 8 * 3600.0))
    watched.after(30)
    assert watched.causes == [(A, "doubted")]
    assert "1 event is further ahead" in watched.lines[0]


def test_the_last_events_of_a_group_wait_for_the_other_topics_of_the_worker():
    watched = two_streams(OTHER)
    watched.domain.lateness_us = 1_000_000
    for lane in watched.domain.lanes:
        lane.watermarks.lateness_us = 1_000_000
    watched.feed(A, record("quiet_a", 1.0))
    watched.feed(B, record("quiet_b", 1.5))
    for second in range(30):
        watched.feed(OTHER, record("other", second, second))
        watched.after(1)
    assert watched.causes == [(OTHER, "others")]


def test_copies_that_do_not_come_are_the_fault_of_the_repartition_role():
    watched = placed()
    for number in range(10):
        watched.feed(A, record("quiet_a", number, number))
        watched.after(1)
    assert watched.causes == []
    watched.after(10)
    assert watched.causes == [(KEYED, "repartition")]
    assert "astrocyte worker --role repartition" in watched.lines[0]
    assert f"events of {A}" in watched.lines[0]
    copy = Copy(
        frame("quiet_a", 9.0, watermark_us=START_US + 9_000_000, origin="/0"), Copied(0, 9 << 24, np.array([9 << 24]))
    )
    (made,) = copy_records(Repartition("quiet_a", A, "place", KEYED), copy, 1)
    watched.feed(KEYED, made.value, headers=made.headers)
    watched.after(1)
    assert watched.causes == []
    assert "event time goes on" in watched.lines[-1]


def test_copies_that_come_before_their_originals_are_read_are_not_missed():
    watched = placed()
    made_of = frame("quiet_a", 1.0, watermark_us=START_US + 1_000_001, origin="/0")
    (made,) = copy_records(Repartition("quiet_a", A, "place", KEYED), Copy(made_of, Copied(0, 0, np.array([0]))), 1)
    watched.feed(KEYED, made.value, headers=made.headers)
    watched.feed(A, record("quiet_a", 1.0))
    watched.after(60)
    assert watched.causes == []
    watched.feed(A, record("quiet_a", 2.0, 1))
    watched.after(14)
    assert watched.causes == []
    watched.after(3)
    assert watched.causes == [(KEYED, "repartition")]


def test_copies_that_never_came_are_missed_after_a_restart_too():
    watched = placed()
    watched.feed(A, record("quiet_a", 1.0))
    after = placed()
    after.domain.restore(watched.domain.snapshot())
    after.after(20)
    assert after.causes == [(KEYED, "repartition")]


def test_time_in_which_the_process_stood_still_does_not_count():
    watched = two_streams()
    watched.feed(A, asserted("quiet_a", 1.0, peers=("quiet_a", "quiet_b")))
    watched.after(5)
    watched.now_s += 3600.0
    watched.look()
    assert watched.causes == []
    watched.after(9)
    assert watched.causes == [(B, "asserts")]


def test_partitions_that_wait_for_the_same_are_one_line_and_are_logged_once_a_minute():
    watches = [two_streams() for _ in range(2)]
    first = watches[0]
    domains = {}
    for number, watched in enumerate(watches):
        watched.feed(A, asserted("quiet_a", 1.0, peers=("quiet_a", "quiet_b")))
        domains[number] = Standing(watched.domain, watched.sources)
    for second in range(200):
        for watched in watches:
            watched.now_s = float(second)
        first.watch.look(domains, first.now_s, START_US + second * 1_000_000)
    (line,) = first.lines
    assert line.startswith("partitions 0, 1, rules by key: 2 events wait")


def test_a_stall_that_comes_and_goes_is_logged_at_most_once_a_minute():
    watched = two_streams()
    watched.feed(A, asserted("quiet_a", 1.0))
    watched.feed(B, asserted("quiet_b", 1.0))
    for number in range(1, 7):
        watched.feed(A, asserted("quiet_a", 10.0 * number, number))
        watched.after(17)
        assert watched.causes == [(B, "asserts")]
        watched.feed(B, asserted("quiet_b", 10.0 * number, number))
        watched.after(1)
        assert watched.causes == []
    begun = [line for line in watched.lines if "events wait" in line]
    over = [line for line in watched.lines if "goes on" in line]
    assert len(begun) == len(over) == 2


def test_a_revoked_partition_no_longer_stalls():
    watched = two_streams()
    watched.feed(A, asserted("quiet_a", 1.0, peers=("quiet_a", "quiet_b")))
    watched.after(20)
    watched.watch.drop(0)
    assert watched.watch.stalls == []


@pytest.mark.parametrize(("idle", "passes"), [(False, True), (True, False)])
def test_a_stall_says_whether_it_ends_by_itself(idle, passes):
    watched = two_streams()
    if passes:
        watched.feed(A, record("quiet_a", 1.0))
    else:
        watched.feed(A, asserted("quiet_a", 1.0, peers=("quiet_a", "quiet_b")))
    watched.after(20, idle=idle)
    (stall,) = watched.watch.stalls
    said = stall.as_json()
    assert said["passes"] is passes
    assert said["since"].startswith("2025-06-15T15:06:4")


def test_the_role_that_makes_results_is_named_while_it_does_not_run():
    rules = load_rules("rules: [{name: seen, by: key, within: 1s, seq: [{as: f, stream: forecast}]}]")
    timed = "metrics.forecast"
    domain = Domain(
        0, [DomainGroup("key", Engine(rules), {"forecast": timed})], topics=[A, timed], internal={timed}, linked={timed}
    )
    watched = Watched(domain, [A, timed], makers={timed: ("statistics", "insight")})
    for number in range(20):
        watched.feed(A, record("quiet_a", number))
        watched.after(1.0)
    (line,) = watched.lines
    assert "nothing comes out" in line
    assert f"it waits for {timed}: its results come from the statistics (role insight)" in line
    assert "start it: astrocyte worker --role insight" in line

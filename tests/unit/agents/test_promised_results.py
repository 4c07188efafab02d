"""Results that another group reads: whoever makes them says how far event time is, and each is taken once."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
import orjson
import pytest

from astrocyte import Engine, load_rules
from astrocyte.agents.domain import Domain, DomainGroup, DomainOutput
from astrocyte.pipeline.roles.output_records import producer_records
from astrocyte.pipeline.topology.plan import make_plan
from astrocyte.schemas.frames import Frame, encode_frame
from astrocyte.schemas.json.reader import RawRecord
from astrocyte.schemas.topics import TopicPartition

SECOND = 1_000_000
RULES = load_rules("""
windows:
  - {name: level, from: mood, by: user, every: 1s, select: {n: "count()"}}
rules:
  - {name: rising, by: key, within: 5s, seq: [{as: low, stream: level}, {as: high, stream: level, where: "n > low.n"}]}
streams: [{name: mood, topic: moods, time: at, key: user}]
""")
PLAN = make_plan(RULES)
TIMED = {*PLAN.timed}


def test_only_final_results_that_are_read_as_they_are_carry_event_time():
    assert {"metrics.level"} == TIMED
    text = """
windows:
  - {name: fixed, from: mood, by: user, every: 1s, select: {n: "count()"}}
  - {name: revised, from: mood, by: user, every: 1s, late: revise, keep: 1s, select: {n: "count()"}}
  - {name: early, from: mood, by: user, every: 1s, emit: update, select: {n: "count()"}}
  - {name: copied, from: mood, by: user, every: 1s, select: {n: "count()"}}
rules:
  - {name: one, by: key, seq: [{as: a, stream: [fixed, revised, early]}]}
  - {name: other, by: n, seq: [{as: a, stream: copied}]}
streams: [{name: mood, topic: moods, time: at, key: user}]
"""
    assert {*make_plan(load_rules(text)).timed} == {"metrics.fixed"}


def test_groups_that_read_one_another_do_not_wait_for_one_another():
    text = """
rules:
  - {name: one, by: user, seq: [{as: a, stream: mood}], emit: {user: "a.user"}}
  - {name: two, by: key, seq: [{as: a, stream: one}], emit: {user: "a.user"}}
  - {name: three, by: user, seq: [{as: a, stream: two}]}
streams: [{name: mood, topic: moods, time: at, key: user}]
"""
    assert make_plan(load_rules(text)).timed == {}


class Roles:
    """The group of the window and the group of the rule, each in a domain of its own, with a topic between them."""

    def __init__(self) -> None:
        self.maker, self.reader = (self.domain(field) for field in ("user", "key"))
        self.log: dict[str, list[RawRecord]] = defaultdict(list)
        self.read = 0
        self.found: list[str] = []
        self.late = 0

    @staticmethod
    def domain(field: str) -> Domain:
        (group,) = (each for each in PLAN.groups if each.field == field)
        made = DomainGroup(group.name, Engine(group.ruleset, validated=True), group.topics, results=group.results)
        topics = {*group.topics.values()} | ({"moods"} if field == "key" else set())
        return Domain(0, [made], topics=topics, internal=TIMED, linked=TIMED)

    def send(self, *at_s: float, watermark_s: float | None = None, end: bool = False) -> None:
        """Events of one user, of which the reader's domain reads the topic as well."""
        times = np.array([int(each * SECOND) for each in at_s], np.int64)
        frame = Frame.from_columns(
            "mood", "run", {"timestamp": times, "key": ["u"] * len(times), "user": ["u"] * len(times)},
            first_seq=int(times[0]) if len(times) else 0, origin="sim", end=end,
            watermark_us=None if watermark_s is None else int(watermark_s * SECOND),
        )  # fmt: skip
        stamp_ms = int(at_s[-1] * 1000) if at_s else 0
        self.log["moods"].append(RawRecord(len(self.log["moods"]), stamp_ms, None, encode_frame(frame), ()))

    def make(self) -> None:
        """The maker reads what has come."""
        self.keep(self.maker.feed("moods", self.log["moods"]))

    def keep(self, output: DomainOutput) -> None:
        for (topic, _), records in producer_records(output, 0, 1).items():
            for each in records:
                place = len(self.log[topic])
                self.log[topic].append(RawRecord(place, 0, each.key, each.value, tuple(each.headers)))

    def carry(self) -> None:
        """The reader reads what the maker has made."""
        self.take(self.reader.feed("moods", self.log["moods"]))
        self.take(self.reader.feed("metrics.level", self.log["metrics.level"]))

    def go_on(self, events: Sequence[RawRecord]) -> None:
        """Both roles take the events one by one."""
        for number in range(len(events)):
            self.log["moods"] = [*events[: number + 1]]
            self.make()
            self.carry()

    def take(self, output: DomainOutput) -> None:
        self.found += [orjson.loads(each.value)["event_id"] for each in output.multi_events]
        self.late += len(output.late)

    @property
    def reached_s(self) -> float:
        (group,) = self.reader.groups_time
        return group.watermarks.watermark_us / SECOND


def burst(roles: Roles, seconds: Sequence[int]) -> None:
    for second in seconds:
        roles.send(*(second + part / 10 for part in range(second % 4 + 1)), watermark_s=second + 0.9)


def test_a_reader_waits_for_a_slow_maker_whatever_its_own_sources_do():
    roles = Roles()
    burst(roles, range(4))
    roles.send(end=True, watermark_s=4.0)
    roles.carry()
    roles.take(roles.reader.mark_idle([TopicPartition("moods", 0)]))
    roles.take(roles.reader.mark_all_idle(60 * SECOND))
    assert roles.reached_s < 0
    roles.make()
    roles.carry()
    assert (len(roles.found), roles.late) == (3, 0)


def test_time_without_a_result_is_reported_in_steps_and_the_end_ends_the_reader():
    roles = Roles()
    roles.send(0.5, watermark_s=0.5)
    roles.make()
    roles.carry()
    assert roles.reached_s == 0.5
    for at in (0.55, 0.58):
        roles.send(watermark_s=at)
    roles.make()
    roles.carry()
    assert roles.reached_s == 0.5, "less than a step"
    roles.send(watermark_s=0.9)
    roles.make()
    roles.carry()
    assert roles.reached_s == 0.9
    roles.send(end=True)
    roles.make()
    roles.carry()
    (group,) = roles.reader.groups_time
    assert group.watermarks.sources == {}


def test_a_maker_whose_sources_are_idle_is_not_waited_for_until_it_wakes():
    roles = Roles()
    roles.send(0.5)
    roles.make()
    roles.keep(roles.maker.trust())  # its clock is right
    places = [TopicPartition("moods", 0)]
    roles.keep(roles.maker.mark_idle(places))
    assert not roles.maker.report_silence(places).led, "its window is open"
    roles.keep(roles.maker.mark_all_idle(2 * SECOND))
    roles.keep(roles.maker.report_silence(places))
    assert not roles.maker.report_silence(places).led, "once is enough"
    roles.carry()
    (group,) = roles.reader.groups_time
    assert group.watermarks.passive
    state = roles.reader.snapshot()
    roles.reader = roles.domain("key")
    roles.reader.restore(state)
    roles.reader.activate([], linked=True)
    (group,) = roles.reader.groups_time
    assert group.watermarks.passive, "the maker does not say it again to a reader that was away"
    roles.send(2.5)
    roles.make()
    roles.keep(roles.maker.trust())
    roles.carry()
    assert not group.watermarks.passive


@pytest.mark.parametrize("crash", [2, 5, 7, 9, 10])
def test_what_a_maker_repeats_after_a_crash_is_taken_once(crash):
    roles, plain = Roles(), Roles()
    for each in (roles, plain):
        burst(each, range(4))
        each.send(end=True, watermark_s=4.0)
        burst(each, range(4))  # event time begins anew
        each.send(end=True, watermark_s=4.0)
    events = roles.log["moods"]
    plain.go_on(events)
    before = roles.maker.snapshot()
    roles.go_on(events[:crash])
    reader = roles.reader.snapshot()
    roles.maker, roles.reader = roles.domain("user"), roles.domain("key")
    roles.maker.restore(before)
    roles.reader.restore(reader)
    roles.go_on(events)
    assert roles.found == plain.found
    assert len(plain.found) == 6
    assert roles.late == 0


def test_a_snapshot_of_a_version_whose_results_promised_nothing_is_restored_and_waits():
    roles = Roles()
    frame = Frame.from_columns("level", "", {"timestamp": [SECOND], "key": ["u"], "user": ["u"], "n": [1]})
    old = Domain(0, [DomainGroup("key", Engine(RULES), {"level": "metrics.level"})], topics=TIMED, internal=TIMED)
    old.feed("metrics.level", [RawRecord(0, 0, None, encode_frame(frame), ())])
    old.mark_idle([TopicPartition("metrics.level", 0)])
    state = old.snapshot()
    del state["lanes"]["key"]["promises"]
    state["lanes"]["key"]["engine"] = roles.reader.snapshot()["lanes"]["key"]["engine"]
    roles.reader.restore(state)
    (group,) = roles.reader.groups_time
    assert [each.source.topic for each in group.watermarks.holders()] == ["metrics.level"]
    assert roles.reader.feed("metrics.level", [RawRecord(1, 0, None, encode_frame(frame), ())]).late == []
    assert [each.source.topic for each in group.watermarks.holders()] == ["metrics.level"], "it says nothing either"

"""Junctions between the domains of one process: who waits for whom, and that each event is taken once."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import orjson
import pytest

from astrocyte import Engine, load_rules
from astrocyte.agents import promises
from astrocyte.agents.domain import Domain, DomainGroup, DomainOutput
from astrocyte.pipeline.roles.output_records import copy_records
from astrocyte.pipeline.topology.plan import make_plan
from astrocyte.schemas.errors import InvalidSettings
from astrocyte.schemas.frames import Frame, encode_frame
from astrocyte.schemas.json.reader import RawRecord
from astrocyte.schemas.topics import TopicPartition

SECOND = 1_000_000
RULES = load_rules("""
rules:
  - {name: spike, by: key, seq: [{as: a, stream: axon_1}], emit: {to: "a.value"}}
  - name: heard
    by: key
    within: 10s
    seq: [{as: one, stream: wave}, {as: other, stream: wave}]
junctions:
  - {name: wave, from: spike, key: to, delay: 500ms, min_strength: 0.4, damping: 0.5}
""")
PLAN = make_plan(RULES)
LINKED = {link.topic for link in PLAN.links}
OF = {0: "k0", 1: "k1"}
"""A key for each of two domains; which domain has it is of no importance here."""


class Network:
    """Two domains, and the topics of the junctions between them."""

    def __init__(self) -> None:
        self.records: dict[tuple[str, int], list[RawRecord]] = defaultdict(list)
        self.read: dict[tuple[str, int], int] = defaultdict(int)
        self.domains = [self.domain(number) for number in range(2)]
        self.found: list[tuple[int, str]] = []
        self.sent = 0

    @staticmethod
    def domain(number: int) -> Domain:
        groups = [
            DomainGroup(each.name, Engine(each.ruleset, validated=True), each.topics, each.links, 2)
            for each in PLAN.groups
        ]
        return Domain(number, groups, topics=PLAN.topics, internal=LINKED, linked=LINKED)

    def spike(self, number: int, at_s: float, value: float, *, end: bool = False) -> None:
        """A spike in a domain, whose producer says that no older one follows."""
        columns = {"timestamp": np.array([int(at_s * SECOND)]), "key": [OF[number]], "value": [value]}
        frame = Frame.from_columns("axon_1", "run", columns, first_seq=int(at_s * 1000), end=end,
                                   origin="sim", watermark_us=int(at_s * SECOND))  # fmt: skip
        self.feed(number, "mono.axon_1", [RawRecord(self.sent, 0, None, encode_frame(frame), ())])
        self.sent += 1

    def feed(self, number: int, topic: str, records: list[RawRecord]) -> None:
        self.take(number, self.domains[number].feed(topic, records))

    def take(self, number: int, output: DomainOutput) -> None:
        """What a domain made; what goes to other domains waits for `carry`."""
        assert not output.late
        assert not output.dead_letters
        bodies = [orjson.loads(record.value) for record in output.multi_events]
        self.found += [(number, body["event_id"]) for body in bodies if body["correlation_rule"] == "heard"]
        for sent in output.led:
            for record in copy_records(sent.link, sent.copy, 2):
                place = (record.topic, record.partition or 0)
                offset = len(self.records[place])
                self.records[place].append(RawRecord(offset, 0, record.key, record.value, tuple(record.headers)))

    def carry(self) -> None:
        """Each domain reads what has come for it."""
        for (topic, number), records in list(self.records.items()):
            part, self.read[topic, number] = records[self.read[topic, number] :], len(records)
            if part:
                self.feed(number, topic, part)

    def idle(self, number: int, **options: bool) -> None:
        places = [TopicPartition("mono.axon_1", number)]
        self.take(number, self.domains[number].mark_idle(places))
        self.take(number, self.domains[number].report_silence(places, **options))


def test_a_receiver_waits_for_every_domain_from_which_events_may_come():
    net = Network()
    for at_s in (1, 2, 3):
        net.spike(0, at_s, 7.0)
    net.carry()
    assert net.found == []  # domain 1 may still have an earlier one
    net.spike(1, 3, 9.0)
    net.carry()
    assert len(net.found) == 1


def test_a_domain_that_is_silent_is_not_waited_for_and_one_that_wakes_is():
    net = Network()
    net.idle(1)
    for at_s in (1, 2, 3):
        net.spike(0, at_s, 7.0)
    net.carry()
    assert len(net.found) >= 1
    count = len(net.found)
    net.spike(1, 3, 9.0)  # awake: from here on it is waited for
    net.carry()
    for at_s in (4, 5, 6):
        net.spike(0, at_s, 7.0)
    net.carry()
    assert len(net.found) <= count + 2
    net.spike(1, 6, 9.0)
    net.carry()
    assert len(net.found) > count + 1


def test_a_silent_domain_alone_ends_nothing_before_the_others_have_spoken():
    net = Network()
    net.idle(1)
    net.carry()
    reader = net.domains[0].groups_time[1].watermarks
    assert [each.source.origin for each in reader.holders()] == ["key/0"]


def test_all_are_waited_for_again_once_one_sends_after_all_were_silent():
    net = Network()
    for number in (0, 1):
        net.idle(number)
    net.carry()
    net.spike(0, 1, 7.0)
    net.spike(0, 2, 7.0)
    net.carry()
    assert net.found == []
    net.take(1, net.domains[1].report_silence([TopicPartition("mono.axon_1", 1)]))
    net.carry()
    net.spike(0, 3, 7.0)
    net.carry()
    assert len(net.found) >= 1


def test_silence_is_said_once_and_again_only_where_another_domain_has_sent_something():
    net = Network()
    places = [TopicPartition("mono.axon_1", 1)]
    net.idle(1)
    assert not net.domains[1].report_silence(places, again=False)
    assert not net.domains[1].report_silence(places, again=True)
    net.spike(0, 1, 7.0)
    net.carry()
    assert net.domains[1].report_silence(places, again=True)


def test_two_senders_that_receivers_could_not_tell_apart_are_refused(monkeypatch):
    monkeypatch.setattr(promises, "_source_of", len)  # the numbers of key/0 and key/1
    with pytest.raises(
        InvalidSettings, match=r"junction 'wave': key/0 and key/1 of its senders .* have the same number"
    ):
        Network()


def test_events_that_a_domain_sends_again_after_a_crash_are_taken_once():
    net = Network()
    before = net.domains[0].snapshot()
    for at_s in (1, 2, 3):
        net.spike(0, at_s, 7.0)
    net.spike(1, 3, 7.0)
    net.carry()
    once = list(net.found)
    state = net.domains[0]
    net.domains[0] = net.domain(0)
    net.domains[0].restore(before)
    net.sent = 0
    for at_s in (1, 2, 3):
        net.spike(0, at_s, 7.0)
    net.domains[0].restore(state.snapshot())  # the receiver in this domain had taken the first ones
    net.carry()
    net.spike(0, 9, 7.0)
    net.spike(1, 9, 7.0)
    net.carry()
    assert len(net.found) == len(set(net.found))
    plain = Network()
    for at_s in (1, 2, 3):
        plain.spike(0, at_s, 7.0)
    plain.spike(1, 3, 7.0)
    plain.spike(0, 9, 7.0)
    plain.spike(1, 9, 7.0)
    plain.carry()
    assert set(once) <= set(plain.found)
    assert set(net.found) == set(plain.found)


@pytest.mark.parametrize("cuts", [(), (2,), (1, 2, 3, 4)])
def test_numbers_and_counts_do_not_depend_on_steps(cuts):
    text = """
rules:
  - {name: weak, seq: [{as: a, stream: axon_1, where: "value < 3"}], confidence: "0.5", emit: {to: "a.value"}}
  - {name: spike, seq: [{as: a, stream: axon_1}], emit: {to: "a.value"}}
junctions:
  - {name: wave, from: "*", key: to, min_strength: 0.4, damping: 0.5, where: "to != 2"}
"""
    engine = Engine(load_rules(text))
    events = [{"stream": "axon_1", "timestamp": at * SECOND, "key": "k", "value": float(at)} for at in range(5)]
    engine.push_events(events)
    led = [each for cut in cuts for each in engine.advance(cut * SECOND).led] + engine.flush().led
    numbers = [each.first + row for each in led for row in range(each.frame.num_rows)]
    rows = [(row["timestamp"] // SECOND, row["type"], row["hops"], row["strength"]) for each in led
            for row in each.frame.rows()]  # fmt: skip
    assert numbers == [0, 1, 2, 3]
    assert rows == [(at, "spike", 1, 0.5) for at in (0, 1, 3, 4)]
    assert engine.junctions.counts["wave"] == {"led": 4, "filtered": 1, "weak": 3, "far": 0}

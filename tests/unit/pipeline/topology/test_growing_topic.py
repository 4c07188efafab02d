"""Domains that read a topic itself go on with its repartitioned copy once it has more partitions than they are."""

from collections import defaultdict

import orjson
import pytest

from astrocyte.agents.domain import Domain, DomainGroup, DomainOutput
from astrocyte.agents.engine.engine import Engine
from astrocyte.agents.loading import load_rules
from astrocyte.agents.rules.model import RuleSet
from astrocyte.pipeline.roles.output_records import copy_records
from astrocyte.pipeline.state.snapshots import pack_state, unpack_state
from astrocyte.pipeline.topology.plan import Plan, decoders_of
from astrocyte.pipeline.topology.repartition import Repartitioner
from astrocyte.pipeline.topology.topics import KnownTopics
from astrocyte.schemas.json.reader import RawRecord
from astrocyte.schemas.partitioning import partition_of

DOMAINS = 2
RULES = load_rules("""
streams: [{name: steps, id: id}]
rules: [{name: twice, within: 6s, seq: [{as: a, stream: steps}, {as: b, stream: steps}]}]
""")
ONE = load_rules("""
streams: [{name: steps, id: id}]
rules: [{name: one, seq: [{as: a, stream: steps}]}]
""")
TOPIC, COPY = "mono.steps", "keyed.key.steps"
START_US, TICK_US, HOUR_US = 1_750_000_000_000_000, 1_000_000, 3_600_000_000
LATENESS_US = 60 * TICK_US


class Topic:
    """Messages of a topic by partition; ``partitions`` may grow."""

    def __init__(self) -> None:
        self.parts: dict[int, list[RawRecord]] = defaultdict(list)

    def send(self, numbers: range, partitions: int) -> None:
        for number in numbers:
            key = b"k%d" % (number % 5)
            part = self.parts[partition_of(key, partitions)]
            time_us = START_US + number * TICK_US
            body = {"timestamp": time_us, "id": str(number)}
            part.append(RawRecord(len(part), time_us // 1000, key, orjson.dumps(body)))


def domain_of(plan: Plan, number: int) -> Domain:
    groups = [DomainGroup(each.field, Engine(each.ruleset, validated=True), each.topics) for each in plan.groups]
    copies = plan.copies
    return Domain(
        number, groups, lateness_us=LATENESS_US, topics={*plan.topics, *plan.inputs}, internal=set(copies),
        copied_by=plan.copied_by, copies=copies, decoders=decoders_of(plan.contracts),
    )  # fmt: skip


def ids(outputs: list[DomainOutput]) -> list[str]:
    return [orjson.loads(each.value)["event_id"] for output in outputs for each in output.multi_events]


def plan_with(partitions: int, rules: RuleSet = RULES) -> Plan:
    return KnownTopics({TOPIC: partitions}, DOMAINS).plan(rules)


def repartitioner_of(plan: Plan) -> Repartitioner:
    (repartition,) = plan.repartitions
    return Repartitioner(repartition, DOMAINS, lateness_us=LATENESS_US, decoders=decoders_of(plan.contracts))


def copies_of(topic: Topic, plan: Plan) -> dict[int, list[RawRecord]]:
    """What the repartition role writes, from the beginning of the topic."""
    repartitioner = repartitioner_of(plan)
    found: dict[int, list[RawRecord]] = defaultdict(list)
    for number, records in sorted(topic.parts.items()):
        for first in range(0, len(records), 7):
            copies, _ = repartitioner.step(number, records[first : first + 7])
            for record in (each for copy in copies for each in copy_records(plan.repartitions[0], copy, DOMAINS)):
                part = found[record.partition or 0]
                part.append(RawRecord(len(part), 0, None, record.value, tuple(record.headers)))
    return found


@pytest.mark.parametrize("partitions", [3, 4, 5])
def test_no_match_is_lost_or_made_twice_when_a_topic_grows(partitions):
    topic = Topic()
    topic.send(range(40), DOMAINS)
    domains = [domain_of(plan_with(DOMAINS), number) for number in range(DOMAINS)]
    outputs = [domain.feed(TOPIC, topic.parts[domain.partition]) for domain in domains]
    states = [pack_state(domain.snapshot()) for domain in domains]

    topic.send(range(40, 80), partitions)
    plan = plan_with(partitions)
    assert plan.topics == (COPY,)
    copies = copies_of(topic, plan)
    counted = 0
    for number, state in enumerate(states):
        domain = domain_of(plan, number)
        domain.restore(unpack_state(state))
        outputs.append(domain.feed(TOPIC, topic.parts[number]))
        outputs += [domain.feed(COPY, copies[number]), domain.mark_all_idle(), domain.flush()]
        counted += domain.counters.received
    assert counted == sum(len(topic.parts[number]) for number in range(DOMAINS))

    one = domain_of(plan_with(DOMAINS), 0)
    everything = Topic()
    everything.send(range(80), 1)
    wanted = ids([one.feed(TOPIC, everything.parts[0]), one.mark_all_idle(), one.flush()])
    assert sorted(ids(outputs)) == sorted(wanted)
    assert len(wanted) > 40
    assert sum(len(output.late) for output in outputs) == 0


def test_an_event_that_waits_when_the_topic_grows_is_taken_from_the_copy():
    topic = Topic()
    topic.send(range(10), DOMAINS)
    number = next(number for number in topic.parts if len({each.key for each in topic.parts[number]}) > 1)
    part = topic.parts[number]
    ahead_us = START_US + 2 * HOUR_US
    part.append(RawRecord(len(part), ahead_us // 1000, part[0].key, orjson.dumps({"timestamp": ahead_us, "id": "x"})))
    before = domain_of(plan_with(DOMAINS, ONE), number)
    outputs = [before.feed(TOPIC, part)]
    assert before.waiting == 1
    plan = plan_with(3, ONE)
    after = domain_of(plan, number)
    after.restore(unpack_state(pack_state(before.snapshot())))
    outputs.append(after.feed(TOPIC, part))
    repartitioner = repartitioner_of(plan)
    copies = [*repartitioner.step(number, part)[0], *repartitioner.trust(ahead_us)]
    (copied,) = plan.repartitions
    records = [each for copy in copies for each in copy_records(copied, copy, DOMAINS) if each.partition == number]
    outputs.append(
        after.feed(COPY, [RawRecord(at, 0, None, each.value, tuple(each.headers)) for at, each in enumerate(records)])
    )
    outputs += [after.mark_all_idle(), after.flush()]
    assert len(set(ids(outputs))) == len(ids(outputs)) == len(part)
    assert after.counters.received == len(part)


def test_the_event_time_of_a_stream_that_rules_no_longer_read_holds_nothing_back():
    both = load_rules("rules: [{name: r, within: 1s, all: [{as: a, stream: steps}, {as: b, stream: others}]}]")
    before = domain_of(KnownTopics({}, DOMAINS).plan(both), 0)
    topic = Topic()
    topic.send(range(3), 1)
    before.feed("mono.others", topic.parts[0][:1])
    before.feed(TOPIC, topic.parts[0])
    after = domain_of(plan_with(DOMAINS), 0)
    after.restore(unpack_state(pack_state(before.snapshot())))
    later = RawRecord(3, 0, b"k", orjson.dumps({"timestamp": START_US + HOUR_US, "id": "later"}))
    after.feed(TOPIC, [later])
    assert after.watermark_us == START_US + HOUR_US - LATENESS_US

"""Silence in a repartitioned stream: event time goes on with the clock, and no faster."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import orjson
import pytest
from faust.types import TP

from astrocyte.agents.domain import Domain, DomainGroup, DomainOutput
from astrocyte.agents.engine.engine import Engine
from astrocyte.agents.ingest.copies import Copy
from astrocyte.agents.loading import load_rules
from astrocyte.pipeline.analysis.offline import run_rules
from astrocyte.pipeline.kafka.record import ConsumedRecord
from astrocyte.pipeline.roles.correlation.copy_ends import CopyEnds
from astrocyte.pipeline.roles.correlation.correlate import Correlator
from astrocyte.pipeline.roles.output_records import copy_records
from astrocyte.pipeline.roles.repartition import RepartitionRunner
from astrocyte.pipeline.topology.plan import decoders_of, make_plan
from astrocyte.pipeline.topology.repartition import Repartitioner
from astrocyte.pipeline.transport.commits import CommitTracker
from astrocyte.pipeline.transport.partition_ends import PartitionEnds
from astrocyte.schemas.frames import Frame
from astrocyte.schemas.json.reader import RawRecord, frame_to_records
from astrocyte.schemas.partitioning import partition_of
from astrocyte.schemas.topics import ALERTS, CLOCK, LATE, MULTI_EVENTS, TopicPartition
from tests.support.correlate_role import START_US, Broker
from tests.support.logs import write_log

PARTITIONS, LATENESS_US, IDLE_S = 3, 1_000_000, 5.0
RULES = load_rules("""
streams: [{name: c, topic: web, time: at, key: {field: user, partitioned: false}, fields: {action: string}}]
rules:
  - name: left
    by: key
    within: 1m
    seq: [{as: c, stream: c, where: "action == 'cart'"}, {not: {stream: c, where: "action == 'purchase'"}}]
    alert: {severity: info, message: left}
  - {name: beside, by: key, within: 1m, all: [{as: c, stream: c}, {as: d, stream: axon_1}]}
""")
PLAN = make_plan(RULES)
(REPARTITION,) = PLAN.repartitions
SOURCE, COPY, DIRECT = REPARTITION.source, REPARTITION.topic, "mono.axon_1"
TOPICS = (SOURCE, COPY, DIRECT)


class Pipeline:
    """The roles repartition and correlate over one broker, in virtual time."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.broker = Broker()
        self.ends = PartitionEnds(monotonic=lambda: self.now_s)
        self.read: dict[tuple[str, str], int] = defaultdict(int)
        """By role and place: offset of the next record."""
        self.delivered: dict[tuple[str, tuple[str, int]], int] = {}
        self.tracker = CommitTracker()
        self.started = False
        self.copying = True
        """Whether the role repartition gets time."""
        self.answers = True
        """Whether the broker says where topics end."""
        self.asked_s: list[float] = []

    async def start(self) -> None:
        """Both roles begin, or end and begin again."""
        self.runner = RepartitionRunner(
            Repartitioner(REPARTITION, PARTITIONS, lateness_us=LATENESS_US, decoders=decoders_of(PLAN.contracts)),
            "memory", self.broker.deliver, at_end=lambda number: self._at_end("repartition", (SOURCE, number)),
            idle_timeout_s=IDLE_S, monotonic=lambda: self.now_s, now_us=lambda: self.now_us,
        )  # fmt: skip
        self.copies = CopyEnds(
            {COPY: [TopicPartition(SOURCE, number) for number in range(PARTITIONS)]},
            lambda place: self._at_end("correlate", place), self._ends, lambda: self.correlator.domains,
            IDLE_S, lambda: self.now_s,
        )  # fmt: skip
        self.correlator = Correlator(
            self._domain, self.broker, self.broker.send_batch, self.broker.deliver,
            self.copies.of, partitions=PARTITIONS, snapshot_interval_us=1_000_000,
            idle_timeout_us=int(IDLE_S * 1e6), monotonic=lambda: self.now_s, now_us=lambda: self.now_us,
        )  # fmt: skip
        numbers = range(PARTITIONS)
        states = {each.key: each.value for each in self.broker.records["memory"]}
        begins = self.runner.assigned(numbers, numbers, states)
        self.read.clear()
        self.delivered.clear()
        self.read.update({("repartition", (SOURCE, number)): offset for number, offset in begins.items()})
        places = [TP(topic, number) for topic in TOPICS for number in numbers]
        starts = await self.correlator.assigned(dict.fromkeys(places))
        for place in places:
            self.tracker.assign(place, starts.get(place, 0), None)
            self.read["correlate", tuple(place)] = starts.get(place, 0)
        self.started = True

    async def stop(self) -> None:
        await self.correlator.stop()
        self.started = False

    @staticmethod
    def _domain(partition: int) -> Domain:
        groups = [DomainGroup(each.field, Engine(each.ruleset), each.topics) for each in PLAN.groups]
        return Domain(
            partition, groups, lateness_us=LATENESS_US, topics=TOPICS, internal={COPY},
            copied_by=PLAN.copied_by, copies=PLAN.copies, decoders=decoders_of(PLAN.contracts),
        )  # fmt: skip

    @property
    def now_us(self) -> int:
        return START_US + int(self.now_s * 1e6)

    def records(self, place: tuple[str, int]) -> list[RawRecord]:
        found = [each for each in self.broker.records[place[0]] if each.partition == place[1]]
        return [
            RawRecord(at, getattr(each, "time_ms", 0), each.key, each.value, tuple(each.headers))
            for at, each in enumerate(found)
        ]

    def send(self, action: str, partitions: int = PARTITIONS) -> None:
        """An event of each of seven users, as they come, in the first partitions."""
        for number in range(7):
            body = {"user": f"u{number}", "action": action, "at": self.now_us + number}
            self.broker.records[SOURCE].append(
                SimpleNamespace(
                    partition=number % partitions,
                    key=None,
                    value=orjson.dumps(body),
                    headers=(),
                    time_ms=self.now_us // 1000,
                )
            )

    def send_directly(self) -> None:
        """An event of each of the users in the stream that is not copied."""
        for number in range(7):
            key = f"u{number}"
            columns = {"timestamp": np.array([self.now_us + number]), "key": [key], "value": [1.0]}
            made = Frame.from_columns("axon_1", "directly", columns, first_seq=self.now_us + number)
            self.broker.records[DIRECT].append(
                SimpleNamespace(
                    partition=partition_of(key, PARTITIONS),
                    key=key.encode(),
                    value=frame_to_records(made)[0].value,
                    headers=(),
                    time_ms=self.now_us // 1000,
                )
            )

    def _at_end(self, role: str, place: tuple[str, int]):
        end = self.ends.at_end(TP(*place))
        offset = self.read[role, tuple(place)]
        if end is None or end.offset != offset:
            return None
        return replace(end, delivered=self.delivered.get((role, tuple(place))))

    async def _ends(self, places):
        self.asked_s.append(self.now_s)
        return {each: len(self.records(tuple(each))) for each in places} if self.answers else None

    async def _fetch(self, place: tuple[str, int]) -> None:
        records = self.records(place)
        fresh = {
            role: records[self.read[role, place] :]
            for role in (("repartition", "correlate") if place[0] == SOURCE and self.copying else ("correlate",))
        }
        first = self.read["correlate", place]
        self.ends.answered(TP(*place), first, len(records), records=any(fresh.values()), sent_s=self.now_s)
        for role, some in fresh.items():
            self.read[role, place] = len(records)
            if not some:
                continue
            self.delivered[role, place] = len(records)
            chunk = SimpleNamespace(topic=place[0], partition=place[1], records=some, next_offset=len(records))
            if role == "repartition":
                await self.runner.handle(chunk)
            else:
                delivery = self.tracker.delivered(TP(*place), some[0].offset, len(records))
                await self.correlator.handle(chunk, delivery)

    async def after(self, seconds: float) -> None:
        end_s = self.now_s + seconds
        while self.now_s < end_s:
            self.now_s = min(end_s, self.now_s + 1.0)
            if self.started:
                for place in [(topic, number) for topic in TOPICS for number in range(PARTITIONS)]:
                    await self._fetch(place)
                if self.copying:
                    await self.runner.tick()
                await self.copies.look()
                await self.correlator.tick()

    def count(self, topic: str) -> int:
        return len(self.broker.records[topic])

    def offline(self, path) -> int:
        """Number of alerts of `match` over the log."""
        return sum(len(output.alerts) for output in self.outputs(path))

    def outputs(self, path, *, decisions: bool = True) -> list[DomainOutput]:
        """What `match` makes of the log, with or without what the worker decided by its clock."""
        events = [
            ConsumedRecord(topic, number, each.offset, each.timestamp, each.key, each.value)
            for topic in (SOURCE, DIRECT)
            for number in range(PARTITIONS)
            for each in self.records((topic, number))
        ]
        noted = self.broker.records[CLOCK] if decisions else ()
        clock = [ConsumedRecord(CLOCK, 0, at, 0, b"", each.value) for at, each in enumerate(noted)]
        events.sort(key=lambda each: each.timestamp_ms)  # as `record` writes them
        log = write_log(path, [*events, *clock], partitions=PARTITIONS)
        _, outputs = run_rules(RULES, [log], lateness_us=LATENESS_US)
        return list(outputs)


@pytest.fixture
def pipeline() -> Pipeline:
    return Pipeline()


@pytest.mark.parametrize("partitions", [1, 3])
@pytest.mark.parametrize("first", ["data", "roles"])
async def test_an_absence_is_not_found_before_its_time(pipeline, partitions, first, tmp_path):
    if first == "roles":
        await pipeline.start()
        await pipeline.after(12.0)
    pipeline.send("cart", partitions)
    if first == "data":
        await pipeline.start()
    await pipeline.after(30.0)
    pipeline.send("purchase")
    await pipeline.after(80.0)
    assert (pipeline.count(ALERTS), pipeline.count(LATE)) == (0, 0)
    assert pipeline.offline(tmp_path / "log.jsonl.zst") == 0


@pytest.mark.parametrize("partitions", [1, 3])
async def test_an_absence_is_found_at_its_time_though_nothing_follows(pipeline, partitions, tmp_path):
    await pipeline.start()
    await pipeline.after(12.0)
    pipeline.send("cart", partitions)
    await pipeline.after(60.0)
    assert pipeline.count(ALERTS) == 0
    await pipeline.after(3.0)
    assert pipeline.count(ALERTS) == 7 == pipeline.offline(tmp_path / "log.jsonl.zst")


async def test_an_absence_waits_for_its_time_over_a_restart_of_the_roles(pipeline):
    await pipeline.start()
    pipeline.send("cart", 2)
    await pipeline.after(15.0)
    await pipeline.stop()
    await pipeline.after(15.0)
    await pipeline.start()
    await pipeline.after(15.0)
    assert pipeline.count(ALERTS) == 0
    pipeline.send("purchase", 1)
    await pipeline.after(80.0)
    assert (pipeline.count(ALERTS), pipeline.count(LATE)) == (0, 0)


async def test_one_partition_that_falls_silent_before_another_ends_nothing(pipeline):
    await pipeline.start()
    pipeline.send("cart")
    for _ in range(4):
        await pipeline.after(4.0)
        pipeline.send("look", 1)
    await pipeline.after(30.0)
    pipeline.send("purchase")
    await pipeline.after(80.0)
    assert (pipeline.count(ALERTS), pipeline.count(LATE)) == (0, 0)


@pytest.mark.parametrize("before_s", [0.0, 12.0], ids=["first start", "all were silent"])
async def test_what_a_slow_repartition_role_still_has_to_copy_is_not_late(pipeline, before_s, tmp_path):
    await pipeline.start()
    if before_s:
        pipeline.send("cart")
        await pipeline.after(before_s)
    pipeline.copying = False
    for _ in range(4):
        pipeline.send("cart")
        pipeline.send_directly()
        await pipeline.after(10.0)  # the topic of copies is empty or silent, and event time must wait for it
    pipeline.copying = True
    await pipeline.after(3.0)
    pipeline.send("purchase")
    await pipeline.after(80.0)
    assert (pipeline.count(ALERTS), pipeline.count(LATE)) == (0, 0)
    found = pipeline.outputs(tmp_path / "log.jsonl.zst", decisions=False)
    assert sum(len(each.alerts) for each in found) == 0
    ids = {orjson.loads(each.value)["event_id"] for each in pipeline.broker.records[MULTI_EVENTS]}
    assert ids == {orjson.loads(each.value)["event_id"] for output in found for each in output.multi_events}
    assert len(ids) >= 28


async def test_a_report_of_silence_says_nothing_of_partitions_that_others_still_have_to_copy(pipeline):
    await pipeline.start()
    pipeline.copying = False
    pipeline.send("cart", partitions=1)
    pipeline.send_directly()
    silent = Copy(pipeline.runner.repartitioner._empty("", 2, end=True), silent=True)
    await pipeline.broker.deliver(copy_records(REPARTITION, silent, PARTITIONS))
    await pipeline.after(20.0)
    pipeline.send_directly()
    await pipeline.after(20.0)
    pipeline.copying = True
    await pipeline.after(20.0)
    assert pipeline.count(LATE) == 0


async def test_a_broker_that_does_not_say_where_topics_end_proves_nothing(pipeline):
    await pipeline.start()
    pipeline.send("cart")
    pipeline.answers = False
    await pipeline.after(90.0)
    assert pipeline.count(ALERTS) == 0
    pipeline.answers = True
    await pipeline.after(80.0)
    assert pipeline.count(ALERTS) == 7
    assert min(b - a for a, b in pairwise(pipeline.asked_s)) >= 1.0


async def test_messages_without_an_event_hold_up_no_silence(pipeline):
    await pipeline.start()
    pipeline.send("cart")
    await pipeline.after(8.0)
    pipeline.broker.records[SOURCE].append(
        SimpleNamespace(partition=1, key=None, value=b"{", headers=(), time_ms=pipeline.now_us // 1000)
    )
    await pipeline.after(80.0)
    assert (pipeline.count(ALERTS), pipeline.count(LATE)) == (7, 0)

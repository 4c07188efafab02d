"""A worker that is behind: when it leaves events out, that this is recorded first, and that later readers repeat it."""

import asyncio
import random
from types import SimpleNamespace

import orjson
import pytest
from faust.types import TP

from astrocyte.agents.ingest.overload import RecordedDecisions
from astrocyte.agents.rules.streams import Overload
from astrocyte.pipeline.analysis.offline import run_rules
from astrocyte.pipeline.kafka.record import ConsumedRecord
from astrocyte.schemas.times import time_us
from astrocyte.schemas.topics import CLOCK, MULTI_EVENTS, SAMPLING
from tests.support.correlate_role import RULES, START_US, TOPICS, Broker, Killed, Worker, record
from tests.support.logs import write_log
from tests.support.waiting import loop_turns

A, B = TOPICS.values()
STREAMS = {topic: stream for stream, topic in TOPICS.items()}
SAMPLE = Overload(policy="sample", share=0.5, above=8, below=2)


class Experiment:
    """Topics that hold all events already, a worker that reads them in chunks, and lives that end."""

    def __init__(self, policies, seed: int = 0, count: int = 60) -> None:
        self.policies = policies
        self.dice = random.Random(seed)
        self.broker = Broker()
        self.lives = 0
        self.sent = {
            topic: [record(STREAMS[topic], number * 0.05, number) for number in range(count)]
            for topic in TOPICS.values()
        }
        self.at: dict[str, int] = {}

    async def begin(self) -> None:
        self.lives += 1
        self.worker = Worker(self.broker, policies=self.policies)
        starts = {place.topic: offset for place, offset in (await self.worker.start()).items()}
        self.at = {topic: starts.get(topic) or 0 for topic in self.sent}

    async def read(self, topic: str, size: int, behind: int) -> None:
        """The next messages of a topic, with so many behind them."""
        first = self.at[topic]
        values = self.sent[topic][first : first + size]
        if not values:
            return
        stamp_ms = self.worker.clock_us // 1000 - 1000 * behind
        records = [
            SimpleNamespace(offset=first + number, timestamp=stamp_ms, key=b"k", value=value, headers=())
            for number, value in enumerate(values)
        ]
        end = first + len(values)
        self.at[topic] = end
        chunk = SimpleNamespace(topic=topic, partition=0, records=records, next_offset=end, highwater=end + behind)
        self.worker.fetched[topic] = end
        self.worker.log_ends[topic] = end
        await self.worker.correlator.handle(chunk, self.worker.tracker.delivered(TP(topic, 0), first, end))

    async def run(self, kills: list[int]) -> None:
        """Read everything; each life but the last ends after so many records that it wrote."""
        kills = list(kills)
        while True:
            self.broker.steps_left = kills.pop(0) if kills else None
            try:
                await self.begin()
                while any(self.at[topic] < len(values) for topic, values in self.sent.items()):
                    for topic in (A, B):
                        await self.read(topic, self.dice.randint(1, 6), self.dice.choice([0, 0, 3, 9, 20, 40]))
                    if self.dice.random() < 0.3:
                        self.worker.now_s += 1.1
                        await self.worker.tick()
                await self.worker.correlator.stop()
                return
            except* Killed:
                self.broker.steps_left = None

    def decisions(self, topic: str | None = None) -> list[dict]:
        found = [orjson.loads(each.value) for each in self.broker.records[SAMPLING]]
        return [each for each in found if not each.get("begins") and topic in (None, each["topic"])]

    @property
    def counters(self) -> dict[str, int]:
        return self.worker.correlator.domains[0].counters.as_dict()

    def replay(self, path):
        """What `match` finds in a log of the topics and of what workers decided."""
        records = [
            ConsumedRecord(topic, 0, number, START_US // 1000, b"k", value)
            for topic, values in self.sent.items()
            for number, value in enumerate(values)
        ]
        for topic in (CLOCK, SAMPLING):
            records += [
                ConsumedRecord(topic, 0, number, 0, each.key, each.value)
                for number, each in enumerate(self.broker.records[topic])
            ]
        run, outputs = run_rules(RULES, [write_log(path, records, partitions=1)], lateness_us=0)
        made = [each.value for output in outputs for each in output.multi_events]
        # The input of the worker has not ended: what is not older than event time there is still to come.
        reached_us = self.worker.correlator.domains[0].watermark_us
        older = [value for value in made if time_us(orjson.loads(value)["timestamp"]) < reached_us]
        return run, {orjson.loads(value)["event_id"]: value for value in older}

    def live(self) -> dict[str, bytes]:
        return {orjson.loads(each.value)["event_id"]: each.value for each in self.broker.records[MULTI_EVENTS]}


POLICIES = {
    "sample": {A: SAMPLE, B: SAMPLE},
    "latest": {A: Overload(policy="latest", above=8, below=2)},
    "drop_oldest": {A: Overload(policy="drop_oldest", above=8, below=2), B: SAMPLE},
    "by age": {A: Overload(policy="sample", share=0.3, above="8s", below="2s")},
}


@pytest.mark.parametrize("name", POLICIES)
@pytest.mark.parametrize("seed", range(3))
async def test_match_over_the_log_gives_what_the_worker_gave(name, seed, tmp_path):
    experiment = Experiment(POLICIES[name], seed, count=200)
    await experiment.run([])
    run, found = experiment.replay(tmp_path / "log.jsonl")
    assert experiment.counters["sampled"] > 0
    assert found == experiment.live()
    assert run.counters.as_dict() | {"matches": 0, "alerts": 0} == experiment.counters | {"matches": 0, "alerts": 0}
    assert run.left_out == experiment.worker.correlator.domains[0].leaving_out.counts


@pytest.mark.parametrize("name", POLICIES)
async def test_a_worker_killed_between_any_two_steps_repeats_the_decisions(name, tmp_path):
    steps = Experiment(POLICIES[name], 7)
    await steps.run([])
    written = sum(len(records) for topic, records in steps.broker.records.items())
    for kill in range(1, written, 11):
        experiment = Experiment(POLICIES[name], kill)
        await experiment.run([kill, experiment.dice.randint(1, 60)])
        run, found = experiment.replay(tmp_path / f"{kill}.jsonl")
        assert found == experiment.live(), f"killed after {kill} records"
        assert run.counters.sampled == experiment.counters["sampled"], f"killed after {kill} records"
        assert run.counters.received == 120


async def test_a_decision_is_written_before_the_first_event_is_left_out():
    experiment = Experiment(POLICIES["sample"])
    await experiment.begin()
    experiment.broker.held = []
    task = asyncio.create_task(experiment.read(A, 4, 40))
    await loop_turns(20)
    domain = experiment.worker.correlator.domains[0]
    assert domain.counters.received == 0, "the broker has not confirmed the decision"
    while not task.done():
        for number, future in enumerate(experiment.broker.held):
            if not future.done():
                future.set_result(SimpleNamespace(offset=number))
        await loop_turns(1)
    assert domain.counters.received == 4


async def test_hysteresis_lies_between_the_thresholds():
    experiment = Experiment({A: Overload(policy="sample", share=0.5, above=12, below=6)})
    await experiment.begin()
    for behind in (8, 9, 9, 4, 3, 2, 8, 40):
        await experiment.read(A, 4, behind)
    # More than 12 records from where it reads to the end: it begins. 6 or fewer: it ends. Each decision holds for three
    # records ahead of what was read.
    assert [(each["from"], each["lag"], each["policy"]) for each in experiment.decisions(A)] == [
        (0, 12, "block"), (7, 10, "block"), (11, 10, "block"), (15, 5, "block"), (19, 4, "block"), (23, 3, "block"),
        (27, 9, "block"), (31, 41, "sample"),
    ]  # fmt: skip
    for behind in (9, 4, 9):
        await experiment.read(A, 4, behind)
    assert [(each["from"], each["lag"], each["policy"]) for each in experiment.decisions(A)][8:] == [
        (35, 10, "sample"), (39, 5, "block"), (43, 10, "block"),
    ]  # fmt: skip
    last = experiment.decisions(A)[7]
    assert {name: last[name] for name in ("unit", "above", "below", "share", "until")} == {
        "unit": "records", "above": 12, "below": 6, "share": 0.5, "until": 35,
    }  # fmt: skip


async def test_the_oldest_are_dropped_until_the_lag_is_small_enough():
    experiment = Experiment({A: Overload(policy="drop_oldest", above=10, below=4)})
    await experiment.begin()
    await experiment.read(A, 6, 8)
    await experiment.read(A, 20, 0)
    found = [(each["from"], each["until"], each["policy"]) for each in experiment.decisions(A)]
    # 14 records to the end, then 20, of which the last 4 stay.
    assert found == [(0, 6, "drop_oldest"), (6, 22, "drop_oldest"), (22, 26, "block")]
    assert experiment.counters["sampled"] == 22


async def test_records_in_the_queues_of_the_worker_count_as_lag():
    experiment = Experiment({A: SAMPLE})
    await experiment.begin()
    experiment.worker.correlator.overload._known_end = lambda place: {A: 100}[place.topic]
    await experiment.read(A, 2, 0)
    assert [(each["lag"], each["policy"]) for each in experiment.decisions(A)] == [(100, "sample")]


async def test_streams_without_a_policy_cost_nothing():
    experiment = Experiment({})
    await experiment.run([])
    assert experiment.broker.records[SAMPLING] == []
    assert experiment.counters["sampled"] == 0


async def test_where_the_policy_is_gone_what_was_decided_still_holds(tmp_path):
    experiment = Experiment(POLICIES["sample"])
    await experiment.begin()
    await experiment.read(A, 6, 40)
    await experiment.worker.correlator.stop()
    end = experiment.decisions(A)[-1]["until"]
    experiment.policies = {}
    await experiment.begin()
    while experiment.at[A] < 60:
        await experiment.read(A, 6, 40)
        await experiment.read(B, 6, 40)
    await experiment.worker.correlator.stop()
    assert 0 < experiment.counters["sampled"] < end == 8, "two records ahead of the six that were read"
    assert experiment.replay(tmp_path / "log.jsonl")[1] == experiment.live()


def test_decisions_of_a_life_that_has_ended_count_no_more():
    known = RecordedDecisions()

    def body(life: str, **members) -> bytes:
        return orjson.dumps({"role": "correlate", "partition": 0, "life": life, **members})

    def decided(life: str, first: int):
        return known.read(
            body(life, topic=A, **{"from": first, "until": first + 5, "policy": "sample", "share": 0.5, "why": "new"})
        )

    assert known.read(body("one", begins=True)) is None
    assert decided("one", 0)[2][:2] == (0, 5)
    known.read(body("two", begins=True))
    assert decided("one", 5) is None
    assert decided("two", 5)[2].share == 0.5
    for odd in (0, 1.5, "a half", None):
        members = {"topic": A, "from": 20, "until": 25, "policy": "sample", "share": odd}
        assert known.read(body("two", **members)) is None, odd
    assert known.read(b"{}") is None
    assert known.read(None) is None
    assert known.read(b"[1]") is None

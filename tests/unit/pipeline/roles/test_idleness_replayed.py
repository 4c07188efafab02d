"""`match` over the log of a worker finds what the worker found, however its clock took silence, also where it died."""

import asyncio

import orjson
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from astrocyte.pipeline.analysis.offline import run_rules
from astrocyte.pipeline.kafka.record import ConsumedRecord
from astrocyte.schemas.topics import CLOCK
from tests.support.correlate_role import RULES, START_US, TOPICS, Broker, Worker, frame, noted, record
from tests.support.logs import write_log

A, B = TOPICS.values()
STREAMS = {topic: stream for stream, topic in TOPICS.items()}


class Experiment:
    """A worker that may die and be followed by another, and the log of all that it read and decided."""

    def __init__(self) -> None:
        self.broker = Broker()
        self.worker = Worker(self.broker)
        self.sent: dict[str, list[bytes]] = {topic: [] for topic in TOPICS.values()}
        self.time_s = 0.0

    async def send(self, topic: str, behind_s: float = 0.0, origin: str = "") -> None:
        """An event that is so far behind the present."""
        number, stream, at_s = len(self.sent[topic]), STREAMS[topic], self.time_s - behind_s
        sequence = number + 1000 * len(origin)
        value = (
            frame(stream, at_s, sequence, origin=origin, watermark_us=None, peers=())
            if origin
            else record(stream, at_s, sequence)
        )
        self.sent[topic].append(value)
        await self.read(topic, number)

    async def read(self, topic: str, number: int) -> None:
        await self.worker.feed(topic, number, self.sent[topic][number], b"k", START_US // 1000)

    async def silence(self, seconds: float, *topics: str) -> None:
        self.time_s += seconds
        await self.worker.after(seconds, *topics)

    async def die(self, order: tuple[str, str] = (A, B)) -> None:
        """The worker is killed; the next one reads what follows its snapshot, topic by topic."""
        now_s = self.worker.now_s
        self.worker = Worker(self.broker)
        self.worker.now_s = now_s
        starts = {place.topic: offset for place, offset in (await self.worker.start()).items()}
        self.worker.log_ends = {topic: len(values) for topic, values in self.sent.items()}
        for topic in order:
            for number in range(starts.get(topic, 0), len(self.sent[topic])):
                await self.read(topic, number)

    async def end(self) -> None:
        await self.worker.correlator.stop()

    @property
    def counters(self) -> dict[str, int]:
        return self.worker.correlator.domains[0].counters.as_dict()

    def replay(self, path) -> tuple[dict[str, int], set[str]]:
        """Counters and ids of matches of `match` over the log, which holds one topic after the other."""
        records = [
            ConsumedRecord(topic, 0, number, START_US // 1000, b"k", value)
            for topic, values in self.sent.items()
            for number, value in enumerate(values)
        ]
        clock = [
            ConsumedRecord(CLOCK, 0, number, 0, b"0", each.value)
            for number, each in enumerate(self.broker.records[CLOCK])
        ]
        run, outputs = run_rules(RULES, [write_log(path, [*records, *clock], partitions=1)], lateness_us=0)
        found = {orjson.loads(each.value)["event_id"] for output in outputs for each in output.multi_events}
        return run.counters.as_dict(), found


JUDGED = ("received", "processed", "late")


def judged(counters: dict[str, int]) -> dict[str, int]:
    return {name: counters[name] for name in JUDGED}


@pytest.fixture
def experiment() -> Experiment:
    return Experiment()


async def begin(experiment: Experiment) -> None:
    await experiment.worker.start()
    await experiment.send(A)
    await experiment.send(B)


async def test_what_one_topic_sends_after_all_were_idle_makes_nothing_of_another_late_in_the_replay(
    experiment, tmp_path
):
    await begin(experiment)
    await experiment.silence(6.0)
    for _ in range(20):
        await experiment.send(A)
        await experiment.send(B, behind_s=0.5)
        await experiment.silence(1.0)
    await experiment.end()
    assert experiment.counters["late"] == 1, "event time had gone on with the clock"
    assert judged(experiment.replay(tmp_path / "log.jsonl")[0]) == judged(experiment.counters)


async def test_events_of_a_topic_that_was_idle_are_late_in_the_replay_where_they_were_late(experiment, tmp_path):
    await begin(experiment)
    for _ in range(7):
        await experiment.silence(1.0)
        await experiment.send(A)
    await experiment.send(B, behind_s=0.5)
    await experiment.send(B, behind_s=0.0)
    for _ in range(7):
        await experiment.send(A)
        await experiment.silence(1.0)
    await experiment.end()
    assert experiment.counters["late"] == 1
    assert judged(experiment.replay(tmp_path / "log.jsonl")[0]) == judged(experiment.counters)


async def test_the_first_event_of_another_producer_is_late_in_the_replay_only_where_it_was(experiment, tmp_path):
    await experiment.worker.start()
    await experiment.send(A, origin="x")
    await experiment.send(B, origin="y")
    await experiment.send(B, origin="other")
    for _ in range(5):
        await experiment.silence(1.0)
        await experiment.send(A, origin="x")
        await experiment.send(B, origin="y")
    await experiment.end()
    assert judged(experiment.replay(tmp_path / "log.jsonl")[0]) == judged(experiment.counters)


async def test_a_decision_that_no_snapshot_holds_when_the_worker_dies_is_not_repeated(experiment, tmp_path):
    await begin(experiment)
    await experiment.silence(2.0)
    for part in experiment.worker.correlator._domains.values():
        part.schedule.due_s = 1e9
    await experiment.silence(10.0)
    await experiment.die()
    # Of the time that the first life took for passed.
    await experiment.send(A, behind_s=8.0)
    await experiment.send(B, behind_s=8.0)
    await experiment.end()
    assert experiment.counters["late"] == 0
    counters, _ = experiment.replay(tmp_path / "log.jsonl")
    assert judged(counters) == judged(experiment.counters)


async def test_a_worker_that_lost_the_partition_without_knowing_decides_nothing_for_the_replay(experiment, tmp_path):
    await begin(experiment)
    await experiment.silence(2.0)
    former = experiment.worker
    await experiment.die()
    await experiment.worker.tick()
    await former.after(10.0)
    assert noted(experiment.broker)[-1]["idle"] or noted(experiment.broker)[-1]["until_us"]
    await experiment.send(A, behind_s=1.0)
    await experiment.send(B, behind_s=1.0)
    await experiment.end()
    assert experiment.counters["late"] == 0
    assert judged(experiment.replay(tmp_path / "log.jsonl")[0]) == judged(experiment.counters)


STEPS = st.one_of(
    st.tuples(st.just("send"), st.sampled_from([A, B]), st.sampled_from([0.0, 0.3, 1.5, 4.0])),
    st.tuples(st.just("silence"), st.sampled_from([0.5, 1.5, 6.0]), st.sampled_from([(), (A,), (B,)])),
    st.tuples(st.just("die"), st.sampled_from([(A, B), (B, A)])),
)


@settings(max_examples=60)
@given(steps=st.lists(STEPS, max_size=25))
@example(steps=[("silence", 6.0, ()), ("die", (B, A)), ("send", B, 4.0), ("silence", 6.0, ()), ("send", A, 4.0)])
def test_a_replay_judges_every_event_as_the_worker_did(steps, tmp_path_factory):
    async def live() -> Experiment:
        experiment = Experiment()
        await begin(experiment)
        for step, *arguments in steps:
            if step == "silence":
                await experiment.silence(arguments[0], *arguments[1])
            else:
                await getattr(experiment, step)(*arguments if step == "send" else (arguments[0],))
        await experiment.end()
        return experiment

    experiment = asyncio.run(live())
    counters, ids = experiment.replay(tmp_path_factory.mktemp("log") / "log.jsonl")
    assert judged(counters) == judged(experiment.counters)
    if not any(step == "die" for step, *_ in steps):
        # The end of the log completes what the worker still waits for.
        assert ids >= set(experiment.broker.ids())

"""The correlate role without Kafka: a broker that keeps messages, and a worker over it, in virtual time."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import orjson
from faust.types import TP

from astrocyte.agents.domain import Domain, DomainGroup
from astrocyte.agents.engine.engine import Engine
from astrocyte.agents.loading import load_rules
from astrocyte.agents.rules.streams import Overload
from astrocyte.pipeline.kafka.record import ConsumedRecord
from astrocyte.pipeline.roles.correlation.correlate import Correlator
from astrocyte.pipeline.roles.correlation.overload import OverloadControl
from astrocyte.pipeline.state.lost import LostState
from astrocyte.pipeline.state.snapshots import SnapshotParts, parts_of
from astrocyte.pipeline.transport.commits import CommitTracker
from astrocyte.pipeline.transport.partition_ends import PartitionEnds
from astrocyte.pipeline.transport.producer_record import ProducerRecord
from astrocyte.schemas.frames import Frame, encode_frame
from astrocyte.schemas.json.reader import frame_to_records
from astrocyte.schemas.topics import ALERTS, CLOCK, MULTI_EVENTS, SAMPLING
from tests.support.waiting import loop_turns

START_US = 1_750_000_000_000_000
TOPICS = {"axon_1": "mono.axon_1", "axon_2": "mono.axon_2"}
RULES = load_rules("rules: [{name: both, within: 1s, all: [{as: a, stream: axon_1}, {as: b, stream: axon_2}]}]")


class Killed(Exception):
    """The process is gone."""


class Broker:
    """Keeps produced messages; confirmations can be delayed."""

    def __init__(self) -> None:
        self.records: dict[str, list[ProducerRecord]] = defaultdict(list)
        self.held: list[asyncio.Future] | None = None
        self.waits = lambda: None
        """Called before a snapshot is stored."""
        self.steps_left: int | None = None
        """Number of records, of which the last is written, after which the worker dies; None: it lives on."""

    async def send_batch(self, topic, _partition, records):
        self._step()
        self.records[topic] += records
        future = asyncio.get_running_loop().create_future()
        if self.held is None:
            future.set_result(SimpleNamespace(offset=len(self.records[topic]) - 1))
        else:
            self.held.append(future)
        return [future]

    async def deliver(self, records):
        self.waits()
        for record in records:
            self._step()
            self.records[record.topic].append(record)

    def _step(self) -> None:
        if self.steps_left is not None:
            self.steps_left -= 1
            if self.steps_left < 0:
                raise Killed

    async def decisions(self, offset: int) -> AsyncIterator[list[ConsumedRecord]]:
        """What workers decided about overload, from an offset on."""
        for number, each in enumerate(self.records[SAMPLING][offset:], offset):
            yield [ConsumedRecord(SAMPLING, 0, number, 0, each.key, each.value)]

    def messages(self, partition, number, data):
        return [
            ProducerRecord("state", value, key, partition)
            for key, value in parts_of(f"d{partition}", number % 2, number, data)
        ]

    async def load(self, partition):
        parts = SnapshotParts()
        parts.add_all((record.key, record.value) for record in self.records["state"])
        return parts.newest(f"d{partition}")

    async def outputs(self, partition: int, since_us: int) -> AsyncIterator[list[ConsumedRecord]]:
        """What the role reads of its own output."""
        for topic in (MULTI_EVENTS, ALERTS):
            for offset, each in enumerate(self.records[topic]):
                yield [ConsumedRecord(topic, partition, offset, 0, each.key, each.value, tuple(each.headers))]

    def ids(self) -> list[str]:
        return [orjson.loads(record.value)["event_id"] for record in self.records[MULTI_EVENTS]]


class Worker:
    """One run of a worker over a broker, in virtual time."""

    def __init__(
        self, broker: Broker, lost: LostState | None = None, policies: Mapping[str, Overload] | None = None
    ) -> None:
        self.now_s = 0.0
        self.clock_us = START_US
        self.tracker: CommitTracker = CommitTracker()
        self.ends = PartitionEnds(monotonic=lambda: self.now_s)
        self.fetched = dict.fromkeys(TOPICS.values(), 0)
        """Where the next fetch of each topic begins."""
        self.log_ends = dict.fromkeys(TOPICS.values(), 0)
        self.correlator = Correlator(
            self._domain, broker, broker.send_batch, broker.deliver, self.at_end, partitions=1,
            snapshot_interval_us=1_000_000, idle_timeout_us=5_000_000, producer_timeout_us=60_000_000,
            monotonic=lambda: self.now_s, now_us=lambda: self.clock_us, lost=lost, outputs=broker.outputs,
            overload=OverloadControl(
                policies or {}, broker.send_batch, broker.decisions, role="correlate", now_us=lambda: self.clock_us
            ),
        )  # fmt: skip

    @staticmethod
    def _domain(partition: int) -> Domain:
        return Domain(partition, [DomainGroup("key", Engine(RULES), TOPICS)], topics=TOPICS.values())

    async def start(self, done: int | None = None) -> dict[TP, int]:
        committed = {TP(topic, 0): done for topic in TOPICS.values()}
        starts = await self.correlator.assigned(committed)
        for place in committed:
            self.tracker.assign(place, starts.get(place, 0), None)
            self.fetched[place.topic] = starts.get(place, 0)
        return starts

    def at_end(self, place):
        """What the transport's consumer says."""
        end = self.ends.at_end(TP(*place))
        if end is None or end.offset != self.tracker.position(TP(*place)):
            return None
        return replace(end, delivered=self.tracker.delivered_to(TP(*place)))

    def deliver(self, topic: str, offset: int, value: bytes, key: bytes | None = None, stamp_ms: int = 0):
        """A chunk of one record was fetched and waits in the agent's queue."""
        record = SimpleNamespace(offset=offset, timestamp=stamp_ms, key=key, value=value, headers=())
        self.log_ends[topic] = max(self.log_ends[topic], offset + 1)
        self.fetched[topic] = offset + 1
        self.ends.answered(TP(topic, 0), offset, offset + 1, records=True, sent_s=self.now_s)
        chunk = SimpleNamespace(topic=topic, partition=0, records=[record], next_offset=offset + 1)
        return chunk, self.tracker.delivered(TP(topic, 0), offset, offset + 1)

    async def feed(self, topic: str, offset: int, value: bytes, key: bytes | None = None, stamp_ms: int = 0) -> None:
        await self.correlator.handle(*self.deliver(topic, offset, value, key, stamp_ms))

    def answer(self, *topics: str) -> None:
        """The broker answers a fetch that finds nothing to return."""
        for topic in topics or TOPICS.values():
            self.ends.answered(
                TP(topic, 0), self.fetched[topic], self.log_ends[topic], records=False, sent_s=self.now_s
            )

    async def tick(self) -> None:
        await self.correlator.tick()
        await loop_turns(5)

    async def after(self, seconds: float, *topics: str) -> None:
        """Time passes in which fetches are answered, of all topics or of these."""
        end_s = self.now_s + seconds
        while self.now_s < end_s:
            self.now_s = min(end_s, self.now_s + 0.1)
            self.answer(*topics)
            await self.tick()

    async def stands_still(self, seconds: float) -> None:
        """Time passes in which nothing runs here, and then the timer is the first to run."""
        self.now_s += seconds
        await self.tick()

    def committable(self) -> dict[str, int | None]:
        return {place.topic: self.tracker.committable(place) for place in self.tracker.partitions}


def frame(stream: str, at_s: float, sequence: int, **meta) -> bytes:
    columns = {"timestamp": np.array([START_US + int(at_s * 1e6)]), "key": ["k"], "value": [1.0]}
    meta = {"watermark_us": START_US + int(at_s * 1e6), "peers": tuple(TOPICS), "origin": "run"} | meta
    return encode_frame(Frame.from_columns(stream, "run", columns, first_seq=sequence, **meta))


def record(stream: str, at_s: float, sequence: int = 0) -> bytes:
    columns = {"timestamp": np.array([START_US + int(at_s * 1e6)]), "key": ["k"], "value": [1.0]}
    return frame_to_records(Frame.from_columns(stream, "json", columns, first_seq=sequence))[0].value


def noted(broker: Broker) -> list[dict]:
    """What was decided about idleness."""
    return [orjson.loads(item.value) for item in broker.records[CLOCK]]

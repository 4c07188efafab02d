"""The simulated pipeline: broker, producer and roles as nodes, and what came of the events.

Each process is a node of its own that a supervisor starts again. The roles are the Faust apps that ``astrocyte worker``
runs, the broker is the embedded one, the producer is `ConfirmedProducer`. After the faults `find_outcome` compares
topics and stores with a run over the recorded log that nothing disturbed, as the fault tests do.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import mode.utils.loops
import orjson
from aiokafka.producer.message_accumulator import BatchBuilder
from aiokafka.record.memory_records import MemoryRecords

from astrocyte.pipeline.broker import EmbeddedBroker
from astrocyte.pipeline.broker.server import broker as broker_module
from astrocyte.pipeline.broker.storage.lock import FolderLock
from astrocyte.pipeline.kafka.client import until_available
from astrocyte.pipeline.roles import build
from astrocyte.pipeline.roles.refusals import STOPPED_STATUS
from astrocyte.pipeline.roles.worker import REFUSED_STATUS, RESTART_STATUS
from astrocyte.pipeline.settings import Settings, load_settings
from astrocyte.pipeline.topology.topics import make_topics, mono_topics
from astrocyte.pipeline.transport import consumer as consumer_module
from astrocyte.pipeline.transport.producer import ConfirmedProducer
from astrocyte.pipeline.transport.producer_record import producer_settings
from astrocyte.schemas.topics import STATS
from tests.support.disk import Disk
from tests.support.live import OUTPUTS, PARTITIONS, STORED, rules_text
from tests.support.outcome import Outcome, find_outcome
from tests.support.sending import FORMS, Sending
from tests.support.simulation.patches import GreenletLocal
from tests.support.simulation.world import Node, World

__all__ = ["BROKER", "PRODUCER", "TEMPLATE", "Case", "Simulation", "adapt_product"]

logger = logging.getLogger(__name__)

BROKER, PRODUCER, ORACLE = "broker", "producer", "oracle"
PORT = 9092
KILLED = -9
SILENT_S = 3.0
"""A producer that waited for longer may rightly be late: sources that are silent for five seconds count as idle, and a
broker without power does not reset the connection of a producer that waits for its answer."""
TICK_S = 0.25
TEMPLATE: list[bytes] = []
"""A database with the tables of this version, once there is one."""
FEWEST = 0
"""Matches of a run that may prove something; a producer without a broker may have sent few events."""
LIMIT_S = 180.0
"""After the last fault everything must be done within this simulated time."""
_COUNTERS = ("received", "processed", "late", "dead", "duplicate", "sampled", "skipped", "matches")


class _NoCollector:
    """``gc`` for a worker: the garbage of all nodes is one, and the moments of its collection are not those of one."""

    @staticmethod
    def _nothing(*_arguments: object) -> None:
        pass

    collect = freeze = unfreeze = enable = disable = _nothing


class _Lock(FolderLock):
    """The kernel gives it back when the process ends."""

    def __init__(self, folder: Path, node: Node) -> None:
        super().__init__(folder)
        node.on_death.append(self.release)

    def release(self) -> None:
        """Once."""
        if self._fd >= 0:
            super().release()
            self._fd = -1


class _ForGood:
    """A patch that is not undone."""

    def setattr(self, target: object, name: str, value: object) -> None:
        setattr(target, name, value)


def adapt_product(world: World) -> None:
    """What of the product concerns the process as a whole, of which there are several here. Not undone."""
    mode.utils.loops._current_loop = GreenletLocal()
    consumer_module.gc = _NoCollector()
    build.configure_logging = lambda *_arguments, **_options: None
    build.warm = lambda _ruleset: 0  # the kernels of this process are compiled

    # aiokafka's compiled builder of batches reads the system's clock itself.
    append = BatchBuilder.append

    def stamped(self: Any, *, timestamp: int | None, **parts: Any) -> Any:
        return append(self, timestamp=time.time_ns() // 1_000_000 if timestamp is None else timestamp, **parts)

    BatchBuilder.append = stamped

    def lock(folder: Path) -> _Lock:
        assert world.current is not None
        return _Lock(folder, world.current.node)

    broker_module.FolderLock = lock


@dataclass(frozen=True, slots=True)
class Case:
    """What one seed runs, beside its faults."""

    form: str = "json"
    by: str = "key"
    """The field by which the rules correlate; streams are repartitioned by any but their key."""
    seconds: float = 8.0
    """Time in which the producer sends."""
    settings: Mapping[str, str] = field(default_factory=dict)
    sync: str = "always"
    """When the broker syncs its records."""

    @staticmethod
    def drawn(dice: random.Random) -> Case:
        """A case."""
        return Case(
            dice.choice(FORMS),
            dice.choice(["key", "key", "type"]),
            settings={
                "snapshot_interval": dice.choice(["100ms", "500ms", "2s"]),
                "session_timeout": dice.choice(["2s", "6s"]),
            },
        )


@dataclass(slots=True)
class _Worker:
    """What `find_outcome` asks of a worker."""

    role: str
    ended: int | None = None
    said: str = ""

    def show_waits(self) -> None:
        """Nothing: all that it waits for is in the trace."""


class Simulation:
    """One pipeline in one world. ``begin`` starts it, and ``done`` says whether its outcome is known."""

    def __init__(self, world: World, folder: Path, case: Case) -> None:
        self.world = world
        self.folder = folder
        self.case = case
        self.problems: list[str] = []
        self.outcome: Outcome | None = None
        self.done = False
        self.nodes: dict[str, Node] = {}
        self.restarts: dict[str, int] = {}
        self.disk = Disk(self._wait_for_disk)
        self.disk.install(_ForGood())
        self.slow_disk_s = 0.0
        """Additional time that a sync takes, at most."""
        self.broker: EmbeddedBroker | None = None
        self.faults_over = False
        """No fault begins any more: what came of the events is being looked at."""
        self.faults_end_s = 0.0
        """When the last fault is over, in seconds since the start."""
        self._data = folder / "broker"
        self._dice = world.dice("pipeline")
        self._stops: dict[str, Callable[[], object]] = {}
        self._kept: list[Any] = []
        self._silent_s = 0.0
        """Longest time in which the producer waited for the broker."""
        self._records: dict[str, tuple[list[Any], list[Any]]] = {}
        """Records of each topic, with the ends of its logs then."""
        self._leaving: set[str] = set()
        self._away_s: dict[str, float] = {}
        """For how long a killed process is gone, by its name."""
        rules = folder / "rules.yaml"
        rules.write_text(rules_text(case.by, STORED, ()))
        self.settings: Settings = load_settings(
            broker=f"127.0.0.1:{PORT}", group="sim", rules=(rules,), partitions=PARTITIONS, streams=STORED,
            roles=("correlate", *(() if case.by == "key" else ("repartition",)), "sql"),
            sql_url=f"sqlite:///{folder}/out.db", **case.settings,
        )  # fmt: skip
        if TEMPLATE:
            # Migrations take a tenth of a second each time, and have tests of their own.
            for name in ("out.db", "expected.db"):
                (folder / name).write_bytes(TEMPLATE[0])
        self.sending = Sending(self.settings, case.form, "type", world.seed)

    # -- processes

    def begin(self) -> None:
        """Start everything."""
        self.start(BROKER)
        self.start(PRODUCER)
        for role in self.settings.roles:
            self.start(role)
        self.spawn(ORACLE, self._look)

    def spawn(self, name: str, run: Callable[[], object]) -> Node:
        """Start a process that runs a function, and ends with it."""
        node = Node(self.world, name)
        self.nodes[name] = node

        def main() -> None:
            try:
                status = run()
            except Exception as error:
                current = self.world.current
                assert current is not None
                self.world.report(current, error)
                status = 1
            node.end(status if isinstance(status, int) else 0)

        node.on_death.append(lambda: self.world.network.node_ended(node))
        node.spawn("main", main)
        return node

    def start(self, name: str) -> None:
        """Start one of the processes, now or again; it is started again when it ends."""
        kind = name.partition("-")[0]
        run = {BROKER: self._serve, PRODUCER: self._produce}.get(kind, lambda: self._work(name, kind))
        self.world.network.node_began(name)
        self.restarts[name] = self.restarts.get(name, -1) + 1
        node = self.spawn(name, run)
        node.on_death.append(lambda: self._ended(node))

    def _ended(self, node: Node) -> None:
        self._stops.pop(node.name, None)
        if node.name == BROKER:
            self.broker = None
        if self.nodes.get(node.name) is not node or self.done or node.name == PRODUCER:
            return
        if node.status not in (0, KILLED, RESTART_STATUS):
            self.problems.append(f"{node.name} has ended by itself after {self.world.seconds:.3f} s: {node.status}")
        if node.status in (STOPPED_STATUS, REFUSED_STATUS):
            self.done = True
        elif node.name in self._leaving:
            del self.nodes[node.name]
        else:
            self.world.call_later(self._away_s.pop(node.name, 0.2), lambda: self.start(node.name))

    def kill(self, name: str, away_s: float) -> None:
        """kill -9; it is started again after some time."""
        node = self.nodes.get(name)
        if node is not None and node.alive:
            self._away_s[name] = away_s
            node.end(KILLED)

    def terminate(self, name: str) -> None:
        """SIGTERM."""
        stop = self._stops.get(name)
        if stop is not None:
            stop()

    def leave(self, name: str, *, kill: bool) -> None:
        """A process ends, and is not started again."""
        self._leaving.add(name)
        if kill:
            self.kill(name, 0)
        elif name in self._stops:
            self.terminate(name)
        else:
            self.kill(name, 0)

    def cut_power(self, away_s: float) -> None:
        """The broker's machine stops; what its disk has not taken is gone."""
        node = self.nodes[BROKER]
        if not node.alive:
            return
        image = self.folder / f"broker{len(list(self.folder.glob('broker*')))}"
        self.disk.after_power_cut(self._data, image, self._dice)
        self._data = image
        node.on_death.insert(0, lambda: self.world.network.node_ended(node, power=True))
        self.kill(BROKER, away_s)

    def _wait_for_disk(self) -> None:
        if self.slow_disk_s and self.world.current is not None:
            self.world.sleep(self._dice.uniform(0, self.slow_disk_s))

    # -- what they run

    def _serve(self) -> None:
        async def serve() -> None:
            broker = EmbeddedBroker(
                self._data, port=PORT, sync=self.case.sync, auto_create_topics=False, initial_rebalance_delay_s=0.05
            )
            async with broker:
                self.broker = broker
                await asyncio.Event().wait()

        asyncio.run(serve())

    def _work(self, name: str, role: str) -> int:
        settings = self.settings.model_copy(update={"roles": (role,)})
        loop = asyncio.new_event_loop()
        asyncio.set_event_loop(loop)
        app = build.build_app(settings)
        self._kept.append(app)

        async def work() -> int:
            stop = asyncio.Event()
            self._stops[name] = lambda: loop.call_soon_threadsafe(stop.set)
            asked = asyncio.ensure_future(stop.wait())
            try:
                await app.start()
                ended = asyncio.ensure_future(app.wait_until_stopped())
                await asyncio.wait([asked, ended], return_when=asyncio.FIRST_COMPLETED)
            finally:
                await app.stop()
            return 1 if app.crashed else 0

        return loop.run_until_complete(work())

    def _produce(self) -> None:
        async def produce() -> None:
            await until_available(lambda: make_topics(self.settings, [*mono_topics(STORED), *OUTPUTS]))
            producer = ConfirmedProducer(producer_settings(self.settings.broker))
            await producer.start()
            loop = asyncio.get_running_loop()
            end_s = loop.time() + self.case.seconds
            while loop.time() < end_s:
                began_s = loop.time()
                await producer.deliver(self.sending.messages(True))
                self._silent_s = max(self._silent_s, loop.time() - began_s)
                await asyncio.sleep(TICK_S)
            await producer.stop(60)

        asyncio.run(produce())

    def _look(self) -> None:
        world = self.world
        while self.nodes[PRODUCER].alive or world.seconds < self.faults_end_s + 0.5:
            world.sleep(0.2)
        self.faults_over = True
        try:
            self.outcome = find_outcome(
                self,
                world.now_ns / 1e9,
                LIMIT_S,
                may_be_late=self._silent_s > SILENT_S,
                repeatable=self.case.by == "key",
                fewest=FEWEST,
            )
            self.outcome.check(repeats=True)
        except AssertionError as error:
            self.problems.append(str(error))
        finally:
            self.done = True

    # -- what `find_outcome` asks

    influx = None
    postgres = None
    memory = SimpleNamespace(peak_bytes={})

    @property
    def roles(self) -> tuple[str, ...]:
        """Roles that run."""
        return self.settings.roles

    @property
    def workers(self) -> list[_Worker]:
        """Workers of the roles; a supervisor starts those again that end."""
        return [_Worker(role) for role in self.roles]

    def records(self, topic: str) -> list[Any]:
        """All records of a topic, as the broker has them."""
        ends = [(log, log.stable_offset) for log in self._logs(topic)]
        known, found = self._records.get(topic, ([], []))
        if known != ends:
            found = [record for log, _ in ends for record in _records_of(log)]
            self._records[topic] = ends, found
        return found

    def counters(self) -> dict[str, int]:
        """The newest counters of the domains, summed."""
        newest: dict[bytes, dict[str, Any]] = {}
        for each in self.records(STATS):
            if each.key.startswith(b"correlate/"):
                newest[each.key] = orjson.loads(each.value)
        return {name: sum(stats[name] for stats in newest.values()) for name in _COUNTERS}

    def lag(self, role: str) -> int | None:
        """Messages that the group of a role has not committed; None before its first commit."""
        broker = self.broker
        if broker is None:
            return None
        committed = broker._catalogue.committed_offsets().get(f"{self.settings.group}-{role}")
        if committed is None:
            return None
        starts = {place: entry.offset for place, entry in committed.items()}
        topics = {topic for topic, _ in starts} | set(mono_topics(STORED))
        return sum(
            max(0, log.end_offset - starts.get((topic, partition), 0))
            for topic in topics
            for partition, log in enumerate(self._logs(topic))
        )

    def _logs(self, topic: str) -> list[Any]:
        found = self.broker.topics.get(topic) if self.broker is not None else None
        return [] if found is None else list(found.logs)


def _records_of(log: Any) -> Iterator[Any]:
    at = log.start_offset
    while at < log.stable_offset:
        data = bytes(log.read(at, 1 << 30))
        if not data:
            return
        records = MemoryRecords(data)
        while records.has_next():
            batch = records.next_batch()
            for record in batch:
                if record.offset >= at:
                    yield record
            at = batch.next_offset

"""The Faust app of a role: it waits for the broker, creates its topics, and closes what the role opened."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable
from collections.abc import Set as AbstractSet
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any, Final

import faust
import orjson
from faust.types import TP

from astrocyte.agents.ingest.decode import decode_chunk
from astrocyte.agents.rules.model import RuleSet
from astrocyte.pipeline.kafka.client import BrokerUnavailable, topic_partitions, until_available
from astrocyte.pipeline.logging import logging_config
from astrocyte.pipeline.metrics import DecoderMetrics, ReadingMetrics, queued_chunks
from astrocyte.pipeline.settings import Settings
from astrocyte.pipeline.state.lost import report_reset
from astrocyte.pipeline.stopping import end_after
from astrocyte.pipeline.telemetry.start import Delivers
from astrocyte.pipeline.topology.group_rules import GroupRules, digest_of
from astrocyte.pipeline.topology.rule_files import DEFAULT_RULES, read_rule_files
from astrocyte.pipeline.topology.rule_updates import LiveRules, follow_rules, load_live_rules
from astrocyte.pipeline.topology.topics import KnownTopics, make_topics
from astrocyte.pipeline.transport.balance import Balance
from astrocyte.pipeline.transport.chunk import Chunk
from astrocyte.pipeline.transport.options import OnAssigned, OnReset, OnRevoked, options_of
from astrocyte.pipeline.transport.producer_record import ProducerRecord
from astrocyte.pipeline.transport.transport import app_settings, configure
from astrocyte.pipeline.watch.progress import Observation, ProgressWatch
from astrocyte.pipeline.watch.role import RoleWatch
from astrocyte.schemas.errors import AstrocyteError, InvalidRule, InvalidSettings, PluginError
from astrocyte.schemas.frames import Frame
from astrocyte.schemas.topics import TopicPartition

__all__ = ["WorkerApp", "WorkerStalled", "follow", "join_group", "make_app", "repeat", "rules_now"]

logger = logging.getLogger(__name__)

_CLOSE_S: Final = 5.0
"""Time for what a role opened to be closed, well below the grace time of whoever stops the worker."""


class WorkerApp(faust.App):  # type: ignore[misc]
    """A Faust app without tables: it creates its topics first, and no folders. A role attaches its agents to it.

    An agent's events are chunks of one partition (`Chunk`). It acknowledges a chunk when it is done with it::

        @app.agent(app.topic("alerts"))
        async def page(stream):
            async for event in stream.noack().events():
                for record in event.value.records:
                    await app.publish("pages", orjson.loads(record.value))
                event.ack()
    """

    role: str = ""
    watch: RoleWatch
    prepare: Callable[[], Awaitable[None]] | None = None
    close_down: Callable[[], Awaitable[None]] | None = None
    telemetry: Delivers | None = None

    def declare(self, *topics: str) -> None:
        """Create these topics before the app starts, if missing, with the partition count of the settings."""
        self._declared = [*getattr(self, "_declared", ()), *topics]

    async def publish(self, topic: str, body: Any, *, key: str | None = None) -> None:
        """Send one JSON record; returns when the broker has confirmed it, so that the input may be acknowledged."""
        value = orjson.dumps(body, option=orjson.OPT_SERIALIZE_NUMPY)
        record = ProducerRecord(topic, value, None if key is None else key.encode(), None)
        await self.producer.send_and_confirm([record])

    def frames(self, chunk: Chunk) -> list[Frame]:
        """The events of a chunk as frames, whatever their wire form.

        Records that cannot be read are left out: the correlate role writes them to the dead letters.
        """
        found, _ = decode_chunk(chunk.topic, chunk.partition, chunk.records)
        return [item.frame for item in found]

    async def on_first_start(self) -> None:
        """Wait for the broker, create topics, then start as usual.

        What cannot start ends the process with one line, as in `pipeline.app`: Faust would print a long traceback.
        """
        declared = getattr(self, "_declared", None)
        self.watch.begin(asyncio.get_running_loop())
        try:
            if declared:
                await _until_reached(self.watch, lambda: make_topics(self.worker_settings, declared))
            if self.prepare is not None:
                await _until_reached(self.watch, self.prepare)
        except AstrocyteError as error:
            os.write(2, f"astrocyte: {error}\n".encode())  # Faust turns sys.stderr into log lines
            os._exit(2 if isinstance(error, InvalidRule | InvalidSettings | PluginError) else 1)
        await super().on_first_start()

    async def on_shutdown(self) -> None:
        """Close what the role opened."""
        await super().on_shutdown()
        if self.telemetry is not None:
            await asyncio.to_thread(self.telemetry.stop)
        if self.close_down is not None:
            notice = (
                f"astrocyte: role {self.role!r}: close() has not returned, or has left a thread, {_CLOSE_S:g} s after "
                "the end of the work; the process ends all the same, with everything written confirmed"
            )
            end_after(_CLOSE_S, notice, 1 if self.crashed else 0)
            await self.close_down()

    def _create_directories(self) -> None:
        """Do nothing: there are no tables whose files would need a folder."""


class WorkerStalled(AstrocyteError):
    """Records wait and the role makes no progress; the process ends, to be started again."""


async def _until_reached(watch: RoleWatch, step: Callable[[], Awaitable[Any]]) -> Any:
    """Result of ``step``, retried while the broker is away, of which the watch learns."""

    async def noted() -> Any:
        try:
            result = await step()
        except BrokerUnavailable as error:
            watch.broker_away(str(error))
            raise
        watch.broker_away("")
        return result

    return await until_available(noted)


def _observed(app: WorkerApp) -> Observation | None:
    """What the watch needs to know of the app; None before it reads."""
    # Not app.consumer, which would make one.
    consumer, producer = app._consumer, app._producer
    if consumer is None or not consumer.started:
        return None
    confirmed = getattr(producer, "confirmed", None)
    positions = {TopicPartition(*tp): position for tp, position in consumer.positions().items()}
    unwritten = confirmed.delay if confirmed is not None else ""
    return Observation(
        positions, consumer.connected, bool(app.rebalancing), unwritten=unwritten, queued=queued_chunks(app)
    )


def _crash(app: WorkerApp, line: str) -> None:
    app.stalled = asyncio.ensure_future(app.consumer.crash(WorkerStalled(line)))


async def report_partitions(app: WorkerApp, assigned: AbstractSet[TP], **_signal: Any) -> None:
    """Log what the role reads from now on."""
    app.watch.assigned = True
    numbers: dict[str, list[int]] = {}
    for topic, partition in sorted(assigned):
        numbers.setdefault(topic, []).append(partition)
    if not numbers:
        logger.info("role %s is ready and reads nothing: other workers of its group have all partitions", app.role)
        return
    places = "; ".join(f"{topic} {','.join(map(str, parts))}" for topic, parts in numbers.items())
    logger.info("role %s is ready and reads (topic and partitions): %s", app.role, places)


class PlainWorker(faust.Worker):  # type: ignore[misc]
    """Faust's worker without its spinner, which would suppress every log line below a warning."""

    def _setup_spinner_handler(self, logger: logging.Logger, level: int) -> None:  # noqa: ARG002  Faust's signature
        self.spinner = None


def make_app(settings: Settings, role: str) -> WorkerApp:
    """The app of a role, with nothing attached to it yet."""
    app = WorkerApp(
        f"{settings.group}-{role}",
        **app_settings(
            settings.broker,
            consumer_group_instance_id=f"{settings.instance}-{role}" if settings.instance else None,
            broker_session_timeout=settings.session_timeout / 1e6,
            broker_heartbeat_interval=settings.session_timeout / 1e6 / 3,
            logging_config=logging_config(settings.log_level, json=settings.log_json),
            topic_partitions=settings.partitions,
            topic_replication_factor=settings.replication,
            Worker=PlainWorker,
        ),
    )
    app.worker_settings = settings
    app.role = role
    app.on_partitions_assigned.connect(report_partitions)
    progress = ProgressWatch(settings.liveness_timeout / 1e6, settings.stall_timeout / 1e6)
    app.watch = watch = RoleWatch(role, progress)
    watch.observe = lambda: _observed(app)
    watch.should_stop = lambda: bool(app.should_stop)
    watch.crash = lambda line: _crash(app, line)
    watch.collectors += [ReadingMetrics(app), DecoderMetrics()]
    return app


def repeat(app: Any, step: Callable[[], Awaitable[None]], interval_s: float) -> None:
    """Call ``step`` repeatedly while the app runs, ``interval_s`` after the previous call has ended."""

    async def loop() -> None:
        while not app.should_stop:
            await step()
            await asyncio.sleep(interval_s)

    loop.__name__ = getattr(step, "__name__", "step")
    app.task(loop)


def rules_now(settings: Settings, watch: RoleWatch) -> tuple[LiveRules, int, KnownTopics]:
    """Rules of the files and of the topic, the offset after these, and the topics that exist; waits for the broker."""
    base = read_rule_files(settings.rules or DEFAULT_RULES)

    async def ask() -> tuple[LiveRules, int, KnownTopics]:
        known = KnownTopics(await topic_partitions(settings.broker), settings.partitions)
        live = LiveRules(base, accept=known.checked_plan)
        return live, await load_live_rules(settings.broker, live), known

    # On a thread with an event loop of its own: Faust's does not run yet.
    with ThreadPoolExecutor(1) as pool:
        found: tuple[LiveRules, int, KnownTopics] = pool.submit(asyncio.run, _until_reached(watch, ask)).result()
    return found


def join_group(
    app: WorkerApp,
    live: LiveRules,
    *,
    on_assigned: OnAssigned | None = None,
    on_revoked: OnRevoked | None = None,
    on_reset: OnReset = report_reset,
    balance: Balance | None = None,
) -> None:
    """Say what follows assignments in the group of the app, whose members learn by which rule files each works.

    ``balance``: by which partitions are divided over the members.
    """
    options = replace(
        options_of(app),
        on_assigned=on_assigned,
        on_revoked=on_revoked,
        on_reset=on_reset,
        # Of the files: rules of the topic are those of all workers.
        note=digest_of(live.base, app.worker_settings),
        on_notes=GroupRules().note,
        balance=balance,
    )
    configure(app, options)


def follow(app: WorkerApp, live: LiveRules, start: int, changed: Callable[[RuleSet], Awaitable[None]]) -> None:
    """Call ``changed`` with the rules in force after each message of the topic, from offset ``start`` on."""

    @app.task
    async def rules_topic() -> None:
        async for change in follow_rules(app.worker_settings.broker, live, start):
            if change.refused is None:
                await changed(change.ruleset)

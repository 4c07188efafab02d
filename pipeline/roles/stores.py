"""The roles that fill stores: every registered sink is one, an app with its own consumer group."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable
from typing import Any, Final

import mode

from astrocyte.agents.controllers.base import CONTROLLERS
from astrocyte.agents.sinks.base import OnRetry, RetryNotice
from astrocyte.agents.sinks.registry import SINKS, SinkContext, SinkType
from astrocyte.agents.sinks.retry import RetryPolicy
from astrocyte.pipeline.metrics import StoreMetrics, serve_metrics
from astrocyte.pipeline.roles.sink import RECORD_TOPICS, StoreRunner
from astrocyte.pipeline.roles.worker_app import repeat
from astrocyte.pipeline.settings import Settings
from astrocyte.pipeline.topology.topics import make_topics
from astrocyte.pipeline.transport.transport import TransportOptions, ack_handle, configure
from astrocyte.schemas.catalog import CATALOG
from astrocyte.schemas.errors import AstrocyteError, InvalidSettings
from astrocyte.schemas.topics import CONTROL_PREFIX, RULES, control_topic, metrics_topic, mono_topic

__all__ = ["build_store"]

logger = logging.getLogger(__name__)

_TICK_S: Final = 0.05
_FINISH_S: Final = 10.0


def build_store(app: Any, settings: Settings, role: str) -> None:
    """Wire ``app`` so that it writes what the sink of its role's name stores."""
    retry = RetryPolicy(role, on_retry=_listener(app))
    kind = SINKS.get(role)
    context = SinkContext(role, settings.of(role), retry, _now_us, settings.common())
    sink = kind.definition(context)
    topics = _topics(settings, kind)
    runner = StoreRunner(
        sink,
        lambda records: app.producer.send_and_confirm(records),  # noqa: PLW0108  the producer comes with the start
        partitions=settings.partitions,
        stage=role,
        most_rows=kind.batch_rows,
    )
    app.store_runner = runner
    serve_metrics(settings, role, StoreMetrics(role, runner))

    async def prepare() -> None:
        single = [topic for topic in topics if topic == RULES or topic.startswith(CONTROL_PREFIX)]
        await make_topics(settings, [topic for topic in topics if topic not in single], single=single)
        await sink.open()

    app.prepare = prepare

    async def revoked(_partitions: set[Any]) -> None:
        try:
            await asyncio.wait_for(runner.finish(), _FINISH_S)
        except TimeoutError:
            logger.warning("%s: the store did not take the last batch in time; it is read again", role)

    async def close() -> None:
        retry.stop.set()
        await sink.close()

    app.close_down = close

    configure(app, TransportOptions(on_revoked=revoked, liveness_timeout_s=settings.liveness_timeout / 1e6))

    async def store(stream: Any) -> None:
        async for event in stream.noack().events():
            chunk = event.value
            await runner.handle(chunk, ack_handle(event), chunk.records)

    app.agent(app.topic(*topics), name=role, supervisor_strategy=mode.CrashingSupervisor)(store)
    repeat(app, runner.tick, _TICK_S)
    if kind.upkeep is not None:
        upkeep = kind.upkeep
        repeat(app, lambda: _maintain(upkeep, context), settings.retention_interval / 1e6)


async def _maintain(upkeep: Callable[[SinkContext], object], context: SinkContext) -> None:
    """What the store does besides taking batches, in a thread."""
    try:
        done = await asyncio.to_thread(upkeep, context)
    except AstrocyteError as error:
        logger.warning("%s: upkeep was put off: %s", context.name, error)
    else:
        if done:
            logger.info("%s: retention removed %s rows", context.name, done)


def _topics(settings: Settings, kind: SinkType) -> list[str]:
    """Topics that a kind of sink reads. Raises InvalidSettings where there are none."""
    if kind.streams is None:
        streams: Iterable[str] = settings.streams or tuple(event_type.stream for event_type in CATALOG)
    else:
        streams = kind.streams() if callable(kind.streams) else kind.streams
    topics = [mono_topic(stream) for stream in streams]
    if kind.windows:
        from astrocyte.pipeline.topology.rule_files import read_rule_files

        windows = read_rule_files(settings.rules).windows if settings.rules else ()
        topics += [metrics_topic(window.name) for window in windows]
    topics += [topic for topic, record in RECORD_TOPICS.items() if kind.records is None or record in kind.records]
    if kind.audited:
        topics += [RULES, *(control_topic(name) for name in CONTROLLERS.names())]
    if not topics:
        raise InvalidSettings("the sink reads no streams and no records; give register_sink streams=... or records=...")
    return topics


def _listener(app: Any) -> OnRetry:
    """What hears of a sink's notice: the log, and the liveness check, for which waiting for a store is no hang."""

    def hear(notice: RetryNotice) -> None:
        _tell(notice)
        # A store that is away before the role has a consumer is waited for by `prepare`, which nothing watches.
        consumer = getattr(app, "_consumer", None)
        if consumer is not None:
            consumer.beat()

    return hear


def _tell(notice: RetryNotice) -> None:
    if notice.attempt == 0:
        logger.warning("%s: %s", notice.sink, notice.reason)
    elif notice.attempt in (1, 10) or notice.attempt % 100 == 0:
        logger.warning("%s: attempt %s failed: %s; trying again", notice.sink, notice.attempt, notice.reason)


def _now_us() -> int:
    return time.time_ns() // 1000

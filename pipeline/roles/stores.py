"""The roles that fill stores: ``sql``, ``influx`` and ``audit``, each an app with its own consumer group."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Any, Final

import mode

from astrocyte.agents.sinks.base import OnTrouble, Sink, Trouble
from astrocyte.agents.sinks.retry import Patience
from astrocyte.pipeline.metrics import StoreMetrics, serve_metrics
from astrocyte.pipeline.roles.control import CONTROLLERS
from astrocyte.pipeline.roles.sink import RECORD_TOPICS, StoreRunner
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
    """Wire ``app`` so that it writes what its role stores."""
    from astrocyte.pipeline.roles.build import repeat

    patience = Patience(role, on_trouble=_listener(app))
    sink = _make_sink(settings, role, patience)
    topics = _topics(settings, role)
    runner = StoreRunner(
        sink,
        lambda records: app.producer.send_and_confirm(records),  # noqa: PLW0108  the producer comes with the start
        partitions=settings.partitions,
        # SQL indexes are written page by page: larger batches touch fewer of them twice.
        most_rows=100_000 if role == "sql" else 20_000,
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
        patience.stop.set()
        await sink.close()

    app.close_down = close

    configure(app, TransportOptions(on_revoked=revoked, liveness_timeout_s=settings.liveness_timeout / 1e6))

    async def store(stream: Any) -> None:
        async for event in stream.noack().events():
            chunk = event.value
            await runner.handle(chunk, ack_handle(event), chunk.records)

    app.agent(app.topic(*topics), name=role, supervisor_strategy=mode.CrashingSupervisor)(store)
    repeat(app, runner.tick, _TICK_S)
    if role == "sql":
        repeat(app, lambda: _retain(settings), settings.retention_interval / 1e6)


async def _retain(settings: Settings) -> None:
    """Remove what is too old, in small transactions between the sink's own."""
    from astrocyte.agents.stores.retention import apply_retention

    def remove() -> int:
        return sum(step.rows for step in apply_retention(settings.sql_url.get_secret_value(), now_us=_now_us()))

    try:
        removed = await asyncio.to_thread(remove)
    except AstrocyteError as error:
        logger.warning("retention was put off: %s", error)
    else:
        if removed:
            logger.info("retention removed %s rows", removed)


def _streams(settings: Settings) -> tuple[str, ...]:
    return settings.streams or tuple(event_type.stream for event_type in CATALOG)


def _topics(settings: Settings, role: str) -> list[str]:
    if role == "audit":
        dna = [event_type.stream for event_type in CATALOG if event_type.envelope == "charter"]
        return [*(mono_topic(stream) for stream in dna), RULES, *(control_topic(name) for name in CONTROLLERS)]
    topics = [mono_topic(stream) for stream in _streams(settings)]
    if role == "influx":
        from astrocyte.pipeline.topology.rule_files import read_rule_files

        windows = read_rule_files(settings.rules).windows if settings.rules else ()
        topics += [metrics_topic(window.name) for window in windows]
    return [*topics, *RECORD_TOPICS]


def _listener(app: Any) -> OnTrouble:
    """What hears of a sink's trouble: the log, and the liveness check, for which waiting for a store is no hang."""

    def hear(trouble: Trouble) -> None:
        _tell(trouble)
        # A store that is away before the role has a consumer is waited for by `prepare`, which nothing watches.
        consumer = getattr(app, "_consumer", None)
        if consumer is not None:
            consumer.beat()

    return hear


def _tell(trouble: Trouble) -> None:
    if trouble.attempt == 0:
        logger.warning("%s: %s", trouble.sink, trouble.reason)
    elif trouble.attempt in (1, 10) or trouble.attempt % 100 == 0:
        logger.warning("%s: attempt %s failed: %s; trying again", trouble.sink, trouble.attempt, trouble.reason)


def _influx_sink(settings: Settings, patience: Patience) -> Sink:
    from astrocyte.agents.sinks.influx.points import PointRules

    rules = PointRules(settings.influx_cell_tags, settings.influx_run_tag)
    if settings.influx_url is None or settings.influx_token is None:
        from astrocyte.agents.sinks.influx.file import InfluxFileSink

        return InfluxFileSink(settings.influx_dir, rules=rules, patience=patience)
    from astrocyte.agents.sinks.influx.sink import InfluxSink

    return InfluxSink(
        settings.influx_url,
        token=settings.influx_token.get_secret_value(),
        org=settings.influx_org,
        bucket=settings.influx_bucket,
        rules=rules,
        patience=patience,
    )


def _now_us() -> int:
    return time.time_ns() // 1000


def _make_sink(settings: Settings, role: str, patience: Patience) -> Sink:
    if role == "sql":
        from astrocyte.agents.sinks.sql.sink import SqlSink

        return SqlSink(
            settings.sql_url.get_secret_value(),
            now_us=_now_us,
            experiment_id=settings.experiment,
            patience=patience,
        )
    if role == "influx":
        return _influx_sink(settings, patience)
    if role == "audit":
        from astrocyte.agents.sinks.audit.sink import AuditSink

        return AuditSink(settings.sql_url.get_secret_value(), now_us=_now_us, patience=patience)
    raise InvalidSettings(f"role {role!r} came; one of correlate, rekey, sql, influx, audit was wanted")

"""The Faust app of a sink role."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

import mode

from astrocyte.agents.ingest.decoders import Decoders
from astrocyte.agents.rules.model import RuleSet
from astrocyte.agents.sinks.base import OnRetry, RetryNotice, Sink, opened
from astrocyte.agents.sinks.registry import SINKS, SinkContext
from astrocyte.agents.sinks.retry import RetryPolicy
from astrocyte.pipeline.metrics import StoreMetrics
from astrocyte.pipeline.roles.acceptance import Acceptance
from astrocyte.pipeline.roles.refusals import LetterLimit, UnusedReporter, stopping
from astrocyte.pipeline.roles.sink.calls import SinkCalls
from astrocyte.pipeline.roles.sink.runner import SinkRunner
from astrocyte.pipeline.roles.worker import RESTART_STATUS
from astrocyte.pipeline.roles.worker_app import follow, join_group, repeat, rules_now
from astrocyte.pipeline.settings import Settings
from astrocyte.pipeline.state.lost import report_empty_store
from astrocyte.pipeline.stopping import end_now
from astrocyte.pipeline.topology.plan import contracts_of, decoders_of
from astrocyte.pipeline.topology.topics import (
    make_topics,
    results_of,
    sink_streams,
    sink_topics,
    unread_streams,
    unstored_streams,
)
from astrocyte.pipeline.transport.transport import ack_handle
from astrocyte.pipeline.watch.role import RoleWatch
from astrocyte.schemas.errors import AstrocyteError, plugin_raised
from astrocyte.schemas.topics import CONTROL_PREFIX, RULES

__all__ = ["build_sink", "close_sink"]

logger = logging.getLogger(__name__)

_TICK_S: Final = 0.05
_FINISH_S: Final = 10.0
"""Time for the last batch when partitions are revoked, also at SIGTERM."""
_SETTLE_S: Final = 3.0
"""Further time for a call of the sink that still runs, before the process ends without `close`."""
_UNFINISHED_STATUS: Final = 1


def build_sink(app: Any, settings: Settings, role: str) -> None:
    """Wire ``app`` so that it writes what the sink of its role's name stores."""
    retry = RetryPolicy(role, on_retry=_listener(app.watch))
    kind = SINKS.get(role)
    context = SinkContext(role, settings.of(role), retry, _now_us, settings.common())
    sink = kind.make(context)
    calls = SinkCalls()
    for stream in unread_streams(settings, kind):
        logger.warning(
            "%s: stream %r has a table but is not read, since ASTROCYTE_STREAMS does not name it; add it there",
            role, stream,
        )  # fmt: skip
    for line in unstored_streams(settings, kind):
        logger.warning("%s: %s", role, line)
    live, rules_start, known = rules_now(settings, app.watch)

    def read_by(ruleset: RuleSet) -> tuple[Decoders, list[str]]:
        contracts = contracts_of(ruleset, existing=known.partitions, streams=sink_streams(settings, kind))
        return decoders_of(contracts), sink_topics(settings, kind, contracts, results_of(ruleset))

    decoders, topics = read_by(live.ruleset)
    runner = SinkRunner(
        sink,
        lambda records: app.producer.send_and_confirm(records),  # noqa: PLW0108  the producer comes with the start
        partitions=settings.partitions,
        stage=role,
        most_rows=kind.batch_rows,
        limit=LetterLimit(role, settings.dead_letter_limit),
        decoders=decoders,
        acceptance=Acceptance(live.ruleset),
        busy=app.watch.busy,
        calls=calls,
    )
    reporter = UnusedReporter(lambda: [runner.unused], monotonic=time.monotonic)
    app.watch.progress.acknowledges_s = 0.0
    app.watch.collectors.append(StoreMetrics(runner))

    async def prepare() -> None:
        single = [topic for topic in topics if topic == RULES or topic.startswith(CONTROL_PREFIX)]
        await make_topics(settings, [topic for topic in topics if topic not in single], single=single)
        await calls.run("open()", lambda: opened(role, sink))

    app.prepare = prepare

    async def revoked(_partitions: set[Any]) -> None:
        try:
            with stopping():
                await asyncio.wait_for(runner.finish(), _FINISH_S)
        except TimeoutError:
            logger.warning("%s: the store did not take the last batch in time; it is read again", role)

    app.close_down = lambda: close_sink(role, sink, calls, retry.stop)

    async def assigned(committed: Mapping[Any, int | None]) -> dict[Any, int]:
        with stopping():
            await calls.run("holds_nothing()", lambda: report_empty_store(sink, role, str(app.conf.id), committed))
        return {}

    join_group(app, live, on_assigned=assigned, on_revoked=revoked)

    async def store(stream: Any) -> None:
        async for event in stream.noack().events():
            chunk = event.value
            with stopping():
                await runner.handle(chunk, ack_handle(event), chunk.records)

    async def tick() -> None:
        with stopping():
            await runner.tick()
        await reporter.tick()

    app.agent(app.topic(*topics), name=role, supervisor_strategy=mode.CrashingSupervisor)(store)

    async def changed(ruleset: RuleSet) -> None:
        decoders, wanted = read_by(ruleset)
        if set(wanted) != set(topics):
            logger.warning("%s: the changed rules have other topics; the worker exits, to be restarted with them", role)
            await revoked(set())
            os._exit(RESTART_STATUS)
        runner.update(decoders, Acceptance(ruleset))
        logger.info("%s reads by the changed rules", role)

    follow(app, live, rules_start, changed)
    repeat(app, tick, _TICK_S)
    if kind.upkeep is not None:
        upkeep = kind.upkeep
        repeat(app, lambda: _maintain(upkeep, context), settings.retention_interval / 1e6)


async def close_sink(role: str, sink: Sink, calls: SinkCalls, stop: asyncio.Event) -> None:
    """Close a sink once none of its calls runs; if one does not end in time, the process ends without `close`."""
    stop.set()
    running = await calls.unfinished(_SETTLE_S)
    if running is not None:
        end_now(
            f"astrocyte: role {role!r}: {running} of the sink still runs {_SETTLE_S:g} s after the end of the work; "
            "the process ends without close(), which must not run beside it. Its batch is not acknowledged and is read "
            "again",
            _UNFINISHED_STATUS,
        )
    try:
        await sink.close()
    except (Exception, SystemExit) as error:  # noqa: BLE001  a method of the user's; everything written was confirmed before
        logger.error("%s", plugin_raised(f"close() of sink {role!r}", error))


async def _maintain(upkeep: Callable[[SinkContext], object], context: SinkContext) -> None:
    """Run the sink's upkeep in a thread."""
    try:
        done = await asyncio.to_thread(upkeep, context)
    except AstrocyteError as error:
        logger.warning("%s: upkeep was put off: %s", context.name, error)
    else:
        if done:
            logger.info("%s: retention removed %s rows", context.name, done)


def _listener(watch: RoleWatch) -> OnRetry:
    """Passes a sink's retry notices to the log and to the watch, for which waiting for a store is no hang."""

    def hear(notice: RetryNotice) -> None:
        _tell(notice)
        watch.store_away(notice.reason if notice.attempt else "")

    return hear


def _tell(notice: RetryNotice) -> None:
    if notice.attempt == 0:
        logger.warning("%s: %s", notice.sink, notice.reason)
    elif notice.attempt in (1, 10) or notice.attempt % 100 == 0:
        logger.warning("%s: attempt %s failed: %s; trying again", notice.sink, notice.attempt, notice.reason)


def _now_us() -> int:
    return time.time_ns() // 1000

"""The Faust apps, one for each role, built from settings."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Awaitable, Collection, Iterable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import mode

from astrocyte.agents.ingest.unused.counts import FieldsSeen, Unused
from astrocyte.agents.ingest.validate import Validators
from astrocyte.agents.rules.model import RuleSet
from astrocyte.pipeline.kafka.client import BrokerUnavailable, topic_partitions, until_available
from astrocyte.pipeline.kafka.partition_end import AtEnd, Unread
from astrocyte.pipeline.logging import configure_logging
from astrocyte.pipeline.metrics import DomainMetrics, UnusedMetrics
from astrocyte.pipeline.role_registry import ROLES, check_role
from astrocyte.pipeline.roles.acceptance import Acceptance
from astrocyte.pipeline.roles.control import ControlRunner
from astrocyte.pipeline.roles.parent import end_with_parent
from astrocyte.pipeline.roles.refusals import LetterLimit, UnusedReporter, stopping
from astrocyte.pipeline.roles.repartition import RepartitionRunner
from astrocyte.pipeline.roles.sink.build import build_sink
from astrocyte.pipeline.roles.worker import RESTART_STATUS
from astrocyte.pipeline.roles.worker_app import WorkerApp, follow, join_group, make_app, repeat, rules_now
from astrocyte.pipeline.settings import Settings
from astrocyte.pipeline.state.lost import LostState, refuse_reset
from astrocyte.pipeline.state.snapshot_store import KafkaStateStore, messages_of_topic
from astrocyte.pipeline.telemetry.spans import chunk_span
from astrocyte.pipeline.telemetry.start import started
from astrocyte.pipeline.topology.group_rules import digest_of
from astrocyte.pipeline.topology.plan import KeyGroup, Plan, Repartition, contracts_of, decoders_of
from astrocyte.pipeline.topology.repartition import Repartitioner
from astrocyte.pipeline.topology.topics import KnownTopics, make_topics, new_declared_topics, output_topics
from astrocyte.pipeline.transport.balance import Balance
from astrocyte.pipeline.transport.producer_record import ProducerRecord
from astrocyte.pipeline.transport.transport import TP, ack_handle
from astrocyte.pipeline.watch.link import Supervisor
from astrocyte.pipeline.watch.web import serve
from astrocyte.schemas.declarations import StreamDeclaration
from astrocyte.schemas.errors import InvalidSettings
from astrocyte.schemas.topics import DEAD_LETTERS, TOPOLOGY, TopicPartition, state_topic

if TYPE_CHECKING:
    from astrocyte.agents.domain import Domain
    from astrocyte.pipeline.roles.correlation.correlate import Correlator
    from astrocyte.pipeline.roles.correlation.silences import SilenceProofs

__all__ = ["build_app", "build_control", "build_correlate", "build_insight", "build_repartition"]

logger = logging.getLogger(__name__)

_TICK_S: Final = 0.1
_BALANCE_S: Final = 10.0
"""Time between two looks at how the load is divided over the workers."""


def build_app(settings: Settings) -> WorkerApp:
    """The app of the first role of the settings. Raises InvalidSettings for a role that is not registered."""
    role = settings.roles[0]
    end_with_parent()
    configure_logging(settings.log_level, json=settings.log_json)
    check_role(role)
    app = make_app(settings, role)
    supervisor = Supervisor.of_environment()
    if supervisor is None:
        serve(settings, app.watch.page)
    app.watch.start(supervisor)
    if settings.otlp_url is not None:
        app.telemetry = started(settings.otlp_url, settings.group, role, app.watch.families)
    if role in ROLES:
        ROLES.get(role)(app, settings)
    else:
        build_sink(app, settings, role)
    return app


def _restart_if_changed(known: KnownTopics, now: Mapping[str, int], topics: Iterable[str]) -> None:
    """Exit, to be restarted, if a topic has another number of partitions than that by which the role made its plan."""
    changes = known.changes(now, topics)
    for line in changes:
        logger.warning("%s", line)
    if changes:
        logger.warning("the worker exits, to be restarted and read these topics as they are now")
        os._exit(RESTART_STATUS)


async def _look_again(settings: Settings, known: KnownTopics, topics: Iterable[str]) -> None:
    """At a rebalance, which a topic with more partitions brings about as well: `_restart_if_changed`."""
    try:
        now = await topic_partitions(settings.broker)
    except BrokerUnavailable:
        return  # when it is back the group rebalances again
    _restart_if_changed(known, now, topics)


def _stop_at_reset(place: TP, expected: int, first: int) -> None:
    with stopping():
        refuse_reset(place, expected, first)


def build_correlate(app: WorkerApp, settings: Settings) -> None:
    """Domains over all streams that the rules read."""
    _build_domains(app, settings, "correlate")


def build_insight(app: WorkerApp, settings: Settings) -> None:
    """Domains that compute the statistics, each over all events of its runs."""
    _build_domains(app, settings, "insight")


def _build_domains(app: WorkerApp, settings: Settings, role: str) -> None:
    # Only these roles load the kernels and their compiler: a third of its start and 80 MB.
    from astrocyte.pipeline.roles.correlation.copy_ends import CopyEnds
    from astrocyte.pipeline.roles.correlation.correlate import Correlator
    from astrocyte.pipeline.roles.correlation.domains import domain_of, policies_of, topics_of
    from astrocyte.pipeline.roles.correlation.loads import Loads, Rebalancing
    from astrocyte.pipeline.roles.correlation.overload import OverloadControl, decisions_since
    from astrocyte.pipeline.roles.correlation.silences import SilenceProofs
    from astrocyte.pipeline.roles.correlation.unsettled import output_since
    from astrocyte.pipeline.roles.stalls import StallWatch

    live, rules_start, known = rules_now(settings, app.watch)
    existing = known.partitions
    whole = known.plan(live.ruleset)
    plan = whole.part(role)
    contracts = contracts_of(live.ruleset, existing=existing, streams=settings.streams)
    read = topics_of(role, live.ruleset, known, settings)
    group = str(app.conf.id)

    async def prepare() -> None:
        # Before the worker joins its group, and on a thread: with a blocked event loop it would look dead to the group.
        await asyncio.to_thread(_warm, live.ruleset)
        found = await make_topics(settings, [*read, *output_topics(whole)], compacted=[state_topic(group)])
        _restart_if_changed(known, found, read)
        for line in new_declared_topics(contracts, plan.topics, existing):
            logger.warning("%s", line)
        for line in plan.describe_copies():
            logger.info("copied by the role repartition: %s", line)
        if role == "correlate" and whole.part("insight").groups:
            logger.info("computed by the role insight: %s", ", ".join(spec.name for spec in live.ruleset.insight))

    app.prepare = prepare

    def make_domain(partition: int) -> Domain:
        return domain_of(partition, role, live.ruleset, known=known, settings=settings, topics=read)

    stalls = StallWatch(
        settings.stall_timeout / 1e6,
        settings.idle_timeout / 1e6,
        settings.producer_timeout / 1e6,
        lambda place: _unread(app, *place),
        plan.copies,
        {topic: (_maker(group), group.role) for topic, group in whole.timed.items()},
    )
    copies = CopyEnds(
        {
            copy: [TopicPartition(source, number) for number in range(known.count(source))]
            for copy, source in plan.copies.items()
        },
        lambda place: _at_end(app, *place),
        partial(_ends, app),
        lambda: correlator.domains,
        settings.idle_timeout / 1e6,
    )

    # The app's producer exists only once the app has started.
    def send_batch(
        topic: str, partition: int, records: Sequence[ProducerRecord]
    ) -> Awaitable[Sequence[asyncio.Future[Any]]]:
        sent: Awaitable[Sequence[asyncio.Future[Any]]] = app.producer.confirmed.send_batch(topic, partition, records)
        return sent

    correlator = Correlator(
        make_domain,
        KafkaStateStore(settings.broker, state_topic(group), settings.partitions),
        send_batch,
        lambda records: app.producer.send_and_confirm(records),  # noqa: PLW0108
        copies.of,
        role=role,
        partitions=settings.partitions,
        snapshot_interval_us=settings.snapshot_interval,
        idle_timeout_us=settings.idle_timeout,
        producer_timeout_us=settings.producer_timeout,
        fingerprint=digest_of(live.ruleset, settings),
        limit=LetterLimit(role, settings.dead_letter_limit),
        stalls=stalls,
        lost=LostState(state_topic(group), settings.lost_state),
        outputs=partial(output_since, settings.broker),
        overload=OverloadControl(
            policies_of(role, live.ruleset, known, settings),
            send_batch,
            partial(decisions_since, settings.broker),
            role=role,
            known_end=lambda place: int(app.monitor.tp_end_offsets.get(TP(*place)) or 0),
        ),
        moved=lambda: proofs.moved(),  # noqa: PLW0108  it is made below
        busy=app.watch.busy,
    )
    proofs = SilenceProofs(
        settings.group, role, copies.originals, send_batch, partial(_ends, app), lambda: correlator.parts,
        correlator.prove,
    )  # fmt: skip
    reporter = UnusedReporter(
        lambda: [domain.unused for domain in correlator.domains.values()],
        lambda: _absent(correlator.domains.values()),
        monotonic=time.monotonic,
    )

    async def assigned(committed: Mapping[Any, int | None]) -> dict[Any, int]:
        await _look_again(settings, known, read)
        with stopping():
            return await correlator.assigned(committed)

    app.watch.progress.acknowledges_s = correlator.longest_pause_s
    app.watch.stalls = lambda: [stall.as_json() for stall in stalls.stalls]
    app.watch.collectors.append(
        DomainMetrics(lambda: correlator.domains, lambda: stalls.stalls, correlator.snapshot_figures)
    )
    loads = Loads(lambda: correlator.domains, time.monotonic)
    balance = Balance(loads.measured)
    join_group(app, live, on_assigned=assigned, on_revoked=correlator.revoked, on_reset=_stop_at_reset, balance=balance)

    async def report(records: Iterable[ProducerRecord]) -> None:
        try:
            await until_available(lambda: make_topics(settings, [TOPOLOGY]))
        except InvalidSettings as error:  # a topic of that name is somebody else's
            logger.warning("moves of domains are not written: %s", error)
            return
        await app.producer.send_and_confirm(records)

    rebalancing = Rebalancing(
        role, loads, balance, rejoin=lambda: app.consumer.rejoin(), deliver=report,  # noqa: PLW0108  as above
        partitions=settings.partitions, now_us=lambda: time.time_ns() // 1000,
    )  # fmt: skip

    async def correlate(stream: Any) -> None:
        async for event in stream.noack().events():
            with stopping():
                await correlator.handle(event.value, ack_handle(event))

    async def tick() -> None:
        with stopping():
            await correlator.tick()
        proofs.tick()
        await reporter.tick()

    if read:
        app.agent(app.topic(*read), name="domain", supervisor_strategy=mode.CrashingSupervisor)(correlate)
    else:
        logger.warning("role %s has nothing to do: the rule files have no section insight", role)
    repeat(app, tick, _TICK_S)
    repeat(app, correlator.look_for_stalls, 1.0)
    repeat(app, rebalancing.look, _BALANCE_S)
    repeat(app, copies.look, 1.0)
    if whole.links or whole.timed:
        _prove_silences(app, proofs)
    follow(app, live, rules_start, lambda ruleset: _change_rules(ruleset, known, whole, correlator, settings))


def _prove_silences(app: WorkerApp, proofs: SilenceProofs) -> None:
    from astrocyte.pipeline.roles.correlation.silences import follow_silences

    @app.task
    async def silences() -> None:
        await follow_silences(app.worker_settings.broker, proofs)

    @app.task
    async def silence_proofs() -> None:
        with stopping():
            await proofs.run()


def _absent(domains: Iterable[Domain]) -> list[str]:
    """What rules read and no domain of this worker has seen yet."""
    domains = [domain for domain in domains if domain.groups]
    if not domains:
        return []
    total = FieldsSeen(domains[0].fields.named)
    for domain in domains:
        total.merge(domain.fields)
    return [f"since this worker began: {line}" for line in total.absent(domains[0].made)]


def _warm(ruleset: RuleSet) -> None:
    """Load the kernels that the rules need, or compile them if they are not in the cache."""
    from astrocyte.agents.warm import warm

    began_s = time.monotonic()
    warm(ruleset)
    logger.info("kernels are ready after %.1f s", time.monotonic() - began_s)


async def _change_rules(
    ruleset: RuleSet, known: KnownTopics, plan: Plan, correlator: Correlator, settings: Settings
) -> None:
    from astrocyte.pipeline.roles.correlation.domains import policies_of

    changed = known.plan(ruleset)
    if (changed.topics, changed.repartitions, _groups(changed)) != (plan.topics, plan.repartitions, _groups(plan)):
        logger.warning("the changed rules read other topics; the worker exits, to be restarted with them")
        await correlator.stop()
        os._exit(RESTART_STATUS)
    await asyncio.to_thread(_warm, ruleset)
    await correlator.update(
        {group.name: group.ruleset for group in changed.part(correlator.role).groups},
        digest_of(ruleset, settings),
        Validators(ruleset.validators),
        decoders_of(contracts_of(ruleset, existing=known.partitions, streams=settings.streams)),
        reported=ruleset if correlator.role == "correlate" else None,
    )
    if correlator.overload is not None:
        correlator.overload.policies = policies_of(correlator.role, ruleset, known, settings)
    logger.info("rules changed: %s", ", ".join(f"{rule.name}@{rule.content_version}" for rule in ruleset.rules))


def _maker(group: KeyGroup) -> str:
    return "statistics" if group.role == "insight" else f"rules and windows {group.title}"


def _groups(plan: Plan) -> list[tuple[object, ...]]:
    """What a worker that runs cannot change of its groups."""
    return [(group.role, group.name, group.links, group.results, group.carriers) for group in plan.groups]


def build_repartition(app: WorkerApp, settings: Settings) -> None:
    """Agents that copy streams to the internal topics keyed as the rules need them."""
    live, rules_start, known = rules_now(settings, app.watch)
    plan = known.plan(live.ruleset)
    decoders = decoders_of(plan.contracts)
    sources = list(dict.fromkeys(plan.copies.values()))

    memory = state_topic(str(app.conf.id))
    lost = LostState(memory, settings.lost_state)

    async def prepare() -> None:
        found = await make_topics(settings, [*sources, *plan.copies, *output_topics(plan)], single=[memory])
        _restart_if_changed(known, found, sources)
        for line in new_declared_topics(plan.contracts, sources, known.partitions):
            logger.warning("%s", line)
        for line in plan.describe_copies():
            logger.info("%s", line)

    app.prepare = prepare
    unused = Unused()
    limit = LetterLimit("repartition", settings.dead_letter_limit)
    reporter = UnusedReporter(lambda: [unused], monotonic=time.monotonic)
    app.watch.progress.acknowledges_s = 0.0
    app.watch.collectors.append(UnusedMetrics(unused))
    runners = [
        RepartitionRunner(
            Repartitioner(
                repartition,
                settings.partitions,
                lateness_us=settings.lateness,
                clock_tolerance_us=settings.clock_tolerance,
                decoders=decoders,
            ),
            memory,
            lambda records: app.producer.send_and_confirm(records),  # noqa: PLW0108  it exists once the app has started
            at_end=partial(_at_end, app, repartition.source),
            idle_timeout_s=settings.idle_timeout / 1e6,
            lost=lost,
        )
        for repartition in plan.repartitions
    ]

    async def assigned(committed: Mapping[Any, int | None]) -> dict[Any, int]:
        await _look_again(settings, known, sources)
        messages = messages_of_topic(settings.broker, memory)
        states = {key: value async for key, value in messages if key is not None and value is not None}
        done = {f"{tp.topic}[{tp.partition}]": offset for tp, offset in committed.items() if offset}
        if done and not states:
            # The first message of a partition is written with a state, and a copy that is new has none of its own.
            with stopping():
                lost.found("role repartition", done)
        starts: dict[Any, int] = {}
        for runner in runners:
            source = runner.repartitioner.repartition.source
            mine = {tp.partition for tp in app.consumer.assignment() if tp.topic == source}
            placed = {tp.partition for tp in committed if tp.topic == source}
            with stopping():
                begins = runner.assigned(placed, mine, states)
            for number, offset in begins.items():
                # Several copies of one topic: each skips what its own state contains.
                starts[TP(source, number)] = min(offset, starts.get(TP(source, number), offset))
        return starts

    async def tick() -> None:
        for runner in runners:
            await runner.tick()

    join_group(app, live, on_assigned=assigned, on_reset=_stop_at_reset)
    repeat(app, tick, 1.0)
    repeat(app, reporter.tick, 1.0)
    for runner in runners:
        _build_repartition_agent(app, runner, unused, limit)

    async def changed(ruleset: RuleSet) -> None:
        if _copies(known.plan(ruleset)) != _copies(plan):
            logger.warning("the changed rules copy or declare other streams; the worker exits, to be restarted")
            os._exit(RESTART_STATUS)

    follow(app, live, rules_start, changed)


def _copies(plan: Plan) -> list[tuple[Repartition, StreamDeclaration | None]]:
    """What is copied, and how its originals are read."""
    return [(each, plan.contracts.declared.get(each.stream)) for each in plan.repartitions]


def _at_end(app: WorkerApp, topic: str, partition: int) -> AtEnd | None:
    end: AtEnd | None = app.consumer.at_end(TP(topic, partition))
    return end


async def _ends(app: WorkerApp, places: Collection[TopicPartition]) -> dict[TopicPartition, int] | None:
    found: dict[TP, int] | None = await app.consumer.ends_of([TP(*place) for place in places])
    return None if found is None else {TopicPartition(*place): end for place, end in found.items()}


def _unread(app: WorkerApp, topic: str, partition: int) -> Unread | None:
    found: Unread | None = app.consumer.unread(TP(topic, partition))
    return found


def _build_repartition_agent(app: WorkerApp, runner: RepartitionRunner, unused: Unused, limit: LetterLimit) -> None:
    async def forward(stream: Any) -> None:
        async for event in stream.noack().events():
            rows, letters = await runner.handle(event.value)
            for letter in letters:
                unused.add_letter(letter)
            with stopping():
                limit.count(rows + len(letters), len(letters))
            event.ack()

    repartition = runner.repartitioner.repartition
    name = f"repartition-{repartition.stream}-{repartition.field}"
    app.agent(app.topic(repartition.source), name=name, supervisor_strategy=mode.CrashingSupervisor)(forward)


def build_control(app: WorkerApp, settings: Settings) -> None:
    """One agent that feeds the controllers."""
    memory = state_topic(str(app.conf.id))
    live, rules_start, _ = rules_now(settings, app.watch)
    limit = LetterLimit("control", settings.dead_letter_limit)
    runner = ControlRunner(memory, partitions=settings.partitions, limit=limit, acceptance=Acceptance(live.ruleset))
    reporter = UnusedReporter(lambda: [runner.unused], monotonic=time.monotonic)
    app.watch.progress.acknowledges_s = 0.0
    app.watch.collectors.append(UnusedMetrics(runner.unused))
    inputs = runner.topics

    async def prepare() -> None:
        await make_topics(settings, [*inputs, DEAD_LETTERS], single=[memory, *runner.outputs])

    app.prepare = prepare

    async def assigned(_committed: Any) -> None:
        runner.forget()
        async for key, value in messages_of_topic(settings.broker, memory):
            runner.remember(key, value)

    join_group(app, live, on_assigned=assigned)

    async def control(stream: Any) -> None:
        async for event in stream.noack().events():
            chunk = event.value
            with chunk_span(chunk) as span:
                with stopping():
                    records = runner.step(chunk.topic, chunk.partition, chunk.records)
                if records:
                    await app.producer.send_and_confirm(records)
                span.note(records=len(records))
            with stopping():
                runner.check_limit()
            event.ack()

    app.agent(app.topic(*inputs), name="control", supervisor_strategy=mode.CrashingSupervisor)(control)
    repeat(app, reporter.tick, 1.0)

    async def changed(ruleset: RuleSet) -> None:
        runner.acceptance = Acceptance(ruleset)
        logger.info("control reads by the changed rules")

    follow(app, live, rules_start, changed)

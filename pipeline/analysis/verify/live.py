"""A running system as input of a verification: how far its roles have come, and copies of its topics.

Nothing here joins a consumer group, commits or writes. The order matters: first how far the roles have come, then the
stores, then the output topics, then the inputs. So what is due is in the stores, and whatever is found has its input.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from astrocyte.agents.loading import load_rules
from astrocyte.agents.rules.model import RuleSet
from astrocyte.pipeline.analysis.verify.replica import stored_topics
from astrocyte.pipeline.kafka.client import admin_client, consumer_client, scan, topic_partitions
from astrocyte.pipeline.recording.record import record
from astrocyte.pipeline.roles.health import group_lag
from astrocyte.pipeline.settings import Settings
from astrocyte.pipeline.topology.plan import Plan
from astrocyte.pipeline.topology.rule_files import DEFAULT_RULES, read_rule_files
from astrocyte.pipeline.topology.rule_updates import LiveRules, load_live_rules
from astrocyte.pipeline.topology.topics import KnownTopics, output_topics
from astrocyte.schemas.errors import AstrocyteError, InvalidRule, InvalidSettings
from astrocyte.schemas.topics import CLOCK, RULES, SAMPLING, SIMULATIONS, is_derived

__all__ = ["LiveSystem", "Progress", "copy_inputs", "copy_outputs", "live_system", "progress_of", "published_times",
           "wait_for_lag"]  # fmt: skip

_CORRELATING: Final = ("repartition", "insight", "correlate")
_ASK_S: Final = 0.5

Committed = dict[tuple[str, int], int]


@dataclass(frozen=True, slots=True)
class LiveSystem:
    """The rules in force, and the roles that have a consumer group on the broker."""

    ruleset: RuleSet
    plan: Plan
    partitions: Mapping[str, int]
    """Partitions of every topic."""
    roles: tuple[str, ...]
    published: frozenset[str]
    """Rules and windows that were published to the topic ``rules``."""


@dataclass(slots=True)
class Progress:
    """How far the roles had come."""

    inputs: Committed = field(default_factory=dict)
    """Next offset of each input of the rules: everything before it is in the output topics."""
    sinks: dict[str, Committed] = field(default_factory=dict)
    """By sink role: next offset of each topic and partition that it has stored."""
    unsettled: frozenset[str] = frozenset()
    """Rules and windows that read what others make, of which not everything was processed."""
    clock: int = 0
    """End of the topic of what workers decided by their clocks."""
    notes: list[str] = field(default_factory=list)


async def live_system(settings: Settings, sinks: Iterable[str], wait_s: float = 0.0) -> LiveSystem:
    """Rules, topics and roles now. Raises BrokerUnavailable, and InvalidSettings where no worker has run.

    One that begins within ``wait_s`` is waited for.
    """
    groups = await _groups_with_workers(settings, wait_s)
    partitions = await topic_partitions(settings.broker)
    known = KnownTopics(partitions, settings.partitions)
    live = LiveRules(read_rule_files(settings.rules or DEFAULT_RULES), accept=known.checked_plan)
    base = live.ruleset
    await load_live_rules(settings.broker, live)
    roles = tuple(role for role in (*_CORRELATING, *sinks) if f"{settings.group}-{role}" in groups)
    before = {id(each) for each in (*base.rules, *base.windows, *base.insight)}
    now = live.ruleset
    published = {each.name for each in (*now.rules, *now.windows, *now.insight) if id(each) not in before}
    return LiveSystem(now, known.plan(now), partitions, roles, frozenset(published))


async def _groups_with_workers(settings: Settings, wait_s: float) -> set[str]:
    """The consumer groups of the broker, once the role correlate has one. Raises InvalidSettings after ``wait_s``."""
    until_s = time.monotonic() + wait_s
    while True:
        async with admin_client(settings.broker) as admin:
            groups = {str(group[0]) for group in await admin.list_consumer_groups()}
        if f"{settings.group}-correlate" in groups:
            return groups
        if time.monotonic() >= until_s:
            waited = f" within {wait_s:.0f} s" if wait_s else ""
            raise InvalidSettings(
                f"no worker of group {settings.group!r} has processed anything on {settings.broker}{waited}; set "
                "ASTROCYTE_GROUP and ASTROCYTE_BROKER as for the workers, or give a recorded log"
            )
        await asyncio.sleep(_ASK_S)


async def wait_for_lag(settings: Settings, roles: Iterable[str], limit_s: float) -> str | None:
    """Wait until the roles have processed everything; a sentence on the role that has not, after ``limit_s``."""
    until_s = time.monotonic() + limit_s
    for role in roles:
        while True:
            lag = await group_lag(settings.broker, f"{settings.group}-{role}")
            if lag == 0:
                break
            if time.monotonic() > until_s:
                behind = "has processed nothing" if lag is None else f"is {lag:,} messages behind"
                return f"after {limit_s:.0f} s role {role} still {behind}; what it has not processed is not compared"
            await asyncio.sleep(_ASK_S)
    return None


async def progress_of(settings: Settings, system: LiveSystem) -> Progress:
    """How far the roles have come."""
    found = Progress()
    async with admin_client(settings.broker) as admin, consumer_client(settings.broker) as client:
        from aiokafka import TopicPartition

        async def committed(role: str) -> Committed:
            if role not in system.roles:
                return {}
            offsets = await admin.list_consumer_group_offsets(f"{settings.group}-{role}")
            return {(place.topic, place.partition): max(each.offset, 0) for place, each in offsets.items()}

        async def ends(topics: Iterable[str]) -> Committed:
            places = [
                TopicPartition(topic, number) for topic in topics for number in range(system.partitions.get(topic, 0))
            ]
            there = await client.end_offsets(places) if places else {}
            return {(place.topic, place.partition): offset for place, offset in there.items()}

        for role in system.roles:
            if role not in _CORRELATING:
                found.sinks[role] = await committed(role)
        copied = await committed("repartition")
        found.inputs = await committed("correlate")
        found.clock = (await ends([CLOCK])).get((CLOCK, 0), 0)
        behind: set[str] = set()
        for _ in system.plan.groups:  # one round for each group that may read what another makes
            for role in _CORRELATING:
                topics = {topic for group in system.plan.part(role).groups for topic in group.topics.values()}
                wanted = await ends(topic for topic in topics if is_derived(topic))
                done = await committed(role)
                behind |= {place[0] for place, offset in wanted.items() if done.get(place, 0) < offset}
    for repartition in system.plan.repartitions:
        for number in range(system.partitions.get(repartition.source, 0)):
            place = (repartition.source, number)
            reached = copied.get(place, 0)
            # A topic may be read as it is by some rules, and as a copy by others.
            if found.inputs.setdefault(place, reached) > reached:
                behind.add(repartition.topic)
    found.unsettled = frozenset(
        name for group in system.plan.groups if behind & set(group.topics.values()) for name in group.ruleset.made
    )
    if found.unsettled:
        found.notes.append(
            f"{', '.join(sorted(behind))}: not everything is processed, so what is missing of "
            f"{', '.join(sorted(found.unsettled))} may still come; --wait waits for it"
        )
    return found


async def published_times(settings: Settings, system: LiveSystem) -> dict[str, int]:
    """When the published rules were published, by Kafka's time in microseconds; a later change counts."""
    found: dict[str, int] = {}
    if RULES not in system.partitions or not system.published:
        return found
    async with consumer_client(settings.broker) as client:
        async for records in scan(client, {RULES: system.partitions[RULES]}):
            for each in records:
                try:
                    named = load_rules((each.value or b"").decode())
                except (InvalidRule, UnicodeDecodeError):
                    continue  # refused by the workers, too
                found |= dict.fromkeys(system.published & named.made, each.timestamp_ms * 1_000)
    return found


async def copy_outputs(settings: Settings, system: LiveSystem, path: Path) -> tuple[str, ...]:
    """Copy the output topics into a recorded log; returns those that there are."""
    topics = tuple(topic for topic in output_topics(system.plan) if topic in system.partitions)
    await record(settings.broker, topics, path)
    return topics


async def copy_inputs(settings: Settings, system: LiveSystem, sinks: Iterable[str], path: Path) -> None:
    """Copy everything that the rules and the sinks read, and that others wrote, into a recorded log."""
    decided = {CLOCK, SAMPLING}
    wanted = {*system.plan.inputs, *decided, SIMULATIONS}
    for role in sinks:
        wanted |= set(stored_topics(role, settings, system.ruleset, system.partitions))
    topics = [each for each in sorted(wanted & system.partitions.keys()) if each in decided or not is_derived(each)]
    if not topics:
        raise AstrocyteError("the broker has none of the topics that the rules read")
    await record(settings.broker, topics, path)

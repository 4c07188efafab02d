"""The domains of a role, with what each reads, computes and reports."""

from __future__ import annotations

import time
from collections.abc import Sequence

from astrocyte.agents.domain import Domain, DomainGroup
from astrocyte.agents.engine.engine import Engine
from astrocyte.agents.ingest.validate import Validators
from astrocyte.agents.rules.model import RuleSet
from astrocyte.agents.rules.streams import Overload, is_critical
from astrocyte.pipeline.settings import Settings
from astrocyte.pipeline.topology.plan import contracts_of, decoders_of
from astrocyte.pipeline.topology.topics import KnownTopics
from astrocyte.schemas.topics import is_derived

__all__ = ["domain_of", "policies_of", "topics_of"]


def topics_of(role: str, ruleset: RuleSet, known: KnownTopics, settings: Settings) -> list[str]:
    """The topics that a role reads.

    The role ``correlate`` reads every input: the original of a repartitioned stream as well, and streams of which only
    another role has rules. Their events are validated and counted there, alone.
    """
    whole = known.plan(ruleset)
    topics = list(whole.part(role).topics)
    if role != "correlate":
        return topics
    contracts = contracts_of(ruleset, existing=known.partitions, streams=settings.streams)
    return sorted({*topics, *whole.inputs, *map(contracts.topic_of, settings.streams)})


def policies_of(role: str, ruleset: RuleSet, known: KnownTopics, settings: Settings) -> dict[str, Overload]:
    """By topic, what a role may leave out of it while it is behind: of streams that all rules read as they are.

    Only the role ``correlate`` leaves anything out. A critical stream, and one that others read from a copy, is spared
    by the policy of the settings; `pipeline.topology.plan.refuse_topics` refuses a declared one.
    """
    if role != "correlate":
        return {}
    whole = known.plan(ruleset)
    groups = whole.part(role).groups
    declared = {stream.name: stream.overload for stream in ruleset.streams}
    copied = {whole.copies[topic] for group in groups for topic in group.topics.values() if topic in whole.copies}
    found: dict[str, Overload] = {}
    for stream, topic in sorted({each for group in groups for each in group.topics.items()}):
        policy = declared.get(stream) or (None if is_critical(stream) else settings.overload)
        if policy is not None and policy.leaves_out and topic not in copied and not is_derived(topic):
            found[topic] = policy
    return found


def domain_of(
    partition: int, role: str, ruleset: RuleSet, *, known: KnownTopics, settings: Settings, topics: Sequence[str]
) -> Domain:
    """The empty domain of a partition. ``topics`` are those that the role has read since it began (`topics_of`).

    In the role ``correlate`` it says of all rules what they do not use, those of the role ``insight`` too.
    """
    whole = known.plan(ruleset)
    plan = whole.part(role)
    # A topic with more partitions than there are domains is copied: what has no domain is only counted.
    groups = [
        DomainGroup(
            each.name,
            Engine(
                each.ruleset,
                consistency="strong" if each.newest else settings.consistency,
                immediate=not each.newest,
                exports=each.exports,
                carriers=each.carriers,
                newest=each.newest,
                validated=True,
            ),
            each.topics,
            each.links,
            settings.partitions,
            each.results,
        )
        for each in plan.groups
        if partition < settings.partitions
    ]
    domain = Domain(
        partition,
        groups,
        lateness_us=settings.lateness,
        clock_tolerance_us=settings.clock_tolerance,
        topics=[topic for topic in topics if partition < known.count(topic)],
        internal=set(plan.topics) - set(whole.inputs),
        copied_by=plan.copied_by,
        copies=plan.copies,
        linked={link.topic for link in whole.links} | whole.timed.keys(),
        partitioned_by=plan.partitioned_by if settings.partitions > 1 else {},
        placed_by=plan.placed_by if settings.partitions > 1 else {},
        validators=Validators(ruleset.validators),
        decoders=decoders_of(contracts_of(ruleset, existing=known.partitions, streams=settings.streams)),
        doubting=True,
        clock=time.thread_time_ns,
    )
    if role == "correlate":
        domain.report_for(ruleset)
    return domain

"""The topics of the pipeline: partition counts and policies; topics are created before they are read or written."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from astrocyte.agents.controllers.base import CONTROLLERS
from astrocyte.agents.rules.model import RuleSet
from astrocyte.agents.sinks.base import RecordKind
from astrocyte.agents.sinks.registry import SINKS, SinkType
from astrocyte.pipeline.kafka.client import ensure_topics
from astrocyte.pipeline.kafka.topic_names import did_you_mean_topic
from astrocyte.pipeline.settings import Settings
from astrocyte.pipeline.topology.plan import Plan, checked_plan, make_plan, uneven_topics
from astrocyte.schemas.catalog import CATALOG
from astrocyte.schemas.contract import Contracts
from astrocyte.schemas.errors import InvalidSettings
from astrocyte.schemas.topics import (
    ALERTS,
    CLOCK,
    CONTROL_PREFIX,
    DEAD_LETTERS,
    LATE,
    MULTI_EVENTS,
    RULES,
    SAMPLING,
    SILENCES,
    SIMULATIONS,
    STATS,
    TOPOLOGY,
    control_topic,
    is_derived,
    metrics_topic,
    mono_topic,
)

__all__ = [
    "RECORD_TOPICS",
    "KnownTopics",
    "check_partitions",
    "make_topics",
    "mono_topics",
    "new_declared_topics",
    "output_topics",
    "results_of",
    "role_topics",
    "sink_streams",
    "sink_topics",
    "unread_streams",
    "unstored_streams",
]

_SINGLE: Final = (RULES, STATS, CLOCK, SAMPLING, SILENCES, SIMULATIONS)
"""Topics with one partition."""
RECORD_TOPICS: Final[Mapping[str, RecordKind]] = {
    MULTI_EVENTS: "multi_events",
    ALERTS: "alerts",
    DEAD_LETTERS: "dead_letters",
    SIMULATIONS: "simulations",
}
"""Topics whose messages are JSON records of one kind."""
_COMPACTED = {"cleanup.policy": "compact"}
_LARGE = {"max.message.bytes": str(32 << 20)}


@dataclass(frozen=True, slots=True)
class KnownTopics:
    """Topics of the broker when a role began, with their partition counts, and the number of domains.

    All roles make their plans by these, each when it begins. A role in whose time a count changes has another plan than
    one that begins later, so it must end and begin again (`changes`).
    """

    partitions: Mapping[str, int]
    domains: int

    def plan(self, ruleset: RuleSet) -> Plan:
        """The plan of a rule set, which may run without a broker only. Raises InvalidRule."""
        return make_plan(ruleset, existing=self.partitions, uneven=self._uneven)

    def checked_plan(self, ruleset: RuleSet) -> Plan:
        """The same, of rules that can run (`pipeline.topology.plan.checked_plan`). Raises InvalidRule."""
        return checked_plan(ruleset, existing=self.partitions, uneven=self._uneven)

    def count(self, topic: str) -> int:
        """Partition count of a topic; one that does not exist is created with that of the settings."""
        return self.partitions.get(topic, self.domains)

    def changes(self, now: Mapping[str, int], topics: Iterable[str]) -> list[str]:
        """Sentences on those of the topics that have another number of partitions now."""
        return [
            f"topic {topic!r} has {now[topic]} partitions now, and had {self.count(topic)} when this worker began: "
            "events of one key may be in two of them"
            for topic in dict.fromkeys(topics)
            if topic in now and now[topic] != self.count(topic)
        ]

    @property
    def _uneven(self) -> dict[str, int]:
        return uneven_topics(self.partitions, self.domains)


def output_topics(plan: Plan) -> tuple[str, ...]:
    """Topics that domains write, besides the internal ones."""
    made = {name for group in plan.groups for name in (*results_of(group.ruleset), *group.exports)}
    formed = (TOPOLOGY,) if plan.forming else ()
    return (MULTI_EVENTS, ALERTS, LATE, DEAD_LETTERS, *formed, *(metrics_topic(name) for name in sorted(made)))


def sink_streams(settings: Settings, kind: SinkType) -> tuple[str, ...]:
    """Streams that a kind of sink reads."""
    if kind.streams is not None:
        return tuple(kind.streams() if callable(kind.streams) else kind.streams)
    if settings.streams:
        return settings.streams
    own = () if kind.own_streams is None else kind.own_streams()
    return tuple(dict.fromkeys((*(event_type.stream for event_type in CATALOG), *own)))


def unread_streams(settings: Settings, kind: SinkType) -> list[str]:
    """Streams for which a kind of sink has a place of the user's own, and that it does not read."""
    own = () if kind.own_streams is None else kind.own_streams()
    read = set(sink_streams(settings, kind))
    return [stream for stream in own if stream not in read]


def unstored_streams(settings: Settings, kind: SinkType) -> list[str]:
    """Sentences on the streams that the settings name and of which a kind of sink writes nothing."""
    if kind.streams is not None or kind.unstored is None:
        return []
    found = {stream: kind.unstored(stream) for stream in settings.streams}
    return [
        f"ASTROCYTE_STREAMS names stream {stream!r}, of which nothing is written here: {reason}"
        for stream, reason in found.items()
        if reason is not None
    ]


def results_of(ruleset: RuleSet) -> list[str]:
    """Streams of results: of windows and of statistics."""
    return [each.name for each in (*ruleset.windows, *ruleset.insight)]


def sink_topics(settings: Settings, kind: SinkType, contracts: Contracts, results: Iterable[str]) -> list[str]:
    """Topics that a kind of sink reads, with the streams of `results_of`. Raises InvalidSettings if there are none."""
    topics = [contracts.topic_of(stream) for stream in sink_streams(settings, kind)]
    if kind.windows:
        topics += [metrics_topic(name) for name in results]
    topics += [topic for topic, record in RECORD_TOPICS.items() if kind.records is None or record in kind.records]
    if kind.audited:
        topics += [RULES, *(control_topic(name) for name in CONTROLLERS.names())]
    if not topics:
        raise InvalidSettings("the sink reads no streams and no records; give register_sink streams=... or records=...")
    return topics


def role_topics(settings: Settings, plan: Plan, contracts: Contracts) -> tuple[str, ...]:
    """Topics, other than those of one partition, that the roles of the settings read or write.

    Roles of your own are not known here; they check their topics when they start.
    """
    topics: list[str] = []
    results = [name for group in plan.groups for name in results_of(group.ruleset)]
    for role in settings.roles:
        if role in ("correlate", "repartition", "insight"):
            sources = {*plan.copies.values(), *map(contracts.topic_of, settings.streams)}
            topics += [*plan.topics, *sorted(sources), *output_topics(plan)]
        elif role in SINKS:
            found = sink_topics(settings, SINKS.get(role), contracts, results)
            topics += [topic for topic in found if topic not in _SINGLE and not topic.startswith(CONTROL_PREFIX)]
    return tuple(dict.fromkeys(topics))


async def make_topics(
    settings: Settings, topics: Iterable[str], *, compacted: Iterable[str] = (), single: Iterable[str] = ()
) -> dict[str, int]:
    """Create missing topics with the partition count of the settings; ``single`` ones have one and are compacted.

    Returns the partition count of each: topics of others keep theirs. Raises InvalidSettings, before it creates
    anything, if a topic that the pipeline writes exists with another count.
    """
    fixed = dict.fromkeys((*_SINGLE, *single), 1)
    compacted = {*compacted, *single, RULES, STATS, SILENCES} - {CLOCK, SAMPLING}
    partitions = dict.fromkeys((*topics, *compacted), settings.partitions) | fixed
    config = {topic: _COMPACTED | _LARGE if topic in compacted else _LARGE for topic in partitions}

    def check(there: Mapping[str, int]) -> None:
        check_partitions(there, {topic: partitions[topic] for topic in there})

    found = await ensure_topics(
        settings.broker, partitions, replication=settings.replication, config=config, check=check
    )
    check(found)  # another client may have created one meanwhile
    return found


def new_declared_topics(contracts: Contracts, topics: Iterable[str], existing: Collection[str]) -> list[str]:
    """Sentences on topics that declarations name and that the broker does not have: a worker creates them, empty."""
    named = {each.topic: each.name for each in contracts.declared.values() if each.topic is not None}
    return [
        f"topic {topic!r}, which the declaration of stream {named[topic]!r} names, was not on the broker and is "
        f"created, empty{did_you_mean_topic(topic, existing)}"
        for topic in dict.fromkeys(topics)
        if topic in named and topic not in existing
    ]


def check_partitions(there: Mapping[str, int], wanted: Mapping[str, int]) -> None:
    """Compare the partition counts of the pipeline's own topics with those of the settings; others may have any.

    Raises InvalidSettings, with what to do.
    """
    own = {topic: wanted[topic] for topic in wanted if topic in there and (is_derived(topic) or topic in _SINGLE)}
    wrong = [topic for topic, count in own.items() if there[topic] != count]
    if not wrong:
        return
    single = [topic for topic in wrong if topic in _SINGLE]
    if single:
        raise InvalidSettings(
            f"topic {single[0]!r}: expected 1 partition, got {there[single[0]]}; its order is that of its messages: "
            "create it again with one, or use another broker"
        )
    counts: dict[int, list[str]] = {}
    expected = wanted[wrong[0]]
    for topic, count in own.items():
        if count == expected and topic not in _SINGLE:
            counts.setdefault(there[topic], []).append(topic)
    if len(counts) == 1:
        (count,) = counts
        raise InvalidSettings(
            f"topic {wrong[0]!r}: expected {expected} partitions, got {count}; the topics that the pipeline writes "
            f"have as many as it has domains: set ASTROCYTE_PARTITIONS={count}, or use another broker"
        )
    several = "; ".join(f"{count}: {_listed(topics)}" for count, topics in sorted(counts.items()))
    raise InvalidSettings(
        f"expected topics with {expected} partitions, got different numbers ({several}); the topics that the pipeline "
        "writes have the same number: delete those of one number, or use another broker"
    )


def _listed(topics: list[str]) -> str:
    return ", ".join(topics[:3]) + (f" and {len(topics) - 3} more" if len(topics) > 3 else "")


def mono_topics(streams: Iterable[str]) -> tuple[str, ...]:
    """Topics of the given streams."""
    return tuple(mono_topic(stream) for stream in streams)

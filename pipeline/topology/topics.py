"""The topics of the pipeline: partition counts and policies; topics are created before they are read or written."""

from __future__ import annotations

from collections.abc import Iterable

from astrocyte.pipeline.kafka.client import ensure_topics
from astrocyte.pipeline.settings import Settings
from astrocyte.pipeline.topology.plan import Plan
from astrocyte.schemas.errors import InvalidSettings
from astrocyte.schemas.topics import (
    ALERTS,
    CLOCK,
    DEAD_LETTERS,
    LATE,
    MULTI_EVENTS,
    RULES,
    SIMULATIONS,
    STATS,
    metrics_topic,
    mono_topic,
)

__all__ = ["make_topics", "mono_topics", "output_topics"]

_COMPACTED = {"cleanup.policy": "compact"}
_LARGE = {"max.message.bytes": str(32 << 20)}


def output_topics(plan: Plan) -> tuple[str, ...]:
    """Topics that domains write, besides the internal ones."""
    made = {window.name for group in plan.groups for window in group.ruleset.windows}
    made |= {name for group in plan.groups for name in group.exports}
    return (MULTI_EVENTS, ALERTS, LATE, DEAD_LETTERS, *(metrics_topic(name) for name in sorted(made)))


async def make_topics(
    settings: Settings, topics: Iterable[str], *, compacted: Iterable[str] = (), single: Iterable[str] = ()
) -> None:
    """Create missing topics with the partition count of the settings; ``single`` ones have one and are compacted.

    Raises InvalidSettings if a topic exists with another partition count.
    """
    fixed = dict.fromkeys((RULES, STATS, CLOCK, SIMULATIONS, *single), 1)
    compacted = {*compacted, *single, RULES, STATS} - {CLOCK}
    partitions = dict.fromkeys((*topics, *compacted), settings.partitions) | fixed
    config = {topic: _COMPACTED | _LARGE if topic in compacted else _LARGE for topic in partitions}
    found = await ensure_topics(settings.broker, partitions, replication=settings.replication, config=config)
    for topic, count in found.items():
        if count != partitions[topic]:
            raise InvalidSettings(
                f"topic {topic!r}: expected {partitions[topic]} partitions, got {count}; all topics of a "
                f"pipeline have the same number: set ASTROCYTE_PARTITIONS={count}, or use another broker or topic"
            )


def mono_topics(streams: Iterable[str]) -> tuple[str, ...]:
    """Topics of the given streams."""
    return tuple(mono_topic(stream) for stream in streams)

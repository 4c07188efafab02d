"""Rules that change while the pipeline runs: a compacted topic whose messages replace, add and remove rules.

The value of a message is a rule file (YAML or JSON); its key is a name of the sender's choice, and a later message with
the same key replaces it as a whole (an empty value removes it). A rule, window, statistic or declaration of the topic
replaces one of the same name in the worker's own files, and in what was published before it: the newest message wins.
Rules that cannot be compiled are refused; the previous ones stay in force.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from astrocyte.agents.loading import load_rules
from astrocyte.agents.rules.model import RuleSet
from astrocyte.pipeline.kafka.client import (
    BrokerUnavailable,
    consumer_client,
    producer_client,
    scan,
    topic_partitions,
)
from astrocyte.pipeline.settings import Settings
from astrocyte.pipeline.topology.overrides import OWN_FILES, Origins, origin_changes, origins_of, published_label
from astrocyte.pipeline.topology.plan import checked_plan
from astrocyte.pipeline.topology.topics import make_topics
from astrocyte.schemas.errors import InvalidRule, InvalidSettings
from astrocyte.schemas.registry import did_you_mean
from astrocyte.schemas.topics import RULES

__all__ = [
    "LiveRules",
    "RuleChange",
    "check_published",
    "check_together",
    "follow_rules",
    "load_live_rules",
    "publish_files",
    "published_files",
    "published_rules",
]

logger = logging.getLogger(__name__)

_RETRY_S: Final = 0.5


@dataclass(frozen=True, slots=True)
class RuleChange:
    """Result of one message: the rule set now in force, and the reason if the message was refused."""

    key: str
    ruleset: RuleSet
    refused: str | None = None


@dataclass(slots=True)
class LiveRules:
    """The rule set in force: the worker's own files, overridden by the messages of the topic."""

    base: RuleSet
    accept: Callable[[RuleSet], object] = lambda _ruleset: None
    """Called with a candidate; raises InvalidRule if it cannot run."""
    _parts: dict[str, RuleSet] = field(default_factory=dict)
    """Published files, in the order of their newest messages, which compaction of the topic keeps."""
    _logged: Origins = field(default_factory=dict)

    @property
    def ruleset(self) -> RuleSet:
        """The rules in force now."""
        return _merge(self.base, self._parts.values())

    @property
    def origins(self) -> Origins:
        """Which of its files each rule in force is from."""
        return origins_of(
            ((OWN_FILES, self.base), *((published_label(key), each) for key, each in self._parts.items()))
        )

    def log_origins(self) -> None:
        """Log which files override others, as far as that has changed since the last call."""
        now = self.origins
        for line in origin_changes(self._logged, now):
            logger.info("in force: %s", line)
        self._logged = now

    def apply(self, key: str, value: bytes | None) -> RuleChange:
        """Apply one message; an invalid one changes nothing and is logged."""
        try:
            return RuleChange(key, self.take(key, value))
        except (InvalidRule, UnicodeDecodeError) as error:
            logger.error("rules %r were refused, the previous ones stay in force: %s", key, error)
            return RuleChange(key, self.ruleset, str(error))

    def take(self, key: str, value: bytes | None) -> RuleSet:
        """Apply one message, and return the rules now in force. Raises InvalidRule or UnicodeDecodeError instead."""
        parts = {other: each for other, each in self._parts.items() if other != key}
        if value:
            parts[key] = load_rules(value.decode())
        candidate = _merge(self.base, parts.values())
        self.accept(candidate)
        self._parts = parts
        return candidate


def _merge(base: RuleSet, parts: Iterable[RuleSet]) -> RuleSet:
    merged: dict[str, dict[str, Any]] = {name: {} for name in RuleSet.model_fields}
    for each in (base, *parts):
        for name, items in merged.items():
            for index, item in enumerate(getattr(each, name)):
                items[getattr(item, "name", f"{id(each)}/{index}")] = item
    return RuleSet(**{name: tuple(items.values()) for name, items in merged.items()})


async def load_live_rules(broker: str, live: LiveRules) -> int:
    """Apply the present messages of the topic; returns the offset after them. A missing topic counts as empty."""
    from aiokafka import TopicPartition

    place = TopicPartition(RULES, 0)
    async with consumer_client(broker) as consumer:
        if RULES not in await consumer.topics():
            return 0
        consumer.assign([place])
        end: int = (await consumer.end_offsets([place]))[place]
        await consumer.seek_to_beginning(place)
        while await consumer.position(place) < end:
            for messages in (await consumer.getmany(place, timeout_ms=1000)).values():
                for message in messages:
                    live.apply((message.key or b"").decode(errors="replace"), message.value)
        live.log_origins()
        return end


async def follow_rules(broker: str, live: LiveRules, start: int) -> AsyncIterator[RuleChange]:
    """Apply each message from offset ``start`` on, and yield its result; waits while the broker is unavailable."""
    from aiokafka import TopicPartition

    place, position = TopicPartition(RULES, 0), start
    while True:
        try:
            async with consumer_client(broker) as consumer:
                consumer.assign([place])
                consumer.seek(place, position)
                while True:
                    for messages in (await consumer.getmany(place, timeout_ms=1000)).values():
                        for message in messages:
                            position = message.offset + 1
                            change = live.apply((message.key or b"").decode(errors="replace"), message.value)
                            live.log_origins()
                            yield change
        except BrokerUnavailable as error:
            # The consumer of the role reports it.
            logger.debug("rules are not followed now: %s", error)
            await asyncio.sleep(_RETRY_S)


async def published_files(broker: str) -> dict[str, bytes]:
    """Rule files on the topic by the names under which they were published, in the order of publishing."""
    newest: dict[str, bytes] = {}
    if RULES in await topic_partitions(broker):
        async with consumer_client(broker) as client:
            async for records in scan(client, {RULES: 1}):
                for each in records:
                    name = (each.key or b"").decode("utf-8", "replace")
                    newest.pop(name, None)  # a dictionary keeps the place of a key that is set again
                    newest[name] = each.value or b""
    return {name: text for name, text in newest.items() if text}


def published_rules(published: Mapping[str, bytes], accept: Callable[[RuleSet], object]) -> LiveRules:
    """What is published, in the order of `published_files`, without what workers have refused."""
    live = LiveRules(RuleSet(), accept)
    for name, text in published.items():
        with contextlib.suppress(InvalidRule, UnicodeDecodeError):
            live.take(name, text)
    return live


def check_together(
    published: Mapping[str, bytes], files: Mapping[str, bytes], accept: Callable[[RuleSet], object]
) -> LiveRules:
    """The rules that run once files are published beside others; one of a published name replaces that.

    ``accept`` as for `LiveRules`. Raises InvalidRule, naming the file.
    """
    live = published_rules({name: text for name, text in published.items() if name not in files}, accept)
    for name, text in files.items():
        try:
            live.take(name, text)
        except (InvalidRule, UnicodeDecodeError) as error:
            raise InvalidRule(f"rule file {name!r} cannot run with what is published: {error}") from None
    return live


async def publish_files(
    settings: Settings, published: Mapping[str, bytes], files: Mapping[str, bytes], removed: Iterable[str] = ()
) -> None:
    """Send rule files to the topic, and remove others, for running workers.

    ``published`` are those of `published_files`, beside which the files must be able to run. Raises InvalidRule.
    """
    removed = list(removed)
    stays = {name: text for name, text in published.items() if name not in removed}
    if files:
        check_together(stays, files, checked_plan)
    await make_topics(settings, ())
    async with producer_client(settings.broker) as producer:
        for name, text in (*files.items(), *((name, None) for name in removed)):
            await producer.send_and_wait(RULES, text, key=name.encode(), partition=0)


async def check_published(broker: str, names: Iterable[str]) -> None:
    """Raises InvalidSettings for a name under which no rule file is published, or none any more."""
    published = list(await published_files(broker))
    for name in names:
        if name not in published:
            raise InvalidSettings(
                f"no rule file {name!r} is published; published are {', '.join(published) or 'none'}"
                f"{did_you_mean(name, published)}"
            )

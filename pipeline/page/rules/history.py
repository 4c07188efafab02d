"""The messages over which rules are tried: a recorded log, or the topics of a broker, read back into memory."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from astrocyte.agents.ingest.decoders import Decoders
from astrocyte.agents.rules.model import RuleSet
from astrocyte.pipeline.analysis.history.tapes import HistoryInputs, TooLarge
from astrocyte.pipeline.analysis.inputs import Inputs, Survey, survey
from astrocyte.pipeline.analysis.score import Planted, planted_in, planted_of
from astrocyte.pipeline.kafka.client import consumer_client, record_of, topic_partitions
from astrocyte.pipeline.kafka.record import ConsumedRecord
from astrocyte.pipeline.recording.event_files import form_of
from astrocyte.pipeline.recording.reader import read_log
from astrocyte.pipeline.topology.plan import contracts_of, decoders_of
from astrocyte.schemas.topics import TRUTH, is_derived, mono_topic

__all__ = ["BrokerMessages", "LogMessages", "Messages", "messages_of"]

_IDLE_S: Final = 5.0
"""How long a partition of a broker may say nothing before its end."""


@dataclass(slots=True)
class LogMessages:
    """One recorded log, which is surveyed once and read for each set of tapes."""

    path: Path
    _survey: Survey | None = None

    def inputs(self, ruleset: RuleSet) -> HistoryInputs:
        """Its messages for a rule set."""
        if form_of(self.path) != "log":
            return Inputs(ruleset, [self.path])
        if self._survey is None:
            self._survey = survey([self.path])
        return _Given(self._survey, _decoders(ruleset, self._survey), lambda: read_log(self.path))

    def planted(self) -> list[Planted]:
        """Planted anomalies of a simulation."""
        return planted_in(self.path) if form_of(self.path) == "log" else []


@dataclass(slots=True)
class BrokerMessages:
    """The topics of events of a broker, as they were when they were read, of the last ``since_us`` (None: all).

    Raises TooLarge beyond ``most_bytes`` of keys and values.
    """

    broker: str
    since_us: int | None
    domains: int
    inputs_wanted: Collection[str]
    most_bytes: int
    _records: list[ConsumedRecord] = field(default_factory=list)
    _survey: Survey | None = None

    def inputs(self, ruleset: RuleSet) -> HistoryInputs:
        """Its messages for a rule set."""
        if self._survey is None:
            self._survey = asyncio.run(self._read())
        return _Given(self._survey, _decoders(ruleset, self._survey), lambda: iter(self._records))

    def planted(self) -> list[Planted]:
        """Planted anomalies of a simulation."""
        topic = mono_topic(TRUTH)
        return planted_of(record for record in self._records if record.topic == topic)

    async def _read(self) -> Survey:
        from aiokafka import TopicPartition

        there = await topic_partitions(self.broker)
        topics = {
            topic: count
            for topic, count in there.items()
            if topic in self.inputs_wanted or (topic.startswith("mono.") and not is_derived(topic))
        }
        found = Survey(partitions=dict(topics), domains=self.domains)
        places = [TopicPartition(topic, number) for topic, count in topics.items() for number in range(count)]
        if not places:
            return found
        size = 0
        async with consumer_client(self.broker) as client:
            client.assign(places)
            begins, ends = await client.beginning_offsets(places), await client.end_offsets(places)
            if self.since_us is not None:
                since_ms = int(time.time() * 1000 - self.since_us / 1000)
                for place, first in (await client.offsets_for_times(dict.fromkeys(places, since_ms))).items():
                    begins[place] = ends[place] if first is None else first.offset
            left = {place for place in places if begins[place] < ends[place]}
            for place in places:
                client.seek(place, begins[place])
            while left:
                batch = await client.getmany(timeout_ms=int(_IDLE_S * 1000))
                if not batch:
                    break
                for place, messages in batch.items():
                    for message in messages:
                        if message.offset < ends[place]:
                            self._records.append(record_of(message))
                            size += len(message.value or b"") + len(message.key or b"")
                    if messages[-1].offset + 1 >= ends[place]:
                        left.discard(place)
                if size > self.most_bytes:
                    raise TooLarge
        # As they came: the partitions of a topic, and topics among each other, in the order of Kafka's times.
        self._records.sort(key=lambda record: record.timestamp_ms)
        for record in self._records:
            found.places.add((record.topic, record.partition))
            found.topics[record.topic] = found.topics.get(record.topic, 0) + 1
        found.records = len(self._records)
        return found


Messages = LogMessages | BrokerMessages


@dataclass(frozen=True, slots=True)
class _Given:
    found: Survey
    decoders: Decoders
    _open: Any

    def records(self) -> Iterator[ConsumedRecord]:
        return iter(self._open())


def _decoders(ruleset: RuleSet, found: Survey) -> Decoders:
    return decoders_of(contracts_of(ruleset, existing=found.partitions))


def messages_of(body: Mapping[str, Any]) -> Messages:
    """The messages that a question names: ``log``, or ``broker`` with what belongs to it."""
    if "log" in body:
        return LogMessages(Path(body["log"]))
    return BrokerMessages(
        body["broker"], body["since_us"], body["domains"], frozenset(body["inputs"]), body["most_bytes"]
    )

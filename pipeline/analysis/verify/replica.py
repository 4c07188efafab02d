"""What a sink role should have stored: the same code that writes the store, run over the same messages."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import count
from types import SimpleNamespace
from typing import Any, Final

import numpy as np

from astrocyte.agents.accounting import DomainOutput
from astrocyte.agents.rules.model import RuleSet
from astrocyte.agents.sinks.base import Sink
from astrocyte.agents.sinks.registry import SINKS
from astrocyte.pipeline.analysis.verify.bodies import item_of, window_items
from astrocyte.pipeline.analysis.verify.outputs import Outputs
from astrocyte.pipeline.kafka.record import ConsumedRecord
from astrocyte.pipeline.recording.frames import raw_record
from astrocyte.pipeline.roles.acceptance import Acceptance
from astrocyte.pipeline.roles.output_records import producer_records
from astrocyte.pipeline.roles.sink.runner import SinkRunner
from astrocyte.pipeline.settings import Settings
from astrocyte.pipeline.topology.plan import contracts_of, decoders_of
from astrocyte.pipeline.topology.topics import results_of, sink_streams, sink_topics
from astrocyte.pipeline.transport.producer_record import ProducerRecord
from astrocyte.schemas.frames import decode_frame, encode_frame
from astrocyte.schemas.json.reader import RawRecord
from astrocyte.schemas.topics import METRICS_PREFIX, is_derived

__all__ = ["Positions", "Replica", "stored_topics"]

Positions = Mapping[tuple[str, int], int]
"""Next offset of each topic and partition: what is before it was processed."""
_CHUNK: Final = 512
_CHUNK_BYTES: Final = 8 << 20
_ACKNOWLEDGED: Final = SimpleNamespace(ack_through=lambda: True)


def stored_topics(role: str, settings: Settings, ruleset: RuleSet, existing: Mapping[str, int]) -> list[str]:
    """Topics that the sink of a role reads."""
    kind = SINKS.get(role)
    contracts = contracts_of(ruleset, existing=existing, streams=sink_streams(settings, kind))
    return sink_topics(settings, kind, contracts, results_of(ruleset))


@dataclass(slots=True)
class _Part:
    """A runner that writes to a sink, and the messages that wait for it."""

    runner: SinkRunner
    waiting: dict[tuple[str, int], list[Any]] = field(default_factory=dict)
    bytes: int = 0


class Replica:
    """Runs the sink ``must`` over what the store of a role must hold, and ``may`` over what it may hold besides.

    ``positions`` say how far the store was written; None: everything was. Letters that the role writes itself are
    passed to ``on_letter``, with whether they are due. `open` must be called first, `close` at the end.
    """

    def __init__(
        self,
        role: str,
        must: Sink,
        may: Sink | None,
        *,
        settings: Settings,
        ruleset: RuleSet,
        existing: Mapping[str, int],
        positions: Positions | None,
        on_letter: Callable[[ProducerRecord, bool], None],
    ) -> None:
        self.role = role
        self.topics = frozenset(stored_topics(role, settings, ruleset, existing))
        self.newest_ms = 0
        """Kafka's time of the newest message that was given."""
        self._positions = positions
        self._partitions = settings.partitions
        self._loop = asyncio.Runner()
        self._sinks = [must] if may is None else [must, may]
        contracts = contracts_of(ruleset, existing=existing, streams=sink_streams(settings, SINKS.get(role)))

        self._parts = [
            _Part(
                SinkRunner(
                    sink, _deliver(on_letter, due=not number), partitions=settings.partitions, stage=role,
                    decoders=decoders_of(contracts), acceptance=Acceptance(ruleset),
                )
            )
            for number, sink in enumerate(self._sinks)
        ]  # fmt: skip
        self._numbers = count()

    def open(self) -> None:
        """Open the sinks."""
        for sink in self._sinks:
            self._loop.run(sink.open())

    def message(self, record: ConsumedRecord) -> None:
        """Take a message that others wrote."""
        if record.topic in self.topics and not is_derived(record.topic):
            self.newest_ms = max(self.newest_ms, record.timestamp_ms)
            self._put(record.topic, record.partition, raw_record(record), self._reached(record))

    def letter(self, record: ConsumedRecord) -> None:
        """Take a message of an output topic that no rule makes, such as a dead letter of a sink."""
        if record.topic in self.topics:
            self._put(record.topic, record.partition, raw_record(record), self._reached(record))

    def output(self, output: DomainOutput, partition: int, outputs: Outputs, *, due: bool) -> None:
        """Take what a domain made; whether the store must hold it follows from where it was found in its topic."""
        for (topic, number), records in producer_records(output, partition, self._partitions).items():
            for record in records:
                if topic in self.topics:
                    self.record(record, number, outputs, due=due)

    def record(self, record: ProducerRecord, partition: int, outputs: Outputs, *, due: bool) -> None:
        """The same of one record of an output topic."""
        topic = record.topic
        if topic.startswith(METRICS_PREFIX):
            self._window(topic, partition, record, outputs, due=due)
            return
        raw = RawRecord(0, self.newest_ms, record.key, record.value, tuple(record.headers))
        self._put(topic, partition, raw, self._is_due(outputs, topic, item_of(topic, raw).identity, due=due))

    def finish(self) -> None:
        """Write everything that waits."""
        for part in self._parts:
            self._flush(part)
            self._loop.run(part.runner.finish())

    def close(self) -> None:
        """Close the sinks."""
        for sink in self._sinks:
            self._loop.run(sink.close())
        self._loop.close()

    def _window(self, topic: str, number: int, record: ProducerRecord, outputs: Outputs, *, due: bool) -> None:
        frame = decode_frame(record.value or b"")
        levels = np.array([self._is_due(outputs, topic, item.identity, due=due) for item in window_items(frame)], bool)
        for level in (True, False):
            rows = np.flatnonzero(levels == level)
            if len(rows):
                part = frame if len(rows) == frame.num_rows else frame.take(rows)
                value = encode_frame(replace(part, watermark_us=None))
                self._put(topic, number, RawRecord(0, self.newest_ms, None, value, tuple(record.headers)), level)

    def _is_due(self, outputs: Outputs, topic: str, identity: str, *, due: bool) -> bool:
        seen = outputs.seen(topic, identity)
        if not seen.times:
            return due
        return self._positions is None or seen.offset < self._positions.get((topic, seen.partition), 0)

    def _reached(self, record: ConsumedRecord) -> bool:
        return self._positions is None or record.offset < self._positions.get((record.topic, record.partition), 0)

    def _put(self, topic: str, partition: int, raw: RawRecord, due: bool) -> None:
        if not due and len(self._parts) == 1:
            return
        part = self._parts[0 if due else 1]
        if is_derived(topic):
            raw = raw._replace(offset=next(self._numbers))
        part.waiting.setdefault((topic, partition), []).append(raw)
        part.bytes += len(raw.value or b"")
        if part.bytes > _CHUNK_BYTES or len(part.waiting[topic, partition]) >= _CHUNK:
            self._flush(part)

    def _flush(self, part: _Part) -> None:
        waiting, part.waiting, part.bytes = part.waiting, {}, 0
        for (topic, partition), raws in waiting.items():
            self._loop.run(_handle(part.runner, topic, partition, raws))


def _deliver(
    on_letter: Callable[[ProducerRecord, bool], None], *, due: bool
) -> Callable[[Iterable[ProducerRecord]], Awaitable[None]]:
    async def deliver(records: Iterable[ProducerRecord]) -> None:
        for record in records:
            on_letter(record, due)

    return deliver


async def _handle(runner: SinkRunner, topic: str, partition: int, raws: Sequence[Any]) -> None:
    await runner.handle(SimpleNamespace(topic=topic, partition=partition), _ACKNOWLEDGED, raws)  # type: ignore[arg-type]

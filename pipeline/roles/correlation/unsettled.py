"""Provisional matches that an earlier life of a domain put out, and of which its snapshot knows nothing.

A worker that is killed may have put out matches of eventual rules since its last snapshot. Its next life reads the same
events, but in other portions, so it need not make the same matches on arrival. Those that it does not make again it
could neither confirm nor retract; so it reads from its own output what is not settled, and retracts in time what the
ordered pass does not make.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection, Iterable
from typing import Any, Final

import orjson

from astrocyte.agents.domain import Domain, DomainOutput
from astrocyte.agents.engine.arrival.early import is_eventual
from astrocyte.agents.engine.arrival.provisional import held_us
from astrocyte.pipeline.kafka.client import consumer_client, scan, topic_partitions
from astrocyte.pipeline.kafka.offsets import Start
from astrocyte.pipeline.kafka.record import ConsumedRecord, status_of
from astrocyte.schemas.errors import InvalidEvent
from astrocyte.schemas.json.reader import JsonRecord
from astrocyte.schemas.times import time_us
from astrocyte.schemas.topics import ALERTS, MULTI_EVENTS

__all__ = ["OutputReader", "Unsettled", "has_eventual", "output_since", "recalled"]

OutputReader = Callable[[int, int], AsyncIterator[list[ConsumedRecord]]]
"""What a domain has put out of matches and alerts, in order: its partition, and from when on (microseconds)."""

_MARGIN_US: Final = 5_000_000
"""By how much the clocks of two workers and of the broker may differ."""


class Unsettled:
    """Provisional matches and alerts that are neither confirmed nor retracted nor known to the domain, by their ids."""

    def __init__(self, since_us: int = 0) -> None:
        self._open: dict[bytes, ConsumedRecord] = {}
        self._since_us = since_us

    def read(self, records: Iterable[ConsumedRecord], rules: Collection[str]) -> None:
        """Take what was put out, in order: of a match the last message counts.

        Only matches of ``rules`` are settled here: other groups of workers may write to the same topics.
        """
        for record in records:
            self._open.pop(_id(record.headers), None)
            if status_of(record) == "provisional" and _about(record)[0] in rules:
                self._open[_id(record.headers)] = record

    def __len__(self) -> int:
        return len(self._open)

    def since_us(self, now_us: int) -> int:
        """From when on the next life of the domain has to read its output."""
        return self._since_us if self._open else now_us

    def settle(self, output: DomainOutput, domain: Domain) -> DomainOutput:
        """The output with what it must retract, now that event time has passed it; what it names is settled."""
        if not self._open:
            return output
        for made in (*output.multi_events, *output.alerts):
            self._open.pop(_id(made.headers), None)
        rules = {rule.name: rule for group in domain.groups for rule in group.engine.ruleset.rules}
        for identity, record in list(self._open.items()):
            rule, at_us = _about(record)
            held = held_us(rules[rule]) if rule in rules else 0
            if rule in output.ended or at_us + held < domain.watermark_us:
                del self._open[identity]
                retracted = JsonRecord(record.key, record.value or b"", _retracted(record))
                (output.alerts if record.topic == ALERTS else output.multi_events).append(retracted)
        return output


def has_eventual(domain: Domain) -> bool:
    """Whether any of its rules is eventual."""
    engines = [group.engine for group in domain.groups]
    return any(is_eventual(rule, engine.consistency) for engine in engines for rule in engine.rules)


async def recalled(read: OutputReader | None, domain: Domain, emitted_us: int) -> Unsettled:
    """What is not settled of the output of a domain since ``emitted_us``, which is negative if none was provisional."""
    found = Unsettled(abs(emitted_us))
    if read is not None and (emitted_us > 0 or has_eventual(domain)):
        rules = {rule.name for group in domain.groups for rule in group.engine.rules}
        async for records in read(domain.partition, max(abs(emitted_us) - _MARGIN_US, 0)):
            found.read(records, rules)
    return found


async def output_since(broker: str, partition: int, since_us: int) -> AsyncIterator[list[ConsumedRecord]]:
    """Matches and alerts that a domain has put out, in the order of each topic."""
    there = await topic_partitions(broker)
    for topic in (MULTI_EVENTS, ALERTS):
        if topic not in there:
            continue
        async with consumer_client(broker) as client:
            start = Start("time", since_us // 1000)
            own = [partition % there[topic]]
            async for records in scan(client, {topic: there[topic]}, start=start, partitions=own):
                yield records


def _id(headers: Iterable[tuple[str, Any]]) -> bytes:
    return next((bytes(value) for name, value in headers if name == "ce_id" and value is not None), b"")


def _about(record: ConsumedRecord) -> tuple[str, int]:
    """Rule and time of a match or an alert; what cannot be read is of no rule, and over."""
    try:
        body = orjson.loads(record.value or b"")
        return str(body["rule" if record.topic == ALERTS else "correlation_rule"]), time_us(body["timestamp"])
    except (orjson.JSONDecodeError, InvalidEvent, KeyError, TypeError):
        return "", -(2**62)


def _retracted(record: ConsumedRecord) -> list[tuple[str, bytes]]:
    changed = {"ce_status": b"retracted", "ce_provisional": b"false"}
    return [(name, changed.get(name, value or b"")) for name, value in record.headers]

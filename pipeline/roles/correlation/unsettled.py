"""Provisional matches that an earlier life of a domain put out, and of which its snapshot knows nothing.

A worker that is killed may have put out matches of eventual rules since its last snapshot. Its next life reads the same
events, but in other portions, so it need not make the same matches on arrival. Those that it does not make again it
could neither confirm nor retract; so it reads from its own output what is not settled, and retracts in time what the
ordered pass does not make.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Final

import orjson

from astrocyte.agents.domain import Domain, DomainOutput
from astrocyte.agents.engine.arrival.provisional import held_us
from astrocyte.pipeline.kafka.client import consumer_client, scan, topic_partitions
from astrocyte.pipeline.kafka.offsets import Start
from astrocyte.pipeline.kafka.record import ConsumedRecord, status_of
from astrocyte.schemas.errors import InvalidEvent
from astrocyte.schemas.json.reader import JsonRecord
from astrocyte.schemas.times import time_us
from astrocyte.schemas.topics import ALERTS, MULTI_EVENTS

__all__ = ["OutputReader", "Unsettled", "is_eventual", "output_since", "recalled"]

OutputReader = Callable[[int, int], Awaitable[list[ConsumedRecord]]]
"""What a domain has put out of matches and alerts: its partition, and from when on (microseconds)."""

_MARGIN_US: Final = 5_000_000
"""By how much the clocks of two workers and of the broker may differ."""


class Unsettled:
    """Provisional matches and alerts that are neither confirmed nor retracted nor known to the domain, by their ids."""

    def __init__(self, records: Iterable[ConsumedRecord] = (), since_us: int | None = None) -> None:
        found: dict[bytes, ConsumedRecord] = {}
        for record in records:
            found.pop(_id(record.headers), None)
            if status_of(record) == "provisional":
                found[_id(record.headers)] = record
        self._open = found
        self._since_us = since_us

    def __len__(self) -> int:
        return len(self._open)

    def since_us(self, now_us: int) -> int:
        """From when on the next life of the domain has to read its output."""
        return now_us if not self._open or self._since_us is None else self._since_us

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


def is_eventual(domain: Domain) -> bool:
    """Whether any of its rules is eventual."""
    return any(
        (rule.consistency or group.engine.consistency) == "eventual"
        for group in domain.groups
        for rule in group.engine.ruleset.rules
    )


async def recalled(read: OutputReader | None, domain: Domain, emitted_us: int) -> Unsettled:
    """What is not settled of the output of a domain since ``emitted_us``, which is negative if none was provisional."""
    if read is None or (emitted_us <= 0 and not is_eventual(domain)):
        return Unsettled()
    since_us = abs(emitted_us)
    return Unsettled(await read(domain.partition, max(since_us - _MARGIN_US, 0)), since_us)


async def output_since(broker: str, partition: int, since_us: int) -> list[ConsumedRecord]:
    """Matches and alerts with a status in the output of a domain, in the order of each topic."""
    there = await topic_partitions(broker)
    found: list[ConsumedRecord] = []
    for topic in (MULTI_EVENTS, ALERTS):
        if topic not in there:
            continue
        async with consumer_client(broker) as client:
            start = Start("time", since_us // 1000)
            own = [partition % there[topic]]
            async for records in scan(client, {topic: there[topic]}, start=start, partitions=own):
                found += [record for record in records if status_of(record) != "final"]
    return found


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

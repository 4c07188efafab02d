"""How soon a lone alert comes: from the sending of an event to the record in ``alerts``, through one worker."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from typing import Any, Final

import numpy as np
import orjson

from astrocyte.pipeline.bench.pipeline import correlating, own_topics
from astrocyte.pipeline.settings import Settings
from astrocyte.schemas.topics import ALERTS, mono_topic

__all__ = ["run"]

_RULES: Final = """
rules:
  - name: one_event
    seq: [{as: a, stream: readings, where: "heat > 90"}]
    alert: {severity: critical, message: "{a.heat}"}
  - name: two_events
    within: 1m
    seq: [{as: a, stream: readings, where: "heat < 0"}, {as: b, stream: readings, where: "heat < a.heat"}]
    alert: {severity: critical, message: "{b.heat}"}
"""
_HEATS: Final = {"one_event": (99.0,), "two_events": (-1.0, -2.0)}
"""Events that make a match of each rule."""
_SETTINGS: Final[dict[str, dict[str, Any]]] = {
    "default": {},
    "idle_timeout_1s": {"idle_timeout": "1s"},
    "eventual": {"consistency": "eventual"},
}
_TIMEOUT_S: Final = 120.0


async def _delays(settings: Settings, heats: tuple[float, ...], times: int) -> list[float]:
    """Seconds to each of the alerts after the first, which waits until the worker has begun."""
    from aiokafka import TopicPartition

    from astrocyte.pipeline.kafka.client import consumer_client, producer_client

    delays: list[float] = []
    async with producer_client(settings.broker) as producer, consumer_client(settings.broker) as consumer:
        place = TopicPartition(ALERTS, 0)
        consumer.assign([place])
        await consumer.seek_to_end(place)
        for number in range(times + 1):
            for heat in heats:
                body = {"timestamp": time.time_ns() // 1000, "heat": heat}
                await producer.send_and_wait(mono_topic("readings"), orjson.dumps(body), key=b"%d" % number)
            began = time.monotonic()
            await asyncio.wait_for(consumer.getone(place), _TIMEOUT_S)
            delays.append(time.monotonic() - began)
    return delays[1:]


def _measure(rule: str, changed: dict[str, Any], times: int) -> dict[str, Any]:
    with own_topics(_RULES, ["readings"], **changed) as settings, correlating(settings):
        delays = asyncio.run(_delays(settings, _HEATS[rule], times))
    return {"alerts": times, "p50_s": float(np.median(delays)), "max_s": max(delays)}


def run(quick: bool) -> Iterator[dict[str, Any]]:
    """Delay of lone alerts at default settings and others, over one event and over two, after which nothing comes."""
    times = 2 if quick else 10
    yield {"bench": "alerts/one_event", **_measure("one_event", {}, times)}
    for name, changed in _SETTINGS.items():
        yield {"bench": f"alerts/two_events_{name}", **_measure("two_events", changed, times)}

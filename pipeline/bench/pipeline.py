"""The whole path of one worker, from Kafka to multi events, with frames and with one JSON record per message.

The topics are filled first; then a worker starts, and the time from its first to its last snapshot is measured.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from astrocyte.pipeline.broker import BrokerProcess
from astrocyte.pipeline.roles.health import group_lag
from astrocyte.pipeline.roles.parent import killed_with_parent
from astrocyte.pipeline.roles.worker import environment_of, worker_command
from astrocyte.pipeline.settings import Settings, load_settings
from astrocyte.pipeline.simulation.publish import Form, KafkaSink
from astrocyte.pipeline.topology.topics import make_topics, mono_topics
from astrocyte.schemas.frames import Frame
from astrocyte.schemas.topics import ALERTS, DEAD_LETTERS, LATE, MULTI_EVENTS, STATS

__all__ = ["correlating", "own_topics", "run"]

_RULES = """
rules:
  - name: type_A_and_B_within_2s
    by: key
    within: 2s
    all:
      - {as: a, stream: axon_1, where: "type == 'A' and value > 0.86"}
      - {as: b, stream: axon_2, where: "type == 'B' and value > 0.86"}
    emit: {integrated_value: "a.value + b.value"}
"""
_STREAMS = ("axon_1", "axon_2")
_START_US = 1_735_689_600_000_000
_TIMEOUT_S = 300.0


def _frames(events: int, rows: int, keys: int) -> Iterator[Frame]:
    """Two streams of events with random key and type, 0.5 events/s for each key."""
    random = np.random.default_rng(3)
    names = pa.array([f"d{index:06d}" for index in range(keys)])
    kinds = pa.array(["A", "B", "C"])
    step_us = 2_000_000 / keys
    count = events // rows // len(_STREAMS)
    for number in range(count):
        last = number == count - 1
        for stream in _STREAMS:
            first = number * rows
            times = _START_US + ((first + np.arange(rows)) * step_us * 2).astype(np.int64)
            columns = {
                "timestamp": times,
                "key": pa.DictionaryArray.from_arrays(pa.array(random.integers(0, keys, rows).astype(np.int32)), names),
                "type": pa.DictionaryArray.from_arrays(pa.array(random.integers(0, 3, rows).astype(np.int32)), kinds),
                "value": random.random(rows),
            }
            meta = {"origin": "bench", "peers": _STREAMS, "watermark_us": int(times[-1]) + 1, "end": last}
            yield Frame.from_columns(stream, "bench", columns, first_seq=first, **meta)


async def _stats(settings: Settings) -> dict[str, int]:
    from aiokafka import TopicPartition

    from astrocyte.pipeline.kafka.client import consumer_client

    totals: dict[str, int] = {}
    async with consumer_client(settings.broker) as consumer:
        place = TopicPartition(STATS, 0)
        consumer.assign([place])
        end = (await consumer.end_offsets([place]))[place]
        if end:
            consumer.seek(place, end - 1)
            message = await consumer.getone(place)
            totals = json.loads(message.value or b"{}")
    return totals


def _measure(form: Form, events: int, rows: int, keys: int) -> dict[str, Any]:
    with own_topics(_RULES, _STREAMS, snapshot_interval="500ms") as settings:
        emitted = 0
        with KafkaSink(settings.broker, partitions=1, form=form) as sink:
            for frame in _frames(events, rows, keys):
                sink.write(frame)
                emitted += frame.num_rows
        with correlating(settings) as worker:
            return _watch(settings, worker, emitted) | {"keys": keys, "form": form}


@contextmanager
def own_topics(rules: str, streams: Sequence[str], **changed: Any) -> Iterator[Settings]:
    """Settings of a pipeline of one partition, over a broker of its own that has its topics."""
    with tempfile.TemporaryDirectory(prefix="astrocyte-bench-") as folder:
        file = Path(folder) / "rules.yaml"
        file.write_text(rules)
        with BrokerProcess(Path(folder) / "broker") as broker:
            settings = load_settings(
                broker=broker.address, partitions=1, group="bench", rules=(file,), streams=streams, **changed
            )
            asyncio.run(make_topics(settings, [*mono_topics(streams), MULTI_EVENTS, ALERTS, LATE, DEAD_LETTERS]))
            yield settings


@contextmanager
def correlating(settings: Settings) -> Iterator[subprocess.Popen[bytes]]:
    """A worker process with the role ``correlate``."""
    environment = environment_of(settings) | {"ASTROCYTE_ROLES": "correlate", "ASTROCYTE_LOG_LEVEL": "error"}
    command = killed_with_parent(worker_command())
    worker = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield worker
    finally:
        worker.terminate()
        worker.wait(30)


def _watch(settings: Settings, worker: subprocess.Popen[bytes], emitted: int) -> dict[str, Any]:
    deadline = time.monotonic() + _TIMEOUT_S
    first: tuple[float, int] | None = None
    while time.monotonic() < deadline and worker.poll() is None:
        totals = asyncio.run(_stats(settings))
        now, done = time.monotonic(), totals.get("processed", 0) + totals.get("late", 0)
        if done and first is None:
            first = (now, done)
        if done >= emitted and first is not None:
            seconds = max(now - first[0], 1e-3)
            return {
                "events": done - first[1],
                "seconds": seconds,
                "events_per_s": (done - first[1]) / seconds,
                "matches": totals.get("matches", 0),
                "late": totals.get("late", 0),
                "lag": asyncio.run(group_lag(settings.broker, "bench-correlate")),
            }
        time.sleep(0.02)
    raise TimeoutError(f"the worker did not process {emitted} events within {_TIMEOUT_S:.0f} s")


def run(quick: bool) -> Iterator[dict[str, Any]]:
    """Events per second through one worker, with confirmed outputs and stored state."""
    yield {"bench": "pipeline/frames", **_measure("frames", 4_000_000 if quick else 40_000_000, 65_536, 100_000)}
    yield {"bench": "pipeline/json", **_measure("json", 200_000 if quick else 1_600_000, 10_000, 100_000)}

"""The transport: a Faust worker with an empty agent compared with stock Faust, and the publisher.

All run on one embedded broker in one run, each worker in a separate process, so that the ratios are comparable.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa

from astrocyte.pipeline.broker import BrokerProcess
from astrocyte.pipeline.kafka.client import ensure_topics
from astrocyte.pipeline.roles.parent import killed_with_parent
from astrocyte.pipeline.simulation.publish import Form, KafkaSink
from astrocyte.pipeline.transport.producer import ConfirmedProducer
from astrocyte.pipeline.transport.producer_record import ProducerRecord, producer_settings
from astrocyte.schemas.errors import AstrocyteError
from astrocyte.schemas.frames import Frame

__all__ = ["run"]

_PARTITIONS: Final = 4
_VALUE: Final = b"x" * 200
_TIMEOUT_S: Final = 300.0


def run(quick: bool) -> Iterator[dict[str, Any]]:
    """Messages of 200 bytes read by a worker; events published as frames and as JSON records."""
    many, few = (200_000, 10_000) if quick else (2_000_000, 60_000)
    with tempfile.TemporaryDirectory(prefix="astrocyte-bench-") as folder, BrokerProcess(Path(folder) / "broker") as at:
        for topic, count in (("many", many), ("few", few)):
            asyncio.run(_fill(at.address, topic, count))
        stock = _worker(at.address, folder, "few", few, driver="aiokafka", chunks=False)
        yield _figure("transport/stock_faust", stock)
        single = _worker(at.address, folder, "few", few, driver="astrocyte", chunks=False)
        yield _figure("transport/single_records", single, stock)
        chunks = _worker(at.address, folder, "many", many, driver="astrocyte", chunks=True)
        yield _figure("transport/chunks", chunks, stock)
        yield from _published(at.address, "frames", 2_000_000 if quick else 20_000_000)
        yield from _published(at.address, "json", 40_000 if quick else 400_000)


async def _fill(broker: str, topic: str, count: int) -> None:
    await ensure_topics(broker, {topic: _PARTITIONS})
    producer = ConfirmedProducer(producer_settings(broker))
    await producer.start()
    for begin in range(0, count, 100_000):
        rows = range(begin, min(begin + 100_000, count))
        await producer.deliver(ProducerRecord(topic, _VALUE, partition=row % _PARTITIONS) for row in rows)
    await producer.stop()


def _worker(broker: str, folder: str, topic: str, count: int, *, driver: str, chunks: bool) -> dict[str, Any]:
    name = f"{driver}-{'chunks' if chunks else 'records'}"
    report = Path(folder) / f"{name}.json"
    options = {
        "broker": broker, "driver": driver, "chunks": chunks, "topic": topic, "messages": count, "group": name,
        "folder": str(Path(folder) / name), "report": str(report), "partitions": _PARTITIONS,
    }  # fmt: skip
    log = Path(folder) / f"{name}.log"
    with log.open("wb") as out:
        command = [sys.executable, "-m", "faust", "-A", "astrocyte.pipeline.bench.transport_app"]
        process = subprocess.Popen(
            killed_with_parent([*command, "worker", "-l", "warn", "--without-web"]),
            env=os.environ | {"ASTROCYTE_BENCH": json.dumps(options)},
            stdout=out,
            stderr=out,
        )
    try:
        deadline = time.monotonic() + _TIMEOUT_S
        while not report.exists():
            if process.poll() is not None or time.monotonic() > deadline:
                raise AstrocyteError(
                    f"the worker {name} ended or timed out before it read {count} messages: {log.read_text()[-1000:]}"
                )
            time.sleep(0.05)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    found: dict[str, Any] = json.loads(report.read_text())
    return found


def _figure(bench: str, found: dict[str, Any], against: dict[str, Any] | None = None) -> dict[str, Any]:
    per_s = found["messages"] / found["seconds"]
    figure = {
        "bench": bench,
        "events": found["messages"],
        "seconds": found["seconds"],
        "events_per_s": per_s,
        "cpu_us_per_event": found["cpu_s"] / found["messages"] * 1e6,
    }
    if against is not None:
        figure["times_stock_faust"] = round(per_s / (against["messages"] / against["seconds"]), 1)
    return figure


def _published(broker: str, form: Form, events: int) -> Iterator[dict[str, Any]]:
    frames = _spikes(events, form)
    with KafkaSink(broker, partitions=_PARTITIONS, form=form) as sink:
        sink.write(frames[0])
        sink.flush()
        began, cpu = time.perf_counter(), time.process_time()
        for frame in frames:
            sink.write(frame)
        sink.flush()
        seconds, cpu_s = time.perf_counter() - began, time.process_time() - cpu
    yield {
        "bench": f"transport/publish_{form}",
        "events": events,
        "seconds": seconds,
        "events_per_s": events / seconds,
        "cpu_us_per_event": cpu_s / events * 1e6,
    }


def _spikes(events: int, form: str) -> list[Frame]:
    rows = min(events, 50_000 if form == "frames" else 5_000)
    random = np.random.default_rng(1)
    names = pa.array([f"domain_{number}" for number in range(1000)])
    key = pa.DictionaryArray.from_arrays(pa.array(random.integers(0, 1000, rows).astype(np.int32)), names)
    kind = pa.DictionaryArray.from_arrays(pa.array(random.integers(0, 3, rows).astype(np.int32)), ["A", "B", "C"])
    columns = {"timestamp": np.arange(rows) * 10, "key": key, "type": kind, "value": random.random(rows)}
    stream = f"bench_{form}"
    frame = Frame.from_columns(stream, "bench", columns)
    return [Frame(stream, "bench", frame.batch, first_seq=begin) for begin in range(0, events, rows)]

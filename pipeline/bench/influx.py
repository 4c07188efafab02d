"""Line protocol: points encoded, and written into VictoriaMetrics, compared with a bare POST of the same bytes."""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Iterator, Sequence
from typing import Any, Final

import aiohttp
import numpy as np
import pyarrow as pa

from astrocyte.agents.sinks.base import Sourced, SourcedFrame
from astrocyte.agents.sinks.influx.file import InfluxFileSink
from astrocyte.agents.sinks.influx.points import PointRules, points_of
from astrocyte.agents.sinks.influx.sink import InfluxSink
from astrocyte.pipeline.bench.servers.victoria import VictoriaServer, VictoriaUnavailable, victoria_server
from astrocyte.schemas.frames import Frame

__all__ = ["run"]

_FRAME_ROWS: Final = 10_000
_BATCH_ROWS: Final = 20_000
_REQUEST_LINES: Final = 5_000
_ROUNDS: Final = 3


def _frames(rows: int) -> list[Sourced]:
    """Frames of cell_vitals as the simulator emits them: tick after tick of many cells."""
    random = np.random.default_rng(7)
    index = np.arange(_FRAME_ROWS)
    frames: list[Sourced] = []
    for number in range(rows // _FRAME_ROWS):
        columns = {
            "timestamp": np.full(_FRAME_ROWS, 1_735_689_600_000_000 + number * 10_000),
            "key": pa.DictionaryArray.from_arrays(pa.array((index % 4).astype(np.int32)), [f"i{n}" for n in range(4)]),
            "type": pa.DictionaryArray.from_arrays(pa.array(np.zeros(_FRAME_ROWS, np.int32)), ["vitals"]),
            "cell_id": index + (number << 24),
            "generation": (index % 50).astype(np.int32),
            "lineage": index % 2_000,
            "energy": random.random(_FRAME_ROWS, np.float32) * 100,
            "mass": random.random(_FRAME_ROWS, np.float32),
            "age_ticks": (index % 999).astype(np.int32),
            "alive": random.random(_FRAME_ROWS) < 0.99,
        }
        frame = Frame.from_columns("cell_vitals", "cells-7", columns, first_seq=number * _FRAME_ROWS)
        frames.append(SourcedFrame(frame, "mono.cell_vitals", 0, number))
    return frames


def _batches(frames: Sequence[Sourced]) -> list[Sequence[Sourced]]:
    step = _BATCH_ROWS // _FRAME_ROWS
    return [frames[at : at + step] for at in range(0, len(frames), step)]


def _encoded(frames: Sequence[Sourced]) -> list[bytes]:
    return [points.lines.payload() for points in points_of(frames, PointRules()).points]


def _encode_figure(frames: Sequence[Sourced], rows: int) -> dict[str, Any]:
    """Best of several rounds in processor time, which does not count other programs on the machine."""
    best_s, best_wall_s, payload = float("inf"), float("inf"), 0
    for _ in range(_ROUNDS):
        began, wall = time.process_time(), time.perf_counter()
        payload = sum(map(len, _encoded(frames)))
        best_s = min(best_s, time.process_time() - began)
        best_wall_s = min(best_wall_s, time.perf_counter() - wall)
    return {
        "bench": "sinks/influx_encode",
        "measurement": "cell_vitals",
        "events": rows,
        "seconds": best_s,
        "events_per_s": rows / best_s,
        "wall_events_per_s": rows / best_wall_s,
        "bytes_per_event": payload / rows,
    }


async def _sink_seconds(sink: InfluxSink | InfluxFileSink, batches: Sequence[Sequence[Sourced]]) -> float:
    await sink.open()
    began = time.perf_counter()
    for batch in batches:
        rejected = await sink.write(batch)
        assert not rejected, rejected[0]
    seconds = time.perf_counter() - began
    await sink.close()
    return seconds


async def _bare_seconds(url: str, requests: Sequence[bytes]) -> float:
    """Seconds for POST requests of the same lines, encoded beforehand, uncompressed, one after the other."""
    async with aiohttp.ClientSession() as session:
        began = time.perf_counter()
        for body in requests:
            async with session.post(f"{url}/api/v2/write", data=body) as answer:
                assert answer.status == 204, answer.status
        return time.perf_counter() - began


def _requests(frames: Sequence[Sourced]) -> list[bytes]:
    return [
        points.lines.payload(start, min(start + _REQUEST_LINES, len(points.lines)))
        for points in points_of(frames, PointRules()).points
        for start in range(0, len(points.lines), _REQUEST_LINES)
    ]


def run(quick: bool) -> Iterator[dict[str, Any]]:
    """Points per second: encoded, into a compressed file, and into VictoriaMetrics."""
    rows = 200_000 if quick else 1_000_000
    frames = _frames(rows)
    yield _encode_figure(frames, rows)
    with tempfile.TemporaryDirectory() as folder:
        seconds = asyncio.run(_sink_seconds(InfluxFileSink(folder), _batches(frames)))
    yield {"bench": "sinks/influx_file", "events": rows, "seconds": seconds, "events_per_s": rows / seconds}
    try:
        with victoria_server() as server:
            yield _server_figure(server, frames, rows)
    except VictoriaUnavailable as error:
        yield {"bench": "sinks/influx_victoria", "skipped": str(error)}


def _server_figure(server: VictoriaServer, frames: Sequence[Sourced], rows: int) -> dict[str, Any]:
    # The server registers the series in the first pass, so an extra pass comes before the two that are measured.
    requests = _requests(frames)
    asyncio.run(_bare_seconds(server.url, requests))
    seconds, bare_s = float("inf"), float("inf")
    for _ in range(_ROUNDS):
        bare_s = min(bare_s, asyncio.run(_bare_seconds(server.url, requests)))
        sink = InfluxSink(server.url, token="none", org="none", bucket="none")  # noqa: S106  it asks for no token
        seconds = min(seconds, asyncio.run(_sink_seconds(sink, _batches(frames))))
    return {
        "bench": "sinks/influx_victoria",
        "events": rows,
        "seconds": seconds,
        "events_per_s": rows / seconds,
        "bare": "HTTP POST of the same lines, encoded beforehand",
        "bare_events_per_s": rows / bare_s,
        "ratio_to_bare": bare_s / seconds,
    }

"""The worker that `pipeline.bench.transport` measures: an agent that only counts, on either driver."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import faust

from astrocyte.pipeline.transport.transport import app_settings

OPTIONS = json.loads(os.environ["ASTROCYTE_BENCH"])


def _settings() -> dict[str, Any]:
    if OPTIONS["driver"] == "astrocyte":
        return app_settings(OPTIONS["broker"], value_serializer="raw" if OPTIONS["chunks"] else "bench-bytes")
    # The best settings for stock Faust here: no decoding, and no wait for unacknowledged messages.
    return {"broker": f"aiokafka://{OPTIONS['broker']}", "value_serializer": "raw", "stream_wait_empty": False}


class _Bytes(faust.serializers.codecs.Codec):  # type: ignore[misc]
    """Values unchanged, under a codec name that does not select chunks."""

    def _loads(self, s: bytes) -> bytes:
        return s

    def _dumps(self, s: Any) -> bytes:
        return bytes(s)


faust.serializers.codecs.register("bench-bytes", _Bytes())
app = faust.App(OPTIONS["group"], datadir=OPTIONS["folder"], topic_partitions=OPTIONS["partitions"], **_settings())
_seen = {"messages": 0, "began": 0.0, "cpu": 0.0}


@app.agent(app.topic(OPTIONS["topic"]))
async def read(stream: Any) -> None:
    """Count messages, and report when all were received."""
    async for value in stream:
        if not _seen["messages"]:
            _seen["began"], _seen["cpu"] = time.perf_counter(), time.process_time()
        _seen["messages"] += len(value) if OPTIONS["chunks"] else 1
        if _seen["messages"] >= OPTIONS["messages"]:
            _report()


def _report() -> None:
    found = {
        "seconds": time.perf_counter() - _seen["began"],
        "cpu_s": time.process_time() - _seen["cpu"],
        "messages": _seen["messages"],
    }
    part = Path(OPTIONS["report"] + ".part")
    part.write_text(json.dumps(found))
    part.rename(OPTIONS["report"])

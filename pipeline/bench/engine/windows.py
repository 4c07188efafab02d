"""Windows: rows per second through each kind of window and each aggregate, on one core."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Any, Final

import numpy as np
import pyarrow as pa

from astrocyte.agents.event_time.sources import Source
from astrocyte.agents.event_time.watermarks import Watermarks
from astrocyte.agents.rules.model import Window
from astrocyte.agents.windows import WindowOperator
from astrocyte.schemas.frames import Frame

__all__ = ["run"]

START_US: Final = 1_735_689_600_000_000
STEP_US: Final = 10
"""Microseconds between events: 100,000 events per second of event time."""
THREE: Final = {"n": "count()", "mean": "mean(value)", "spread": "std(value)"}
AGGREGATES: Final = (
    "count()", "sum(value)", "mean(value)", "std(value)", "min(value)", "first(value)", "last(value)", "slope(value)",
    "ewma(value, 0.1)", "quantile(value, 0.9)", "count_distinct(cell)", "entropy(value, 32)",
    "entropy(value, 32, 0, 1)",
    "entropy(cell)",
)  # fmt: skip
KINDS: Final[tuple[tuple[str, dict[str, Any]], ...]] = (
    ("tumbling_1s", {"every": "1s"}),
    ("hopping_10s_by_1s", {"size": "10s", "every": "1s"}),
    ("session_50ms", {"session": "50ms"}),
    ("sliding_100ms", {"sliding": "100ms"}),
)


def _frames(rows: int, keys: int, frame_rows: int) -> list[Frame]:
    random = np.random.default_rng(1)
    names = pa.array([f"k{index:06d}" for index in range(keys)])
    frames = []
    for first in range(0, rows, frame_rows):
        count = min(frame_rows, rows - first)
        columns = {
            "timestamp": START_US + np.arange(first, first + count) * STEP_US,
            "key": pa.DictionaryArray.from_arrays(pa.array(random.integers(0, keys, count).astype(np.int32)), names),
            "value": random.random(count),
            "cell": random.integers(0, 5_000, count),
        }
        frames.append(Frame.from_columns("bench", "bench", columns, first_seq=first))
    return frames


def _feed(spec: Window, frames: Sequence[Frame]) -> tuple[float, int]:
    """Seconds and number of results for all frames through one window; the watermark advances after each frame."""
    operator = WindowOperator(spec)
    results = 0
    began = time.perf_counter()
    for frame in frames:
        operator.add(frame)
        closed = operator.advance(int(frame.timestamps()[-1]))
        results += 0 if closed is None else closed.num_rows
    closed = operator.flush()
    return time.perf_counter() - began, results + (0 if closed is None else closed.num_rows)


def _measure(name: str, spec: Window, frames: Sequence[Frame], keys: int, repeats: int) -> dict[str, Any]:
    _feed(spec, frames[:1])  # compiles, or loads the compiled code
    seconds, results = min(_feed(spec, frames) for _ in range(repeats))
    events = sum(frame.num_rows for frame in frames)
    return {
        "bench": f"windows/{name}",
        "events": events,
        "keys": keys,
        "results": results,
        "seconds": seconds,
        "events_per_s": events / seconds,
    }


def run(quick: bool) -> Iterator[dict[str, Any]]:
    """Best of several runs each, including the preparation of frames of 65,536 rows; ``events_per_s``: one core."""
    rows, repeats = (200_000, 1) if quick else (4_000_000, 3)
    frames = _frames(rows, 1_000, 65_536)
    for name, shape in KINDS:
        spec = Window(name="bench", source="bench", select=THREE, **shape)
        # A sliding window adds each row to a hundred results here; a tenth of the rows is enough.
        yield _measure(name, spec, frames[: 1 + len(frames) // 10] if "sliding" in shape else frames, 1_000, repeats)
    for keys in (1, 100_000):
        spec = Window(name="bench", source="bench", select=THREE, every="1s")
        yield _measure(f"tumbling_1s_{keys}_keys", spec, _frames(rows, keys, 65_536), keys, repeats)
    for text in AGGREGATES:
        spec = Window(name="bench", source="bench", select={"result": text}, every="1s")
        yield _measure(f"tumbling_1s_{text.replace(' ', '')}", spec, frames, 1_000, repeats)
    yield _watermarks(frames, repeats)


def _watermarks(frames: Sequence[Frame], repeats: int) -> dict[str, Any]:
    best = float("inf")
    for _ in range(repeats):
        watermarks = Watermarks(lateness_us=1_000_000)
        began = time.perf_counter()
        for number, frame in enumerate(frames):
            watermarks.observe(Source("mono.bench", number % 8), frame.timestamps())
        best = min(best, time.perf_counter() - began)
    events = sum(frame.num_rows for frame in frames)
    return {"bench": "windows/clock", "events": events, "sources": 8, "seconds": best, "events_per_s": events / best}

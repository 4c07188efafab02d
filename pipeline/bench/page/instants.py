"""The page over a recorded log of ten million births, divisions and deaths: reading it, and trees of its instants."""

from __future__ import annotations

import asyncio
import resource
import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import numpy as np

from astrocyte.pipeline.bench.phylogeny import moran_frames
from astrocyte.pipeline.page.sources.log import LogSource
from astrocyte.pipeline.page.tree.trees import Trees
from astrocyte.pipeline.simulation.log_sink import LogSink

__all__ = ["run"]

_RUN: Final = "moran"
_INSTANTS: Final = 20


def run(quick: bool) -> Iterator[dict[str, Any]]:
    """Seconds until all is drawn, and of one instant after the other, each with the JSON of its answer left out."""
    births, size = (20_000, 1_024) if quick else (3_334_000, 65_536)
    with TemporaryDirectory() as folder:
        path = Path(folder, "moran.jsonl.zst")
        sink = LogSink(path, partitions=1)
        for frame in moran_frames(births, size, name=_RUN):
            sink.write(frame)
        sink.close()
        yield from asyncio.run(_figures(path))


async def _figures(path: Path) -> list[dict[str, Any]]:
    trees = Trees(LogSource(path))
    began_s, used_s = time.monotonic(), time.process_time()
    try:
        await _at(trees, None, False)
        await trees.read(_RUN)
        found = await _at(trees, None, False)
        about = {"events": found["events"], "individuals": found["individuals"], "drawn": found["drawn"]}
        read = {"read_s": time.monotonic() - began_s, "read_cpu_s": time.process_time() - used_s}
        figures = [{"bench": "page_read", **about, **read, "peak_mb": _peak_mb(), "problem": found["problem"]}]
        random = np.random.default_rng(1)
        for with_extinct in (False, True):
            taken, lines = [], []
            used_s = time.process_time()
            for share in random.random(_INSTANTS):
                began_s = time.monotonic()
                at_us = int(found["from"] + share * (found["to"] - found["from"]))
                lines.append(len((await _at(trees, at_us, with_extinct)).get("lines", {"id": ()})["id"]))
                taken.append(time.monotonic() - began_s)
            name = "page_instant_with_extinct" if with_extinct else "page_instant"
            median_s, cpu_s = statistics.median(taken), (time.process_time() - used_s) / _INSTANTS
            figures.append(
                {"bench": name, "median_s": median_s, "worst_s": max(taken), "cpu_s": cpu_s, "most_lines": max(lines)}
            )
    finally:
        await trees.close()
    return figures


async def _at(trees: Trees, at_us: int | None, with_extinct: bool) -> dict[str, Any]:
    return await trees.window(_RUN, None, at_us=at_us, with_extinct=with_extinct, colour="", size=(900, 630))


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

"""Phylogeny of a population with a million births: from a recorded log to CSV and Newick."""

from __future__ import annotations

import resource
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow as pa

from astrocyte.pipeline.analysis.phylogeny import phylogeny
from astrocyte.pipeline.simulation.log_sink import LogSink
from astrocyte.schemas.frames import Frame

__all__ = ["moran_frames", "run"]

_START_US = 1_735_689_600_000_000
_TICK_US = 10_000


def moran_frames(births: int, size: int, *, seed: int = 1, name: str = "moran") -> Iterator[Frame]:
    """Events of a population of constant size: each tick an eighth divides, and as many others die; a frame a tick."""
    random = np.random.default_rng(seed)
    alive = np.arange(size)
    generation = np.zeros(size, np.int32)
    each, sent, following = size // 8, 0, size
    for tick in range(-(-births // each)):
        slots = random.permutation(size)[: 2 * each]
        mothers, dead = slots[:each], slots[each:]
        daughters = np.arange(following, following + each)
        ids = np.concatenate([daughters, alive[mothers], alive[dead]])
        generations = np.concatenate([generation[mothers] + 1, generation[mothers], generation[dead]])
        no_parent = pa.nulls(2 * each, pa.int64())
        columns = {
            "timestamp": np.full(3 * each, _START_US + tick * _TICK_US),
            "key": ["0"] * (3 * each),
            "type": ["birth"] * each + ["division"] * each + ["death"] * each,
            "cell_id": ids,
            "parent_id": pa.concat_arrays([pa.array(alive[mothers]), no_parent]),
            "generation": generations.astype(np.int32),
        }
        yield Frame.from_columns("evolutionary_events", name, columns, first_seq=sent)
        sent += 3 * each
        following += each
        generation[dead], alive[dead] = generation[mothers] + 1, daughters


def run(quick: bool) -> Iterator[dict[str, Any]]:
    """Processor seconds of reading, pruning and writing, and the peak of memory of the process."""
    births = 20_000 if quick else 1_000_000
    with TemporaryDirectory() as folder:
        path = Path(folder, "moran.jsonl.zst")
        sink = LogSink(path, partitions=1)
        for frame in moran_frames(births, 1_024 if quick else 65_536):
            sink.write(frame)
        sink.close()
        _timed(lambda: phylogeny(path).summary())  # the loops are compiled
        for prune in (True, False):
            read_s, found = _timed(lambda prune=prune: phylogeny(path, prune=prune))
            figures: dict[str, Any] = {"bench": f"phylogeny_{'pruned' if prune else 'all'}", "births": births}
            figures |= {"read_s": read_s, "summary_s": _timed(found.summary)[0], "written": len(found.tree)}
            for form in ("csv", "nwk"):
                target = Path(folder, f"tree.{form}")
                figures[f"{form}_s"] = _timed(lambda found=found, target=target: found.write(target))[0]
            figures["peak_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
            yield figures


def _timed(work: Any) -> tuple[float, Any]:
    began = time.process_time()
    result = work()
    return time.process_time() - began, result

"""A small world of cells in NumPy whose evolution is planted: selection, a collapse, mutations; as frames, quickly."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from astrocyte.pipeline.analysis.evolution import RunAnalysis
from astrocyte.pipeline.analysis.evolution.history import History
from astrocyte.schemas.frames import Frame
from tests.support.logs import T0_US, frame_messages, json_messages, write_log

__all__ = ["TICK_US", "TRAITS", "analysis_of", "evolving_frames", "evolving_log"]

TICK_US = 100_000
TRAITS = (
    "metabolism", "growth_rate", "division_size", "mutation_rate", "tpu_cores", "tpu_memory", "tpu_efficiency",
)  # fmt: skip
_TYPES = np.array(["ai", "bio", "tpu"])


def evolving_frames(
    *,
    ticks: int = 60,
    size: int = 300,
    seed: int = 1,
    slopes: Mapping[str, float] | None = None,
    collapse_at: int | None = None,
    births: bool = True,
    run: str = "run-1",
) -> dict[str, Frame]:
    """Frames by stream of a run whose population grows to ``size``.

    A tick is 0.1 s: a twentieth of the cells divides, more by ``exp(slope * z)`` for each of ``slopes`` on the
    standardised trait z, and cells die at random so that ``size`` are left. At the tick ``collapse_at`` it is a fifth.
    """
    rng = np.random.default_rng(seed)
    slopes = slopes or {}
    ids = np.arange(size)
    traits = np.exp(rng.normal(0.0, 0.2, (size, len(TRAITS))))
    generation = np.zeros(size, np.int64)
    following = size
    events: list[tuple[Any, ...]] = []
    genomes: list[tuple[Any, ...]] = []
    attempts: list[tuple[Any, ...]] = []
    metrics: list[tuple[Any, ...]] = []
    for tick in range(ticks):
        now = T0_US + tick * TICK_US
        z = np.log(traits) / 0.2
        rate = 0.05 * np.exp(sum(slope * z[:, TRAITS.index(name)] for name, slope in slopes.items()))
        mothers = np.flatnonzero(rng.random(len(ids)) < rate)
        mutated = rng.random(len(mothers)) < 0.3
        deltas = np.where(mutated, rng.normal(-0.1, 0.3, len(mothers)), 0.0)
        daughters = np.arange(following, following + len(mothers))
        following += len(mothers)
        changed = np.exp(np.where(mutated[:, None], rng.normal(0.0, 0.05, (len(mothers), len(TRAITS))), 0.0))
        events += [
            ("birth", now, int(d), int(ids[m]), float(abs(delta)), float(delta), 1, int(generation[m]) + 1)
            for d, m, delta in zip(daughters, mothers, deltas, strict=True)
        ]
        ids = np.concatenate([ids, daughters])
        generation = np.concatenate([generation, generation[mothers] + 1])
        traits = np.concatenate([traits, traits[mothers] * changed])
        left = size // 5 if tick == collapse_at else size
        dead = rng.permutation(len(ids))[: max(len(ids) - left, 0)]
        events += [("death", now, int(ids[d]), None, None, None, None, int(generation[d])) for d in dead]
        alive = np.ones(len(ids), np.bool_)
        alive[dead] = False
        ids, generation, traits = ids[alive], generation[alive], traits[alive]
        seen = np.flatnonzero(rng.random(len(ids)) < 0.3)
        kinds = np.searchsorted([0.9, 1.1], traits[seen, TRAITS.index("tpu_efficiency")])
        genomes += [
            (now, int(ids[i]), str(_TYPES[kind]), *traits[i].tolist()) for i, kind in zip(seen, kinds, strict=True)
        ]
        accuracy = np.clip(0.4 + 0.1 * np.log(traits[seen, -1]) / 0.2 + rng.normal(0.0, 0.1, len(seen)), 0.0, 1.0)
        attempts += [
            (now, int(ids[i]), ("memory", "pattern")[i % 2], float(a), 1.0, 0.5, float(a) / 2)
            for i, a in zip(seen, accuracy, strict=True)
        ]
        mean = float(accuracy.mean()) if len(seen) else 0.0
        metrics.append((now, tick, len(ids), mean, 1.0 + float(rng.normal(0.0, 0.01)), float(generation.mean()),
                        1.0, len(daughters), len(dead), 10.0 + float(rng.normal())))  # fmt: skip
    frames = {
        "evolutionary_events": _frame(
            "evolutionary_events", run, ("type", "timestamp", "cell_id", "parent_id", "mutation_magnitude",
                                         "fitness_delta", "generation_gap", "generation"), events,
        ),
        "genome_data": _frame("genome_data", run, ("timestamp", "cell_id", "genome_type", *TRAITS), genomes),
        "problem_solving": _frame(
            "problem_solving", run, ("timestamp", "cell_id", "problem_type", "accuracy", "energy_reward",
                                     "processing_time", "tpu_utilization"), attempts,
        ),
        "population_metrics": _frame(
            "population_metrics", run, ("timestamp", "tick", "total_population", "avg_accuracy", "genome_diversity",
                                        "avg_generation", "energy_efficiency", "births", "deaths", "avg_energy"),
            metrics,
        ),
    }  # fmt: skip
    return frames if births else {name: each for name, each in frames.items() if name != "evolutionary_events"}


def _frame(stream: str, run: str, names: Sequence[str], rows: Sequence[tuple[Any, ...]]) -> Frame:
    from astrocyte.schemas.catalog import CATALOG

    known = CATALOG[stream].arrow_schema()
    columns: dict[str, Any] = dict(zip(names, map(list, zip(*rows, strict=True)), strict=True))
    for name in names:
        kind = known.field(name).type
        if not pa.types.is_dictionary(kind):
            columns[name] = pa.array(columns[name], kind)
    columns["key"] = ["0"] * len(rows)
    if "type" not in columns:
        columns["type"] = [CATALOG[stream].types[0]] * len(rows)
    if stream == "evolutionary_events":
        columns["event_type"] = columns["type"]
    return Frame.from_columns(stream, run, columns)


def analysis_of(frames: Mapping[str, Frame], run: str = "run-1") -> RunAnalysis:
    """Questions about these frames."""
    return RunAnalysis(History("run.jsonl.zst", run, frames))


def evolving_log(path: Path, *worlds: Mapping[str, Frame], json: bool = False) -> Path:
    """A recorded log of worlds, in frames or one JSON record a message."""
    offsets: dict[tuple[str, int], int] = {}
    messages = []
    for frame in (frame for world in worlds for frame in world.values()):
        place = (f"mono.{frame.stream}", 0)
        if json:
            named = Frame.from_columns(frame.stream, frame.run, {
                **{name: frame.batch.column(name) for name in frame.batch.schema.names},
                "simulation_id": [frame.run] * frame.num_rows,
            })  # fmt: skip
            made = json_messages(named, offset=offsets.get(place, 0))
            offsets[place] = offsets.get(place, 0) + len(made)
            messages += made
        else:
            messages += frame_messages(frame, 1, offsets)
    return write_log(path, messages, partitions=1)

"""Statistics: events per second through each of those of the rules for cells, on one core."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Any, Final

import numpy as np
import pyarrow as pa

from astrocyte.agents.engine.engine import Engine
from astrocyte.agents.insight.followed import CELL_TRAITS
from astrocyte.agents.rules.insight import StatisticSpec
from astrocyte.agents.rules.model import RuleSet
from astrocyte.pipeline.topology.rule_files import read_rule_files
from astrocyte.schemas.catalog import CATALOG, arrow_type
from astrocyte.schemas.frames import Frame

__all__ = ["run"]

_STEP_US: Final = 100_000
"""Event time of a frame, which is also that of a sample and of a snapshot of the population."""
_SECONDS: Final = 40
_LIFE_S: Final = 5.0
"""Mean life of a cell: as many births and deaths a second as the population divided by this."""
_SAMPLED: Final = 0.01


def _frames(size: int) -> list[Frame]:
    """A population of ``size`` cells: births and deaths in every step, a sample of genomes, and its metrics."""
    random = np.random.default_rng(1)
    living = np.arange(size)
    following, frames = size, []
    births = max(round(size / _LIFE_S * _STEP_US / 1e6), 1)
    for step in range(_SECONDS * 1_000_000 // _STEP_US):
        start_us = step * _STEP_US
        parents = random.choice(living, births)
        born = np.arange(following, following + births)
        gone = random.permutation(len(living))[:births]
        dead, following = living[gone], following + births
        living = np.concatenate([np.delete(living, gone), born])
        times = np.sort(start_us + random.integers(0, _STEP_US, 2 * births))
        kinds = np.array(["birth", "death"])[np.arange(2 * births) % 2]
        cells, mothers = np.empty(2 * births, np.int64), np.full(2 * births, -1)
        cells[0::2], cells[1::2], mothers[0::2] = born, dead, parents
        events = {"type": kinds, "cell_id": cells, "parent_id": pa.array(mothers, mask=mothers < 0)}
        events |= {name: np.abs(random.normal(size=2 * births)) for name in ("mutation_magnitude", "fitness_delta")}
        frames.append(_frame("evolutionary_events", times, events | {"generation_gap": np.ones(2 * births)}, step))
        sampled = random.choice(living, max(round(size * _SAMPLED), 1), replace=False)
        traits = {name: random.uniform(0.2, 0.9, len(sampled)) for name in CELL_TRAITS}
        at = np.full(len(sampled), start_us + _STEP_US - 1)
        frames.append(_frame("genome_data", at, {"cell_id": sampled, **traits}, step))
        whole = {"total_population": [len(living)], "avg_accuracy": [0.5 + 0.01 * random.normal()], "avg_energy": [9.0]}
        whole["avg_energy"] = [9.0 + random.normal()]
        frames.append(_frame("population_metrics", at[:1], whole, step))
    return frames


def _frame(stream: str, times: Any, columns: dict[str, Any], step: int) -> Frame:
    known = CATALOG[stream].fields
    made = {
        name: pa.array(values).cast(arrow_type(known[name])) if name in known else pa.array(values)
        for name, values in columns.items()
    }
    fields = {"timestamp": times, "key": ["0"] * len(times), **made}
    return Frame.from_columns(stream, "bench", fields, first_seq=step * 1_000_000)


def _feed(specs: Sequence[StatisticSpec], frames: Sequence[Frame]) -> tuple[float, int]:
    """Seconds and number of results for all frames through an engine; the watermark advances after each step."""
    engine = Engine(RuleSet(insight=tuple(specs)), validated=True)
    results = 0
    began = time.process_time()
    for frame in frames:
        if frame.stream == "evolutionary_events":
            output = engine.advance(int(frame.timestamps()[0]) // _STEP_US * _STEP_US)
            results += sum(made.num_rows for made in output.frames)
        engine.push(frame)
    results += sum(made.num_rows for made in engine.flush().frames)
    return time.process_time() - began, results


def run(quick: bool) -> Iterator[dict[str, Any]]:
    """Each statistic alone, then all together; ``events``: those that it reads, ``seconds``: of processor time."""
    specs = read_rule_files(["cells"]).insight
    for size in (10_000,) if quick else (10_000, 100_000, 1_000_000):
        frames = _frames(size)
        for chosen in (*([spec] for spec in specs), specs):
            read = {stream for spec in chosen for stream in spec.streams}
            own = [frame for frame in frames if frame.stream in read]
            seconds, results = _feed(chosen, own)
            events = sum(frame.num_rows for frame in own)
            yield {
                "bench": f"insight/{chosen[0].name if len(chosen) == 1 else 'all'}",
                "cells": size,
                "events": events,
                "results": results,
                "seconds": seconds,
                "us_per_event": 1e6 * seconds / events,
                "event_seconds_per_s": _SECONDS / seconds,
            }

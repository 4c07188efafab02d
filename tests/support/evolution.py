"""A log of two runs of dividing individuals, small enough to compute every statistic of it in a moment."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa

from astrocyte.schemas.catalog import CATALOG, arrow_type
from astrocyte.schemas.frames import Frame

__all__ = ["EVERY_STATISTIC", "TRAITS", "evolution_log", "frames_of"]

EVERY_STATISTIC = """insight:
  - {statistic: selection, size: 400ms, traits: [metabolism, tpu_cores]}
  - {statistic: price, size: 200ms}
  - {statistic: diversity, size: 300ms, traits: [metabolism]}
  - {statistic: mutations, size: 400ms, traits: [metabolism]}
  - {name: warnings, statistic: early_warning, size: 600ms, every: 300ms, series: [total_population], resamples: 19}
  - {name: outlook, statistic: forecast, size: 400ms, every: 100ms, horizons: [50ms, 100ms]}
  - name: leads
    statistic: trends
    size: 600ms
    interval: 10ms
    resamples: 19
    series: [{stream: genome_data, field: metabolism}, {stream: population_metrics, field: avg_energy}]
"""
"""A section with each statistic, for logs of `evolution_log` of some hundred milliseconds."""

TRAITS = ("metabolism", "tpu_cores")
Row = tuple[str, str, dict[str, Any]]


def evolution_log(seed: int = 1, ticks: int = 1_200, *, start_us: int = 0, tick_us: int = 1) -> list[Row]:
    """Rows (run, stream, values) in order of time: divisions, deaths, samples and metrics of the whole."""
    rows: list[Row] = []
    for run in ("a", "b"):
        rng = np.random.default_rng([seed, ord(run)])
        living = {number: rng.uniform(0.1, 1.0, 2) for number in range(40)}
        serial, energy = 1_000, 10.0
        for tick in range(ticks):
            t = start_us + tick * tick_us
            cells = list(living)
            if cells and rng.uniform() < 0.4:
                mother = cells[rng.integers(len(cells))]
                serial += 1
                living[serial] = np.clip(living[mother] * np.exp(rng.normal(0, 0.1, 2)), 0.1, 5.0)
                mutated = rng.uniform() < 0.5
                effect = rng.normal() if mutated else 0.0
                rows.append((run, "evolutionary_events", {"timestamp": t, "type": "birth", "cell_id": serial,
                             "parent_id": mother, "mutation_magnitude": 0.1 * mutated, "fitness_delta": effect,
                             "generation_gap": 1}))  # fmt: skip
            if len(cells) > 2 and rng.uniform() < 0.4:
                dead = cells[rng.integers(len(cells))]
                living.pop(dead)
                rows.append((run, "evolutionary_events", {"timestamp": t, "type": "death", "cell_id": dead,
                             "parent_id": None, "mutation_magnitude": None, "fitness_delta": None,
                             "generation_gap": None}))  # fmt: skip
            if tick % 10 == 0:
                energy += rng.normal(0, 0.3)
                rows.append((run, "population_metrics", {"timestamp": t, "type": "snapshot", "avg_energy": energy,
                             "total_population": len(living), "avg_accuracy": 0.5 + 0.01 * rng.normal()}))  # fmt: skip
                for cell, traits in living.items():
                    if rng.uniform() < 0.2:
                        rows.append((run, "genome_data", {"timestamp": t, "type": "genome", "cell_id": cell,
                                     **dict(zip(TRAITS, traits.tolist(), strict=True))}))  # fmt: skip
    return sorted(rows, key=lambda row: row[2]["timestamp"])


def frames_of(rows: list[Row], *, keyed: bool = False, first_seq: int = 0) -> Iterator[Frame]:
    """Frames of consecutive rows of one run and stream, numbered from ``first_seq``.

    ``keyed``: by individual, so that they have many partitions.
    """
    first = 0
    for last in range(1, len(rows) + 1):
        if last == len(rows) or rows[last][:2] != rows[first][:2]:
            run, stream, _ = rows[first]
            fields = [row[2] for row in rows[first:last]]
            known = CATALOG[stream].fields
            columns = {
                name: pa.array([each[name] for each in fields], arrow_type(known[name]) if name in known else None)
                for name in fields[0]
            }
            keys = [str(each.get("cell_id", run)) if keyed else "0" for each in fields]
            yield Frame.from_columns(stream, run, {**columns, "key": keys}, first_seq=first_seq + first)
            first = last

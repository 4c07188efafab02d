"""The windows of the shipped rule files compute their documented fields."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from astrocyte.agents.engine.engine import Engine
from astrocyte.agents.ingest.dicts import frames_of
from tests.unit.pipeline.rules.test_shipped_rules import (
    CASES,
    FILES,
    Event,
    at,
    karma,
    kernel,
    rules_of,
    snapshots,
    spike,
    starved,
)


def results_of(file: str, window: str, events: list[Event]) -> list[dict[str, Any]]:
    engine = Engine(rules_of(file), validated=True)
    for frame in frames_of(events, sorted(engine.streams)):
        engine.push(frame)
    return [row for frame in engine.flush().frames if frame.stream == window for row in frame.rows()]


def attempt(seconds: float, cell: int, accuracy: float) -> Event:
    return at(
        "problem_solving", seconds, "solved", key="0", simulation_id="sim", cell_id=cell, accuracy=accuracy,
        energy_reward=accuracy * 4,
    )  # fmt: skip


def genome(seconds: float, cell: int, metabolism: float, cores: float) -> Event:
    return at(
        "genome_data", seconds, "genome", key="0", simulation_id="sim", cell_id=cell, metabolism=metabolism,
        tpu_cores=cores,
    )  # fmt: skip


WINDOWS: dict[str, tuple[str, list[Event], Callable[[list[dict[str, Any]]], bool]]] = {
    "population_stats": (
        "cells",
        [attempt(second, second, 0.25 + 0.5 * (second % 2)) for second in range(120)],
        lambda rows: (
            [row["count_cell_id"] for row in rows] == [60, 60]
            and all(abs(row["mean_accuracy"] - 0.5) < 1e-6 and row["stddev_energy"] > 0.9 for row in rows)
        ),
    ),
    "diversity_metrics": (
        "cells",
        [genome(second, second, 0.1 * (second % 4), 2.0) for second in range(300)],
        lambda rows: abs(rows[0]["entropy_metabolism"] - 1.3863) < 1e-3 and rows[0]["entropy_tpu_cores"] == 0.0,
    ),
    "progress": (
        "cells",
        snapshots(*((second, second + 1, {"avg_accuracy": second / 100}) for second in range(20))),
        lambda rows: abs(rows[12]["accuracy_slope"] - 0.01) < 1e-3,
    ),
    "spike_rate": (
        "axons",
        [spike(2, number / 10, "B", float(number)) for number in range(20)],
        lambda rows: [(row["spikes"], row["strongest"]) for row in rows] == [(10, 9.0), (10, 19.0)],
    ),
    "incidents_by_cause": (
        "ecology",
        [*starved(5, 1.0), *starved(3, 1.0, "attack")],
        lambda rows: (
            [(row["cause"], row["incidents"], row["mean_loss"]) for row in rows]
            == [("attack", 3, 1.0), ("starvation", 5, 1.0)]
        ),
    ),
    "kernel_health": (
        "kernels",
        [kernel(number, number % 3, "updated") for number in range(9)],
        lambda rows: (rows[0]["kernels"], rows[0]["success_rate"], rows[0]["domain_entropy"]) == (3, 0.75, 0.0),
    ),
    "karma_by_agent": (
        "dna",
        [karma(0, 1, 0.5, None), karma(60, 2, 0.7, 0.5), karma(120, 3, 0.6, 0.7)],
        lambda rows: abs(rows[2]["mean_karma"] - 0.6) < 1e-9 and rows[2]["improved"] == 0.5,
    ),
}


@pytest.mark.parametrize("window", WINDOWS)
def test_a_shipped_window_computes_its_documented_fields(window: str) -> None:
    file, events, holds = WINDOWS[window]
    rows = results_of(file, window, events)
    assert holds(rows), rows


def test_every_shipped_window_gives_results_on_some_input() -> None:
    for file in FILES:
        inputs = [event for _, (where, hit, _) in CASES.items() if where == file for event in hit]
        inputs += [event for _, (where, events, _) in WINDOWS.items() if where == file for event in events]
        engine = Engine(rules_of(file), validated=True)
        for frame in frames_of(inputs, sorted(engine.streams)):
            engine.push(frame)
        made = {frame.stream for frame in engine.flush().frames}
        fed = {event["stream"] for event in inputs} | made
        wanted = {window.name for window in rules_of(file).windows if window.source in fed}
        assert wanted <= made, file

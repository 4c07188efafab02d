"""What holds for every statistic: results do not depend on frames, order of arrival or restarts, and repeat exactly."""

import numpy as np
import pytest

from astrocyte.agents.insight import (
    Diversity,
    EarlyWarning,
    Forecast,
    InsightOperator,
    Mutations,
    Price,
    Selection,
    Trends,
    Windows,
)
from astrocyte.pipeline.state.snapshots import pack_state, unpack_state
from astrocyte.schemas.frames import Frame

LATENESS = 70
TRAITS = ("metabolism", "tpu_cores")
STATISTICS = [
    Selection(windows=Windows(400), traits=TRAITS),
    Price(windows=Windows(200)),
    Diversity(windows=Windows(300), traits=TRAITS),
    Mutations(windows=Windows(400), traits=TRAITS),
    EarlyWarning(windows=Windows(600, 300), fields=("total_population",), resamples=19),
    Forecast(windows=Windows(400, 100), horizons_us=(50, 100)),
    Trends(
        windows=Windows(600, 300),
        every_us=10,
        series=(("genome_data", "metabolism"), ("population_metrics", "avg_energy")),
        resamples=19,
    ),
]


def log(seed=1, ticks=1_200):
    """Rows (stream, values) of two runs in order of time: divisions, deaths, samples and metrics of the whole."""
    rows = []
    for run in ("a", "b"):
        rng = np.random.default_rng([seed, ord(run)])
        living = {number: rng.uniform(0.1, 1.0, 2) for number in range(40)}
        serial, energy = 1_000, 10.0
        for t in range(ticks):
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
            if t % 10 == 0:
                energy += rng.normal(0, 0.3)
                rows.append((run, "population_metrics", {"timestamp": t, "type": "snapshot", "avg_energy": energy,
                             "total_population": len(living), "avg_accuracy": 0.5 + 0.01 * rng.normal()}))  # fmt: skip
                for cell, traits in living.items():
                    if rng.uniform() < 0.2:
                        rows.append((run, "genome_data", {"timestamp": t, "type": "genome", "cell_id": cell,
                                     **dict(zip(TRAITS, traits.tolist(), strict=True))}))  # fmt: skip
    return sorted(rows, key=lambda row: row[2]["timestamp"])


LOG = log()


def frames_of(rows):
    """Frames of consecutive rows of one run and stream."""
    first = 0
    for last in range(1, len(rows) + 1):
        if last == len(rows) or rows[last][:2] != rows[first][:2]:
            run, stream, _ = rows[first]
            fields = [row[2] for row in rows[first:last]]
            columns = {name: [each[name] for each in fields] for name in fields[0]}
            yield Frame.from_columns(stream, run, {**columns, "key": ["0"] * len(fields)})
            first = last


def at_once(statistic, rows=LOG):
    operator = InsightOperator(statistic)
    for frame in frames_of(sorted(rows, key=lambda row: row[:2])):
        operator.add(frame)
    return operator.flush().rows()


@pytest.mark.parametrize("statistic", STATISTICS, ids=lambda each: each.result.stream)
def test_results_do_not_depend_on_frames_order_of_arrival_or_restarts(statistic):
    rng = np.random.default_rng(7)
    rows = [row for row in LOG if row[1] in InsightOperator(statistic).streams]
    arrival = np.argsort([row[2]["timestamp"] + rng.integers(0, LATENESS) for row in rows], kind="stable")
    operator, found, newest = InsightOperator(statistic), [], 0
    for chunk in np.array_split(arrival, 25):
        part = [rows[index] for index in chunk]
        for frame in frames_of(sorted(part, key=lambda row: row[:2])):
            assert len(operator.add(frame)) == 0
        newest = max(newest, *(row[2]["timestamp"] for row in part))
        frame = operator.advance(newest - LATENESS)
        found += [] if frame is None else frame.rows()
        saved = unpack_state(pack_state(operator.snapshot()))
        operator = InsightOperator(statistic)
        operator.restore(saved)
    assert found
    found += operator.flush().rows()
    assert found == at_once(statistic)


@pytest.mark.parametrize("statistic", STATISTICS, ids=lambda each: each.result.stream)
def test_ids_are_unique_and_results_are_of_the_declared_types(statistic):
    rows = at_once(statistic)
    assert len({row["event_id"] for row in rows}) == len(rows)
    operator = InsightOperator(statistic)
    for frame in frames_of(sorted(LOG, key=lambda row: row[:2])):
        operator.add(frame)
    result = operator.flush()
    for field in statistic.result.arrow_schema():
        assert result.batch.schema.field(field.name).type == field.type, field.name
    for name, about in statistic.result.about.items():
        values = [row[name] for row in rows]
        assert about.null or None not in values, name
        known = [value for value in values if value is not None]
        assert not about.values or set(known) <= set(about.values)
        if about.low is not None:
            assert all(value >= about.low for value in known), name
        if about.high is not None:
            assert all(value <= about.high + 1e-9 for value in known), name


@pytest.mark.parametrize("statistic", STATISTICS, ids=lambda each: each.result.stream)
def test_a_run_has_the_same_results_alone_and_beside_another(statistic):
    alone = at_once(statistic, [row for row in LOG if row[0] == "b"])
    assert alone == [row for row in at_once(statistic) if row["key"] == "b"]

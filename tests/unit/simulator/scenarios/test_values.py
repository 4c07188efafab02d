"""Every field of every shipped stream lies in its range, varies where it should, and has a definition."""

import json
from collections import Counter

import numpy as np
import pytest

from astrocyte import CATALOG
from astrocyte.scenario import MemorySink, configure, load_scenario, simulate
from astrocyte.schemas.catalog import EventType
from astrocyte.schemas.event_types import axons, cells, controls, dna, ecology, kernels
from astrocyte.schemas.frames import Frame
from astrocyte.simulator.emission.assembly import Assembler
from astrocyte.simulator.event_spec import PLACE_BITS
from astrocyte.simulator.runtime.world import World
from astrocyte.simulator.testing import check_values
from tests.support.small_worlds import SMALL_WORLDS

CONTROLS = controls.EVENT_TYPES
SHIPPED = {module.__name__.rsplit(".", 1)[1]: module.EVENT_TYPES for module in (axons, cells, dna, ecology, kernels)}


@pytest.fixture(scope="module", params=SMALL_WORLDS)
def run(request):
    ticks, settings = SMALL_WORLDS[request.param]
    sink = MemorySink()
    simulate(request.param, settings, seed=3, ticks=ticks, sink=sink)
    return request.param, [frame for frame in sink.frames if frame.num_rows]


def test_values_are_in_the_ranges_of_the_catalog_and_vary_where_they_should(run):
    scenario, frames = run
    streams = {event_type.stream for event_type in SHIPPED[scenario]}
    assert streams - {frame.stream for frame in frames} <= {"truth"}
    assert list(check_values(frames, varying=True)) == []


def _run_until(scenario, ticks):
    """Rows of each stream and the state after ``ticks`` ticks of the small world."""
    settings = SMALL_WORLDS[scenario][1]
    world_of = load_scenario(scenario)
    config = configure(world_of.Config, settings)
    world = World(world_of, config, 9)
    assembler = Assembler(world_of, config, "run", frame_ticks=ticks)
    params = world_of.params(config)
    rows = {}
    for done in world.run(ticks, lambda _: params):
        for frame in assembler.add(done):
            rows.setdefault(frame.stream, []).extend(frame.rows())
    (state,) = world.host_states()
    return rows, state, config, assembler.last.metrics


def _entropy(shares):
    shares = shares[shares > 0]
    return float(-(shares * np.log(shares)).sum())


def test_the_row_of_the_last_tick_of_cells_is_that_of_their_state():
    rows, state, config, _ = _run_until("cells", 111)
    row, cells = rows["population_metrics"][-1], state["cells"]
    alive = cells["alive"]
    genome = cells["genome"][:, alive].astype(np.float64)
    diversity = []
    for number, low, high in ((0, 0.05, 5.0), (4, 0.1, 64.0)):
        counts = np.histogram(np.log(genome[number]), np.linspace(np.log(low), np.log(high), 17))[0]
        diversity.append(_entropy(counts / alive.sum()))
    assert row["tick"] == 110
    assert row["total_population"] == alive.sum() > 0
    assert row["avg_energy"] == pytest.approx(cells["energy"][alive].mean() / 1024)
    assert row["avg_generation"] == pytest.approx(cells["generation"][alive].mean())
    assert row["genome_diversity"] == pytest.approx(np.mean(diversity), rel=1e-4)
    _flows_are_those_of_the_events(rows["population_metrics"], "tick", config, {
        "births": [each for each in rows["evolutionary_events"] if each["type"] == "birth"],
        "deaths": [each for each in rows["evolutionary_events"] if each["type"] == "death"],
    })  # fmt: skip


def test_the_row_of_the_last_step_of_ecology_is_that_of_its_state():
    rows, state, config, _ = _run_until("ecology", 96)
    row, agents, amount = rows["simulation_steps"][-1], state["agents"], state["amount"] / 1024
    alive = agents["alive"]
    genomes = np.bincount(agents["genome"][alive], minlength=64) / alive.sum()
    assert row["step_number"] == 95
    assert row["total_agents"] == alive.sum() > 0
    kinds = [row[f"{kind}_agents"] for kind in ("system", "independent", "control")]
    assert kinds == np.bincount(agents["kind"][alive], minlength=3).tolist()
    assert row["current_max_generation"] == agents["generation"][alive].max()
    assert row["average_agent_age"] == (96 - agents["birth_tick"][alive].astype(np.int64)).sum() // alive.sum()
    assert row["total_resources"] == pytest.approx(amount.sum())
    assert row["average_agent_resources"] == pytest.approx(agents["resource"][alive].mean() / 1024)
    assert row["average_agent_health"] == pytest.approx(agents["health"][alive].mean() / 1024)
    assert row["average_reward"] == pytest.approx(agents["reward"][alive].mean() / 1024)
    assert row["genetic_diversity"] == pytest.approx(1 / (genomes**2).sum() / 64)
    assert row["dominant_genome_ratio"] == pytest.approx(genomes.max())
    evenness = _entropy(amount / amount.sum()) / np.log(len(amount))
    assert row["resource_distribution_entropy"] == pytest.approx(evenness, abs=1e-4)
    assert row["resource_efficiency"] == pytest.approx(
        row["resources_consumed"] / (row["resources_consumed"] + row["total_resources"])
    )
    _flows_are_those_of_the_events(rows["simulation_steps"], "step_number", config, {
        "births": [each for each in rows["agents"] if each["type"] == "born" and each["parent_id"] is not None],
        "deaths": [each for each in rows["agents"] if each["type"] == "died"],
    })  # fmt: skip


BIRTHS = {
    "cells": ("evolutionary_events", "cell_id", ("birth",)),
    "ecology": ("agents", "agent_id", ("born",)),
    "kernels": ("kernel_geometry", "kernel_id", ("spawned", "bred", "merged")),
}
"""Of the worlds in which individuals are born: the stream of births, the id in it, and its types of births."""


@pytest.mark.parametrize("scenario", BIRTHS)
def test_a_birth_has_one_date_in_its_event_the_fields_the_id_and_the_counts(scenario):
    rows, _, config, metrics = _run_until(scenario, 96)
    stream, identity, kinds = BIRTHS[scenario]
    births = [row for row in rows[stream] if row["type"] in kinds]
    parents = "parent_kernels" if scenario == "kernels" else "parent_id"
    children = [row for row in births if row[parents] not in (None, "[]")]
    assert len(children) > 20
    per_tick = Counter((row["timestamp"] - config.epoch_us) // config.tick_us for row in children)
    assert [per_tick[tick] for tick in range(96)] == metrics["births"].sum(axis=1).tolist()
    for row in births:
        tick = (row["timestamp"] - config.epoch_us) // config.tick_us
        assert row[identity] >> PLACE_BITS == (tick + 1 if row in children else 0)
        if scenario == "ecology":
            assert row["birth_time"] == tick
        if scenario == "kernels":
            assert row["spawned_at"] == row["timestamp"]


def _flows_are_those_of_the_events(curve, name, config, flows):
    before = -1
    for row in curve:
        for flow, events in flows.items():
            ticks = [(each["timestamp"] - config.epoch_us) // config.tick_us for each in events]
            assert row[flow] == sum(before < tick <= row[name] for tick in ticks), (name, row[name], flow)
        before = row[name]
    assert all(sum(row[flow] for row in curve) > 0 for flow in flows)


@pytest.mark.parametrize("scenario", [name for name in SHIPPED if load_scenario(name).controls])
def test_the_controls_of_a_run_are_a_stream_of_the_catalog_and_in_its_ranges(scenario):
    name = load_scenario(scenario).controls[0]
    messages = iter([[(name, {"difficulty": 1.5, "mutation_rate": 0.4})], [(name, {"hardship": 2})], [(name, 7)]])
    sink = MemorySink()
    settings = SMALL_WORLDS[scenario][1] | {"plants": ()}
    simulate(scenario, settings, seed=3, ticks=40, sink=sink, control_source=lambda: next(messages, []))
    frames = [frame for frame in sink.of("simulation_controls") if frame.num_rows]
    assert list(check_values(frames)) == []
    rows = [row for frame in frames for row in frame.rows()]
    assert {row["control"] for row in rows} == {name}
    assert [json.loads(row["message"]) for row in rows][-1] == {"value": 7}
    for row in rows:
        assert set(CATALOG["simulation_controls"].fields) <= set(row)
        assert (row["error"] is not None) == (row["type"] == "refused")


@pytest.mark.parametrize(
    "event_type", [each for types in (*SHIPPED.values(), CONTROLS) for each in types], ids=lambda each: each.stream
)
def test_every_field_of_a_shipped_stream_is_defined(event_type):
    assert set(event_type.about) == set(event_type.fields)
    for name, field in event_type.about.items():
        assert field.doc, name
        assert field.type == event_type.fields[name]
        if field.type in ("int32", "int64", "float32", "float64") and not name.endswith(("_id", "primitive_root")):
            assert field.unit or name in ("valence", "action_taken", "lineage"), f"{name} has no unit"


def test_a_value_out_of_range_a_null_and_a_constant_are_found():
    frame = Frame.from_columns(
        "dna.karma_updated",
        "run",
        {
            "timestamp": np.arange(3, dtype=np.int64),
            "key": ["a"] * 3,
            "type": ["dna.karma_updated"] * 3,
            "snapshot_id": np.arange(3, dtype=np.int64),
            "agent_id": ["a"] * 3,
            "version": [1, 2, None],
            "karma_score": np.array([0.2, 1.87, 0.3]),
        },
    )
    assert sorted(check_values([frame], varying=True)) == [
        "dna.karma_updated.agent_id: all 3 values are 'a'; expected several",
        "dna.karma_updated.karma_score: got 1.87; expected at most 1.0",
        "dna.karma_updated.version: 1 of 3 values are null; expected a value",
    ]
    assert "dna.karma_updated" in CATALOG


def test_fields_may_be_given_by_type_alone_or_with_their_definitions():
    plain = EventType("plain", key="oven", fields={"heat": "float32"})
    assert (dict(plain.fields), dict(plain.about)) == ({"heat": "float32"}, {})
    defined = CATALOG["axon_1"]
    assert dict(defined.fields) == {"value": "float64"}

"""The kernels: their lives, merges of mutual neighbours, wars, and the shape of their events."""

import json
from collections import defaultdict

import jax.numpy as jnp
import numpy as np
import pytest

from astrocyte.scenario import MemorySink, configure, load_scenario, simulate
from astrocyte.schemas.errors import InvalidSettings
from astrocyte.simulator.emission.assembly import Assembler
from astrocyte.simulator.runtime.world import World
from astrocyte.simulator.scenarios.kernels.config import ELEMENTS, REGIMES, e8_roots
from astrocyte.simulator.scenarios.kernels.scenario import mutual_nearest

TICKS = 60
CONFIG = {"size": 96, "initial": 0.6, "train": 0.3, "spawn": 0.05, "breed": 0.2, "war": 0.05, "merge_every": 10,
          "merge_radius": 0.8, "plants": [{"kind": "breakdown", "at_tick": 30, "ticks": 1, "strength": 0.5},
                                          {"kind": "war", "at_tick": 40, "ticks": 10, "strength": 0.5}]}  # fmt: skip


@pytest.fixture(scope="module")
def run():
    scenario = load_scenario("kernels")
    config = configure(scenario.Config, CONFIG)
    world = World(scenario, config, 2)
    assembler = Assembler(scenario, config, "test", frame_ticks=TICKS)
    params = scenario.params(config)
    frames = [frame for done in world.run(TICKS, lambda _: params) for frame in assembler.add(done)]
    problems = [text for state in world.host_states() for text in scenario.violations(config, state, assembler.last)]
    rows = {frame.stream: list(frame.rows()) for frame in frames if frame.num_rows}
    return rows, problems, assembler.last.metrics


@pytest.fixture(scope="module")
def histories(run):
    found = defaultdict(list)
    for row in run[0]["kernel_geometry"]:
        found[row["kernel_id"]].append(row)
    return found


def _tick(row):
    return (row["timestamp"] - 1_735_689_600_000_000) // 100_000


def test_there_are_no_violations_and_all_kinds_of_events(run):
    rows, problems, metrics = run
    assert problems == []
    assert {row["type"] for row in rows["kernel_geometry"]} == {"spawned", "bred", "updated", "merged", "retired"}
    assert {row["outcome"] for row in rows["war_history"]} >= {"attacker_won", "defender_won"}
    assert metrics["alive"][-1].sum() == metrics["founders"].sum() + (metrics["births"] - metrics["deaths"]).sum()


def test_geometry_has_eight_coordinates_a_root_of_e8_and_a_regime_of_its_coupling(run):
    for row in run[0]["kernel_geometry"]:
        assert len(row["basin_coordinates"]) == 8
        assert 0 <= row["primitive_root"] < 240
        assert 0 <= row["phi"] <= 1
        assert row["regime"] == REGIMES[(row["kappa"] >= 40) + (row["kappa"] >= 80)]
        assert row["element_group"] in ELEMENTS


def test_kernels_live_from_birth_to_retirement(histories):
    for rows in histories.values():
        kinds = [row["type"] for row in rows]
        assert kinds[0] in ("spawned", "bred", "merged")
        assert not {"spawned", "bred", "merged"} & set(kinds[1:])
        assert "retired" not in kinds[:-1]
        assert {row["spawned_at"] for row in rows} == {rows[0]["timestamp"]}


def test_parents_are_known_kernels_one_of_the_spawned_and_two_of_the_bred_and_merged(run, histories):
    wanted = {"bred": 2, "merged": 2}
    for row in run[0]["kernel_geometry"]:
        parents = json.loads(row["parent_kernels"])
        assert {int(parent) for parent in parents} <= set(histories)
        if row["type"] in wanted:
            assert len(parents) == wanted[row["type"]]
        elif row["type"] == "spawned":
            assert len(parents) == (row["generation"] > 0)


def test_a_merge_retires_two_kernels_and_creates_a_new_one_in_the_same_tick(run, histories):
    retired = {(row["kernel_id"], _tick(row)) for row in run[0]["kernel_geometry"] if row["type"] == "retired"}
    merged = [row for row in run[0]["kernel_geometry"] if row["type"] == "merged"]
    assert merged
    for row in merged:
        parents = [int(parent) for parent in json.loads(row["parent_kernels"])]
        assert row["kernel_id"] not in parents
        assert len(set(parents)) == 2
        assert {(parent, _tick(row)) for parent in parents} <= retired
        assert row["generation"] == 1 + max(histories[parent][-1]["generation"] for parent in parents)
        steps = sum(histories[parent][-1]["training_steps"] for parent in parents)
        assert row["training_steps"] == steps
        assert _tick(row) % CONFIG["merge_every"] == 0


def test_every_line_of_descent_ends_at_a_founder(histories):
    parents = {
        kernel: [int(one) for one in json.loads(rows[0]["parent_kernels"])] for kernel, rows in histories.items()
    }
    generation = {kernel: rows[0]["generation"] for kernel, rows in histories.items()}
    for kernel, of in parents.items():
        assert all(generation[parent] < generation[kernel] for parent in of)


def test_training_steps_count_up_with_successes_and_failures(histories):
    for rows in histories.values():
        steps = [row["training_steps"] for row in rows]
        assert steps == sorted(steps)
    last = [rows[-1] for rows in histories.values() if len(rows) > 10]
    assert sum(row["success_count"] + row["failure_count"] >= row["training_steps"] for row in last) == len(last)


def test_wars_are_between_two_kernels_and_won_by_one_of_them_or_none(run, histories):
    wars = run[0]["war_history"]
    assert len({row["war_id"] for row in wars}) == len(wars)
    for row in wars:
        assert row["attacker_id"] != row["defender_id"]
        assert {row["attacker_id"], row["defender_id"]} <= set(histories)
        side = {"attacker_won": row["attacker_id"], "defender_won": row["defender_id"], "stalemate": None}
        assert row["winner_id"] == side[row["outcome"]]
        assert row["phi_delta"] == pytest.approx(row["attacker_phi"] - row["defender_phi"], abs=1e-6)
        assert 1 <= row["rounds"] <= 10


def test_the_higher_phi_wins_more_often(run):
    decided = [row for row in run[0]["war_history"] if row["winner_id"] is not None and abs(row["phi_delta"]) > 0.2]
    wins = [(row["winner_id"] == row["attacker_id"]) == (row["phi_delta"] > 0) for row in decided]
    assert np.mean(wins) > 0.7


def test_planted_breakdown_and_war_show_and_are_in_the_truth(run):
    rows, _, metrics = run
    assert [(row["kind"], row["rule"]) for row in rows["truth"]] == [
        ("breakdown", "regime_breakdown"), ("war", "winning_streak"),
    ]  # fmt: skip
    broken = [row for row in rows["kernel_geometry"] if row["regime"] == "breakdown"]
    assert sum(_tick(row) == 30 for row in broken) > 5
    wars = metrics["wars"].sum(axis=1)
    assert wars[40:50].mean() > 3 * wars[:40].mean()


def test_there_are_240_roots_of_length_one_with_56_neighbours_each():
    roots = e8_roots()
    assert roots.shape == (240, 8)
    assert np.allclose((roots**2).sum(axis=1), 1)
    assert ((np.abs(roots @ roots.T - 0.5) < 1e-6).sum(axis=1) == 56).all()


def test_only_living_mutual_neighbours_within_the_radius_merge():
    basin = jnp.zeros((8, 6)).at[0].set(jnp.array([0.0, 0.1, 0.25, 5.0, 5.05, 9.0]))
    alive = jnp.array([True, True, True, True, False, True])
    assert mutual_nearest(basin, alive, jnp.float32(0.5)).tolist() == [1, 0, -1, -1, -1, -1]


def test_settings_out_of_range_name_field_and_range():
    with pytest.raises(InvalidSettings, match="size: expected int from 8 to 4096, got 5000"):
        simulate("kernels", {"size": 5000}, ticks=1, sink=MemorySink())

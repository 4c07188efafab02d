"""The ecology: valid references between streams, closed ledgers, and stable cycles of predator and prey."""

import math
from collections import Counter

import jax.numpy as jnp
import numpy as np
import pytest

from astrocyte.scenario import MemorySink, configure, load_scenario, simulate
from astrocyte.schemas.errors import InvalidSettings
from astrocyte.simulator.emission.assembly import Assembler
from astrocyte.simulator.runtime.world import World
from astrocyte.simulator.scenarios.ecology.config import ACTIONS, GENOMES, TYPES
from astrocyte.simulator.scenarios.ecology.events import evenness
from astrocyte.simulator.scenarios.ecology.map import grow, neighbours, occupant, partners, prey_first, take_from

TICKS = 60
CONFIG = {"size": 512, "routine_every": 10, "routine_share": 0.3, "steps_every": 1, "old_age": 20, "upkeep": 0.3,
          "starvation_threshold": 8, "starvation_damage": 0.2,
          "plants": [{"kind": "depletion", "at_tick": 40, "ticks": 10, "strength": 0.95},
                     {"kind": "collapse", "at_tick": 50, "strength": 0.5}]}  # fmt: skip


@pytest.fixture(scope="module")
def run():
    scenario = load_scenario("ecology")
    config = configure(scenario.Config, CONFIG)
    world = World(scenario, config, 14)
    assembler = Assembler(scenario, config, "test", frame_ticks=TICKS)
    params = scenario.params(config)
    frames = [frame for done in world.run(TICKS, lambda _: params) for frame in assembler.add(done)]
    problems = [text for state in world.host_states() for text in scenario.violations(config, state, assembler.last)]
    rows = {frame.stream: list(frame.rows()) for frame in frames if frame.num_rows}
    return rows, problems, assembler.last


def test_ledgers_close_and_nothing_is_negative(run):
    _, problems, interval = run
    assert problems == []
    assert interval.metrics["gathered"].sum() > 0
    assert interval.metrics["spent"].sum() > 0
    assert interval.metrics["lost"].sum() > 0


def test_every_stream_of_the_catalog_has_events(run):
    assert set(run[0]) == {"agents", "agent_states", "resource_states", "simulation_steps", "agent_actions",
                           "learning_experiences", "health_incidents", "truth"}  # fmt: skip


def test_agents_are_born_once_die_at_most_once_and_the_count_agrees(run):
    rows = run[0]
    born = [row["agent_id"] for row in rows["agents"] if row["type"] == "born"]
    died = [row["agent_id"] for row in rows["agents"] if row["type"] == "died"]
    assert len(set(born)) == len(born)
    assert len(set(died)) == len(died)
    assert set(died) <= set(born)
    assert rows["simulation_steps"][-1]["total_agents"] == len(born) - len(died)
    assert len(died) > 20


def test_children_have_a_living_parent_of_their_type_genome_and_generation(run):
    known = {row["agent_id"]: row for row in run[0]["agents"] if row["type"] == "born"}
    children = [row for row in known.values() if row["parent_id"] is not None]
    assert len(children) > 20
    for child in children:
        parent = known[child["parent_id"]]
        assert child["generation"] == parent["generation"] + 1
        assert (child["agent_type"], child["genome_id"]) == (parent["agent_type"], parent["genome_id"])
        # A founder may have a child in step 0; whoever is born in a step acts from the next one on.
        assert child["birth_time"] > parent["birth_time"] or parent["parent_id"] is None


def test_actions_refer_to_states_before_and_after_and_to_known_agents(run):
    rows = run[0]
    agents = {row["agent_id"] for row in rows["agents"] if row["type"] == "born"}
    states = {(row["agent_id"], row["step_number"]): row for row in rows["agent_states"]}
    assert len(states) == len(rows["agent_states"])
    for row in rows["agent_actions"]:
        before = states[row["agent_id"], row["step_number"] - 1]
        after = states[row["agent_id"], row["step_number"]]
        assert row["state_before_id"] == f"{before['agent_id']}-{before['step_number']}"
        assert row["state_after_id"] == f"{after['agent_id']}-{after['step_number']}"
        assert row["resources_before"] == before["resource_level"]
        assert row["resources_after"] == after["resource_level"]
        assert row["action_target_id"] is None or row["action_target_id"] in agents
    others = (rows["agent_states"], rows["learning_experiences"], rows["health_incidents"])
    assert {row["agent_id"] for part in others for row in part} <= agents


def test_all_actions_happen_and_only_those_of_attacks_and_gifts_have_targets(run):
    actions = run[0]["agent_actions"]
    assert {row["action_type"] for row in actions} == set(ACTIONS)
    assert {row["action_type"] for row in actions if row["action_target_id"] is not None} <= {"attack", "share"}
    assert len({row["action_id"] for row in actions}) == len(actions)


def test_control_agents_do_not_learn(run):
    kind = {row["agent_id"]: row["agent_type"] for row in run[0]["agents"]}
    assert set(kind.values()) == set(TYPES)
    assert {kind[row["agent_id"]] for row in run[0]["learning_experiences"]} == {"system", "independent"}


def test_incidents_have_a_cause_that_fits_the_change_of_health(run):
    incidents = run[0]["health_incidents"]
    assert {"attack", "starvation"} <= {row["cause"] for row in incidents}
    for row in incidents:
        if row["cause"] in ("attack", "starvation"):
            assert row["health_after"] < row["health_before"]
        assert (row["details"] is not None) == (row["cause"] == "attack")


def test_agents_that_a_collapse_kills_have_not_starved_although_they_were_hungry(run):
    starved = [row for row in run[0]["health_incidents"] if row["cause"] == "starvation"]
    assert 50 in {row["step_number"] for row in starved}
    assert all(row["health_after"] < 0.5 for row in starved)


def test_distribution_entropy_is_one_where_all_tiles_hold_the_same_and_falls_with_inequality():
    def of(amounts):
        weighted = sum(round(amount * math.log(max(amount, 1))) for amount in amounts)
        return evenness(sum(amounts), weighted, len(amounts))

    assert of([5_000] * 64) == pytest.approx(1.0, abs=1e-4)
    assert of([5_000] * 32 + [0] * 32) == pytest.approx(math.log(32) / math.log(64), abs=1e-4)
    assert of([5_000] + [0] * 63) == pytest.approx(0.0, abs=1e-4)
    assert of([0] * 64) == 0.0


def test_shares_of_a_step_follow_the_state_of_the_map_and_the_agents(run):
    rows, _, _ = run
    steps = rows["simulation_steps"]
    for name in ("resource_efficiency", "resource_distribution_entropy", "genetic_diversity"):
        values = [row[name] for row in steps]
        assert all(0.0 < value < 1.0 for value in values), name
        assert max(values) - min(values) > 0.02, name
    for row in steps:
        left, gathered = row["total_resources"], row["resources_consumed"]
        assert row["resource_efficiency"] == pytest.approx(gathered / (gathered + left))
    agents = {}
    for row in rows["agents"]:
        if row["type"] == "born":
            agents[row["agent_id"]] = row["genome_id"]
        else:
            del agents[row["agent_id"]]
    share = np.array(list(Counter(agents.values()).values())) / len(agents)
    assert steps[-1]["genetic_diversity"] == pytest.approx(1.0 / (share**2).sum() / GENOMES)
    assert steps[-1]["dominant_genome_ratio"] == pytest.approx(share.max())


def test_the_age_of_an_agent_counts_its_steps_as_the_mean_age_does(run):
    rows, _, interval = run
    born = {row["agent_id"]: row for row in rows["agents"] if row["type"] == "born"}
    for state in rows["agent_states"]:
        agent = born[state["agent_id"]]
        assert state["age"] == state["step_number"] - agent["birth_time"] + (agent["parent_id"] is None)
    for row in rows["simulation_steps"]:
        total = interval.metrics["age"][row["step_number"]].sum()
        assert row["average_agent_age"] == total // row["total_agents"]
    assert min(state["age"] for state in rows["agent_states"]) >= 0


def test_depletion_empties_the_map_and_is_in_the_truth(run):
    steps = run[0]["simulation_steps"]
    assert steps[40]["total_resources"] < 0.2 * steps[39]["total_resources"]
    truth = [row for row in run[0]["truth"] if row["kind"] == "depletion"]
    assert [(row["type"], row["rule"], (row["until"] - row["timestamp"]) // 100_000) for row in truth] == [
        ("planted", "resource_exhaustion", 10),
        ("possible", "starvation_wave", 70),
    ]


def test_settings_out_of_range_name_field_and_range():
    with pytest.raises(InvalidSettings, match=r"growth: expected float from 0\.0 to 1\.0, got 2\.0"):
        simulate("ecology", {"growth": 2.0}, ticks=1, sink=MemorySink())


def test_tiles_grow_logistically_up_to_capacity():
    amount = jnp.array([0, 512, 1023, 1024, 2000], jnp.int32)
    grown = grow(amount, jnp.float32(0.1), jnp.float32(0.01), jnp.int32(1024))
    assert grown.tolist() == [10, 543, 1023, 1024, 2000]


def test_gatherers_get_what_the_tile_loses():
    amount, tile = jnp.array([5, 100, 7], jnp.int32), jnp.array([1, 0, 2, 1], jnp.int32)
    winner = jnp.array([1, 0, -1], jnp.int32)
    taken, left = take_from(amount, tile, winner, jnp.int32(10))
    assert taken.tolist() == [10, 5, 0, 0]
    assert left.tolist() == [0, 90, 7]
    assert occupant(tile, jnp.array([False, True, True, True]), 3).tolist() == [1, 3, 2]


def test_one_social_agent_per_tile_meets_one_other_and_the_pairing_is_mutual():
    random = np.random.default_rng(5)
    slots, tiles = 4_096, 1_500
    tile = random.integers(0, tiles, slots).astype(np.int32)
    alive, social = random.random((2, slots)) < np.array([[0.8], [0.3]])
    luck = random.integers(0, 2**32, slots, dtype=np.uint32)
    partner = np.asarray(partners(jnp.asarray(tile), jnp.asarray(luck), alive, alive & social, tiles))
    meets = np.flatnonzero(partner >= 0)
    assert (partner[partner[meets]] == meets).all()
    assert (tile[partner[meets]] == tile[meets]).all()
    assert alive[meets].all()
    assert (social[meets] != social[partner[meets]]).all()
    both = set(tile[alive & social]) & set(tile[alive & ~social])
    assert sorted(tile[meets[social[meets]]]) == sorted(both)


def test_the_edges_of_the_map_are_joined():
    assert [int(tile) for tile in neighbours(jnp.int32(0), 4)] == [1, 3, 4, 12]


def _lotka_volterra(order, *, size=1_000_000, dt=0.01, steps=10_000):
    """Individuals that are born, eaten and die at random; equilibrium at (size, size), rates 1, so period 2 pi."""
    random = np.random.default_rng(4)
    prey, predators = int(1.1 * size), size
    path = np.empty((steps, 2))

    def catch(x, y):
        eaten = random.poisson(dt * x * y / size)
        return x - eaten, eaten

    for step in range(steps):
        if order == "prey first":
            prey, predators = prey_first(
                prey,
                predators,
                grow=lambda x: x + random.poisson(dt * x),
                catch=catch,
                live=lambda y, eaten: y + eaten - random.poisson(dt * (y + eaten)),
            )
        else:
            born, died = random.poisson(dt * prey), random.poisson(dt * predators)
            left, eaten = catch(prey, predators)
            prey, predators = left + born, predators + eaten - died
        path[step] = prey / size, predators / size
    return path


def test_lotka_volterra_keeps_period_means_and_amplitude_with_prey_first():
    path = _lotka_volterra("prey first")
    above = path[:, 0] > 1.0
    rises = np.flatnonzero(~above[:-1] & above[1:])
    rises = rises[np.insert(np.diff(rises) > 300, 0, True)]  # noise crosses the line more than once
    assert np.diff(rises).mean() * 0.01 == pytest.approx(2 * np.pi, rel=0.02)
    assert path.mean(axis=0) == pytest.approx([1.0, 1.0], rel=0.02)
    assert np.abs(path[-1_000:, 0] - 1).max() < 1.5 * 0.1


def test_lotka_volterra_spirals_out_when_both_are_updated_at_once():
    path = _lotka_volterra("at once")
    assert np.abs(path[-1_000:, 0] - 1).max() > 1.5 * 0.1


def test_settings_can_ask_for_the_state_of_every_agent_after_every_step():
    sink = MemorySink()
    settings = {"size": 64, "routine_every": 2, "routine_share": 1.0, "tile_share": 1.0, "steps_every": 1}
    simulate("ecology", settings, seed=3, ticks=20, sink=sink)
    rows = {name: [row for frame in sink.of(name) for row in frame.rows()] for name in ("agents", "agent_states")}
    known = {(row["agent_id"], row["step_number"]) for row in rows["agent_states"]}
    life = {row["agent_id"]: [row["birth_time"], 20] for row in rows["agents"] if row["type"] == "born"}
    for row in rows["agents"]:
        if row["type"] == "died":
            life[row["agent_id"]][1] = row["death_time"]
    expected = {(agent, step) for agent, (born, died) in life.items() for step in range(born + 1, died) if step < 19}
    assert len(expected) > 300
    assert expected <= known

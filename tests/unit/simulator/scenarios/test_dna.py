"""The dna scenario: its four flows (start, mutation, save, rollback), its invariants, and theory of its operators."""

import json
from collections import defaultdict
from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from astrocyte.scenario import MemorySink, load_scenario, simulate
from astrocyte.schemas.errors import InvalidSettings
from astrocyte.simulator.runtime.controls import Control
from astrocyte.simulator.scenario import InvalidControl
from astrocyte.simulator.scenarios.dna.config import ELITE, KEYS, TRAITS
from astrocyte.simulator.scenarios.dna.control import ORDERS
from astrocyte.simulator.scenarios.dna.genetics import choose, crossover, gene_pool, mutate, ranking, truncation
from astrocyte.simulator.scenarios.dna.scenario import DNA

CONFIG = {"size": 24, "generation_ticks": 4, "rollback": 0.5, "save": 0.02, "backup": 0.01,
          "plants": [{"kind": "outage", "at_tick": 100, "ticks": 20}]}  # fmt: skip


def _rows(sink):
    return [{**row, "stream": frame.stream} for frame in sink.frames for row in frame.rows()]


@pytest.fixture(scope="module")
def run():
    sink = MemorySink()
    summary = simulate("dna", CONFIG, seed=5, ticks=160, sink=sink)
    return summary, _rows(sink)


@pytest.fixture(scope="module")
def histories(run):
    by_agent = defaultdict(list)
    for row in run[1]:
        if row["stream"].startswith("dna."):
            by_agent[row["agent_id"]].append(row)
    return {agent: sorted(rows, key=lambda row: row["timestamp"]) for agent, rows in by_agent.items()}


def test_initial_setup_is_a_manual_first_snapshot_and_then_its_first_score(histories):
    assert len(histories) == CONFIG["size"]
    for rows in histories.values():
        made, scored = rows[:2]
        assert made["stream"] == "dna.snapshot_created"
        wanted = {"version": 1, "source": "manual", "parent_snapshot_id": None,
                  "reason": "Initial configuration snapshot"}  # fmt: skip
        assert {name: made[name] for name in wanted} == wanted
        assert made["created_at"] == made["timestamp"] / 1e6
        assert scored["stream"] == "dna.karma_updated"
        assert scored["snapshot_id"] == made["snapshot_id"]
        assert scored["previous_score"] is None
        assert scored["score_delta"] is None
        assert scored["timestamp"] > made["timestamp"]


def test_sizes_count_the_keys_and_traits_that_a_snapshot_holds(histories):
    made = [row for rows in histories.values() for row in rows if row["stream"] != "dna.karma_updated"]
    for name, most in (("dna_size", len(KEYS)), ("traits_count", len(TRAITS))):
        values = [row[name] for row in made]
        assert len(set(values)) > 2
        assert all(0 <= value <= most for value in values)
    for rows in histories.values():
        known = {row["snapshot_id"]: row for row in rows if row["stream"] != "dna.karma_updated"}
        for row in known.values():
            if row["stream"] == "dna.snapshot_created" and row["parent_snapshot_id"] is not None:
                parent = known[row["parent_snapshot_id"]]
                assert (row["dna_size"], row["traits_count"]) == (parent["dna_size"], parent["traits_count"])


def test_optimisation_run_alternates_mutations_and_scores_of_their_own_snapshots(histories):
    chains = 0
    for rows in histories.values():
        for first, second, third, fourth in zip(rows, rows[1:], rows[2:], rows[3:], strict=False):
            kinds = [row["stream"].split(".")[1] for row in (first, second, third, fourth)]
            if kinds != ["mutation_applied", "karma_updated"] * 2:
                continue
            chains += 1
            assert second["snapshot_id"] == first["snapshot_id"]
            assert third["parent_snapshot_id"] == first["snapshot_id"]
            assert third["version"] == first["version"] + 1
            assert fourth["previous_score"] == second["karma_score"]
            assert fourth["score_delta"] == pytest.approx(fourth["karma_score"] - second["karma_score"], abs=1e-6)
    assert chains > 20


def test_manual_save_keeps_the_lineage_and_is_not_scored(histories):
    saves = 0
    for rows in histories.values():
        scored = {row["snapshot_id"] for row in rows if row["stream"] == "dna.karma_updated"}
        made = [row for row in rows if row["stream"] != "dna.karma_updated"]
        for before, row in pairwise(made):
            if row.get("reason") == "Production configuration backup":
                saves += 1
                assert row["source"] == "manual"
                assert row["parent_snapshot_id"] == before["snapshot_id"]
                assert row["version"] == before["version"] + 1
                assert row["snapshot_id"] not in scored
    assert saves > 5


def test_rollback_is_a_snapshot_from_the_named_version_and_scores_like_it(histories):
    rollbacks = 0
    for rows in histories.values():
        made = {row["version"]: row for row in rows if row["stream"] != "dna.karma_updated"}
        score = {row["snapshot_id"]: row for row in rows if row["stream"] == "dna.karma_updated"}
        for row in made.values():
            if "Rollback" not in (row["reason"] or ""):
                continue
            rollbacks += 1
            version = int(row["reason"].removeprefix("Rollback to version ").split()[0])
            assert row["parent_snapshot_id"] == made[version]["snapshot_id"]
            assert row["source"] == "manual"
            if row["snapshot_id"] in score:
                again = score[row["snapshot_id"]]
                assert again["karma_score"] == pytest.approx(score[row["parent_snapshot_id"]]["karma_score"], rel=0.1)
                assert again["previous_score"] < score[row["parent_snapshot_id"]]["karma_score"]
    assert rollbacks > 10


def test_versions_of_an_agent_count_up_by_one_and_ids_never_repeat(histories):
    for rows in histories.values():
        made = [row for row in rows if row["stream"] != "dna.karma_updated"]
        assert [row["version"] for row in made] == list(range(1, len(made) + 1))
        ids = [row["snapshot_id"] for row in made]
        assert ids == sorted(set(ids))


def test_mutations_name_the_keys_that_changed_and_the_traits_that_follow(run):
    mutations = [row for row in run[1] if row["stream"] == "dna.mutation_applied"]
    assert len(mutations) > 100
    for row in mutations:
        keys, delta = json.loads(row["mutation_keys"]), json.loads(row["traits_delta"])
        assert keys
        assert set(keys) <= set(KEYS)
        assert set(delta) <= set(TRAITS)
        assert row["reason"] == "Exploration phase" or row["reason"].startswith("Crossover with agent-")


def test_karma_rises_until_there_is_an_elite_pool(run):
    scores = [row["karma_score"] for row in run[1] if row["stream"] == "dna.karma_updated"]
    assert np.mean(scores[-50:]) > np.mean(scores[:24]) + 0.1
    assert max(scores) >= ELITE
    assert run[0].metrics["elite"] > 0


def test_outage_leaves_snapshots_unscored_and_is_in_the_truth(run):
    truth = [row for row in run[1] if row["stream"] == "truth"]
    assert [(row["kind"], row["rule"]) for row in truth] == [
        ("outage", "mutation_never_scored"), ("outage", "evolution_stalls")
    ]  # fmt: skip
    since, until = truth[0]["timestamp"], truth[0]["until"]
    assert not [r for r in run[1] if r["stream"] == "dna.karma_updated" and since <= r["timestamp"] < until]


def test_settings_out_of_range_name_field_and_range():
    with pytest.raises(InvalidSettings, match="size: expected int from 4 to 65536, got 2"):
        simulate("dna", {"size": 2}, ticks=1, sink=MemorySink())
    assert load_scenario("dna").size_setting == "size"


def _selected_parents(fitness, luck, share=0.5):
    order, rank = ranking(jnp.asarray(fitness))
    return choose(order, jnp.sum(truncation(rank, share), axis=1), jnp.asarray(luck))


def _uniform(random, shape):
    return random.random(shape, np.float32)


@pytest.mark.parametrize("size", [8, 600])
def test_ranking_is_that_of_a_stable_sort(size):
    fitness = np.random.default_rng(1).integers(0, 5, (3, size)).astype(np.float32)
    order, rank = ranking(jnp.asarray(fitness))
    expected = np.argsort(-fitness, axis=1, kind="stable")
    assert (np.asarray(order) == expected).all()
    assert (np.take_along_axis(np.asarray(rank), expected, axis=1) == np.arange(size)).all()


def test_onemax_with_a_gene_pool_follows_the_umda_curve():
    genes, size = 256, 6_000
    random = np.random.default_rng(1)
    genome = jnp.asarray(random.integers(0, 2, (genes, 1, size)).astype(np.float32))
    step = jax.jit(lambda genome, luck: gene_pool(genome, _selected_parents(jnp.sum(genome, axis=0), luck)))
    for generation in range(1, 10):
        genome = step(genome, _uniform(random, genome.shape))
        if generation % 3 == 0:
            expected = 0.5 * (1 + np.sin(0.7979 * generation / np.sqrt(genes)))
            assert float(np.asarray(genome).mean()) == pytest.approx(expected, rel=0.01)


@pytest.mark.parametrize("operator", ["pool", "crossover"])
def test_response_to_selection_follows_the_breeders_equation(operator):
    genes, size = 24, 20_000
    random = np.random.default_rng(2)
    genome = random.standard_normal((genes, 1, size), np.float32) * genes**-0.5
    trait = genome.sum(axis=0)
    seen = trait + random.standard_normal(trait.shape, np.float32)  # heritability one half
    if operator == "pool":
        child = gene_pool(jnp.asarray(genome), _selected_parents(seen, _uniform(random, genome.shape)))
    else:
        mother, father = (np.asarray(_selected_parents(seen, _uniform(random, trait.shape))) for _ in range(2))
        both = (np.take_along_axis(genome, parents[None], axis=2) for parents in (mother, father))
        child = crossover(*both, _uniform(random, genome.shape), 0.5)
    response = np.asarray(child).sum(axis=0).mean() - trait.mean()
    expected = 0.7979 * seen.std() * trait.var() / seen.var()
    assert response == pytest.approx(expected, rel=0.04)


def test_mutation_has_its_rate_and_step_and_stays_within_bounds():
    random = np.random.default_rng(3)
    genome = np.full((12, 1, 20_000), 0.5, np.float32)
    noise = random.standard_normal(genome.shape, np.float32)
    child = np.asarray(mutate(genome, _uniform(random, genome.shape), noise, 0.1, 0.1))
    moved = child != genome
    assert moved.mean() == pytest.approx(0.1, abs=4 * np.sqrt(0.09 / moved.size))
    assert (child[moved] - 0.5).std() == pytest.approx(0.1, rel=0.02)
    far = np.asarray(mutate(genome, np.zeros_like(genome), 9.0 * noise, 1.0, 0.5))
    assert far.min() >= 0.0
    assert far.max() <= 1.0


GA = [
    {"action": "crossover", "agent_id": "agent-00003", "partner_agent_id": "agent-00009", "score_delta": 0.2},
    {"action": "elite", "agent_id": "agent-00005", "snapshot_id": 7, "karma_score": 0.9},
]


def test_control_ga_sets_mates_from_its_tick_on_which_are_else_of_the_elite_and_a_replay_repeats_it(run):
    config = {name: value for name, value in CONFIG.items() if name != "plants"}
    controls = [Control(40, "ga", message) for message in GA]
    plain, steered, again = MemorySink(), MemorySink(), MemorySink()
    simulate("dna", config, seed=5, ticks=100, sink=plain)
    summary = simulate("dna", config, seed=5, ticks=100, sink=steered, controls=controls)
    simulate("dna", config, seed=5, ticks=100, sink=again, controls=summary.controls, chunk_ticks=7)
    rows, before = (
        [row for row in _rows(sink) if row["stream"] == "dna.mutation_applied"] for sink in (steered, plain)
    )
    start = 1_735_689_600_000_000 + 40 * 100_000
    later = [row for row in rows if row["timestamp"] >= start]
    assert [row for row in rows if row["timestamp"] < start] == [row for row in before if row["timestamp"] < start]
    assert "agent-00005" in {row["agent_id"] for row in before if row["timestamp"] >= start}
    assert "agent-00005" not in {row["agent_id"] for row in later}
    reasons = {row["reason"].removesuffix(" (elite)") for row in later if row["agent_id"] == "agent-00003"}
    assert {reason for reason in reasons if reason.startswith("Crossover")} == {"Crossover with agent-00009"}
    others = {row["reason"].removesuffix(" (elite)") for row in later if row["agent_id"] != "agent-00003"}
    assert {reason for reason in others if reason.startswith("Crossover")} == {"Crossover with agent-00005"}
    assert _rows(steered) == _rows(again)


@pytest.mark.parametrize("recombination", ["mate", "pool"])
def test_a_population_whose_agents_are_all_elite_goes_on_evolving(recombination):
    config = {"size": 24, "generation_ticks": 4, "recombination": recombination}
    controls = [Control(40, "ga", {**GA[1], "agent_id": f"agent-{number:05d}"}) for number in range(24)]
    sink = MemorySink()
    simulate("dna", config, seed=5, ticks=80, sink=sink, controls=controls)
    start = 1_735_689_600_000_000 + 44 * 100_000
    bred = [row for row in _rows(sink) if row["stream"] == "dna.mutation_applied" and row["timestamp"] >= start]
    assert len({row["timestamp"] for row in bred}) >= 8


def test_control_ga_sets_the_mutation_rate():
    config = {"size": 24, "generation_ticks": 4, "crossover": 0.0}
    rate = {"action": "mutation_rate", "mutation_rate": 1.0}
    sink = MemorySink()
    simulate("dna", config, seed=5, ticks=80, sink=sink, controls=[Control(41, "ga", rate)])
    changed = [
        (row["timestamp"], len(json.loads(row["mutation_keys"]))) for row in _rows(sink) if row.get("mutation_keys")
    ]
    middle = 1_735_689_600_000_000 + 41 * 100_000
    # A step may be too small to change a float32.
    assert min(count for time, count in changed if time > middle) >= len(KEYS) - 2
    assert np.mean([count for time, count in changed if time < middle]) < 4


def test_retire_and_crossover_without_partner_remove_earlier_commands():
    config = DNA.Config(size=24, populations=2)
    start = params = DNA.params(config)
    for message in GA:
        params = DNA.control(config, params, "ga", message)
    assert params["mates"][-1].tolist() == [3, 9]
    assert params["kept"][-1] == 5
    params = DNA.control(config, params, "ga", {"action": "retire", "agent_id": "agent-00005"})
    params = DNA.control(config, params, "ga", {**GA[0], "partner_agent_id": None})
    for name in ("mates", "kept"):
        assert params[name].tolist() == start[name].tolist()
    for number in range(ORDERS + 5):
        params = DNA.control(config, params, "ga", {"action": "elite", "agent_id": f"agent-{number % 48:05d}"})
    assert sorted(params["kept"][params["kept"] >= 0].tolist()) == list(range(48))


@pytest.mark.parametrize(
    ("message", "wanted"),
    [
        ({"action": "mutation_rate", "mutation_rate": 2}, "mutation_rate: expected a number from 0 to 1, got 2"),
        ({"action": "mutation_rate"}, "mutation_rate: expected a number from 0 to 1, got None"),
        ({"action": "marry"}, "action: expected one of mutation_rate, crossover, elite, retire, got 'marry'"),
        (
            {"action": "elite", "agent_id": "agent-00048"},
            "agent_id: expected one of agent-00000 to agent-00047, got 'agent-00048'",
        ),
        (
            {**GA[0], "partner_agent_id": "agent-00030"},
            "agents 3 and 30: expected agents of one population, since populations do not mix",
        ),
    ],
)
def test_invalid_messages_of_control_ga_are_refused(message, wanted):
    config = DNA.Config(size=24, populations=2)
    with pytest.raises(InvalidControl, match=wanted):
        DNA.control(config, DNA.params(config), "ga", message)

"""The cells scenario: its ledger, its lineages, planted anomalies, samples."""

from typing import Any

import numpy as np
import pytest

from astrocyte.scenario import MemorySink, simulate
from astrocyte.schemas.frames import Frame
from astrocyte.simulator.emission.assembly import Assembler
from astrocyte.simulator.runtime import programs
from astrocyte.simulator.runtime.world import World
from astrocyte.simulator.scenarios.cells.config import TRAITS, CellsConfig
from astrocyte.simulator.scenarios.cells.scenario import CELLS

pytestmark = pytest.mark.time_limit(60, "compiles worlds of two sizes of samples")

TICKS = 200
CONFIG = CellsConfig(
    size=1024,
    routine_share=1.0,
    founder_energy=40.0,
    plants=[{"kind": "collapse", "at_tick": 100, "strength": 0.6}],
)


@pytest.fixture(scope="module")
def recorded() -> tuple[list[Frame], dict[str, np.ndarray]]:
    """Frames of a run, and its metrics by tick."""
    world = World(CELLS, CONFIG, 9)
    assembler = Assembler(CELLS, CONFIG, "r")
    params = CELLS.params(CONFIG)
    frames: list[Frame] = []
    parts: list[Any] = []
    for done in world.run(TICKS, lambda _: params):
        frames += assembler.add(done)
        if not parts or parts[-1] is not assembler.last.metrics:  # several rounds may make one interval
            parts.append(assembler.last.metrics)
    metrics = {name: np.concatenate([part[name] for part in parts])[:, 0] for name in parts[0]}
    return frames, metrics


def rows(frames: list[Frame], stream: str) -> dict[str, np.ndarray]:
    own = [frame for frame in frames if frame.stream == stream and frame.num_rows]
    return {
        name: np.concatenate([np.asarray(frame.column(name).to_pylist()) for frame in own])
        for name in own[0].batch.schema.names
        if name != "neural_weights"
    }


def test_the_energy_ledger_closes_exactly(recorded) -> None:
    metrics = recorded[1]
    change = metrics["income"] - metrics["cost"] - metrics["lost"]
    np.testing.assert_array_equal(np.diff(metrics["energy"]), change[1:])
    assert metrics["births"].sum() > 300


def test_births_less_deaths_change_the_population_and_are_all_emitted(recorded) -> None:
    frames, metrics = recorded
    np.testing.assert_array_equal(np.diff(metrics["alive"]), (metrics["births"] - metrics["deaths"])[1:])
    events = rows(frames, "evolutionary_events")
    kinds = dict(zip(*np.unique(events["event_type"], return_counts=True), strict=True))
    assert kinds["birth"] == kinds["division"] == metrics["births"].sum()
    assert kinds["death"] == metrics["deaths"].sum()
    mutants = events["mutation_magnitude"][events["event_type"] == "birth"] > 0
    assert kinds["mutation"] == mutants.sum()


def test_ids_are_unique_and_mothers_were_alive(recorded) -> None:
    events = rows(recorded[0], "evolutionary_events")
    born = events["event_type"] == "birth"
    died = events["event_type"] == "death"
    children = events["cell_id"][born]
    assert len(np.unique(children)) == len(children)
    assert len(np.unique(events["cell_id"][died])) == died.sum()
    death = dict(zip(events["cell_id"][died], events["timestamp"][died], strict=True))
    birth = dict(zip(children, events["timestamp"][born], strict=True))
    for mother, at in zip(events["parent_id"][born], events["timestamp"][born], strict=True):
        assert birth.get(mother, -1) < at < death.get(mother, 2**62)


def test_prices_equation_holds_exactly_from_the_emitted_lineage(recorded) -> None:
    # Price 1970: mean change = Cov(w, z) / mean w + E(w dz) / mean w, over ancestors at tick 0, descendants at tick 90.
    frames = recorded[0]
    genomes, events = rows(frames, "genome_data"), rows(frames, "evolutionary_events")
    time = CONFIG.tick_time_us
    first = genomes["timestamp"] == time(0)
    last = genomes["timestamp"] == time(90)
    born = (events["event_type"] == "birth") & (events["timestamp"] < time(90))
    mother = dict(zip(events["cell_id"][born], events["parent_id"][born], strict=True))
    ancestors = {cell: row for row, cell in enumerate(genomes["cell_id"][first])}
    for trait in TRAITS:
        value = genomes[trait][first].astype(np.float64)
        later = genomes[trait][last].astype(np.float64)
        offspring, change = np.zeros(len(value)), np.zeros(len(value))
        known = np.ones(len(later), bool)
        for row, cell in enumerate(genomes["cell_id"][last]):
            while cell not in ancestors and cell in mother:
                cell = mother[cell]
            known[row] = cell in ancestors
            if known[row]:
                offspring[ancestors[cell]] += 1
                change[ancestors[cell]] += later[row] - value[ancestors[cell]]
        assert known.mean() > 0.98  # the rest descends from children of tick 0 itself, who were not yet sampled
        fitness = offspring.mean()
        transmitted = np.divide(change, offspring, out=np.zeros_like(change), where=offspring > 0)
        price = np.cov(offspring, value, bias=True)[0, 1] / fitness + (offspring * transmitted).mean() / fitness
        assert abs(later[known].mean() - value.mean() - price) < 1e-9


def test_a_planted_collapse_kills_its_share_and_is_in_the_truth(recorded) -> None:
    frames, metrics = recorded
    assert metrics["alive"][100] / metrics["alive"][99] == pytest.approx(0.4, abs=0.06)
    truth = [row for frame in frames if frame.stream == "truth" for row in frame.batch.to_pylist()]
    assert [(row["kind"], row["rule"]) for row in truth] == [("collapse", "population_collapse")]
    assert truth[0]["timestamp"] == CONFIG.tick_time_us(100)


def test_population_metrics_are_those_of_the_cells(recorded) -> None:
    frames, metrics = recorded
    found = rows(frames, "population_metrics")
    vitals = rows(frames, "cell_vitals")
    at = CONFIG.tick_time_us(50)
    row = int(np.flatnonzero(found["tick"] == 50)[0])
    energy = vitals["energy"][(vitals["timestamp"] == at) & vitals["alive"]]
    assert found["total_population"][row] == metrics["alive"][50]
    # Newborns of the tick are counted, but first sampled in a later one.
    assert 0 <= found["total_population"][row] - len(energy) <= metrics["births"][50]
    assert found["avg_energy"][row] == pytest.approx(energy.mean(), rel=0.05)
    assert 0 < found["avg_accuracy"][row] < 1
    assert found["births"].sum() == metrics["births"][: found["tick"].max() + 1].sum()


def test_each_death_has_last_vitals_with_alive_false(recorded) -> None:
    vitals, events = rows(recorded[0], "cell_vitals"), rows(recorded[0], "evolutionary_events")
    died = events["event_type"] == "death"
    last = ~vitals["alive"]
    deaths = dict(zip(events["cell_id"][died], events["age_ticks"][died], strict=True))
    assert dict(zip(vitals["cell_id"][last], vitals["age_ticks"][last], strict=True)) == deaths
    assert (vitals["energy"] >= 0).all()


def test_a_generation_gap_is_in_generations_and_an_age_in_ticks(recorded) -> None:
    events, vitals = rows(recorded[0], "evolutionary_events"), rows(recorded[0], "cell_vitals")
    inherits = np.isin(events["event_type"], ("birth", "mutation"))
    assert set(events["generation_gap"][inherits]) == {1}
    assert set(events["generation_gap"][~inherits]) == {None}
    generation = dict(zip(vitals["cell_id"], vitals["generation"], strict=True))
    for name in ("birth", "death", "division"):
        own = events["event_type"] == name
        known = [(cell, got) for cell, got in zip(events["cell_id"][own], events["generation"][own], strict=True)
                 if cell in generation]  # fmt: skip
        assert len(known) > 50
        assert all(generation[cell] == got for cell, got in known)
    ages = events["age_ticks"][events["event_type"] == "division"]
    assert set(events["age_ticks"][inherits]) == {0}
    assert len(set(ages)) > 5
    ticks = (events["timestamp"] - CONFIG.epoch_us) // CONFIG.tick_us
    birth = events["event_type"] == "birth"
    born = dict(zip(events["cell_id"][birth].tolist(), ticks[birth].tolist(), strict=True))
    assert len(born) > 300
    for rows_of, at in ((events, ticks), (vitals, (vitals["timestamp"] - CONFIG.epoch_us) // CONFIG.tick_us)):
        # Founders were there before tick 0.
        ages = [tick - born.get(cell, -1) for cell, tick in zip(rows_of["cell_id"].tolist(), at.tolist(), strict=True)]
        assert rows_of["age_ticks"].tolist() == ages


def test_accuracy_is_the_mean_over_all_attempts_since_the_row_before(recorded) -> None:
    frames, metrics = recorded
    found = rows(frames, "population_metrics")
    for tick, accuracy in zip(found["tick"], found["avg_accuracy"], strict=True):
        ticks = slice(max(tick - CONFIG.metrics_every + 1, 0), tick + 1)
        expected = metrics["accuracy"][ticks].sum() / 65_536 / metrics["attempts"][ticks].sum()
        assert accuracy == pytest.approx(expected, rel=1e-12)
    single = metrics["accuracy"] / 65_536 / metrics["attempts"]
    assert np.abs(np.diff(found["avg_accuracy"][1:])).mean() < np.abs(np.diff(single[:: CONFIG.metrics_every])).mean()


def test_a_sampled_row_carries_the_number_of_cells_it_stands_for() -> None:
    sink = MemorySink()
    simulate(CELLS, CONFIG.model_copy(update={"routine_share": 0.2}), seed=9, ticks=60, sink=sink)
    vitals = [frame for frame in sink.of("cell_vitals") if frame.num_rows]
    assert {frame.weight for frame in vitals} == {5.0}
    population = [row["total_population"] for frame in sink.of("population_metrics") for row in frame.batch.to_pylist()]
    living = sum(int(np.sum(frame.column("alive").to_pylist())) for frame in vitals)
    estimate = living * 5.0 / 6
    assert estimate == pytest.approx(np.mean(population), rel=0.15)


@pytest.mark.parametrize("frozen", ["bio", "ai", "tpu"])
def test_a_part_of_the_genome_that_does_not_evolve_stays_that_of_the_founders(frozen) -> None:
    rows_of = {"bio": slice(0, 4), "tpu": slice(4, 7), "ai": slice(7, None)}
    config = CellsConfig(
        size=1024, routine_share=0.2, founder_energy=40.0, evolves=[part for part in rows_of if part != frozen]
    )
    world = World(CELLS, config, 9)
    params = CELLS.params(config)
    founders = world.host_states()[0]["cells"]["genome"]
    for _ in world.run(120, lambda _: params):
        pass
    cells = world.host_states()[0]["cells"]
    young = cells["alive"] & (cells["generation"] > 0)
    founder = founders[:, cells["lineage"] % 1024]
    assert young.sum() > 100
    for part, genes in rows_of.items():
        changed = (cells["genome"][genes] != founder[genes]).any(axis=0)[young]
        assert changed.any() == (part != frozen), part


def counted(plants: list[dict[str, Any]], ticks: int) -> dict[str, np.ndarray]:
    """Births, deaths and mutants of each tick of a world with these plants, by tick; and the truth."""
    sink = MemorySink()
    config = CellsConfig(size=1024, routine_share=0.2, plants=plants)
    simulate(CELLS, config, seed=4, ticks=ticks, sink=sink)
    events = rows(sink.of("evolutionary_events"), "evolutionary_events")
    tick = (events["timestamp"] - config.tick_time_us(0)) // config.tick_us
    found = {
        kind: np.bincount(tick[events["event_type"] == kind], minlength=ticks)
        for kind in ("birth", "death", "mutation")
    }
    return found | {"truth": np.array([row["rule"] for frame in sink.of("truth") for row in frame.batch.to_pylist()])}


def test_a_planted_decline_replaces_all_deaths_but_its_share() -> None:
    plants = [
        {"kind": "decline", "at_tick": 1200, "ticks": 120, "strength": 0.4},  # the founders have settled
        {"kind": "decline", "at_tick": 1450, "ticks": 60, "strength": 1.0},
    ]
    found = counted(plants, 1700)
    for begin, end, share in ((1200, 1320, 0.6), (1450, 1510, 0.0)):
        births, deaths = found["birth"][begin:end], found["death"][begin:end]
        assert deaths.sum() > 100
        assert births.sum() == pytest.approx(share * deaths.sum(), abs=0.05 * deaths.sum())
        assert (births <= np.ceil(share * deaths)).all()
        assert found["birth"][end : end + 130].sum() > found["death"][end : end + 130].sum()
    assert sorted({*found["truth"]}) == ["extinction_risk", "population_collapse", "resource_depletion"]


def test_planted_hypermutation_multiplies_the_odds_of_a_mutation_and_compiles_nothing() -> None:
    counted([{"kind": "stagnation", "at_tick": 3}], 10)
    traced = programs.TRACES["cells"]
    found = counted([{"kind": "hypermutation", "at_tick": 200, "ticks": 200}], 600)
    assert programs.TRACES["cells"] == traced > 0
    odds = []
    for span in (slice(0, 200), slice(200, 400), slice(400, 600)):
        share = found["mutation"][span].sum() / found["birth"][span].sum()
        odds.append(share / (1 - share))
    # Odds of single cells are 20 times as large, those of the mean of unequal cells a little less.
    assert 12 < odds[1] / odds[0] < 24
    assert odds[2] < 2 * odds[0]
    assert list(found["truth"]) == ["runaway_mutation"]

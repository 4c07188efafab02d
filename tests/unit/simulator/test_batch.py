import numpy as np
import pytest

from astrocyte.scenario import configure, load_scenario
from astrocyte.schemas.errors import InvalidSettings
from astrocyte.simulator.batch import GROUP, INTERVALS, BatchWorld, _first_sizes, run_batch
from astrocyte.simulator.runtime.programs import TRACES
from astrocyte.simulator.runtime.world import World
from astrocyte.simulator.scenario import InvalidControl

pytestmark = pytest.mark.time_limit(120, "compiles a program of worlds")

CELLS = load_scenario("cells")
TICKS = 120


def config(**settings):
    return configure(CELLS.Config, {"size": 256, **settings})


def observe(params, state, totals):
    cells = state["cells"]
    return {
        **{name: cells[name] for name in ("alive", "energy", "mass", "genome")},
        "births": totals["births"],
        "accuracy": totals["accuracy"],
        "supply": params["supply"],
    }


WORLDS = [
    BatchWorld(config(supply=0.3 + 0.02 * number, mutation_step=0.02 * number, initial=0.2), number)
    for number in range(GROUP + 1)
]


@pytest.fixture(scope="module")
def batch():
    return run_batch("cells", WORLDS, ticks=TICKS, every=10, observe=observe)


@pytest.mark.parametrize("number", [0, 3, GROUP])
def test_a_world_of_a_batch_has_the_bits_of_a_world_alone(batch, number):
    world = WORLDS[number]
    alone = World(CELLS, world.config, world.seed)
    params = CELLS.params(world.config)
    for _ in alone.run(TICKS, lambda _: params):
        pass
    cells = alone.host_states()[0]["cells"]
    for name in ("alive", "energy", "mass", "genome"):
        assert batch[name][number, -1].tobytes() == cells[name].tobytes(), name


def test_a_world_does_not_depend_on_the_others_of_its_batch(batch):
    chosen = [WORLDS[5], WORLDS[2]]
    found = run_batch("cells", chosen, ticks=TICKS, every=10, observe=observe)
    for name, values in found.items():
        assert values.tobytes() == batch[name][[5, 2]].tobytes(), name


def test_other_values_lengths_and_intervals_compile_nothing(batch):
    before = TRACES["cells (batch)"]
    other = [BatchWorld(config(supply=0.9, hazard=0.05, evolves=("ai",)), 77)]
    found = run_batch("cells", other, ticks=15 * (INTERVALS + 3), every=15, observe=observe)
    assert TRACES["cells (batch)"] == before
    assert found["alive"].shape == (1, INTERVALS + 3, 256)


def test_totals_are_sums_over_the_ticks_of_an_interval(batch):
    found = run_batch("cells", WORLDS[4:6], ticks=TICKS, every=1, observe=observe)
    summed = found["births"].reshape(2, TICKS // 10, 10).sum(axis=2)
    assert summed.tolist() == batch["births"][4:6].tolist()
    assert summed.sum() > 20


def test_numbers_change_to_those_of_other_settings(batch):
    worlds = [
        BatchWorld(config(supply=0.5), 3, then=config(supply=0.1), change=change)
        for change in ((0, 0), (5, 5), (2, 12), (900, 990))
    ]
    supply = run_batch("cells", worlds, ticks=20, every=1, observe=observe)["supply"]
    one, other = np.float32(0.5), np.float32(0.1)
    assert (supply[0] == other).all()
    assert supply[1].tolist() == [one] * 5 + [other] * 15
    assert supply[2] == pytest.approx([0.5] * 2 + [0.5 - 0.04 * step for step in range(1, 11)] + [0.1] * 8)
    assert supply[2][:2].tolist() == [one] * 2
    assert supply[2][11:].tolist() == [other] * 9
    assert (supply[3] == one).all()


def test_a_steered_world_has_the_bits_of_a_simulation_with_the_same_controls(batch):
    called = []

    def steer(first, tick, seen):
        called.append((first, tick, len(seen["births"]), seen["births"].shape[1]))
        if first == 0 and tick == 10 * INTERVALS:
            yield 3, "difficulty", {"difficulty": 3.0, "reward": 0.5}

    found = run_batch("cells", WORLDS, ticks=TICKS, every=10, observe=observe, steer=steer)
    assert sorted(called) == [(0, 100, GROUP, INTERVALS), (GROUP, 100, 1, INTERVALS)]
    alone = World(CELLS, WORLDS[3].config, WORLDS[3].seed)
    before = CELLS.params(WORLDS[3].config)
    after = CELLS.control(WORLDS[3].config, before, "difficulty", {"difficulty": 3.0, "reward": 0.5})
    for _ in alone.run(
        TICKS, lambda tick: before if tick < 100 else after, stop=lambda tick: 100 if tick < 100 else TICKS
    ):
        pass
    cells = alone.host_states()[0]["cells"]
    for name in ("alive", "energy", "mass", "genome"):
        assert found[name][3, -1].tobytes() == cells[name].tobytes(), name
        assert found[name][2].tobytes() == batch[name][2].tobytes(), "another world changed"
    assert found["energy"][3, -1].tobytes() != batch["energy"][3, -1].tobytes()


def test_a_command_that_the_scenario_refuses_is_an_error(batch):
    with pytest.raises(InvalidControl, match="expected a number"):
        run_batch(
            "cells", WORLDS[:1], ticks=TICKS, every=10, observe=observe,
            steer=lambda first, tick, seen: [(first, "difficulty", {"difficulty": -1})],
        )  # fmt: skip


def test_a_tick_that_needs_more_room_is_run_again_with_it(batch, monkeypatch):
    sizes = _first_sizes(CELLS, CELLS.static(config()))
    small = tuple((name, 2 if name == "births" else size) for name, size in sizes)
    monkeypatch.setattr("astrocyte.simulator.batch._first_sizes", lambda scenario, static: small)
    found = run_batch("cells", WORLDS[:3], ticks=TICKS, every=1, observe=observe)
    assert found["births"].max() > 2
    for name in ("alive", "energy", "genome"):
        assert found[name][:, 9::10].tobytes() == batch[name][:3].tobytes(), name


def test_progress_counts_worlds(batch):
    seen = []
    run_batch("cells", WORLDS, ticks=10, observe=observe, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(GROUP, GROUP + 1), (GROUP + 1, GROUP + 1)]


@pytest.mark.parametrize(
    ("worlds", "message"),
    [
        ([], "a batch has no worlds"),
        ([BatchWorld(config(), 1), BatchWorld(configure(CELLS.Config, {"size": 512}), 1)], "differ in size"),
        ([BatchWorld(configure(CELLS.Config, {"size": 100_000}), 1)], "has 2 islands; expected one"),
        ([BatchWorld(config(), 1, {"a": 1.0}), BatchWorld(config(), 1)], "expected the same names in all"),
    ],
)
def test_worlds_that_cannot_share_a_program_are_refused(worlds, message):
    with pytest.raises(InvalidSettings, match=message):
        run_batch("cells", worlds, ticks=10, observe=observe)
    with pytest.raises(InvalidSettings, match="at least one observation"):
        run_batch("cells", WORLDS[:1], ticks=5, every=10, observe=observe)

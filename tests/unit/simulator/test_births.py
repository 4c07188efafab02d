import numpy as np
import pytest
from scipy import stats

from astrocyte.scenario import MemorySink, simulate
from astrocyte.simulator.event_spec import id_parts
from tests.support.worlds import MORAN, MoranConfig, trace

SATURATED = MoranConfig(slots=1024, replicates=2, death_rate=0.05, birth_rate=1.0, births_capacity=256)


@pytest.fixture(scope="module")
def rows() -> dict[str, np.ndarray]:
    """Births and deaths of a saturated world: in every tick twenty times more candidates than free slots."""
    sink = MemorySink()
    simulate(MORAN, SATURATED, seed=3, ticks=200, sink=sink)
    births, deaths = sink.of("test_births"), sink.of("test_deaths")

    def column(frames: list, name: str) -> np.ndarray:
        return np.concatenate([frame.column(name).to_numpy(zero_copy_only=False) for frame in frames])

    names = ("cell_id", "parent_id", "parent_slot", "noise", "timestamp")
    found = {name: column(births, name) for name in names}
    return found | {"dead": column(deaths, "cell_id"), "dead_at": column(deaths, "timestamp")}


def test_parents_are_uniform_over_slots(rows: dict[str, np.ndarray]) -> None:
    counts = np.bincount(rows["parent_slot"], minlength=1024)
    assert counts.sum() > 15_000
    assert stats.chisquare(counts.reshape(16, -1).sum(axis=1)).pvalue > 1e-3
    assert stats.chisquare(counts.reshape(-1, 32).sum(axis=0)).pvalue > 1e-3


def test_no_two_children_of_a_tick_have_the_same_noise_and_noise_is_not_repeated(rows: dict[str, np.ndarray]) -> None:
    # A sum of four bytes has 1,021 values, so equal noise is expected; a repeated *pattern* over slots is not.
    ticks = rows["timestamp"]
    by_tick = [rows["noise"][ticks == tick][:20].tobytes() for tick in np.unique(ticks)]
    assert len(set(by_tick)) == len(by_tick)
    counts = np.unique(rows["noise"], return_counts=True)[1]
    assert counts.max() < 12 + 4 * len(ticks) / 330


def test_ids_are_unique_and_every_parent_was_alive(rows: dict[str, np.ndarray]) -> None:
    assert len(np.unique(rows["cell_id"])) == len(rows["cell_id"])
    assert len(np.unique(rows["dead"])) == len(rows["dead"])
    death = dict(zip(rows["dead"].tolist(), rows["dead_at"].tolist(), strict=True))
    born = dict(zip(rows["cell_id"].tolist(), rows["timestamp"].tolist(), strict=True))
    for parent, at in zip(rows["parent_id"].tolist(), rows["timestamp"].tolist(), strict=True):
        assert id_parts(parent)[0] == 0 or born[parent] < at
        assert death.get(parent, at + 1) > at


def test_population_changes_by_births_less_deaths() -> None:
    found = trace(MORAN, SATURATED, 5, 100)
    before = np.vstack([np.full((1, 2), 1024), found["alive"][:-1]])
    np.testing.assert_array_equal(found["alive"], before + found["births"] - found["deaths"])


def test_a_full_world_is_refilled_within_the_tick() -> None:
    found = trace(MORAN, SATURATED, 5, 100)
    assert (found["alive"] == 1024).mean() > 0.99

"""Bottlenecks: falls of a series are found where they are, and what chance explains is not one."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from astrocyte.pipeline.analysis.evolution import NotEnoughData
from astrocyte.pipeline.analysis.evolution.bottlenecks import falls
from astrocyte.schemas.errors import InvalidSettings
from tests.support.evolving import TICK_US, analysis_of, evolving_frames
from tests.support.logs import T0_US


def found_in(values, *, depth=0.5, level=0.05, within=10):
    return falls(np.arange(len(values)), np.asarray(values, float), depth=depth, level=level, within_us=within)


def test_a_collapse_with_its_recovery_and_what_was_lost_is_found():
    run = analysis_of(evolving_frames(collapse_at=30))
    (found,) = run.detect_evolutionary_bottlenecks().found
    assert found.of == "population"
    assert (found.low_us - T0_US) // TICK_US == 30
    assert (found.before, found.low, found.lost) == (300, 60, 0.8)
    assert found.recovered_us > found.low_us
    assert found.lineages_after < found.lineages_before
    assert found.effective_size < 100


def test_a_quiet_world_has_none():
    assert analysis_of(evolving_frames(ticks=40)).detect_evolutionary_bottlenecks().found == ()


def test_the_low_is_the_lowest_until_half_of_the_depth_is_made_good():
    steady = [100, 101, 100, 99, 100, 101, 100, 99]
    (found,) = found_in([*steady, 40, 30, 45, 60, 74, 76, 100])
    assert (found["start_us"], found["low_us"], found["recovered_us"]) == (5, 9, 13)
    assert (found["before"], found["low"]) == (101, 30)


def test_a_fall_without_recovery_and_a_death_of_all_end_with_the_run():
    steady = [100, 101, 100, 99, 100, 101]
    (found,) = found_in([*steady, 20, 10, 12])
    assert (found["low_us"], found["recovered_us"]) == (7, None)
    (extinct,) = found_in([*steady, 0, 0])
    assert (extinct["lost"], extinct["p"]) == (1.0, 0.0)


def test_a_slow_decline_is_no_bottleneck():
    values = 1000 * np.exp(-0.02 * np.arange(200) + np.random.default_rng(1).normal(0.0, 0.01, 200))
    assert found_in(values, within=20) == []
    assert found_in(values, within=200), "it is one over a longer time"


def test_noise_as_large_as_the_fall_explains_it():
    rng = np.random.default_rng(5)
    values = 100 * np.exp(rng.normal(0.0, 0.5, 100))
    assert found_in(values, depth=0.5) == []


@given(st.lists(st.floats(1.0, 1000.0), min_size=3, max_size=60), st.integers(1, 30))
def test_falls_follow_each_other_and_are_as_deep_as_asked_for(values, within):
    found = found_in(values, level=1.0, within=within)
    end = -1
    for each in found:
        start, low = each["start_us"], each["low_us"]
        assert end <= start < low
        assert values[low] <= 0.5 * values[start] * (1 + 1e-9)
        crossed = next(at for at in range(start, low + 1) if values[at] <= 0.5 * values[start] * (1 + 1e-9))
        assert crossed - start <= within
        end = len(values) - 1 if each["recovered_us"] is None else each["recovered_us"]
    # A plain search: where nothing was found, no value is half of one within the span before it.
    if not found:
        for at, value in enumerate(values):
            assert value > 0.5 * max(values[max(at - within, 0) : at + 1]) * (1 - 1e-9)


def test_settings_out_of_range_and_a_run_without_snapshots_are_refused():
    frames = evolving_frames(ticks=4)
    with pytest.raises(InvalidSettings, match=r"depth 1\.5; expected more than 0 and less than 1"):
        analysis_of(frames).detect_evolutionary_bottlenecks(depth=1.5)
    del frames["population_metrics"]
    with pytest.raises(NotEnoughData, match="no events of population_metrics"):
        analysis_of(frames).detect_evolutionary_bottlenecks()


def lineages_at(frames, time_us, *, size=300):
    """Founders who live or have living descendants at an instant, by going through the events one by one."""
    founder = {cell: cell for cell in range(size)}
    living = set(founder)
    for row in frames["evolutionary_events"].rows():
        if row["timestamp"] <= time_us and row["type"] == "birth":
            founder[row["cell_id"]] = founder[row["parent_id"]]
            living.add(row["cell_id"])
        elif row["timestamp"] <= time_us:
            living.discard(row["cell_id"])
    return len({founder[cell] for cell in living})


@pytest.mark.parametrize("time_window", ["100ms", "300ms", "1s", "5s"])
def test_lineages_are_counted_when_the_fall_begins_and_at_its_low_whatever_the_window(time_window):
    frames = evolving_frames(ticks=120, collapse_at=83)
    (found,) = analysis_of(frames).detect_evolutionary_bottlenecks(time_window=time_window).found
    expected = (lineages_at(frames, found.start_us), lineages_at(frames, found.low_us))
    assert (found.lineages_before, found.lineages_after) == expected
    assert expected[0] > expected[1]


def test_a_fall_is_found_without_its_lineages_where_births_cannot_be():
    frames = evolving_frames(collapse_at=30)
    events = frames["evolutionary_events"]
    place = events.batch.schema.get_field_index("parent_id")
    own = events.batch.set_column(place, "parent_id", events.batch.column("cell_id"))
    frames["evolutionary_events"] = replace(events, batch=own)
    (found,) = analysis_of(frames).detect_evolutionary_bottlenecks().found
    assert (found.lost, found.lineages_before, found.lineages_after) == (0.8, None, None)

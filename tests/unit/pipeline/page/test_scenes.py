"""Map and basin: held to plain references, the same in any portions, and bounded."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from astrocyte.pipeline.page.scenes.basin import Basin
from astrocyte.pipeline.page.scenes.field import SQUARES, Field
from astrocyte.schemas.frames import Frame
from tests.support.logs import T0_US


def tiles(events):
    """Tiles as (seconds, x, y, amount)."""
    seconds, x, y, amount = (np.array(each, float) for each in zip(*events, strict=True))
    columns = {"timestamp": T0_US + (seconds * 1e6).astype(np.int64), "key": ["0"] * len(x), "type": ["state"] * len(x)}
    return Frame.from_columns(
        "resource_states", "run-1",
        columns | {"resource_id": np.arange(len(x)), "step_number": np.arange(len(x)),
                   "amount": amount.astype(np.float32), "position_x": x.astype(np.float32),
                   "position_y": y.astype(np.float32)},
    )  # fmt: skip


def kernels(events):
    """Kernels as (seconds, id, coordinates, type)."""
    seconds, ids, places, kinds = zip(*events, strict=True)
    columns = {"timestamp": T0_US + (np.array(seconds) * 1e6).astype(np.int64), "key": ["0"] * len(ids)}
    return Frame.from_columns(
        "kernel_geometry", "run-1",
        columns | {"type": list(kinds), "kernel_id": np.array(ids), "phi": np.full(len(ids), 0.5),
                   "basin_coordinates": pa.array([list(map(float, each)) for each in places], pa.list_(pa.float32()))},
    )  # fmt: skip


TILES = st.lists(
    st.tuples(st.integers(0, 50), st.integers(0, 90), st.integers(0, 40), st.integers(0, 9)), min_size=1, max_size=60
)


@settings(derandomize=True, deadline=None, max_examples=50)
@given(TILES, st.integers(1, 10), st.integers(0, 50))
def test_a_square_has_the_newest_mean_of_its_tiles_in_whatever_portions_they_came(events, portion, at_s):
    field = Field("run-1")
    for first in range(0, len(events), portion):
        field.add(tiles(events[first : first + portion]))
    whole = Field("run-1")
    whole.add(tiles(events))
    at_us = T0_US + at_s * 1_000_000
    found = field.at(at_us)
    np.testing.assert_equal(whole.at(at_us), found)
    widest = max(max(x, y) for _, x, y, _ in events)
    assert SQUARES * found["tiles"] > widest
    assert found["tiles"] == 1 or SQUARES * found["tiles"] // 2 <= widest
    width_us, first_us = field.axis.width_us, min(s for s, *_ in events)
    last = min(max(at_s, first_us), max(s for s, *_ in events))

    def bucket(seconds):
        return (T0_US + seconds * 1_000_000) // width_us

    expected = {}
    for s in sorted({bucket(s) for s, *_ in events if bucket(s) <= bucket(last)}):
        own = {}
        for seconds, x, y, amount in events:
            if bucket(seconds) == s:
                own.setdefault((x // found["tiles"], y // found["tiles"]), []).append(amount)
        expected |= {square: sum(each) / len(each) for square, each in own.items()}
    shown = found["resources"].reshape(found["rows"], found["columns"])
    there = {(x, y): shown[y, x] for y, x in zip(*np.nonzero(np.isfinite(shown)), strict=True)}
    assert there == pytest.approx(expected)


def test_events_without_a_place_on_a_map_are_left_out():
    field = Field("run-1")
    field.add(tiles([(0, -1, 2, 3), (0, 1e30, 2, 3), (0, float("nan"), 2, 3)]))
    assert field.at(None) == {"columns": 0, "rows": 0}


def walk(steps, seed=1):
    random = np.random.default_rng(seed)
    places = random.normal(size=(5, 8)) * [3, 2, 1, 0.1, 0.1, 0.1, 0.1, 0.1]
    events = []
    for step in range(steps):
        kernel = int(random.integers(5))
        places[kernel] += random.normal(size=8) * 0.05
        events.append((step, kernel, places[kernel].copy(), "updated"))
    return events


def basin_of(events, portion, **how):
    basin = Basin("run-1", **how)
    for first in range(0, len(events), portion):
        basin.add(kernels(events[first : first + portion]))
        basin.at(None)
    return basin


@pytest.mark.parametrize("at_s", [None, 40])
def test_kernels_are_where_the_principal_components_of_all_positions_put_them(at_s):
    events = walk(120)
    found = basin_of(events, 7).at(None if at_s is None else T0_US + at_s * 1_000_000)
    places = np.array([each for _, _, each, _ in events], np.float32).astype(float)
    _, sizes, axes = np.linalg.svd(places - places.mean(axis=0), full_matrices=False)
    axes = axes[:2].T
    axes = axes * np.sign(axes[np.abs(axes).argmax(axis=0), [0, 1]])
    last = {kernel: place for seconds, kernel, place, _ in events if at_s is None or seconds <= at_s}
    expected = {str(kernel): (place - places.mean(axis=0)) @ axes for kernel, place in last.items()}
    assert {*found["id"]} == {*expected}
    for name, x, y in zip(found["id"], found["x"], found["y"], strict=True):
        assert (x, y) == pytest.approx(tuple(expected[name]), abs=1e-4)
    assert found["explained"] == pytest.approx((sizes**2 / (sizes**2).sum())[:2], rel=1e-3)
    for trail, x, y in zip(found["trails"], found["x"], found["y"], strict=True):
        assert trail[-2:] == pytest.approx([x, y])


def test_retired_kernels_are_gone_from_their_retirement_on():
    events = [*walk(60), (60, 3, np.zeros(8), "retired"), (61, 4, np.ones(8), "updated")]
    basin = basin_of(events, 5)
    assert "3" not in basin.at(None)["id"]
    assert "3" in basin.at(T0_US + 59_000_000)["id"]


def test_positions_are_bounded_and_what_is_kept_does_not_depend_on_the_portions():
    events = walk(900)
    one, other = basin_of(events, 13, most=100), basin_of(events, 450, most=100)
    assert len(one._kernel) <= 100
    assert one.step_us == other.step_us
    np.testing.assert_array_equal(np.sort(one._time_us), np.sort(other._time_us))
    assert {*one.at(None)["id"]} == {"0", "1", "2", "3", "4"}

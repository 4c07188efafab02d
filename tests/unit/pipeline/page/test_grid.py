"""Counts and sums by group and bucket."""

import numpy as np
import pytest

from astrocyte.pipeline.page.aggregates.grid import Classes, Grid, add


def test_means_are_of_the_values_of_a_bucket_and_unknown_without_any():
    grid = add(Grid.of(1), np.array([0, 0, 2]), None, np.array([1.0, 2.0, 5.0]))
    assert grid.means()[0, :3].tolist() == pytest.approx([1.5, np.nan, 5.0], nan_ok=True)


def test_values_that_are_no_numbers_and_events_without_a_group_are_left_out():
    grid = add(Grid.of(2), np.array([0, 0, 0, 0]), np.array([0, 1, -1, 1]), np.array([1.0, np.nan, 3.0, np.inf]))
    assert grid.counts[:, 0].tolist() == [1, 0]
    assert grid.totals[:, 0].tolist() == [1.0, 0.0]


def test_adding_leaves_the_grid_before_as_it_was():
    before = Grid.of(1)
    add(before, np.array([3]), None, None)
    assert before.counts.sum() == 0


@pytest.mark.parametrize(("by_ratio", "low", "high"), [(True, 0.05, 5.0), (False, 0.0, 48.0), (False, -1.0, 1.0)])
def test_classes_hold_every_value_and_those_beyond_their_bounds(by_ratio, low, high):
    classes = Classes(low, high, by_ratio)
    bounds = np.array(classes.bounds())
    assert len(bounds) == classes.number + 1
    middles = (bounds[1:] + bounds[:-1]) / 2
    assert classes.of(middles).tolist() == list(range(classes.number))
    assert classes.of(np.array([low - 10, high + 10, np.nan])).tolist() == [0, classes.number - 1, -1]

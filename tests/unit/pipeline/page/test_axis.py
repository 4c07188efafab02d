"""Time axes of a fixed number of buckets."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from astrocyte.pipeline.page.aggregates.axis import BUCKETS, EMPTY, LEAST_US

TIMES = st.lists(st.integers(0, 4_000_000_000_000_000), min_size=1, max_size=40)


def axis_of(times):
    axis = EMPTY
    for time in times:
        axis = axis.covering(time, time)
    return axis


@given(TIMES, st.randoms(use_true_random=False))
def test_an_axis_does_not_depend_on_the_order_of_times(times, random):
    shuffled = list(times)
    random.shuffle(shuffled)
    assert axis_of(times) == axis_of(shuffled) == EMPTY.covering(min(times), max(times))


@given(TIMES)
def test_every_time_is_on_the_axis_and_the_width_is_the_least_that_fits(times):
    axis = axis_of(times)
    positions = axis.positions(np.array(times))
    assert positions.min() == 0
    assert positions.max() == axis.used - 1 < BUCKETS
    half = axis.width_us // 2
    assert axis.width_us == LEAST_US or max(times) // half - min(times) // half >= BUCKETS


@given(TIMES, TIMES)
def test_sums_that_move_to_a_longer_axis_are_those_of_the_longer_axis(first, second):
    before, after = axis_of(first), axis_of(first + second)
    counts = np.bincount(before.positions(np.array(first)), minlength=BUCKETS)[None]
    expected = np.bincount(after.positions(np.array(first)), minlength=BUCKETS)[None]
    assert np.array_equal(before.moved(counts, after), expected)

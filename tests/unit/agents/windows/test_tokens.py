"""Distinct values: numbers that are equal are one value, whatever their type; all others are several."""

import math
import struct
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from astrocyte import Engine, load_rules

WINDOW = 'windows: [{name: w, from: A, every: 1000s, select: {distinct: "count_distinct(value)", n: "count(value)"}}]'


def bits_of(number: float) -> int:
    """The integer that has the bits of a float."""
    return int(struct.unpack("<q", struct.pack("<d", number))[0])


EDGES = [
    0, 1, -1, -2, 2**53, 2**53 + 1, 2**62, 2**63 - 1, 2**63, 2**63 + 1, 2**64 - 2, 2**64 - 1, -(2**63), -(2**63) + 1,
    0.0, -0.0, 0.5, -0.5, 2.0**53, 2.0**63, -(2.0**63), 2.0**64, 1e30, 2**64, 2**70,
    bits_of(0.5), bits_of(-0.5), bits_of(1e30), "0.5", "1", "", True, False,
]  # fmt: skip


def distinct(groups, declared=""):
    """Number of distinct values of each group, by a window."""
    engine = Engine(load_rules(declared + WINDOW))
    events = [
        {"stream": "A", "timestamp": 1_000_000 + place, "key": str(number), "value": value}
        for number, values in enumerate(groups)
        for place, value in enumerate(values)
    ]
    engine.push_events(events)
    rows = [row for frame in engine.flush().frames for row in frame.rows()]
    assert all(row["n"] == len(groups[int(row["key"])]) for row in rows)
    found = {int(row["key"]): row["distinct"] for row in rows}
    return [found[number] for number in range(len(groups))]


def expected(values) -> int:
    # A number and a boolean are equal in Python. An integer beyond 64 bits is the nearest float.
    return len({(type(value) in (bool, str) and type(value).__name__, value) for value in values})


def test_two_values_are_one_only_if_they_are_equal():
    pairs = [*combinations(EDGES, 2)]
    found = distinct(pairs)
    assert [(pair, count) for pair, count in zip(pairs, found, strict=True) if count != expected(pair)] == []


@pytest.mark.parametrize("declared", ["int64", "float64"])
def test_of_declared_numbers_as_well(declared):
    fits = (lambda v: isinstance(v, int) and -(2**63) <= v < 2**63) if declared == "int64" else math.isfinite
    values = [value for value in EDGES if type(value) in (int, float) and fits(value)]
    pairs = [*combinations([float(each) if declared == "float64" else each for each in values], 2)]
    text = f"streams: [{{name: A, fields: {{value: {declared}}}}}]\n"
    found = distinct(pairs, text)
    assert [(pair, count) for pair, count in zip(pairs, found, strict=True) if count != expected(pair)] == []


numbers = st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False, allow_infinity=False) | st.sampled_from(EDGES)


@given(st.lists(st.lists(numbers, min_size=1, max_size=6), min_size=1, max_size=6))
def test_counts_are_those_of_python(groups):
    assert distinct(groups) == [expected(values) for values in groups]

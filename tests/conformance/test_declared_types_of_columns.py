"""Declared types hold alike for mappings and for columns of Python values."""

from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from astrocyte import Frame, load_rules, match

AT_US = 1_796_000_400_000_000
VALUES: tuple[Any, ...] = (
    5, 5.5, True, None, "5", "", "[1]", "a", 2**63, 2**64, -(2**63) - 1, Decimal(2**64), Decimal(5), Decimal("5.5"),
    [], [1], [1.5, 2], (1.5,), ["a"], {}, {"a": 1}, np.array([0.1, 2], np.float32),
)  # fmt: skip
LISTS = ([[1.0]], [np.array([0.1], np.float32)], [[]], [[1, 2.5]], pa.array([[1.5]]))


def outcome(kind: str, policy: str, event: Any) -> tuple[list[Any], list[str]]:
    rules = f"""
streams: [{{name: ev, fields: {{x: {kind}}}, on_type_error: "{policy}"}}]
rules: [{{name: r, by: key, seq: [{{as: a, stream: ev}}], emit: {{x: a.x}}}}]
"""
    found = match(load_rules(rules), [event])
    return [each.emit["x"] for each in found], ["refused" for _ in found.refused]


def framed(*values: Any) -> Frame:
    rows = len(values)
    return Frame.from_columns("ev", "", {"timestamp": [AT_US] * rows, "key": ["k"] * rows, "x": list(values)})


@pytest.mark.parametrize("policy", ["dead_letter", "null"])
@pytest.mark.parametrize("kind", ["string", "list<float32>", "float64", "int64", "bool", "json"])
def test_a_value_fits_a_declared_type_in_a_column_if_it_does_in_a_mapping(kind: str, policy: str) -> None:
    wanted, refused = [], 0
    for value in VALUES:
        mapped = outcome(kind, policy, {"stream": "ev", "timestamp": AT_US, "key": "k", "x": value})
        assert outcome(kind, policy, framed(value)) == mapped, value
        wanted += mapped[0]
        refused += len(mapped[1])
    assert outcome(kind, policy, framed(*VALUES)) == (wanted, ["refused"] * refused)


@pytest.mark.parametrize("values", LISTS, ids=str)
def test_columns_of_lists_are_read_as_lists_of_floats(values: Any) -> None:
    frame = Frame.from_columns("ev", "", {"timestamp": [AT_US], "key": ["k"], "x": values})
    found, refused = outcome("list<float32>", "dead_letter", frame)
    assert (len(found), refused) == (1, [])


@pytest.mark.parametrize("value", ["", "[1]", {}, {"a": 1}], ids=str)
def test_text_and_objects_are_no_lists(value: Any) -> None:
    event = {"stream": "ev", "timestamp": AT_US, "key": "k", "x": value}
    assert outcome("list<float32>", "dead_letter", event) == ([], ["refused"])

"""Conditions that no event of the declared types fulfils are refused, and no others."""

from __future__ import annotations

import random
from typing import Any, Final

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from astrocyte import InvalidRules, load_rules
from astrocyte.agents.expressions.columns import predicate
from astrocyte.agents.expressions.kind_checks import kind_problems
from astrocyte.agents.expressions.parser import parse
from astrocyte.agents.expressions.scalar import compile_scalar
from astrocyte.agents.expressions.values import Columns
from astrocyte.agents.rules.contradictions import contradiction
from astrocyte.schemas.catalog import FieldType, arrow_type
from astrocyte.schemas.values.mixed import typed_column

TYPES: Final[dict[str, FieldType]] = {
    "ok": "bool", "n": "int64", "i": "int32", "s": "string", "f": "float32", "d": "float64", "j": "json",
    "l": "list<float32>",
}  # fmt: skip
DECLARED: Final = "streams: [{name: S, fields: {" + ", ".join(f"{name}: {kind}" for name, kind in TYPES.items()) + "}}]"


def refusal(where: str) -> str:
    rules = f'rules: [{{name: r, by: key, within: 10s, seq: [{{as: a, stream: S, where: "{where}"}}]}}]'
    try:
        load_rules(f"{DECLARED}\n{rules}")
    except InvalidRules as error:
        (problem,) = error.problems
        assert (problem.rule, problem.line) == ("r", 2)
        return problem.message
    return ""


@pytest.mark.parametrize(
    ("where", "advice"),
    [
        ("ok == 1", "write ok == true"),
        ("ok == 0", "write ok == false"),
        ("ok == 'false'", "write ok == false"),
        ("ok > 0", "compare it with true or false"),
        ("ok in (0, 1)", "write ok == false"),
        ("ok + 1 > 1", "a truth value is a condition of its own"),
        ("ok > true", "write ok or not ok"),
        ("n == True", "compare it with a number"),
        ("n == ok", "compare it with true or false"),
        ("n == 2.5", "compare it with a whole number"),
        ("n in (2.5, 3.5)", "compare it with a whole number"),
        ("i > 3000000000", "declare a larger type"),
        ("2147483647 < i", "declare a larger type"),
        ("s == True", "such as 'true'"),
        ("contains(n, 'a')", "only text can be tested so"),
        ("f == 0.1", "write a range, such as abs(f - 0.1) < 0.001, or declare float64"),
        ("d == 9007199254740993", "write a range"),
        ("l > 3", "declare the type that its values have"),
        ("timestamp > '2026-01-01'", "such as 1767225600000000"),
        ("n in ()", "n in () is never true"),
        ("n / 0 > 1", "(n / 0) > 1 is never true"),
        ("n % 0 == 1 + n", "is never true"),
        ("n > 5 and n < 3", "exclude each other"),
    ],
)
def test_a_condition_that_never_holds_is_refused_with_what_to_write(where: str, advice: str) -> None:
    assert advice in refusal(where)


@pytest.mark.parametrize(
    "where",
    ["ok", "ok == true", "not ok", "ok > false", "n == 2.0", "n in (2.5, 3)", "n > 2.5", "i >= 2147483647", "f == 0.5",
     "f > 0.1", "d == 0.1", "s == 'true'", "timestamp > 1767225600000000", "n / 2 > 1", "d == 9007199254740992",
     "l == '[1.0]'"],
)  # fmt: skip
def test_a_condition_that_may_hold_is_not_refused(where: str) -> None:
    assert refusal(where) == ""


CONSTANTS: Final = st.one_of(
    st.booleans(),
    st.integers(-3, 3),
    st.sampled_from([2**31 - 1, 2**31, -(2**31), -(2**31) - 1, 2**53 + 1, 2**63 - 1, 2**63, 2**64 - 1, -(2**63)]),
    st.sampled_from([0.0, 0.1, 0.5, 1.0, 2.5, -1.0, 1e39, 3.4028234663852886e38, 9.3e18]),
    st.sampled_from(["", "a", "1", "true", "[1.0]"]),
)
FLOATS: Final = (0.0, 0.1, 0.5, 1.0, -1.0, 2.5, 2.0**53, 3.4028234663852886e38, np.inf, -np.inf)
VALUES: Final[dict[str, tuple[Any, ...]]] = {
    "ok": (False, True),
    "n": (-3, -1, 0, 1, 2, 3, 2**53 + 1, 2**63 - 1, -(2**63)),
    "i": (-3, -1, 0, 1, 2, 3, 2**31 - 1, -(2**31)),
    "s": ("", "a", "1", "true", "[1.0]", "b"),
    "f": FLOATS,
    "d": (*FLOATS, 2.0**53 + 2, 1e39, 9.3e18),
    "j": (1, "a", True, [1.0], {"a": 1}, "1"),
    "l": ([], [1.0], [0.1, 2.0]),
    "timestamp": (0, 1, 2, 3, 1_767_225_600_000_000),
}
ROWS: Final = 60


def events() -> dict[str, Any]:
    """Columns of events of the declared types: each value of each field beside any of the others, and nulls."""
    chosen = random.Random(1)
    return {
        name: typed_column(
            [*VALUES[name], *chosen.choices([*VALUES[name], None], k=ROWS - len(VALUES[name]))], arrow_type(kind)
        )
        for name, kind in {**TYPES, "timestamp": "int64"}.items()
    }


EVENTS: Final = events()
NAMES: Final = st.sampled_from([*TYPES, "timestamp"])


def written(constant: Any) -> str:
    return repr(constant)


@st.composite
def conditions(draw: st.DrawFn) -> str:
    name = draw(NAMES)
    side = draw(st.sampled_from([name, name, name, f"{name} + 1", f"abs({name})", f"{name} / 0", f"{name} % 2"]))
    form = draw(st.sampled_from(["compare", "compare", "compare", "mirrored", "fields", "in", "text"]))
    op = draw(st.sampled_from(["<", "<=", ">", ">=", "=="]))
    if form == "in":
        constants = draw(st.lists(CONSTANTS, max_size=3))
        return f"{side} in [{', '.join(map(written, constants))}]"
    if form == "text":
        return f"contains({name}, 'a')"
    if form == "fields":
        return f"{side} {op} {draw(NAMES)}"
    left, right = side, written(draw(CONSTANTS))
    return f"{right} {op} {left}" if form == "mirrored" else f"{left} {op} {right}"


@settings(derandomize=True, deadline=None, max_examples=400)
@given(where=conditions())
def test_no_event_of_the_declared_types_fulfils_a_condition_that_is_refused(where: str) -> None:
    node = parse(where)
    if contradiction(node) is None and not any(kind_problems(node, lambda _step: ("S",), {"S": TYPES})):
        return
    assert not predicate(node, Columns(EVENTS.get, ROWS)).any()
    test = compile_scalar(node)
    rows = zip(*(column.to_pylist() for column in EVENTS.values()), strict=True)
    assert not any(test(dict(zip(EVENTS, row, strict=True)), {}) for row in rows)

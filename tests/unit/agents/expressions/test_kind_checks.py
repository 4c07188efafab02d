"""Confusions of kinds and conditions that never hold are refused, and what the refusals say is so of every event."""

from __future__ import annotations

import random
import re
from typing import Any, Final

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from astrocyte import InvalidRules, load_rules
from astrocyte.agents.expressions.columns import predicate
from astrocyte.agents.expressions.kind_checks import kind_problems
from astrocyte.agents.expressions.nodes import Arith, Call, Compare, Member, Negate, Node, Text, walk
from astrocyte.agents.expressions.parser import parse
from astrocyte.agents.expressions.scalar import compile_scalar
from astrocyte.agents.expressions.unparse import to_text
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
        problem = error.problems[0]
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
        ("f == 0.1", "write a range, such as abs(f - 0.1) < 1e-07, or declare float64"),
        ("f == 16777217", "nearest number of that type is 16777216.0; write a range, such as abs(f - 16777217) < 10,"),
        ("f == 1e39", "its numbers are from -3.4028234663852886e+38 to 3.4028234663852886e+38; compare it with one of"),
        ("f == 1e-50", "the nearest number of that type is 0.0; write a range"),
        ("d == 9007199254740993", "write a range, such as abs(d - 9007199254740993) < 1000"),
        ("ok != 1", "the two are never equal, so that it is true wherever both have a value"),
        ("n != true", "the two are never equal, so that it is true wherever both have a value"),
        ("ok == 1 or n == 1", "ok == 1 compares the field 'ok' of S, which is declared as bool, with a number"),
        ("not ok == 1", "so that it is never true; write ok == true"),
        ("s + 1 is None", "the result is always null"),
        ("n == 2.5 or i > 3000000000 and ok", "n == 2.5 is never true"),
        ("ok and n == 2.5", "n == 2.5 is never true"),
        ("'room' == 'hall'", "(a field's name is written without quotation marks), so that step 'a' never matches"),
        ("1 == true", "1 == True is never true, so that step 'a' never matches; change it, or leave it out"),
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
     "l == '[1.0]'", "n != 2.5", "not n == 2.5", "n == 2.5 or n == 1", "f != 0.1", "n > 1 or n > 5 and n < 3"],
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
    op = draw(st.sampled_from(["<", "<=", ">", ">=", "==", "!="]))
    if form == "in":
        constants = draw(st.lists(CONSTANTS, max_size=3))
        return f"{side} in [{', '.join(map(written, constants))}]"
    if form == "text":
        return f"contains({name}, 'a')"
    if form == "fields":
        return f"{side} {op} {draw(NAMES)}"
    left, right = side, written(draw(CONSTANTS))
    return f"{right} {op} {left}" if form == "mirrored" else f"{left} {op} {right}"


@st.composite
def combined(draw: st.DrawFn) -> str:
    parts = draw(st.lists(conditions(), min_size=1, max_size=3))
    signs = [draw(st.sampled_from(["", "", "not "])) for _ in parts]
    text = draw(st.sampled_from([" and ", " or "])).join(
        f"{sign}({part})" for sign, part in zip(signs, parts, strict=True)
    )
    return draw(st.sampled_from(["{}", "{}", "not ({})"])).format(text)


COMPUTED: Final = (Compare, Member, Text, Arith, Call, Negate)


def blamed(node: Node, message: str) -> Node:
    """The part of which a message speaks: it begins with its text."""
    found = [each for each in walk(node) if isinstance(each, COMPUTED) and message.startswith(f"{to_text(each)} ")]
    return max(found, key=lambda each: len(to_text(each)))


def values_of(node: Node) -> list[Any]:
    test = compile_scalar(node)
    rows = zip(*(column.to_pylist() for column in EVENTS.values()), strict=True)
    return [test(dict(zip(EVENTS, row, strict=True)), {}) for row in rows]


@settings(derandomize=True, deadline=None, max_examples=600)
@given(where=st.one_of(conditions(), combined()))
def test_what_a_refusal_says_is_so_of_every_event_of_the_declared_types(where: str) -> None:
    node = parse(where)
    reason = contradiction(node)
    if reason is not None:
        assert not predicate(node, Columns(EVENTS.get, ROWS)).any(), reason
        assert not any(values_of(node)), reason
    for message, _ in kind_problems(node, lambda _step: ("S",), {"S": TYPES}):
        part = blamed(node, message)
        if "the result is always null" in message:
            assert all(value is None for value in values_of(part)), message
        elif "true wherever both have a value" in message:
            assert isinstance(part, Compare)
            sides = zip(values_of(part.left), values_of(part.right), strict=True)
            known = [left is not None and right is not None for left, right in sides]
            assert values_of(part) == known == predicate(part, Columns(EVENTS.get, ROWS)).tolist(), message
        else:
            assert "never true" in message or "the test is always false" in message
            assert not any(values_of(part)), message
            assert not predicate(part, Columns(EVENTS.get, ROWS)).any(), message


@settings(derandomize=True, deadline=None, max_examples=300)
@given(number=st.one_of(st.floats(1e-300, 1e300), st.integers(2**24, 2**70)))
def test_the_range_that_is_advised_holds_for_the_nearest_number(number: float) -> None:
    for field, kind in (("f", "float32"), ("d", "float64")):
        found = refusal(f"{field} == {number!r}")
        advice = re.search(r"such as (abs.* < [^ ,]+)", found)
        if advice is not None:
            nearest = float(np.float32(number)) if kind == "float32" else float(number)
            assert compile_scalar(parse(advice[1]))({field: nearest}, {}), found


def steps_refused(rule: str) -> str:
    with pytest.raises(InvalidRules) as caught:
        load_rules(f"rules: [{{name: r, within: 10s, {rule}}}]")
    (problem,) = caught.value.problems
    return problem.message


@pytest.mark.parametrize(
    ("rule", "effect"),
    [
        ("any: [{as: a, stream: A, where: WHERE}, {as: b, stream: B}]", "step 'a' never matches"),
        ("seq: [{as: a, stream: A}, {as: b, stream: B, where: WHERE, optional: true}]", "step 'b' never matches"),
        ("seq: [{as: a, stream: A, min: 1, until: WHERE}, {as: b, stream: B}]", "it never ends step 'a'"),
        (
            "seq: [{as: a, stream: A}, {not: {as: q, stream: A, where: WHERE}}, {as: b, stream: B}]",
            "step 'q' never matches and excludes nothing",
        ),
    ],
)
def test_a_step_that_never_matches_is_refused_and_no_more_is_said_of_its_rule(rule: str, effect: str) -> None:
    found = steps_refused(rule.replace("WHERE", "n > 5 and n < 3"))
    assert f"exclude each other, so that {effect}; change one of them, or write or" in found
    assert "no match" not in found

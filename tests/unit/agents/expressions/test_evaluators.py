"""Every evaluator of expressions against a plain reference: columns, single events, and rules in both operators."""

from __future__ import annotations

import math
from fractions import Fraction
from itertools import permutations, product
from operator import eq, ge, gt, le, lt, ne
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from astrocyte import Engine, load_rules, match
from astrocyte.agents.expressions.columns import evaluate, predicate
from astrocyte.agents.expressions.kind_checks import kind_problems
from astrocyte.agents.expressions.nodes import Node
from astrocyte.agents.expressions.parser import parse
from astrocyte.agents.expressions.scalar import compile_scalar
from astrocyte.agents.expressions.values import Columns
from astrocyte.agents.ingest.dicts import column_of, frame_of
from astrocyte.agents.rules.contradictions import contradiction, implies
from tests.support import reference_expressions as reference

Event = dict[str, Any]
COUNT = settings.default.max_examples if settings.default else 100
"""Of the profile in force: one with more examples also draws others each time."""
SINGLE = settings(max_examples=2 * COUNT, derandomize=COUNT <= 100)
RULES_TOO = settings(max_examples=max(COUNT // 3, 1), derandomize=COUNT <= 100)

INTEGERS = st.one_of(
    st.integers(-3, 3),
    st.sampled_from(
        [sign * (2**power + step) for sign in (1, -1) for power in (31, 53, 60, 62) for step in (-1, 0, 1)]
    ),
    st.sampled_from([2**63 - 1, -(2**63), -(2**63) + 1]),
    st.integers(-(2**63), 2**63 - 1),
)
UNSIGNED = st.one_of(st.integers(0, 3), st.integers(0, 2**64 - 1), st.sampled_from([2**64 - 1, 2**63, 2**63 + 1]))
FLOATS = st.one_of(
    st.sampled_from([0.0, -0.0, 0.5, 1.0, -1.0, 3.0, 0.1, 0.2, 0.3, 2.0**53, 2.0**53 + 2, 2.0**60, 2.0**63, -(2.0**63),
                     2.0**64, 5e-324, -5e-324, 1.7e308, -1.7e308, 1e280, 1e300]),
    st.sampled_from([math.nan, math.inf, -math.inf]),
    st.floats(),
)  # fmt: skip
STRINGS = st.one_of(
    st.sampled_from(["", "a", "b", "ab", "x0", "x1", "é", "z", "\uffff", "\U00010000", "\U0001f600", "a\0", "A"]),
    st.sampled_from(
        ['["a", "ab"]', ' [["a"], 0, null, "\\u0061"]', '{"a": "b"}', '["a"', "[a]", '"a"', "[NaN]", "[]", "{}"]
    ),
    st.text(st.characters(codec="utf-8"), max_size=3),
)
KINDS: dict[str, st.SearchStrategy[Any]] = {
    "null": st.none(),
    "bool": st.booleans(),
    "integer": INTEGERS,
    "unsigned": UNSIGNED,
    "float": FLOATS,
    "text": STRINGS,
}
KINDS["mixed"] = st.one_of(*KINDS.values())
FINITE = FLOATS.filter(math.isfinite).map(abs)
CONSTANTS = st.one_of(st.integers(0, 3), UNSIGNED, FINITE).map(repr)
BOOLEANS = st.booleans().map(repr)
TEXT_CONSTANTS = STRINGS.map(repr)
COMPARISONS = st.sampled_from(["<", "<=", ">", ">=", "==", "!="])


def has_negative(text: str) -> bool:
    """Whether the negative of an expression is one; that of an integer above 2**63 has no 64 bits, and is refused."""
    return not text.isdigit() or int(text) <= 2**63


def numbers_of(fields: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    """Expressions of numbers over the given fields."""

    def larger(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
        return st.one_of(
            st.tuples(inner, st.sampled_from("+-*/%"), inner).map(lambda p: f"({p[0]} {p[1]} {p[2]})"),
            st.tuples(st.sampled_from(["abs", "sqrt", "log"]), inner).map(lambda p: f"{p[0]}({p[1]})"),
            inner.filter(has_negative).map(lambda text: f"-({text})"),
            st.tuples(st.sampled_from(["min", "max"]), inner, inner).map(lambda p: f"{p[0]}({p[1]}, {p[2]})"),
        )

    return st.recursive(st.one_of(fields, fields, CONSTANTS), larger, max_leaves=4)


def conditions_of(fields: st.SearchStrategy[str], strings: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    """Conditions over the given fields; string tests only over ``strings``."""
    anything = st.one_of(numbers_of(fields), fields, TEXT_CONSTANTS, BOOLEANS)
    constants = st.lists(st.one_of(CONSTANTS, TEXT_CONSTANTS, BOOLEANS), min_size=1, max_size=3)
    tests = st.sampled_from(["contains", "startswith", "endswith"])
    simple = st.one_of(
        st.tuples(anything, COMPARISONS, anything).map(lambda p: f"({p[0]} {p[1]} {p[2]})"),
        st.tuples(anything, COMPARISONS, anything).map(lambda p: f"({p[0]} {p[1]} {p[2]})"),
        st.tuples(fields, constants).map(lambda p: f"({p[0]} in ({', '.join(p[1])},))"),
        st.tuples(tests, strings, TEXT_CONSTANTS).map(lambda p: f"{p[0]}({p[1]}, {p[2]})"),
        st.tuples(TEXT_CONSTANTS, strings).map(lambda p: f"({p[0]} in {p[1]})"),
        numbers_of(fields).map(lambda text: f"({text} is None)"),
        fields,
    )

    def larger(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
        return st.one_of(
            st.tuples(inner, st.sampled_from(["and", "or"]), inner).map(lambda p: f"({p[0]} {p[1]} {p[2]})"),
            inner.map(lambda text: f"(not {text})"),
        )

    return st.recursive(simple, larger, max_leaves=3)


@st.composite
def rows(draw: Any, least: int, most: int, names: tuple[str, ...] = ("x", "y")) -> list[Event]:
    """Rows of one stream: a field has one kind, or is mixed, and is null now and then."""
    count = draw(st.integers(least, most))
    fields = {name: KINDS[draw(st.sampled_from(sorted(KINDS)))] for name in names}
    return [{name: draw(st.one_of(kind, kind, kind, st.none())) for name, kind in fields.items()} for _ in range(count)]


def columns_of(events: list[Event]) -> Columns:
    names = {name for event in events for name in event}
    arrays = {name: column_of("s", name, [event.get(name) for event in events]) for name in names}
    return Columns(arrays.get, len(events))


def same(found: Any, wanted: Any) -> bool:
    return found is wanted if wanted is None or found is None else bool(found == wanted)


own = st.sampled_from(["x", "y"])


@SINGLE
@given(events=rows(1, 5), text=conditions_of(own, own))
@example(events=[{"x": 2**62, "y": 1}, {"x": 2**53 + 1, "y": 0}], text="x + x == 18014398509481986")
@example(events=[{"x": 2**64 - 1, "y": 0.5}, {"x": 1, "y": 2.0**64}], text="x < 18446744073709551616.0 and x != y")
@example(events=[{"x": "a", "y": 1}], text="x != y and not (x == y) and not (x < y) and not (x >= y)")
def test_a_condition_holds_in_columns_and_for_single_events_as_the_reference_says(
    events: list[Event], text: str
) -> None:
    node = parse(text)
    wanted = [reference.truth(node, event) for event in events]
    assert [bool(compile_scalar(node)(event, {})) for event in events] == wanted
    assert predicate(node, columns_of(events)).tolist() == wanted


@SINGLE
@given(events=rows(1, 5), first=conditions_of(own, own), second=conditions_of(own, own))
@example(events=[{"x": True, "y": None}], first="x == 1", second="x == True")
@example(events=[{"x": 2**63 - 1, "y": None}], first="x >= 9223372036854775807", second="x < 9223372036854775808.0")
def test_a_condition_that_is_called_contradictory_or_implied_is_so_for_every_event(
    events: list[Event], first: str, second: str
) -> None:
    both, one, two = parse(f"{first} and {second}"), parse(first), parse(second)
    never, follows = contradiction(both) is not None, implies(one, two)
    for event in events:
        assert not (never and reference.truth(both, event))
        assert not (follows and reference.truth(one, event) and not reference.truth(two, event))


@SINGLE
@given(events=rows(1, 5), text=numbers_of(own))
@example(events=[{"x": -(2**63)}], text="abs(x)")
@example(events=[{"x": 2**53 + 1}], text="min(x, 1e300)")
@example(events=[{"x": 0.1}, {"x": 2.0**53}], text="x + 1.0")
@example(events=[{"x": 3 * 2**61}, {"x": 5}], text="x * 3 + x % 7")
def test_an_expression_has_in_columns_and_for_single_events_the_value_of_the_reference(
    events: list[Event], text: str
) -> None:
    node = parse(text)
    wanted = [reference.value(node, event) for event in events]
    alone = [compile_scalar(node)(event, {}) for event in events]
    together = evaluate(node, columns_of(events)).to_list(len(events))
    for found, single, value in zip(together, alone, wanted, strict=True):
        assert same(single, value), (single, value)
        assert same(found, value), (found, value)


KEEP = "validators: [{stream: [A, B], non_finite: keep}]\n"
RULES = """
rules:
  - {{name: seq, within: 10us, seq: [{{as: a, stream: A}}, {{as: b, stream: B, where: {where}}}]}}
  - {{name: all, within: 10us, all: [{{as: a, stream: A}}, {{as: b, stream: B, where: {where}}}]}}
"""


def quoted(text: str) -> str:
    return '"' + "".join(c if 32 <= ord(c) < 127 and c not in '"\\' else _escape(c) for c in text) + '"'


def _escape(character: str) -> str:
    return f"\\U{ord(character):08x}"


def final(matches: Any) -> set[tuple[str, str]]:
    return {(found.rule, str(found.key)) for found in matches if found.status in ("final", "confirmed")}


def is_refused(node: Node) -> bool:
    """Whether a rule with the condition is refused: it never holds, or takes a text for a number."""
    return contradiction(node) is not None or any(kind_problems(node, lambda _step: ("A", "B"), {}))


def holds_in_every_order(text: str, pairs: list[tuple[Event, Event]]) -> None:
    """The rules match each key's pair if the reference says so, in any order of events, alone or in chunks."""
    node = parse(text, steps=("a", "b"), own="b")
    rules = load_rules(KEEP + RULES.format(where=quoted(text)))
    for first in (0, 1):
        events = []
        wanted = set()
        for number, (a, b) in enumerate(pairs):
            events += [{"stream": "A", "key": f"k{number}", "timestamp": 1 + first, **a},
                       {"stream": "B", "key": f"k{number}", "timestamp": 2 - first, **b}]  # fmt: skip
            if reference.truth(node, b, {"a": [a]}):
                wanted.add(("all", f"k{number}"))
                if first == 0:
                    wanted.add(("seq", f"k{number}"))
        for order in (events, events[::-1]):
            frames = [frame_of(event["stream"], [{k: v for k, v in event.items() if k != "stream"}], first_seq=i)
                      for i, event in enumerate(order)]  # fmt: skip
            assert final(match(rules, frames)) == wanted
            assert final(match(rules, order)) == wanted
            engine = Engine(rules, consistency="eventual", validated=True)
            early = [found for event in order for found in engine.push_event(event)]
            assert {found.key for found in early if found.rule == "all"} == {k for rule, k in wanted if rule == "all"}
            assert final([*engine.advance(100).matches.matches(), *engine.flush().matches.matches()]) == wanted


@pytest.mark.parametrize(
    ("where", "a", "b", "matches"),
    [
        ("x > a.x", "x1", "x0", False),
        ("x > a.x", "x0", "x1", True),
        ("x <= a.x", "\uffff", "\U00010000", False),
        ("x != a.x", 1, "1", True),
        ("x == a.x", 1, "1", False),
        ("x == a.x + a.x", 2**53 + 1, 2**54 + 2, True),
        ("x == a.x + a.x", 2**53 + 1, 2**54, False),
        ("x == a.x * 3", 2**60 + 1, 3 * 2**60 + 3, True),
        ("x > a.x * 4", 2**62, 2.0**64, False),
        ("x < a.x * 8", 2**62, 2.0**64, True),
    ],
)
def test_a_match_does_not_depend_on_which_event_came_first(where: str, a: Any, b: Any, matches: bool) -> None:
    node = parse(where, steps=("a", "b"), own="b")
    assert reference.truth(node, {"x": b}, {"a": [{"x": a}]}) is matches
    holds_in_every_order(where, [({"x": a}, {"x": b})])


either = st.sampled_from(["x", "y", "a.x", "a.y", "last(a.x)", "sum(a.x)", "mean(a.x)", "min(a.y)", "count(a.x)"])


@st.composite
def pairs(draw: Any) -> list[tuple[Event, Event]]:
    """Events of A and of B, a pair for each key."""
    first = draw(rows(1, 3))
    second = draw(rows(len(first), len(first)))
    return list(zip(first, second, strict=True))


@RULES_TOO
@given(found=pairs(), text=conditions_of(either, own))
@example(found=[({"x": "x1"}, {"x": "x0"}), ({"x": "x0"}, {"x": "x1"})], text="x > a.x")
@example(found=[({"x": 1}, {"x": "1"})], text="x != a.x and not (x == a.x)")
@example(found=[({"x": 2**53 + 1}, {"x": 2**54 + 2}), ({"x": 2**53 + 1}, {"x": 2**54})], text="x == a.x + a.x")
@example(found=[({"x": 0.1}, {"x": 0.1 + 0.2}), ({"x": 1e300}, {"x": 1e300})], text="x == a.x + 0.2 or x == a.x")
@example(found=[({"x": 2**64 - 1}, {"x": 2**63}), ({"x": 3}, {"x": 4})], text="x * 2 - a.x == 1 or x - a.x == 1")
@example(found=[({"x": ""}, {"x": "a"})], text="x and not a.x and a.x < x")
@example(found=[({"x": "1"}, {"x": 1}), ({"x": 1}, {"x": 1}), ({"x": None}, {"x": "1"})], text="x == a.x or x > a.x")
@example(found=[({"x": True}, {"x": 1}), ({"x": False}, {"x": True})], text="x > a.x and x != 1 and x + 1 is None")
def test_a_condition_over_two_events_holds_as_the_reference_says_in_every_order_of_arrival(
    found: list[tuple[Event, Event]], text: str
) -> None:
    assume(not is_refused(parse(text, steps=("a", "b"), own="b")))
    holds_in_every_order(text, found)


several = st.sampled_from(
    [*(f"{func}(a.x)" for func in ("sum", "mean", "min", "max", "first", "last", "count")), "count(a)", "x"]
)


@RULES_TOO
@given(events=rows(1, 5, ("x",)), last=rows(1, 1, ("x",)), text=conditions_of(several, st.just("x")))
@example(events=[{"x": 2**53}, {"x": 1}], last=[{"x": 2**53 + 1}], text="x == sum(a.x)")
@example(events=[{"x": 0.1}] * 3, last=[{"x": 0.3}], text="x == sum(a.x) and x / 3 == mean(a.x)")
@example(events=[{"x": math.inf}, {"x": 1.0}], last=[{"x": 1}], text="sum(a.x) > x")
@example(events=[{"x": "a"}, {"x": ""}], last=[{"x": 1}], text="mean(a.x) is None and sum(a.x) == 0")
@example(events=[{"x": 1e16}, {"x": 1.0}, {"x": -1e16}], last=[{"x": 1}], text="sum(a.x) == 1")
@example(
    events=[{"x": 1e300}, {"x": 1e100}, {"x": 1}, {"x": -1e300}, {"x": -1e100}], last=[{"x": 1}], text="x != sum(a.x)"
)
@example(events=[{"x": True}, {"x": 3}], last=[{"x": 2}], text="count(a.x) == x and min(a.x) == 3 and sum(a.x) == 3")
def test_functions_over_the_events_of_a_step_have_the_value_of_the_reference(
    events: list[Event], last: list[Event], text: str
) -> None:
    node: Node = parse(text, steps=("a", "b"), own="b")
    assume(not is_refused(node))
    rules = load_rules(
        f"{KEEP}rules: [{{name: r, within: 10us, skip: past_last, seq: [{{as: a, stream: A, times: {len(events)}}}, "
        f"{{as: b, stream: B, where: {quoted(text)}}}]}}]"
    )
    wanted = reference.truth(node, last[0], {"a": events})
    assert bool(compile_scalar(node)(last[0], {"a": events})) == wanted
    history = [{"stream": "A", "key": "k", "timestamp": i, **event} for i, event in enumerate(events)]
    history.append({"stream": "B", "key": "k", "timestamp": 9, **last[0]})
    orders = list(permutations(history)) if len(history) < 4 else [tuple(history), tuple(history[::-1])]
    for order in orders:
        numbered = sorted(order, key=lambda event: event["stream"])
        assert bool(list(match(rules, numbered))) == wanted


def test_first_and_last_ignore_nulls_in_rules_as_in_windows() -> None:
    rules = load_rules(
        """
        validators: [{stream: [A, B], non_finite: keep}]
        windows: [{name: w, from: A, every: 10us, select: {f: first(x), l: last(x)}}]
        rules:
          - {name: r, within: 1s, skip: past_last, seq: [{as: a, stream: A, times: 3}],
             emit: {f: first(a.x), l: last(a.x), newest: a.x}}
          - {name: v, seq: [{as: a, stream: w}], emit: {f: a.f, l: a.l}}
          - name: c
            within: 1s
            skip: past_last
            seq:
              - {as: a, stream: A, times: 3}
              - {as: b, stream: B, where: "(first(a.x) == f or first(a.x) is None and f is None)
                  and (last(a.x) == l or last(a.x) is None and l is None)
                  and (a.x == newest or a.x is None and newest is None)"}
        """
    )
    events: list[Event] = []
    expected: dict[tuple[str, str], Event] = {}
    for number, values in enumerate(product([None, math.nan, 2, 5.5, 2**53 + 1, "x", False, ""], repeat=3)):
        key = f"k{number}"
        own = [{"stream": "A", "key": key, "timestamp": at, "x": value} for at, value in enumerate(values)]
        known = [None if isinstance(value, float) and math.isnan(value) else value for value in values]
        there = [value for value in known if value is not None] or [None]
        wanted = {"f": there[0], "l": there[-1]}
        newest = {"newest": known[-1]}
        events += [*own, {"stream": "B", "key": key, "timestamp": 3, **wanted, **newest}]
        expected |= {("r", key): {**wanted, **newest}, ("v", key): wanted, ("c", key): {}}
        for text, value in (("first(a.x)", there[0]), ("last(a.x)", there[-1]), ("a.x", known[-1])):
            node = parse(text, steps=("a", "b"), own="b")
            assert reference.value(node, {}, {"a": own}) == compile_scalar(node)({}, {"a": own}) == value
    found = {(each.rule, str(each.key)): dict(each.emit) for each in match(rules, events)}
    assert found == expected


ORDERS = {"as numbers": Fraction, "by code point": lambda text: [ord(c) for c in text], "false before true": int}
VALUES: dict[str, list[Any]] = {
    "null": [None, math.nan],
    "boolean": [True, False],
    "number": [1, 2**53 + 1, 2.0**53, 0.5, 0.0],
    "text": ["", "1", "a", "\U00010000", "\uffff"],
}
DOCS = Path(__file__).parents[4] / "docs" / "rules.md"


def documented() -> dict[tuple[str, str], str]:
    """Cells of the table of comparisons, by kinds."""
    table = DOCS.read_text().partition("<!-- comparisons -->\n")[2].partition("<!-- end -->")[0]
    head, _, *lines = [[cell.strip(" *") for cell in line.strip("|").split("|")] for line in table.splitlines()]
    return {(line[0], kind): cell for line in lines for kind, cell in zip(head[1:], line[1:], strict=True)}


def test_values_of_all_pairs_of_kinds_compare_as_documented() -> None:
    cells = documented()
    assert set(cells) == set(product(VALUES, VALUES))
    assert set(cells.values()) == {"none", "only `!=`", *ORDERS}
    for op, compare in {"==": eq, "!=": ne, "<": lt, "<=": le, ">": gt, ">=": ge}.items():
        every = []
        for (left, right), cell in cells.items():
            for a, b in product(VALUES[left], VALUES[right]):
                order = ORDERS.get(cell)
                wanted = compare(order(a), order(b)) if order else cell == "only `!=`" and op == "!="
                node, pair = parse(f"p {op} q"), {"p": a, "q": b}
                assert reference.truth(node, pair) == wanted, (a, op, b)
                assert compile_scalar(node)(pair, {}) == wanted, (a, op, b)
                assert predicate(node, columns_of([pair])).tolist() == [wanted], (a, op, b)
                among = [pair, {"p": "n/a", "q": True}, {"p": 0.25, "q": "n/a"}, {"p": False, "q": 2**64 - 1}]
                assert predicate(node, columns_of(among)).tolist()[0] == wanted, (a, op, b)
                if not isinstance(b, float) or math.isfinite(b):
                    constant = parse(f"p {op} {b!r}") if b is not None else node
                    assert compile_scalar(constant)(pair, {}) == wanted, (a, op, b)
                    assert predicate(constant, columns_of([pair])).tolist() == [wanted], (a, op, b)
                if a in VALUES[left][:2] and b in VALUES[right][:2]:
                    every.append(({"x": b}, {"x": a}))
        holds_in_every_order(f"x {op} a.x", every)

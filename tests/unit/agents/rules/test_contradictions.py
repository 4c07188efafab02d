"""A rule that no order of events can fulfil is refused, with the reason."""

import pytest

from astrocyte.agents.expressions.parser import parse
from astrocyte.agents.rules.contradictions import contradiction, implies
from astrocyte.agents.rules.model import InvalidRules, Rule, Step, Validator, Window


@pytest.mark.parametrize(
    "text",
    [
        "value > 5 and value < 3",
        "5 < value < 3",
        "3 > value and y == 1 and value >= 3",
        "x == 'a' and x == 'b'",
        "x == 'a' and x in ('b', 'c')",
        "x is None and x > 3",
        "x == 3 and x == 'a'",
        "contains(x, 'a') and x > 3",
        "x >= 3 and x <= 3 and x != 3",
        "x > y and y > x",
        "x != x",
        "not (x > 3) and x > 3",
        "(x > 3 and x < 2) or (y > 1 and y < 0)",
        "x == true and x == false",
        "x == true and x == 1",
        "true == 1",
        "'room' == 'kitchen'",
    ],
)
def test_comparisons_that_exclude_each_other_are_found(text):
    assert contradiction(parse(text)) is not None


@pytest.mark.parametrize(
    "text",
    [
        "value > 5 and value < 6",
        "x in ('a', 'b') and x in ('b',)",
        "x > 3 or x < 2",
        "x >= 3 and x <= 3",
        "x >= y and y >= x",
        "true != 1",
        "1 == 1",
        "x != 3 and x == 'a'",
        "x > 3 and x + 1 < 3",
    ],
)
def test_conditions_that_may_hold_are_not_called_contradictory(text):
    assert contradiction(parse(text)) is None


@pytest.mark.parametrize(
    ("first", "second", "follows"),
    [
        ("value > 30", "value > 30", True),
        ("value > 30 and x == 1", "value > 20", True),
        ("value > 30", "value > 40", False),
        ("x == 'a'", "x in ('a', 'b')", True),
        ("value > 30", "value != 3", True),
        ("value > 30", "x != 3", False),
        ("value == 'x'", "value != 3", False),
        ("value > 30", "value in ()", False),
    ],
)
def test_a_condition_implies_a_weaker_one(first, second, follows):
    assert implies(parse(first), parse(second)) is follows


def hot(name, where="value > 30", **options):
    return Step(name=name, stream="S", where=where, **options)


def test_a_loop_before_the_absence_of_its_own_events_is_refused():
    quiet = hot("quiet", "value > 20", negated=True, within_prev="5s")
    with pytest.raises(InvalidRules, match=r"step 'fail' can never be complete.* write 3 separate steps"):
        Rule(name="r", within="20s", seq=[hot("fail", times=3), quiet])
    assert Rule(name="r", within="20s", seq=[hot("a"), hot("b"), hot("c"), quiet]).positive == ("a", "b", "c")
    other = hot("quiet", "value > 40", negated=True, within_prev="5s")
    assert Rule(name="r", within="20s", seq=[hot("fail", times=3), other]).positive == ("fail",)


def test_a_step_that_compares_with_a_later_step_is_refused():
    with pytest.raises(InvalidRules, match=r"b\.value is always null here, since step 'b' comes later"):
        Rule(name="r", within="1s", seq=[hot("a", "value > b.value + 1"), hot("b")])
    both = Rule(name="r", within="1s", all=[hot("a", "value > b.value + 1"), hot("b")])
    assert both.positive == ("a", "b")


def test_windows_and_validators_with_a_condition_that_is_never_true_are_refused():
    with pytest.raises(InvalidRules, match="so that the window has no events"):
        Window(name="w", source="A", every="1s", where="x > 3 and x < 2", select={"n": "count()"})
    with pytest.raises(InvalidRules, match="so that every event would be refused"):
        Validator(stream="A", where="x > 3 and x < 2")
    with pytest.raises(InvalidRules, match=r"a\.where: .* exclude each other, so that step 'a' never matches"):
        Rule(name="r", seq=[hot("a", "x > 3 and x < 2")])

"""Expressions are read as they are written: names, comments, constants and the spellings of other languages."""

import pytest

from astrocyte.agents.expressions.nodes import And, Compare, Constant, ExpressionError, Field, IsNull, Not, Text
from astrocyte.agents.expressions.parser import parse, parse_template
from astrocyte.agents.expressions.unparse import to_text


def read(text):
    return parse(text, steps=("a", "b"), own="a")


@pytest.mark.parametrize(
    "name", ["\u00b5g", "\u03bcg", "\ufb01eld", "\uff56alue", "m\u00b2", "class", "from", "lambda_"]
)
def test_a_name_is_the_one_that_was_written(name):
    assert read(f"{name} > 3") == Compare(">", Field(None, name), Constant(3))
    assert read(f"b.{name} > 3") == Compare(">", Field("b", name), Constant(3))


@pytest.mark.parametrize(
    "name", ["http-status", "@timestamp", "a.b", "user name", "true", "and", "1st", "#x", "{}", "e\u0301", "if"]
)
def test_any_name_can_be_written_in_backquotes(name):
    node = read(f"`{name}` > b.`{name}`")
    assert node == Compare(">", Field(None, name), Field("b", name))
    assert read(to_text(node)) == node


def test_a_comment_ends_with_its_line():
    node = read("value > 30   # it's hot\n  and room == 'a # b'  # of the house")
    assert node == And((read("value > 30"), Compare("==", Field(None, "room"), Constant("a # b"))))


@pytest.mark.parametrize(("text", "value"), [("true", True), ("FALSE", False), ("True", True), ("false", False)])
def test_constants_are_those_of_yaml_and_json(text, value):
    assert read(f"x == {text}").right.value is value


@pytest.mark.parametrize("null", ["null", "NULL", "None"])
def test_equal_to_null_means_is_null(null):
    assert read(f"x == {null}") == read(f"{null} == x") == read(f"x is {null}") == IsNull(Field(None, "x"))
    assert read(f"x != {null}") == read(f"x IS NOT {null}") == Not(IsNull(Field(None, "x")))
    with pytest.raises(ExpressionError, match="never true"):
        read(f"x < {null}")


def test_words_may_be_written_in_capitals():
    assert read("NOT x AND y IN (1, 2) OR z IS NULL") == read("not x and y in (1, 2) or z is None")


@pytest.mark.parametrize(
    ("text", "position", "hint"),
    [
        ("x = 3", 2, "write =="),
        ("x === 3", 2, "write =="),
        ("x !== 3", 2, "write !="),
        ("x <> 3", 2, "write !="),
        ("x && y", 2, "write and"),
        ("x || y", 2, "write or"),
        ("!x", 0, "write not"),
        ("x like 'a%'", 2, "contains"),
        ("x BETWEEN 1 and 2", 2, "1 <= x <= 2"),
        ("x not null", 2, "is not None"),
        ("x exists", 2, "is not None"),
        ("x =~ 'a'", 2, "contains"),
        ("http-status == 500", 0, "`http-status`"),
        ("b.http-status == 500", 2, "`http-status`"),
        ("http.status == 500", 0, "`http.status`"),
        ("user name == 'x'", 5, "`user name`"),
        ("$price > 3", 0, r"`\$price`"),
        ("5xx > 3", 0, "`5xx`"),
        ("x in ('a' 'b')", 10, "comma"),
        ("room == 'a' or 'b'", 15, "whole comparison"),
        ("`x > 3", 0, "never closed"),
        ("`` > 3", 0, "name of a field"),
    ],
)
def test_spelling_of_another_language_is_refused_with_the_right_one(text, position, hint):
    with pytest.raises(ExpressionError, match=hint) as caught:
        read(text)
    assert caught.value.position == position


@pytest.mark.parametrize(
    "text", ["value - base > 1", "value -base > 1", "value-1 > 2", "value-b.x > 1", "x-abs(y) > 1"]
)
def test_a_minus_sign_with_one_meaning_is_a_subtraction(text):
    assert read(text).left.op == "-"


def test_braces_and_colons_in_names_and_strings_of_a_message_are_not_those_of_the_message():
    first, second = parse_template("{a.`http:status`:.1f} and {contains(a.x, '}')}", steps=("a",))
    assert first == ("", Field("a", "http:status"), ".1f")
    assert second == (" and ", Text("contains", Field("a", "x"), "}"), "")


@pytest.mark.parametrize(
    ("text", "right"),
    [
        ("v \u2264 3", "<="),
        ("v \u2265 3", ">="),
        ("v \u2260 3", "!="),
        ("v > \u22123", "-"),
        ("v \u00d7 2 > 3", "*"),
        ("v \uff1e 3", ">"),
        ("v \uff1d 3", "=="),
        ("v \u2227 w", "and"),
        ("v == \u2018x\u2019", "straight quotation marks, ' or \""),
        ("v == \u201cx\u201d", "straight quotation marks, ' or \""),
    ],
)
def test_symbols_of_mathematics_and_word_processors_are_refused_with_what_to_write(text, right):
    with pytest.raises(ExpressionError, match="is not part of the rule language; write ") as refused:
        read(text)
    assert f"; write {right} (at character" in str(refused.value)


@pytest.mark.parametrize("name", ["it\u2019s", "http\u2011status"])
def test_an_odd_character_inside_a_name_is_advised_backquotes(name):
    with pytest.raises(ExpressionError, match=f"is written in backquotes: `{name}`"):
        read(f"{name} > 3")

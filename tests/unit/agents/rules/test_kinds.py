"""Rules that take text for a number, or a number for text: refused by the declared types, with the cure."""

import pytest

from astrocyte import InvalidRules, load_rules
from astrocyte.agents.rules.named_fields import number_reads_of

STREAM = "streams: [{name: t, fields: {amount: string, was: string, n: int64, body: json, any: {}}}]\n"


def rule(where: str) -> str:
    steps = f'{{as: a, stream: t}}, {{as: u, stream: t, where: "{where}"}}'
    return f"{STREAM}rules: [{{name: r, within: 1m, seq: [{steps}]}}]"


def problems(text: str) -> list[str]:
    with pytest.raises(InvalidRules) as caught:
        load_rules(text)
    return [str(each) for each in caught.value.problems]


@pytest.mark.parametrize(
    ("where", "fields"),
    [
        ("amount > 800", ["amount"]),
        ("800 < amount", ["amount"]),
        ("amount == 800", ["amount"]),
        ("amount != 800", ["amount"]),
        ("amount in (1, 2)", ["amount"]),
        ("amount - was > 8", ["amount", "was"]),
        ("-amount < 8", ["amount"]),
        ("abs(amount) < 8", ["amount"]),
        ("amount > n + 1", ["amount"]),
        ("amount > n", ["amount"]),
        ("a.amount > 1", ["amount"]),
        ("sum(a.amount) > 1", ["amount"]),
        ("last(a.amount) > 1", ["amount"]),
        ("n > 1 or amount > 1", ["amount"]),
    ],
)
def test_text_where_a_number_is_needed_is_refused_with_the_declaration_that_reads_numbers(where, fields):
    found = problems(rule(where))
    assert len(found) == len(fields)
    for line, field in zip(found, fields, strict=True):
        assert "rule 'r': u.where: " in line
        declared = "json and in expressions the JSON text of its values" if field == "body" else "text"
        assert f"takes the field {field!r} of t, which is declared as {declared}, for a number" in line
        assert f"declare '{field}: {{type: float64, text: true}}'" in line


@pytest.mark.parametrize(
    "where",
    [
        "amount > was", "amount == '800'", "amount in (1, '1')", "any > 800", "any - any > 1", "n > 5", "n - 1 > 2",
        "amount is None", "'8' in amount", "count(a.amount) > 1", "first(a.amount) == '1'", "any == true",
    ],
)  # fmt: skip
def test_what_may_be_true_is_taken(where):
    load_rules(rule(where))


@pytest.mark.parametrize("where", ["n == '5'", "'5' == n", "n in ('5', '6')", "n + 1 == '5'", "sum(a.n) == '5'"])
def test_a_number_that_is_compared_with_text_is_refused(where):
    (line,) = problems(rule(where))
    assert "the two are never equal" in line
    assert "so that it is never true" in line


def test_an_object_is_no_number_and_its_member_is_declared():
    (line,) = problems(rule("body > 1"))
    assert "declared as json and in expressions the JSON text of its values" in line
    assert "body_size: {path: body.size, type: float64}" in line


@pytest.mark.parametrize("name", ["key", "type"])
def test_key_and_type_are_text_and_the_message_says_how_the_text_is_written(name):
    (line,) = problems(rule(f"{name} == 5"))
    effect = "the two are never equal and have no order, so that it is never true"
    assert line.endswith(f"for a number: {effect}; compare it with text, such as '5'")


def test_windows_emitted_values_and_validators_are_checked_with_their_places():
    text = (
        f"{STREAM}windows:\n  - {{name: w, from: t, every: 1m, where: 'was > 1', select: {{total: sum(amount)}}}}\n"
        "rules:\n  - {name: r, seq: [{as: u, stream: t}], emit: {half: u.amount / 2}}\n"
        "validators:\n  - {stream: t, where: 'amount > 0', set: {x: amount * 2}}\n"
    )
    assert [line.partition(" takes ")[0].split(": ", 1)[1] for line in problems(text)] == [
        "validator 'validators[0]': where: amount > 0",
        "validator 'validators[0]': set.x: amount * 2",
        "rule 'r': emit.half: u.amount / 2",
        "window 'w': where: was > 1",
        "window 'w': select.total: sum(amount)",
    ]
    assert [each.partition(":")[0] for each in problems(text)] == ["7", "7", "5", "3", "3"]


@pytest.mark.parametrize("change", ["set: {amount: n + 1}", "rename: {n: amount}", "use: 'tests.nowhere:function'"])
def test_a_field_that_a_validator_sets_is_not_what_was_declared(change, monkeypatch):
    from astrocyte.agents.rules import validators

    monkeypatch.setattr(validators.VALIDATORS, "get", lambda _name: validators.function_of(lambda event: event))
    load_rules(f"{rule('amount > 1')}\nvalidators: [{{stream: t, {change}}}]")


def test_where_one_of_several_streams_may_have_a_number_the_comparison_is_taken():
    load_rules(
        "streams: [{name: a, fields: {x: string}}, {name: b, fields: {x: float64}}]\n"
        "rules: [{name: r, seq: [{as: u, stream: [a, b], where: x > 5}]}]"
    )


def test_text_that_is_read_as_numbers_is_a_number():
    load_rules(
        "streams: [{name: a, fields: {x: {type: float64, text: true}}}]\n"
        "rules: [{name: r, seq: [{as: u, stream: a, where: x > 5}]}]"
    )


@pytest.mark.parametrize(
    ("where", "reads"),
    [
        ("any > 800", [("any", None)]),
        ("any == 500 or any == '500'", []),
        ("any - 1 > 3 and any != 'x'", [("any", "any != 'x'")]),
        ("type == 'x' and any + n > 3", [("any", "type == 'x'"), ("n", "type == 'x'")]),
        ("sum(a.any) > 3", [("any", None)]),
        ("any is None or 'x' in any", []),
    ],
)
def test_the_fields_of_which_rules_need_numbers_and_the_condition_under_which_they_do(where, reads):
    from astrocyte.agents.expressions.unparse import to_text

    found = number_reads_of(load_rules(rule(where)))
    assert [(each.field, None if each.guard is None else to_text(each.guard)) for each in found] == reads

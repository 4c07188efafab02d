"""Rules: the language as YAML and as objects, and errors that name file, rule, field and position."""

from __future__ import annotations

import re
from datetime import timedelta

import pytest

from astrocyte.agents.engine.engine import Engine
from astrocyte.agents.loading import load_rules
from astrocyte.agents.rules.model import Group, InvalidRules, Rule, Step, Window, format_duration, parse_duration
from astrocyte.schemas.errors import InvalidRule

DOCUMENTED = """
rules:
  - name: type_A_and_B_within_2s
    by: key
    within: 2s
    all:
      - {as: a, stream: axon_1, where: "type == 'A'"}
      - {as: b, stream: axon_2, where: "type == 'B'"}
    pairing: once
    emit: {integrated_value: "a.value + b.value", confidence: "min(a.value, b.value) / max(a.value, b.value)"}
  - name: population_collapse
    by: simulation_id
    within: 60s
    seq:
      - {as: before, stream: population_metrics}
      - {as: now, stream: population_metrics, where: "now.total_population < 0.5 * before.total_population"}
    skip: past_last
    alert: {severity: critical, message: "population fell from {before.total_population}"}
windows:
  - {name: population_metrics, from: cell_vitals, by: simulation_id, every: 10s,
     select: {total_population: "count_distinct(cell_id)", avg_energy: "mean(energy)"}}
"""


def step(name="a", **options):
    return Step(name=name, stream="s", **options)


def problem(text, **options):
    """The only problem of a rule file."""
    with pytest.raises(InvalidRules) as caught:
        load_rules(text, **options)
    (found,) = caught.value.problems
    return found


def test_documented_rule_file_is_read():
    rules = load_rules(DOCUMENTED)
    both, collapse = rules.rules
    assert (both.kind, both.pairing, both.positive, both.streams) == ("all", "once", ("a", "b"), ("axon_1", "axon_2"))
    assert both.within.time == 2_000_000
    assert both.confidence_node is not None
    assert collapse.skip.kind == "past_last"
    assert collapse.message is not None
    assert rules.windows[0].kind == "tumbling"
    assert rules.windows[0].size_us == 10_000_000


def test_yaml_and_objects_are_the_same_rule():
    text = """
rules:
  - name: r
    within: {time: 3s, closed: true}
    seq:
      - {as: a, stream: s, min: 2, max: 4, greedy: true, gap: 1s}
      - not: {as: n, stream: s, where: "value > 3"}
        contiguity: next
      - seq:
          - {as: b, stream: s}
          - {as: c, stream: [s, t], contiguity: followed_by_any, within_prev: 500ms}
        min: 1
        until: "value < 0"
        optional: true
    skip: {to_last: b}
    max_partials: 50
    emit: eager
    on_timeout: true
"""
    rule = Rule(
        name="r",
        within={"time": timedelta(seconds=3), "closed": True},
        seq=[
            step("a", min=2, max=4, greedy=True, gap="1s"),
            step("n", where="value > 3", negated=True, contiguity="next"),
            Group(
                seq=[
                    step("b"),
                    Step(name="c", stream=["s", "t"], contiguity="followed_by_any", within_prev="500ms"),
                ],
                min=1,
                until="value < 0",
                optional=True,
            ),
        ],
        skip={"to_last": "b"},
        max_partials=50,
        emit_mode="eager",
        on_timeout=True,
    )
    (read,) = load_rules(text).rules
    assert read == rule
    assert read.content_version == rule.content_version


@pytest.mark.parametrize(
    ("text", "microseconds"),
    [("2s", 2_000_000), ("250ms", 250_000), ("1.5h", 5_400_000_000), ("7us", 7), ("1 d", 86_400_000_000)],
)
def test_durations_have_units(text, microseconds):
    assert parse_duration(text) == microseconds
    assert parse_duration(format_duration(microseconds)) == microseconds


@pytest.mark.parametrize("value", [2, 1.5, "2", "2 weeks", "0s", "-1s", "", None, True])
def test_duration_without_a_known_unit_is_refused(value):
    with pytest.raises(ValueError, match="expected a duration"):
        parse_duration(value)


@pytest.mark.parametrize(
    ("options", "bounds"),
    [
        ({}, (1, 1, False)),
        ({"times": 3}, (3, 3, False)),
        ({"times": [2, 4]}, (2, 4, False)),
        ({"times": [0, 4]}, (1, 4, True)),
        ({"min": 1}, (1, None, False)),
        ({"min": 0}, (1, None, True)),
        ({"max": 3}, (1, 3, False)),
        ({"min": 2, "max": 5, "optional": True}, (2, 5, True)),
    ],
)
def test_quantifiers(options, bounds):
    made = step(**options)
    assert (made.at_least, made.at_most, made.may_be_absent) == bounds


@pytest.mark.parametrize(
    ("build", "reason"),
    [
        (lambda: step(times=2, min=1), "times cannot be combined with min"),
        (lambda: step(min=3, max=2), "must not exceed"),
        (lambda: step(times=0), "times: expected 1 or more, got 0"),
        (lambda: step(min=1, consecutive=True, combinations=True), "consecutive and combinations cannot be combined"),
        (lambda: step(greedy=True), "greedy applies to loops only"),
        (lambda: step(min=1, greedy=True, combinations=True), "greedy .* and combinations .* cannot be combined"),
        (lambda: step(times=3, until="x > 1"), "without max"),
        (lambda: step(gap="1s"), "gap applies to loops only"),
        (lambda: step(negated=True, min=1), "leave out min"),
        (lambda: step(negated=True, contiguity="followed_by_any"), "next or followed_by, got followed_by_any"),
        (lambda: step("a b"), "cannot be used in expressions"),
        (lambda: Step(stream="s"), "needs a name"),
        (lambda: Group(seq=[step()], any=[step("b")]), "exactly one of"),
        (lambda: Group(seq=[step()], min=1, greedy=True), "greedy applies to single steps only"),
        (lambda: Group(any=[step(min=1)]), "cannot have a quantifier"),
        (lambda: Group(seq=[step(contiguity="next")]), "no step precedes it"),
        (lambda: Rule(name="r", seq=[step(), step()]), "appears twice"),
        (lambda: Rule(name="r", seq=[step(), step("b", negated=True)]), "add within"),
        (lambda: Rule(name="r", seq=[step(negated=True), step("b")]), "first step is negated"),
        (
            lambda: Rule(name="r", seq=[step(), step("b", optional=True), step("n", negated=True), step("c")]),
            "optional",
        ),
        (lambda: Rule(name="r", seq=[step()], skip={"to_first": "x"}), "unknown step 'x'"),
        (lambda: Rule(name="r", seq=[step()], skip="to_first"), "needs the name"),
        (lambda: Rule(name="r", within="1s", seq=[step(), step("b", within_prev="2s")]), "longer than"),
        (lambda: Rule(name="r", all=[step(), step("b")]), "all needs a time limit"),
        (lambda: Rule(name="r", within="1s", all=[step(), step("b")], skip="past_last"), "use pairing for all"),
        (lambda: Rule(name="r", within="1s", all=[step(), step("b", min=1)]), "no loops"),
        (lambda: Rule(name="r", seq=[step()], pairing="each"), "pairing applies to all only"),
        (lambda: Rule(name="r", seq=[step(where="x >")]), r"a\.where: not an expression"),
        (lambda: Rule(name="r", seq=[step()], emit={"x": "b.value"}), r"emit\.x: unknown step 'b'"),
        (lambda: Rule(name="r", seq=[step()], alert={"message": "{a.}"}), r"alert\.message"),
        (lambda: Rule(name="r", seq=[step()], confidence="value"), "does not name its step"),
        (lambda: Rule(name="r"), "exactly one of"),
        (lambda: Rule(name="r x", seq=[step()]), "name"),
        (lambda: Rule(name="r", seq=[step()], sequence=[]), "unknown field 'sequence'"),
    ],
)
def test_contradictions_are_refused_with_their_reason(build, reason):
    with pytest.raises(InvalidRules, match=reason):
        build()


def test_problem_has_rule_field_line_and_column():
    found = problem("rules:\n  - name: r\n    within: 2\n    seq: [{as: a, stream: s}]\n")
    assert (found.rule, found.field, found.line, found.column) == ("r", "within.time", 3, 13)
    assert "write 2s or 2ms" in found.message


def test_problem_in_a_condition_points_at_the_condition():
    found = problem("rules:\n  - name: r\n    within: 2s\n    seq:\n      - {as: a, stream: s, where: 'foo(1)'}\n")
    assert (found.rule, found.line, found.column) == ("r", 5, 36)
    assert "unknown function 'foo'" in found.message


def test_misspelt_field_gets_a_suggestion():
    found = problem("rules:\n  - {name: r, within: 2s, seq: [{as: a, stream: s, were: 'x > 1'}]}\n")
    assert found.message == "unknown field 'were'; did you mean 'where'?"


def test_a_field_of_another_part_is_not_suggested_where_it_is_refused():
    found = problem("validators: [{stream: s, fields: {x: {}}}]\nrules: [{name: r, seq: [{as: a, stream: s}]}]\n")
    assert "unknown field 'fields'" in found.message
    assert "did you mean 'fields'" not in found.message


def test_misspelt_field_of_a_known_stream_gets_a_suggestion():
    found = problem("rules:\n  - {name: r, within: 2s, seq: [{as: a, stream: axon_1, where: 'valu > 1'}]}\n")
    assert "no field 'valu'; did you mean 'value'?" in found.message


def test_unknown_stream_is_refused_where_the_streams_are_known():
    text = "rules:\n  - {name: r, within: 2s, seq: [{as: a, stream: axon_9}]}\n"
    assert load_rules(text).rules[0].streams == ("axon_9",)
    assert "did you mean 'axon_1'?" in problem(text, known_streams=["axon_1", "cells"]).message


def test_streams_made_in_the_same_file_are_known():
    text = """
streams: [{name: mine, fields: {x: float64}}]
windows: [{name: w, from: mine, every: 1s, select: {top: max(x)}}]
rules: [{name: r, within: 5s, seq: [{as: a, stream: w, where: "top > 3"}, {as: b, stream: mine, where: "x > 1"}]}]
"""
    assert len(load_rules(text, known_streams=[]).rules) == 1


def test_unbounded_rule_in_a_file_is_refused():
    text = "rules:\n  - {name: r, seq: [{as: a, stream: s}, {as: b, stream: s}]%s}\n"
    assert "add within" in problem(text % "").message
    assert load_rules(text % ", max_partials: 10").rules[0].max_partials.limit == 10


def test_several_problems_are_reported_together():
    with pytest.raises(InvalidRules) as caught:
        load_rules("rules:\n  - {name: r, within: 2, seq: [{as: a, strem: s}]}\n  - {name: q}\n", known_streams=[])
    assert {found.rule for found in caught.value.problems} == {"r", "q"}
    assert len(caught.value.problems) == 4


@pytest.mark.parametrize("text", ["rules: [", "- 1", "", "rule: []", "rules: {}", "rules: [3]"])
def test_a_string_that_is_not_a_rule_file_is_refused(text):
    with pytest.raises(InvalidRule):
        load_rules(text)


def test_file_is_named_in_problems(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("rules: [{name: r}]")
    assert problem(path).file == str(path)
    assert problem(tmp_path / "none.yaml").message.startswith("cannot be read")


def test_version_changes_with_the_content_and_not_with_the_description():
    rule = Rule(name="r", seq=[step()], description="one")
    assert Rule(name="r", seq=[step()], description="two").content_version == rule.content_version
    assert Rule(name="r", seq=[step(where="x > 1")]).content_version != rule.content_version
    assert Rule(name="r", seq=[step()], version="v7").content_version == "v7"


def test_names_of_rules_and_windows_are_unique():
    window = {"name": "r", "from": "s", "every": "1s", "select": {"n": "count()"}}
    rule = {"name": "r", "within": "1s", "seq": [{"as": "a", "stream": "s"}]}
    assert "given to two" in problem({"rules": [rule], "windows": [window]}).message


def test_window_has_exactly_one_extent():
    for extent in ({}, {"every": "1s", "session": "2s"}, {"every": "2s", "size": "1s"}):
        with pytest.raises(InvalidRules):
            Window(name="w", source="s", select={"n": "count()"}, **extent)


CLICKS = """
streams: [{name: clicks, key: visitor, time: at, id: uid, fields: {total: float64, kind: string}}]
rules:
  - name: r
    by: BY
    within: 1s
    seq: [{as: a, stream: clicks}, {as: b, stream: [clicks, clicks2], where: "WHERE"}]
    emit: {EMIT: "last(a.EMITTED)"}
    alert: {severity: info, message: "bought for {a.MESSAGE:.2f} at {a.at} as {a.uid}"}
    on_timeout: {emit: {n: "a.TIMED"}, alert: {severity: info, message: "{a.LATE}"}}
"""
RIGHT = {
    "BY": "visitor", "WHERE": "total > a.total", "EMITTED": "total", "EMIT": "n", "MESSAGE": "total", "TIMED": "kind",
    "LATE": "visitor",
}  # fmt: skip


def clicks(**wrong: str) -> str:
    text = CLICKS.replace("[clicks, clicks2]", "clicks")
    for name, value in (RIGHT | wrong).items():
        text = re.sub(rf"\b{name}\b", value, text)
    return text


def test_a_rule_that_names_declared_fields_only_is_valid():
    assert load_rules(clicks()).rules[0].by == "visitor"


@pytest.mark.parametrize(
    ("wrong", "field", "line"),
    [
        ({"BY": "vistor"}, "by", 5),
        ({"WHERE": "totl > 3"}, "b.where", None),
        ({"WHERE": "total > a.totl"}, "b.where", None),
        ({"EMITTED": "totl"}, "emit.n", 8),
        ({"MESSAGE": "totl"}, "alert.message", 9),
        ({"TIMED": "kindd"}, "on_timeout.emit.n", 10),
        ({"LATE": "vistor"}, "on_timeout.alert.message", 10),
    ],
)
def test_what_a_rule_reads_is_compared_with_the_declared_fields(wrong, field, line):
    found = problem(clicks(**wrong))
    meant = {"vistor": "visitor", "kindd": "kind"}.get(next(iter(wrong.values())), "total")
    assert (found.field, "stream clicks has no field" in found.message) == (field, True)
    assert found.message.endswith(f"did you mean {meant!r}?")
    assert line is None or found.line == line


def test_fields_of_a_step_with_a_stream_that_lists_none_may_have_any_name():
    text = CLICKS
    for name, value in (RIGHT | {"WHERE": "anything > 3"}).items():
        text = re.sub(rf"\b{name}\b", value, text)
    assert load_rules(text).rules[0].steps[1].where == "anything > 3"


def pair(kind, where):
    return f"""
rules:
  - name: r
    within: 10s
    {kind}:
      - {{as: a, stream: A}}
      - {{as: b, stream: B, where: {where!r}}}
"""


ONE = "rules: [{name: r, seq: [{as: a, stream: A}]}]"


@pytest.mark.parametrize(
    ("text", "place", "message"),
    [
        (pair("seq", "startswith(a.name, 'x')"), (7, "r", "b.where"), "cannot test an event matched earlier"),
        (pair("seq", "value > 1 and not 'x' in a.name"), (7, "r", "b.where"), "cannot test an event matched earlier"),
        (pair("all", "contains(max(a.name, b.name), 'x')"), (7, "r", "b.where"), "of one event only"),
        (
            (
                "rules:\n  - name: r\n    within: 1s\n    seq:\n"
                "      - {times: 1000, seq: [{as: a, stream: A, times: 1000}]}\n"
            ),
            (5, "r", "seq"),
            "more than 20000 states",
        ),
        (
            (
                "rules:\n  - {name: r, within: 1s, seq: [{as: a, stream: s}]}\n"
                "  - {name: s, within: 1s, seq: [{as: a, stream: r}]}\n"
            ),
            (2, "r", "a.stream"),
            "in a circle: r -> s -> r",
        ),
        (
            (
                "rules:\n  - {name: r, seq: [{as: a, stream: w}]}\n"
                "windows:\n  - {name: w, from: r, every: 1s, select: {n: count()}}\n"
            ),
            (4, "w", "from"),
            "in a circle: w -> r -> w",
        ),
        (f"streams:\n  - name: A\n    decoder: foo\n{ONE}", (3, "A", "decoder"), "'foo'"),
        (
            f"streams:\n  - {{name: A, topic: t}}\n  - {{name: B, topic: t}}\n{ONE}",
            (3, "B", "topic"),
            "both read the topic 't'",
        ),
        (
            f"streams:\n  - {{name: A, topic: mono.B}}\n  - {{name: B}}\n{ONE}",
            (3, "B", "topic"),
            "both read the topic 'mono.B'",
        ),
    ],
)
def test_what_no_engine_takes_is_refused_when_it_is_loaded_with_its_place(tmp_path, text, place, message):
    file = tmp_path / "rules.yaml"
    file.write_text(text)
    found = problem(file)
    assert (found.file, found.line, found.rule, found.field) == (str(file), *place)
    assert message in found.message


def test_an_engine_names_the_rule_and_the_field_of_a_rule_that_it_cannot_take():
    rule = Rule(name="r", within="1s", seq=[step("a"), step("b", where="startswith(a.name, 'x')")])
    with pytest.raises(InvalidRules, match=r"rule 'r': b.where: contains, startswith"):
        Engine([rule])


def test_a_hopping_window_whose_events_would_be_in_too_many_windows_is_refused():
    text = "windows: [{{name: w, from: A, size: {}, every: {}, select: {{n: count()}}}}]"
    found = problem(text.format("30d", "1us"))
    assert (found.line, found.rule) == (1, "w")
    assert "in 2,592,000,000,000 windows, and make as many results; the limit is 10,000" in found.message
    assert "in 10,001 windows" in problem(text.format("10.001s", "1ms")).message
    assert load_rules(text.format("10000s", "1s")).windows[0].kind == "hopping"


@pytest.mark.parametrize("field", ["times", "min", "max", "max_partials"])
def test_a_truth_value_is_no_number(field):
    step = "" if field == "max_partials" else f", {field}: true"
    rule = f", {field}: true" if field == "max_partials" else ""
    found = problem(f"rules: [{{name: r, within: 1s{rule}, seq: [{{as: a, stream: A{step}}}]}}]")
    assert "got true" in found.message


@pytest.mark.parametrize("written", ["null", "~", "'null'"])
def test_non_finite_null_means_null_with_and_without_quotes(written):
    (validator,) = load_rules(f"validators: [{{stream: A, non_finite: {written}}}]").validators
    assert validator.non_finite == "null"


def test_a_character_beyond_16_bits_may_be_written_as_json_writes_it():
    text = '{"rules": [{"name": "r", "seq": [{"as": "a", "stream": "A", "where": "value == \'\\ud83d\\ude00\'"}]}]}'
    assert load_rules(text).rules[0].steps[0].where == "value == '\N{GRINNING FACE}'"


def test_half_a_character_in_a_rule_file_is_refused_with_its_place():
    text = 'rules:\n  - name: r\n    by: "\\ud83d"\n    seq: [{as: a, stream: A}]\n'
    with pytest.raises(InvalidRules) as caught:
        load_rules(text)
    (problem,) = caught.value.problems
    assert "half a character" in problem.message
    assert (problem.line, problem.column) == (3, 9)

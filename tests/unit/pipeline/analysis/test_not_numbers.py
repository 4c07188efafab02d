"""Text and other values in fields of which rules need numbers: `match` and a worker's domain count them."""

import numpy as np
import orjson
import pytest

from astrocyte.agents.domain import Domain, DomainGroup
from astrocyte.agents.engine.engine import Engine
from astrocyte.agents.loading import load_rules
from astrocyte.pipeline.kafka.record import ConsumedRecord
from astrocyte.pipeline.topology.plan import make_plan
from astrocyte.schemas.frames import Frame, encode_frame
from astrocyte.schemas.json.reader import RawRecord
from tests.support.match_command import event, files, lines, run

START_US = 1_772_359_200_000_000
ADVICE = (
    "of which rules need one, so that comparisons are false and results null, such as {}; for numbers that are written "
    "as text declare '{}: {{type: float64, text: true}}' under streams:"
)


def seq(where: str) -> str:
    return f'rules: [{{name: r, seq: [{{as: a, stream: A, where: "{where}"}}]}}]'


def window(select: str, where: str = "key is not None") -> str:
    return f'windows: [{{name: w, from: A, every: 1m, where: "{where}", select: {{x: "{select}"}}}}]'


def said(tmp_path, rules: str, *records: ConsumedRecord) -> list[str]:
    return [line for line in lines(run("match", *files(tmp_path, rules, *records))) if "no number" in line]


@pytest.mark.parametrize(
    ("rules", "reader"),
    [
        (seq("v > 800"), "rule 'r'"),
        (seq("v - 1 > 800"), "rule 'r'"),
        (seq("v in (1, 2)"), "rule 'r'"),
        (window("sum(v)"), "window 'w'"),
        (window("mean(v + 1)"), "window 'w'"),
        (window("count()", "v > 1"), "window 'w'"),
    ],
)
def test_text_in_a_field_of_numbers_is_counted_with_its_reader_and_the_cure(tmp_path, rules, reader):
    (line,) = said(tmp_path, rules, event(0, v="900.50"), event(1, v=5), event(2, v="20"), event(3, v=None))
    assert line == "2 events of A have no number in 'v', " + ADVICE.format(f"mono.A[0]@0: '900.50' in {reader}", "v")


def test_text_that_writes_no_number_is_counted_apart_without_the_cure_that_would_refuse_it(tmp_path):
    values = ["900.50", "n/a", "58,7", "20", "n/a", True]
    found = said(tmp_path, seq("v > 800"), *(event(number, v=value) for number, value in enumerate(values)))
    what = "no number in 'v', of which rules need one, so that comparisons are false and results null, such as"
    cure = "a truth value is no number: compare it with true or false, or count it with count_if"
    assert found == [
        "2 events of A have no number in 'v', " + ADVICE.format("mono.A[0]@0: '900.50' in rule 'r'", "v"),
        f"3 events of A have {what} mono.A[0]@1: 'n/a' in rule 'r'",
        f"1 event of A has {what} mono.A[0]@5: True in rule 'r'; {cure}",
    ]


@pytest.mark.parametrize(
    "rules",
    [
        seq("v == '900.50'"), seq("v == 900.5 or v == '900.50'"), seq("v is not None"), seq("type == 'x' and v > 1"),
        window("count(v)"), window("last(v)"), window("sum(v)", "kind == 'x'"), seq("w > 1"),
    ],
)  # fmt: skip
def test_text_that_no_rule_takes_for_a_number_is_not_reported(tmp_path, rules):
    assert said(tmp_path, rules, event(0, v="900.50", w=1, kind="y"), event(1, v="20", w=1, kind="y")) == []


def test_booleans_and_lists_are_no_numbers_either(tmp_path):
    first, second = said(tmp_path, seq("v + 1 > 0"), event(0, v=True), event(1, v=[1]), event(2, v=3.5))
    assert first.startswith("1 event of A has no number in 'v', ")
    assert first.endswith("; a truth value is no number: compare it with true or false, or count it with count_if")
    assert second.endswith(" mono.A[0]@1: '[1]' in rule 'r'")


def test_an_earlier_event_of_a_match_is_asked_for_numbers_under_its_own_condition(tmp_path):
    rules = (
        "rules: [{name: r, within: 1m, seq: [{as: a, stream: A, where: \"kind == 'x'\"}, "
        "{as: b, stream: A, where: \"kind == 'y'\"}], emit: {half: a.v / 2}}]"
    )
    (line,) = said(tmp_path, rules, event(0, v="1", kind="x"), event(1, v="2", kind="y"))
    assert line.startswith("1 event of A has no number in 'v', ")


def frame(values: list[object]) -> bytes:
    times = START_US + np.arange(len(values))
    return encode_frame(
        Frame.from_columns(
            "A", "", {"timestamp": times, "key": ["k"] * len(values), "type": ["A"] * len(values), "v": values}
        )
    )


@pytest.mark.parametrize("in_frames", [False, True])
@pytest.mark.parametrize("by", ["key", "other"])
def test_a_worker_counts_them_once_also_where_the_stream_is_repartitioned(in_frames, by):
    rules = load_rules(
        f'rules: [{{name: r, by: {by}, seq: [{{as: a, stream: A, where: "v - 1 > 8"}}]}}, '
        '{name: s, by: key, seq: [{as: a, stream: A, where: "v * 2 > 8"}]}]'
    )
    plan = make_plan(rules)
    groups = [DomainGroup(each.field, Engine(each.ruleset, validated=True), each.topics) for each in plan.groups]
    domain = Domain(0, groups, topics=plan.topics, internal=plan.copies, copies=plan.copies)
    values = ["900.50", "7"]
    records = [
        RawRecord(offset, START_US // 1000, b"k", orjson.dumps({"ts": START_US + offset, "v": value}))
        for offset, value in enumerate(values)
    ]
    domain.feed("mono.A", [RawRecord(0, START_US // 1000, None, frame(values))] if in_frames else records)
    found = [(each.count, each.example) for cause, _, _, each in domain.unused if cause == "no_number"]
    place = "mono.A[0]@0 row 0" if in_frames else "mono.A[0]@0"
    assert found == [(2, f"{place}: '900.50' in rule 'r'" if by == "key" else found[0][1])]

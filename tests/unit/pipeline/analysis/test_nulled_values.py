"""Values that become null because they are of another type than declared: `match` and a worker's domain count them."""

import numpy as np
import orjson
import pytest

from astrocyte.agents.domain import Domain, DomainGroup
from astrocyte.agents.engine.engine import Engine
from astrocyte.agents.ingest.decoders import Decoders
from astrocyte.agents.loading import load_rules
from astrocyte.pipeline.topology.plan import make_plan
from astrocyte.schemas.contract import Contracts
from astrocyte.schemas.frames import Frame, encode_frame
from astrocyte.schemas.json.reader import RawRecord
from tests.support.match_command import event, files, lines, run

START_US = 1_772_359_200_000_000
RULES = """
streams: [{{name: A, fields: {{v: float64, w: int64}}, on_type_error: "{policy}"}}]
rules: [{{name: r, by: {by}, seq: [{{as: a, stream: A, where: "v > 0"}}]}}]
"""
VALUES = ["n/a", 1.5, None, [2], "n/a"]
EXAMPLE = "mono.A[0]@0{row}: field 'v' is 'n/a'; expected float64"


def test_match_says_how_many_of_which_field_with_one_example(tmp_path):
    records = [event(row, v=value, w=1.5 if row == 1 else 1) for row, value in enumerate(VALUES)]
    found = lines(run("match", *files(tmp_path, RULES.format(policy="null", by="key"), *records)))
    said = [line for line in found if "became null" in line]
    became = "of another type than declared and became null ('on_type_error: null'), such as"
    assert said == [
        f"3 values of 'v' in A were {became} {EXAMPLE.format(row='')}",
        f"1 value of 'w' in A was {became} mono.A[0]@1: field 'w' is 1.5; expected int64",
    ]


@pytest.mark.parametrize("by", ["key", "w"])
@pytest.mark.parametrize("in_frames", [False, True])
def test_a_worker_counts_each_value_once_also_where_the_stream_is_repartitioned(in_frames, by):
    rules = load_rules(RULES.format(policy="null", by=by))
    plan = make_plan(rules)
    groups = [DomainGroup(each.field, Engine(each.ruleset, validated=True), each.topics) for each in plan.groups]
    decoders = Decoders(Contracts(rules.streams))
    domain = Domain(
        0, groups, topics=plan.topics, internal=plan.copies, copies=plan.copies, decoders=decoders
    )  # fmt: skip
    if in_frames:
        columns = {"timestamp": START_US + np.arange(len(VALUES)), "key": ["k"] * len(VALUES), "v": VALUES}
        records = [RawRecord(0, START_US // 1000, None, encode_frame(Frame.from_columns("A", "", columns)))]
    else:
        records = [
            RawRecord(offset, START_US // 1000, b"k", orjson.dumps({"ts": START_US + offset, "v": value}))
            for offset, value in enumerate(VALUES)
        ]
    domain.feed("mono.A", records)
    nulled = [item for item in domain.unused.as_json() if item["cause"] == "nulled"]
    example = EXAMPLE.format(row=" row 0" if in_frames else "")
    assert nulled == [{"cause": "nulled", "of": "A", "detail": "v", "count": 3, "example": example}]


def test_without_that_policy_they_are_dead_letters_and_not_counted_twice(tmp_path):
    records = [event(row, v=value) for row, value in enumerate(VALUES)]
    result = run("match", *files(tmp_path, RULES.format(policy="dead_letter", by="key"), *records))
    assert [line for line in lines(result) if "became null" in line] == []

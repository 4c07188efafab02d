"""`key` in a rule is the event's own key, whatever the rules correlate by and through whichever topics events come."""

from __future__ import annotations

import orjson
import pytest

from astrocyte import load_rules, match
from astrocyte.agents.domain import Domain, DomainGroup
from astrocyte.agents.engine.engine import Engine
from astrocyte.pipeline.analysis.offline import run_rules
from astrocyte.pipeline.roles.output_records import copy_records
from astrocyte.pipeline.topology.plan import make_plan
from astrocyte.pipeline.topology.repartition import Repartitioner
from astrocyte.schemas.json.reader import RawRecord

EVENTS = [
    {"stream": "S", "timestamp": 1_767_225_600_000_000, "key": "x", "patient": 39},
    {"stream": "R", "timestamp": 1_767_225_600_000_001, "key": "y", "patient": 39},
    {"stream": "R", "timestamp": 1_767_225_600_000_002, "patient": 39},
    {"stream": "R", "timestamp": 1_767_225_600_000_003, "key": "y", "patient": 40},
]
STEPS = """within: 9s, seq: [{as: a, stream: S, where: "key == 'x'"}, {as: b, stream: R, where: "key != a.key"}],
    emit: {one: a.key, two: b.key}, alert: {severity: info, message: "{a.key} before {b.key}"}"""


def rules_by(by: str):
    window = f"windows: [{{name: w, from: R, by: {by}, every: 1s, where: \"key == 'y'\", select: {{n: count()}}}}]"
    return load_rules(f"rules:\n- {{name: r, by: {by}, {STEPS}}}\n{window if by != 'null' else ''}")


def seen(outputs):
    """What the matches say, and what the windows count."""
    records = [record for output in outputs for record in output.multi_events]
    said = [(each.key, orjson.loads(each.value)["metadata"]) for each in records]
    counts = [(row["key"], row["n"]) for output in outputs for frame in output.frames for row in frame.rows()]
    alerts = [orjson.loads(record.value)["message"] for output in outputs for record in output.alerts]
    return [(key, emitted["one"], emitted["two"]) for key, emitted in said], alerts, sorted(counts)


EXPECTED = {
    "patient": ([(b"39", "x", "y")], ["x before y"], [("39", 1), ("40", 1)]),
    "null": ([(None, "x", "y")], ["x before y"], []),
}


@pytest.mark.parametrize("by", EXPECTED)
def test_in_python_and_over_files(tmp_path, by):
    (found,) = match(rules_by(by), EVENTS)
    assert (found.key, found.emit["one"], found.emit["two"]) == ({"patient": "39", "null": None}[by], "x", "y")
    path = tmp_path / "events.jsonl"
    path.write_bytes(b"\n".join(map(orjson.dumps, EVENTS)))
    _, outputs = run_rules(rules_by(by), [path], lateness_us=0)
    assert seen(list(outputs)) == EXPECTED[by]


@pytest.mark.parametrize("by", EXPECTED)
def test_live_through_the_repartition_role(by):
    plan = make_plan(rules_by(by))
    (group,) = plan.groups
    domain = Domain(0, [DomainGroup(group.field, Engine(group.ruleset, validated=True), group.topics)],
                    topics=plan.topics, internal=plan.topics, copied_by=plan.copied_by, copies=plan.copies)  # fmt: skip
    outputs = []
    assert len(plan.repartitions) == 2
    for plan_of_copies in plan.repartitions:
        raws = [
            RawRecord(at, event["timestamp"] // 1000, event["key"].encode() if "key" in event else None,
                      orjson.dumps({"timestamp": event["timestamp"], "patient": event["patient"]}))
            for at, event in enumerate(each for each in EVENTS if each["stream"] == plan_of_copies.stream)
        ]  # fmt: skip
        copies, letters = Repartitioner(plan_of_copies, 1, lateness_us=0).step(0, raws)
        assert not letters
        made = [record for copy in copies for record in copy_records(plan_of_copies, copy, 1)]
        records = [RawRecord(at, 0, None, each.value, tuple(each.headers)) for at, each in enumerate(made)]
        outputs.append(domain.feed(plan_of_copies.topic, records))
    assert seen([*outputs, domain.flush()]) == EXPECTED[by]

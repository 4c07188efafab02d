"""Rule files that people wrote and that meant something else than they said: each is refused, or means what it says."""

from pathlib import Path

import orjson
import pytest
from typer.testing import CliRunner

from astrocyte import match
from astrocyte.agents.domain import Domain, DomainGroup
from astrocyte.agents.engine.engine import Engine
from astrocyte.pipeline.cli.app import app
from astrocyte.pipeline.topology.plan import make_plan
from astrocyte.pipeline.topology.rule_files import read_rule_files
from astrocyte.schemas.errors import InvalidRule
from astrocyte.schemas.json.reader import RawRecord

CASES = Path(__file__).parent / "real"
MATCHES = {
    "comment_in_a_block": [[0]],
    "micro_sign": [[0]],
    "lower_case_constants": [[0]],
    "hyphen_in_backquotes": [[0]],
    "steps_then_absence": [[0, 1, 2]],
}
REFUSED = {
    "condition_given_twice": "rule.yaml:7:9: 'where' is given twice, in line 6 and in line 7; keep one of them",
    "hyphen_in_a_name": "'http-status' may be one field or a subtraction; write `http-status` in backquotes",
    "empty_by": "rule 'any': by: is empty; name a field, or write null to match events of all keys together",
    "loop_then_absence": "step 'fail' can never be complete",
}


def records(name):
    return [orjson.loads(line) for line in (CASES / name / "log.jsonl").read_bytes().splitlines()]


def offsets(event):
    (place,) = event["lineage"].values()
    return [place["offset"], *(each["offset"] for each in place.get("also", ()))]


@pytest.mark.parametrize("name", MATCHES)
def test_match_prints_what_the_author_meant(name):
    done = CliRunner().invoke(app, ["match", str(CASES / name / "rule.yaml"), str(CASES / name / "log.jsonl")])
    assert done.exit_code == 0, done.output
    assert [offsets(orjson.loads(line)) for line in done.stdout.splitlines()] == MATCHES[name]


@pytest.mark.parametrize("name", MATCHES)
def test_a_worker_and_a_program_find_the_same(name):
    rules = read_rule_files([CASES / name / "rule.yaml"])
    (group,) = make_plan(rules).groups
    domain = Domain(
        0, [DomainGroup(group.field, Engine(group.ruleset, validated=True), group.topics)],
        topics=[record["topic"] for record in records(name)],
    )  # fmt: skip
    found = []
    for record in records(name):
        raw = RawRecord(record["offset"], record["ts"], record["key"].encode(), record["payload"].encode())
        found += domain.feed(record["topic"], [raw]).multi_events
    found += domain.flush().multi_events
    assert [offsets(orjson.loads(each.value)) for each in found] == MATCHES[name]

    events = [orjson.loads(record["payload"]) | {"stream": record["topic"].removeprefix("mono."), "key": "k"}
              for record in records(name)]  # fmt: skip
    assert len(list(match(rules, events))) == len(MATCHES[name])


@pytest.mark.parametrize("name", REFUSED)
def test_a_file_that_says_something_else_is_refused_in_one_line(name):
    with pytest.raises(InvalidRule) as caught:
        read_rule_files([CASES / name / "rule.yaml"])
    assert REFUSED[name] in str(caught.value)
    assert "\n" not in str(caught.value)

"""Odd names, values and files: the report is a screen of plain text, and the rule file is valid and matches."""

from __future__ import annotations

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from astrocyte.agents.rules.yaml import load_rules
from astrocyte.pipeline.analysis.inspect.run import Request, inspect, take_sample
from astrocyte.pipeline.analysis.inspect.starter import make_starter
from astrocyte.pipeline.analysis.offline import run_rules
from astrocyte.pipeline.cli.app import app
from astrocyte.pipeline.kafka.record import ConsumedRecord
from astrocyte.pipeline.settings import Settings
from tests.support.logs import write_log

START_S = 1_759_055_400


def run(*arguments: str):
    result = CliRunner().invoke(app, list(arguments))
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def readings(count: int = 30, **more: object) -> list[bytes]:
    return [orjson.dumps({"timestamp": START_S + n, "v": n, "user": f"u{n % 3}", **more}) for n in range(count)]


def log_of(folder, topics, values=None) -> str:
    records = [
        ConsumedRecord(topic, 0, n, START_S * 1000 + n, b"k%d" % (n % 2), value)
        for topic in topics
        for n, value in enumerate(values or readings())
    ]
    return str(write_log(folder / "events.jsonl", records, partitions=1))


def started(path: str):
    request = Request(path, Settings())
    sample = take_sample(request)
    found = inspect(request, sample)
    starter = make_starter(request, sample, found, path="x.yaml")
    run_, outputs = run_rules(load_rules(starter.text), [path], lateness_us=found.recommended_us)
    matches = sum(len(output.multi_events) for output in outputs)
    assert matches == sum(starter.matches.values()) > 0
    assert run_.counters.dead == 0
    return starter


@pytest.mark.parametrize(
    "topics", [["mono.S", "S"], ["a.b-c", "a.b_c"], ["x.high_v", "v"], ["a", "a_busy"], ["a", "a_per_1s", "b"]]
)
def test_streams_rules_and_windows_of_any_topics_have_names_of_their_own(tmp_path, topics):
    made = started(log_of(tmp_path, topics)).ruleset
    names = [each.name for part in (made.streams, made.windows, made.rules) for each in part]
    assert len(set(names)) == len(names)
    assert len(made.streams) == len(topics)


@settings(max_examples=12)
@given(
    st.lists(
        st.text("ab._-S", min_size=1, max_size=5).map("mono.".__add__) | st.text("ab._-S", min_size=1, max_size=5),
        min_size=1,
        max_size=4,
        unique=True,
    )
)
def test_a_starter_for_any_topics_is_valid_and_matches(tmp_path_factory, topics):
    topics = [topic for topic in topics if topic.strip(".") and topic != "mono."]
    if topics:
        started(log_of(tmp_path_factory.mktemp("topics"), topics))


@pytest.mark.parametrize("name", ["every_event", "high_v"])
def test_a_rule_is_not_called_as_the_stream_of_a_file(tmp_path, name):
    path = tmp_path / f"{name}.jsonl"
    path.write_bytes(b"\n".join(readings()))
    made = started(str(path)).ruleset
    assert name not in {rule.name for rule in made.rules}

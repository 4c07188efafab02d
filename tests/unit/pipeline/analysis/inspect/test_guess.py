"""A time under a name that says nothing of it is guessed by its values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson
import pytest
from typer.testing import CliRunner

from astrocyte.pipeline.analysis.inspect.run import Request, inspect, take_sample
from astrocyte.pipeline.cli.app import app
from astrocyte.pipeline.kafka.record import ConsumedRecord
from astrocyte.pipeline.settings import Settings
from tests.support.logs import write_log

START_S = 1_796_000_000
IN_UNIT = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}


def proposal_for(target: str):
    request = Request(target, Settings())
    (report,) = inspect(request, take_sample(request)).reports
    return report.proposal


def of_file(tmp_path, rows: Sequence[dict[str, Any]]):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b"\n".join(map(orjson.dumps, rows)))
    return proposal_for(str(path))


def of_topic(tmp_path, rows: Sequence[dict[str, Any]]):
    sent = [
        ConsumedRecord("plant", 0, number, (START_S + number) * 1000, b"k", orjson.dumps(row))
        for number, row in enumerate(rows)
    ]
    return proposal_for(str(write_log(tmp_path / "log.jsonl", sent, partitions=1)))


@pytest.mark.parametrize("name", ["Zeit", "zeitpunkt", "fecha", "heure", "дата", "时间", "datum", "stamp", "hora"])
@pytest.mark.parametrize("unit", list(IN_UNIT))
def test_a_time_of_a_file_under_any_name_is_proposed_and_called_a_guess(tmp_path, name, unit):
    rows = [{name: (START_S + n) * IN_UNIT[unit], "sensor": "ab"[n % 2], "v": n} for n in range(20)]
    found = of_file(tmp_path, rows)
    assert found.declaration["time"] == {"field": name, "unit": unit}
    assert found.time == f"{name}, {unit}, guessed by its values"
    assert found.hints == [f"{name} is taken as the time for its values, not for its name: make sure of it"]


@pytest.mark.parametrize("write", [lambda n: START_S + n / 8, lambda n: str(START_S + n)])
def test_fractions_and_numbers_as_text_are_times_too(tmp_path, write):
    found = of_file(tmp_path, [{"heure": write(n), "v": n} for n in range(20)])
    assert found.declaration["time"] == {"field": "heure", "unit": "s"}


@pytest.mark.parametrize(
    "row",
    [
        lambda n: {"customer_id": START_S + n},
        lambda n: {"serial": START_S + n},
        lambda n: {"offset": START_S + n},
        lambda n: {"bytes_sent": START_S + n},
        lambda n: {"x": 978_307_200},  # the bound itself
        lambda n: {"x": 4_102_444_800},
        lambda n: {"x": 1_000_000_000 + 150_000_000 * n},  # over the century, as ids are
        lambda n: {"x": START_S * (1, 1000)[n % 2]},  # two units
        lambda n: {"x": START_S},  # of all events the same
        lambda n: {"x": START_S + n} if n % 3 else {"v": n},
        lambda n: {"x": [START_S + n]},
        lambda n: {"x": n},
    ],
)
def test_ids_amounts_and_numbers_without_the_form_of_a_time_are_not_guessed(tmp_path, row):
    found = of_file(tmp_path, [row(n) for n in range(20)])
    assert "time" not in found.declaration
    assert found.problem.startswith("no member is a time that can be read")


def test_the_member_in_the_order_of_the_events_wins_and_the_others_are_named(tmp_path):
    rows = [{"x": START_S + 7 * n % 20, "heure": START_S + n} for n in range(20)]
    found = of_file(tmp_path, rows)
    assert found.declaration["time"] == {"field": "heure", "unit": "s"}
    assert "other times: x" in found.hints


def test_a_member_that_is_named_as_a_time_goes_first(tmp_path):
    found = of_file(tmp_path, [{"x": START_S + n, "created_at": START_S - n} for n in range(20)])
    assert found.declaration["time"] == {"field": "created_at", "unit": "s"}
    assert not found.is_guessed


def test_on_a_topic_the_time_stays_that_of_kafka_and_a_note_names_the_member(tmp_path):
    found = of_topic(tmp_path, [{"Zeit": (START_S + n) * 1000, "v": n} for n in range(20)])
    assert "time" not in found.declaration
    assert found.time == "the time of the Kafka message"
    (hint,) = found.hints
    assert hint == (
        "Zeit is near the time of Kafka, in ms, and may be the time of the event: declare "
        "time: {field: Zeit, unit: ms} if it is"
    )


def test_numbers_far_from_the_time_of_kafka_are_not_named(tmp_path):
    assert of_topic(tmp_path, [{"x": START_S + 40_000_000 + n, "v": n} for n in range(20)]).hints == []


def test_the_rule_file_says_that_the_time_is_a_guess_and_matches(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rows = [{"on": START_S + n, "sensor": "ab"[n % 2], "v": n} for n in range(20)]
    (tmp_path / "rows.jsonl").write_bytes(b"\n".join(map(orjson.dumps, rows)))
    assert CliRunner().invoke(app, ["inspect", "rows.jsonl", "--write", "rows.yaml"]).exit_code == 0
    assert 'time: {field: "on", unit: s}   # guessed by its values: make sure of it' in (
        (tmp_path / "rows.yaml").read_text()
    )
    assert CliRunner().invoke(app, ["match", "rows.yaml", "rows.jsonl"]).exit_code == 0

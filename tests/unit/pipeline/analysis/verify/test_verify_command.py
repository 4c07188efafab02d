"""The command ``verify``: its output, its exit statuses, and what it refuses."""

from __future__ import annotations

import json

import orjson
import pytest
import typer
from typer.testing import CliRunner

from astrocyte.pipeline.cli import verify as cli_verify
from astrocyte.pipeline.recording.reader import read_log
from astrocyte.schemas.topics import ALERTS
from tests.support.logs import write_log
from tests.support.pair_log import PAIR, in_frames, spikes, with_outputs

app = typer.Typer()
cli_verify.register(app)


@pytest.fixture
def log(tmp_path, pair):
    plain = write_log(tmp_path / "plain.jsonl.zst", in_frames(spikes()))
    (tmp_path / "pair.yaml").write_text(PAIR)
    return with_outputs(pair, plain, tmp_path / "log.jsonl.zst")


def run(log, *arguments):
    return CliRunner().invoke(app, [str(log), "--rules", str(log.parent / "pair.yaml"), *arguments])


def without_an_alert(log):
    records = list(read_log(log))
    gone = [each for each in records if each.topic == ALERTS][5]
    kept = write_log(log.parent / "less.jsonl.zst", [each for each in records if each != gone])
    return kept, orjson.loads(gone.value)["alert_id"]


def test_equal_is_exit_status_0_with_a_line_for_each_place(log):
    result = run(log)
    assert result.exit_code == 0
    assert "equal: lost = 0, twice = 0, wrong = 0, unexpected = 0, events missing = 0" in result.stdout
    assert any(line.split()[:4] == ["topic", "multi.events", "96", "96"] for line in result.stdout.splitlines())
    assert "events: 192 received = 192 processed, 0 missing" in result.stdout


def test_a_difference_is_exit_status_1_and_is_listed(log):
    less, identity = without_an_alert(log)
    result = run(less)
    assert result.exit_code == 1
    assert "topic alerts: 1 lost" in result.stdout
    assert identity in result.stdout
    assert identity not in run(less, "--show", "0").stdout


def test_all_differences_are_in_the_json_and_in_the_file(log, tmp_path):
    less, identity = without_an_alert(log)
    result = run(less, "--json", "-o", str(tmp_path / "differences.jsonl"))
    body = json.loads(result.stdout)
    assert (result.exit_code, body["equal"]) == (1, False)
    assert [each["identity"] for each in body["differences"]] == [identity]
    (line,) = (tmp_path / "differences.jsonl").read_text().splitlines()
    assert json.loads(line) == body["differences"][0]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--db", "sqlite:///absent.db"), "there is no database"),
        (("--influx-dir", "absent"), "there is no folder absent"),
        (("--place", "tables"), "expected topics, sql or influx"),
        (("--from", "2025-01-02T00:00:00Z", "--until", "2025-01-01T00:00:00Z"), "--from must be before --until"),
    ],
)
def test_what_cannot_be_checked_is_exit_status_2(log, arguments, said):
    result = run(log, *arguments)
    assert result.exit_code == 2
    assert said in " ".join(result.stderr.split())


def test_a_broker_that_is_away_is_exit_status_2():
    result = CliRunner().invoke(app, ["-b", "127.0.0.1:9"])
    assert result.exit_code == 2
    assert "no Kafka broker answers at 127.0.0.1:9" in " ".join(result.stderr.split())


def test_a_password_is_not_shown(log, monkeypatch):
    monkeypatch.setenv("ASTROCYTE_SQL_URL", "postgresql://me:very-secret@127.0.0.1:9/db")
    result = run(log, "--place", "sql")
    assert result.exit_code == 2
    assert "very-secret" not in result.stdout + result.stderr

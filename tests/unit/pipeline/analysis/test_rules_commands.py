"""The commands that run, score and explain rules over recorded logs."""

from __future__ import annotations

import gc
import json

import pytest

from astrocyte.agents.accounting import DomainOutput
from astrocyte.pipeline.analysis.offline import OfflineRun
from astrocyte.pipeline.recording.reader import read_log
from astrocyte.schemas.errors import InvalidRule, InvalidSettings
from tests.support.logs import write_log
from tests.support.pair_log import (
    PAIR,
    STRICT,
    matches,
    run,
    truth,
)


@pytest.fixture
def rule_file(tmp_path):
    path = tmp_path / "pair.yaml"
    path.write_text(PAIR)
    return str(path)


def test_the_command_match_prints_multi_events_as_json_lines(rule_file, pair, log):
    result = run("match", rule_file, str(log))
    assert [json.loads(line) for line in result.stdout.splitlines()] == matches(pair, log)
    assert "96 multi events of 192 events (0 late, 0 refused)" in result.stderr
    alerts = run("match", rule_file, str(log), "--alerts").stdout.splitlines()
    assert json.loads(alerts[0])["message"] == "0.0 and 0.0"


def test_the_command_backtest_prints_counts_and_the_difference(rule_file, log, tmp_path):
    strict = tmp_path / "strict.yaml"
    strict.write_text(STRICT)
    body = json.loads(run("backtest", rule_file, str(log), "--against", str(strict), "--json").stdout)
    assert body["a"]["rules"]["pair"]["matches"] == 96
    assert body["difference"]["pair"]["only_a"] == 11
    assert len(body["difference"]["pair"]["examples_a"]) == 3
    text = run("backtest", rule_file, str(log), "--against", str(strict)).stdout
    assert "pair: both 85, only A 11, only B 0" in text


def test_the_command_score_prints_figures(rule_file, log, tmp_path):
    planted = truth("pair", [("d0", 0, 10_000, [["axon_1", 0], ["axon_2", 0]])])
    path = str(write_log(tmp_path / "a.jsonl", [*read_log(log), planted]))
    body = json.loads(run("score", rule_file, path, "--json").stdout)
    assert body["rules"][0]["recall"] == 1
    assert "pair" in run("score", rule_file, path).stdout


def test_score_without_logs_says_what_to_give(rule_file, log):
    with pytest.raises(InvalidSettings, match="astrocyte score axons --seeds 5"):
        run("score", "axons")
    with pytest.raises(InvalidSettings, match="either --seeds or recorded logs"):
        run("score", rule_file, str(log), "--seeds", "2")


def test_score_over_seeds_has_a_row_for_each_alert_and_says_what_it_did_not_score():
    arguments = ("score", "axons", "--seeds", "2", "--seconds", "5", "--size", "64", "--slack", "1s")
    body = json.loads(run(*arguments, "--json").stdout)
    (row,) = body["rules"]
    assert (body["seeds"], row["rule"], row["kinds"]) == (2, "strong_A_and_B_within_2s", ["coincidence"])
    assert row["planted"] > 0
    assert (row["recall"], row["precision"], row["false_alarms_per_hour"]) == (1.0, 1.0, 0.0)
    assert "rule 'axon_3_burst' raises no alert" in body["unscored"]


def test_score_under_controllers_prints_rows_of_a_table_and_the_kinds_that_had_no_room():
    arguments = ("score", "dna", "--seeds", "1", "--seconds", "12", "--size", "24", "--controllers", "--markdown")
    rows = run(*arguments).stdout.splitlines()
    assert rows[0].startswith("| dna, size 24, controllers | mutation_never_scored | - | - | - | ")
    assert any(row.startswith("| dna, size 24, controllers | karma_breakthrough | 0 of 1 | - | - | ") for row in rows)
    assert sum(row == "not scored: rule 'mutation_improved' raises no alert" for row in rows) == 1
    assert "not scored: anomalies of kind 'stagnation': 12 s have no room for one" in rows
    assert "not scored: rule 'evolution_stalls': no anomaly of kind outage, stagnation was planted" in rows


def test_the_command_rules_check_prints_the_plan(rule_file):
    assert "mono.axon_1" in run("rules", "check", rule_file).stdout
    body = json.loads(run("rules", "check", rule_file, "--json").stdout)
    assert body["topics"] == ["mono.axon_1", "mono.axon_2"]
    with pytest.raises(InvalidRule, match="no rule file 'nope'"):
        run("rules", "check", "nope")


def test_a_bad_rule_file_is_refused_with_its_place(log, tmp_path):
    path = tmp_path / "bad.yaml"
    path.write_text(PAIR.replace("within", "withn"))
    with pytest.raises(InvalidRule, match=r"bad\.yaml:.*withn"):
        run("match", str(path), str(log))


SEQUENCE = """
rules:
  - name: rise
    by: key
    within: 2s
    seq:
      - {as: a, stream: axon_1, where: "type == 'A'"}
      - {as: b, stream: axon_2, where: "type == 'B' and value > 100"}
"""


def test_why_not_shows_what_each_attempt_waited_for_and_the_offsets_of_its_events(log, tmp_path):
    rules = tmp_path / "rise.yaml"
    rules.write_text(SEQUENCE)
    arguments = ["why-not", str(log), "--rules", str(rules), "--rule", "rise", "--key", "d3"]
    report = json.loads(run(*arguments, "--json").stdout)
    assert (report["events"], report["matches"], len(report["attempts"])) == (24, 0, 12)
    (step,) = [step for step in report["steps"] if step["step"] == "b"]
    assert step["failed"] == {"value > 100": 12}
    first = report["attempts"][0]
    assert first["waited_for"] == ["b"]
    assert first["ended"] == "window"
    assert first["taken"][0]["topic"] == "mono.axon_1"
    one = json.loads(run(*arguments, "--at", "4s", "--json").stdout)
    assert [attempt["began"] for attempt in one["attempts"]] == ["2023-11-14T22:13:23.000003Z"]
    text = run(*arguments).stdout
    assert "12 failed value > 100" in text
    assert "within of 2s expired at 2023-11-14T22:13:22.000003Z" in text


def test_why_not_of_an_all_marks_what_matched(rule_file, log):
    arguments = ["why-not", str(log), "--rules", rule_file, "--rule", "pair", "--key", "d3", "--json"]
    report = json.loads(run(*arguments, "--at", "3s").stdout)
    assert (report["events"], report["matches"]) == (2, 1)
    assert {attempt["ended"] for attempt in report["attempts"]} == {"matched"}
    assert all(attempt["taken"][0]["timestamp"] == attempt["began"] for attempt in report["attempts"])


def test_why_not_keeps_no_outputs_of_the_run(rule_file, log, monkeypatch):
    alive: list[int] = []
    run_all = OfflineRun.run

    def watched(self, records):
        for output in run_all(self, records):
            yield output
            del output
            alive.append(sum(type(each) is DomainOutput for each in gc.get_objects()))

    monkeypatch.setattr(OfflineRun, "run", watched)
    run("why-not", str(log), "--rules", rule_file, "--rule", "pair", "--key", "d3")
    assert len(alive) > 3
    assert len(set(alive)) == 1


def test_why_not_needs_a_rule_and_a_key_that_exist(rule_file, log):
    with pytest.raises(InvalidSettings, match="no rule 'x'; the files have pair"):
        run("why-not", str(log), "--rules", rule_file, "--rule", "x", "--key", "d1")
    with pytest.raises(InvalidSettings, match=r"--key is needed: rule 'pair' correlates by 'key'; keys in the log: d"):
        run("why-not", str(log), "--rules", rule_file, "--rule", "pair")
    with pytest.raises(InvalidSettings, match="key 'nope' has no events"):
        run("why-not", str(log), "--rules", rule_file, "--rule", "pair", "--key", "nope")


def test_rules_explain_draws_the_state_machine(rule_file):
    assert "flowchart" in run("rules", "explain", rule_file).stdout
    with pytest.raises(InvalidSettings, match="no rule 'x'"):
        run("rules", "explain", rule_file, "--rule", "x")


def test_a_stream_that_is_nearly_a_declared_one_is_pointed_out(tmp_path):
    path = tmp_path / "rules.yaml"
    path.write_text(
        "streams: [{name: orders}, {name: payments}]\n"
        "rules: [{name: r, within: 1m, all: [{as: a, stream: orders}, {as: b, stream: paymets}, {as: c, stream: gps}]}]"
    )
    result = run("rules", "check", str(path))
    assert result.exit_code == 0
    assert result.stderr.splitlines() == [
        "stream 'paymets' is not declared and is read from mono.paymets; did you mean 'payments'?"
    ]


def test_a_validator_of_a_stream_that_nobody_reads_is_pointed_out(tmp_path):
    path = tmp_path / "rules.yaml"
    path.write_text(
        "streams: [{name: scans}]\n"
        "rules: [{name: r, seq: [{as: a, stream: scans}]}]\n"
        "validators: [{stream: scanz, where: 'battery > 50'}, {stream: scans, where: 'battery > 50'}]"
    )
    result = run("rules", "check", str(path))
    assert result.exit_code == 0
    assert result.stderr.splitlines() == [
        "a validator of stream 'scanz' checks nothing: it is not declared, and no rule reads it; did you mean 'scans'?"
    ]

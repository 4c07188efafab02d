"""Back-tests, verification and scores of rules over recorded logs."""

from __future__ import annotations

import pytest

from astrocyte.agents.loading import load_rules
from astrocyte.pipeline.analysis.backtest import Made, backtest, compare
from astrocyte.pipeline.analysis.score import Planted, planted_in, score, score_matches
from astrocyte.pipeline.analysis.trials import behind_alerts
from astrocyte.pipeline.recording.format import InvalidLog
from astrocyte.pipeline.recording.reader import read_log
from tests.support.logs import T0_US, write_log
from tests.support.pair_log import (
    LATENESS,
    PAIR,
    STRICT,
    run,
    truth,
)


def test_a_backtest_counts_by_rule(pair, log):
    done = backtest(pair, [log], lateness_us=LATENESS)
    count = done.rules["pair"]
    assert (count.matches, count.alerts, len(count.keys)) == (96, 96, 8)
    assert count.first_us == T0_US + 10_000
    assert (done.counters.received, done.counters.late, done.counters.dead) == (192, 0, 0)


def test_a_rule_that_never_fires_is_listed(log):
    never = load_rules(PAIR.replace("'A'", "'Z'"))
    assert backtest(never, [log], lateness_us=LATENESS).rules["pair"].matches == 0


def test_two_versions_of_a_rule_are_compared_by_the_events_they_took(pair, log):
    a = backtest(pair, [log], lateness_us=LATENESS).made
    b = backtest(load_rules(STRICT), [log], lateness_us=LATENESS).made
    (difference,) = compare(a, b)
    assert difference.rule == "pair"
    assert difference.both == len(b) == 96 - 11
    assert len(difference.only_a) == 11
    assert difference.only_b == ()


def test_matches_that_repeat_are_counted_as_often():
    once = Made("1", "r", 0, None, ("x", "y"))
    (difference,) = compare([once, once._replace(event_id="2")], [once._replace(sources=("y", "x"))])
    assert (difference.both, len(difference.only_a), len(difference.only_b)) == (1, 1, 0)


def test_rules_are_scored_against_planted_anomalies(pair, log, tmp_path):
    planted = truth(
        "pair",
        [
            ("d0", 0, 10_000, [["axon_1", 0], ["axon_2", 0]]),
            ("d3", 3, 10_003, [["axon_2", 3], ["axon_1", 3]]),
            ("d9", 5, 10_005, [["axon_1", 900], ["axon_2", 901]]),
        ],
    )
    path = write_log(tmp_path / "a.jsonl", [*read_log(log), planted])
    assert [each.key for each in planted_in(path)] == ["d0", "d3", "d9"]
    (result,) = score(pair, [path], lateness_us=LATENESS, slack_us=0)
    assert (result.planted, result.found, result.matches, result.true_matches, result.exact) == (3, 2, 96, 2, 2)
    assert result.recall == pytest.approx(2 / 3)
    assert result.precision == pytest.approx(2 / 96)
    assert result.delays_us == [0, 0]
    assert [missed.key for missed in result.missed] == ["d9"]
    assert result.as_json(1)["missed"][0]["key"] == "d9"


def test_anomalies_whose_rule_is_not_in_the_files_are_reported_as_not_scored(pair, log, tmp_path):
    planted = truth("pair", [("d0", 0, 10_000, [["axon_1", 0], ["axon_2", 0]])])
    other = truth("lost", [("d1", 0, 5, []), ("d2", 3, 9, [])])._replace(offset=1)
    path = write_log(tmp_path / "a.jsonl", [*read_log(log), planted, other])
    first, absent = score(pair, [path], lateness_us=LATENESS, slack_us=0)
    assert (first.rule, first.absent, absent.rule, absent.absent, absent.planted) == ("pair", False, "lost", True, 2)
    rules = tmp_path / "rules.yaml"
    rules.write_text(PAIR)
    shown = run("score", str(rules), str(path))
    assert "not scored: 2 anomalies of kind coincidence; rule 'lost' is not in the rule files" in shown.stdout


def test_a_rule_is_scored_by_its_alerts_and_one_without_by_its_matches(log, tmp_path):
    paced = load_rules(PAIR.replace("alert:", "cool_down: 1h\n    alert:"))
    planted = truth("pair", [("d0", 0, 10_000, [["axon_1", 0], ["axon_2", 0]])])
    path = write_log(tmp_path / "a.jsonl", [*read_log(log), planted])
    count = backtest(paced, [path], lateness_us=LATENESS).rules["pair"]
    assert (count.matches, count.alerts, count.suppressed, count.grouped) == (96, 8, 88, 0)
    (result,) = score(paced, [path], lateness_us=LATENESS, slack_us=0)
    assert (result.matches, result.true_matches, result.exact) == (8, 1, 1)


def test_a_planted_interval_is_found_by_a_match_inside_it_or_soon_after():
    planted = [Planted("collapse", "r", "run", 100, 200), Planted("collapse", "r", "run", 1000, 1100)]

    def at(time_us: int, key: str = "run") -> Made:
        return Made(str(time_us), "r", time_us, key, ("x",))

    result = score_matches("r", planted, [at(99), at(150), at(220), at(2000)], slack_us=50)
    assert (result.found, result.true_matches, result.matches) == (1, 2, 4)
    assert result.delays_us == [50]
    assert score_matches("r", planted, [at(150, "other"), at(1050)], slack_us=0).found == 1
    nothing = score_matches("r", [], [], slack_us=0)
    assert (nothing.precision, nothing.recall) == (None, None)
    assert nothing.as_json()["delay_s"] is None


def test_a_match_after_two_anomalies_belongs_to_the_newer_one():
    planted = [Planted("collapse", "r", "run", 100, 110), Planted("collapse", "r", "run", 150, 160)]
    matches = [Made(str(time_us), "r", time_us, "run", ("x",)) for time_us in (120, 170)]
    assert score_matches("r", planted, matches, slack_us=1000).found == 2


def test_a_match_that_may_follow_an_anomaly_is_right_and_none_has_to_come():
    needed = Planted("famine", "r", "run", 100, 110)
    possible = Planted("depletion", "r", "run", 150, 160, required=False)

    def scored(*times: int) -> tuple[int, int, float | None, float | None]:
        made = [Made(str(time_us), "r", time_us, "run", ("x",)) for time_us in times]
        result = score_matches("r", [needed, possible], made, slack_us=200)
        return (result.planted, result.found, result.recall, result.precision)

    assert scored(120, 170) == (1, 1, 1.0, 1.0)
    assert scored(120) == (1, 1, 1.0, 1.0)
    # A match after both is that of the one that should be found.
    assert scored(170) == (1, 1, 1.0, 1.0)
    assert scored(340, 900) == (1, 0, 0.0, 0.5)
    alone = score_matches("r", [possible], [], slack_us=0)
    assert (alone.planted, alone.recall, alone.precision, alone.missed) == (0, None, None, [])


def test_a_match_of_half_the_planted_events_counts_and_is_not_exact():
    planted = [Planted("coincidence", "r", "k", 0, 100, frozenset({"a", "b"}))]
    result = score_matches("r", planted, [Made("1", "r", 90, "k", ("a", "chance"))], slack_us=0)
    assert (result.found, result.true_matches, result.exact) == (1, 1, 0)
    three = [Planted("triple", "r", "k", 0, 100, frozenset({"a", "b", "c"}))]
    assert score_matches("r", three, [Made("1", "r", 90, "k", ("a", "chance"))], slack_us=0).found == 0


def test_a_log_without_truth_cannot_be_scored(pair, log):
    with pytest.raises(InvalidLog, match=r"no planted events \(topic mono\.truth\)"):
        score(pair, [log], lateness_us=LATENESS, slack_us=0)


def test_what_no_alert_reads_is_left_out_of_trials() -> None:
    ruleset = load_rules("""
windows:
  - {name: second, from: readings, every: 1s, select: {high: "max(value)"}}
  - {name: minute, from: second, every: 1m, select: {high: "max(high)"}}
  - {name: unread, from: readings, every: 1s, select: {low: "min(value)"}}
insight:
  - {statistic: forecast, size: 10s, horizons: [1s], stream: second, targets: [{field: high}]}
  - {statistic: price, size: 10s}
rules:
  - {name: quiet, any: [{as: a, stream: unread}]}
  - {name: high, any: [{as: a, stream: minute}]}
  - {name: warned, by: key, any: [{as: a, stream: forecast}], alert: {severity: info, message: "x"}}
  - {name: loud, any: [{as: a, stream: high}], alert: {severity: info, message: "x"}}
""")
    kept = behind_alerts(ruleset)
    assert [rule.name for rule in kept.rules] == ["high", "warned", "loud"]
    assert [window.name for window in kept.windows] == ["second", "minute"]
    assert [spec.name for spec in kept.insight] == ["forecast"]

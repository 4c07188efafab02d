"""`RuleTester`: rules in virtual time."""

import pytest

from astrocyte import load_rules
from astrocyte.testing import RuleTester

FEVER = """
validators: [{stream: temperature, where: "value < 60", reason: no such temperature}]
windows: [{name: mean, from: temperature, every: 10s, select: {mean: "mean(value)"}}]
rules:
  - name: fever
    within: 10s
    seq:
      - {as: rise, stream: temperature, where: "value > 38"}
      - {as: peak, stream: temperature, where: "value > rise.value + 1"}
    emit: {rise: "peak.value - rise.value"}
    alert: {severity: warning, message: "to {peak.value}"}
  - name: silence
    within: 5s
    seq: [{as: last, stream: temperature, where: "value > 40"}, {not: {stream: temperature}}]
"""


def test_a_match_comes_once_time_has_passed_it():
    tester = RuleTester(load_rules(FEVER))
    tester.send("temperature", at="1s", key="ward 3", value=38.5)
    tester.send("temperature", at="4s", key="ward 3", value=40.0)
    tester.expect()
    tester.advance("1s")
    (found,) = tester.expect({"rule": "fever", "key": "ward 3", "emit": {"rise": 1.5}, "message": "to 40.0"})
    assert found.events["rise"][0].fields["value"] == 38.5
    tester.expect()


def test_advancing_time_decides_absences_and_closes_windows():
    tester = RuleTester(load_rules(FEVER))
    tester.send("temperature", value=41.0)
    tester.advance("6s")
    tester.expect("silence")
    assert tester.results("mean") == []
    tester.advance("4s")
    assert [row["mean"] for row in tester.results("mean")] == [41.0]


def test_late_and_refused_events_are_returned_once():
    tester = RuleTester(load_rules(FEVER), lateness="2s")
    tester.send("temperature", at="10s", value=37.0)
    tester.send("temperature", at="8s", value=36.0)
    tester.send("temperature", at="7s", value=35.0)
    tester.send("temperature", at="11s", value=90.0)
    assert [event["value"] for event in tester.late()] == [35.0]
    assert [(event.fields["value"], event.reason) for event in tester.refused()] == [(90.0, "no such temperature")]
    assert tester.late() == tester.refused() == []


def test_eventual_matches_come_with_the_event_and_are_confirmed():
    tester = RuleTester(load_rules(FEVER[FEVER.index("rules:") :]), consistency="eventual")
    tester.send("temperature", at="1s", value=38.5)
    tester.send("temperature", at="2s", value=40.0)
    tester.expect({"rule": "fever", "status": "provisional"})
    tester.finish()
    tester.expect({"rule": "fever", "status": "confirmed"})


def test_differences_are_shown():
    tester = RuleTester(load_rules(FEVER))
    tester.send("temperature", at="1s", value=38.5)
    tester.send("temperature", at="2s", value=40.0)
    tester.finish()
    with pytest.raises(AssertionError, match=r"fever key=key emit={'rise': 1.5} warning: to 40.0"):
        tester.expect({"rule": "fever", "emit": {"rise": 2}})
    tester.send("temperature", at="1s", value=38.5)
    tester.send("temperature", at="2s", value=40.0)
    tester.finish()
    with pytest.raises(AssertionError, match="cannot compare 'rules'; it compares rule, key"):
        tester.expect({"rules": "fever"})

"""Explanations: the state machine as Mermaid, and why a rule did not fire."""

from __future__ import annotations

import re

from astrocyte.agents.cep.explain.mermaid import mermaid
from astrocyte.agents.cep.explain.why_not import why_not
from astrocyte.agents.rules.model import Group, Rule, Step


def step(name, letter, condition="", **options):
    return Step(name=name, stream="s", where=f"type == '{letter}'{condition}", **options)


def events(text, *, every_us=1_000_000, values=()):
    values = [*values, *[0] * (len(text) - len(values))]
    return [
        {"stream": "s", "timestamp": index * every_us, "type": letter, "value": value}
        for index, (letter, value) in enumerate(zip(text, values, strict=True))
    ]


def the_attempt(rule, given, **options):
    (attempt,) = why_not(rule, given, **options).attempts
    return attempt


def test_attempt_that_ran_out_of_time_names_the_bound_and_what_it_waited_for():
    rule = Rule(name="r", within="3s", seq=[step("a", "A"), step("b", "B", " and value > a.value")])
    attempt = the_attempt(rule, events("ABXXX", values=[5, 4]))
    assert (attempt.ended, attempt.ended_us, attempt.waited_for) == ("window", 3_000_000, ("b",))
    assert attempt.taken == (("a", 0),)
    assert "within of 3s expired" in attempt.reason
    assert "value > a.value (value = 4, a.value = 5)" in attempt.reason or "type == 'B'" in attempt.reason


def test_attempt_that_a_forbidden_event_ended_names_it():
    rule = Rule(name="r", within="9s", seq=[step("a", "A"), step("n", "N", negated=True), step("b", "B")])
    attempt = the_attempt(rule, events("ANB"))
    assert (attempt.ended, attempt.ended_us) == ("negated", 1_000_000)
    assert "event 1" in attempt.reason
    assert "forbidden n" in attempt.reason


def test_attempt_that_strict_contiguity_ended_names_the_failed_part():
    rule = Rule(name="r", within="9s", seq=[step("a", "A"), step("b", "B", " and value > 3", contiguity="next")])
    attempt = the_attempt(rule, events("AB", values=[0, 2]))
    assert attempt.ended == "contiguity"
    assert "value > 3 (value = 2)" in attempt.reason


def test_bound_between_two_events_is_named():
    rule = Rule(name="r", within="9s", seq=[step("a", "A"), step("b", "B", within_prev="2s")])
    attempt = the_attempt(rule, events("AXXB"))
    assert (attempt.ended, attempt.ended_us) == ("wait", 2_000_000)


def test_attempt_that_is_still_open_names_what_it_waits_for():
    rule = Rule(name="r", seq=[step("a", "A"), step("b", "B"), step("c", "C")])
    attempt = the_attempt(rule, events("AB"))
    assert (attempt.ended, attempt.ended_us, attempt.waited_for) == ("open", None, ("c",))
    assert attempt.taken == (("a", 0), ("b", 1))


def test_only_attempts_open_at_the_given_time_are_reported():
    rule = Rule(name="r", within="2s", seq=[step("a", "A"), step("b", "B")])
    given = events("AXXXA")
    assert len(why_not(rule, given).attempts) == 2
    assert the_attempt(rule, given, at_us=1_000_000).began_us == 0
    assert the_attempt(rule, given, at_us=4_500_000).began_us == 4_000_000


def test_steps_report_how_often_each_part_of_their_condition_failed():
    rule = Rule(name="r", within="2s", seq=[step("a", "A", " and value > 3")])
    report = why_not(rule, events("AABX", values=[1, 2, 9, 0]))
    (reported,) = report.steps
    assert (reported.seen, reported.fitted, reported.failed) == (4, 0, {"type == 'A'": 2, "value > 3": 3})
    assert "value = 1" in reported.nearest
    assert "no partial match" in report.lines()[-1]


def test_a_match_is_reported_too():
    rule = Rule(name="r", within="9s", seq=[step("a", "A"), step("n", "N", negated=True)])
    report = why_not(rule, [*events("AX"), {"stream": "s", "timestamp": 20_000_000, "type": "X"}])
    assert report.matches == 1
    assert report.attempts[0].reason.startswith("matched")


def test_conjunction_reports_which_step_was_missing():
    rule = Rule(name="r", within="2s", all=[step("a", "A"), step("b", "B")])
    report = why_not(rule, events("AXXB"))
    assert [attempt.waited_for for attempt in report.attempts] == [("b",), ("a",)]
    assert "no event fits b" in report.attempts[0].reason


def test_mermaid_shows_every_state_step_and_condition():
    rule = Rule(
        name="r",
        within="9s",
        seq=[
            step("a", "A"),
            step("no", "N", negated=True),
            Group(any=[step("b", "B", ' and name == "x<y"'), step("c", "C")]),
            step("end", "E", negated=True),
        ],
    )
    text = mermaid(rule)
    assert text.startswith("%% rule r, version ")
    states = set(re.findall(r"^    (s\d+)[\[({]", text, re.MULTILINE))
    arrows = re.findall(r"(s\d+) -[-.] \"(.*)\" [-.]-> (s\d+)", text)
    assert {end for arrow in arrows for end in (arrow[0], arrow[2])} <= states
    assert any(label.startswith("b: ") for _, label, _ in arrows)
    assert "forbidden no: stop" in text
    assert "9s since the first event" in text
    assert "x#lt;y" in text


def test_mermaid_of_a_conjunction_names_pairing_and_window():
    text = mermaid(Rule(name="r", within="2s", pairing="each", all=[step("a", "A"), step("b", "B", negated=True)]))
    assert "pairing: each" in text
    assert "less than 2s apart" in text
    assert "none of" in text


def test_a_step_says_which_part_of_its_condition_only_the_attempts_can_judge():
    low = Step(name="b", stream="s", where="value > 3 and value < 0.5 * a.value")
    rule = Rule(name="r", within="9s", seq=[step("a", "A"), low])
    first, second = why_not(rule, events("AB", values=[5, 4])).steps
    assert (second.seen, second.fitted, second.unjudged) == (2, 2, ("value < (0.5 * a.value)",))
    assert second.line() == (
        "step b: 2 of 2 events fit by themselves; the attempts show whether they also fit the events before them: "
        "value < (0.5 * a.value)"
    )
    assert first.line() == "step a: 1 of 2 events fit"

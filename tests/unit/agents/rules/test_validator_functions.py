"""Validators in Python: what they may return, what an exception does, and how rule files name them."""

import itertools
import re
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from astrocyte import Frame, RuleSet, Validator, load_rules, match
from astrocyte.agents.ingest.validate import Validators
from astrocyte.agents.rules import validator_functions, validators
from astrocyte.agents.rules.validator_functions import ValidatorFunction, register_validator
from astrocyte.schemas.errors import InvalidEvent, InvalidRule, InvalidSettings
from astrocyte.schemas.registry import Registry
from astrocyte.testing import check_validator


@register_validator("test_capped", per="frame")
def capped(frame: Frame, most: float = 10.0) -> Any:
    values = frame.column("value").to_numpy(zero_copy_only=False)
    refused = {int(row): "far too much" for row in np.flatnonzero(values > 10 * most)}
    return frame.with_column("value", pa.array(np.minimum(values, most))), refused


def judged(event: dict[str, Any]) -> Any:
    match event["value"]:
        case 0.0:
            return None
        case 1.0:
            return "one is refused"
        case 2.0:
            return {"value": 20.0, "word": "two"}
        case 3.0:
            raise InvalidEvent("three is not an event")
        case 4.0:
            return {"key": "other"}
        case _:
            return event["missing"]


def apply(validator: Validator, *values: float) -> Any:
    rows = len(values)
    columns = {"timestamp": np.arange(rows), "key": ["k"] * rows, "value": np.array(values)}
    return Validators([validator]).apply(Frame.from_columns("s", "run", columns))


def test_an_event_is_accepted_refused_or_changed_and_an_exception_refuses_it():
    passed = apply(Validator(stream="s", use=judged), 0.0, 1.0, 2.0, 3.0, 4.0, 5.0)
    assert passed.rows.tolist() == [0, 2]
    assert [(row["value"], row["word"]) for row in passed.frame.rows()] == [(0.0, None), (20.0, "two")]
    assert passed.refused == [
        (1, "one is refused"),
        (3, "three is not an event"),
        (4, "validator 'judged' failed: ValueError: it set 'key', which validators cannot change; set another field"),
        (5, "validator 'judged' failed: KeyError: 'missing'"),
    ]


def test_a_whole_frame_is_changed_and_its_rows_refused():
    validator = Validator(stream="s", use="test_capped", options={"most": 3.0})
    passed = apply(validator, 1.0, 5.0, 31.0, 2.0)
    assert passed.frame.column("value").to_pylist() == [1.0, 3.0, 2.0]
    assert passed.refused == [(2, "far too much")]


def test_a_frame_function_that_moves_rows_refuses_them_all():
    @register_validator("test_reversed", per="frame")
    def backwards(frame: Frame) -> Any:
        return frame.take(np.arange(frame.num_rows)[::-1]), {}

    passed = apply(Validator(stream="s", use="test_reversed"), 1.0, 2.0)
    assert [row for row, _ in passed.refused] == [0, 1]
    assert "expected the same rows in the same order" in passed.refused[0][1]


def test_use_works_between_where_and_set():
    rules = load_rules(
        """
        validators: [{stream: s, where: "value < 100", use: test_capped, with: {most: 2}, set: {twice: "2 * value"}}]
        rules: [{name: any, seq: [{as: a, stream: s}], emit: {twice: "a.twice"}}]
        """
    )
    found = match(
        rules,
        [{"stream": "s", "timestamp": time, "key": "k", "value": value} for time, value in ((1, 5.0), (2, 500.0))],
    )
    assert [each.emit["twice"] for each in found] == [4.0]
    assert [event.reason for event in found.refused] == ["value < 100 does not hold (value is 500.0)"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{stream: s, use: test_caped}", "2:.*use: there is no validator 'test_caped'.*did you mean 'test_capped'"),
        ("{stream: s, use: test_capped, with: {least: 1}}", "with: got an unexpected keyword argument 'least'"),
        ("{stream: s, with: {most: 1}}", "with applies to use, which is missing"),
    ],
)
def test_a_wrong_use_is_refused_with_its_place(text, message):
    with pytest.raises(InvalidRule, match=message):
        load_rules(f"validators:\n  - {text}\n")


def test_rule_sets_with_functions_can_be_dumped_for_a_fingerprint():
    text = RuleSet(validators=(Validator(stream="s", use=judged),)).model_dump_json()
    assert "judged" in text


def test_a_function_may_be_called_per_event_or_per_frame_only():
    with pytest.raises(InvalidSettings, match="expected per to be event or frame, got 'row'"):
        register_validator("test_nothing", judged, per="row")


def test_check_validator_returns_the_reasons_and_detects_state_between_calls():
    events = [{"value": 0.0}, {"value": 1.0}]
    assert check_validator(Validator(stream="s", use=judged), events) == [None, "one is refused"]
    seen: list[Any] = []

    def forgetful(event: dict[str, Any]) -> Any:
        seen.append(event)
        return "again" if len(seen) > 2 else None

    with pytest.raises(AssertionError, match="keep no state"):
        check_validator(Validator(stream="s", use=forgetful), events)
    numbers = itertools.count()
    with pytest.raises(AssertionError, match="expected the same result"):
        check_validator(lambda event: "odd" if next(numbers) % 2 else None, events)


@pytest.mark.parametrize("bad", [object(), 2**70, "\ud800", [1, "a"]])
def test_a_value_that_no_event_can_have_refuses_its_event_alone(bad):
    function = ValidatorFunction(lambda event: {"value": bad if event["value"] == 2 else event["value"] + 1})
    frame = Frame.from_columns(
        "A", "", {"timestamp": [1, 2, 3], "key": ["k"] * 3, "type": ["t"] * 3, "value": [1, 2, 3]}
    )
    changed, refused = function.apply(frame, {})
    assert list(refused) == [1]
    assert "it set 'value' to" in refused[1]
    assert [changed.column("value").to_pylist()[row] for row in (0, 2)] == [2, 4]


def test_a_value_of_another_type_leaves_the_other_events_as_they_are():
    for value in ("text", 0.5, True, None):
        function = ValidatorFunction(lambda event, set_to=value: {"value": set_to} if event["value"] == 2 else None)
        frame = Frame.from_columns("A", "", {"timestamp": [1, 2, 3], "key": ["k"] * 3, "value": [1, 2, 3]})
        changed, refused = function.apply(frame, {})
        assert [repr(found) for found in changed.values("value")] == ["1", repr(value), "3"]
        assert not refused
        _, refused = function.apply(frame, {}, {"value": pa.int64()})
        assert list(refused) == ([] if value is None else [1])


@pytest.mark.parametrize("rows", [{10: "x"}, {-1: "x"}, {True: "x"}, {"a": "x"}])
def test_a_frame_validator_that_refuses_rows_that_are_not_there_refuses_all(rows):
    function = ValidatorFunction(lambda frame: (frame, rows), per="frame")
    frame = Frame.from_columns("A", "", {"timestamp": [1, 2], "key": ["k"] * 2, "type": ["t"] * 2, "value": [1, 2]})
    _, refused = function.apply(frame, {})
    assert sorted(refused) == [0, 1]


def test_a_frame_validator_keeps_the_stream_and_the_numbers_of_rows():
    frame = Frame.from_columns("A", "", {"timestamp": [1], "key": ["k"], "type": ["t"], "value": [1]})
    for changed in (replace(frame, stream="B"), replace(frame, first_seq=5), replace(frame, weight=2.0)):
        _, refused = ValidatorFunction(lambda _, made=changed: (made, {}), per="frame").apply(frame, {})
        assert list(refused) == [0]


@pytest.mark.parametrize("name", [1, None, b"x", "\ud800"], ids=repr)
def test_a_field_name_that_is_no_text_refuses_this_event_alone(name: Any) -> None:
    validator = Validator(stream="s", use=lambda event: {name: 2} if event["value"] == 2 else None)
    rules = load_rules("rules: [{name: r, seq: [{as: a, stream: s}], emit: {v: a.value}}]").rules
    ruleset = RuleSet(rules=rules, validators=[validator])
    events = [{"stream": "s", "timestamp": 10**15 + n, "key": "k", "value": n} for n in range(4)]
    found = match(ruleset, events)
    assert [each.emit["v"] for each in found] == [0, 1, 3]
    assert [event.fields["value"] for event in found.refused] == [2]
    assert found.refused[0].reason.startswith("validator '<lambda>' failed: ")


def test_an_event_on_which_a_validator_raises_is_refused_alone_as_in_a_worker() -> None:
    def fail(self: Any, frame: Frame, *_: Any) -> Any:
        if 2.0 in frame.values("value"):
            raise RuntimeError("row 2")
        return frame, {}

    rules = load_rules("rules: [{name: r, seq: [{as: a, stream: s}], emit: {v: a.value}}]").rules
    ruleset = RuleSet(rules=rules, validators=[Validator(stream="s", use=lambda event: None)])
    events = [{"stream": "s", "timestamp": 10**15 + n, "key": "k", "value": float(n)} for n in range(4)]
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(ValidatorFunction, "apply", fail)
        found = match(ruleset, events)
    assert [each.emit["v"] for each in found] == [0, 1, 3]
    assert [event.reason for event in found.refused] == ["validating an event failed: RuntimeError: row 2"]


def test_a_validator_that_sets_nan_or_a_field_of_some_events_only_keeps_no_state() -> None:
    def odd(event: dict[str, Any]) -> Any:
        return {"value": float("nan"), "new": 1} if event["value"] == 2 else None

    assert check_validator(Validator(stream="s", use=odd), [{"value": 1}, {"value": 2}]) == [None, None]


def test_check_validator_finds_one_that_changes_its_event_or_its_arguments() -> None:
    def change(event: dict[str, Any]) -> Any:
        event["value"] = 9

    with pytest.raises(AssertionError, match="changed 'value' of its event from 1 to 9; it must return the fields"):
        check_validator(Validator(stream="s", use=change), [{"value": 1}])

    def learn(event: dict[str, Any], seen: list[int]) -> Any:
        seen.append(event["value"])

    with pytest.raises(AssertionError, match=r"changed its arguments from {'seen': \[\]} to {'seen': \[1, 1"):
        check_validator(Validator(stream="s", use=learn, options={"seen": []}), [{"value": 1}])


def test_check_validator_takes_functions_and_no_events() -> None:
    assert check_validator(judged, [{"value": 1.0}]) == ["one is refused"]
    assert check_validator(capped, [{"value": 1000.0}, {"value": 1.0}]) == ["far too much", None]
    assert check_validator(Validator(stream="s", use=capped), [{"value": 1000.0}]) == ["far too much"]
    assert check_validator(judged, []) == []


def test_a_value_that_is_no_value_is_named_equally_each_time() -> None:
    reasons = check_validator(Validator(stream="s", use=lambda event: {"value": object()}), [{"value": 1}] * 2)
    assert (
        reasons
        == ["validator '<lambda>' failed: it set 'value' to <object object>; expected a value that an event can have"]
        * 2
    )


@pytest.mark.parametrize(
    ("found", "reason"),
    [
        (None, r"validator 'returns' returned None; expected the frame and the reasons"),
        ([], r"validator 'returns' returned \[\] of type list; expected the frame and the reasons"),
        ((1, {}), r"returned \(1, {}\) of type tuple; expected the frame"),
    ],
)
def test_a_frame_validator_that_returns_anything_else_is_named(found: Any, reason: str) -> None:
    def returns(frame: Frame) -> Any:
        return found

    frame = Frame.from_columns("A", "", {"timestamp": [1], "key": ["k"], "type": ["t"], "value": [1]})
    _, refused = ValidatorFunction(returns, per="frame").apply(frame, {})
    assert re.search(reason, refused[0])


def test_a_validator_that_returns_a_number_is_named_and_an_empty_reason_is_filled() -> None:
    def odd(event: dict[str, Any]) -> Any:
        return 3 if event["value"] == 1 else ""

    passed = apply(Validator(stream="s", use=odd), 1.0, 2.0)
    assert passed.refused == [
        (0, "validator 'odd' returned 3 of type int; expected None, a reason (text) or fields to set (a mapping)"),
        (1, "validator 'odd' refused it and gave no reason"),
    ]


def test_a_validator_is_named_in_reasons_as_it_is_registered(monkeypatch: pytest.MonkeyPatch) -> None:
    def odd(event: dict[str, Any]) -> Any:
        return 3 if event["value"] == 1 else event["missing"]

    registry = Registry("validator", group="no.such.group", convert=validator_functions._convert)
    monkeypatch.setattr(validator_functions, "VALIDATORS", registry)
    monkeypatch.setattr(validators, "VALIDATORS", registry)
    register_validator("plausible", odd)
    for use in ("plausible", odd):
        passed = apply(Validator(stream="s", use=use), 1.0, 2.0)
        assert [reason.partition(";")[0] for _, reason in passed.refused] == [
            "validator 'plausible' returned 3 of type int",
            "validator 'plausible' failed: KeyError: 'missing'",
        ]


@pytest.mark.parametrize("per", ["event", "frame"])
def test_a_validator_that_exits_refuses_the_row_and_does_not_end_the_program(per):
    def leave(_given: Any) -> Any:
        raise SystemExit(4)

    register_validator(f"test_leaves_{per}", leave, per=per)
    rules = load_rules(
        f"validators: [{{stream: s, use: test_leaves_{per}}}]\nrules: [{{name: r, seq: [{{as: a, stream: s}}]}}]"
    )
    found = match(rules, [{"stream": "s", "timestamp": 1, "value": 1.0}])
    assert [each.reason for each in found.refused] == [f"validator 'test_leaves_{per}' failed: SystemExit: 4"]

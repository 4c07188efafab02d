"""Cool-down and groups of alerts: as a plain reference says, in any order of arrival, with any steps and restarts."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from astrocyte import Engine, InvalidRules, Rule, load_rules
from astrocyte.agents.engine.output import EngineOutput
from astrocyte.agents.matches.grouped import grouped_alert_records
from astrocyte.agents.matches.lineage import alert_records
from astrocyte.pipeline.state.snapshots import pack_state, unpack_state
from astrocyte.schemas.events import Alert

S = 1_000_000
COUNT = settings.default.max_examples if settings.default else 100
ALERT = {"severity": "warning", "message": "v{a.value}"}


def single(**options: Any) -> Rule:
    return Rule(name="r", seq=[{"as": "a", "stream": "s"}], alert=ALERT, emit={"v": "a.value % 2"}, **options)


def event(time: int, key: str, value: int) -> dict[str, Any]:
    return {"stream": "s", "timestamp": time * S, "key": key, "type": "x", "value": value, "event_id": f"e{value}"}


def reference(
    events: list[tuple[int, str, int]], cool_down: int | None, group: tuple[int, str | None] | None
) -> list[tuple[Any, ...]]:
    """(time, keys, count, suppressed, value of the first) of each alert: what the docs say, one key after the other."""
    found = []
    parts: dict[Any, list[tuple[int, str, int]]] = {}
    by = "key" if group is None else group[1]
    for time, key, value in sorted(events, key=lambda each: (each[0], each[1])):
        part = key if by == "key" else None if by is None else value % 2
        parts.setdefault(part, []).append((time, key, value))
    for own in parts.values():
        until, before = None, 0
        while own:
            time, key, value = own.pop(0)
            if until is not None and time < until:
                before += 1
                continue
            if until is not None and time >= until + cool_down:
                before = 0
            taken = [(time, key, value)]
            at = time
            if group is not None:
                at = time + group[0]
                while own and own[0][0] < at:
                    taken.append(own.pop(0))
            found.append((at, tuple(dict.fromkeys(each[1] for each in taken)), len(taken), before, value))
            if cool_down is not None:
                until, before = at + cool_down, 0
    return sorted(found)


def alerts_of(outputs: list[EngineOutput]) -> list[tuple[Any, ...]]:
    found = []
    for output in outputs:
        for match in output.matches:
            if match.alert is not None:
                value = match.events["a"][0].fields["value"]
                assert match.alert.message.startswith(f"v{value}")
                found.append((match.time_us // S, (match.key,), 1, match.alert.suppressed, value))
        for alert in output.grouped:
            value = int(alert.message.split()[0][1:])
            found.append((alert.time_us // S, alert.keys, alert.count, alert.suppressed, value))
    return sorted(found)


def run(
    rule: Rule, events: list[dict[str, Any]], *, order: list[int], restarts: bool, consistency: Any = "strong"
) -> list[EngineOutput]:
    """The outputs of steps of one event each, in an order of arrival; time advances to the oldest still to come."""
    engine, outputs = Engine(rule, consistency=consistency), []
    for place, index in enumerate(order):
        engine.push_event(events[index])
        rest = [events[later]["timestamp"] for later in order[place + 1 :]]
        if rest:
            outputs.append(engine.advance(min(rest)))
        if restarts and place % 3 == 0:
            saved = unpack_state(pack_state(engine.snapshot()))
            engine = Engine(rule, consistency=consistency)
            engine.restore(saved)
    return [*outputs, engine.flush()]


@settings(max_examples=max(COUNT // 8, 1))
@given(
    times=st.lists(st.tuples(st.integers(0, 40), st.sampled_from("xyz")), min_size=1, max_size=16),
    cool_down=st.sampled_from([None, 1, 4, 10]),
    group=st.sampled_from([None, (3, "key"), (8, None), (5, "v")]),
    consistency=st.sampled_from(["strong", "eventual"]),
    data=st.data(),
)
def test_alerts_are_those_of_the_reference_in_any_order_of_arrival_and_with_restarts(
    times: list[tuple[int, str]], cool_down: int | None, group: Any, consistency: str, data: Any
) -> None:
    assume(cool_down is not None or group is not None)
    options: dict[str, Any] = {} if cool_down is None else {"cool_down": f"{cool_down}s"}
    if group is not None:
        options["group"] = {"within": f"{group[0]}s", "by": group[1]}
    # One match of a key and time: which of two comes first is not the subject here.
    times = sorted(set(times))
    events = [event(time, key, number) for number, (time, key) in enumerate(times)]
    wanted = reference([(time, key, number) for number, (time, key) in enumerate(times)], cool_down, group)
    order = data.draw(st.permutations(range(len(events))))
    for restarts in (False, True):
        outputs = run(single(**options), events, order=order, restarts=restarts, consistency=consistency)
        assert alerts_of(outputs) == wanted
        settled = [match for output in outputs for match in output.matches if match.status in ("final", "confirmed")]
        assert len(settled) == len(events)


@settings(max_examples=max(COUNT // 10, 1))
@given(
    st.lists(st.tuples(st.integers(0, 30), st.sampled_from("xy"), st.integers(0, 4)), min_size=1, max_size=14),
    st.sampled_from([{"cool_down": "4s"}, {"group": "5s"}, {"group": {"within": "5s", "by": None}, "cool_down": "3s"}]),
    st.data(),
)
def test_steps_and_restarts_change_no_alert_where_matches_wait_for_earlier_ones(
    rows: list[tuple[int, str, int]], options: dict[str, Any], data: Any
) -> None:
    rule = Rule(
        name="r", within="6s", skip="past_last", alert=ALERT, emit={"v": "a.value"}, **options,
        seq=[{"as": "a", "stream": "s"}, {"as": "b", "stream": "s", "where": "value > a.value"}],
    )  # fmt: skip
    events = [{**event(time, key, value), "event_id": f"e{n:03d}"} for n, (time, key, value) in enumerate(rows)]
    engine = Engine(rule)
    engine.push_events(events)
    whole = alerts_of([engine.flush()])
    order = data.draw(st.permutations(range(len(events))))
    assert alerts_of(run(rule, events, order=order, restarts=False)) == whole
    assert alerts_of(run(rule, events, order=order, restarts=True)) == whole


def test_what_was_not_raised_is_counted_by_rule() -> None:
    engine = Engine([single(cool_down="10s"), single(group="10s").model_copy(update={"name": "g"})])
    for value in range(5):
        engine.push_event(event(value, "k", value))
    engine.flush()
    counts = engine.counters()
    assert (counts["r"]["matches"], counts["r"]["suppressed"], counts["r"]["grouped"]) == (5, 4, 0)
    assert (counts["g"]["matches"], counts["g"]["suppressed"], counts["g"]["grouped"]) == (5, 0, 4)


def test_records_of_alerts_name_what_they_stand_for() -> None:
    engine = Engine(single(group={"within": "10s", "by": None}))
    for value, key in enumerate("xyx"):
        engine.push_event(event(value, key, value))
    output = engine.flush()
    assert alert_records(output.matches) == []
    (record,) = grouped_alert_records(output.grouped)
    alert = Alert.model_validate_json(record.value)
    assert (alert.count, alert.keys, alert.key, alert.suppressed) == (3, ("x", "y"), None, None)
    assert alert.message == "v0 (and 2 more within 10s)"
    assert alert.multi_event_id == output.matches.matches()[0].id
    paused = Engine(single(cool_down="10s"))
    for number, time in enumerate((0, 1, 10)):
        paused.push_event(event(time, "k", number))
    first, second = [Alert.model_validate_json(each.value) for each in alert_records(paused.flush().matches)]
    assert (first.suppressed, second.suppressed) == (None, 1)
    assert "suppressed" not in first.model_dump()


def test_the_pause_of_a_key_is_forgotten_once_it_can_matter_no_more() -> None:
    engine = Engine(single(cool_down="1s"))
    for number in range(6_000):
        engine.push_event(event(number, f"k{number}", number))
        if number % 500 == 0:
            engine.advance(number * S)
    assert len(engine.snapshot()["alerts"]) < 150_000


def test_a_changed_rule_begins_without_a_pause() -> None:
    engine = Engine(single(cool_down="10s"))
    engine.push_event(event(0, "k", 0))
    engine.advance(1 * S)
    engine.update(single(cool_down="20s"))
    engine.push_event(event(2, "k", 1))
    assert [match.alert is not None for match in engine.flush().matches] == [True]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("cool_down: 5s", "cool_down applies to alerts, and the rule has none"),
        ("group: 5s", "group applies to alerts, and the rule has none"),
        ("cool_down: 5, alert: {message: x}", "expected a duration such as 2s"),
        ("group: {within: 5s, by: region}, emit: {v: a.value}, alert: {message: x}", "emits (v), got 'region'"),
        ("cool_down: 5s, skip: past_last, alert: {message: x}", "cool_down with skip past_last needs a time bound"),
        ("cool_down: 5s, within: 9s, skip: to_next, alert: {message: x}", "write emit: eager, or skip: past_last"),
    ],
)  # fmt: skip
def test_options_that_cannot_work_are_refused_with_what_to_do(options: str, message: str) -> None:
    with pytest.raises(InvalidRules) as caught:
        load_rules(f"rules: [{{name: r, seq: [{{as: a, stream: s}}], {options}}}]")
    assert message in str(caught.value)

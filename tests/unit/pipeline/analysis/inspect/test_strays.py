"""A few messages of another form, or dated far from the others, change neither the proposal nor the figures."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import numpy as np
import orjson
import pytest

from astrocyte.agents.loading import load_rules
from astrocyte.pipeline.analysis.inspect.clocks.strays import usual_times
from astrocyte.pipeline.analysis.inspect.run import Request, inspect, take_sample
from astrocyte.pipeline.analysis.inspect.starting.starter import _commands, make_starter
from astrocyte.pipeline.analysis.inspect.text import render
from astrocyte.pipeline.analysis.offline import run_rules
from astrocyte.pipeline.kafka.record import ConsumedRecord
from astrocyte.pipeline.settings import Settings
from tests.support.logs import write_log

START_S = 1_759_055_400
START = datetime.fromtimestamp(START_S, UTC)
YEAR_US = 365 * 86_400_000_000


def event(number: int, **more: object) -> dict[str, object]:
    return {
        "specversion": "1.0",
        "id": str(number),
        "source": "/shop",
        "type": "click",
        "time": (START + timedelta(seconds=number)).isoformat(),
        "data": {"by": f"u{number // 10 % 5}", "ms": number % 90},
        **more,
    }


def record(number: int, body: object, headers: Sequence[tuple[str, bytes]] = (), at_ms: int = 0) -> ConsumedRecord:
    value = None if body is None else orjson.dumps(body)
    return ConsumedRecord("shop.web", 0, number, START_S * 1000 + number + at_ms, None, value, tuple(headers))


def inspected(tmp_path, records: Sequence[ConsumedRecord]):
    path = write_log(tmp_path / "web.jsonl", records, partitions=1)
    request = Request(str(path), Settings())
    sample = take_sample(request)
    return request, sample, inspect(request, sample)


def written(tmp_path, records: Sequence[ConsumedRecord]) -> str:
    folder = tmp_path / f"written{len(list(tmp_path.iterdir()))}"
    folder.mkdir()
    request, sample, found = inspected(folder, records)
    return make_starter(request, sample, found, path="web.yaml").text.partition("\n\n")[2]


STRAYS = {
    "without an id": [{name: value for name, value in event(150).items() if name != "id"}],
    "a flat record": [{"by": "u1", "ms": 3, "data": {"by": "u9"}}],
    "a change of a row": [{"op": "c", "after": {"by": "u1"}, "source": {"ts_ms": START_S * 1000}}],
    "several": [{"a": 1}, {"specversion": "1.0", "data": {"x": {"y": 2}}}, {"b": {"c": 3}}],
}


@pytest.mark.parametrize("strays", STRAYS.values(), ids=STRAYS)
def test_a_few_messages_of_another_form_leave_the_declaration_as_it_is(tmp_path, strays):
    bodies = [event(number) for number in range(200)]
    bodies[100:100] = strays
    _, _, found = inspected(tmp_path, [record(number, body) for number, body in enumerate(bodies)])
    (report,) = found.reports
    assert report.proposal.declaration == {
        "name": "web",
        "topic": "shop.web",
        "decoder": "cloudevents",
        "key": "by",
    }
    assert (report.reading.events, sum(each.count for each in report.refused)) == (200, len(strays))


def test_messages_of_another_form_are_named_as_a_problem_with_their_number_and_place(tmp_path):
    bodies = [*(event(number) for number in range(100)), {"by": "u1"}, {"op": "c", "after": {}, "source": {}}]
    _, _, found = inspected(tmp_path, [record(number, body) for number, body in enumerate(bodies)])
    rest = "decoder: cloudevents refuses them"
    assert found.reports[0].problems == [
        f"1 of 102 messages studied is json, not cloudevents, such as that at offset 100: {rest}",
        f"1 of 102 messages studied is debezium, not cloudevents, such as that at offset 101: {rest}",
    ]
    assert "problems    1 of 102 messages" in render(found, width=100)


def test_forms_of_which_neither_is_rare_give_no_decoder(tmp_path):
    bodies = [event(number) if number % 10 else {"by": "u1"} for number in range(200)]
    _, _, found = inspected(tmp_path, [record(number, body) for number, body in enumerate(bodies)])
    assert "decoder" not in found.reports[0].proposal.declaration
    assert found.reports[0].problems == []


@pytest.mark.parametrize("away_s", [-365 * 86_400, 365 * 86_400])
def test_one_event_dated_far_from_the_others_changes_neither_windows_nor_the_lateness(tmp_path, away_s):
    usual = [record(number, event(number)) for number in range(300)]
    if away_s < 0:
        far = record(300, event(300, time=(START + timedelta(seconds=away_s)).isoformat()))
    else:  # without a time of its own: that of the Kafka message, which no other clock contradicts
        far = record(300, event(300, time=None), at_ms=away_s * 1000 - 300)
    records = [*usual, far]
    _, _, found = inspected(tmp_path, records)
    (report,) = found.reports
    assert report.usual_span_us == 299_000_000
    assert [(each.partition, each.time_us) for each in report.strays] == [(0, (START_S + away_s) * 1_000_000)]
    assert report.rate == pytest.approx(1, rel=0.01)
    assert report.recommended_us == 1_000_000
    (problem,) = report.problems
    assert problem.startswith("1 event is dated far from the others, such as ")
    assert "every: 5s" in written(tmp_path, usual)
    assert "every: 5s" in written(tmp_path, records)


def test_times_without_strays_are_taken_whole():
    for times in (
        [],
        [5],
        [5, 10**15],
        [1, 2, 3, 10**15],
        list(range(1000)),
        [7] * 50 + [10**12],
        [*range(38), 10**15],
    ):
        found = usual_times(np.array(times, np.int64))
        assert found == ((min(times), max(times)) if times else None)


def test_strays_are_few_and_far():
    times = list(range(0, 100_000, 1000))
    assert usual_times(np.array([*times, YEAR_US, -YEAR_US], np.int64)) == (0, 99_000)
    assert usual_times(np.array([*times, 500_000], np.int64)) == (0, 500_000)
    assert usual_times(np.array([*times, *[YEAR_US] * 10], np.int64)) == (0, YEAR_US)


def by_key(number: int, key: str | None, ahead_s: float) -> dict[str, object]:
    return event(number, time=(START + timedelta(seconds=number + ahead_s)).isoformat(), data={"by": key, "ms": 1})


@pytest.mark.parametrize("days", [0.02, 365, 400])
def test_the_device_whose_clock_is_ahead_is_named_and_its_clock_sets_no_lateness(tmp_path, days):
    """Two keys are ahead together, so that one confirms the other and the check of clocks lets them pass."""
    ahead = {10, 11}
    records = [
        record(n, by_key(n, f"u{n % 40}", days * 86_400 if n % 40 in ahead and n > 40 else 0)) for n in range(400)
    ]
    *_, found = inspected(tmp_path, records)
    (report,) = found.reports
    assert found.recommended_us == (1_000_000 if days > 1 else 1_800_000_000)
    lines = " ".join(report.problems)
    assert [key in lines for key in ("'u10'", "'u11'")] == [True, True], lines
    assert ("a lateness of 1s is enough" in lines) == (days < 1)
    assert (f"{days}d ahead of Kafka's time" in lines) == (days > 1)


def test_events_without_a_key_that_are_ahead_are_named(tmp_path):
    records = [record(n, by_key(n, None if n in (50, 90) else f"u{n % 5}", 1200 * (n in (50, 90)))) for n in range(400)]
    *_, found = inspected(tmp_path, records)
    assert any("2 events without a key" in line for line in found.reports[0].problems), found.reports[0].problems


@pytest.mark.parametrize("minutes", [30, 3000])
def test_a_device_that_sends_late_is_named_and_waited_for(tmp_path, minutes):
    """It sends several events together now and then, so that some are much later than others."""
    behind_s = [60 * minutes * (n // 20 % 5) / 4 if n % 20 == 7 else 0 for n in range(400)]
    records = [record(n, by_key(n, f"u{n % 20}", -behind_s[n])) for n in range(400)]
    *_, found = inspected(tmp_path, records)
    assert found.recommended_us >= minutes * 60_000_000
    assert any("by 'u7'" in line for line in found.reports[0].problems), found.reports[0].problems


@pytest.mark.parametrize(("minutes", "is_wrong"), [(30, False), (90, True), (3000, True), (20_000 * 1440, True)])
def test_the_lateness_is_not_that_of_a_clock_that_is_behind_by_always_the_same(tmp_path, minutes, is_wrong):
    records = [record(n, by_key(n, f"u{n % 20}", -60 * minutes if n % 20 == 7 else 0)) for n in range(400)]
    *_, found = inspected(tmp_path, records)
    (report,) = found.reports
    assert found.recommended_us == (1_000_000 if is_wrong else 1_800_000_000)
    (line,) = [line for line in report.problems if "of by 'u7' are far from the others" in line]
    assert ("The recommended one leaves them out" in line) == is_wrong
    assert ("wrong clock" in render(found, width=100)) == is_wrong
    if is_wrong:
        assert (report.usual_span_us, report.rate) == (399_000_000, pytest.approx(380 / 399))


@pytest.mark.parametrize("days", [2, 400])
@pytest.mark.parametrize("declared", [False, True])
def test_one_wrong_clock_does_not_hide_another(tmp_path, days, declared):
    """One device of eight is at 1970 and one is days ahead: both are named, and neither sets the lateness."""
    lines = [b"measured_at,device,celsius"]
    for n in range(800):
        at = n * 500 if n % 8 == 3 else START_S * 1000 + n * 500 + (days * 86_400_000 if n % 8 == 5 else 0)
        lines.append(b"%d,d%d,%d" % (at, n % 8, n % 30))
    path = tmp_path / "sensors.csv"
    path.write_bytes(b"\n".join(lines))
    text = (
        "streams: [{name: sensors, time: {field: measured_at, unit: ms}, key: device}]\n"
        "rules: [{name: r, by: device, seq: [{stream: sensors, as: a}]}]"
    )
    request = Request(str(path), Settings(), ruleset=load_rules(text) if declared else None)
    sample = take_sample(request)
    found = inspect(request, sample)
    (report,) = found.reports
    assert found.recommended_us <= 2_000_000
    said = " ".join(report.problems)
    assert [name in said for name in ("'d3'", "'d5'", "'d1'")] == [True, True, False], report.problems


def test_disorder_of_all_keys_names_none(tmp_path):
    shifts = np.random.default_rng(1).integers(0, 900, 400)
    records = [record(n, by_key(n, f"u{n % 8}", float(shifts[n]))) for n in range(400)]
    *_, found = inspected(tmp_path, records)
    assert found.reports[0].problems == []


def test_rules_run_with_a_lateness_of_more_than_a_year(tmp_path):
    path = write_log(tmp_path / "web.jsonl", [record(n, event(n)) for n in range(10)], partitions=1)
    ruleset = load_rules(
        "streams: [{name: click, topic: shop.web, decoder: cloudevents, key: by}]\n"
        "rules: [{name: r, seq: [{stream: click, as: a}]}]"
    )
    run, outputs = run_rules(ruleset, [path], lateness_us=366 * 86_400_000_000)
    assert sum(len(each.multi_events) for each in outputs) == run.counters.matches == 10


@pytest.mark.parametrize(("domains", "count"), [(None, 6), (3, 3)])
def test_the_command_for_a_worker_has_as_many_domains_as_the_topics_that_are_there(tmp_path, domains, count):
    """Topics of other counts are repartitioned; those that workers have written cannot be."""
    request, _, found = inspected(tmp_path, [record(n, event(n)) for n in range(60)])
    found.form, found.reports[0].partition_count = "topic", 6
    *_, worker = _commands(request, found, found.reports, "rules.yaml", domains)
    assert worker.startswith(f"ASTROCYTE_PARTITIONS={count} astrocyte worker")

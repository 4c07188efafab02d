"""The lateness that events need: by brute force, and in the engine, where the recommended one makes none late."""

from __future__ import annotations

import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from astrocyte.agents.loading import load_rules
from astrocyte.pipeline.analysis.inspect.reading import lateness_for, recommended_lateness
from astrocyte.pipeline.analysis.inspect.run import Request, inspect, take_sample
from astrocyte.pipeline.analysis.offline import run_rules
from astrocyte.pipeline.kafka.record import ConsumedRecord
from astrocyte.pipeline.settings import Settings
from astrocyte.schemas.frames import Frame, encode_frame
from tests.support.logs import T0_US, write_log

SECOND = 1_000_000
RULES = load_rules("rules: [{name: every, by: key, seq: [{as: a, stream: readings}]}]")


def late_with(times_us: list[int], lateness_us: int) -> int:
    """How many of the events of one partition are late, one after the other."""
    newest, late = None, 0
    for time_us in times_us:
        late += newest is not None and time_us < newest - lateness_us
        newest = time_us if newest is None else max(newest, time_us)
    return late


def lags(times_us: list[int]) -> np.ndarray:
    seen = np.maximum.accumulate(times_us)
    return np.maximum(np.concatenate([[times_us[0]], seen[:-1]]) - times_us, 0)


@given(st.lists(st.integers(0, 100), min_size=1, max_size=60), st.sampled_from([0.0, 0.001, 0.01, 0.1, 0.5]))
def test_the_lateness_for_a_share_is_the_smallest_at_which_no_more_are_late(times_us, share):
    wanted = next(lateness for lateness in range(102) if late_with(times_us, lateness) <= int(share * len(times_us)))
    assert lateness_for(lags(times_us), share) == wanted


@pytest.mark.parametrize(
    ("needed_us", "recommended_us"),
    [
        (0, SECOND),
        (SECOND, SECOND),
        (SECOND + 1, 2 * SECOND),
        (7_270_000, 10 * SECOND),
        (61 * SECOND, 120 * SECOND),
        (50 * 86_400 * SECOND + 1, 51 * 86_400 * SECOND),
    ],
)
def test_the_recommended_lateness_is_rounded_up_to_what_a_person_would_set(needed_us, recommended_us):
    assert recommended_lateness(np.array([0, needed_us], np.int64)) == recommended_us


def json_message(offset: int, key: str, time_us: int, partition: int, kafka_ms: int) -> ConsumedRecord:
    body = orjson.dumps({"timestamp": time_us, "value": 1})
    return ConsumedRecord("mono.readings", partition, offset, kafka_ms, key.encode(), body)


def frame_message(offset: int, rows: list[tuple[str, int]], partition: int, kafka_ms: int) -> ConsumedRecord:
    columns = {"timestamp": np.array([time for _, time in rows], np.int64), "key": [key for key, _ in rows]}
    columns["value"] = np.ones(len(rows))
    frame = Frame.from_columns("readings", "run", columns, first_seq=offset * 100)
    return ConsumedRecord("mono.readings", partition, offset, kafka_ms, None, encode_frame(frame))


def inspected(path):
    request = Request(str(path), Settings())
    sample = take_sample(request)
    (report,) = inspect(request, sample).reports
    return report


EVENTS = st.lists(
    st.tuples(st.sampled_from("abc"), st.integers(0, 8), st.integers(0, 2), st.sampled_from([0, 0, 0, 5_000])),
    min_size=1,
    max_size=50,
)


def log_of(tmp_path, events, partitions: int, *, frames: bool, kafka: bool):
    """Events a second apart, some of them up to 8 s or some hours older than the one before."""
    offsets = [0] * partitions
    messages = []
    for number, (key, before, partition, ahead) in enumerate(events):
        place = partition % partitions
        time_us = T0_US + (number + ahead - before) * SECOND
        kafka_ms = (T0_US + number * SECOND) // 1000 if kafka else -1
        if frames:
            rows = [(key, time_us), ("a", time_us + SECOND // 2)]
            messages.append(frame_message(offsets[place], rows, place, kafka_ms))
        else:
            messages.append(json_message(offsets[place], key, time_us, place, kafka_ms))
        offsets[place] += 1
    return write_log(tmp_path / "log.jsonl", messages, partitions=partitions)


@settings(max_examples=60)
@given(EVENTS, st.integers(1, 3), st.booleans(), st.booleans())
def test_the_recommended_lateness_makes_no_event_late_except_by_events_far_from_the_others(
    tmp_path_factory, events, partitions, frames, kafka
):
    path = log_of(tmp_path_factory.mktemp("log"), events, partitions, frames=frames, kafka=kafka)
    report = inspected(path)
    run, outputs = run_rules(RULES, [path], lateness_us=report.recommended_us)
    for _ in outputs:
        pass
    far = int((report.reading.all_lags_us() > report.usual_span_us).sum()) if report.strays else 0
    assert run.counters.late <= far


@settings(max_examples=40)
@given(EVENTS, st.booleans())
def test_a_microsecond_less_than_the_needed_lateness_makes_an_event_late(tmp_path_factory, events, frames):
    events = [(key, before, partition, 0) for key, before, partition, _ in events]  # no clock is doubted
    path = log_of(tmp_path_factory.mktemp("log"), events, 1, frames=frames, kafka=True)
    needed = inspected(path).lateness["all"][0.0]
    for lateness_us, is_late in ((needed, False), (needed - 1, True)):
        if lateness_us < 0:
            continue
        run, outputs = run_rules(RULES, [path], lateness_us=lateness_us)
        for _ in outputs:
            pass
        assert (run.counters.late > 0) == is_late


def test_the_lateness_of_each_partition_is_as_its_consumer_reads_it(tmp_path):
    # In partition 0 an event is 3 s behind the newest before it; partition 1 is in order but hours behind.
    times = {0: [0, 10, 7, 12], 1: [-9000, -8999, -8998]}
    messages = [
        json_message(offset, f"k{partition}", T0_US + time * SECOND, partition, T0_US // 1000)
        for partition, each in times.items()
        for offset, time in enumerate(each)
    ]
    report = inspected(write_log(tmp_path / "log.jsonl", messages))
    assert report.lateness == {
        "0": {0.0: 3 * SECOND, 0.001: 3 * SECOND, 0.01: 3 * SECOND},
        "1": {0.0: 0, 0.001: 0, 0.01: 0},
        "all": {0.0: 3 * SECOND, 0.001: 3 * SECOND, 0.01: 3 * SECOND},
    }


def test_one_wrong_clock_does_not_ask_for_a_lateness_of_years(tmp_path):
    times = [number * SECOND for number in range(60)]
    messages = [
        json_message(offset, f"k{offset % 3}", T0_US + time_us, 0, (T0_US + time_us) // 1000)
        for offset, time_us in enumerate(times)
    ]
    wrong = json_message(30, "k9", T0_US + 3 * 365 * 86_400 * SECOND, 0, (T0_US + times[30]) // 1000)
    messages[30] = wrong
    report = inspected(write_log(tmp_path / "log.jsonl", messages))
    assert report.lateness["all"][0.0] == 0
    assert [(each.stage, each.count) for each in report.refused] == [("clock", 1)]

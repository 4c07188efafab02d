"""How long a lap of a replay is, and that no event of a further lap is later than in the first."""

from __future__ import annotations

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from astrocyte.pipeline.kafka.record import ConsumedRecord
from astrocyte.pipeline.recording.format import InvalidLog
from astrocyte.pipeline.recording.replays.laps import Laps, whole_seconds
from astrocyte.pipeline.recording.replays.shift import Shift
from astrocyte.schemas.contract import Contracts
from tests.support.logs import T0_US, axon_frame, frame_messages

SECOND = 1_000_000


def seen(*records: ConsumedRecord, kafka_us: int = SECOND) -> Laps:
    laps = Laps(kafka_us)
    for record in records:
        laps.see(record, Contracts().of_topic(record.topic))
    return laps


def at(time: object, topic: str = "t", partition: int = 0) -> ConsumedRecord:
    return ConsumedRecord(topic, partition, 0, T0_US // 1000, None, orjson.dumps({"timestamp": time}))


@pytest.mark.parametrize(("span", "whole"), [(0, 0), (1, 1), (10**6, 1), (10**6 + 1, 2), (-1, 0), (-(10**6) - 1, -1)])
def test_whole_seconds_are_rounded_up(span, whole):
    assert whole_seconds(span) == whole * SECOND


def test_a_lap_is_as_long_as_its_events_or_as_kafkas_times():
    records = [at(T0_US), at(T0_US + 19 * SECOND, partition=1), at(T0_US + 5 * SECOND, "u")]
    assert seen(*records).event_us == 20 * SECOND
    assert seen(*records, kafka_us=30 * SECOND).event_us == 30 * SECOND
    assert seen(*records).shift(None, 1) is None
    assert seen(*records).shift(Shift(7, 9), 1) == Shift(7, 9)
    assert seen(*records).shift(Shift(7, 9), 3) == Shift(7 + 40 * SECOND, 9 + 2000, 3)


def test_events_of_frames_count_and_an_end_does_not():
    frame = axon_frame("axon_1", ["a", "b"], [0, 3 * SECOND])
    records = frame_messages(frame, 1, {}) + frame_messages(axon_frame("axon_1", [], [], end=True), 1, {})
    assert seen(*records).shift(None, 2) == Shift(4 * SECOND, 1000, 2)


def test_kafkas_times_move_with_event_times_where_events_have_no_other():
    other = ConsumedRecord("u", 0, 0, T0_US // 1000, None, b'{"a": 1}')
    records = [at(T0_US), at(T0_US + 19 * SECOND)]
    assert seen(*records, other).shift(None, 2) == Shift(20 * SECOND, 20_000, 2)
    assert seen(*records, other._replace(value=None)).shift(None, 2) == Shift(20 * SECOND, 1000, 2)


def test_numbers_that_are_hardly_times_do_not_make_a_lap_of_decades():
    records = [at(2025), at(T0_US), at(2026, "u"), at(T0_US + 3 * SECOND)]
    assert seen(*records).event_us == 4 * SECOND
    assert seen(at(2025), at(2030)).event_us == 6 * SECOND


def test_a_lap_that_would_reach_the_year_2100_is_refused():
    laps = seen(at(T0_US), at(4_000_000_000 * SECOND))
    with pytest.raises(InvalidLog, match="lap 2 would reach the year 2100"):
        laps.shift(None, 2)


@given(st.lists(st.tuples(st.integers(0, 60 * SECOND), st.integers(0, 2)), min_size=1, max_size=30))
def test_no_event_of_a_further_lap_is_later_than_in_the_first(events):
    records = [at(T0_US + time, partition=partition) for time, partition in events]
    by = seen(*records).shift(None, 2)
    assert by is not None
    newest: dict[int, int] = {}
    late: list[list[int]] = []
    for lap in range(2):
        late.append([])
        for time, partition in events:
            moved = time + lap * by.event_us
            late[-1].append(max(newest.get(partition, moved) - moved, 0))
            newest[partition] = max(newest.get(partition, moved), moved)
    assert all(second <= first for first, second in zip(*late, strict=True))

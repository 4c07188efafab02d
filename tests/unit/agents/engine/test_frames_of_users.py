"""Frames that a program makes without a run and ids: every row is an event of its own, as every mapping is."""

from __future__ import annotations

import numpy as np
import pytest

from astrocyte import Engine, Frame, load_rules, match
from astrocyte.agents.ingest.decode import decode_chunk
from astrocyte.pipeline.kafka.record import ConsumedRecord
from astrocyte.pipeline.recording.replays.shift import Shift, rename_stream, shift_record
from astrocyte.pipeline.recording.replays.shift import repartition as divided
from astrocyte.schemas.frames import encode_frame
from astrocyte.schemas.json.reader import RawRecord

RULES = load_rules("rules: [{name: r, seq: [{as: a, stream: F}], emit: {v: a.value}}]")
T0_US = 1_767_225_600_000_000


def frame(*values: int, run: str = "", **meta) -> Frame:
    columns = {
        "timestamp": np.full(len(values), T0_US),
        "key": [f"k{each}" for each in values],
        "value": list(values),
    }
    return Frame.from_columns("F", run, columns, **meta)


def mapping(value: int) -> dict:
    return {"stream": "F", "timestamp": T0_US, "key": "k", "value": value}


MIXED = [frame(1, 2, 3), mapping(4), frame(5, 6), mapping(7), mapping(8), frame(9).take(np.array([0])), frame(10)]


IN_ORDER = load_rules(
    "rules: [{name: o, by: null, within: 1s, seq: ["
    + ", ".join(f"{{as: s{value}, stream: F, where: 'value == {value}'}}" for value in range(1, 11))
    + "]}]"
)


def emitted(found) -> list[int]:
    return sorted(each.emit["v"] for each in found if each.status != "provisional")


def test_match_takes_every_row_in_the_order_of_the_list():
    found = match(RULES, MIXED)
    assert emitted(found) == list(range(1, 11))
    assert len({each.id for each in found}) == 10
    assert found.duplicates == 0
    assert len(match(IN_ORDER, MIXED)) == 1


@pytest.mark.parametrize("consistency", ["strong", "eventual"])
def test_an_engine_takes_every_row_in_the_order_of_the_calls_also_after_a_restart(consistency):
    engine = Engine(RULES, consistency=consistency)
    for event in MIXED:
        if isinstance(event, Frame):
            assert engine.push(event, topic="t", offsets=0) == 0
        else:
            engine.push_event(event)
        saved = engine.snapshot()
        engine = Engine(RULES, consistency=consistency)
        engine.restore(saved)
    engine.push_events(MIXED)
    output = engine.flush()
    assert emitted(output.matches.matches()) == sorted([*range(1, 11)] * 2)
    assert engine.duplicates == 0


def test_rows_of_a_run_that_come_twice_are_counted():
    found = match(RULES, [frame(1, 2, run="r"), frame(3, 4, run="r"), frame(5, run="r", first_seq=2)])
    assert emitted(found) == [1, 2, 5]
    assert found.duplicates == 2


def messages() -> list[ConsumedRecord]:
    return [
        ConsumedRecord("mono.F", 0, at, 0, None, encode_frame(frame(*range(10 * at, 10 * at + 5)))) for at in range(4)
    ]


def matched(records: list[ConsumedRecord]) -> tuple[list[int], set[str], int]:
    """Emitted values in order, ids of the matches, duplicates."""
    engine = Engine(RULES)
    for record in records:
        raw = RawRecord(record.offset, 0, None, record.value)
        frames, letters = decode_chunk(record.topic, record.partition, [raw])
        assert not letters
        for each in frames:
            engine.push(each.frame)
    found = engine.flush().matches.matches()
    return emitted(found), {each.id for each in found}, engine.duplicates


def test_in_a_topic_their_ids_are_made_of_their_places():
    values = [10 * at + row for at in range(4) for row in range(5)]
    found, ids, duplicates = matched(messages())
    assert (found, duplicates) == (values, 0)
    assert matched([*messages(), *messages()[::-1]]) == (values, ids, 20), "read again they are the same events"


def test_replayed_in_laps_under_another_name_and_over_other_partitions_they_stay_events_of_their_own():
    lap = [shift_record(each, Shift(lap=2))._replace(offset=each.offset + 4) for each in messages()]
    assert len(matched([*messages(), *lap])[0]) == 40
    renamed = [rename_stream(each, "F") for each in messages()]
    assert len(matched(renamed)[0]) == 20
    parts = [part for each in messages() for part in divided(each, 1, 3)]
    offsets = dict.fromkeys(range(3), 0)
    written = []
    for part in parts:
        written.append(part._replace(offset=offsets[part.partition]))
        offsets[part.partition] += 1
    assert matched(written)[0] == [10 * at + row for at in range(4) for row in range(5)]

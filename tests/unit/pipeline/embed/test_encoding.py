"""Events in the wire form that every reader takes, and those that are refused where they are made."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from datetime import time as day_time
from decimal import Decimal
from enum import Enum
from fractions import Fraction
from pathlib import Path
from uuid import UUID

import numpy as np
import orjson
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

import astrocyte
from astrocyte import CATALOG
from astrocyte.agents.ingest.dicts import frames_of as frames_of_mappings
from astrocyte.pipeline.embed.encoding import StreamEncoder, messages_of
from astrocyte.schemas.contract import Contracts
from astrocyte.schemas.errors import InvalidEvent
from astrocyte.schemas.events import DnaEvent, MonoEvent
from astrocyte.schemas.json.reader import RawRecord, records_to_frame
from astrocyte.schemas.times import iso_from_us, time_us
from astrocyte.schemas.values import single
from tests.support.brokers import NOWHERE

SCALARS = st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False)
VALUES = (
    SCALARS
    | st.text(st.characters(codec="utf-8", exclude_categories=("Cc",)), max_size=5)
    | st.lists(st.integers(0, 9), max_size=3)
)
NAMES = st.sampled_from(["value", "room", "metadata_", "key", "type", "a", "seq", "ts"])
TIMES = st.integers(0, 2**50)

ENDLESS: list = []
ENDLESS.append(ENDLESS)


@dataclass
class Reading:
    heat: float


class Level(Enum):
    LOW = 1
    UNKNOWN = math.nan


def received(message, stream):
    frame, _, refused = records_to_frame(
        message.topic, 0, stream, [RawRecord(0, 0, message.key, message.value, message.headers)]
    )
    assert refused == []
    return frame


def one_message(stream, event, key=None, seq=0):
    (message,) = messages_of([StreamEncoder(stream).encode(event, key, seq)], "run")
    return message


@given(st.dictionaries(NAMES.filter(lambda name: name != "ts"), VALUES), st.dictionaries(NAMES, VALUES), TIMES)
def test_what_is_emitted_is_the_event_that_the_same_mapping_is_as_a_record(event, nested, moment):
    event = {**event, "timestamp": iso_from_us(moment), "stream": "rooms", "metadata": nested}
    frame, _, refused = records_to_frame("mono.rooms", 0, "rooms", [RawRecord(0, 0, None, orjson.dumps(event))])
    assert refused == []
    ours, theirs = received(one_message("rooms", event), "rooms").rows()[0], frame.rows()[0]
    for row in (ours, theirs):
        row.pop("event_id")
        row.setdefault("value", None)  # which a mono event always has
    assert ours == theirs


@pytest.mark.parametrize("event_type", list(CATALOG), ids=lambda each: each.stream)
def test_events_of_every_catalog_stream_are_records_of_their_model(event_type):
    samples = {"int64": 1, "int32": 2, "float64": 0.5, "float32": 0.25, "bool": True, "string": "x", "json": ["a"]}
    fields = {name: samples.get(kind, [1.0, 2.0]) for name, kind in event_type.fields.items()}
    message = one_message(event_type.stream, {**fields, "type": event_type.types[0], "timestamp": 5}, key="k")
    (DnaEvent if event_type.envelope == "dna" else MonoEvent).model_validate_json(message.value)
    (row,) = received(message, event_type.stream).rows()
    assert row["timestamp"] == 5
    assert (row["key"], row["type"]) == ("k", event_type.types[0])
    assert all(row[name] is not None for name in event_type.fields)


def test_time_is_a_datetime_text_or_microseconds_and_now_by_default():
    moment = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    for value in (moment, "2026-01-02T03:04:05Z", time_us(moment)):
        assert StreamEncoder("rooms").encode({"timestamp": value}, None, 0).time_us == time_us(moment)
    before = time.time_ns() // 1000
    assert before <= StreamEncoder("rooms").encode({}, None, 0).time_us <= time.time_ns() // 1000


@pytest.mark.parametrize(
    ("stream", "event", "message"),
    [
        ("rooms", {"value": math.nan}, "'value' is nan; JSON has finite numbers"),
        ("rooms", {"deep": {"list": [1.0, math.inf]}}, "'deep.list' is inf"),
        ("rooms", {"value": np.float64("nan")}, "'value' is nan"),
        ("rooms", {"value": object()}, "'value' cannot be read: expected a number, text"),
        ("rooms", {"value": {"a": Decimal("nan")}}, "'value.a' is NaN; JSON has finite numbers"),
        ("rooms", {"value": Decimal("inf")}, "'value' is inf"),
        ("rooms", {"value": 2**2000}, "'value' is inf"),
        ("rooms", {"value": "\ud800"}, "'value' holds half a character"),
        ("rooms", {1: 2}, "field name 1 of type int; expected text"),
        (None, {}, "stream None of type NoneType; expected its name"),
        (5, {}, "stream 5 of type int; expected its name"),
        ("rooms", [1], "as a mapping, got list"),
        ("rooms", {"timestamp": -1}, "expected a time from 1970 to 2100"),
        ("rooms", {"timestamp": "soon"}, "timestamp 'soon'"),
        ("rooms", {"value": "x" * 1_000_000}, "expected at most 921,600"),
        ("rooms", {"event_id": 7}, "event_id 7; expected text"),
        ("rooms", {"key": "a\x01"}, "has control characters"),
        ("rooms", {"type": "\ud800"}, "cannot be encoded: .*surrogates"),
        ("rooms", {"event_id": "\ud800"}, "cannot be encoded: .*surrogates"),
        ("rooms", {"key": "\ud800"}, "cannot be encoded: .*surrogates"),
        ("rooms", {"key": object()}, "key <object .* cannot be read: expected a number, text"),
        ("rooms", {"key": 1j}, "key 1j of an event of stream 'rooms' cannot be read"),
        ("rooms", {"timestamp": 1759055400.5}, "timestamp 1759055400.5 of type float; expected integer microseconds"),
        ("rooms", {"type": object()}, "cannot be encoded: Type is not JSON"),
        ("rooms", {"value": ENDLESS}, "'value' cannot be read: a value is nested too deeply"),
        ("rooms", {"reading": Reading(math.nan)}, "'reading.heat' is nan"),
        ("rooms", {"level": Level.UNKNOWN}, "'level' is nan"),
        ("my rooms", {}, "stream 'my rooms'; expected letters"),
        ("cell_vitals", {"enrgy": 1.0}, "has no field 'enrgy'"),
        ("cell_vitals", {"energy": "much"}, "field 'energy' of stream 'cell_vitals' is 'much'; expected float32"),
        ("cell_vitals", {"generation": 2**31}, "expected int32"),
    ],
)
def test_an_event_that_no_consumer_could_read_is_refused_where_it_is_made(stream, event, message):
    with astrocyte.connect(NOWHERE, close_timeout_s=0) as publisher:
        with pytest.raises(InvalidEvent, match=message.replace("(", r"\(")):
            publisher.emit(stream, event)
        assert publisher.counts.emitted == 0
    with astrocyte.connect(NOWHERE, close_timeout_s=0, invalid="drop") as publisher:
        assert not publisher.emit(stream, event)
        assert (publisher.counts.emitted, publisher.counts.dropped) == (1, 1)


def test_numpy_values_are_sent_as_numbers():
    message = one_message("rooms", {"value": np.float32(0.5), "n": np.int64(3), "list": np.arange(3)})
    (row,) = received(message, "rooms").rows()
    assert (row["value"], row["n"], row["list"]) == (0.5, 3, "[0,1,2]")


@pytest.mark.parametrize(
    "value",
    [
        2**64,
        -(2**70),
        Decimal("1.1"),
        Decimal(2**70),
        Fraction(1, 3),
        datetime(2026, 1, 1),
        date(2026, 1, 1),
        day_time(1, 2),
        timedelta(seconds=1),
        UUID(int=1),
        Path("/a"),
        b"ab",
        bytearray(b"x"),
        np.float32(0.1),
        np.bool_(True),
        np.arange(3),
        np.datetime64("2026-01-01"),
        np.datetime64("NaT"),
        pd.NA,
        pd.NaT,
        pd.Timestamp("2026-01-01", tz="UTC"),
        Reading(0.5),
        Level.LOW,
        {1, 2},
        (1, 2),
        {1: 2},
        [datetime(2026, 1, 1), UUID(int=1), b"a", 2**70, {"a": Reading(1.0)}],
        None,
        1,
        "a",
        True,
    ],
    ids=repr,
)
def test_a_mapping_is_the_same_event_in_emit_and_in_match(value):
    event = {"stream": "rooms", "timestamp": 5, "key": value, "type": "t", "value": value, "metadata": {"other": value}}
    (matched,) = frames_of_mappings([event], [])[0].rows()
    (emitted,) = received(one_message("rooms", event), "rooms").rows()
    names = ["timestamp", "key", "type", "value", "other"]
    assert [repr(emitted[name]) for name in names] == [repr(matched[name]) for name in names]


DISTINCT = [
    Decimal("12345678901234567.1"), Decimal("12345678901234567.1000000001"), Decimal("0.12345678901234567"),
    Decimal("1.1"), Decimal("5.0"), Decimal(100_000_000_000_000_000_001), 10**20 + 1, -9_300_000_000_000_000_001,
    b"abc", b"\xff\xfe", b"",
]  # fmt: skip


@pytest.mark.parametrize("value", DISTINCT, ids=repr)
def test_what_is_emitted_is_as_distinct_as_the_same_mapping_is_in_match(value):
    event = {"stream": "rooms", "timestamp": 5, "amt": value, "n": value}
    message = one_message("rooms", event)
    contracts = Contracts(correlated={"rooms": ["amt"]})
    (matched,) = frames_of_mappings([event], ["rooms"], contracts=contracts)[0].rows()
    records = [RawRecord(0, 0, message.key, message.value, message.headers)]
    frame, _, _ = records_to_frame(message.topic, 0, "rooms", records, contract=contracts.of_stream("rooms"))
    (emitted,) = frame.rows()
    assert single.key_text(emitted["amt"]) == single.key_text(matched["amt"]) == single.key_text(value)
    assert emitted["n"] == matched["n"]


@pytest.mark.parametrize(
    ("key", "text"),
    [
        (5, "5"),
        (5.0, "5"),
        (0.5, "0.5"),
        (True, "true"),
        (2**70, str(2**70)),
        ("a", "a"),
        ("", ""),
        (None, None),
        (b"abc", "abc"),
        (b"", ""),
        (b"\xff\x00", "0xff00"),
        (UUID(int=1), str(UUID(int=1))),
    ],
)
def test_a_key_is_read_in_one_way_wherever_it_is_stated(key, text):
    (in_match,) = frames_of_mappings([{"stream": "rooms", "timestamp": 5, "key": key}], [])[0].rows()
    encoder = StreamEncoder("rooms")
    assert in_match["key"] == text
    assert encoder.encode({"key": key}, None, 0).key == text
    assert encoder.encode({"key": "the other"}, key, 0).key == ("the other" if key is None else text)


def test_a_data_class_is_an_object_and_a_member_of_an_enumeration_is_its_value():
    message = one_message("rooms", {"reading": Reading(0.5), "level": Level.LOW})
    assert orjson.loads(message.value)["metadata"] == {"reading": {"heat": 0.5}, "level": 1}


def test_later_changes_of_a_mapping_are_not_part_of_the_event():
    event = {"value": 1, "list": [1]}
    encoded = StreamEncoder("rooms").encode(event, None, 0)
    event["value"] = 2
    event["list"].append(2)
    (message,) = messages_of([encoded], "run")
    body = orjson.loads(message.value)
    assert (body["value"], body["metadata"]) == (1, {"list": [1]})


@pytest.mark.parametrize(
    "stream",
    ["alerts", "multi.events", "late", "dead_letters", "rules", "simulations", "metrics.load", "control.ga",
     "keyed.room.rooms", "state.g", "__consumer_offsets", "mono.rooms"],
)  # fmt: skip
def test_a_stream_with_the_name_of_a_topic_of_the_pipeline_is_refused(stream):
    with astrocyte.connect(NOWHERE, close_timeout_s=0) as publisher:
        with pytest.raises(
            InvalidEvent,
            match=r"has the name of a topic that the pipeline itself writes|is the name of a topic; give the stream",
        ):
            publisher.emit(stream, {"value": 1})
        assert publisher.emit("alerts_of_mine", {"value": 1})

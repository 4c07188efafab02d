"""A publisher without a broker: events in the wire form that every reader takes, and the sum of its counts."""

from __future__ import annotations

import errno
import logging
import math
import os
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from datetime import time as day_time
from decimal import Decimal
from enum import Enum
from fractions import Fraction
from itertools import count
from pathlib import Path
from uuid import UUID

import numpy as np
import orjson
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

import astrocyte
from astrocyte import CATALOG, AstrocyteError
from astrocyte.agents.ingest.dicts import frames_of as frames_of_mappings
from astrocyte.pipeline.embed import delivery
from astrocyte.pipeline.embed.delivery import MissedLog
from astrocyte.pipeline.embed.encoding import EncodedEvent, StreamEncoder, messages_of
from astrocyte.pipeline.embed.outbox import Outbox
from astrocyte.pipeline.recording.frames import frames_of
from astrocyte.schemas.errors import InvalidEvent, InvalidSettings
from astrocyte.schemas.events import DnaEvent, MonoEvent
from astrocyte.schemas.json.reader import RawRecord, records_to_frame
from astrocyte.schemas.times import iso_from_us, time_us
from tests.support.waiting import wait_until

NOWHERE = "127.0.0.1:1"
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


@pytest.mark.parametrize(
    ("key", "text"),
    [
        (5, "5"),
        (5.0, "5"),
        (0.5, "0.5"),
        (True, "true"),
        (2**70, str(float(2**70))),
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


def event_of(size: int, seq: int) -> EncodedEvent:
    return EncodedEvent(StreamEncoder("rooms"), seq, 0, None, "rooms", b"null", b"x" * size, None)


ACTIONS = st.one_of(
    st.tuples(st.just("put"), st.integers(1, 400)),
    st.tuples(st.just("take"), st.integers(1, 5)),
    st.tuples(st.sampled_from(["delivered", "logged", "refused", "back"]), st.integers(0, 5)),
)


@given(st.lists(ACTIONS, max_size=60), st.sampled_from(["drop_newest", "drop_oldest"]), st.integers(1, 8))
def test_emitted_is_the_sum_of_the_other_counts_whatever_happens(actions, policy, room):
    reported = []
    outbox = Outbox(room, 2_000, policy, on_drop=reported.append)
    flying: list[int] = []
    accepted = []
    for seq, (name, number) in enumerate(actions):
        if name == "put":
            before = outbox.counts
            taken, _ = outbox.put(event_of(number, seq))
            accepted += [seq] * taken
            assert outbox.counts.emitted == before.emitted + 1
            assert taken or policy == "drop_newest" or flying
        elif name == "take":
            flying += [event.seq for event in outbox.take(number, 10_000)]
        elif name == "back":
            outbox.take_back()
            flying.clear()
        else:
            outbox.settle(flying[:number], None if name == "refused" else name, "no")
            del flying[:number]
        counts = outbox.counts
        assert counts.emitted == counts.delivered + counts.buffered + counts.dropped + counts.logged
        assert counts.dropped == sum(counts.reasons.values())
        assert counts.buffered <= room
    left = outbox.close()
    assert [event.seq for event in left] == sorted(event.seq for event in left)
    assert {event.seq for event in left} <= set(accepted)
    assert len(left) == outbox.counts.buffered
    assert bool(reported) == bool(outbox.counts.dropped)


def test_the_oldest_or_the_newest_event_is_dropped_when_the_buffer_is_full():
    for policy, kept in (("drop_newest", [0, 1]), ("drop_oldest", [2, 3])):
        outbox = Outbox(2, 10_000, policy, on_drop=lambda reason: None)
        for seq in range(4):
            outbox.put(event_of(1, seq))
        assert [event.seq for event in outbox.close()] == kept


@pytest.mark.parametrize("size", [1, 400])
def test_a_broker_that_dies_with_events_in_flight_leaves_others_that_can_go_to_the_log(size):
    outbox = Outbox(1_000, 40_000, "drop_newest", on_drop=lambda reason: None)
    emitted = 0
    while outbox.put(event_of(size, emitted))[0]:
        emitted += 1
    flying = outbox.take(5_000, 4 << 20)  # as much as delivery takes; never confirmed
    while taken := outbox.take(5_000, 4 << 20) if outbox.is_crowded else []:
        outbox.settle([event.seq for event in taken], "logged")
    assert not outbox.is_crowded
    assert outbox.counts.logged + outbox.counts.buffered == emitted
    assert flying


def test_events_that_are_dropped_meanwhile_do_not_end_the_wait_for_earlier_ones():
    outbox = Outbox(2, 10_000, "drop_newest", on_drop=lambda reason: None)
    for seq in range(2):
        outbox.put(event_of(1, seq))
    stop = threading.Event()

    def emit_more():
        for seq in count(2):
            outbox.put(event_of(1, seq))
            if stop.wait(0.001):
                return

    other = threading.Thread(target=emit_more)
    other.start()
    try:
        assert not outbox.wait_empty(0.2)
    finally:
        stop.set()
        other.join()
    assert (outbox.counts.buffered, outbox.counts.dropped > 2) == (2, True)
    while taken := outbox.take(2, 10_000):
        outbox.settle([event.seq for event in taken], "delivered")
    assert outbox.wait_empty(0)


def test_without_a_broker_emit_returns_at_once_and_there_is_one_warning_for_each_fact(caplog):
    caplog.set_level(logging.WARNING)
    began = time.monotonic()
    with astrocyte.connect(NOWHERE, buffer_events=50, close_timeout_s=0.1) as publisher:
        accepted = [publisher.emit("rooms", {"value": n}) for n in range(80)]
        assert accepted == [True] * 50 + [False] * 30
        counts = publisher.counts
        assert (counts.emitted, counts.buffered, counts.dropped) == (80, 50, 30)
        wait_until(lambda: "is unavailable" in caplog.text)
        assert not publisher.flush(0.05)
    assert time.monotonic() - began < 20
    counts = publisher.counts
    assert (counts.emitted, counts.delivered, counts.buffered, counts.dropped) == (80, 0, 0, 80)
    assert set(counts.reasons) == {"the buffer is full", "the publisher was closed before the broker confirmed"}
    assert [caplog.text.count(text) for text in ("is unavailable", "is dropped", "were not delivered")] == [1, 1, 1]
    assert "written to" not in caplog.text


def test_what_cannot_be_sent_is_kept_in_a_log_that_every_tool_reads(tmp_path):
    folder = tmp_path / "missed"
    with astrocyte.connect(NOWHERE, buffer_events=400, missed=folder, close_timeout_s=0) as publisher:
        threads = [
            threading.Thread(
                target=lambda first=first: [
                    publisher.emit("rooms", {"value": n}, key=f"room {n % 7}") for n in range(first, first + 1_000)
                ]
            )
            for first in (0, 1_000, 2_000)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert publisher.counts.buffered < 400 + len(threads)
    counts = publisher.counts
    assert (counts.emitted, counts.logged, counts.dropped, counts.buffered) == (3_000, 3_000, 0, 0)
    (log,) = folder.iterdir()
    found = [row["value"] for _, _, _, frame in frames_of(log) for row in frame.rows()]
    assert sorted(found) == list(range(3_000))


def test_a_publisher_that_is_closed_while_the_log_is_written_writes_no_event_twice(tmp_path, monkeypatch):
    begun, go_on = threading.Event(), threading.Event()
    write = MissedLog.write

    def slow_write(self, events, run):
        begun.set()
        assert go_on.wait(30)
        write(self, events, run)

    monkeypatch.setattr(MissedLog, "write", slow_write)
    folder = tmp_path / "missed"
    publisher = astrocyte.connect(NOWHERE, buffer_events=40, missed=folder)
    for n in range(30):
        publisher.emit("rooms", {"value": n})
    assert begun.wait(30)
    closing = threading.Thread(target=publisher.close, args=(0,))
    closing.start()
    wait_until(lambda: not publisher.emit("rooms", {"value": -1}))  # refused: it is being closed
    go_on.set()
    closing.join()
    (log,) = folder.iterdir()
    found = [row["value"] for _, _, _, frame in frames_of(log) for row in frame.rows()]
    assert [value for value in sorted(found) if value >= 0] == list(range(30))
    assert publisher.counts.logged == len(found)


def test_closing_does_not_wait_for_a_disk_that_hangs(tmp_path, monkeypatch):
    begun, go_on = threading.Event(), threading.Event()

    def hang(_log, _events, _run):
        begun.set()
        go_on.wait()

    monkeypatch.setattr(MissedLog, "write", hang)
    monkeypatch.setattr(delivery, "_GRACE_S", 0.1)
    publisher = astrocyte.connect(NOWHERE, buffer_events=40, missed=tmp_path / "missed")
    for n in range(30):
        publisher.emit("rooms", {"value": n})
    assert begun.wait(30)
    closing = threading.Thread(target=publisher.close, args=(0,), daemon=True)
    closing.start()
    closing.join(20)
    assert not closing.is_alive()
    assert (publisher.counts.dropped, publisher.counts.logged) == (30, 0)
    go_on.set()


def test_a_publisher_that_is_closed_leaves_no_thread():
    before = set(threading.enumerate())
    with astrocyte.connect(NOWHERE, close_timeout_s=0) as publisher:
        publisher.emit("rooms", {"value": 1})
    wait_until(lambda: set(threading.enumerate()) <= before)


def test_a_log_that_is_deleted_under_a_publisher_is_reported_and_begun_again(tmp_path, caplog):
    folder = tmp_path / "missed"
    with astrocyte.connect(NOWHERE, buffer_events=40, missed=folder, close_timeout_s=0) as publisher:
        for n in range(30):
            publisher.emit("rooms", {"value": n})
        wait_until(lambda: publisher.counts.logged > 0)
        (partial,) = folder.iterdir()
        partial.unlink()
        for n in range(30, 60):
            wait_until(lambda: publisher.counts.buffered < 35)
            publisher.emit("rooms", {"value": n})
    assert publisher.counts.dropped == 0
    (log,) = folder.iterdir()
    found = {row["value"] for _, _, _, frame in frames_of(log) for row in frame.rows()}
    assert set(range(50, 60)) <= found
    assert "was deleted or renamed while it was written" in caplog.text


def test_connecting_makes_the_folder_of_missed_events_and_leaves_it_empty(tmp_path):
    with astrocyte.connect(NOWHERE, missed=tmp_path / "new" / "missed", close_timeout_s=0):
        assert list((tmp_path / "new" / "missed").iterdir()) == []


def test_a_disk_that_fails_later_is_logged_at_once_and_counted(tmp_path, monkeypatch, caplog):
    def full(*_arguments: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(delivery.LogWriter, "write", full)
    with astrocyte.connect(NOWHERE, buffer_events=40, missed=tmp_path, close_timeout_s=0) as publisher:
        for n in range(100):
            publisher.emit("rooms", {"value": n})
        assert caplog.text.count("an event is dropped: the log ") == 1
        counts = publisher.counts
        assert counts.dropped + counts.buffered == 100
        ((reason, dropped),) = counts.reasons.items()
        assert (dropped, reason.endswith("No space left on device")) == (counts.dropped, True)
        assert dropped >= 60
    assert publisher.counts.dropped == 100


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


def test_threads_and_coroutines_share_a_publisher():
    with astrocyte.connect(NOWHERE, buffer_events=3_000, close_timeout_s=0) as publisher:
        threads = [
            threading.Thread(target=lambda: [publisher.emit("rooms", {"value": n}) for n in range(1_000)])
            for _ in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        counts = publisher.counts
    assert (counts.emitted, counts.buffered, counts.dropped) == (4_000, 3_000, 1_000)


async def test_closing_does_not_block_the_event_loop():
    async with astrocyte.connect(NOWHERE, close_timeout_s=0.2) as publisher:
        publisher.emit("rooms", {"value": 1})
    assert publisher.counts.dropped == 1
    assert await publisher.aclose() == publisher.counts
    assert not publisher.emit("rooms", {"value": 2})
    assert (publisher.counts.emitted, publisher.counts.dropped) == (2, 2)


def test_events_that_raise_are_not_counted_and_those_after_closing_have_their_own_reason(caplog):
    publisher = astrocyte.connect(NOWHERE, close_timeout_s=0)
    with pytest.raises(InvalidEvent):
        publisher.emit("rooms", {"value": object()})
    assert publisher.counts.emitted == 0
    publisher.close()
    caplog.clear()
    for _ in range(2):
        assert not publisher.emit("rooms", {"value": 1})
    assert dict(publisher.counts.reasons) == {"the publisher was closed before they were emitted": 2}
    (line,) = [record.getMessage() for record in caplog.records]
    assert "an event is dropped: the publisher was closed before they were emitted" in line


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "no name"}, "name 'no name'"),
        ({"name": 5}, "name 5; expected letters"),
        ({"buffer_events": 0}, "buffer_events 0; expected a whole number of 1 or more"),
        ({"buffer_events": 1e6}, "buffer_events 1000000.0; expected a whole number of 1 or more"),
        ({"buffer_bytes": "1MB"}, "buffer_bytes '1MB'; expected a whole number of 1 or more"),
        ({"buffer_bytes": True}, "buffer_bytes True; expected a whole number of 1 or more"),
        ({"close_timeout_s": "5"}, "close_timeout_s '5'; expected a number of seconds, 0 or more"),
        ({"close_timeout_s": -1}, "close_timeout_s -1; expected a number of seconds, 0 or more"),
        ({"close_timeout_s": math.nan}, "close_timeout_s nan; expected a number of seconds, 0 or more"),
        ({"close_timeout_s": math.inf}, "close_timeout_s inf; expected a number of seconds, 0 or more"),
        ({"close_timeout_s": None}, "close_timeout_s None; expected a number of seconds, 0 or more"),
        ({"missed": 5}, "missed 5; expected the name of a folder"),
        ({"overflow": "block"}, "overflow 'block'; expected one of drop_newest, drop_oldest"),
        ({"invalid": "ignore"}, "invalid 'ignore'"),
        ({"missed": __file__}, "no file can be written there \\(File exists\\); expected a folder"),
        ({"missed": "/proc/nope/missed"}, "missed '/proc/nope/missed': no file can be written there"),
    ],
)
def test_wrong_options_are_refused(options, message):
    with pytest.raises(InvalidSettings, match=message):
        astrocyte.connect(NOWHERE, **options)


@pytest.mark.parametrize("timeout_s", ["5", -1, math.nan])
def test_a_wrong_timeout_is_refused_before_anything_is_closed(timeout_s):
    with astrocyte.connect(NOWHERE, close_timeout_s=0) as publisher:
        for method in (publisher.flush, publisher.close):
            with pytest.raises(InvalidSettings, match="expected a number of seconds, 0 or more"):
                method(timeout_s)
        assert publisher.emit("rooms", {"value": 1})


def test_a_program_that_forgets_to_close_ends_and_says_what_was_lost():
    code = f"import astrocyte; p = astrocyte.connect({NOWHERE!r}, close_timeout_s=0.1); p.emit('rooms', {{'value': 1}})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0
    assert "1 of 1 events were not delivered" in done.stderr


def test_a_publisher_is_not_used_in_a_forked_child():
    with astrocyte.connect(NOWHERE, close_timeout_s=0) as publisher:
        child = os.fork()
        if child == 0:
            try:
                publisher.emit("rooms", {"value": 1})
            except AstrocyteError as error:
                os._exit(7 if "after forking" in str(error) else 1)
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7

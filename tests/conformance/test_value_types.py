"""A value keeps its own type: the same matches, values and window results for any cut, order and form of the input."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any
from uuid import UUID

import orjson
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from astrocyte import Engine, load_rules
from astrocyte.agents.domain import Domain, DomainGroup
from astrocyte.agents.expressions.parser import parse
from astrocyte.agents.ingest.dicts import frame_of
from astrocyte.agents.ingest.validate import Validators
from astrocyte.agents.matches.lineage import multi_event_records
from astrocyte.schemas.errors import InvalidEvent, InvalidFrame
from astrocyte.schemas.frames import Frame, decode_frame, encode_frame
from astrocyte.schemas.json.reader import JsonRecord, RawRecord
from tests.support import reference_expressions as reference

Event = dict[str, Any]
Found = list[tuple[str, str, str]]
"""Rule, id and emitted values (as JSON, so that 5 and 5.0 differ) of every match, sorted."""
LATENESS_US = 6
START_US = 1_700_000_000_000_000
ALONE = "x > 3 or x == True or x in ('n/a', 9007199254740993)"
RULES = load_rules(
    f"""
    validators: [{{stream: [A, B], non_finite: keep}}]
    windows:
      - name: w
        from: A
        every: 10us
        select: {{s: sum(x), m: mean(x), lo: min(x), hi: max(x), n: count(x), f: first(x), l: last(x),
                  d: count_distinct(x), t: count_if(x), e: entropy(x), q: median(x)}}
    rules:
      - {{name: alone, seq: [{{as: a, stream: [A, B], where: "{ALONE}"}}], emit: {{v: a.x, w: a.x + 1, y: a.y}}}}
      - name: pair
        within: 10us
        seq:
          - {{as: a, stream: A}}
          - {{as: b, stream: B, where: "x != a.x and (x >= a.x or x in (True, 'n/a', 5))"}}
        emit: {{a: a.x, b: b.x, d: b.x - a.x, most: "max(a.x, b.x)"}}
      - name: burst
        within: 20us
        skip: past_last
        seq: [{{as: a, stream: [A, B], times: 3}}]
        emit: {{s: sum(a.x), m: mean(a.x), lo: min(a.x), hi: max(a.x), n: count(a.x), f: first(a.x), l: last(a.x)}}
      - name: rest
        within: 30us
        skip: past_last
        seq:
          - {{as: a, stream: A, times: 3}}
          - {{as: b, stream: B, where: "sum(a.x) > x or count(a.x) == x or last(a.x) == x"}}
        emit: {{s: sum(a.x), x: b.x}}
      - name: both
        within: 5us
        all: [{{as: a, stream: A}}, {{as: b, stream: B, where: "x == a.x"}}]
        emit: {{v: b.x}}
      - {{name: level, seq: [{{as: w, stream: w}}],
         emit: {{s: w.s, m: w.m, lo: w.lo, hi: w.hi, n: w.n, f: w.f, l: w.l, d: w.d, t: w.t, e: w.e, q: w.q}}}}
    """
)
VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.sampled_from([0, 1, 3, 4, 5, 2**53, 2**53 + 1, -(2**63), 2**63 - 1, 2**63, 2**64 - 1, 2**70, -(2**64)]),
    st.sampled_from([0.0, -0.0, 0.5, 1.0, 4.0, 5.0, 1e16, -1e16, 2.0**53, 2.0**64, math.nan, math.inf, -math.inf]),
    st.integers(-(2**64), 2**65),
    st.floats(),
    st.sampled_from(["", "n/a", "1", "5", "true", "é", "\uffff", "\U00010000"]),
)


@st.composite
def arrivals(draw: Any) -> list[Event]:
    """Events in an order of arrival within the lateness."""
    times = draw(st.lists(st.integers(0, 25), min_size=1, max_size=9))
    events = [
        {
            "event_id": str(UUID(int=draw(st.integers(1, 2**120)) * 64 + number)),
            "stream": draw(st.sampled_from("AB")),
            "timestamp": START_US + time,
            "key": draw(st.sampled_from("kl")),
            "x": draw(VALUES),
            "y": draw(VALUES),
        }
        for number, time in enumerate(times)
    ]
    return sorted(events, key=lambda event: event["timestamp"] + draw(st.integers(0, LATENESS_US - 1)))


def cut(events: Sequence[Event], where: Sequence[int]) -> Iterator[list[Event]]:
    bounds = [0, *sorted({place for place in where if place < len(events)}), len(events)]
    for first, last in pairwise(bounds):
        yield list(events[first:last])


def found_in(records: Sequence[JsonRecord]) -> Found:
    found = []
    for record in records:
        status = dict(record.headers).get("ce_status", b"final")
        body = orjson.loads(record.value)
        if status in (b"final", b"confirmed"):
            values = record.value.partition(b'"metadata":')[2].decode()
            found.append((body["correlation_rule"], body["event_id"], values))
    return sorted(found)


def as_frames(events: Sequence[Event]) -> list[Frame]:
    rows = {stream: [event for event in events if event["stream"] == stream] for stream in "AB"}
    frames = [
        frame_of(stream, [{name: value for name, value in row.items() if name != "stream"} for row in own])
        for stream, own in rows.items()
        if own
    ]
    return [decode_frame(encode_frame(frame)) for frame in frames]


def from_engine(parts: Sequence[Sequence[Event]], form: str, consistency: Any) -> Found:
    engine = Engine(RULES, consistency=consistency)
    records: list[JsonRecord] = []
    newest = 0
    for part in parts:
        if form == "single":
            for event in part:
                engine.push_event(event)
        elif form == "dicts":
            engine.push_events(part)
        else:
            for frame in as_frames(part):
                engine.push(frame)
        newest = max([newest, *(event["timestamp"] for event in part)])
        records += multi_event_records(engine.advance(newest - LATENESS_US).matches)
        if form != "single" and len(records) % 2:  # a restart in between
            state = engine.snapshot()
            engine = Engine(RULES, consistency=consistency)
            engine.restore(state)
    return found_in([*records, *multi_event_records(engine.flush().matches)])


def from_json(parts: Sequence[Sequence[Event]], consistency: Any) -> Found:
    engine = Engine(RULES, consistency=consistency, validated=True)
    topics = {stream: f"mono.{stream}" for stream in "AB"}
    domain = Domain(
        0, [DomainGroup("key", engine, topics)], lateness_us=LATENESS_US, topics=topics.values(),
        validators=Validators(RULES.validators),
    )  # fmt: skip
    records: list[JsonRecord] = []
    offsets = dict.fromkeys("AB", 0)
    for part in parts:
        for stream, topic in topics.items():
            chunk = []
            for event in part:
                if event["stream"] == stream:
                    body = {name: value for name, value in event.items() if name not in ("stream", "key")}
                    value = json.dumps(body).encode()
                    chunk.append(RawRecord(offsets[stream], 0, event["key"].encode(), value))
                    offsets[stream] += 1
            output = domain.feed(topic, chunk)
            assert not output.dead_letters
            assert not output.late
            records += output.multi_events
    return found_in([*records, *domain.flush().multi_events])


@settings(max_examples=max(settings().max_examples // 5, 20))
@given(events=arrivals(), where=st.lists(st.integers(1, 8), max_size=4))
@example(
    events=[
        {"event_id": str(UUID(int=number)), "stream": "A", "timestamp": START_US + number, "key": "k", "x": x, "y": 5}
        for number, x in enumerate([5, "n/a", 2**53 + 1, 0.5, True, 1e16, 1.0, -1e16])
    ],
    where=[1, 4],
)
def test_matches_and_values_are_the_same_for_any_cut_order_and_form(events: list[Event], where: list[int]) -> None:
    ordered = sorted(events, key=lambda event: event["timestamp"])
    wanted = from_engine([ordered], "dicts", "strong")
    node = parse(ALONE)
    alone = {event["event_id"] for event in events if reference.truth(node, event)}
    assert len([rule for rule, _, _ in wanted if rule == "alone"]) == len(alone)
    parts = list(cut(events, where))
    for consistency in ("strong", "eventual"):
        for form in ("dicts", "frames", "single"):
            assert from_engine(parts, form, consistency) == wanted, (form, consistency)
        assert from_json(parts, consistency) == wanted, ("json", consistency)


@pytest.mark.parametrize("consistency", ["strong", "eventual"])
def test_a_lone_surrogate_is_refused_where_it_arrives(consistency: Any) -> None:
    event = {"stream": "A", "timestamp": START_US, "key": "k", "x": "a\ud800"}
    engine = Engine(RULES, consistency=consistency)
    engine.push_event(event)
    engine.push_events([event])
    assert engine.refused == 2
    reasons = [each.reason for each in engine.flush().refused]
    assert [reason.partition(":")[0] for reason in reasons] == [
        "field 'x' holds half a character (a lone surrogate), which is no text"
    ] * 2
    with pytest.raises(InvalidEvent, match="field 'x' holds half a character"):
        Engine(RULES, consistency=consistency, validated=True).push_events([event])
    with pytest.raises(InvalidFrame, match="columns of stream 'A' cannot be read"):
        Frame.from_columns("A", "", {"timestamp": [1], "key": ["k"], "x": ["a\ud800"]})
    domain = Domain(0, [DomainGroup("key", engine, {"A": "mono.A"})], topics=["mono.A"])
    for text in (r'{"timestamp": 1, "x": "a\ud800"}', r'{"timestamp": 1, "x": "a\ud800", "y": NaN}'):
        output = domain.feed("mono.A", [RawRecord(len(domain.positions), 0, b"k", text.encode())])
        (letter,) = output.dead_letters
        assert "not JSON in UTF-8" in letter.reason
        domain = Domain(0, [DomainGroup("key", engine, {"A": "mono.A"})], topics=["mono.A"])

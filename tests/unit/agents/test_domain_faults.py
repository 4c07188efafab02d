"""Faults injected into a domain: what raises because of one row costs that row only, and nothing is lost."""

import logging
from base64 import b64decode
from decimal import Decimal
from itertools import pairwise

import numpy as np
import orjson
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from astrocyte.agents.cep.matcher import Matcher
from astrocyte.agents.domain import Domain, DomainGroup, DomainOutput
from astrocyte.agents.engine.engine import Engine
from astrocyte.agents.ingest import decode, decoders, faults
from astrocyte.agents.ingest.faults import OperatorFailed, apart
from astrocyte.agents.ingest.validate import Validators
from astrocyte.agents.loading import load_rules
from astrocyte.agents.matches import outputs
from astrocyte.agents.matches.outputs import Columns
from astrocyte.agents.windows import WindowOperator
from astrocyte.schemas.errors import TransientError
from astrocyte.schemas.frames import Frame, encode_frame
from astrocyte.schemas.json.reader import LETTER_HEADER, OFFSET_HEADER, RawRecord, records_to_frame

BAD = 13.0
PAIRS = load_rules(
    """
rules:
  - name: pair
    within: 1m
    seq: [{as: a, stream: A}, {as: b, stream: A, where: "value > a.value"}]
    emit: {sum: "a.value + b.value"}
"""
)


@pytest.fixture(autouse=True)
def fresh_faults(monkeypatch):
    monkeypatch.setattr(faults, "_logged", set())


def domain_of(rules, **options) -> Domain:
    return Domain(0, [DomainGroup("key", Engine(rules, validated=True), {"A": "mono.A"})], topics=["mono.A"], **options)


def json_record(offset: int, value: object, **more: object) -> RawRecord:
    body = {"timestamp": f"2026-03-01T10:00:{offset:02}Z", "value": value} | more
    return RawRecord(offset, 1_772_359_200_000, b"k", orjson.dumps(body))


def frame_record(offset: int, values, *, first_seq: int = 0) -> RawRecord:
    count = len(values)
    times = 1_772_359_200_000_000 + (first_seq + np.arange(count)) * 1_000_000
    columns = {"timestamp": times, "key": ["k"] * count, "value": np.array(values, np.float64)}
    frame = Frame.from_columns("A", "run", columns, first_seq=first_seq)
    return RawRecord(offset, 1_772_359_200_000, None, encode_frame(frame))


def run(domain: Domain, *chunks) -> DomainOutput:
    output = DomainOutput()
    for chunk in chunks:
        output.extend(domain.feed("mono.A", chunk))
    output.extend(domain.mark_all_idle())
    output.extend(domain.flush())
    return output


def pairs(output: DomainOutput) -> list[tuple[str, ...]]:
    return sorted(tuple(orjson.loads(record.value)["source_events"]) for record in output.multi_events)


def is_accounted(domain: Domain) -> bool:
    counts = domain.counters
    return counts.received == counts.processed + counts.late + counts.dead + counts.duplicate + counts.sampled


def raising_on_bad(function, values_of):
    """The function, raising where its argument holds the bad value."""

    def wrapped(*arguments, **options):
        if BAD in values_of(*arguments):
            raise ZeroDivisionError("a bug")
        return function(*arguments, **options)

    return wrapped


def values_in(frame: Frame) -> list:
    return frame.column("value").to_pylist() if frame.has("value") else []


def test_a_record_on_which_the_reader_raises_is_one_dead_letter(monkeypatch, caplog):
    reader = raising_on_bad(
        records_to_frame,
        lambda _topic, _partition, _stream, records, *_: [orjson.loads(r.value)["value"] for r in records],
    )
    monkeypatch.setattr(decode, "records_to_frame", reader)
    domain = domain_of(PAIRS)
    records = [json_record(offset, BAD if offset in (3, 5) else float(offset)) for offset in range(8)]
    with caplog.at_level(logging.ERROR):
        output = run(domain, records)
    assert [(letter.offset, letter.stage) for letter in output.dead_letters] == [(3, "decode"), (5, "decode")]
    assert output.dead_letters[0].reason == "decoding a message failed: ZeroDivisionError: a bug"
    assert len(pairs(output)) == 5
    assert len([each for each in caplog.records if each.exc_info]) == 1
    assert is_accounted(domain)


def test_a_frame_on_which_decoding_raises_is_one_dead_letter(monkeypatch):
    def broken(payload, **_):
        if payload == b"\xff\xff\xff\xffbad":
            raise RuntimeError("a bug")
        return decode_frame(payload)

    decode_frame = decode.decode_frame
    monkeypatch.setattr(decode, "decode_frame", broken)
    domain = domain_of(PAIRS)
    output = run(
        domain,
        [frame_record(0, [1.0]), RawRecord(1, 0, None, b"\xff\xff\xff\xffbad"), frame_record(2, [2.0], first_seq=1)],
    )
    assert [(letter.offset, letter.row) for letter in output.dead_letters] == [(1, None)]
    assert len(pairs(output)) == 1
    assert is_accounted(domain)


def test_a_recogniser_that_raises_leaves_frames_and_records_to_their_readers(monkeypatch):
    def broken(_value):
        raise RuntimeError("a bug")

    registry = decoders.Registry("decoder", group="no.such.group", convert=decoders._convert)
    monkeypatch.setattr(decoders, "DECODERS", registry)
    decoders.register_decoder("hive", lambda _message: {}, recognise=broken)
    output = run(domain_of(PAIRS), [json_record(0, 0.0), json_record(1, 1.0), json_record(2, 2.0)])
    assert (len(pairs(output)), output.dead_letters) == (2, [])
    output = run(domain_of(PAIRS), [frame_record(0, [1.0]), frame_record(1, [2.0], first_seq=1)])
    assert (len(pairs(output)), output.dead_letters) == (1, [])


def test_messages_for_which_a_decoder_cannot_work_at_the_moment_are_given_again(monkeypatch):
    domain = domain_of(PAIRS)
    records = [json_record(0, 0.0), json_record(1, 1.0), json_record(2, 2.0)]

    def away(*_arguments):
        raise TransientError("the registry does not answer")

    with monkeypatch.context() as patch:
        patch.setattr("astrocyte.agents.domain.decode_chunk", away)
        with pytest.raises(TransientError):
            domain.feed("mono.A", records)
    assert domain.positions == {}
    assert len(pairs(run(domain, records))) == 2


def make_fault(monkeypatch, where: str) -> None:
    """A bug in one step, that only the bad value reaches."""
    if where == "validate":
        monkeypatch.setattr(
            Validators, "apply", raising_on_bad(Validators.apply, lambda _self, frame: values_in(frame))
        )
    elif where == "match":
        prepare = raising_on_bad(Matcher.prepare, lambda _self, frame, _ref=0: values_in(frame))
        monkeypatch.setattr(Matcher, "prepare", prepare)
    else:
        prepare = raising_on_bad(WindowOperator.prepare, lambda _self, frame: values_in(frame))
        monkeypatch.setattr(WindowOperator, "prepare", prepare)


WINDOWS = load_rules(
    """
windows: [{name: w, from: A, every: 5s, select: {n: count(), total: sum(value)}}]
rules:
  - {name: pair, within: 1m, seq: [{as: a, stream: A}, {as: b, stream: A, where: "value > a.value"}]}
"""
)


def window_rows(output: DomainOutput) -> list[dict]:
    return [row | {"simulation_id": None} for frame in output.frames for row in frame.rows()]


@pytest.mark.parametrize("where", ["validate", "match", "window"])
@pytest.mark.parametrize("form", ["json", "frames"])
@settings(max_examples=15)
@given(
    values=st.lists(st.sampled_from([1.0, 2.0, 3.0, 4.0, BAD]), min_size=1, max_size=24),
    cuts=st.lists(st.integers(1, 23), max_size=3),
)
def test_rows_that_raise_are_dead_letters_and_the_others_give_what_they_give_without_them(where, form, values, cuts):
    bounds = [0, *sorted({cut for cut in cuts if cut < len(values)}), len(values)]
    chunks, clean = [], []
    for number, (first, last) in enumerate(pairwise(bounds)):
        if form == "json":
            records = [json_record(offset, values[offset]) for offset in range(first, last)]
            chunks.append(records)
            clean.append([record for record in records if values[record.offset] != BAD])
        else:
            chunks.append([frame_record(number, values[first:last], first_seq=first)])
            good = [row for row in range(first, last) if values[row] != BAD]
            frame = decode.decode_frame(chunks[-1][0].value).take(np.array(good, np.int64) - first)
            clean.append([RawRecord(number, 0, None, encode_frame(frame))])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(faults, "_logged", set())
        make_fault(patch, where)
        domain = domain_of(WINDOWS)
        output = run(domain, *chunks)
    expected = run(domain_of(WINDOWS), *[chunk for chunk in clean if chunk])
    assert len(output.dead_letters) == values.count(BAD)
    assert {letter.stage for letter in output.dead_letters} <= {"validate" if where == "validate" else "correlate"}
    assert pairs(output) == pairs(expected)
    assert [(row["key"], row["n"], row["total"]) for row in window_rows(output)] == [
        (row["key"], row["n"], row["total"]) for row in window_rows(expected)
    ]
    assert is_accounted(domain)


def test_a_row_that_raised_is_no_duplicate_when_it_comes_again(monkeypatch):
    domain = domain_of(PAIRS, lateness_us=60_000_000)
    with monkeypatch.context() as patch:
        make_fault(patch, "match")
        first = domain.feed("mono.A", [frame_record(0, [1.0, BAD])])
    assert len(first.dead_letters) == 1
    output = run(domain, [frame_record(1, [1.0, BAD])])
    assert domain.counters.duplicate == 1
    assert len(pairs(output)) == 1


def test_an_alert_that_cannot_be_formatted_is_a_dead_letter_and_its_multi_event_is_emitted(monkeypatch):
    def broken(value, spec):
        if value == BAD:
            raise ZeroDivisionError("a bug")
        return text(value, spec)

    text = outputs._text
    monkeypatch.setattr(outputs, "_text", broken)
    rules = load_rules(
        """
rules:
  - name: high
    seq: [{as: a, stream: A, where: "value > 0"}]
    emit: {v: a.value}
    alert: {message: "value {a.value:.1f}"}
"""
    )
    domain = domain_of(rules)
    output = run(domain, [json_record(0, 5.0), json_record(1, BAD), json_record(2, 7.0)])
    assert [orjson.loads(record.value)["metadata"]["v"] for record in output.multi_events] == [5, BAD, 7]
    assert [orjson.loads(record.value)["message"] for record in output.alerts] == ["value 5.0", "value 7.0"]
    (letter,) = output.dead_letters
    assert (letter.stage, letter.topic, letter.partition, letter.offset) == ("alert", "mono.A", 0, 1)
    assert letter.reason == "the alert of rule 'high' failed: ZeroDivisionError: a bug"
    assert orjson.loads(b64decode(letter.payload_b64))["correlation_rule"] == "high"
    assert [(cause, of, detail, found.count) for cause, of, detail, found in domain.unused] == [
        ("failed", "rule 'high'", "alert", 1)
    ]


def test_a_match_whose_emit_raises_is_a_dead_letter_and_the_others_are_emitted(monkeypatch):
    def broken(self, node):
        found = evaluate(self, node)
        if BAD + 1 in found:
            raise ZeroDivisionError("a bug")
        return found

    evaluate = Columns.evaluate
    monkeypatch.setattr(Columns, "evaluate", broken)
    output = run(domain_of(PAIRS), [json_record(0, 1.0), json_record(1, BAD), json_record(2, 20.0)])
    assert sorted(orjson.loads(record.value)["metadata"]["sum"] for record in output.multi_events) == [33.0]
    (letter,) = output.dead_letters
    assert (letter.stage, letter.topic, letter.offset) == ("emit", "mono.A", 1)


def test_an_operator_that_raises_stops_the_domain_with_one_sentence(monkeypatch):
    def broken(_self, _rows):
        raise IndexError("a bug")

    monkeypatch.setattr(WindowOperator, "add", broken)
    domain = domain_of(WINDOWS)
    with pytest.raises(OperatorFailed) as caught:
        run(domain, [json_record(0, 1.0)])
    text = str(caught.value)
    assert "partition 0: rules and windows by key failed" in text
    assert "window 'w' failed: IndexError: a bug" in text
    assert "Nothing of this was acknowledged" in text


@pytest.mark.parametrize(
    "column",
    [
        pa.array([Decimal("1.5")]),
        pa.array([1], pa.duration("s")),
        pa.array([b"\xff"]),
        pa.array(["x"], pa.string_view()),
    ],
    ids=["decimal", "duration", "binary", "string_view"],
)
def test_a_late_event_that_json_cannot_hold_is_a_dead_letter_as_a_frame_of_its_own(column):
    domain = domain_of(load_rules("rules: [{name: r, seq: [{as: a, stream: A}]}]"))
    on_time = Frame.from_columns("A", "run", {"timestamp": np.array([5_000_000]), "key": ["k"]})
    late = Frame.from_columns("A", "run", {"timestamp": np.array([1]), "key": ["k"], "x": column}, first_seq=1)
    output = DomainOutput()
    for offset, frame in enumerate((on_time, late)):
        output.extend(domain.feed("mono.A", [RawRecord(offset, 1_772_359_200_000, None, encode_frame(frame))]))
    assert len(output.late) + len(output.dead_letters) == 1
    for letter in output.dead_letters:
        assert letter.stage in ("late", "correlate")
        (sent,), _ = decode.decode_chunk("mono.A", 0, [RawRecord(2, 0, None, b64decode(letter.payload_b64))])
        assert sent.frame.id_strings() == late.id_strings()
        assert sent.frame.column("x").to_pylist() == column.to_pylist()
    assert is_accounted(domain)


def test_events_without_the_field_of_a_rule_are_counted_and_take_part_in_nothing():
    rules = load_rules("rules: [{name: r, by: device, seq: [{as: a, stream: A}]}]")
    domain = Domain(
        0, [DomainGroup("device", Engine(rules, validated=True), {"A": "mono.A"})], topics=["mono.A"], list_unused=True
    )
    output = run(domain, [json_record(0, 1.0)], [json_record(1, 1.0, device="d"), json_record(2, 1.0, device=None)])
    assert len(output.multi_events) == 1
    assert [(cause, of, detail, found.count, found.example) for cause, of, detail, found in domain.unused] == [
        ("no_key", "A", "device", 2, "mono.A[0]@0")
    ]
    assert [(each.cause, each.offset) for each in output.unused] == [("no_key", 0), ("no_key", 2)]


def test_messages_without_a_kafka_key_are_counted_where_a_topic_is_taken_to_be_partitioned_by_one():
    rules = load_rules("rules: [{name: r, by: device, seq: [{as: a, stream: A}]}]")
    group = DomainGroup("device", Engine(rules, validated=True), {"A": "mono.A"})
    domain = Domain(3, [group], topics=["mono.A"], partitioned_by={"mono.A": "device"})
    keyed = json_record(0, 1.0, device="d")
    keyless = json_record(1, 1.0, device="d")._replace(key=None)
    run(domain, [keyed, keyless], [frame_record(2, [1.0], first_seq=9)])
    said = [(cause, of, detail, found.count, found.example) for cause, of, detail, found in domain.unused]
    assert said[0] == ("unkeyed", "mono.A", "device", 1, "mono.A[3]@1")
    assert [each[0] for each in said[1:]] == ["no_key"]  # the frame has no device
    assert is_accounted(domain)


def test_messages_that_hold_no_key_are_no_sign_of_how_a_topic_is_partitioned():
    rules = load_rules("rules: [{name: r, by: device, seq: [{as: a, stream: A}]}]")
    group = DomainGroup("device", Engine(rules, validated=True), {"A": "mono.A"})
    domain = Domain(3, [group], topics=["mono.A"], partitioned_by={"mono.A": "device"})
    noise = [RawRecord(n, 1_772_359_200_000, None, value) for n, value in enumerate((b"null", b"42", b"{", None))]
    run(domain, [*noise, json_record(4, 1.0)._replace(key=None), json_record(5, 1.0, device="d")])
    assert "unkeyed" not in [cause for cause, *_ in domain.unused]
    assert is_accounted(domain)


def test_apart_finds_every_row_that_raises_in_order():
    bad, taken, refused = {0, 5, 6, 17}, [], []

    def attempt(first, last):
        if bad & set(range(first, last)):
            raise ValueError
        taken.extend(range(first, last))

    apart(18, attempt, lambda row, _error: refused.append(row))
    assert refused == sorted(bad)
    assert taken == [row for row in range(18) if row not in bad]


def test_a_letter_that_is_sent_again_does_not_delay_event_time():
    domain = domain_of(PAIRS)

    def asserting(offset: int, value: float, second: int) -> RawRecord:
        time_us = 1_772_359_200_000_000 + second * 1_000_000
        columns = {"timestamp": np.array([time_us]), "key": ["k"], "value": np.array([value])}
        frame = Frame.from_columns("A", "run", columns, first_seq=offset, origin="run", watermark_us=time_us)
        return RawRecord(offset, 0, None, encode_frame(frame))

    domain.feed("mono.A", [asserting(0, 1.0, 10)])
    headers = [(LETTER_HEADER, b"letter"), (OFFSET_HEADER, b"0")]
    old, new = json_record(3, 1.0), json_record(20, 7.0)
    output = domain.feed("mono.A", [RawRecord(1, 0, b"k", old.value, headers)])
    assert len(output.late) == 1
    domain.feed("mono.A", [RawRecord(2, 0, b"k", new.value, headers), asserting(3, 2.0, 40)])
    assert domain.watermark_us == 1_772_359_240_000_000
    assert domain.counters.late == 1
    assert is_accounted(domain)

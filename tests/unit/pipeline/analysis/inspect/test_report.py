"""Figures of the report: fields, keys, rates, refusals, duplicates; and the screen that shows them."""

from __future__ import annotations

import math

import numpy as np
import orjson
import pytest

from astrocyte.pipeline.analysis.inspect.columns import field_stats, key_stats
from astrocyte.pipeline.analysis.inspect.run import Request, inspect, take_sample
from astrocyte.pipeline.analysis.inspect.spans import span_text
from astrocyte.pipeline.analysis.inspect.text import render
from astrocyte.pipeline.settings import Settings
from astrocyte.schemas.frames import Frame
from tests.support.logs import axon_frame, frame_messages, write_log

START_S = 1_759_055_400


def frame(**columns) -> Frame:
    rows = len(next(iter(columns.values())))
    return Frame.from_columns("s", "", {"timestamp": np.arange(rows), "key": ["k"] * rows, **columns})


def stats_of(*frames: Frame):
    return {each.name: each for each in field_stats(frames)}


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ([1, 2, None], "int64"),
        ([1, 2.5], "float64"),
        ([1.0, 2.5], "float64"),
        (["a", None], "string"),
        ([True, False], "bool"),
        ([1, "a"], None),
        ([True, 1], None),
        ([2**53 + 1, 0.5], None),
        ([2**63, 1], None),
        ([None, None], None),
    ],
)
def test_a_type_is_named_where_all_values_are_of_it(values, kind):
    assert stats_of(frame(x=values))["x"].type == kind


def test_values_are_counted_by_kind_with_range_and_nulls_over_all_frames():
    found = stats_of(frame(x=[1, 2.5, "n/a", None]), frame(y=[True, True]), frame(x=["n/a", -4]))
    x = found["x"]
    assert x.kinds == {"integer": 2, "number": 1, "text": 2}
    assert (x.nulls, x.least, x.most, x.is_mixed) == (3, -4, 2.5, True)
    assert x.values["n/a"] == 2
    assert found["y"].nulls == 6


def test_numbers_that_are_not_finite_have_no_part_in_the_range():
    assert (stats_of(frame(x=[math.nan, math.inf, 2.0, 3.0]))["x"].least, 3.0) == (2.0, 3.0)


def test_fields_have_the_names_that_rules_use():
    assert set(stats_of(frame(seq_=[1], event_id_=["x"], key_=["y"], value=[1]))) == {
        "seq",
        "event_id",
        "key_",
        "value",
    }


def test_keys_are_counted_with_their_share_and_place():
    first = Frame.from_columns("s", "", {"timestamp": np.arange(4), "key": ["a", "a", "b", None]})
    second = Frame.from_columns("s", "", {"timestamp": np.arange(2), "key": ["a", "c"]})
    found = key_stats({0: [first], 1: [second]})
    assert found.counts == {"a": 3, "b": 1, "c": 1}
    assert (found.without, found.spread, found.heaviest) == (1, 1, ("a", 0.5))
    assert found.share_of(2) == pytest.approx(4 / 6)


@pytest.mark.parametrize(
    ("us", "text"),
    [
        (0, "0s"), (25, "25us"), (1500, "1.5ms"), (250_000, "250ms"), (1_250_000, "1.25s"), (90_000_000, "1m 30s"),
        (3_600_000_000, "1h"), (90_061_000_000, "1d 1h"), (3_601_000_000, "1h"),
    ],
)  # fmt: skip
def test_spans_of_time_are_short(us, text):
    assert span_text(us) == text


def lines_file(tmp_path, lines: list[bytes]):
    path = tmp_path / "visits.jsonl"
    path.write_bytes(b"\n".join(lines))
    return path


def inspected(path, **options):
    request = Request(str(path), Settings(), **options)
    return inspect(request, take_sample(request))


def visit(number: int, **more) -> bytes:
    return orjson.dumps({"timestamp": START_S + number, "key": f"k{number % 4}", "page": "home", **more})


def test_rates_are_those_of_event_time(tmp_path):
    lines = [visit(number) for number in range(11)] + [visit(10), visit(10)]
    (report,) = inspected(lines_file(tmp_path, lines)).reports
    assert (report.rate, report.peak, report.span_us) == (1.3, 3, 10_000_000)
    assert report.kafka_rate is None


def test_what_cannot_be_read_is_counted_by_reason_with_the_first_example(tmp_path):
    lines = [
        visit(0),
        b"{broken",
        b"{broken too",
        b'{"timestamp": "yesterday", "key": "x"}',
        b'{"page": "x"}',
        visit(1),
    ]
    lines += [visit(number) for number in range(2, 80)]
    (report,) = inspected(lines_file(tmp_path, lines)).reports
    assert sum(each.count for each in report.refused) == 4
    assert report.reading.events == 80
    first = next(each for each in report.refused if "yesterday" in each.example)
    assert (first.stage, first.count) == ("decode", 1)
    assert first.example.startswith("mono.visits[0]@3: timestamp 'yesterday'")


def test_duplicates_are_counted_by_id_and_by_content(tmp_path):
    ids = "2330661f-e7a1-8453-b7e9-759f7da8266c"
    lines = [visit(0, event_id=ids), visit(1, event_id=ids), visit(2), visit(2)]
    (report,) = inspected(lines_file(tmp_path, lines)).reports
    assert (report.duplicates, report.equal) == (1, 1)


def test_a_sample_is_bounded_and_says_so(tmp_path):
    path = lines_file(tmp_path, [visit(number) for number in range(50)])
    found = inspected(path, limit=20)
    assert (found.complete, found.reports[0].reading.events) == (False, 20)
    assert "the first 20 rows; there are more" in render(found, width=80)
    assert inspected(path, limit=50).complete


def test_frames_of_a_log_are_read_as_events(tmp_path):
    offsets: dict[tuple[str, int], int] = {}
    sent = [
        message
        for seq in range(0, 100, 10)
        for message in frame_messages(
            axon_frame("axon_1", [f"d{i}" for i in range(10)], [seq * 1000 + i for i in range(10)], seq=seq), 2, offsets
        )
    ]
    (report,) = inspected(write_log(tmp_path / "log.jsonl", sent)).reports
    assert (report.reading.events, report.messages, report.counts) == (100, len(sent), {"arrow": len(sent)})
    assert report.key_field == "key"
    assert [(each.name, each.type) for each in report.fields] == [("value", "float64")]


@pytest.mark.parametrize("width", [60, 80, 120])
def test_no_line_is_longer_than_the_terminal(tmp_path, monkeypatch, width):
    monkeypatch.chdir(tmp_path)
    lines = [
        visit(number, note="words and words " * 20, a_field_with_a_rather_long_name_of_its_own=number / 3, odd=odd)
        for number, odd in zip(range(200), ["x", 1, True, None] * 50, strict=True)
    ]
    lines_file(tmp_path, [*lines, b"{broken " + b"x" * 300])
    found = inspected("visits.jsonl")
    text = render(found, width=width)
    assert max(map(len, text.splitlines())) <= width
    assert "mixed" in text

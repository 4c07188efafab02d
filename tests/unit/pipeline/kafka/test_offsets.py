"""Starts and ends in the notations of Astrocyte and of kcat."""

from __future__ import annotations

import pytest

from astrocyte.pipeline.kafka.offsets import Start, parse_offsets, parse_span_us, parse_start, parse_time_us
from astrocyte.schemas.errors import InvalidSettings

NOW = 1_700_000_000_000_000


@pytest.mark.parametrize(
    ("text", "start"),
    [
        ("earliest", Start("earliest")),
        ("beginning", Start("earliest")),
        ("latest", Start("latest")),
        ("end", Start("latest")),
        ("17", Start("offset", 17)),
        ("-5", Start("tail", 5)),
        ("s@1690000000000", Start("time", 1_690_000_000_000)),
        ("2023-11-14T22:13:20Z", Start("time", 1_700_000_000_000)),
        ("2023-11-14T23:13:20+01:00", Start("time", 1_700_000_000_000)),
        ("2023-11-14 22:13:20", Start("time", 1_700_000_000_000)),
        ("10m ago", Start("time", 1_700_000_000_000 - 600_000)),
        ("-10m", Start("time", 1_700_000_000_000 - 600_000)),
        ("now", Start("time", 1_700_000_000_000)),
        ("@1.5", Start("time", 1500)),
    ],
)
def test_a_start_is_an_end_of_the_topic_an_offset_or_a_time(text, start):
    assert parse_start(text, now_us=NOW) == start


@pytest.mark.parametrize("text", ["", "yesterday", "stored", "1.5", "s@", "-", "@x", "10m agoo"])
def test_an_invalid_position_is_refused_with_the_valid_forms(text):
    with pytest.raises(InvalidSettings, match=r"earliest|ISO|2025-09-28T10:30:00Z"):
        parse_start(text, now_us=NOW)


def test_offsets_in_the_language_of_kcat_give_a_start_and_an_end():
    assert parse_offsets(["s@100", "e@200"], now_us=NOW) == (Start("time", 100), 200)
    assert parse_offsets(["-3"], now_us=NOW) == (Start("tail", 3), None)
    assert parse_offsets([], now_us=NOW) == (None, None)
    with pytest.raises(InvalidSettings, match="expected one start, got a second"):
        parse_offsets(["3", "end"], now_us=NOW)


def test_a_span_is_a_duration_or_a_number_of_seconds():
    assert parse_span_us("250ms") == 250_000
    assert parse_span_us("1.5") == 1_500_000
    with pytest.raises(InvalidSettings, match="duration"):
        parse_span_us("soon")


def test_a_time_that_cannot_be_read_is_one_sentence():
    with pytest.raises(InvalidSettings, match=r"expected a time, got .*; write 2025-09-28T10:30:00Z"):
        parse_time_us("32.13.2020", now_us=NOW)

"""Times: reading them in every unit and form, and displaying any of them."""

from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from astrocyte.schemas.errors import InvalidEvent
from astrocyte.schemas.times import (
    CEILING_US,
    DOUBTED_US,
    NEVER_US,
    iso_from_us,
    iso_strings,
    time_us,
    us_from_iso,
    us_from_ms,
    us_of_floats,
    utc_from_us,
)

TEN = 1_772_359_200_000_000
"""2026-03-01T10:00:00Z"""
ANY_INT64 = st.integers(-(2**63), 2**63 - 1)


@pytest.mark.parametrize(
    "value",
    [
        1_772_359_200,
        1_772_359_200_000,
        1_772_359_200_000_000,
        1_772_359_200_000_000_000,
        1_772_359_200_000_000_999,
        1_772_359_200.0,
        np.int64(1_772_359_200_000),
        "1772359200",
        "1772359200000",
        "1772359200000000",
        "1772359200000000000",
        "1772359200.000",
        "1.7723592e9",
        "2026-03-01T10:00:00Z",
        "2026-03-01t10:00:00",
        "2026-03-01T10:00:00z",
        "2026-060T10:00:00Z",
        "2026060T100000z",
        "2026-03-01 10:00:00 UTC",
        "2026-03-01 15:30:00.000 +05:30",
        "20260301T100000Z",
        "2026-03-01T15:30:00.000000999+05:30",
        datetime(2026, 3, 1, 10),
        datetime(2026, 3, 1, 11, tzinfo=timezone(timedelta(hours=1))),
    ],
)
def test_one_moment_is_read_alike_in_every_unit_and_form(value):
    assert time_us(value) == TEN


@pytest.mark.parametrize(
    ("text", "iso"),
    [
        ("1710123100000", "2024-03-11T02:11:40Z"),
        ("1772359200.25", "2026-03-01T10:00:00.250000Z"),
        ("20260301", "2026-03-01T00:00:00Z"),
        ("2026-03-01T24:00:00Z", "2026-03-02T00:00:00Z"),
        ("2026-12-31 24:00 UTC", "2027-01-01T00:00:00Z"),
        ("2026-03-01T24:00:00,000+05:30", "2026-03-01T18:30:00Z"),
        ("20260228T2400Z", "2026-03-01T00:00:00Z"),
    ],
)
def test_numbers_in_quotes_and_hour_24_are_read(text, iso):
    assert iso_from_us(time_us(text)) == iso


@pytest.mark.parametrize(
    "value",
    [
        "2026-03-01T24:00:01Z",
        "2026-03-01T24:30:00Z",
        "2026-03-01x10:00:00",
        "2026-03-01T10:00:00x+05:00",
        "2026-03-01T10:00:00.+05:00",
        "2026-03-01T10:00:00  Z",
        "2026-02-30",
        "2026-366",
        "2026-000",
        "9999-367",
        "yesterday",
        "",
        "UTC",
        " 1772359200",
        "१७७२३५९२००",
        "1e400",
        "9" * 40,
        1e300,
        10**30,
        float("nan"),
        float("-inf"),
        True,
        None,
        [],
    ],
)
def test_what_is_no_time_is_refused_and_nothing_else_is_raised(value):
    with pytest.raises(InvalidEvent, match="expected ISO 8601 text"):
        time_us(value)


@given(
    text=st.sampled_from(["2026-03-01T10:00:00Z", "2026-03-01 10:00:00.5+05:00", "2026-03-01T10:00:00", "1772359200"]),
    at=st.integers(0, 30),
    rest=st.sampled_from(["", "garbage", "+05:00", "Z"]),
)
def test_text_with_a_nul_anywhere_is_no_time(text, at, rest):
    for given_text in (f"{text[:at]}\0{text[at:]}", f"{text[:at]}\0{rest}"):
        with pytest.raises(InvalidEvent):
            time_us(given_text)


@pytest.mark.parametrize(("unit", "factor"), [("s", 1_000_000), ("ms", 1000), ("us", 1)])
@given(number=st.integers(-(2**40), 2**40))
def test_a_declared_unit_decides_whatever_the_magnitude(unit, factor, number):
    assert time_us(number, unit) == time_us(str(number), unit) == number * factor


@pytest.mark.parametrize("value", ["2025", "202509", "-1", "0", "17", "5e18"])
def test_a_number_in_text_that_is_no_time_of_our_days_needs_a_unit(value):
    with pytest.raises(InvalidEvent, match="between the years 1980 and 2100 in no unit; declare its unit, or expected"):
        time_us(value)
    assert time_us(value, "us") == int(float(value))


UNITS = {"s": 10**6, "ms": 10**3, "us": 1, "ns": Fraction(1, 1000)}


@given(st.sampled_from(list(UNITS)), st.integers(DOUBTED_US, CEILING_US - 1), st.text("0123456789", max_size=30))
def test_finer_digits_than_microseconds_are_cut_in_every_form(unit, moment_us, finer):
    whole, rest = divmod(Fraction(moment_us) / UNITS[unit], 1)
    digits = f"{int(rest * 10**6):06}"[: {"s": 6, "ms": 3}.get(unit, 0)]
    number = f"{whole}.{digits}{finer}0"
    assert time_us(number, unit) == time_us(number) == time_us(Decimal(number), unit) == moment_us
    whole_s, us = divmod(moment_us, 10**6)
    text = f"{iso_from_us(whole_s * 10**6)[:-1]}.{us:06}{finer}Z"
    assert time_us(text) == moment_us
    shortest = Fraction(repr(float(number))) * UNITS[unit] // 1
    assert time_us(float(number), unit) == us_of_floats(np.array([float(number)]), unit)[0] == shortest


@given(number=ANY_INT64)
def test_nanoseconds_are_cut_to_microseconds(number):
    assert time_us(number, "ns") == number // 1000


@given(moment=st.datetimes(timezones=st.just(UTC)))
def test_text_of_any_datetime_is_read_back(moment):
    text = iso_from_us(time_us(moment))
    assert utc_from_us(time_us(text)) == moment
    assert us_from_iso(text) == time_us(moment)


@given(numbers=st.lists(ANY_INT64, max_size=5))
def test_any_time_can_be_displayed_and_columns_are_displayed_like_single_times(numbers):
    assert iso_strings(np.array(numbers, np.int64)) == [iso_from_us(number) for number in numbers]


def test_a_time_outside_the_calendar_is_displayed_as_its_number():
    assert iso_from_us(1_772_359_200_000_000 * 1000) == "1772359200000000000 us"
    assert iso_from_us(NEVER_US) == "-9223372036854775808 us"
    assert iso_from_us(10**30).endswith("0 us")
    assert iso_from_us(-62_135_596_800_000_000) == "0001-01-01T00:00:00Z"
    assert iso_from_us(-62_135_596_800_000_001) == "-62135596800000001 us"


def test_kafka_times_in_other_units_are_not_times_of_events():
    assert us_from_ms(1_772_359_200_000) == TEN
    assert [us_from_ms(value) for value in (-1, TEN, TEN * 1000, CEILING_US // 1000)] == [None] * 4

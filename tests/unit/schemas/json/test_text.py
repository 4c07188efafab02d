"""Which JSON records are read a second time for digits that no float has."""

import json
from decimal import Decimal

from hypothesis import example, given
from hypothesis import strategies as st

from astrocyte.schemas.json.text import fraction, has_long_fraction, loads_exact

numbers = st.from_regex(r"-?(0|[1-9][0-9]{0,24})\.[0-9]{1,24}([eE][+-]?[0-9]{1,2})?", fullmatch=True)


@given(numbers, st.text(st.sampled_from('0123456789.-e":,'), max_size=30))
@example("1.2345678901234567e-5", "")
@example("12345678901234567.5", "")
@example("0.1", "1.2.3.4.5.6.7.8.9.10")
def test_a_text_is_read_again_if_a_number_in_it_is_no_float(digits, words):
    text = json.dumps({"words": words}).encode()[:-1] + b', "number": ' + digits.encode() + b"}"
    exact = fraction(digits)
    if isinstance(exact, Decimal):
        assert has_long_fraction(text)
    assert loads_exact(text) == {"words": words, "number": exact}


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False)), st.integers(-(2**63), 2**63 - 1))
def test_a_text_of_floats_and_integers_is_not(floats, integer):
    assert not has_long_fraction(json.dumps([*floats, integer, "2025-01-01T00:00:00.123456Z"]).encode())

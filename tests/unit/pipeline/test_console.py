"""What is printed for people to read."""

import pytest

from astrocyte.pipeline.console import number_text


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (1735689600.0, "1735689600"),
        (1735689600.123456, "1735689600.123456"),
        (-1735689600.5, "-1735689600.5"),
        (999_999.7, "999999.7"),
        (123456.789, "123457"),
        (0.123456789, "0.123457"),
        (2.0, "2"),
        (1e300, "1e+300"),
        (float("inf"), "inf"),
        (float("nan"), "nan"),
    ],
)
def test_no_digit_before_the_point_is_cut(value, shown):
    assert number_text(value) == shown

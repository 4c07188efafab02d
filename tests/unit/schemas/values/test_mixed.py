"""Values of events as columns of declared types."""

import itertools
import math
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, get_args

import pytest

from astrocyte.schemas.catalog import FieldType, arrow_type
from astrocyte.schemas.values.mixed import TYPE_ERRORS, fits, typed_column

VALUES = [
    None, True, 0, -1, 2**31, 2**53, 2**53 + 1, -(2**53), -(2**53) - 1, 2**63 - 1, 2**63, -(2**63), 2**64, 1.0,
    1.5, 1e300, math.nan, math.inf, "", "a", "é", "\ud800", "5", [], [1.5], ["a"], {}, b"a", Decimal(5),
    datetime(2025, 1, 1, tzinfo=UTC),
]  # fmt: skip


@pytest.mark.parametrize(("value", "kind"), list(itertools.product(VALUES, get_args(FieldType))))
def test_a_value_fits_a_type_if_a_column_of_it_can_be_made(value: Any, kind: FieldType) -> None:
    try:
        typed_column([value], arrow_type(kind))
    except TYPE_ERRORS:
        assert not fits(value, arrow_type(kind))
    else:
        assert fits(value, arrow_type(kind))

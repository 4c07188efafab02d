"""Columns of NumPy, pandas and Polars."""

from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from astrocyte import Frame, load_rules, match
from astrocyte.schemas.errors import InvalidFrame
from astrocyte.schemas.times import us_from_numpy

AT_US = 1_796_000_400_000_000
DAY_US = 1_795_996_800_000_000
AT = datetime(2026, 11, 30, 1, tzinfo=UTC)
TEXT = "2026-11-30T01:00:00"
RULES = """
streams: [{name: ev}]
rules: [{name: r, by: key, seq: [{as: a, stream: ev}], emit: {x: a.x}}]
"""


class Polars:
    """Stands for a column of Polars: it exports an Arrow stream, and iterates over columns where it holds lists."""

    dtype = "of Polars"

    def __init__(self, column: pa.Array) -> None:
        self._column = column

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        return pa.chunked_array([self._column]).__arrow_c_stream__(requested_schema)

    def __len__(self) -> int:
        return len(self._column)

    def __iter__(self) -> Any:
        lists = pa.types.is_list(self._column.type)
        values = self._column.to_pylist()
        return iter([Polars(pa.array(each)) if lists and each is not None else each for each in values])

    def to_list(self) -> list[Any]:
        return self._column.to_pylist()


def times(values: Any) -> list[int]:
    columns = {"timestamp": values, "key": ["k"] * len(values)}
    return Frame.from_columns("ev", "", columns).timestamps().tolist()


def matched(x: Any, timestamp: Any = None) -> tuple[list[Any], list[str]]:
    """The values of the rows that match, and why the others are refused."""
    columns = {"timestamp": [AT_US] * len(x) if timestamp is None else timestamp, "key": ["k"] * len(x), "x": x}
    found = match(load_rules(RULES), [Frame.from_columns("ev", "", columns)])
    return [each.emit["x"] for each in found], [each.reason for each in found.refused]


SERIES = pd.Series(np.array([TEXT], "M8[ms]"))
AT_ONE = {
    **{f"numpy {unit}": np.array([TEXT], f"M8[{unit}]") for unit in ("h", "m", "s", "ms", "us", "ns", "10s", "20m")},
    **{f"pandas {unit}": pd.Series(np.array([TEXT], f"M8[{unit}]")) for unit in ("s", "ms", "us", "ns")},
    "pandas with a zone": SERIES.dt.tz_localize("UTC").dt.tz_convert("Asia/Kolkata"),
    "pandas of Arrow": SERIES.astype(pd.ArrowDtype(pa.timestamp("ms"))),
    "pandas of objects": SERIES.dt.tz_localize("UTC").astype(object),
    "pandas text": pd.Series([TEXT]),
    "pandas index": pd.DatetimeIndex([TEXT]),
    "pandas integers with nulls": pd.Series([AT_US], dtype="Int64"),
    "polars ms": Polars(pa.array([AT], pa.timestamp("ms"))),
    "polars ns": Polars(pa.array([AT], pa.timestamp("ns"))),
    "polars integers": Polars(pa.array([AT_US])),
    "arrow s": pa.array([AT], pa.timestamp("s", "UTC")),
    "arrow text": pa.array([TEXT + "Z"]),
    "arrow chunks": pa.chunked_array([pa.array([AT], pa.timestamp("ms"))]),
    "datetimes": [AT],
    "datetimes without a zone": [AT.replace(tzinfo=None)],
    "times of pandas": [pd.Timestamp(AT)],
    "times of NumPy": [np.datetime64(TEXT, "s")],
    "ISO 8601": ["2026-11-30T06:30:00+05:30"],
    "decimals": [Decimal(AT_US)],
    "integers of NumPy": [np.int64(AT_US)],
    "floats": np.array([float(AT_US)]),
    "unsigned": np.array([AT_US], np.uint64),
}  # fmt: skip


@pytest.mark.parametrize("name", AT_ONE)
def test_a_time_is_that_time_whatever_its_type_and_unit(name: str) -> None:
    assert times(AT_ONE[name]) == [AT_US]


@pytest.mark.parametrize(
    "values",
    [np.array([TEXT], "M8[D]"), [date(2026, 11, 30)], Polars(pa.array([date(2026, 11, 30)])), ["2026-11-30"]],
    ids=["numpy", "python", "polars", "text"],
)
def test_a_date_is_its_midnight(values: Any) -> None:
    assert times(values) == [DAY_US]


@given(st.sampled_from(["D", "h", "s", "3s", "ms", "us", "ns", "7ns"]), st.integers(-(10**6), 10**6))
def test_times_of_numpy_are_read_as_columns_as_they_are_one_by_one(unit: str, number: int) -> None:
    values = np.array([number, "NaT"], f"M8[{unit}]")
    wanted = us_from_numpy(values[0])
    assert times(values[:1]) == [wanted]
    assert Frame.from_columns("ev", "", {"timestamp": [0, 0], "key": ["k"] * 2, "x": values}).values("x") == [
        wanted,
        None,
    ]


ABSENT = {
    "pandas": pd.Series(pd.to_datetime([TEXT, None])),
    "pandas objects": pd.Series([AT, None], dtype=object),
    "pandas floats": pd.Series([AT_US, None]),
    "pandas integers": pd.Series([AT_US, None], dtype="Int64"),
    "numpy s": np.array([TEXT, "NaT"], "M8[s]"),
    "masked": np.ma.array([AT_US, 5], mask=[False, True]),
    "masked times": np.ma.array(np.array([TEXT, TEXT], "M8[m]"), mask=[False, True]),
    "arrow": pa.array([AT, None], pa.timestamp("ns")),
    "list": [AT_US, None],
    "NaT": [AT, pd.NaT],
}


@pytest.mark.parametrize("name", ABSENT)
def test_a_row_without_a_time_is_refused_in_words_and_the_others_match(name: str) -> None:
    wanted = ["there is no timestamp (null or NaT); every event needs a time"]
    assert matched([1, 2], ABSENT[name]) == ([1], wanted)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (["n/a"], "row 0: timestamp 'n/a'"),
        (pd.Series([TEXT, "then"]), "row 1: timestamp 'then'"),
        ([AT, timedelta(1)], "row 1: datetime.timedelta"),
        (np.array([5], "m8[ns]"), "row 0: np.timedelta64"),
        ([time(1)], "row 0: datetime.time"),
        ([True], "row 0: True"),
        ([[1]], "row 0: \\[1\\]"),
        ([float("inf")], "row 0: inf"),
        (np.array([2**64 - 1], np.uint64), "too large"),
        ([2**70], "large"),
        (np.array([["2026"]], "M8[h]"), "1 dimension, got 2"),
    ],
)
def test_what_is_no_time_is_refused_with_its_row(values: Any, said: str) -> None:
    with pytest.raises(InvalidFrame, match=said):
        times(values)


MISSING = {
    "text": (pd.Series(["a", None]), ["a", None]),
    "text as objects": (pd.Series(["a", np.nan], dtype=object), ["a", None]),
    "text of Arrow": (pd.Series(["a", None], dtype="string[pyarrow]"), ["a", None]),
    "categories": (pd.Series(["a", None], dtype="category"), ["a", None]),
    "categories of integers": (pd.Series([1, None], dtype="category"), [1, None]),
    "truth values": (pd.Series([True, np.nan], dtype=object), [True, None]),
    "an index": (pd.Index(["a", None]), ["a", None]),
}


@pytest.mark.parametrize("name", MISSING)
def test_missing_values_of_pandas_that_are_no_numbers_are_null(name: str) -> None:
    values, wanted = MISSING[name]
    assert matched(values) == (wanted, [])


@pytest.mark.parametrize(
    "values", [pd.Series([1.5, None]), pd.Series([1, np.nan], dtype=object), ["a", np.nan]], ids=str
)
def test_nan_among_numbers_and_in_lists_is_a_number_that_is_not_finite(values: Any) -> None:
    found, refused = matched(values)
    assert len(found) == 1
    assert refused == ["field 'x' is nan; expected a finite number"]


def test_lists_in_columns_of_polars_are_their_json_text() -> None:
    assert matched(Polars(pa.array([["a"], None]))) == (['["a"]', None], [])
    assert matched(Polars(pa.array([[1.5, np.nan]]))) == ([], ["field 'x' is nan; expected a finite number"])


def test_what_no_event_holds_is_refused_with_the_name_of_its_column() -> None:
    with pytest.raises(InvalidFrame, match=r"column 'x'.*got Period"):
        matched(pd.Series(pd.period_range("2026-01", periods=2, freq="M")))

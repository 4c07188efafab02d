"""Expressions over whole columns of a frame, with NumPy and Arrow.

Text stays dictionary-encoded: a text test runs once per distinct value, followed by one gather over the rows. Integers
are compared as integers. A row whose value is null or NaN is not ``valid``; tests of it are false.
`agents.expressions.numbers` defines numbers and arithmetic: a row's result depends on no other row.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from dataclasses import dataclass
from functools import reduce
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from astrocyte.agents.expressions.nodes import (
    MIRRORED,
    And,
    Arith,
    Call,
    Compare,
    Constant,
    Field,
    IsNull,
    Member,
    Negate,
    Node,
    Not,
    Or,
    Text,
)
from astrocyte.agents.expressions.numbers import EXACT, arithmetic, join_pair, split_integers, whole_or_float

__all__ = ["Columns", "Values", "evaluate", "predicate"]

Flags = NDArray[np.bool_]

_COMPARE: Final[dict[str, Callable[[Any, Any], Any]]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "==": operator.eq,
    "!=": operator.ne,
}
_ARITHMETIC: Final[dict[str, Callable[[Any, Any], Any]]] = {
    "+": np.add, "-": np.subtract, "*": np.multiply, "/": np.divide, "%": np.mod,
}  # fmt: skip
_LEAST: Final = -(2**63)
_SAFE: Final = 2.0**63 - 2.0**12
"""An integer result that is less than this in float64 fits into 64 bits."""


@dataclass(frozen=True, slots=True)
class Values:
    """One column (or one constant for all rows): numbers, booleans or text.

    ``data`` is int64, float64 or bool, or, if ``strings`` is set, the codes of these strings (-1 is null). ``valid`` is
    None if every row has a value. A constant is a 0-dimensional ``data``. If neither int64 nor float64 holds the whole
    numbers of all rows, they are pairs: float64 ``data``, and ``low``, to be added to it.
    """

    data: NDArray[Any]
    valid: Flags | None = None
    strings: pa.Array | None = None
    low: NDArray[np.float64] | None = None

    @property
    def is_valid(self) -> Flags:
        """Flags of the rows that have a value, in the shape of ``data``."""
        if self.strings is not None:
            return np.asarray(self.data >= 0)
        return np.ones(self.data.shape, np.bool_) if self.valid is None else self.valid

    def pair(self) -> tuple[NDArray[np.float64], NDArray[np.float64] | None]:
        """Numbers as pairs of float64 (see `agents.expressions.numbers`); low is None if it is 0 for all rows."""
        if self.data.dtype.kind == "i":
            high, low = split_integers(self.data.reshape(-1))
            return high.reshape(self.data.shape), None if low is None else low.reshape(self.data.shape)
        return self.data.astype(np.float64, copy=False), self.low

    def to_list(self, rows: int) -> list[Any]:
        """The values of ``rows`` rows as Python objects, None where not valid."""
        if self.low is None:
            return list(self.to_arrow(rows).to_pylist())
        parts = (np.broadcast_to(each, (rows,)).tolist() for each in (self.data, self.low, self.is_valid))
        return [whole_or_float(a, b) if valid else None for a, b, valid in zip(*parts, strict=True)]

    def to_arrow(self, rows: int) -> pa.Array:
        """The column as an Arrow array of ``rows`` values, null where not valid; of pairs only the float64 part."""
        data = np.broadcast_to(self.data, (rows,))
        if self.strings is not None:
            return pa.DictionaryArray.from_arrays(pa.array(data, mask=data < 0), self.strings)
        return pa.array(data, mask=None if self.valid is None else ~np.broadcast_to(self.valid, (rows,)))


class Columns:
    """Fields of one record batch by name, each converted once."""

    def __init__(self, column: Callable[[str], pa.Array | None], rows: int) -> None:
        self._column = column
        self._values: dict[str, Values] = {}
        self.rows = rows

    def __getitem__(self, name: str) -> Values:
        values = self._values.get(name)
        if values is None:
            array = self._column(name)
            values = self._values[name] = _null(self.rows) if array is None else _from_arrow(array)
        return values

    def subset(self, rows: NDArray[np.int64]) -> Columns:
        """The same fields, for the given rows only."""
        return _Subset(self, rows)


class _Subset(Columns):
    def __init__(self, whole: Columns, taken: NDArray[np.int64]) -> None:
        super().__init__(lambda _: None, len(taken))
        self._whole = whole
        self._taken = taken

    def __getitem__(self, name: str) -> Values:
        values = self._values.get(name)
        if values is None:
            values = self._values[name] = _take(self._whole[name], self._taken)
        return values


def _take(values: Values, rows: NDArray[np.int64]) -> Values:
    return Values(
        values.data[rows],
        None if values.valid is None else values.valid[rows],
        values.strings,
        None if values.low is None else values.low[rows],
    )


def _null(rows: int) -> Values:
    return Values(np.zeros(rows), np.zeros(rows, np.bool_))


def _from_arrow(array: pa.Array) -> Values:
    kind = array.type
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        array = array.dictionary_encode()
        kind = array.type
    if pa.types.is_dictionary(kind) and pa.types.is_string(kind.value_type):
        codes = array.indices
        data = codes.to_numpy() if codes.null_count == 0 else codes.fill_null(-1).to_numpy()
        if array.dictionary.null_count:
            data = np.where(np.asarray(array.dictionary.is_null())[data], -1, data)
        if len(array.dictionary) > 2 * len(array) + 64:  # a slice of a large dictionary: test only what occurs
            used, data = np.unique(data, return_inverse=True)
            none = int(len(used) > 0 and used[0] < 0)
            return Values(data.astype(np.int32) - none, strings=array.dictionary.take(pa.array(used[none:])))
        return Values(data, strings=array.dictionary)
    if pa.types.is_dictionary(kind):
        array = array.dictionary_decode()
        kind = array.type
    valid = None if array.null_count == 0 else np.asarray(array.is_valid())
    if pa.types.is_integer(kind) or pa.types.is_boolean(kind):
        filled = array if valid is None else array.fill_null(False if pa.types.is_boolean(kind) else 0)
        numbers = filled.to_numpy(zero_copy_only=False)
        if numbers.dtype == np.uint64 and len(numbers) and int(numbers.max()) >= 2**63:
            high, low = split_integers(numbers)
            return Values(high, valid, low=low)
        return Values(numbers if numbers.dtype == np.bool_ else numbers.astype(np.int64, copy=False), valid)
    if pa.types.is_floating(kind):
        return _floats(array.to_numpy(zero_copy_only=False).astype(np.float64, copy=False))
    return _null(len(array))


def _floats(data: NDArray[np.float64], valid: Flags | None = None) -> Values:
    """Numbers in which NaN is null."""
    finite = ~np.isnan(data)
    if finite.all():
        return Values(data, valid)
    return Values(data, finite if valid is None else finite & valid)


def predicate(node: Node, columns: Columns) -> Flags:
    """Flags of the rows for which the condition holds, bool[rows]; null counts as false."""
    values = evaluate(node, columns)
    if values.strings is not None:
        flags = _gather(pc.not_equal(values.strings, ""), values.data)
    else:
        flags = values.data if values.data.dtype == np.bool_ else values.data != 0
        flags = flags if values.valid is None else flags & values.valid
    return flags if flags.ndim else np.full(columns.rows, bool(flags))


def evaluate(node: Node, columns: Columns) -> Values:
    """Values of the expression for every row; it may read fields of the current event only."""
    match node:
        case Field(None, name):
            return columns[name]
        case Constant(None):
            return Values(np.zeros(()), np.zeros((), np.bool_))
        case Constant(str() as text):
            return Values(np.zeros((), np.int32), strings=pa.array([text]))
        case Constant(value):
            return Values(np.asarray(value))
        case And(parts):
            return Values(reduce(np.logical_and, [predicate(part, columns) for part in parts]))
        case Or(parts):
            return Values(reduce(np.logical_or, [predicate(part, columns) for part in parts]))
        case Not(value):
            return Values(~predicate(value, columns))
        case IsNull(value):
            return Values(~evaluate(value, columns).is_valid)
        case Compare(op, left, right):
            return Values(_compare(op, evaluate(left, columns), evaluate(right, columns)))
        case Member(value, values):
            return Values(_member(evaluate(value, columns), values))
        case Text(func, value, part):
            subject = evaluate(value, columns)
            if subject.strings is None:
                return Values(np.zeros(subject.data.shape, np.bool_))
            test = {"contains": pc.match_substring, "startswith": pc.starts_with, "endswith": pc.ends_with}[func]
            return Values(_gather(test(subject.strings, part), subject.data))
        case Arith(op, left, right):
            return _arithmetic(op, evaluate(left, columns), evaluate(right, columns))
        case Negate(value):
            return _arithmetic("-", Values(np.asarray(0)), evaluate(value, columns))
        case Call(func, args):
            return _call(func, [_numeric(evaluate(arg, columns)) for arg in args])
    raise TypeError(f"{type(node).__name__} cannot be evaluated over columns")


def _gather(per_text: pa.Array, codes: NDArray[Any]) -> Flags:
    """Results per distinct string to results per row; code -1 (null) reads the False that is appended."""
    table = np.append(per_text.fill_null(False).to_numpy(zero_copy_only=False).astype(np.bool_), False)
    return np.asarray(table[codes])


def _valid(*values: Values) -> Flags | None:
    masks = [each.valid for each in values if each.valid is not None]
    return reduce(np.logical_and, masks) if masks else None


def _compare(op: str, left: Values, right: Values) -> Flags:
    if (left.strings is None) is not (right.strings is None):  # different types are unequal and have no order
        if op == "!=":
            return np.asarray(left.is_valid & right.is_valid)
        return np.zeros(np.broadcast_shapes(left.data.shape, right.data.shape), np.bool_)
    if left.strings is not None and right.strings is not None:
        return _compare_text(op, left, right)
    flags = _compare_numbers(op, left, right)
    valid = _valid(left, right)
    return np.asarray(flags if valid is None else flags & valid)


def _compare_text(op: str, left: Values, right: Values) -> Flags:
    assert left.strings is not None
    assert right.strings is not None
    if right.data.ndim == 0 and left.data.ndim:
        kernel = {"==": pc.equal, "!=": pc.not_equal, "<": pc.less, "<=": pc.less_equal, ">": pc.greater,
                  ">=": pc.greater_equal}[op]  # fmt: skip
        return _gather(kernel(left.strings, right.strings[0]), left.data)
    if left.data.ndim == 0 and right.data.ndim:
        return _compare_text(MIRRORED[op], right, left)
    a = np.append(np.array(left.strings.to_pylist(), dtype=object), "")[left.data]
    b = np.append(np.array(right.strings.to_pylist(), dtype=object), "")[right.data]
    return np.asarray(_COMPARE[op](a, b), np.bool_) & (left.data >= 0) & (right.data >= 0)


def _compare_numbers(op: str, left: Values, right: Values) -> Flags:
    a, b = left.data, right.data
    if left.low is None and right.low is None:
        if (a.dtype.kind == "f") is (b.dtype.kind == "f") or "b" in (a.dtype.kind, b.dtype.kind):
            return np.asarray(_COMPARE[op](a, b))
        if a.dtype.kind == "f":
            return _compare_numbers(MIRRORED[op], right, left)
        if b.ndim == 0:
            return _compare_to_float(op, a, float(b))
    (a, low), (b, other) = left.pair(), right.pair()
    if low is None and other is None:
        return np.asarray(_COMPARE[op](a, b))
    low, other = (np.zeros(()) if each is None else each for each in (low, other))
    equal = np.asarray(a == b)
    if op in ("==", "!="):
        same = equal & (low == other)
        return np.asarray(same if op == "==" else ~same)
    strict = _COMPARE[op[0]]
    return np.asarray(strict(a, b) | (equal & _COMPARE[op](low, other)))


def _compare_to_float(op: str, a: NDArray[Any], limit: float) -> Flags:
    """Compare integers with one float, exactly: ``x < 1.5`` is ``x <= 1``."""
    if abs(limit) < 2.0**53:
        return np.asarray(_COMPARE[op](a, limit))  # rounding an integer does not move it past such a limit
    if not _LEAST <= limit < -_LEAST:
        return np.full(a.shape, bool(_COMPARE[op](0.0, limit)))
    return np.asarray(_COMPARE[op](a, int(limit)))


def _member(subject: Values, values: tuple[int | float | str | bool, ...]) -> Flags:
    if subject.strings is not None:
        wanted = pa.array([value for value in values if isinstance(value, str)], pa.utf8())
        return _gather(pc.is_in(subject.strings, value_set=wanted), subject.data)
    tests = [_compare("==", subject, Values(np.asarray(value))) for value in values if not isinstance(value, str)]
    return np.asarray(reduce(np.logical_or, tests, np.zeros(subject.data.shape, np.bool_)))


def _numeric(values: Values) -> Values:
    """Operand of arithmetic: text is null, booleans are 0 and 1."""
    if values.strings is not None:
        return Values(np.zeros(values.data.shape), np.zeros(values.data.shape, np.bool_))
    return Values(values.data.astype(np.int64), values.valid) if values.data.dtype == np.bool_ else values


def _arithmetic(op: str, left: Values, right: Values) -> Values:
    left, right = _numeric(left), _numeric(right)
    valid = _valid(left, right)
    if op in "/%":
        nonzero = np.asarray(right.data != 0)
        if not nonzero.all():
            valid = nonzero if valid is None else nonzero & valid
            right = Values(np.where(nonzero, right.data, 1), right.valid, low=right.low)
    integers = left.data.dtype.kind == right.data.dtype.kind == "i"
    if integers and op != "/" and not _overflows(op, left.data, right.data):
        return Values(np.asarray(_ARITHMETIC[op](left.data, right.data)), valid)
    (a, low), (b, other) = left.pair(), right.pair()
    with np.errstate(all="ignore"):
        data = np.asarray(_ARITHMETIC[op](a, b))
        if op == "/":
            return _floats(data, valid)
        if integers and bool(((np.abs(data) < _SAFE) | ~_flags(valid)).all()):
            return Values(np.asarray(_ARITHMETIC[op](left.data, right.data)), valid)
        # For whole numbers float64 is exact below 2**53; a result beyond 2**65 does not fit into 64 bits in any case.
        exact = (np.abs(data) >= EXACT) & (np.abs(data) < 2.0**65)
        if op == "%":
            exact = np.abs(b) >= EXACT
    for each in (low, other):
        if each is not None:
            exact = (exact | (each != 0)) & (np.abs(data) < 2.0**65)
    if valid is not None:
        exact = exact & valid
    if not exact.any():
        return _floats(data, valid)
    exact = np.broadcast_to(exact, data.shape)
    rows = np.flatnonzero(exact)
    sides = (np.broadcast_to(each, data.shape).reshape(-1)[rows].tolist() for each in _parts(a, low, b, other))
    results = [arithmetic(op, join_pair(x, y), join_pair(z, w)) for x, y, z, w in zip(*sides, strict=True)]
    return _with_rows(data, valid, rows, results)


def _flags(valid: Flags | None) -> Flags:
    return np.ones((), np.bool_) if valid is None else valid


def _parts(
    a: NDArray[np.float64], low: NDArray[np.float64] | None, b: NDArray[np.float64], other: NDArray[np.float64] | None
) -> tuple[NDArray[np.float64], ...]:
    none = np.zeros(())
    return a, none if low is None else low, b, none if other is None else other


def _with_rows(data: NDArray[np.float64], valid: Flags | None, rows: NDArray[np.int64], results: list[Any]) -> Values:
    """``data`` with ``results`` in some rows: whole numbers that float64 may not hold, floats, or None."""
    high, low = data.reshape(-1).copy(), np.zeros(data.size)
    high[rows] = [math.nan if value is None else float(value) for value in results]
    low[rows] = [value - int(float(value)) if isinstance(value, int) else 0 for value in results]
    found = _floats(high.reshape(data.shape), valid)
    return Values(found.data, found.valid, low=low.reshape(data.shape)) if low.any() else found


def _overflows(op: str, a: NDArray[Any], b: NDArray[Any]) -> bool:
    if a.size == 0 or b.size == 0 or op == "%":
        return False
    x, y = (max(abs(int(side.max())), abs(int(side.min()))) for side in (a, b))
    return (x * y if op == "*" else x + y) >= 2**63


def _call(func: str, args: list[Values]) -> Values:
    if func == "abs":
        negated = _arithmetic("-", Values(np.asarray(0)), args[0])
        return _choose(np.asarray(args[0].data < 0), negated, args[0])
    if func in ("min", "max"):
        return reduce(lambda a, b: _choose(_compare_numbers("<" if func == "min" else ">", a, b), a, b), args)
    numbers, valid = args[0].data.astype(np.float64), args[0].valid
    inside = numbers >= 0 if func == "sqrt" else numbers > 0
    safe = np.where(inside, numbers, 1.0)
    return Values(np.sqrt(safe) if func == "sqrt" else _log(safe), inside if valid is None else inside & valid)


def _log(data: NDArray[np.float64]) -> NDArray[np.float64]:
    # NumPy's log differs in the last bit from the C library's, which kernels and single events use.
    return np.array([math.log(value) for value in data.reshape(-1).tolist()]).reshape(data.shape)


def _choose(first: Flags, a: Values, b: Values) -> Values:
    """Per row the value of a (where ``first``) or b; null where either is null."""
    valid = _valid(a, b)
    if a.low is None and b.low is None and a.data.dtype.kind == b.data.dtype.kind:
        return Values(np.where(first, a.data, b.data), valid)
    (high, low), (other, rest) = a.pair(), b.pair()
    data = np.where(first, high, other)
    if low is None and rest is None:
        return Values(data, valid)
    high, low, other, rest = _parts(high, low, other, rest)
    return Values(data, valid, low=np.where(first, low, rest))

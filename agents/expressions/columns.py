"""Expressions over whole columns of a frame, with NumPy and Arrow.

Text stays dictionary-encoded: a test of text runs once per distinct value, then one gather a row. Integers are
compared as integers. A row whose value is null or NaN is not ``valid``; tests of it are false.
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
_MIRROR: Final = {"<": ">", "<=": ">=", ">": "<", ">=": "<=", "==": "==", "!=": "!="}
_EXACT: Final = 2**53


@dataclass(frozen=True, slots=True)
class Values:
    """One column (or one constant for all rows): numbers, truth values or text.

    ``data`` is int64, float64 or bool, or the codes of ``texts`` where that is set (-1 is null there). ``valid`` is
    None where every row has a value. A constant is a 0-dimensional ``data``.
    """

    data: NDArray[Any]
    valid: Flags | None = None
    texts: pa.Array | None = None

    @property
    def is_valid(self) -> Flags:
        """Rows that have a value, as an array of the data's shape."""
        if self.texts is not None:
            return np.asarray(self.data >= 0)
        return np.ones(self.data.shape, np.bool_) if self.valid is None else self.valid

    def to_arrow(self, rows: int) -> pa.Array:
        """The column as an Arrow array of ``rows`` values, nulls where not valid."""
        data = np.broadcast_to(self.data, (rows,))
        if self.texts is not None:
            return pa.DictionaryArray.from_arrays(pa.array(data, mask=data < 0), self.texts)
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
        """The same fields for the given rows only."""
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
    return Values(values.data[rows], None if values.valid is None else values.valid[rows], values.texts)


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
        if len(array.dictionary) > 2 * len(array) + 64:  # a slice of a large dictionary: test only what occurs
            used, data = np.unique(data, return_inverse=True)
            none = int(len(used) > 0 and used[0] < 0)
            return Values(data.astype(np.int32) - none, texts=array.dictionary.take(pa.array(used[none:])))
        return Values(data, texts=array.dictionary)
    if pa.types.is_dictionary(kind):
        array = array.dictionary_decode()
        kind = array.type
    valid = None if array.null_count == 0 else np.asarray(array.is_valid())
    if pa.types.is_integer(kind) or pa.types.is_boolean(kind):
        filled = array if valid is None else array.fill_null(False if pa.types.is_boolean(kind) else 0)
        numbers = filled.to_numpy(zero_copy_only=False)
        if numbers.dtype == np.uint64 and len(numbers) and int(numbers.max()) >= 2**63:
            return Values(numbers.astype(np.float64), valid)
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
    """Rows for which the condition holds, bool[rows]; null counts as false."""
    values = evaluate(node, columns)
    if values.texts is not None:
        flags = _gather(pc.not_equal(values.texts, ""), values.data)
    else:
        flags = values.data if values.data.dtype == np.bool_ else values.data != 0
        flags = flags if values.valid is None else flags & values.valid
    return flags if flags.ndim else np.full(columns.rows, bool(flags))


def evaluate(node: Node, columns: Columns) -> Values:
    """Values of the expression for every row; only fields of the current event may occur in it."""
    match node:
        case Field(None, name):
            return columns[name]
        case Constant(None):
            return Values(np.zeros(()), np.zeros((), np.bool_))
        case Constant(str() as text):
            return Values(np.zeros((), np.int32), texts=pa.array([text]))
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
            if subject.texts is None:
                return Values(np.zeros(subject.data.shape, np.bool_))
            test = {"contains": pc.match_substring, "startswith": pc.starts_with, "endswith": pc.ends_with}[func]
            return Values(_gather(test(subject.texts, part), subject.data))
        case Arith(op, left, right):
            return _arithmetic(op, evaluate(left, columns), evaluate(right, columns))
        case Negate(value):
            return _arithmetic("-", Values(np.asarray(0)), evaluate(value, columns))
        case Call(func, args):
            return _call(func, [_numeric(evaluate(arg, columns)) for arg in args])
    raise TypeError(f"{type(node).__name__} cannot be evaluated over columns")


def _gather(per_text: pa.Array, codes: NDArray[Any]) -> Flags:
    """Result per distinct text to result per row; code -1 (null) reads the false that is put last."""
    table = np.append(per_text.fill_null(False).to_numpy(zero_copy_only=False).astype(np.bool_), False)
    return np.asarray(table[codes])


def _valid(*values: Values) -> Flags | None:
    masks = [each.valid for each in values if each.valid is not None]
    return reduce(np.logical_and, masks) if masks else None


def _compare(op: str, left: Values, right: Values) -> Flags:
    if (left.texts is None) is not (right.texts is None):
        return np.zeros(np.broadcast_shapes(left.data.shape, right.data.shape), np.bool_)
    if left.texts is not None and right.texts is not None:
        return _compare_text(op, left, right)
    flags = _compare_numbers(op, left.data, right.data)
    valid = _valid(left, right)
    return np.asarray(flags if valid is None else flags & valid)


def _compare_text(op: str, left: Values, right: Values) -> Flags:
    assert left.texts is not None
    assert right.texts is not None
    if right.data.ndim == 0 and left.data.ndim:
        kernel = {"==": pc.equal, "!=": pc.not_equal, "<": pc.less, "<=": pc.less_equal, ">": pc.greater,
                  ">=": pc.greater_equal}[op]  # fmt: skip
        return _gather(kernel(left.texts, right.texts[0]), left.data)
    if left.data.ndim == 0 and right.data.ndim:
        return _compare_text(_MIRROR[op], right, left)
    a = np.append(np.array(left.texts.to_pylist(), dtype=object), "")[left.data]
    b = np.append(np.array(right.texts.to_pylist(), dtype=object), "")[right.data]
    return np.asarray(_COMPARE[op](a, b).astype(np.bool_) & (left.data >= 0) & (right.data >= 0))


def _compare_numbers(op: str, a: NDArray[Any], b: NDArray[Any]) -> Flags:
    if a.dtype.kind == "f" and b.dtype.kind == "i":
        return _compare_numbers(_MIRROR[op], b, a)
    if a.dtype.kind == "i" and b.dtype.kind == "f":
        if b.ndim == 0:
            return _compare_to_float(op, a, float(b))
        close = np.abs(b) >= _EXACT
        if close.any():  # float64 cannot tell such integers apart: compare those rows as integers
            whole = np.where(close & (np.abs(b) < 2.0**63), b, 0).astype(np.int64)
            exact: Flags = np.where(close & (np.abs(b) < 2.0**63), _COMPARE[op](a, whole), _COMPARE[op](a, b))
            return exact
    return np.asarray(_COMPARE[op](a, b))


def _compare_to_float(op: str, a: NDArray[Any], limit: float) -> Flags:
    """Integers against one float, exactly: ``x < 1.5`` is ``x <= 1``."""
    if not abs(limit) < 2.0**63:
        return np.asarray(_COMPARE[op](a, limit))
    if limit == math.floor(limit):
        return np.asarray(_COMPARE[op](a, int(limit)))
    if op in ("==", "!="):
        return np.full(a.shape, op == "!=")
    below = op in ("<", "<=")
    return np.asarray(a <= math.floor(limit) if below else a >= math.ceil(limit))


def _member(subject: Values, values: tuple[int | float | str | bool, ...]) -> Flags:
    if subject.texts is not None:
        wanted = pa.array([value for value in values if isinstance(value, str)], pa.utf8())
        return _gather(pc.is_in(subject.texts, value_set=wanted), subject.data)
    tests = [_compare("==", subject, Values(np.asarray(value))) for value in values if not isinstance(value, str)]
    return np.asarray(reduce(np.logical_or, tests, np.zeros(subject.data.shape, np.bool_)))


def _numeric(values: Values) -> Values:
    """Text is null to arithmetic, truth values are 0 and 1."""
    if values.texts is not None:
        return Values(np.zeros(values.data.shape), np.zeros(values.data.shape, np.bool_))
    return Values(values.data.astype(np.int64), values.valid) if values.data.dtype == np.bool_ else values


def _arithmetic(op: str, left: Values, right: Values) -> Values:
    left, right = _numeric(left), _numeric(right)
    a, b, valid = left.data, right.data, _valid(left, right)
    if a.dtype.kind == b.dtype.kind == "i" and op != "/" and _overflows(op, a, b):
        a, b = a.astype(np.float64), b.astype(np.float64)
    if op in "/%":
        nonzero = np.asarray(b != 0)
        if not nonzero.all():
            valid = nonzero if valid is None else nonzero & valid
            b = np.where(nonzero, b, 1)
    with np.errstate(all="ignore"):
        match op:
            case "+":
                data = a + b
            case "-":
                data = a - b
            case "*":
                data = a * b
            case "/":
                data = a / b
            case _:
                data = np.mod(a, b)
    data = np.asarray(data)
    return _floats(data, valid) if data.dtype.kind == "f" else Values(data, valid)


def _overflows(op: str, a: NDArray[Any], b: NDArray[Any]) -> bool:
    if a.size == 0 or b.size == 0:
        return False
    x, y = (max(abs(int(side.max())), abs(int(side.min()))) for side in (a, b))
    return (x * y if op == "*" else x + y) >= 2**63


def _call(func: str, args: list[Values]) -> Values:
    valid = _valid(*args)
    data = [arg.data for arg in args]
    if func == "abs":
        return Values(np.abs(data[0]), valid)
    if func in ("min", "max"):
        return Values(reduce(np.minimum if func == "min" else np.maximum, data), valid)
    numbers = data[0].astype(np.float64)
    inside = numbers >= 0 if func == "sqrt" else numbers > 0
    safe = np.where(inside, numbers, 1.0)
    return Values(np.sqrt(safe) if func == "sqrt" else np.log(safe), inside if valid is None else inside & valid)

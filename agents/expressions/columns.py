"""Expressions over whole columns of a frame, with NumPy and Arrow.

A text test runs once per distinct value, followed by one gather over the rows. Integers are compared as integers. Of a
mixed column each kind is evaluated by itself. Tests of null are false. `agents.expressions.numbers` defines numbers and
arithmetic: a row's result depends on no other row.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from functools import reduce
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from astrocyte.agents.expressions.inside import each_holds
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
from astrocyte.agents.expressions.numbers import EXACT, arithmetic, clean, join_pair, split_integers
from astrocyte.agents.expressions.values import (
    NULL,
    Columns,
    Flags,
    Mixed,
    Operand,
    Values,
    bools_of,
    floats,
    numbers_of,
    text_of,
)
from astrocyte.schemas.values.single import LEAST

__all__ = ["evaluate", "predicate", "truth_of"]

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
_TEXT_TESTS: Final[dict[str, Callable[[pa.Array, str], pa.Array]]] = {
    "in": each_holds, "contains": pc.match_substring, "startswith": pc.starts_with, "endswith": pc.ends_with,
}  # fmt: skip
_SAFE: Final = 2.0**63 - 2.0**12
"""An integer result that is less than this in float64 fits into 64 bits."""


def predicate(node: Node, columns: Columns) -> Flags:
    """Flags of the rows for which the condition holds, bool[rows]; null counts as false."""
    flags = truth_of(evaluate(node, columns))
    return flags if flags.ndim else np.full(columns.rows, bool(flags))


def truth_of(values: Operand) -> Flags:
    """Flags of the values that are true, in their shape: true, a number other than 0, or text that is not empty."""
    if isinstance(values, Mixed):
        return np.asarray(reduce(np.logical_or, [truth_of(part) for part in values.parts]))
    if values.strings is not None:
        return _gather(pc.not_equal(values.strings, ""), values.data)
    flags = values.data if values.data.dtype == np.bool_ else values.data != 0
    return np.asarray(flags if values.valid is None else flags & values.valid)


def evaluate(node: Node, columns: Columns) -> Operand:
    """Values of the expression for every row; it may read fields of the current event only."""
    match node:
        case Field(None, name):
            return columns[name]
        case Constant(value):
            return _constant(value)
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
            text = text_of(subject)
            if text is None or text.strings is None:
                return Values(np.zeros(subject.is_valid.shape, np.bool_))
            return Values(_gather(_TEXT_TESTS[func](text.strings, part), text.data))
        case Arith(op, left, right):
            return _arithmetic(op, _numeric(evaluate(left, columns)), _numeric(evaluate(right, columns)))
        case Negate(value):
            return _negated(_numeric(evaluate(value, columns)))
        case Call("present", (value,)):
            return Values(evaluate(value, columns).is_valid.astype(np.int64))
        case Call(func, args):
            return _call(func, [_numeric(evaluate(arg, columns)) for arg in args])
    raise TypeError(f"{type(node).__name__} cannot be evaluated over columns")


def _constant(value: int | float | str | bool | None) -> Values:
    value = clean(value)
    if value is None:
        return NULL
    if isinstance(value, str):
        return Values(np.zeros((), np.int32), strings=pa.array([value], pa.utf8()))
    if isinstance(value, int) and value >= 2**63:
        high, low = split_integers(np.array([value], np.uint64))
        return Values(high[0], low=low[0], whole=np.ones((), np.bool_))
    return Values(np.asarray(value))


def _gather(per_text: pa.Array, codes: NDArray[Any]) -> Flags:
    """Results per distinct string to results per row; code -1 (null) reads the False that is appended."""
    table = np.append(per_text.fill_null(False).to_numpy(zero_copy_only=False).astype(np.bool_), False)
    return np.asarray(table[codes])


def _valid(*values: Values) -> Flags | None:
    masks = [each.valid for each in values if each.valid is not None]
    return reduce(np.logical_and, masks) if masks else None


def _compare(op: str, left: Operand, right: Operand) -> Flags:
    """Values of different kinds are unequal and have no order; a comparison with null is false."""
    if isinstance(left, Values) and isinstance(right, Values):
        if left.strings is not None and right.strings is not None:
            return _compare_text(op, left, right)
        one, two = numbers_of(left), numbers_of(right)
        if one is not None and two is not None:
            return _masked(_compare_numbers(op, one, two), one, two)
    if op == "!=":
        equal = _compare("==", left, right)
        return np.asarray(left.is_valid & right.is_valid & ~equal)
    found = np.zeros(np.broadcast_shapes(left.is_valid.shape, right.is_valid.shape), np.bool_)
    for of_kind, compare in ((numbers_of, _compare_numbers), (bools_of, _compare_bools)):
        a, b = of_kind(left), of_kind(right)
        if a is not None and b is not None:
            found = found | _masked(compare(op, a, b), a, b)
    a, b = text_of(left), text_of(right)
    if a is not None and b is not None:
        found = found | _compare_text(op, a, b)
    return found


def _masked(flags: Flags, left: Values, right: Values) -> Flags:
    valid = _valid(left, right)
    return np.asarray(flags if valid is None else flags & valid)


def _compare_bools(op: str, left: Values, right: Values) -> Flags:
    return np.asarray(_COMPARE[op](left.data, right.data))


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
        if (a.dtype.kind == "f") is (b.dtype.kind == "f"):
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
    if not LEAST <= limit < -LEAST:
        return np.full(a.shape, bool(_COMPARE[op](0.0, limit)))
    return np.asarray(_COMPARE[op](a, int(limit)))


def _member(subject: Operand, values: tuple[int | float | str | bool, ...]) -> Flags:
    found = np.zeros(subject.is_valid.shape, np.bool_)
    text = text_of(subject)
    if text is not None and text.strings is not None:
        wanted = pa.array([value for value in values if isinstance(value, str)], pa.utf8())
        found = found | _gather(pc.is_in(text.strings, value_set=wanted), text.data)
    if text is subject:
        return found
    tests = [_compare("==", subject, _constant(value)) for value in values if not isinstance(value, str)]
    return np.asarray(reduce(np.logical_or, tests, found))


def _numeric(values: Operand) -> Values:
    """Operand of arithmetic: whatever is no number is null."""
    found = numbers_of(values)
    if found is None:
        shape = values.is_valid.shape
        return Values(np.zeros(shape), np.zeros(shape, np.bool_))
    return found


def _negated(value: Values) -> Values:
    return _arithmetic("-", Values(np.asarray(0)), value)


def _arithmetic(op: str, left: Values, right: Values) -> Values:
    valid = _valid(left, right)
    if op in "/%":
        nonzero = np.asarray(right.data != 0)
        if not nonzero.all():
            valid = nonzero if valid is None else nonzero & valid
            right = Values(np.where(nonzero, right.data, 1), right.valid, low=right.low, whole=right.whole)
    integers = left.data.dtype.kind == right.data.dtype.kind == "i"
    if integers and op != "/" and not _overflows(op, left.data, right.data):
        return Values(np.asarray(_ARITHMETIC[op](left.data, right.data)), valid)
    (a, low), (b, other) = left.pair(), right.pair()
    with np.errstate(all="ignore"):
        data = np.asarray(_ARITHMETIC[op](a, b))
        if op == "/":
            return floats(data, valid)
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
    whole = None
    if left.is_integer.any() and right.is_integer.any():
        whole = np.asarray(np.broadcast_to(left.is_integer & right.is_integer, data.shape) & (np.abs(data) < EXACT))
    if not exact.any():
        return floats(data, valid, whole)
    exact = np.broadcast_to(exact, data.shape)
    rows = np.flatnonzero(exact)
    parts = (*_parts(a, low, b, other), left.is_integer, right.is_integer)
    sides = (np.broadcast_to(each, data.shape).reshape(-1)[rows].tolist() for each in parts)
    results = [
        arithmetic(
            op, int(join_pair(x, y)) if one else join_pair(x, y), int(join_pair(z, w)) if two else join_pair(z, w)
        )
        for x, y, z, w, one, two in zip(*sides, strict=True)
    ]
    return _with_rows(floats(data, valid, whole), rows, results)


def _flags(valid: Flags | None) -> Flags:
    return np.ones((), np.bool_) if valid is None else valid


def _parts(
    a: NDArray[np.float64], low: NDArray[np.float64] | None, b: NDArray[np.float64], other: NDArray[np.float64] | None
) -> tuple[NDArray[np.float64], ...]:
    none = np.zeros(())
    return a, none if low is None else low, b, none if other is None else other


def _with_rows(values: Values, rows: NDArray[np.int64], results: list[Any]) -> Values:
    """``values`` with ``results`` in some rows: integers that float64 may not hold, floats, or None."""
    shape = values.data.shape
    high, low = values.data.reshape(-1).copy(), np.zeros(values.data.size)
    whole = np.zeros(high.size, np.bool_) if values.whole is None else values.whole.reshape(-1).copy()
    high[rows] = [math.nan if value is None else float(value) for value in results]
    low[rows] = [value - int(float(value)) if isinstance(value, int) else 0 for value in results]
    whole[rows] = [isinstance(value, int) for value in results]
    found = floats(high.reshape(shape), values.valid, whole.reshape(shape))
    return Values(found.data, found.valid, None, low.reshape(shape), found.whole) if low.any() else found


def _overflows(op: str, a: NDArray[Any], b: NDArray[Any]) -> bool:
    if a.size == 0 or b.size == 0 or op == "%":
        return False
    x, y = (max(abs(int(side.max())), abs(int(side.min()))) for side in (a, b))
    return (x * y if op == "*" else x + y) >= 2**63


def _call(func: str, args: list[Values]) -> Values:
    if func == "abs":
        return _choose(np.asarray(args[0].data < 0), _negated(args[0]), args[0])
    if func in ("min", "max"):
        # Of equal numbers the first one counts.
        return reduce(lambda a, b: _choose(_compare_numbers("<=" if func == "min" else ">=", a, b), a, b), args)
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
    if a.data.dtype.kind == b.data.dtype.kind and all(each is None for each in (a.low, b.low, a.whole, b.whole)):
        return Values(np.where(first, a.data, b.data), valid)
    (high, low), (other, rest) = a.pair(), b.pair()
    data, whole = np.where(first, high, other), np.where(first, a.is_integer, b.is_integer)
    if low is None and rest is None:
        return Values(data, valid, whole=whole)
    high, low, other, rest = _parts(high, low, other, rest)
    return Values(data, valid, None, np.where(first, low, rest), whole)

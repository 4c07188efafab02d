"""The stack machine for conditions over several events (`agents.expressions.bytecode` has its instructions).

On the stack a value is two float64. A number is ``high + low``, exact for whole numbers of 64 bits (`low` is 0 up to
2**53), with ``high`` the nearest float64; so most comparisons are decided by ``high``. Null is NaN and 0, text is NaN
and its number in the table of strings plus 1, false and true are NaN and -1 and -2. If an operator keeps one float64
only, the payload of the NaN says which (NaN boxing): the number of the text, or `FALSE_BOX` and `TRUE_BOX`. Every other
NaN has payload 0.

Strings are equal if their numbers are; their order is that of their UTF-8 bytes, which is the order of code points.
"""
# mypy: disable-error-code="no-untyped-def, no-untyped-call"
# ruff: noqa: PLR0917, PLR0124, SIM109, PLR1714  kernels take arrays one by one and know no sets; x == x tests for NaN

from __future__ import annotations

import math
from typing import Final

import numpy as np

from astrocyte.agents.expressions import numbers
from astrocyte.agents.expressions.bytecode import Op
from astrocyte.agents.jit import at, bits, inner, outer

__all__ = ["BOX", "FALSE", "FALSE_BOX", "TRUE", "TRUE_BOX", "accumulate", "boxed", "rounded", "run"]

BOX: Final = 0x7FF8000000000000
PAYLOAD: Final = 0x0007FFFFFFFFFFFF
FALSE_BOX: Final = BOX + PAYLOAD - 1
TRUE_BOX: Final = BOX + PAYLOAD
FALSE: Final = -1.0
TRUE: Final = -2.0
"""Low parts of the booleans on the stack."""
_EXACT: Final = 2.0**53
_HALF: Final = 2.0**63
_FULL: Final = 2.0**64
_BEYOND: Final = 2.0**65
_SURELY: Final = 2.0**62
(CONST, LOAD, NEG, NOT, ISNULL, NUMBER, NUMBER_OR_ZERO, PRESENT, ABS, SQRT, LOG, ADD, SUB, MUL, DIV, MOD, MIN, MAX, LT,
 LE, GT, GE, EQ, NE, AND, OR) = (int(op) for op in Op)  # fmt: skip

accumulate = inner(numbers.accumulate)


@inner
def boxed(value):
    """What a NaN represents: the number of a string plus 1, `FALSE` or `TRUE`; 0 for null."""
    payload = bits(value) & np.uint64(PAYLOAD)
    if payload >= np.uint64(PAYLOAD - 1):
        return TRUE if payload == np.uint64(PAYLOAD) else FALSE
    return np.float64(payload)


@inner
def fits(v, w):
    """Whether a pair fits into 64 bits."""
    return (v > -_HALF or (v == -_HALF and w >= 0.0)) and (v < _FULL or (v == _FULL and w < 0.0))


@inner
def is_whole(v, w):
    """Whether a number is whole and fits into 64 bits."""
    return (w != 0.0 or v == np.floor(v)) and fits(v, w)


@inner
def rounded(v, w):
    """Low part of a sum that was kept in two parts: 0 unless both make a whole number of 64 bits."""
    return w if w == np.floor(w) and v == np.floor(v) and fits(v, w) else 0.0


@inner
def magnitude(v, w):
    """Absolute value of a whole number, as an unsigned integer."""
    if v < 0.0:
        v = -v
        w = -w
    # A high part of 2**64 is 0 modulo 2**64; the low part is negative then.
    return (np.uint64(v) if v < _FULL else np.uint64(0)) + np.uint64(np.int64(w))


@inner
def pair_of(number, negative):
    """Whole number, given by its absolute value and sign, as a pair."""
    v = np.float64(number)
    w = np.float64(np.int64(number - (np.uint64(v) if v < _FULL else np.uint64(0))))
    if negative:
        return -v, -w
    return v, w


@outer
def sum_of(a, al, b, bl):
    """``a + b`` if it may need more than float64, or a side is not a number."""
    total = a + b
    if not abs(total) < math.inf:
        return total, 0.0
    if is_whole(a, al) and is_whole(b, bl):
        back = total - a
        rest = ((a - (total - back)) + (b - back)) + (al + bl)
        v = total + rest
        w = rest - (v - total)
        if fits(v, w):
            return v, w
    return total, 0.0


@outer
def product_of(a, al, b, bl):
    """``a * b`` if it may need more than float64, or a side is not a number."""
    v = a * b
    if abs(v) < _BEYOND and is_whole(a, al) and is_whole(b, bl):
        m = magnitude(a, al)
        n = magnitude(b, bl)
        negative = (a < 0.0) != (b < 0.0)
        if abs(v) < _SURELY or n == np.uint64(0) or m <= np.uint64(0xFFFFFFFFFFFFFFFF) // n:
            product = m * n
            if not negative or product <= np.uint64(0x8000000000000000):
                return pair_of(product, negative)
    return v, 0.0


@outer
def remainder_of(a, al, b, bl):
    """``a % b`` with the sign of b, of numbers; b is not 0."""
    if is_whole(a, al) and is_whole(b, bl) and (al != 0.0 or bl != 0.0 or abs(b) >= _EXACT):
        n = magnitude(b, bl)
        rest = magnitude(a, al) % n
        if rest != np.uint64(0) and (a < 0.0) != (b < 0.0):
            rest = n - rest
        return pair_of(rest, b < 0.0)
    v = np.fmod(a, b)
    if v != 0.0 and (v < 0.0) != (b < 0.0):
        v += b
    return v, 0.0


@outer
def is_less(strings, arena, a, b):
    """Whether string a sorts before string b; both are given by their numbers plus 1."""
    first = strings[np.int64(a) - 1]
    second = strings[np.int64(b) - 1]
    for k in range(min(first.size, second.size)):
        x = arena[first.start + k]
        y = arena[second.start + k]
        if x != y:
            return x < y
    return first.size < second.size


@outer
def is_before(strings, arena, a, b, closed):
    """Order of two values that are no numbers: text by code point, false before true; none between the two kinds."""
    if a > 0.0 and b > 0.0:
        return not is_less(strings, arena, b, a) if closed else is_less(strings, arena, a, b)
    return a < 0.0 and b < 0.0 and (a > b or (closed and a == b))


@inner
def is_true(strings, v, w):
    """Truth of a value: true, a number that is not 0, or text that is not empty."""
    if v == v:
        return v != 0.0
    return w == TRUE or (w > 0.0 and strings[np.int64(w) - 1].size > 0)


@inner
def run(load, context, code, constants, first, last, strings, arena, stack, low):
    """Truth of the condition with instructions ``first`` to ``last``.

    ``load(context, one, two)`` returns the pair of an operand, text and booleans as boxed NaN. ``strings`` (entries
    with start and size) and ``arena`` (their bytes) are the table of strings; ``stack`` and ``low`` have room for
    MAX_STACK values.
    """
    top = 0
    for pc in range(first, last):
        op = code[at(pc), 0]
        if op <= LOAD:
            if op == LOAD:
                v, w = load(context, code[at(pc), 1], code[at(pc), 2])
                if v != v and w == 0.0:
                    w = boxed(v)
            else:
                v = constants[at(code[at(pc), 1]), 0]
                w = constants[at(code[at(pc), 1]), 1]
            stack[at(top)] = v
            low[at(top)] = w
            top += 1
        elif op <= LOG:
            a = stack[at(top - 1)]
            al = low[at(top - 1)]
            v = a
            w = 0.0
            if op == NOT:
                v = np.nan
                w = FALSE if is_true(strings, a, al) else TRUE
            elif op == ISNULL:
                v = np.nan
                w = TRUE if a != a and al == 0.0 else FALSE
            elif op == PRESENT:
                v = 0.0 if a != a and al == 0.0 else 1.0
            elif op == SQRT:
                v = math.sqrt(a) if a >= 0.0 else np.nan
            elif op == LOG:
                v = math.log(a) if a > 0.0 else np.nan
            elif op == NUMBER_OR_ZERO and a != a:
                v = 0.0
            elif op == NEG or (op == ABS and a < 0.0):
                v = -a
                w = -al if fits(-a, -al) else 0.0
            elif a == a:
                w = al
            stack[at(top - 1)] = v
            low[at(top - 1)] = w
        else:
            top -= 1
            b = stack[at(top)]
            bl = low[at(top)]
            a = stack[at(top - 1)]
            al = low[at(top - 1)]
            v = 0.0
            w = 0.0
            if op <= SUB:
                if op == SUB:
                    b = -b
                    bl = -bl
                v = a + b
                if not (abs(v) < _EXACT and al == 0.0 and bl == 0.0):
                    v, w = sum_of(a, al, b, bl)
            elif op == MUL:
                v = a * b
                if not (abs(v) < _EXACT and al == 0.0 and bl == 0.0):
                    v, w = product_of(a, al, b, bl)
            elif op <= MOD:
                if a != a or b != b or b == 0.0:
                    v = np.nan
                elif op == DIV:
                    v = a / b
                else:
                    v, w = remainder_of(a, al, b, bl)
            elif op <= MAX:
                if a != a or b != b:
                    v = np.nan
                elif (a < b or (a == b and al < bl)) == (op == MIN):
                    v = a
                    w = al
                else:
                    v = b
                    w = bl
            elif op <= GE:
                if op >= GT:  # a > b is b < a
                    a, b = b, a
                    al, bl = bl, al
                closed = op == LE or op == GE
                v = np.nan
                w = FALSE
                if a == a and b == b:
                    w = TRUE if a < b or (a == b and (al < bl or (closed and al == bl))) else FALSE
                elif a != a and b != b and al != 0.0 and bl != 0.0:
                    w = TRUE if is_before(strings, arena, al, bl, closed) else FALSE
            elif op <= NE:
                v = np.nan
                w = FALSE
                same = al == bl and (a == b or (a != a and b != b and al != 0.0))
                if op == EQ:
                    w = TRUE if same else FALSE
                elif not same and (a == a or al != 0.0) and (b == b or bl != 0.0):
                    w = TRUE
            elif op == AND:
                v = np.nan
                w = TRUE if is_true(strings, a, al) and is_true(strings, b, bl) else FALSE
            else:
                v = np.nan
                w = TRUE if is_true(strings, a, al) or is_true(strings, b, bl) else FALSE
            stack[at(top - 1)] = v
            low[at(top - 1)] = w
    return is_true(strings, stack[0], low[0])

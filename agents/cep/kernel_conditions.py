"""Helpers of the automaton: conditions over events matched earlier (see `agents.cep.kernel`)."""
# mypy: disable-error-code="no-untyped-def, no-untyped-call"
# ruff: noqa: PLR0917, PLR0124  kernels take their arrays one by one; x == x is the test for NaN

from __future__ import annotations

import numpy as np

from agents.cep.jit import inner
from agents.cep.kernel_layout import (
    L_RUNNING,
    O_ABS,
    O_AND,
    O_COLUMN,
    O_CONST,
    O_DIV,
    O_EQ,
    O_GE,
    O_GT,
    O_ISNULL,
    O_LE,
    O_LOG,
    O_LT,
    O_MAX,
    O_MIN,
    O_MOD,
    O_MUL,
    O_NE,
    O_NEG,
    O_NOT,
    O_SLOT,
    O_SQRT,
    O_SUB,
    O_TIME,
    P_CODE0,
    P_SLOT0,
    SUM,
    TEXT,
)


@inner
def evaluate(T, S, X, r, d, node, B, i):
    """Truth of dynamic condition d of rule r for a chain and the current event.

    Every value is a pair (high, low) whose sum is exact for 64-bit integers.
    """
    stack = X.stack
    low = X.low
    top = 0
    base = T.rules[r, P_CODE0]
    for pc in range(T.code0[base + d], T.code0[base + d + 1]):
        op = T.code[pc, 0]
        arg = T.code[pc, 1]
        if op <= O_TIME:
            v = 0.0
            w = 0.0
            if op == O_COLUMN:
                v = B.columns[arg, i]
                if B.lows.shape[0] > 0:
                    w = B.lows[arg, i]
            elif op == O_SLOT:
                if node >= 0:
                    v = S.V[node, arg]
                    if S.W.shape[0] > 1:
                        w = S.W[node, arg]
                elif T.slots[T.rules[r, P_SLOT0] + arg, L_RUNNING] > SUM:
                    v = np.nan
            elif op == O_CONST:
                v = T.consts[arg, 0]
                w = T.consts[arg, 1]
            else:
                v = float(B.t[i])
            stack[top] = v
            low[top] = w
            top += 1
        elif op <= O_LOG:
            a = stack[top - 1]
            v = 0.0
            if op == O_NEG:
                v = -a
                low[top - 1] = -low[top - 1]
            else:
                if op == O_NOT:
                    v = 0.0 if a == a and a != 0.0 else 1.0
                elif op == O_ISNULL:
                    v = 1.0 if a != a else 0.0
                elif op == O_ABS:
                    v = abs(a)
                elif op == O_SQRT:
                    v = np.sqrt(a) if a >= 0.0 else np.nan
                else:
                    v = np.log(a) if a > 0.0 else np.nan
                if op == O_ABS:
                    low[top - 1] = -low[top - 1] if a < 0.0 else low[top - 1]
                else:
                    low[top - 1] = 0.0
            stack[top - 1] = v
        else:
            top -= 1
            b = stack[top]
            bl = low[top]
            a = stack[top - 1]
            al = low[top - 1]
            v = 0.0
            w = 0.0
            if op <= O_SUB:
                if op == O_SUB:
                    b = -b
                    bl = -bl
                total = a + b
                back = total - a
                w = al + bl + ((a - (total - back)) + (b - back))
                v = total + w
                w = w - (v - total)
                if w != w:
                    w = 0.0
            elif op <= O_MOD:
                if op == O_MUL:
                    v = a * b
                elif b == 0.0 or b != b:
                    v = np.nan
                elif op == O_DIV:
                    v = a / b
                else:
                    v = a - np.floor(a / b) * b
            elif op <= O_MAX:
                first = a < b or (a == b and al < bl)
                if a != a or b != b:
                    v = np.nan
                elif first == (op == O_MIN):
                    v = a
                    w = al
                else:
                    v = b
                    w = bl
            elif op <= O_GE:
                if abs(a) < TEXT and abs(b) < TEXT:
                    if op == O_LT:
                        v = 1.0 if a < b or (a == b and al < bl) else 0.0
                    elif op == O_LE:
                        v = 1.0 if a < b or (a == b and al <= bl) else 0.0
                    elif op == O_GT:
                        v = 1.0 if a > b or (a == b and al > bl) else 0.0
                    else:
                        v = 1.0 if a > b or (a == b and al >= bl) else 0.0
            elif op == O_EQ:
                v = 1.0 if a == b and al == bl else 0.0
            elif op == O_NE:
                v = 1.0 if a == a and b == b and (a != b or al != bl) and ((abs(a) < TEXT) == (abs(b) < TEXT)) else 0.0
            elif op == O_AND:
                v = 1.0 if a == a and b == b and a != 0.0 and b != 0.0 else 0.0
            else:
                v = 1.0 if (a == a and a != 0.0) or (b == b and b != 0.0) else 0.0
            stack[top - 1] = v
            low[top - 1] = w
    return stack[0] == stack[0] and stack[0] != 0.0


@inner
def holds(T, S, X, r, c0, c1, word, node, B, i):
    """Whether a term of [c0, c1) holds.

    Dynamic conditions are evaluated only where the static part of a term holds, and once for each run and event.
    """
    for c in range(c0, c1):
        if (word & T.terms[c, 0]) != T.terms[c, 1]:
            continue
        care = T.terms[c, 2]
        if care != 0:
            missing = care & ~X.flags[0]
            d = 0
            while missing != 0:
                if missing & np.uint64(1):
                    bit = np.uint64(1) << np.uint64(d)
                    X.flags[0] |= bit
                    if evaluate(T, S, X, r, d, node, B, i):
                        X.flags[1] |= bit
                    else:
                        X.flags[1] &= ~bit
                missing >>= np.uint64(1)
                d += 1
            if (X.flags[1] & care) != T.terms[c, 3]:
                continue
        return True
    return False

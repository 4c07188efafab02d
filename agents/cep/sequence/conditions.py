"""Helpers of the automaton: conditions over events matched earlier (see `agents.cep.sequence.step`)."""
# mypy: disable-error-code="no-untyped-def, no-untyped-call"
# ruff: noqa: PLR0917, PLR0124  kernels take arrays one by one, know no generators; x == x tests for NaN

from __future__ import annotations

import numpy as np

from astrocyte.agents.cep.sequence.layout import (
    E_TERM0,
    E_TERM1,
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
    S_EDGE0,
    S_EDGE1,
    SUM,
    TEXT,
)
from astrocyte.agents.jit import at, inner, outer


@outer
def evaluate(code, consts, first, last, slots, values, lows, node, columns, column_lows, i, time, stack, low):
    """Truth of the condition with instructions first to last, for the running values of a node and row i.

    Every value is a pair (high, low) whose sum is exact for 64-bit integers. ``slots`` are those of the rule.
    """
    top = 0
    for pc in range(first, last):
        op = code[at(pc), 0]
        arg = code[at(pc), 1]
        if op <= O_TIME:
            v = 0.0
            w = 0.0
            if op == O_COLUMN:
                v = columns[at(arg), at(i)]
                if column_lows.shape[0] > 0:
                    w = column_lows[at(arg), at(i)]
            elif op == O_SLOT:
                if node >= 0:
                    v = values[at(node), at(arg)]
                    if lows.shape[0] > 1:
                        w = lows[at(node), at(arg)]
                elif slots[at(arg), L_RUNNING] > SUM:
                    v = np.nan
            elif op == O_CONST:
                v = consts[at(arg), 0]
                w = consts[at(arg), 1]
            else:
                v = float(time)
            stack[at(top)] = v
            low[at(top)] = w
            top += 1
        elif op <= O_LOG:
            a = stack[at(top - 1)]
            v = 0.0
            if op == O_NEG:
                v = -a
                low[at(top - 1)] = -low[at(top - 1)]
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
                    low[at(top - 1)] = -low[at(top - 1)] if a < 0.0 else low[at(top - 1)]
                else:
                    low[at(top - 1)] = 0.0
            stack[at(top - 1)] = v
        else:
            top -= 1
            b = stack[at(top)]
            bl = low[at(top)]
            a = stack[at(top - 1)]
            al = low[at(top - 1)]
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
            stack[at(top - 1)] = v
            low[at(top - 1)] = w
    return stack[0] == stack[0] and stack[0] != 0.0


@inner
def truths(T, S, X, r, needed, node, B, i):
    """Truth of the dynamic conditions in the set ``needed``, as bits."""
    found = np.uint64(0)
    bit = np.uint64(1)
    d = 0
    while needed != 0:
        if needed & np.uint64(1):
            simple = T.rules[at(r), P_CODE0] + d
            compare = T.simple[at(simple), 0]
            if compare != 0 and node >= 0 and B.lows.shape[0] == 0 and S.W.shape[0] <= 1:
                a = B.columns[at(T.simple[at(simple), 1]), at(i)]
                b = S.V[at(node), at(T.simple[at(simple), 2])]
                truth = a < b
                if compare == O_GT:
                    truth = a > b
                elif compare == O_GE:
                    truth = a >= b
                elif compare == O_LE:
                    truth = a <= b
                truth = truth and abs(a) < TEXT and abs(b) < TEXT
            else:
                truth = evaluate(
                    T.code, T.consts, T.code0[at(simple)], T.code0[at(simple + 1)], T.slots[T.rules[at(r), P_SLOT0] :],
                    S.V, S.W, node, B.columns, B.lows, i, B.t[at(i)], X.stack, X.low,
                )  # fmt: skip
            if truth:
                found |= bit
        needed >>= np.uint64(1)
        bit <<= np.uint64(1)
        d += 1
    return found


@inner
def undecided(T, state, word):
    """Dynamic conditions on which the edges of the state depend, given the static word, as bits."""
    needed = np.uint64(0)
    e0 = T.states[at(state), S_EDGE0]
    for half in range(2 * (T.states[at(state), S_EDGE1] - e0)):
        e = e0 + (half >> 1)
        for c in range(T.edges[at(e), at(E_TERM0 + 2 * (half & 1))], T.edges[at(e), at(E_TERM1 + 2 * (half & 1))]):
            if (word & T.terms[at(c), 0]) == T.terms[at(c), 1]:
                needed |= T.terms[at(c), 2]
    return needed


@inner
def holds(T, c0, c1, word, truth):
    """Whether a term of [c0, c1) holds for the static word and the truth of dynamic conditions."""
    for c in range(c0, c1):
        if (word & T.terms[at(c), 0]) == T.terms[at(c), 1] and (truth & T.terms[at(c), 2]) == T.terms[at(c), 3]:
            return True
    return False

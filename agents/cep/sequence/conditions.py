"""Helpers of the sequence kernel: conditions over events matched earlier (see `agents.cep.sequence.step`)."""
# mypy: disable-error-code="no-untyped-def, no-untyped-call"
# ruff: noqa: PLR0917, PLR1714, SIM109  kernels take arrays one by one and know no sets

from __future__ import annotations

import numpy as np

from astrocyte.agents.cep.compiler.running_values import FROM_COLUMN, FROM_SLOT
from astrocyte.agents.cep.sequence.layout import (
    E_TERM0,
    E_TERM1,
    L_RUNNING,
    P_CODE0,
    P_SLOT0,
    S_EDGE0,
    S_EDGE1,
    SUM,
)
from astrocyte.agents.expressions.vm import GE, GT, LE, rounded, run
from astrocyte.agents.jit import at, inner, outer


@inner
def load(context, source, index):
    """An operand: a field of row i, a running value of a node (-1: no events), or the time."""
    slots, values, lows, node, columns, column_lows, i, time = context
    v = 0.0
    w = 0.0
    if source == FROM_COLUMN:
        v = columns[at(index), at(i)]
        if column_lows.shape[0] > 0:
            w = column_lows[at(index), at(i)]
    elif source == FROM_SLOT:
        if node >= 0:
            v = values[at(node), at(index)]
            if lows.shape[0] > 1:
                w = lows[at(node), at(index)]
                if w != 0.0 and slots[at(index), L_RUNNING] == SUM:
                    w = rounded(v, w)
        elif slots[at(index), L_RUNNING] > SUM:
            v = np.nan
    else:
        v = float(time)
    return v, w


@outer
def evaluate(code, consts, first, last, slots, values, lows, node, columns, column_lows, i, time, strings, arena, stack,
             low):  # fmt: skip
    """Truth of a condition for the running values of a node and row i; ``slots`` are the rule's running values."""
    context = (slots, values, lows, node, columns, column_lows, i, time)
    return run(load, context, code, consts, first, last, strings, arena, stack, low)


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
            decided = False
            truth = False
            if compare != 0 and node >= 0:
                a = B.columns[at(T.simple[at(simple), 1]), at(i)]
                b = S.V[at(node), at(T.simple[at(simple), 2])]
                # Pairs are ordered by their high parts; if these are equal or null, the whole condition is evaluated.
                decided = a < b or a > b or (a == b and B.lows.shape[0] == 0 and S.W.shape[0] <= 1)
                truth = (a > b if compare >= GT else a < b) or (a == b and (compare == LE or compare == GE))
            if not decided:
                truth = evaluate(
                    T.code, T.consts, T.code0[at(simple)], T.code0[at(simple + 1)], T.slots[T.rules[at(r), P_SLOT0] :],
                    S.V, S.W, node, B.columns, B.lows, i, B.t[at(i)], T.strings, T.arena, X.stack, X.low,
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

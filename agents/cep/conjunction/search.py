"""Choice of the events of a match by the conjunction operator.

A *candidate* of an event e is a choice of one waiting event (or e) for each positive step, all distinct, e among them,
within the window, all conditions true, and no event forbidden by a negated step after the first of them up to the
last. The pairing decides which candidates match:

- ``once``: the one with the oldest event for the first step, then for the second, and so on; its events are used up;
- ``each``: all, in that order; no event is used up;
- ``latest``: the one with the newest event for the first step, then for the second, and so on; no event is used up.
"""
# ruff: noqa: PLR0917, PLR1714, SIM108, SIM109  numba takes plain code and positional arguments
# mypy: disable-error-code="no-untyped-def, no-untyped-call, assignment"

from __future__ import annotations

import numpy as np

from astrocyte.agents.cep.conjunction.waiting_lists import (
    C_LEVEL,
    C_OWNER,
    EMPTY,
    G_HIGH,
    G_WORK,
    LATEST,
    R_COND0,
    R_COND1,
    R_POLICY,
    R_POSITIVE,
    R_SLOTS,
    SPENT,
    START,
    at,
    before,
    event_of,
    first_of,
    holds,
    last_of,
)
from astrocyte.agents.jit import inner, outer

__all__ = ["search"]


@inner
def stands(B, S, X, E, rule, slot, i):
    """Whether the event chosen for ``slot`` is compatible with those chosen for the slots before it."""
    event = event_of(S, rule, X.chosen[slot])
    for j in range(slot):
        if event_of(S, rule, X.chosen[j]) == event:
            return False
    for c in range(B.rules[rule, R_COND0], B.rules[rule, R_COND1]):
        if B.conditions[c, C_LEVEL] == slot and not holds(B, S, X, E, rule, c, i):
            return False
    return True


@outer
def is_forbidden(B, S, X, E, rule, row, roles, i):
    """Whether an event forbidden under a condition occurred after the first of the chosen events."""
    positive = B.rules[rule, R_POSITIVE]
    high = S.rules[rule, G_HIGH]
    chosen = X.chosen
    first = high
    for j in range(positive):
        first = min(first, event_of(S, rule, chosen[j]))
    for slot in range(positive, B.rules[rule, R_SLOTS]):
        x = last_of(S, rule, row, slot) if row >= 0 else np.int64(-1)
        if (roles >> slot) & 1:
            x = high
        while x >= 0 and event_of(S, rule, x) > first:
            chosen[slot] = x
            every = True
            for c in range(B.rules[rule, R_COND0], B.rules[rule, R_COND1]):
                if B.conditions[c, C_OWNER] == slot and not holds(B, S, X, E, rule, c, i):
                    every = False
                    break
            chosen[slot] = EMPTY
            if every:
                return True
            if x < high:
                x = before(S, rule, x)
            else:
                x = last_of(S, rule, row, slot) if row >= 0 else np.int64(-1)
    return False


@outer
def search(B, S, X, E, rule, row, roles, i, again):
    """Choose the next candidate of the current event in the order of the pairing; ``again`` resumes after the last.

    The current event is entered in ``chosen`` as the ring's high mark.
    """
    chosen = X.chosen
    positive = B.rules[rule, R_POSITIVE]
    latest = B.rules[rule, R_POLICY] == LATEST
    high = S.rules[rule, G_HIGH]
    mine = roles & ((np.int64(1) << positive) - 1)
    used = np.int64(-1)
    j = np.int64(0)
    if again:
        j = positive - 1
        for slot in range(positive):
            if chosen[slot] == high:
                used = slot
    else:
        chosen[0] = START
        for slot in range(positive, B.rules[rule, R_SLOTS]):
            chosen[slot] = EMPTY
    while j >= 0:
        S.rules[rule, G_WORK] += 1
        x = chosen[j]
        if used == j:
            used = np.int64(-1)
        fits = used < 0 and ((mine >> j) & 1) == 1
        if used < 0 and mine >> (j + 1) == 0:
            x = high if x == START and fits else np.int64(SPENT)  # the last slot that can take the current event
        elif latest:
            if x == START and fits:
                x = high
            elif x == START or x == high:
                x = last_of(S, rule, row, j) if row >= 0 else np.int64(-1)
            else:
                x = before(S, rule, x)
            if x < 0:
                x = np.int64(SPENT)
        else:
            if x == START:
                x = first_of(S, rule, row, j) if row >= 0 else np.int64(-1)
            elif x == high:
                x = np.int64(SPENT)
            else:
                ahead = np.int64(S.ring[at(S, rule, x)].next)
                x = x + ahead if ahead != 0 else np.int64(-1)
            if x == -1:
                x = high if fits else np.int64(SPENT)
        if x == SPENT:
            j -= 1
            continue
        chosen[j] = x
        if x == high:
            used = j
        if not stands(B, S, X, E, rule, j, i):
            continue
        if j < positive - 1:
            j += 1
            chosen[j] = START
        elif not is_forbidden(B, S, X, E, rule, row, roles, i):
            return True
    return False

"""Kernels of the conjunction operator: one call processes the rows of one rule group for every ``all`` rule of it.

Order of events is processing order. `agents.cep.conjunction.search` defines the candidates of an event and chooses
among them; an event that no match uses up waits in every slot that it fits. An event of a negated step without
conditions over other steps clears all waiting events of its key.
"""
# ruff: noqa: PLR0917  numba takes plain code and positional arguments
# mypy: disable-error-code="no-untyped-def, no-untyped-call, assignment"

from __future__ import annotations

import numpy as np

from astrocyte.agents.cep.conjunction.fast_path import (
    DONE,
    OUTPUT_FULL,
    RING_FULL,
    SWEEP_DUE,
    SWEEP_EVERY,
    TABLE_FULL,
    emit,
    has_room,
    look_ahead,
)
from astrocyte.agents.cep.conjunction.search import search
from astrocyte.agents.cep.conjunction.waiting_lists import (
    A_HALF_DONE,
    A_HEADERS,
    A_WORD,
    C_SLOTS,
    EACH,
    EMPTY,
    G_CUT,
    G_EVENTS,
    G_HIGH,
    G_LOW,
    G_MASK,
    G_PARTIALS,
    G_SHARED,
    G_SWEPT,
    H_LISTS,
    LATEST,
    MATCHED,
    ONCE,
    R_CAP,
    R_COND0,
    R_COND1,
    R_FIELDS,
    R_KEEP_OLD,
    R_KILL,
    R_POLICY,
    R_POSITIVE,
    R_SIMPLE,
    R_SLOTS,
    R_SPAN,
    R_TIMEOUTS,
    R_WITHIN,
    REPORTED,
    Input,
    Output,
    Scratch,
    State,
    Tables,
    at,
    claim,
    event_of,
    find,
    first_of,
    holds,
    last_of,
    mark,
    number_of,
    push,
    remove,
    unlink,
)
from astrocyte.agents.jit import inner, kernel, outer

__all__ = ["advance", "process"]


@outer
def _time_out(B, S, M, X, E, rule, x):
    """Emit a timeout: the oldest event x, whose window closed without a match, and the waiting events that fit it."""
    Q = S.ring
    chosen = X.chosen
    me = at(S, rule, x)
    key = np.int64(Q[me].key)
    row = find(S, rule, key)
    positive = B.rules[rule, R_POSITIVE]
    own = np.int64(Q[me].slot)
    for slot in range(B.rules[rule, R_SLOTS]):
        chosen[slot] = EMPTY
    chosen[own] = x
    filled = np.int64(1) << own
    for slot in range(positive):
        if slot == own:
            continue
        y = first_of(S, rule, row, slot)
        filled |= np.int64(1) << slot
        while y >= 0:
            chosen[slot] = y
            fits = Q[at(S, rule, y)].flags == 0
            for j in range(positive):
                if j != slot and chosen[j] >= 0 and event_of(S, rule, chosen[j]) == event_of(S, rule, y):
                    fits = False
            for c in range(B.rules[rule, R_COND0], B.rules[rule, R_COND1]):
                if fits and B.conditions[c, C_SLOTS] & ~filled == 0 and not holds(B, S, X, E, rule, c, np.int64(0)):
                    fits = False
            if fits:
                break
            ahead = np.int64(Q[at(S, rule, y)].next)
            y = y + ahead if ahead != 0 else np.int64(-1)
        if y < 0:
            chosen[slot] = EMPTY
            filled &= ~(np.int64(1) << slot)
    emit(S, M, X, rule, positive, key, 1, Q[me].t + B.rules[rule, R_WITHIN], -1)
    for slot in range(positive):
        if chosen[slot] >= 0:
            mark(S, rule, chosen[slot], REPORTED)


@inner
def _expire(B, S, M, X, E, rule, horizon):
    """Remove events of ``horizon`` or older from the window; False if the output has no room for their timeouts."""
    low = S.rules[rule, G_LOW]
    high = S.rules[rule, G_HIGH]
    while low < high:
        me = at(S, rule, low)
        if S.ring[me].ref >= 0:
            if S.ring[me].t > horizon:
                break
            if (
                B.rules[rule, R_TIMEOUTS] != 0
                and S.ring[me].flags == 0
                and S.ring[me].nth == 0
                and S.ring[me].slot < B.rules[rule, R_POSITIVE]
            ):
                S.rules[rule, G_LOW] = low
                if not has_room(S, M, B.rules[rule, R_POSITIVE]):
                    return False
                _time_out(B, S, M, X, E, rule, low)
        low += 1
    S.rules[rule, G_LOW] = low
    return True


@outer
def _clear_waiting(B, S, rule, row):
    """Remove all waiting events of one key, since a forbidden event occurred."""
    for slot in range(B.rules[rule, R_SLOTS]):
        while True:
            x = first_of(S, rule, row, slot)
            if x < 0:
                break
            remove(S, rule, row, x, B.rules[rule, R_SLOTS])


@outer
def _evict_oldest(B, S, rule, row, wanted):
    """Enforce ``max_partials`` for one key before ``wanted`` entries are added; False if the new event is dropped."""
    waiting = np.int64(wanted)
    for slot in range(B.rules[rule, R_SLOTS]):
        waiting += np.int64(S.headers[row, H_LISTS + 3 * slot + 2])
    if waiting <= B.rules[rule, R_CAP]:
        return True
    while True:
        waiting = np.int64(wanted)
        oldest = np.int64(-1)
        for slot in range(B.rules[rule, R_SLOTS]):
            x = first_of(S, rule, row, slot)
            waiting += np.int64(S.headers[row, H_LISTS + 3 * slot + 2])
            if x >= 0 and (oldest < 0 or x < oldest):
                oldest = x
        if waiting <= B.rules[rule, R_CAP] or oldest < 0:
            return True
        S.rules[rule, G_CUT] += 1
        if B.rules[rule, R_KEEP_OLD] != 0:
            return False
        remove(S, rule, row, oldest, B.rules[rule, R_SLOTS])


@inner
def _save(B, S, E, rule, first, i):
    """Write the captured values of the current event to its entries, from sequence number ``first`` on."""
    fields = B.fields.shape[1]
    for x in range(first, S.rules[rule, G_HIGH]):
        me = at(S, rule, x)
        for c in range(B.rules[rule, R_FIELDS]):
            S.values[me, c] = E.columns[B.fields[rule, c], i]
            if S.values.shape[1] > fields:
                S.values[me, fields + c] = E.lows[B.fields[rule, c], i] if E.lows.shape[0] else 0.0


@inner
def _process(B, S, M, X, E, tasks, task0, i0):
    """Process the entries ``E`` for the rule of each task (rule, shift, tests) from entry ``i0`` of ``task0`` on.

    ``(mask >> shift) & tests`` says which of the rule's tests an entry passed: bit j that it fits slot j, the bits of
    R_KILL that it is forbidden. Returns (task, entry, reason) of the first that was not processed.
    """
    far = S.headers.shape[0] > 4096
    for task in range(task0, tasks.shape[0]):
        r = tasks[task, 0]
        shift = np.uint64(tasks[task, 1])
        tests = np.uint64(tasks[task, 2])
        policy = B.rules[r, R_POLICY]
        positive = B.rules[r, R_POSITIVE]
        slots = B.rules[r, R_SLOTS]
        timeouts = B.rules[r, R_TIMEOUTS] != 0
        plain = B.rules[r, R_SIMPLE] != 0
        every = (np.int64(1) << slots) - 1
        for i in range(i0 if task == task0 else 0, len(E.t)):
            if far:
                look_ahead(S, r, E.key, i)
            word = np.int64((E.mask[i] >> shift) & tests)
            if word == 0:
                continue
            k = np.int64(E.key[i])
            tt = E.t[i]
            again = S.all[A_HALF_DONE] != 0
            if not _expire(B, S, M, X, E, r, tt - B.rules[r, R_SPAN]):
                return task, i, OUTPUT_FULL
            if S.rules[r, G_HIGH] - S.rules[r, G_LOW] + slots > S.rules[r, G_MASK] + 1:
                return task, i, RING_FULL
            if S.rules[r, G_HIGH] - S.rules[r, G_SWEPT] > SWEEP_EVERY:
                return task, i, SWEEP_DUE
            if 4 * S.all[A_HEADERS] >= 3 * S.headers.shape[0]:
                return task, i, TABLE_FULL
            if not has_room(S, M, positive):
                return task, i, OUTPUT_FULL
            S.all[A_HALF_DONE] = 0
            S.all[A_WORD] = word
            row = find(S, r, k)
            if not again:
                S.rules[r, G_EVENTS] += 1
                if word & B.rules[r, R_KILL] and row >= 0:
                    _clear_waiting(B, S, r, row)
            bits = word & every
            if bits == 0:
                continue
            simple = plain and bits & (bits - 1) == 0 and S.rules[r, G_SHARED] <= S.rules[r, G_LOW]
            matched = again
            mine = np.int64(0)
            if simple:
                while bits >> mine != 1:
                    mine += 1
            found = False
            if simple and policy != EACH:
                # One slot and no conditions: take the oldest (or newest) event of every other list.
                found = row >= 0
                slot = 0
                while found and slot < positive:
                    if slot != mine:
                        x = first_of(S, r, row, slot)
                        found = x >= 0
                        X.chosen[slot] = x if policy == ONCE else last_of(S, r, row, slot)
                    slot += 1
                X.chosen[mine] = S.rules[r, G_HIGH]
            elif bits & ((np.int64(1) << positive) - 1) != 0:
                found = search(B, S, X, E, r, row, bits, i, again)
            while found:
                matched = True
                emit(S, M, X, r, positive, k, 0, tt, E.ref[i])
                if policy == ONCE or timeouts:
                    for slot in range(positive):
                        x = X.chosen[slot]
                        if x == S.rules[r, G_HIGH]:
                            continue
                        if policy == ONCE:
                            remove(S, r, row, x, positive)
                        else:
                            mark(S, r, x, MATCHED)
                if policy != EACH:
                    break
                if not has_room(S, M, positive):
                    S.all[A_HALF_DONE] = 1
                    return task, i, OUTPUT_FULL
                again = True
                found = search(B, S, X, E, r, row, bits, i, again)
            if matched and policy == ONCE:
                bits &= ~((np.int64(1) << positive) - 1)  # used up as a step; it may still act as a forbidden event
                if bits == 0:
                    continue
            if row < 0:
                row = claim(S, r, k, row, slots)
            elif simple and policy == LATEST:
                x = first_of(S, r, row, mine)
                while x >= 0 and S.ring[at(S, r, x)].roles == 1:
                    unlink(S, r, row, x)  # superseded by the current event in all future matches
                    x = first_of(S, r, row, mine)
            if _evict_oldest(B, S, r, row, number_of(bits)):
                high = S.rules[r, G_HIGH]
                push(S, r, row, tt, k, E.ref[i], bits, MATCHED if matched else 0, word)
                _save(B, S, E, r, high, i)
                S.rules[r, G_PARTIALS] += 1
    return tasks.shape[0], 0, DONE


@inner
def _advance(B, S, M, X, E, now):
    """Advance time to ``now`` for the rules that report timeouts; False if the output is full (call again)."""
    for rule in range(B.rules.shape[0]):
        if B.rules[rule, R_TIMEOUTS] != 0 and not _expire(B, S, M, X, E, rule, now - B.rules[rule, R_SPAN]):
            return False
    return True


# Entry points from Python, as in `agents.cep.conjunction.fast_path`.


@kernel
def process(
    rules, fields, conditions, code, constants,
    everything, state, headers, ring, values, words,
    matches, rows, chosen, stack, low, strings, arena,
    t, ref, key, mask, columns, lows,
    tasks, task0, i0,
):  # fmt: skip
    """Arrays of Tables, State, Output, Scratch and Input, then what `_process` takes."""
    return _process(
        Tables(rules, fields, conditions, code, constants),
        State(everything, state, headers, ring, values, words),
        Output(matches, rows),
        Scratch(chosen, stack, low, strings, arena),
        Input(t, ref, key, mask, columns, lows),
        tasks,
        task0,
        i0,
    )


@kernel
def advance(
    rules, fields, conditions, code, constants,
    everything, state, headers, ring, values, words,
    matches, rows, chosen, stack, low, strings, arena,
    t, ref, key, mask, columns, lows,
    now,
):  # fmt: skip
    """Arrays of Tables, State, Output, Scratch and Input (of no rows), then the time."""
    return _advance(
        Tables(rules, fields, conditions, code, constants),
        State(everything, state, headers, ring, values, words),
        Output(matches, rows),
        Scratch(chosen, stack, low, strings, arena),
        Input(t, ref, key, mask, columns, lows),
        now,
    )

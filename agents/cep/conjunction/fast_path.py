"""Kernels of the conjunction operator for the plain case, and the maintenance of its state.

They are separate from `agents.cep.conjunction.step`, which handles every case, because most programs never need that
module and compiling it takes several seconds.
"""
# ruff: noqa: PLR0917  numba takes plain code and positional arguments
# mypy: disable-error-code="no-untyped-def, no-untyped-call, assignment"

from __future__ import annotations

from typing import Final

import numpy as np

from astrocyte.agents.cep.conjunction.waiting_lists import (
    A_HEADERS,
    A_MATCHES,
    A_ROWS,
    G_BASE,
    G_EVENTS,
    G_HIGH,
    G_LOW,
    G_MASK,
    G_MATCHES,
    G_PARTIALS,
    G_SHARED,
    G_START,
    G_SWEPT,
    G_TIMEOUTS,
    H_KEY,
    H_LISTS,
    H_RULE,
    LOW32,
    ONCE,
    R_CAP,
    R_POLICY,
    R_POSITIVE,
    R_SIMPLE,
    R_SLOTS,
    R_SPAN,
    R_TIMEOUTS,
    Input,
    Output,
    Scratch,
    State,
    Tables,
    append,
    at,
    claim,
    event_of,
    find,
    head_of,
    home,
    last_of,
    place,
    pop,
    push,
    whole,
)
from astrocyte.agents.jit import inner, kernel, prefetch

DONE, OUTPUT_FULL, RING_FULL, TABLE_FULL, SWEEP_DUE = 0, 1, 2, 3, 4
"""Why a kernel stopped; call it again for the remaining rows once there is room."""
SWEEP_EVERY: Final = 1 << 30
AHEAD: Final = 16
GENERAL: Final = 5
"""The kernel stopped at a row that needs `agents.cep.conjunction.step.process`."""


@inner
def look_ahead(S, rule, key, i):
    """Prefetch the header of a later event, and the waiting events named by the header of a nearer one.

    Branchless, since branches here would be mispredicted; prefetching an empty entry does no harm.
    """
    last = np.int64(len(key) - 1)
    prefetch(S.headers, home(S, rule, np.int64(key[np.uint64(min(i + AHEAD, last))])))
    row = np.uint64(home(S, rule, np.int64(key[np.uint64(min(i + AHEAD // 2, last))])))
    mask = S.rules[rule, G_MASK]
    start = S.rules[rule, G_START]
    for slot in range(2):
        prefetch(S.ring, start + (np.int64(S.headers[row, np.uint64(H_LISTS + 3 * slot)]) & mask))


@inner
def emit(S, M, X, rule, slots, key, kind, time, ref):
    """Write the chosen events as one output; the caller has checked that there is room."""
    match = np.uint64(S.all[A_MATCHES])
    end = S.all[A_ROWS]
    for slot in range(slots):
        x = X.chosen[slot]
        if x >= 0:
            known = S.ring[at(S, rule, x)].ref  # read in either case, which avoids a mispredicted branch
            M.rows[np.uint64(end)].step = slot
            M.rows[np.uint64(end)].ref = ref if x == S.rules[rule, G_HIGH] else known
            end += 1
    M.matches[match].rule = rule
    M.matches[match].key = key
    M.matches[match].kind = kind
    M.matches[match].time = time
    M.matches[match].end = end
    S.all[A_MATCHES] += 1
    S.all[A_ROWS] = end
    S.rules[rule, G_TIMEOUTS if kind else G_MATCHES] += 1


@inner
def has_room(S, M, slots):
    """Whether the output has room for one more match."""
    return S.all[A_MATCHES] < M.matches.shape[0] and S.all[A_ROWS] + slots <= M.rows.shape[0]


@inner
def _process_plain(B, S, M, X, E, tasks, task0, i0):
    """`agents.cep.conjunction.step.process` for the plain case, which covers most rows.

    The rule tests single events only, has no negated steps, reports no timeouts, and its pairing is once or latest; the
    row fits one slot. If one of these does not hold, the kernel stops with GENERAL.
    """
    H = S.headers
    Q = S.ring
    far = H.shape[0] > 4096
    for task in range(task0, tasks.shape[0]):
        r = tasks[task, 0]
        shift = np.uint64(tasks[task, 1])
        tests = np.uint64(tasks[task, 2])
        once = B.rules[r, R_POLICY] == ONCE
        positive = B.rules[r, R_POSITIVE]
        span = B.rules[r, R_SPAN]
        cap = B.rules[r, R_CAP]
        start = S.rules[r, G_START]
        mask = S.rules[r, G_MASK]
        base = S.rules[r, G_BASE]
        low = S.rules[r, G_LOW]
        high = S.rules[r, G_HIGH]
        events = np.int64(0)
        partials = np.int64(0)
        room = min(M.matches.shape[0] - S.all[A_MATCHES], (M.rows.shape[0] - S.all[A_ROWS]) // positive)
        free = 3 * H.shape[0] // 4 - S.all[A_HEADERS]
        reason = DONE
        if B.rules[r, R_SIMPLE] == 0 or S.rules[r, G_SHARED] > low:
            reason = GENERAL
        elif high - S.rules[r, G_SWEPT] > SWEEP_EVERY:
            reason = SWEEP_DUE
        stopped = i0 if task == task0 else np.int64(0)
        for i in range(stopped, len(E.t) if reason == DONE else stopped):
            if far:
                look_ahead(S, r, E.key, i)
            u = np.uint64(i)
            word = np.int64((E.mask[u] >> shift) & tests)
            if word == 0:
                continue
            tt = E.t[u]
            while low < high and (Q[place(low, start, mask)].t <= tt - span or Q[place(low, start, mask)].ref < 0):
                low += 1
            if high - low > mask:
                reason = RING_FULL
            elif room <= 0:
                reason = OUTPUT_FULL
            elif free <= 0:
                reason = TABLE_FULL
            elif word & (word - 1) != 0:
                reason = GENERAL
            if reason != DONE:
                stopped = i
                break
            mine = word >> 1
            if mine > 1:
                mine = np.int64(2)
                while word >> mine != 1:
                    mine += 1
            k = np.int64(E.key[u])
            row = find(S, r, k)
            found = row >= 0
            if found:
                for nth in range(1, positive):  # the other slots, starting after mine: no branch on which one is mine
                    slot = mine + nth if mine + nth < positive else mine + nth - positive
                    x = head_of(H, Q, row, slot, low, high, base, start, mask)
                    if x < 0:
                        found = False
                        break
                    X.chosen[np.uint64(slot)] = (
                        x if once else whole(H[np.uint64(row), np.uint64(H_LISTS + 3 * slot + 1)], high)
                    )
            if found:
                X.chosen[np.uint64(mine)] = high
                S.rules[r, G_HIGH] = high
                emit(S, M, X, r, positive, k, 0, tt, E.ref[u])
                room -= 1
                if once:
                    for nth in range(1, positive):
                        slot = mine + nth if mine + nth < positive else mine + nth - positive
                        pop(H, Q, row, slot, X.chosen[np.uint64(slot)], low, start, mask)
            if not (found and once):
                if row < 0:
                    S.rules[r, G_LOW] = low
                    row = claim(S, r, k, row, positive)
                    free -= 1
                elif once:
                    if np.int64(H[np.uint64(row), np.uint64(H_LISTS + 3 * mine + 2)]) * positive >= cap:
                        reason = GENERAL
                        stopped = i
                        break
                else:
                    x = head_of(H, Q, row, mine, low, high, base, start, mask)
                    while x >= 0:
                        pop(H, Q, row, mine, x, low, start, mask)
                        x = head_of(H, Q, row, mine, low, high, base, start, mask)
                me = place(high, start, mask)
                Q[me].t = tt
                Q[me].ref = E.ref[u]
                Q[me].key = k
                Q[me].slot = mine
                Q[me].nth = 0
                Q[me].roles = 1
                Q[me].flags = 0
                append(H, Q, row, mine, high, low, start, mask)
                high += 1
                partials += 1
            events += 1
        S.rules[r, G_LOW] = low
        S.rules[r, G_HIGH] = high
        S.rules[r, G_EVENTS] += events
        S.rules[r, G_PARTIALS] += partials
        if reason != DONE:
            return task, stopped, reason
    return tasks.shape[0], np.int64(0), DONE


@inner
def _advance_plain(B, S, now):
    """Advance time for all rules that report no timeouts: every event up to ``now`` was processed."""
    for rule in range(B.rules.shape[0]):
        if B.rules[rule, R_TIMEOUTS] == 0:
            low = S.rules[rule, G_LOW]
            horizon = now - B.rules[rule, R_SPAN]
            while low < S.rules[rule, G_HIGH]:
                me = at(S, rule, low)
                if S.ring[me].t > horizon and S.ring[me].ref >= 0:
                    break
                low += 1
            S.rules[rule, G_LOW] = low


@inner
def _live(S, rules, keys, refs, times, roles, flags, rows):
    """Every waiting event once, in order of arrival within its rule; returns their number.

    ``rows`` receives the index of its values in the ring. With empty arrays it only counts.
    """
    count = 0
    for rule in range(S.rules.shape[0]):
        last = np.int64(-1)
        for x in range(S.rules[rule, G_LOW], S.rules[rule, G_HIGH]):
            me = at(S, rule, x)
            if S.ring[me].ref < 0:
                continue
            if event_of(S, rule, x) != last:
                last = event_of(S, rule, x)
                count += 1
                if len(rules):
                    rules[count - 1] = rule
                    keys[count - 1] = S.ring[me].key
                    refs[count - 1] = S.ring[me].ref
                    times[count - 1] = S.ring[me].t
                    roles[count - 1] = 0
                    flags[count - 1] = S.ring[me].flags
                    rows[count - 1] = me
            if len(rules):
                roles[count - 1] |= np.int64(1) << np.int64(S.ring[me].slot)
    return count


@inner
def _refill(B, S, rules, keys, refs, times, roles, flags, words, values):
    """Insert the events that `live` returned into empty rings and an empty table that are large enough."""
    for i in range(len(rules)):
        rule = np.int64(rules[i])
        key = np.int64(keys[i])
        row = find(S, rule, key)
        if row < 0:
            row = claim(S, rule, key, row, B.rules[rule, R_SLOTS])
        high = S.rules[rule, G_HIGH]
        push(S, rule, row, times[i], key, refs[i], np.int64(roles[i]), flags[i], words[i])
        for x in range(high, S.rules[rule, G_HIGH]):
            for c in range(values.shape[1]):
                S.values[at(S, rule, x), c] = values[i, c]


@inner
def _low_water(S):
    """Oldest timestamp of a waiting event, or the largest int64."""
    oldest = np.int64(9223372036854775807)
    for rule in range(S.rules.shape[0]):
        low = S.rules[rule, G_LOW]
        while low < S.rules[rule, G_HIGH] and S.ring[at(S, rule, low)].ref < 0:
            low += 1
        S.rules[rule, G_LOW] = low
        if low < S.rules[rule, G_HIGH]:
            oldest = min(oldest, S.ring[at(S, rule, low)].t)
    return oldest


@inner
def _sweep(B, S, headers):
    """Copy the headers that still have waiting events into an empty table, with dead list ends reset.

    32 bits of a sequence number distinguish 2**32 of them: a dead list end must be reset before it looks alive again.
    """
    H = S.headers
    S.all[A_HEADERS] = 0
    for old in range(H.shape[0]):
        rule = np.int64(H[old, H_RULE]) - 1
        if rule < 0:
            continue
        alive = False
        dead = (S.rules[rule, G_LOW] - 1) & LOW32
        for slot in range(B.rules[rule, R_SLOTS]):
            if last_of(S, rule, old, slot) >= 0:
                alive = True
            else:
                H[old, H_LISTS + 3 * slot] = dead
                H[old, H_LISTS + 3 * slot + 1] = dead
                H[old, H_LISTS + 3 * slot + 2] = 0
        if alive:
            row = home(S, rule, np.int64(H[old, H_KEY]))
            while headers[row, H_RULE] != 0:
                row = (row + 1) & (headers.shape[0] - 1)
            for column in range(H.shape[1]):
                headers[row, column] = H[old, column]
            S.all[A_HEADERS] += 1
    for rule in range(S.rules.shape[0]):
        S.rules[rule, G_SWEPT] = S.rules[rule, G_HIGH]


# Entry points from Python. Arrays are passed one by one and packed into the tuples of
# `agents.cep.conjunction.waiting_lists` here: numba takes a microsecond to unbox a tuple, and nothing to build one.


@kernel
def process_plain(
    rules, fields, conditions, code, constants,
    everything, state, headers, ring, values, words,
    matches, rows, chosen, stack, low, strings, arena,
    t, ref, key, mask, columns, lows,
    tasks, task0, i0,
):  # fmt: skip
    """Arrays of Tables, State, Output, Scratch and Input, then what `_process_plain` takes."""
    return _process_plain(
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
def advance_plain(rules, fields, conditions, code, constants, everything, state, headers, ring, values, words, now):
    """Arrays of Tables and State, then the time."""
    _advance_plain(
        Tables(rules, fields, conditions, code, constants), State(everything, state, headers, ring, values, words), now
    )


@kernel
def low_water(everything, state, headers, ring, values, words):
    """Arrays of State."""
    return _low_water(State(everything, state, headers, ring, values, words))


@kernel
def live(everything, state, headers, ring, values, words, slots, keys, refs, times, roles, flags, places):
    """Arrays of State, then those to fill."""
    return _live(State(everything, state, headers, ring, values, words), slots, keys, refs, times, roles, flags, places)


@kernel
def refill(
    rules, fields, conditions, code, constants,
    everything, state, headers, ring, values, words,
    slots, keys, refs, times, roles, flags, tests, captured,
):  # fmt: skip
    """Arrays of Tables and State, then the events."""
    _refill(
        Tables(rules, fields, conditions, code, constants),
        State(everything, state, headers, ring, values, words),
        slots,
        keys,
        refs,
        times,
        roles,
        flags,
        tests,
        captured,
    )


@kernel
def sweep(rules, fields, conditions, code, constants, everything, state, headers, ring, values, words, table):
    """Arrays of Tables and State, then the empty table."""
    _sweep(
        Tables(rules, fields, conditions, code, constants),
        State(everything, state, headers, ring, values, words),
        table,
    )

"""Helpers of `agents.cep.sequence.step`: keys, pools, running values, outputs, skipping and expiry."""
# mypy: disable-error-code="no-untyped-def, no-untyped-call"
# ruff: noqa: PLR0917, PLR0124, D103  kernels take their arrays one by one; x == x is the test for NaN

from __future__ import annotations

import numpy as np

from astrocyte.agents.cep.key_headers import vacate
from astrocyte.agents.cep.sequence.layout import (
    COUNT,
    FIRST,
    G_ERROR,
    G_HEADERS,
    G_NODE_FREE,
    G_NODE_HIGH,
    G_NODES,
    G_OUT,
    G_RUN_FREE,
    G_RUN_HIGH,
    G_RUNS,
    L_COLUMN,
    L_RUNNING,
    L_STEP,
    LAST,
    M_KEY,
    M_KIND,
    M_NODE,
    M_SLOT,
    M_TIME,
    MIN,
    NEWEST,
    NUMBERS,
    P_ACT,
    P_BITS,
    P_CLOSED,
    P_EAGER,
    P_FAN,
    P_IDLE,
    P_KEEP_NEW,
    P_KNOWN,
    P_LIMIT,
    P_RESOLVED,
    P_SKIP,
    P_SKIP_STEP,
    P_SLOT0,
    P_SLOT1,
    P_START,
    P_STATE0,
    P_STRICT_SKIP,
    P_TIMED,
    P_TIMEOUTS,
    P_WAITS,
    P_WINDOW,
    Q_CUT,
    Q_MATCHES,
    S_DEADLINE,
    S_PENDING,
    SKIP_NONE,
    SKIP_PAST_LAST,
    SKIP_TO_LAST,
    SKIP_TO_NEXT,
    SUM,
    VALUES,
    Rule,
)
from astrocyte.agents.expressions.vm import accumulate, boxed
from astrocyte.agents.jit import at, inner, prefetch


@inner
def rule_of(T, r):
    rule = T.rules[at(r)]
    return Rule(
        rule[P_BITS], rule[P_ACT], rule[P_RESOLVED], rule[P_IDLE], rule[P_STATE0], rule[P_START], rule[P_KNOWN],
        rule[P_TIMED], rule[P_FAN], rule[P_WINDOW], rule[P_WINDOW] + rule[P_CLOSED], rule[P_LIMIT], rule[P_WAITS],
        rule[P_SKIP], rule[P_KEEP_NEW], rule[P_SLOT0], rule[P_SLOT1],
    )  # fmt: skip


# -- keys ------------------------------------------------------------------------------------------------------------


@inner
def forget_if_empty(S, h):
    """Free the header of a key that holds nothing; True if it was freed."""
    if S.H[at(h)]["runs"] > 0 or S.H[at(h)]["done"] >= 0:
        return False
    vacate(S.H, h)
    S.G[G_HEADERS] -= 1
    return True


# -- pools -----------------------------------------------------------------------------------------------------------


@inner
def new_run(S):
    r = S.G[G_RUN_FREE]
    if r >= 0:
        following = np.int64(S.R[at(r)]["next"])
        S.G[G_RUN_FREE] = following
        prefetch(S.R, following)  # otherwise the next new run waits for memory
    else:
        r = S.G[G_RUN_HIGH]
        S.G[G_RUN_HIGH] = r + 1
    S.G[G_RUNS] += 1
    return r


@inner
def free_run(S, r):
    S.R[at(r)]["next"] = S.G[G_RUN_FREE]
    S.R[at(r)]["node"] = -1
    S.G[G_RUN_FREE] = r
    S.G[G_RUNS] -= 1


@inner
def release(S, node):
    """Release one reference to a chain."""
    while node >= 0:
        users = S.N[at(node)]["users"] - 1
        S.N[at(node)]["users"] = users
        if users > 0:
            return
        prev = S.N[at(node)]["prev"]
        S.N[at(node)]["prev"] = S.G[G_NODE_FREE]
        S.G[G_NODE_FREE] = node
        S.G[G_NODES] -= 1
        node = prev


@inner
def new_node(T, S, P, B, i, step, prev):
    n = S.G[G_NODE_FREE]
    if n >= 0:
        following = np.int64(S.N[at(n)]["prev"])
        S.G[G_NODE_FREE] = following
        prefetch(S.N, following)
    else:
        n = S.G[G_NODE_HIGH]
        S.G[G_NODE_HIGH] = n + 1
    S.G[G_NODES] += 1
    S.N[at(n)]["ref"] = B.ref[at(i)]
    S.N[at(n)]["seq"] = B.seq[at(i)]
    S.N[at(n)]["time"] = B.t[at(i)]
    S.N[at(n)]["step"] = step
    S.N[at(n)]["prev"] = prev
    S.N[at(n)]["users"] = 0
    S.N[at(n)]["written"] = -1
    S.N[at(n)]["length"] = 1
    if prev >= 0:
        S.N[at(prev)]["users"] += 1
        S.N[at(n)]["length"] = S.N[at(prev)]["length"] + 1
    for s in range(P.slot0, P.slot1):
        update_slot(T, S, s, s - P.slot0, n, step, prev, B, i)
    return n


@inner
def update_slot(T, S, s, j, n, step, prev, B, i):
    """Running value j of a new node, from that of the previous node and the event."""
    running = T.slots[at(s), L_RUNNING]
    counts = running <= SUM
    value = 0.0 if counts else np.nan
    low = 0.0
    if prev >= 0:
        value = S.V[at(prev), at(j)]
        if S.W.shape[0] > 1:
            low = S.W[at(prev), at(j)]
    if T.slots[at(s), L_STEP] == step:
        if running == COUNT:
            value += 1.0
        else:
            x = B.columns[at(T.slots[at(s), L_COLUMN]), at(i)]
            y = 0.0
            if B.lows.shape[0] > 0:
                y = B.lows[at(T.slots[at(s), L_COLUMN]), at(i)]
            if running == NEWEST:
                value = x
                low = y
            elif running == LAST:
                if x == x or boxed(x) != 0.0:
                    value = x
                    low = y
            elif running == FIRST:
                if value != value and boxed(value) == 0.0:
                    value = x
                    low = y
            elif running == VALUES:
                if x == x or boxed(x) != 0.0:
                    value += 1.0
            elif x == x:
                if running == NUMBERS:
                    value += 1.0
                elif running == SUM:
                    value, low = accumulate(value, low, x, y)
                elif running == MIN:
                    if not (value < x or (value == x and low <= y)):
                        value = x
                        low = y
                elif not (value > x or (value == x and low >= y)):
                    value = x
                    low = y
    S.V[at(n), at(j)] = value
    if S.W.shape[0] > 1:
        S.W[at(n), at(j)] = low


# -- outputs ---------------------------------------------------------------------------------------------------------


@inner
def put_out(S, r, key, kind, time, node):
    """Queue an output; takes ownership of one reference to the chain."""
    m = S.G[G_OUT]
    S.M[at(m), M_SLOT] = r
    S.M[at(m), M_KEY] = key
    S.M[at(m), M_KIND] = kind
    S.M[at(m), M_TIME] = time
    S.M[at(m), M_NODE] = node
    S.G[G_OUT] = m + 1
    S.Q[at(r), at(Q_MATCHES + kind)] += 1


@inner
def wait_done(S, h, node, sid, time):
    """Insert a completed match into the waiting matches by start event; equal ones keep their order."""
    q = new_run(S)
    S.R[at(q)]["state"] = -1
    S.R[at(q)]["node"] = node
    S.R[at(q)]["sid"] = sid
    S.R[at(q)]["start"] = time
    before = np.int64(-1)
    x = np.int64(S.H[at(h)]["done"])
    while x >= 0 and S.R[at(x)]["sid"] <= sid:
        before = x
        x = np.int64(S.R[at(x)]["next"])
    S.R[at(q)]["next"] = x
    if before < 0:
        S.H[at(h)]["done"] = q
    else:
        S.R[at(before)]["next"] = q
    S.H[at(h)]["waiting"] += 1


@inner
def drop_head(S, h):
    r = np.int64(S.H[at(h)]["head"])
    S.H[at(h)]["head"] = S.R[at(r)]["next"]
    S.H[at(h)]["runs"] -= 1
    if S.H[at(h)]["runs"] == 0:
        S.H[at(h)]["tail"] = -1
    release(S, np.int64(S.R[at(r)]["node"]))
    free_run(S, r)


@inner
def skipped_before(T, S, r, m):
    """Event number before which all partial matches that started earlier are dropped when match m is emitted.

    -1: none. Sets G_ERROR if the step is missing or first in the match and the rule treats that as an error.
    """
    skip = T.rules[at(r), P_SKIP]
    node = np.int64(S.R[at(m)]["node"])
    if skip == SKIP_PAST_LAST:
        return np.int64(S.N[at(node)]["seq"]) + 1
    if skip == SKIP_TO_NEXT:
        return np.int64(S.R[at(m)]["sid"]) + 1
    found = np.int64(-1)
    while node >= 0:
        if S.N[at(node)]["step"] == T.rules[at(r), P_SKIP_STEP]:
            found = np.int64(S.N[at(node)]["seq"])
            if skip == SKIP_TO_LAST:
                break
        node = np.int64(S.N[at(node)]["prev"])
    if T.rules[at(r), P_STRICT_SKIP] and (found < 0 or found == S.R[at(m)]["sid"]):
        S.G[G_ERROR] = r + 1
    return found


@inner
def settle(T, S, r, h):
    """Emit completed matches for which no earlier run is left, and apply the rule's skip strategy."""
    eager = T.rules[at(r), P_EAGER] != 0
    while S.H[at(h)]["done"] >= 0:
        m = np.int64(S.H[at(h)]["done"])
        head = np.int64(S.H[at(h)]["head"])
        if not eager and head >= 0 and S.R[at(head)]["sid"] < S.R[at(m)]["sid"]:
            if S.H[at(h)]["waiting"] <= T.rules[at(r), P_LIMIT]:
                return
            drop_head(S, h)  # waiting matches are bounded too: drop the run that delays them
            S.Q[at(r), Q_CUT] += 1
            continue
        before = skipped_before(T, S, r, m)
        S.H[at(h)]["done"] = S.R[at(m)]["next"]
        S.H[at(h)]["waiting"] -= 1
        put_out(S, r, np.int64(S.H[at(h)]["key"]), 0, np.int64(S.R[at(m)]["start"]), np.int64(S.R[at(m)]["node"]))
        free_run(S, m)
        while S.H[at(h)]["head"] >= 0 and S.R[at(S.H[at(h)]["head"])]["sid"] < before:
            drop_head(S, h)
        while S.H[at(h)]["done"] >= 0 and S.R[at(S.H[at(h)]["done"])]["sid"] < before:
            x = np.int64(S.H[at(h)]["done"])
            S.H[at(h)]["done"] = S.R[at(x)]["next"]
            S.H[at(h)]["waiting"] -= 1
            release(S, np.int64(S.R[at(x)]["node"]))
            free_run(S, x)


# -- time ------------------------------------------------------------------------------------------------------------


@inner
def expire(T, S, P, r, h, now):
    """Advance time to ``now`` for one key: runs past their limit complete (PENDING), time out or are dropped."""
    x = np.int64(S.H[at(h)]["head"])
    before = np.int64(-1)
    hit = False
    while x >= 0:
        after = np.int64(S.R[at(x)]["next"])
        state = np.int64(S.R[at(x)]["state"])
        deadline = T.states[at(state), S_DEADLINE]
        late = False
        last = np.int64(0)
        if deadline > 0:
            last = np.int64(S.N[at(S.R[at(x)]["node"])]["time"])
            late = now - last >= deadline
        if late or (P.window > 0 and now - S.R[at(x)]["start"] >= P.length):
            hit = True
            if before < 0:
                S.H[at(h)]["head"] = after
            else:
                S.R[at(before)]["next"] = after
            if after < 0:
                S.H[at(h)]["tail"] = before
            S.H[at(h)]["runs"] -= 1
            # Both bounds may have passed since the last call: the earlier one counts.
            time = np.int64(S.R[at(x)]["start"]) + P.window
            if late and (P.window == 0 or last + deadline < time):
                time = last + deadline
            node = np.int64(S.R[at(x)]["node"])
            if T.states[at(state), S_PENDING]:
                if P.skip == SKIP_NONE:
                    put_out(S, r, np.int64(S.H[at(h)]["key"]), 0, time, node)
                else:
                    wait_done(S, h, node, np.int64(S.R[at(x)]["sid"]), time)
            elif T.rules[at(r), P_TIMEOUTS]:
                put_out(S, r, np.int64(S.H[at(h)]["key"]), 1, time, node)
            else:
                release(S, node)
            free_run(S, x)
        else:
            if P.waits == 0:
                break
            before = x
        x = after
    if hit and S.H[at(h)]["done"] >= 0:
        settle(T, S, r, h)


@inner
def room_for(S, runs, waiting):
    """Whether there is room to expire a key with that many runs and waiting matches."""
    return S.G[G_OUT] + runs + waiting <= S.M.shape[0] and S.G[G_RUNS] + runs < S.R.shape[0]

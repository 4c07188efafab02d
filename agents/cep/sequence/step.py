"""Step of the sequence operator: one table-driven kernel (an NFA) that runs every rule for every key.

A partial match is a *run*: a state, the chain of events taken so far (`N`, shared between runs by reference counts) and
its start. The runs of a key are a list in the order of their start events; successors of a run take its place in the
list, so that expiry and every skip strategy remove runs from its front. The start state is not a run: it is tried last
for every event. Keys are found in an open-addressing hash table `H` of (rule, key); a key without runs is removed when
the table is next rebuilt.

The kernel allocates nothing. Before each event it checks that the worst case fits; if not, it stops with its position
in `G`, and `agents.cep.sequence.operator` enlarges the pools and calls it again.
"""
# mypy: disable-error-code="no-untyped-def, no-untyped-call, assignment"
# ruff: noqa: PLR0917, D103  kernels take their arrays one by one

from __future__ import annotations

import numpy as np

from astrocyte.agents.cep.key_headers import find, home
from astrocyte.agents.cep.sequence.conditions import holds, truths, undecided
from astrocyte.agents.cep.sequence.layout import (
    DIES,
    E_KIND,
    E_STEP,
    E_TAKE,
    E_TARGET,
    E_TERM0,
    E_TERM1,
    E_WAIT,
    EVALUATE,
    FINAL,
    G_HEADERS,
    G_NODES,
    G_OUT,
    G_ROW,
    G_RUNS,
    G_TASK,
    G_TIMER_FREE,
    G_TIMER_HIGH,
    G_TIMERS,
    K_FROM,
    K_SHIFT,
    K_SLOT,
    K_TO,
    LOOK,
    P_WORD,
    Q_CUT,
    Q_DUE,
    Q_EVENTS,
    Q_HEAD,
    Q_PARTIALS,
    Q_TAIL,
    Q_WORK,
    S_DEADLINE,
    S_EDGE0,
    S_EDGE1,
    S_LOCAL,
    S_SAME1,
    S_SAME2,
    SKIP_NONE,
    STAYS,
    STOP,
)
from astrocyte.agents.cep.sequence.runs import (
    drop_head,
    expire,
    forget_if_empty,
    free_run,
    new_node,
    new_run,
    put_out,
    release,
    rule_of,
    settle,
    wait_done,
)
from astrocyte.agents.jit import at, inner, kernel, prefetch


@inner
def find_edges(T, X, word, truth, state, waited):
    """Set X.flags to the edges that fire and to those whose target completes, as bits."""
    e0 = T.states[at(state), S_EDGE0]
    X.flags[0] = 0
    X.flags[1] = 0
    for half in range(2 * (T.states[at(state), S_EDGE1] - e0)):
        e = e0 + (half >> 1)
        c0 = T.edges[at(e), at(E_TERM0 + 2 * (half & 1))]
        c1 = T.edges[at(e), at(E_TERM1 + 2 * (half & 1))]
        bit = np.uint64(1) << np.uint64(half >> 1)
        if c0 == c1 or (half & 1 and X.flags[0] & bit == 0):
            continue
        wait = T.edges[at(e), E_WAIT]
        if 0 < wait <= waited:
            continue
        if holds(T, c0, c1, word, truth):
            X.flags[half & 1] |= bit


@inner
def step_run(T, S, P, r, h, B, i, x, before, after, fired, final):
    """Advance run x (-1: the start state), listed between the runs ``before`` and ``after``, along its edges.

    ``fired`` and ``final`` are bits of the edges taken and of those whose target completes. Returns the last run that
    replaces x (``before`` if none is left).
    """
    is_start = x < 0
    state = P.start
    node0 = np.int64(-1)
    sid = B.seq[at(i)]
    now = B.t[at(i)]
    start = now
    if not is_start:
        state = np.int64(S.R[at(x)]["state"])
        node0 = np.int64(S.R[at(x)]["node"])
        sid = np.int64(S.R[at(x)]["sid"])
        start = np.int64(S.R[at(x)]["start"])
    e = T.states[at(state), S_EDGE0] - 1
    stopped = False
    reused = False
    cut_new = P.keep_new == 0
    made = np.int64(-1)
    made_step = np.int64(-1)
    place = before
    while fired != 0:
        e += 1
        taken_now = fired & np.uint64(1) != 0
        completes = final & np.uint64(1) != 0
        fired >>= np.uint64(1)
        final >>= np.uint64(1)
        if not taken_now:
            continue
        kind = T.edges[at(e), E_KIND]
        if kind == STOP:
            stopped = True
            continue
        completes = completes or kind == FINAL
        if stopped and not completes:
            continue
        node = node0
        if T.edges[at(e), E_TAKE] == 1:
            if made < 0 or made_step != T.edges[at(e), E_STEP]:
                made_step = T.edges[at(e), E_STEP]
                made = new_node(T, S, P, B, i, made_step, node0)
            node = made
        if kind != FINAL and not stopped:
            q = x
            if reused or is_start:
                if cut_new and S.H[at(h)]["runs"] >= P.limit:
                    S.Q[at(r), Q_CUT] += 1
                    q = np.int64(-1)
                else:
                    q = new_run(S)
                    S.R[at(q)]["sid"] = sid
                    S.R[at(q)]["start"] = start
                    S.R[at(q)]["next"] = after
                    if place < 0:
                        S.H[at(h)]["head"] = q
                    else:
                        S.R[at(place)]["next"] = q
                    S.H[at(h)]["runs"] += 1
                    S.Q[at(r), Q_PARTIALS] += 1
            else:
                reused = True
            if q >= 0:
                target = T.edges[at(e), E_TARGET]
                S.R[at(q)]["state"] = target
                S.R[at(q)]["node"] = node
                S.N[at(node)]["users"] += 1
                S.H[at(h)]["present"] |= np.uint32(1) << np.uint32(T.states[at(target), S_LOCAL] & 31)
                deadline = T.states[at(target), S_DEADLINE]
                if deadline > 0:
                    S.Q[at(r), Q_DUE] = min(S.Q[at(r), Q_DUE], S.N[at(node)]["time"] + deadline)
                place = q
        if completes:
            S.N[at(node)]["users"] += 1
            if P.skip == SKIP_NONE:
                put_out(S, r, np.int64(B.key[at(i)]), 0, now, node)
            else:
                wait_done(S, h, node, sid, now)
    if made >= 0 and S.N[at(made)]["users"] == 0:
        S.N[at(made)]["users"] = 1
        release(S, made)
    if not is_start:
        if not reused:
            if before < 0:
                S.H[at(h)]["head"] = after
            else:
                S.R[at(before)]["next"] = after
            S.H[at(h)]["runs"] -= 1
            free_run(S, x)
        release(S, node0)
    return place


@inner
def start_timer(S, r, key, start):
    q = S.G[G_TIMER_FREE]
    if q >= 0:
        following = np.int64(S.T[at(q)]["next"])
        S.G[G_TIMER_FREE] = following
        prefetch(S.T, following)
    else:
        q = S.G[G_TIMER_HIGH]
        S.G[G_TIMER_HIGH] = q + 1
    S.G[G_TIMERS] += 1
    S.T[at(q)]["start"] = start
    S.T[at(q)]["key"] = key
    S.T[at(q)]["next"] = -1
    if S.Q[at(r), Q_TAIL] >= 0:
        S.T[at(S.Q[at(r), Q_TAIL])]["next"] = q
    else:
        S.Q[at(r), Q_HEAD] = q
    S.Q[at(r), Q_TAIL] = q


@inner
def spare_room(S):
    """Number of new runs, events and outputs for which all pools have room."""
    spare = min(S.R.shape[0] - S.G[G_RUNS], S.N.shape[0] - S.G[G_NODES])
    spare = min(spare, S.M.shape[0] - S.G[G_OUT])
    return min(spare, S.T.shape[0] - S.G[G_TIMERS])


@inner
def is_same(T, state, fired):
    """Whether these edges together leave a run unchanged."""
    return fired == np.uint64(T.states[at(state), S_SAME1]) or fired == np.uint64(T.states[at(state), S_SAME2])


@inner
def feed(T, S, X, P, r, word, B, i, spare):
    """Process one event for one rule. Returns a lower bound of the room left; -1: too little room, nothing was done."""
    key = np.int64(B.key[at(i)])
    h = find(S.H, r, key)
    now = B.t[at(i)]
    bits = P.bits
    begins = bits == 0 or T.act[at(P.act + ((P.start - P.state0) << bits) + np.int64(word))] != DIES
    is_new = S.H[at(h)]["rule"] == 0
    if is_new and not begins:
        return spare
    need = P.fan + 1
    if not is_new:
        need = (S.H[at(h)]["runs"] + 1) * (P.fan + 1) + S.H[at(h)]["waiting"] + 1
    if spare < need:
        spare = spare_room(S)
        if spare < need:
            return np.int64(-1)
    if is_new:
        if 2 * (S.G[G_HEADERS] + 1) > S.H.shape[0]:
            return np.int64(-1)
        S.H[at(h)]["rule"] = r + 1
        S.H[at(h)]["key"] = key
        S.H[at(h)]["head"] = -1
        S.H[at(h)]["tail"] = -1
        S.H[at(h)]["runs"] = 0
        S.H[at(h)]["done"] = -1
        S.H[at(h)]["waiting"] = 0
        S.H[at(h)]["present"] = 0
        S.G[G_HEADERS] += 1
    elif S.H[at(h)]["runs"] > 0 and (P.window > 0 or P.waits != 0):
        expire(T, S, P, r, h, now)
    had = S.H[at(h)]["runs"]
    before = np.int64(S.H[at(h)]["tail"])
    x = np.int64(-1)
    present = S.H[at(h)]["present"]
    if had > 0 and (bits == 0 or (present & T.react[at(P.idle + np.int64(word))]) != 0):
        before = np.int64(-1)
        x = np.int64(S.H[at(h)]["head"])
        present = np.uint32(0)
        S.Q[at(r), Q_WORK] += had
    while x >= 0 or begins:
        is_start = x < 0
        state = P.start
        after = np.int64(-1)
        if not is_start:
            state = np.int64(S.R[at(x)]["state"])
            after = np.int64(S.R[at(x)]["next"])
        entry = P.act
        action = EVALUATE
        if bits > 0:
            entry = P.act + ((state - P.state0) << bits) + np.int64(word)
            action = T.act[at(entry)]
        fired = np.uint64(0)
        final = np.uint64(0)
        row = P.resolved + ((state - P.state0) << (bits + P.known)) + np.int64(word)
        truth = np.uint64(0)
        node = np.int64(-1)
        if not is_start:
            node = np.int64(S.R[at(x)]["node"])
        if action == EVALUATE:
            needed = np.uint64(T.needed[at(entry)])
            if P.known == 0:
                needed = undecided(T, state, word)
            truth = truths(T, S, X, r, needed, node, B, i)
            if P.known > 0:
                row += np.int64(truth) << bits
                action = T.resolved[at(row)]
        if action == EVALUATE or (action == LOOK and P.timed != 0):
            waited = np.int64(-1)
            if not is_start:
                waited = now - S.N[at(node)]["time"]
            find_edges(T, X, word, truth, state, waited)
            fired = X.flags[0]
            final = X.flags[1]
            action = LOOK
            if not is_start and fired == 0:
                action = DIES
            elif fired != 0 and is_same(T, state, fired):
                action = STAYS
        elif action == LOOK:
            fired = T.fired[at(row), 0]
            final = T.fired[at(row), 1]
        if action == STAYS:
            before = x
            present |= np.uint32(1) << np.uint32((state - P.state0) & 31)
        elif action == DIES:
            if not is_start:
                if before < 0:
                    S.H[at(h)]["head"] = after
                else:
                    S.R[at(before)]["next"] = after
                S.H[at(h)]["runs"] -= 1
                release(S, np.int64(S.R[at(x)]["node"]))
                free_run(S, x)
        elif fired != 0:
            had = S.H[at(h)]["runs"]
            S.H[at(h)]["present"] = present
            before = step_run(T, S, P, r, h, B, i, x, before, after, fired, final)
            present = S.H[at(h)]["present"]
            if is_start and P.window > 0 and S.H[at(h)]["runs"] > had:
                start_timer(S, r, key, now)
        if is_start:
            S.Q[at(r), Q_WORK] += 1
            break
        x = after
    S.H[at(h)]["tail"] = before
    S.H[at(h)]["present"] = present
    while S.H[at(h)]["runs"] > P.limit:
        drop_head(S, h)
        S.Q[at(r), Q_CUT] += 1
    if S.H[at(h)]["done"] >= 0:
        settle(T, S, r, h)
    forget_if_empty(S, h)
    return spare - need


@kernel
def process(T, S, X, B):
    """Process the batch from the position in `G`. True: all of it is done; False: make room and call again."""
    G = S.G
    far = S.H.shape[0] > 4096
    for task in range(G[G_TASK], B.tasks.shape[0]):
        r = B.tasks[at(task), K_SLOT]
        stop = B.tasks[at(task), K_TO]
        shift = np.uint64(B.tasks[at(task), K_SHIFT])
        want = ~np.uint64(0) >> np.uint64(64 - T.rules[at(r), P_WORD])
        P = rule_of(T, r)
        events = 0
        spare = np.int64(0)
        last = stop - 1
        for i in range(G[G_ROW] if G[G_ROW] >= 0 else B.tasks[at(task), K_FROM], stop):
            if far:
                # Branchless, since branches here would be mispredicted. Record 0 stands in where there is none.
                prefetch(S.H, home(S.H, r, np.int64(B.key[at(min(i + 16, last))])))
                h = home(S.H, r, np.int64(B.key[at(min(i + 12, last))]))
                prefetch(S.R, np.int64(S.H[at(h)]["head"]))
                h = home(S.H, r, np.int64(B.key[at(min(i + 8, last))]))
                x = max(np.int64(S.H[at(h)]["head"]), np.int64(0))
                prefetch(S.N, np.int64(S.R[at(x)]["node"]))
                prefetch(S.V, np.int64(S.R[at(x)]["node"]))
                prefetch(S.R, np.int64(S.R[at(x)]["next"]))
                h = home(S.H, r, np.int64(B.key[at(min(i + 4, last))]))
                x = max(np.int64(S.R[at(max(np.int64(S.H[at(h)]["head"]), np.int64(0)))]["next"]), np.int64(0))
                prefetch(S.N, np.int64(S.R[at(x)]["node"]))
                prefetch(S.V, np.int64(S.R[at(x)]["node"]))
                prefetch(S.R, np.int64(S.R[at(x)]["next"]))
            word = (B.mask[at(i)] >> shift) & want
            if word == 0 or (P.bits > 0 and T.idle[at(P.idle + np.int64(word))] != 0):
                continue
            spare = feed(T, S, X, P, r, word, B, i, spare)
            if spare < 0:
                G[G_TASK] = task
                G[G_ROW] = i
                S.Q[at(r), Q_EVENTS] += events
                return False
            events += 1
        S.Q[at(r), Q_EVENTS] += events
        G[G_ROW] = -1
    G[G_TASK] = 0
    return True

"""Timers of the sequence operator: the ends of windows and the bounds of single steps, for keys without new events."""
# mypy: disable-error-code="no-untyped-def, no-untyped-call, assignment"

from __future__ import annotations

import numpy as np

from astrocyte.agents.cep.key_headers import find, home
from astrocyte.agents.cep.sequence.layout import (
    G_SWEEP,
    G_TIMER_FREE,
    G_TIMERS,
    NEVER,
    P_WAITS,
    Q_DUE,
    Q_HEAD,
    Q_TAIL,
    S_DEADLINE,
)
from astrocyte.agents.cep.sequence.runs import expire, forget_if_empty, room_for, rule_of
from astrocyte.agents.jit import at, inner, kernel, prefetch


@inner
def earliest_deadlines(T, S):
    """Compute the earliest time at which a run's deadline passes, for every rule that has deadlines."""
    for r in range(T.rules.shape[0]):
        if T.rules[at(r), P_WAITS]:
            S.Q[at(r), Q_DUE] = NEVER
    for h in range(S.H.shape[0]):
        r = np.int64(S.H[at(h)]["rule"]) - 1
        if r >= 0 and T.rules[at(r), P_WAITS]:
            x = np.int64(S.H[at(h)]["head"])
            while x >= 0:
                deadline = T.states[at(S.R[at(x)]["state"]), S_DEADLINE]
                if deadline > 0:
                    S.Q[at(r), Q_DUE] = min(S.Q[at(r), Q_DUE], S.N[at(S.R[at(x)]["node"])]["time"] + deadline)
                x = np.int64(S.R[at(x)]["next"])


@kernel
def advance(T, S, now):
    """Advance time to ``now`` for every key; False: make room and call again."""
    for r in range(T.rules.shape[0]):
        P = rule_of(T, r)
        if P.window > 0:
            far = S.H.shape[0] > 4096
            ahead = S.Q[at(r), Q_HEAD]
            near = ahead
            nearest = ahead
            steps = 0
            while S.Q[at(r), Q_HEAD] >= 0:
                q = S.Q[at(r), Q_HEAD]
                if now - S.T[at(q)]["start"] < P.length:
                    break
                while far and steps < 16 and ahead >= 0:
                    prefetch(S.H, home(S.H, r, np.int64(S.T[at(ahead)]["key"])))
                    ahead = np.int64(S.T[at(ahead)]["next"])
                    steps += 1
                    if steps > 8:
                        prefetch(S.R, np.int64(S.H[at(home(S.H, r, np.int64(S.T[at(near)]["key"])))]["head"]))
                        near = np.int64(S.T[at(near)]["next"])
                        if steps > 12:
                            h = home(S.H, r, np.int64(S.T[at(nearest)]["key"]))
                            x = at(max(np.int64(S.H[at(h)]["head"]), np.int64(0)))
                            prefetch(S.N, np.int64(S.R[x]["node"]))
                            prefetch(S.R, np.int64(S.R[x]["next"]))
                            nearest = np.int64(S.T[at(nearest)]["next"])
                steps -= 1
                h = find(S.H, r, np.int64(S.T[at(q)]["key"]))
                if S.H[at(h)]["rule"] != 0 and S.H[at(h)]["runs"] > 0:
                    if not room_for(S, S.H[at(h)]["runs"], S.H[at(h)]["waiting"]):
                        return False
                    expire(T, S, P, r, h, now)
                    forget_if_empty(S, h)
                S.Q[at(r), Q_HEAD] = S.T[at(q)]["next"]
                if S.Q[at(r), Q_HEAD] < 0:
                    S.Q[at(r), Q_TAIL] = -1
                S.T[at(q)]["next"] = S.G[G_TIMER_FREE]
                S.G[G_TIMER_FREE] = q
                S.G[G_TIMERS] -= 1
    return True


@kernel
def pass_deadlines(T, S, now):
    """`advance` for rules whose steps have bounds of their own; False: make room and call again."""
    due = False
    for r in range(T.rules.shape[0]):
        due = due or (T.rules[at(r), P_WAITS] != 0 and S.Q[at(r), Q_DUE] <= now)
    if due:
        h = S.G[G_SWEEP]
        while h < S.H.shape[0]:
            r = np.int64(S.H[at(h)]["rule"]) - 1
            gone = False
            if r >= 0 and S.H[at(h)]["runs"] > 0 and T.rules[at(r), P_WAITS] and S.Q[at(r), Q_DUE] <= now:
                if not room_for(S, S.H[at(h)]["runs"], S.H[at(h)]["waiting"]):
                    S.G[G_SWEEP] = h
                    return False
                expire(T, S, rule_of(T, r), r, h, now)
                gone = forget_if_empty(S, h)
            if not gone:  # otherwise another header may have moved to this index
                h += 1
        S.G[G_SWEEP] = 0
        earliest_deadlines(T, S)
    return True

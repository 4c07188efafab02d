"""Helpers of `agents.cep.combinations.step`: the lists of events by place, and what is dropped from them.

An event stands at a place if one of the place before precedes it, so every event of a list ends at least one partial
match. Lists are in processing order, and everything is dropped from their fronts: once the first event of a place is
known, an event of the next place is held exactly if it is later than that one.
"""
# mypy: disable-error-code="no-untyped-def, no-untyped-call"
# ruff: noqa: PLR0917, D103  kernels take their arrays one by one

from __future__ import annotations

import numpy as np

from astrocyte.agents.cep.combinations.layout import (
    G_HEADERS,
    G_LIST_HIGH,
    G_NODE_FREE,
    G_NODE_HIGH,
    G_NODES,
    G_TIMER_FREE,
    G_TIMER_HIGH,
    G_TIMERS,
    P_KEEP_NEW,
    P_LENGTH,
    P_LIMIT,
    P_MOST,
    P_PLACES,
    P_SKIP,
    P_SKIP_PLACE,
    Q_HEAD,
    Q_TAIL,
    Rule,
)
from astrocyte.agents.cep.key_headers import vacate
from astrocyte.agents.jit import at, inner, prefetch


@inner
def rule_of(T, r):
    rule = T[at(r)]
    return Rule(
        rule[P_PLACES], rule[P_LENGTH], rule[P_LIMIT], rule[P_KEEP_NEW], rule[P_MOST], rule[P_SKIP], rule[P_SKIP_PLACE]
    )


# -- keys ------------------------------------------------------------------------------------------------------------


@inner
def add_key(S, places, r, key, h):
    """Fill the free header h, with empty lists for all places but the last."""
    first = S.F[at(places)]
    if first >= 0:
        S.F[at(places)] = S.L[at(first)]["head"]
    else:
        first = S.G[G_LIST_HIGH]
        S.G[G_LIST_HIGH] = first + places - 1
    for i in range(first, first + places - 1):
        S.L[at(i)]["head"] = -1
        S.L[at(i)]["tail"] = -1
        S.L[at(i)]["open"] = -1
        S.L[at(i)]["count"] = 0
    S.H[at(h)]["rule"] = r + 1
    S.H[at(h)]["key"] = key
    S.H[at(h)]["lists"] = first
    S.H[at(h)]["held"] = 0
    S.G[G_HEADERS] += 1


@inner
def forget_if_empty(S, places, h):
    """Free the header of a key without events, and its lists."""
    if S.H[at(h)]["held"] == 0:
        first = np.int64(S.H[at(h)]["lists"])
        S.L[at(first)]["head"] = S.F[at(places)]
        S.F[at(places)] = first
        vacate(S.H, h)
        S.G[G_HEADERS] -= 1


# -- events ----------------------------------------------------------------------------------------------------------


@inner
def append(S, h, place, ref, seq, back):
    """Add an event at the end of a place's list."""
    n = S.G[G_NODE_FREE]
    if n >= 0:
        following = np.int64(S.N[at(n)]["next"])
        S.G[G_NODE_FREE] = following
        prefetch(S.N, following)  # otherwise the next event waits for memory
    else:
        n = S.G[G_NODE_HIGH]
        S.G[G_NODE_HIGH] = n + 1
    S.G[G_NODES] += 1
    S.N[at(n)]["ref"] = ref
    S.N[at(n)]["seq"] = seq
    S.N[at(n)]["back"] = back
    S.N[at(n)]["next"] = -1
    S.N[at(n)]["after"] = -1
    own = np.int64(S.H[at(h)]["lists"]) + place
    tail = np.int64(S.L[at(own)]["tail"])
    if tail >= 0:
        S.N[at(tail)]["next"] = n
    else:
        S.L[at(own)]["head"] = n
    S.L[at(own)]["tail"] = n
    if S.L[at(own)]["open"] < 0:
        S.L[at(own)]["open"] = n
    S.L[at(own)]["count"] += 1
    S.H[at(h)]["held"] += 1
    if place > 0:
        x = np.int64(S.L[at(own - 1)]["open"])
        while x >= 0:
            S.N[at(x)]["after"] = n
            x = np.int64(S.N[at(x)]["next"])
        S.L[at(own - 1)]["open"] = -1


@inner
def drop_first(S, h, own):
    """Drop the first event of list ``own``."""
    x = np.int64(S.L[at(own)]["head"])
    following = S.N[at(x)]["next"]
    S.L[at(own)]["head"] = following
    if following < 0:
        S.L[at(own)]["tail"] = -1
    if S.L[at(own)]["open"] == x:
        S.L[at(own)]["open"] = following
    S.L[at(own)]["count"] -= 1
    S.H[at(h)]["held"] -= 1
    S.N[at(x)]["seq"] = -1
    S.N[at(x)]["next"] = S.G[G_NODE_FREE]
    S.G[G_NODE_FREE] = x
    S.G[G_NODES] -= 1


@inner
def drop_stranded(S, places, h, place):
    """After events of ``place`` were dropped: drop those of later places which none of the place before precedes."""
    own = np.int64(S.H[at(h)]["lists"]) + place
    end = np.int64(S.H[at(h)]["lists"]) + places - 1
    while own + 1 < end:
        head = np.int64(S.L[at(own)]["head"])
        own += 1
        dropped = False
        while S.L[at(own)]["count"] > 0 and (head < 0 or S.N[at(S.L[at(own)]["head"])]["seq"] <= S.N[at(head)]["seq"]):
            drop_first(S, h, own)
            dropped = True
        if not dropped:
            break


@inner
def expire(S, P, h, now):
    """Drop the first events that are too old for a match at ``now``, and what only they could begin."""
    own = np.int64(S.H[at(h)]["lists"])
    dropped = False
    while S.L[at(own)]["count"] > 0 and now - S.N[at(S.L[at(own)]["head"])]["back"] >= P.length:
        drop_first(S, h, own)
        dropped = True
    if dropped:
        drop_stranded(S, P.places, h, 0)


@inner
def drop_before(S, P, h, seq):
    """Drop all that begins before event number ``seq``."""
    own = np.int64(S.H[at(h)]["lists"])
    while S.L[at(own)]["count"] > 0 and S.N[at(S.L[at(own)]["head"])]["seq"] < seq:
        drop_first(S, h, own)
    drop_stranded(S, P.places, h, 0)


@inner
def drop_oldest(S, P, h):
    """Drop the oldest event of the place that holds the most (of several, the earliest place)."""
    first = np.int64(S.H[at(h)]["lists"])
    longest = np.int64(0)
    for place in range(1, P.places - 1):
        if S.L[at(first + place)]["count"] > S.L[at(first + longest)]["count"]:
            longest = np.int64(place)
    drop_first(S, h, first + longest)
    drop_stranded(S, P.places, h, longest)


# -- timers ----------------------------------------------------------------------------------------------------------


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
def drop_timer(S, r):
    """Free the first timer of a rule."""
    q = S.Q[at(r), Q_HEAD]
    S.Q[at(r), Q_HEAD] = S.T[at(q)]["next"]
    if S.Q[at(r), Q_HEAD] < 0:
        S.Q[at(r), Q_TAIL] = -1
    S.T[at(q)]["next"] = S.G[G_TIMER_FREE]
    S.G[G_TIMER_FREE] = q
    S.G[G_TIMERS] -= 1

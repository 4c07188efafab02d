"""Step of the combinations operator: sequences whose later steps take any event that fits, each by itself.

The number of partial matches of such a rule grows with a power of the window. They are never made: for each key and
place the operator keeps the events that may be there, in processing order (the active instance stacks of SASE: Wu,
Diao and Rizvi, SIGMOD 2006), so that a partial match is a path through the lists and an event costs the same in any
window. The events of one place before a given one are the union node of CORE's compact sets, and the newest of them is
what an event remembers (Bucchi et al., "CORE: a Complex Event Recognition Engine", PVLDB 15(9), 2022).

Matches are made when an event completes them, in the order in which an automaton finds them: by the first event, then
by the second, and so on. The last event that each place may have is known beforehand, so that every path that is begun
ends in a match, and the work is that of writing the matches.

The kernel allocates nothing. If there might be no room, or the outputs are full in the middle of a completion, it stops
with its position in `G` and `C`; the operator makes room and calls it again.
"""
# mypy: disable-error-code="no-untyped-def, no-untyped-call, assignment"
# ruff: noqa: PLR0917  kernels take their arrays one by one

from __future__ import annotations

import numpy as np

from astrocyte.agents.cep.combinations.layout import (
    C_FIRST,
    C_LAST,
    C_NODE,
    C_REF,
    G_COUNT,
    G_FLOOR,
    G_HEADERS,
    G_LEVEL,
    G_LIST_HIGH,
    G_NODES,
    G_OUT,
    G_REFS,
    G_ROW,
    G_TASK,
    G_TIMERS,
    K_SHIFT,
    K_SLOT,
    M_COUNT,
    M_KEY,
    M_SLOT,
    M_TIME,
    Q_CUT,
    Q_EVENTS,
    Q_HEAD,
    Q_MATCHES,
    Q_PARTIALS,
    Q_WORK,
    SKIP_NONE,
    SKIP_PAST_LAST,
    SKIP_TO_NEXT,
)
from astrocyte.agents.cep.combinations.lists import (
    add_key,
    append,
    drop_before,
    drop_first,
    drop_oldest,
    drop_timer,
    expire,
    forget_if_empty,
    rule_of,
    start_timer,
)
from astrocyte.agents.cep.key_headers import find, home
from astrocyte.agents.jit import at, inner, kernel, prefetch


@inner
def begin_matches(S, P, h):
    """Prepare `put_matches` for the lists of header h."""
    own = np.int64(S.H[at(h)]["lists"])
    place = P.places - 2
    last = np.int64(S.L[at(own + place)]["tail"])
    S.C[C_LAST, at(place)] = last
    while place > 0:
        S.C[C_FIRST, at(place)] = S.L[at(own + place)]["head"]
        place -= 1
        last = S.N[at(last)]["back"]
        S.C[C_LAST, at(place)] = last
    S.C[C_NODE, 0] = S.L[at(own)]["head"]
    S.G[G_LEVEL] = 0
    S.G[G_COUNT] = 0
    S.G[G_FLOOR] = -1


@inner
def skipped_before(S, P, seq):
    """Number of the event before which all that began is dropped after the match in ``C``, completed by ``seq``.

    It is later than the match's first event (`program` leaves the others to the automaton): the next match begins with
    a later one, and none waits for a partial match that began earlier.
    """
    if P.skip == SKIP_PAST_LAST:
        return seq + 1
    if P.skip == SKIP_TO_NEXT:
        return S.N[at(S.C[C_NODE, 0])]["seq"] + 1
    if P.skip_place == P.places - 1:
        return seq
    return S.N[at(S.C[C_NODE, at(P.skip_place)])]["seq"]


@inner
def first_after(S, x, level):
    """The first event of the next place after event x of a place."""
    first = S.C[C_FIRST, at(level + 1)]
    if S.N[at(first)]["seq"] > S.N[at(x)]["seq"]:
        return first
    return np.int64(S.N[at(x)]["after"])


@inner
def next_path(S, level):
    """Replace the event of a place by the next one, or that of the place before it; returns the place, -1: no more."""
    while level >= 0 and S.C[C_NODE, at(level)] == S.C[C_LAST, at(level)]:
        level -= 1
    if level >= 0:
        S.C[C_NODE, at(level)] = S.N[at(S.C[C_NODE, at(level)])]["next"]
    return level


@inner
def put_matches(S, P, r, key, now, ref, seq):
    """Write the matches that an event completes, from the position in ``C`` on. False: the outputs are full."""
    inmost = P.places - 2
    level = S.G[G_LEVEL]
    total = S.G[G_COUNT]
    floor = S.G[G_FLOOR]
    out = S.G[G_OUT]
    if out == S.M.shape[0]:
        return False
    used = S.G[G_REFS]
    count = np.int64(0)
    full = False
    while level >= 0 and not full:
        S.C[C_REF, at(level)] = S.N[at(S.C[C_NODE, at(level)])]["ref"]
        while level < inmost:
            x = first_after(S, S.C[C_NODE, at(level)], level)
            level += 1
            S.C[C_NODE, at(level)] = x
            S.C[C_REF, at(level)] = S.N[at(x)]["ref"]
        x = S.C[C_NODE, at(inmost)]
        last = S.C[C_LAST, at(inmost)]
        while True:
            if total == P.most:
                S.Q[at(r), Q_CUT] += 1
                level = np.int64(-1)
                break
            if used + P.places > S.R.shape[0]:
                full = True
                S.C[C_NODE, at(inmost)] = x
                break
            for place in range(inmost):
                S.R[at(used + place)] = S.C[C_REF, at(place)]
            S.R[at(used + inmost)] = S.N[at(x)]["ref"]
            S.R[at(used + inmost + 1)] = ref
            used += P.places
            count += 1
            total += 1
            if P.skip != SKIP_NONE:
                S.C[C_NODE, at(inmost)] = x
                floor = skipped_before(S, P, seq)
                level = next_path(S, np.int64(0))
                while level >= 0 and S.N[at(S.C[C_NODE, 0])]["seq"] < floor:
                    level = next_path(S, np.int64(0))
                break
            if x == last:
                level = next_path(S, inmost - 1)
                break
            x = np.int64(S.N[at(x)]["next"])
    if count > 0:
        S.M[at(out), M_SLOT] = r
        S.M[at(out), M_KEY] = key
        S.M[at(out), M_TIME] = now
        S.M[at(out), M_COUNT] = count
        S.G[G_OUT] = out + 1
        S.G[G_REFS] = used
        S.Q[at(r), Q_MATCHES] += count
        S.Q[at(r), Q_WORK] += count
    S.G[G_LEVEL] = level
    S.G[G_COUNT] = total
    S.G[G_FLOOR] = floor
    return not full


@inner
def take(S, P, r, h, word, ref, seq, now, key):
    """Add an event to the lists of the places that it may stand at. Later places first: it never follows itself."""
    held = np.int64(S.H[at(h)]["held"])
    own = np.int64(S.H[at(h)]["lists"])
    place = P.places - 2
    while place >= 0:
        if word >> np.uint64(place) & np.uint64(1):
            back = now
            if place > 0:
                back = np.int64(S.L[at(own + place - 1)]["tail"])
            if place == 0 or back >= 0:
                if P.keep_new == 0 and held >= P.limit:
                    S.Q[at(r), Q_CUT] += 1
                else:
                    append(S, h, place, ref, seq, back)
                    held += 1
                    S.Q[at(r), Q_PARTIALS] += 1
                    if place == 0:
                        start_timer(S, r, key, now)
        place -= 1
    while S.H[at(h)]["held"] > P.limit:
        drop_oldest(S, P, h)
        S.Q[at(r), Q_CUT] += 1


@inner
def feed(S, P, r, word, B, i):
    """Process one event for one rule. False: too little room; what was done is in ``G``."""
    G = S.G
    key = np.int64(B.key[at(i)])
    now = B.t[at(i)]
    h = find(S.H, r, key)
    begins = word & np.uint64(1)
    if S.H[at(h)]["rule"] == 0:
        if begins == 0:
            return True
        if 2 * (G[G_HEADERS] + 1) > S.H.shape[0] or G[G_LIST_HIGH] + P.places > S.L.shape[0]:
            return False
    if S.N.shape[0] - G[G_NODES] < P.places or G[G_TIMERS] >= S.T.shape[0]:
        return False
    if S.H[at(h)]["rule"] == 0:
        add_key(S, P.places, r, key, h)
    elif G[G_LEVEL] < 0:
        expire(S, P, h, now)
    ref = B.ref[at(i)]
    seq = B.seq[at(i)]
    if word >> np.uint64(P.places - 1):
        if G[G_LEVEL] < 0 and S.L[at(np.int64(S.H[at(h)]["lists"]) + P.places - 2)]["count"] > 0:
            begin_matches(S, P, h)
        if G[G_LEVEL] >= 0:
            if not put_matches(S, P, r, key, now, ref, seq):
                return False
            if P.skip != SKIP_NONE:
                drop_before(S, P, h, G[G_FLOOR])
                if G[G_FLOOR] > seq:
                    word = np.uint64(0)
    take(S, P, r, h, word, ref, seq, now, key)
    forget_if_empty(S, P.places, h)
    return True


@kernel
def process(T, S, B):
    """Process the batch from the position in `G`. True: all of it is done; False: make room and call again."""
    G = S.G
    far = S.H.shape[0] > 4096
    last = B.t.shape[0] - 1
    for task in range(G[G_TASK], B.tasks.shape[0]):
        r = B.tasks[at(task), K_SLOT]
        P = rule_of(T, r)
        shift = np.uint64(B.tasks[at(task), K_SHIFT])
        want = ~np.uint64(0) >> np.uint64(64 - P.places)
        events = np.int64(0)
        for i in range(G[G_ROW], B.t.shape[0]):
            if far:
                # Branchless, since branches here would be mispredicted. Record 0 stands in where there is none.
                prefetch(S.H, home(S.H, r, np.int64(B.key[at(min(i + 16, last))])))
                h = home(S.H, r, np.int64(B.key[at(min(i + 12, last))]))
                prefetch(S.L, np.int64(S.H[at(h)]["lists"]))
                h = home(S.H, r, np.int64(B.key[at(min(i + 8, last))]))
                own = np.int64(S.H[at(h)]["lists"])
                prefetch(S.N, max(np.int64(S.L[at(own)]["head"]), np.int64(0)))
                prefetch(S.N, max(np.int64(S.L[at(own)]["tail"]), np.int64(0)))
            word = (B.mask[at(i)] >> shift) & want
            if word == 0:
                continue
            if not feed(S, P, r, word, B, i):
                G[G_TASK] = task
                G[G_ROW] = i
                S.Q[at(r), Q_EVENTS] += events
                S.Q[at(r), Q_WORK] += events
                return False
            events += 1
        S.Q[at(r), Q_EVENTS] += events
        S.Q[at(r), Q_WORK] += events
        G[G_ROW] = 0
    G[G_TASK] = 0
    return True


@kernel
def advance(T, S, now):
    """Advance time to ``now`` for every key: drop what is too old."""
    far = S.H.shape[0] > 4096
    for r in range(T.shape[0]):
        P = rule_of(T, r)
        ahead = S.Q[at(r), Q_HEAD]
        steps = 0
        while S.Q[at(r), Q_HEAD] >= 0:
            q = S.Q[at(r), Q_HEAD]
            if now - S.T[at(q)]["start"] < P.length:
                break
            while far and steps < 16 and ahead >= 0:
                prefetch(S.H, home(S.H, r, np.int64(S.T[at(ahead)]["key"])))
                ahead = np.int64(S.T[at(ahead)]["next"])
                steps += 1
            steps -= 1
            h = find(S.H, r, np.int64(S.T[at(q)]["key"]))
            if S.H[at(h)]["rule"] != 0:
                expire(S, P, h, now)
                forget_if_empty(S, P.places, h)
            drop_timer(S, r)


@kernel
def clear(T, S, r):
    """Drop the events of a rule and its timers; its headers become free, so that `rehash` must follow."""
    places = rule_of(T, r).places
    for h in range(S.H.shape[0]):
        if S.H[at(h)]["rule"] == r + 1:
            own = np.int64(S.H[at(h)]["lists"])
            for place in range(places - 1):
                while S.L[at(own + place)]["count"] > 0:
                    drop_first(S, h, own + place)
            S.L[at(own)]["head"] = S.F[at(places)]
            S.F[at(places)] = own
            S.H[at(h)]["rule"] = 0
            S.G[G_HEADERS] -= 1
    while S.Q[at(r), Q_HEAD] >= 0:
        drop_timer(S, r)


@kernel
def rehash(old, new):
    """Copy the headers of keys into an empty table."""
    for i in range(old.shape[0]):
        if old[at(i)]["rule"] != 0:
            place = find(new, np.int64(old[at(i)]["rule"]) - 1, np.int64(old[at(i)]["key"]))
            new[at(place)] = old[at(i)]

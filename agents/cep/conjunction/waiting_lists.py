"""Layout and waiting lists of the conjunction operator (`agents.cep.conjunction.step` has the steps).

Waiting events of a rule lie in a ring buffer in order of arrival. Events older than the window lie below the ring's low
mark and are dead without being touched: there is no free list and no sweep. A hash table of (rule, key) holds, for each
slot of the rule, the first and the last waiting event and their number. The events of one list are linked both ways by
distances, which stay valid when a ring grows. Everything is an array, and memory follows the open windows: a key
without events is removed when the table is next rebuilt.
"""
# ruff: noqa: PLR0917  numba takes plain code and positional arguments
# mypy: disable-error-code="no-untyped-def, no-untyped-call, assignment"

from __future__ import annotations

from collections import namedtuple
from typing import Final

import numpy as np

from astrocyte.agents.expressions.vm import FALSE, TRUE, run
from astrocyte.agents.jit import inner, outer

# Rule table, one row a rule. Slots are the rule's steps, those with events of a match first (R_POSITIVE of them), then
# the negated ones with conditions over other steps. R_KILL is the set of bits of the other negated ones. R_FIELDS is
# the number of captured fields; the table ``fields`` has the row of the input's columns for each.
R_POSITIVE, R_SLOTS, R_SPAN, R_WITHIN, R_POLICY, R_SIMPLE, R_TIMEOUTS, R_CAP, R_KEEP_OLD, R_KILL = range(10)
R_COND0, R_COND1, R_FIELDS, R_WIDTH = 10, 11, 12, 13
ONCE, EACH, LATEST = 0, 1, 2
# Conditions: evaluated once slot C_LEVEL is filled; C_SLOTS is the set of slots that one reads, including its owner.
C_OWNER, C_LEVEL, C_SLOTS, C_CODE0, C_CODE1, C_WIDTH = range(6)
# State of a rule.
G_LOW, G_HIGH, G_BASE, G_START, G_MASK, G_SHARED, G_SWEPT = range(7)
G_EVENTS, G_PARTIALS, G_MATCHES, G_TIMEOUTS, G_CUT, G_WORK, G_WIDTH = range(7, 14)
# State of all rules together.
A_MATCHES, A_ROWS, A_HEADERS, A_HALF_DONE, A_SHIFT, A_WORD, A_WIDTH = range(7)
# Header: rule + 1, key, then (first, last, number) of each slot; 32 bits of a sequence number are kept.
H_RULE, H_KEY, H_LISTS = 0, 1, 2
LOW32: Final = 0xFFFFFFFF
# Flags of a waiting event.
MATCHED, REPORTED = 1, 2
# Values of a slot for which no event is chosen.
START, EMPTY, SPENT = -1, -2, -3
RING: Final = np.dtype(
    [("t", "i8"), ("ref", "i8"), ("next", "i4"), ("prev", "i4"), ("key", "i4"),
     ("slot", "u1"), ("nth", "u1"), ("roles", "u1"), ("flags", "u1")], align=True,
)  # fmt: skip
"""A waiting event in one slot, 32 bytes; ``ref`` -1 is dead. An event of several slots has adjacent entries."""

MATCH: Final = np.dtype([("time", "i8"), ("end", "i8"), ("rule", "i4"), ("key", "i4"), ("kind", "i8")], align=True)
"""One output; its events are the rows up to ``end``."""
ROW: Final = np.dtype([("ref", "i8"), ("step", "i8")], align=True)

Tables = namedtuple("Tables", "rules fields conditions code constants")  # noqa: PYI024  the form that numba takes
State = namedtuple("State", "all rules headers ring values words")  # noqa: PYI024
"""``values`` [ring, fields] holds the captured fields of waiting events, followed if needed by the remainders that
float64 cannot hold; ``words`` holds the results of their tests, if conditions read these."""
Output = namedtuple("Output", "matches rows")  # noqa: PYI024
Scratch = namedtuple("Scratch", "chosen stack low strings arena")  # noqa: PYI024
"""``strings`` and ``arena`` are the table of strings (`agents.cep.values.TextNumbers`), which is only read."""
Input = namedtuple("Input", "t ref key mask columns lows")  # noqa: PYI024
"""Entries of one rule group (`agents.cep.rows.Rows`)."""


@inner
def home(S, rule, key):
    """First index of (rule, key) in the table; the multiplication distributes consecutive keys evenly."""
    word = (np.uint64(rule) << np.uint64(32)) ^ np.uint64(key)
    return np.int64((word * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(S.all[A_SHIFT]))


@inner
def find(S, rule, key):
    """Row of (rule, key) in the table, or -1 - r where r is the free row for it."""
    H = S.headers
    row = home(S, rule, key)
    while True:
        owner = np.int64(H[np.uint64(row), H_RULE])
        if owner == rule + 1 and np.int64(H[np.uint64(row), H_KEY]) == key:
            return row
        if owner == 0:
            return -1 - row
        row = (row + 1) & (H.shape[0] - 1)


@inner
def claim(S, rule, key, row, slots):
    """Make the free row that `find` returned the header of (rule, key)."""
    row = -1 - row
    H = S.headers
    free = np.uint64(row)
    H[free, H_RULE] = rule + 1
    H[free, H_KEY] = key
    dead = (S.rules[rule, G_LOW] - 1) & LOW32
    for slot in range(slots):
        H[free, np.uint64(H_LISTS + 3 * slot)] = dead
        H[free, np.uint64(H_LISTS + 3 * slot + 1)] = dead
        H[free, np.uint64(H_LISTS + 3 * slot + 2)] = 0
    S.all[A_HEADERS] += 1
    return row


@inner
def place(x, start, mask):
    """Index of entry x in a ring, given by its start and mask: `at` without reading the rule's state."""
    return np.uint64(start + (x & mask))


@inner
def at(S, rule, x):
    """Index in the ring of the entry with sequence number x (unsigned, so that numba skips the check for negatives)."""
    return place(x, S.rules[rule, G_START], S.rules[rule, G_MASK])


@inner
def event_of(S, rule, x):
    """Sequence number of the first entry of x's event: equal for all entries of one event, ordered by arrival."""
    if x == S.rules[rule, G_HIGH]:
        return x
    return x - np.int64(S.ring[at(S, rule, x)].nth)


@inner
def whole(short, high):
    """Sequence number restored from the low 32 bits that the header holds."""
    return high - ((high - np.int64(short)) & LOW32)


@inner
def head_of(H, Q, row, slot, low, high, base, start, mask):
    """Oldest waiting event of a list, -1 if there is none; updates the list's head."""
    row = np.uint64(row)
    column = np.uint64(H_LISTS + 3 * slot)
    second = np.uint64(H_LISTS + 3 * slot + 1)
    third = np.uint64(H_LISTS + 3 * slot + 2)
    head = whole(H[row, column], high)
    if low <= head < high:
        return head
    tail = whole(H[row, second], high)
    if not low <= tail < high:
        H[row, third] = 0
        return np.int64(-1)
    if head >= base and head >= high - mask - 1:
        # The dead entries are not overwritten yet: follow them forward; each is passed once at most.
        count = np.int64(H[row, third])
        while head < low:
            head += Q[place(head, start, mask)].next
            count -= 1
    else:
        head = tail
        count = np.int64(1)
        while True:
            back = np.int64(Q[place(head, start, mask)].prev)
            if back == 0 or head - back < low:
                break
            head -= back
            count += 1
    H[row, column] = head & LOW32
    H[row, third] = count
    return head


@inner
def first_of(S, rule, row, slot):
    """`head_of` for the ring of the rule."""
    G = S.rules
    bounds = (G[rule, G_LOW], G[rule, G_HIGH], G[rule, G_BASE], G[rule, G_START], G[rule, G_MASK])
    return head_of(S.headers, S.ring, row, slot, *bounds)


@inner
def pop(H, Q, row, slot, x, low, start, mask):
    """Remove entry x, the head of its list, from the list; x is dead afterwards."""
    me = place(x, start, mask)
    row = np.uint64(row)
    column = np.uint64(H_LISTS + 3 * slot)
    second = np.uint64(H_LISTS + 3 * slot + 1)
    third = np.uint64(H_LISTS + 3 * slot + 2)
    ahead = np.int64(Q[me].next)
    Q[me].ref = -1
    H[row, third] -= 1
    if ahead == 0:
        H[row, column] = (low - 1) & LOW32
        H[row, second] = (low - 1) & LOW32
    else:
        H[row, column] = (x + ahead) & LOW32
        Q[place(x + ahead, start, mask)].prev = 0


@inner
def append(H, Q, row, slot, x, low, start, mask):
    """Append entry x, the newest of all, to a list."""
    me = place(x, start, mask)
    row = np.uint64(row)
    column = np.uint64(H_LISTS + 3 * slot)
    second = np.uint64(H_LISTS + 3 * slot + 1)
    third = np.uint64(H_LISTS + 3 * slot + 2)
    tail = whole(H[row, second], x)
    if low <= tail < x:
        Q[place(tail, start, mask)].next = x - tail
        Q[me].prev = x - tail
        H[row, third] += 1
    else:
        Q[me].prev = 0
        H[row, column] = x & LOW32
        H[row, third] = 1
    Q[me].next = 0
    H[row, second] = x & LOW32


@inner
def last_of(S, rule, row, slot):
    """Newest waiting event of a list, -1 if there is none."""
    tail = whole(S.headers[row, H_LISTS + 3 * slot + 1], S.rules[rule, G_HIGH])
    return tail if S.rules[rule, G_LOW] <= tail < S.rules[rule, G_HIGH] else np.int64(-1)


@inner
def before(S, rule, x):
    """The waiting event before x in its list, -1 if x is the first."""
    back = np.int64(S.ring[at(S, rule, x)].prev)
    return x - back if back != 0 and x - back >= S.rules[rule, G_LOW] else np.int64(-1)


@outer
def unlink(S, rule, row, x):
    """Remove entry x from its list; x is dead afterwards."""
    H = S.headers
    Q = S.ring
    me = at(S, rule, x)
    slot = np.int64(Q[me].slot)
    if x == first_of(S, rule, row, slot):
        pop(H, Q, row, slot, x, S.rules[rule, G_LOW], S.rules[rule, G_START], S.rules[rule, G_MASK])
        return
    ahead = np.int64(Q[me].next)
    back = np.int64(Q[me].prev)
    Q[me].ref = -1
    H[row, H_LISTS + 3 * slot + 2] -= 1
    if ahead == 0:
        Q[at(S, rule, x - back)].next = 0
        H[row, H_LISTS + 3 * slot + 1] = (x - back) & LOW32
    else:
        Q[at(S, rule, x - back)].next = back + ahead
        Q[at(S, rule, x + ahead)].prev = back + ahead


@outer
def remove(S, rule, row, x, slots):
    """Remove the event of entry x from its lists of slots below ``slots``."""
    me = at(S, rule, x)
    start = x - np.int64(S.ring[me].nth)
    for y in range(start, start + np.int64(S.ring[me].roles)):
        if S.ring[at(S, rule, y)].ref >= 0 and S.ring[at(S, rule, y)].slot < slots:
            unlink(S, rule, row, y)


@outer
def mark(S, rule, x, flag):
    """Set a flag on all entries of the event of entry x."""
    me = at(S, rule, x)
    start = x - np.int64(S.ring[me].nth)
    for y in range(start, start + np.int64(S.ring[me].roles)):
        S.ring[at(S, rule, y)].flags |= flag


@inner
def number_of(roles):
    """How many bits are set."""
    count = 0
    while roles != 0:
        count += 1
        roles &= roles - 1
    return count


@inner
def push(S, rule, row, t, key, ref, roles, flags, word):
    """Add an event to the list of every slot in the set ``roles``; the caller writes the captured values."""
    Q = S.ring
    H = S.headers
    number = number_of(roles)
    nth = 0
    slot = 0
    while roles >> slot != 0:
        if (roles >> slot) & 1:
            x = S.rules[rule, G_HIGH]
            me = at(S, rule, x)
            Q[me].t = t
            Q[me].ref = ref
            Q[me].key = key
            Q[me].slot = slot
            Q[me].nth = nth
            Q[me].roles = number
            Q[me].flags = flags
            if S.words.shape[0]:
                S.words[me] = word
            append(H, Q, row, slot, x, S.rules[rule, G_LOW], S.rules[rule, G_START], S.rules[rule, G_MASK])
            S.rules[rule, G_HIGH] = x + 1
            nth += 1
        slot += 1
    if number > 1:
        S.rules[rule, G_SHARED] = S.rules[rule, G_HIGH]


@inner
def load(context, slot, field):
    """An operand: a field of the event chosen for a slot, or (negative) a bit of its word; null if there is no event.

    The ring's high mark denotes the current event, row i of the input.
    """
    B, S, X, E, rule, i = context
    v = np.nan
    w = 0.0
    x = X.chosen[slot]
    if x == S.rules[rule, G_HIGH]:
        if field < 0:
            w = TRUE if (S.all[A_WORD] >> (-1 - field)) & 1 else FALSE
        else:
            v = E.columns[B.fields[rule, field], i]
            if E.lows.shape[0]:
                w = E.lows[B.fields[rule, field], i]
    elif x != EMPTY:
        if field < 0:
            w = TRUE if (S.words[at(S, rule, x)] >> (-1 - field)) & 1 else FALSE
        else:
            fields = B.fields.shape[1]
            v = S.values[at(S, rule, x), field]
            if S.values.shape[1] > fields:
                w = S.values[at(S, rule, x), fields + field]
    return v, w


@outer
def holds(B, S, X, E, rule, condition, i):
    """Whether a condition holds for the chosen events."""
    context = (B, S, X, E, rule, i)
    first = B.conditions[condition, C_CODE0]
    last = B.conditions[condition, C_CODE1]
    return run(load, context, B.code, B.constants, first, last, X.strings, X.arena, X.stack, X.low)

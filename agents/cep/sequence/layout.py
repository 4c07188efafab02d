"""Layout of the sequence kernel's tables and state (see `agents.cep.sequence.step`): columns, codes, record types."""

from __future__ import annotations

from collections import namedtuple
from typing import Final

import numpy as np

from astrocyte.agents.cep.compiler.running_values import Running

# Rule table (one row a slot). P_WAITS: some state has a deadline; P_TIMED: some edge has a bound.
(P_WINDOW, P_CLOSED, P_SKIP, P_SKIP_STEP, P_STRICT_SKIP, P_START, P_STATE0, P_BITS, P_ACT, P_IDLE, P_FAN, P_TIMEOUTS,
 P_EAGER, P_LIMIT, P_KEEP_NEW, P_WAITS, P_TIMED, P_SLOT0, P_SLOT1, P_CODE0, P_DYNAMIC, P_WORD,
 P_KNOWN, P_RESOLVED, P_WIDTH) = range(25)  # fmt: skip
SKIP_NONE, SKIP_PAST_LAST, SKIP_TO_NEXT, SKIP_TO_FIRST, SKIP_TO_LAST = range(5)
# States; S_LOCAL is the number within the rule.
S_EDGE0, S_EDGE1, S_DEADLINE, S_PENDING, S_SAME1, S_SAME2, S_LOCAL, S_WIDTH = range(8)
# Edges.
E_TAKE, E_STEP, E_TARGET, E_KIND, E_TERM0, E_TERM1, E_FINAL0, E_FINAL1, E_WAIT, E_WIDTH = range(10)
NORMAL, FINAL, STOP = 0, 1, 2
DIES, STAYS, LOOK, EVALUATE = range(4)
# Slots: running values.
L_RUNNING, L_STEP, L_COLUMN, L_WIDTH = range(4)
COUNT, VALUES, NUMBERS, SUM, MIN, MAX, FIRST, LAST, NEWEST = map(int, Running)
# Tasks.
K_SLOT, K_FROM, K_TO, K_SHIFT = range(4)
# Globals: free lists, high-water marks, live counts, outputs, used headers, timers, position, error (slot + 1).
(G_RUN_FREE, G_RUN_HIGH, G_RUNS, G_NODE_FREE, G_NODE_HIGH, G_NODES, G_OUT, G_HEADERS, G_TIMER_FREE, G_TIMER_HIGH,
 G_TIMERS, G_TASK, G_ROW, G_ERROR, G_SWEEP, G_WRITTEN, G_WIDTH) = range(17)  # fmt: skip
# Per rule: timers as a list, earliest deadline of a waiting state, counters (in the order of operator.COUNTERS).
(Q_HEAD, Q_TAIL, Q_DUE, Q_EVENTS, Q_PARTIALS, Q_MATCHES, Q_TIMEOUTS, Q_CUT, Q_WORK, Q_WIDTH) = range(10)
# Output rows.
M_SLOT, M_KEY, M_KIND, M_TIME, M_NODE, M_WIDTH = range(6)
NEVER: Final = 2**62

HEADER: Final = np.dtype(
    [("rule", "i4"), ("key", "i4"), ("head", "i4"), ("tail", "i4"), ("runs", "i4"), ("done", "i4"), ("waiting", "i4"),
     ("present", "u4")], align=True,
)  # fmt: skip
"""``rule`` is slot + 1, 0 free. ``done``: completed matches that wait for earlier runs, ``waiting`` their number.
``present``: set of states (modulo 32) in which the key may have runs."""
RUN: Final = np.dtype(
    [("state", "i4"), ("node", "i4"), ("next", "i4"), ("pad", "i4"), ("sid", "i8"), ("start", "i8")], align=True
)
"""``sid``: number of the start event in processing order; ``start``: its time (for a completed match: the match's).

32 bytes, so that no record lies across two cache lines; fields that are read less often are in the nodes.
"""
NODE: Final = np.dtype(
    [("ref", "i8"), ("seq", "i8"), ("time", "i8"), ("written", "i8"), ("step", "i4"), ("prev", "i4"), ("users", "i4"),
     ("length", "i4")], align=True,
)  # fmt: skip
"""``length``: events in the chain up to this node; ``written``: where `drain` wrote the chain up to this node."""
TIMER: Final = np.dtype([("start", "i8"), ("key", "i4"), ("next", "i4")], align=True)

Tables = namedtuple(  # noqa: PYI024
    "Tables",
    "rules states edges terms act needed resolved fired idle react slots code0 code simple consts strings arena",
)
Rule = namedtuple(  # noqa: PYI024  what the kernel reads of a rule for every event, as locals: they cannot be aliased
    "Rule", "bits act resolved idle state0 start known timed fan window length limit waits skip keep_new slot0 slot1"
)
State = namedtuple("State", "G Q H R N V W T M")  # noqa: PYI024
Scratch = namedtuple("Scratch", "stack low flags")  # noqa: PYI024
Batch = namedtuple("Batch", "tasks t seq ref key mask columns lows")  # noqa: PYI024

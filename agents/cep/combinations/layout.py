"""Layout of the combinations operator's tables and state (see `agents.cep.combinations.step`)."""

from __future__ import annotations

from collections import namedtuple
from typing import Final

import numpy as np

# Rule table (one row a slot). P_LENGTH: `within`, plus a microsecond where it is closed.
P_PLACES, P_LENGTH, P_LIMIT, P_KEEP_NEW, P_MOST, P_SKIP, P_SKIP_PLACE, P_WIDTH = range(8)
SKIP_NONE, SKIP_PAST_LAST, SKIP_TO_NEXT, SKIP_TO_PLACE = range(4)
MOST_PLACES: Final = 64
"""Each place has a bit in the word of an event."""
# Tasks.
K_SLOT, K_SHIFT = range(2)
# Globals: free lists, high-water marks and live counts; used outputs; position, and place within a completion.
(G_NODE_FREE, G_NODE_HIGH, G_NODES, G_TIMER_FREE, G_TIMER_HIGH, G_TIMERS, G_LIST_HIGH, G_HEADERS, G_OUT, G_REFS,
 G_TASK, G_ROW, G_LEVEL, G_COUNT, G_FLOOR, G_WIDTH) = range(16)  # fmt: skip
# Per rule: timers as a list, counters (in the order of operator.COUNTERS).
(Q_HEAD, Q_TAIL, Q_EVENTS, Q_PARTIALS, Q_MATCHES, Q_TIMEOUTS, Q_CUT, Q_WORK, Q_WIDTH) = range(9)
# Outputs: M_COUNT matches of one event.
M_SLOT, M_KEY, M_TIME, M_COUNT, M_WIDTH = range(5)
# The match that is being made, for each place: its event, that event's handle, the first event held, the last of use.
C_NODE, C_REF, C_FIRST, C_LAST, C_WIDTH = range(5)

HEADER: Final = np.dtype([("rule", "i4"), ("key", "i4"), ("lists", "i4"), ("held", "i4")], align=True)
"""``rule`` is slot + 1, 0 free; ``lists``: the first of its lists; ``held``: events in them."""
LIST: Final = np.dtype([("head", "i4"), ("tail", "i4"), ("open", "i4"), ("count", "i4")], align=True)
"""The events of one place and key; ``open``: the first of them that no event of the next place has followed."""
NODE: Final = np.dtype([("ref", "i8"), ("seq", "i8"), ("back", "i8"), ("next", "i4"), ("after", "i4")], align=True)
"""An event at a place. ``seq``: its number in processing order, -1 free. ``back``: of an event of the first place its
time, of others the newest event of the place before at that moment. ``next``: in its list; ``after``: the first event
of the next place that followed it, unless that one was dropped.

32 bytes, so that no record lies across two cache lines.
"""
TIMER: Final = np.dtype([("start", "i8"), ("key", "i4"), ("next", "i4")], align=True)

State = namedtuple("State", "G Q F H L N T M R C")  # noqa: PYI024
"""``F``: by length, the first free group of lists. ``R``: handles of the events of matches."""
Rule = namedtuple("Rule", "places length limit keep_new most skip skip_place")  # noqa: PYI024
Batch = namedtuple("Batch", "tasks t seq ref key mask")  # noqa: PYI024

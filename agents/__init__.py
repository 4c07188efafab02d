"""Correlation of events, with no broker: rules in, events in, matches out; and the sinks for what comes out."""

import os

# Where colorama is installed, numba colours its messages with it, and a program that has seen one, even one that numba
# handles itself, then writes a control sequence at its end, also where a terminal understands none.
os.environ.setdefault("NUMBA_DISABLE_ERROR_MESSAGE_HIGHLIGHTING", "1")

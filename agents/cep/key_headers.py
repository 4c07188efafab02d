"""Hash table of the keys of many rules: open addressing over records with ``rule`` (slot + 1; 0: free) and ``key``."""
# mypy: disable-error-code="no-untyped-def, no-untyped-call"
# ruff: noqa: D103

from __future__ import annotations

import numpy as np

from astrocyte.agents.jit import at, inner


@inner
def home(H, slot, key):
    word = (np.uint64(slot) << np.uint64(32)) ^ np.uint64(key)
    word *= np.uint64(0x9E3779B97F4A7C15)
    return np.int64((word >> np.uint64(32)) & np.uint64(H.shape[0] - 1))


@inner
def find(H, slot, key):
    """Index of the header of (rule, key), or of the free header where it belongs."""
    place = home(H, slot, key)
    while H[at(place)]["rule"] != 0 and (H[at(place)]["rule"] != slot + 1 or H[at(place)]["key"] != key):
        place = (place + 1) & (H.shape[0] - 1)
    return place


@inner
def vacate(H, h):
    """Free a header and close the gap.

    Headers behind the gap move back if their search would pass it, so that a search may end at a free header.
    """
    last = H.shape[0] - 1
    gap = np.int64(h)
    place = np.int64(h)
    while True:
        place = (place + 1) & last
        if H[at(place)]["rule"] == 0:
            break
        first = home(H, np.int64(H[at(place)]["rule"]) - 1, np.int64(H[at(place)]["key"]))
        if ((place - first) & last) >= ((place - gap) & last):
            H[at(gap)] = H[at(place)]
            gap = place
    H[at(gap)]["rule"] = 0

"""Kernels for the pools of the sequence operator: return outputs, rebuild the table of keys, drop runs."""
# mypy: disable-error-code="no-untyped-def, no-untyped-call, assignment"

from __future__ import annotations

from typing import Any

import numpy as np
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic
from numba.np.arrayobj import make_array

from astrocyte.agents.cep.key_headers import find
from astrocyte.agents.cep.sequence.layout import (
    G_OUT,
    G_TIMER_FREE,
    G_TIMERS,
    G_WRITTEN,
    M_NODE,
    NEVER,
    Q_DUE,
    Q_HEAD,
    Q_TAIL,
)
from astrocyte.agents.cep.sequence.runs import drop_head, free_run, release, room_for, settle
from astrocyte.agents.jit import at, kernel


@intrinsic
def copy_within(_context: Any, array: Any, _to: Any, _source: Any, _count: Any) -> Any:
    """Copy ``count`` items of a one-dimensional array to an index before or behind them (no overlap)."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        found = make_array(signature.args[0])(context, builder, args[0])
        to, source = (builder.gep(found.data, [index]) for index in (args[1], args[2]))
        size = context.get_abi_sizeof(context.get_data_type(signature.args[0].dtype))
        cgutils.raw_memcpy(builder, to, source, args[3], size)
        return context.get_dummy_value()

    return types.void(array, types.int64, types.int64, types.int64), generate


@kernel
def rehash(old, new):
    """Copy the headers of keys that hold something; returns their number."""
    live = 0
    for i in range(old.shape[0]):
        if old[at(i)]["rule"] != 0 and (old[at(i)]["runs"] > 0 or old[at(i)]["waiting"] > 0):
            place = find(new, np.int64(old[at(i)]["rule"]) - 1, np.int64(old[at(i)]["key"]))
            new[at(place)] = old[at(i)]
            live += 1
    return live


@kernel
def lengths(S, offsets):
    """Number of events of every queued output, as running totals in ``offsets``."""
    total = 0
    for m in range(S.G[G_OUT]):
        total += S.N[at(S.M[at(m), M_NODE])]["length"]
        offsets[m + 1] = total
    return total


@kernel
def drain(S, offsets, step, ref):
    """Events of every queued output, in order; releases their chains.

    A part that was written before is copied: the shared beginning of several chains is walked once.
    """
    base = S.G[G_WRITTEN]
    for m in range(S.G[G_OUT]):
        j = offsets[m + 1]
        x = S.M[at(m), M_NODE]
        while x >= 0:
            written = np.int64(S.N[at(x)]["written"])
            if written >= base:
                count = j - offsets[m]
                source = written - base - count
                copy_within(step, offsets[m], source, count)
                copy_within(ref, offsets[m], source, count)
                break
            S.N[at(x)]["written"] = base + j
            j -= 1
            step[j] = S.N[at(x)]["step"]
            ref[j] = S.N[at(x)]["ref"]
            x = np.int64(S.N[at(x)]["prev"])
        release(S, S.M[at(m), M_NODE])
    S.G[G_WRITTEN] = base + offsets[S.G[G_OUT]] + 1
    S.G[G_OUT] = 0


@kernel
def clear(T, S, slot, settle_waiting):
    """Drop all runs of a rule (-1: of all rules); ``settle_waiting`` emits the waiting matches. False: no room."""
    for h in range(S.H.shape[0]):
        r = np.int64(S.H[at(h)]["rule"]) - 1
        if r < 0 or (slot >= 0 and r != slot):
            continue
        if settle_waiting and not room_for(S, 0, S.H[at(h)]["waiting"]):
            return False
        while S.H[at(h)]["runs"] > 0:
            drop_head(S, h)
        if settle_waiting:
            settle(T, S, r, h)
        while S.H[at(h)]["done"] >= 0:
            x = np.int64(S.H[at(h)]["done"])
            S.H[at(h)]["done"] = S.R[at(x)]["next"]
            S.H[at(h)]["waiting"] -= 1
            release(S, np.int64(S.R[at(x)]["node"]))
            free_run(S, x)
    for r in range(T.rules.shape[0]):
        while S.Q[at(r), Q_HEAD] >= 0 and (slot < 0 or r == slot):
            q = S.Q[at(r), Q_HEAD]
            S.Q[at(r), Q_HEAD] = S.T[at(q)]["next"]
            S.T[at(q)]["next"] = S.G[G_TIMER_FREE]
            S.G[G_TIMER_FREE] = q
            S.G[G_TIMERS] -= 1
        if slot < 0 or r == slot:
            S.Q[at(r), Q_TAIL] = -1
            S.Q[at(r), Q_DUE] = NEVER
    return True

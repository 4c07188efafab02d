"""Aggregate calls: the state that each reads, and how its result is computed from it."""

from __future__ import annotations

from typing import Any, Final, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from astrocyte.agents.expressions.columns import Values as Column
from astrocyte.agents.rules.select import AggregateCall
from astrocyte.agents.windows.aggregates import bags
from astrocyte.agents.windows.aggregates.states import (
    Ewma,
    Extreme,
    Histogram,
    Moment,
    Need,
    Occurrence,
    Slope,
    Spread,
    State,
    Tokens,
    Values,
)

__all__ = ["Kind", "make_state", "need_of", "read_results", "state_of"]

Kind = Literal["number", "integer", "bool", "text"]
"""Type of a column: float64, int64, booleans or text."""

DEFAULT_BINS: Final = 32


def need_of(call: AggregateCall, kind: Kind) -> Need:
    """Input that the state needs of a column of this type."""
    exact: Need = "integer" if kind in ("integer", "bool") else "number"
    match call.func:
        case "count":
            return "rows" if call.argument is None else "token" if kind == "text" else exact
        case "count_distinct":
            return "token"
        case "entropy":
            return "token" if not call.parameters and kind != "number" else "number"
        case "first" | "last":
            return "object" if kind == "text" else exact
        case "sum" | "mean" | "min" | "max":
            return exact
        case _:
            return "number"


def state_of(call: AggregateCall, kind: Kind) -> tuple[Any, ...]:
    """Class and arguments of the state, for `make_state`; equal for aggregates that can share a state."""
    need = need_of(call, kind)
    match call.func:
        case "count" | "sum" | "mean":
            return (Moment, need)
        case "std":
            return (Spread, need)
        case "min" | "max":
            return (Extreme, need, call.func)
        case "first" | "last":
            return (Occurrence, need, call.func)
        case "slope":
            return (Slope, need)
        case "ewma":
            return (Ewma, need, call.parameters[0])
        case "entropy" if len(call.parameters) == 3:
            bins, low, high = call.parameters
            return (Histogram, need, int(bins), low, high)
        case "entropy" | "count_distinct" if need == "token":
            return (Tokens, need, call.func == "count_distinct")
        case _:
            return (Values, need)


def make_state(recipe: tuple[Any, ...]) -> State:
    """A new state from a recipe of `state_of`."""
    make, need, *parameters = recipe
    state: State = Tokens(need, estimate=parameters[0]) if make is Tokens else make(need, *parameters)
    return state


def read_results(call: AggregateCall, state: State, slots: NDArray[np.int32], kind: Kind) -> Column:
    """Results for the given slots."""
    if isinstance(state, Values | Tokens):
        return _read_bag(call, state, slots)
    a = {name: array[slots] for name, array in state.arrays.items()}
    n = a["n"]
    with np.errstate(all="ignore"):
        match call.func:
            case "count":
                return Column(np.rint(n).astype(np.int64))
            case "sum":
                return Column(a["total"])
            case "mean":
                return _where(n > 0, a["total"] / n)
            case "std":
                return _where(n > 1, np.sqrt(a["m2"] / (n - 1)))
            case "slope":
                return _where(a["ctt"] > 0, a["ctx"] / a["ctt"])
            case "entropy":
                share = a["counts"] / a["counts"].sum(axis=1, keepdims=True)
                nats = -np.where(share > 0, share * np.log(share), 0.0).sum(axis=1)
                return _where(np.asarray(a["counts"].any(axis=1)), np.abs(nats))
    if a["value"].dtype == np.object_:
        return _text(a["value"], n > 0)
    return _where(n > 0, a["value"].astype(np.bool_) if kind == "bool" else a["value"])


def _read_bag(call: AggregateCall, state: Values | Tokens, slots: NDArray[np.int32]) -> Column:
    parts = state.arena.parts
    if call.func == "count_distinct":
        return Column(bags.count_distinct(slots, *parts))
    if call.func == "quantile":
        found = bags.quantile(slots, call.parameters[0], *parts)
    elif isinstance(state, Tokens):
        found = bags.entropy_tokens(slots, *parts)
    else:
        bins = int(call.parameters[0]) if call.parameters else DEFAULT_BINS
        found = bags.entropy_binned(slots, bins, *parts)
    return _where(~np.isnan(found), found)


def _where(valid: NDArray[np.bool_], data: NDArray[Any]) -> Column:
    if data.dtype.kind == "f":
        valid = valid & ~np.isnan(data)
    return Column(data) if valid.all() else Column(data, valid)


def _text(values: NDArray[np.object_], valid: NDArray[np.bool_]) -> Column:
    encoded = pa.array(values, pa.utf8(), mask=~valid).dictionary_encode()
    return Column(encoded.indices.fill_null(-1).to_numpy(), strings=encoded.dictionary)

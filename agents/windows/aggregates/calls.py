"""Aggregate calls: the state that each reads, and how its result is computed from it."""

from __future__ import annotations

from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from astrocyte.agents.expressions.values import Mixed, Operand, exact_sums, of_arrow
from astrocyte.agents.expressions.values import Values as Column
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
from astrocyte.schemas.values.mixed import column_of

__all__ = ["Kind", "first_that_is", "make_state", "need_of", "other_need_of", "read_results", "state_of"]

Kind = Literal["number", "integer", "bool", "text", "any"]
"""What an argument holds, by the catalog: floats, integers, booleans, text; any: the catalog does not list it."""

DEFAULT_BINS: Final = 32


def need_of(call: AggregateCall, kind: Kind) -> Need:
    """Input that the state needs of an argument of this kind."""
    match call.func:
        case "count":
            return "rows" if call.argument is None else "present"
        case "count_if":
            return "true"
        case "count_distinct":
            return "token"
        case "entropy":
            return "token" if not call.parameters and kind in ("integer", "bool", "text") else "number"
        case "first" | "last":
            return "number" if kind in ("number", "integer") else "object"
        case _:
            return "number"


def other_need_of(call: AggregateCall, kind: Kind) -> Need | None:
    """Input of a second state, which gives the result of groups without numbers; None if there is none."""
    return "label" if call.func == "entropy" and not call.parameters and kind == "any" else None


def state_of(call: AggregateCall, need: Need) -> tuple[Any, ...]:
    """Class and arguments of the state, for `make_state`; equal for aggregates that can share a state."""
    match call.func:
        case "count" | "count_if" | "sum" | "mean":
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
        case "entropy" | "count_distinct" if need in ("token", "label"):
            return (Tokens, need, call.func == "count_distinct")
        case _:
            return (Values, need)


def make_state(recipe: tuple[Any, ...]) -> State:
    """A new state from a recipe of `state_of`."""
    make, need, *parameters = recipe
    state: State = Tokens(need, estimate=parameters[0]) if make is Tokens else make(need, *parameters)
    return state


def read_results(call: AggregateCall, state: State, slots: NDArray[np.int32], kind: Kind) -> Operand:
    """Results for the given slots."""
    if isinstance(state, Values | Tokens):
        return _read_bag(call, state, slots)
    a = {name: array[slots] for name, array in state.arrays.items()}
    n = a["n"]
    with np.errstate(all="ignore"):
        match call.func:
            case "count" | "count_if":
                return Column(np.rint(n).astype(np.int64))
            case "sum":
                if kind == "integer":  # sampled rows have weights, by which integers become fractions
                    return exact_sums(np.rint(a["total"]), np.rint(a["rest"]), np.ones(len(n), np.bool_))
                return exact_sums(a["total"], a["rest"], None)
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
    found = _where(n > 0, a["value"])
    low = a["low"] if "low" in a and a["low"].any() else None
    whole = np.ones(len(n), np.bool_) if kind == "integer" else None
    found = Column(found.data, found.valid, None, low, whole)
    if "held" not in a or not a["held"].any():
        return found
    rows = zip(a["held"].tolist(), a["thing"], found.to_list(len(n)), strict=True)
    return of_arrow(column_of([thing if held else number for held, thing, number in rows]))


def first_that_is(values: Operand, others: Operand) -> Operand:
    """Numbers of ``values``, and of ``others`` where there is none."""
    assert not isinstance(values, Mixed)
    assert not isinstance(others, Mixed)
    valid = values.is_valid
    return Column(np.where(valid, values.data, others.data), valid | others.is_valid)


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

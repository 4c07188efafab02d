"""Aggregate functions by name: their arguments, the state they read, and how the result follows from it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from agents.aggregates import bags
from agents.aggregates.states import (
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
from agents.expressions_columns import Values as Column
from agents.expressions_nodes import Aggregate, Constant, ExpressionError, Node

__all__ = ["AGGREGATES", "AggregateCall", "Kind", "aggregate_call"]

Kind = Literal["number", "integer", "bool", "text"]
"""What a column holds: float64, int64, truth values or text."""

DEFAULT_BINS: Final = 32
DEFAULT_ALPHA: Final = 0.3
_SAME: Final = {"stddev": "std", "median": "quantile"}
_PARAMETERS: Final = {"quantile": (1, 1), "ewma": (0, 1), "entropy": (0, 3)}
AGGREGATES: Final = frozenset(
    {
        "count", "count_distinct", "sum", "mean", "std", "stddev", "min", "max", "first", "last", "quantile", "median",
        "entropy", "slope", "ewma",
    }
)  # fmt: skip
"""Functions that `select` may use; nulls and NaN are left out by all of them."""


@dataclass(frozen=True, slots=True)
class AggregateCall:
    """One aggregate of one expression over the rows of a group. Results over no values are null, counts and sums 0.

    ``count()`` counts rows, ``count(x)`` values. ``std`` is the sample standard deviation (n - 1). ``quantile(x, q)``
    is linear between order statistics, exact up to `bags.VALUES` rows of a group. ``entropy(x)`` is in nats:
    over the values themselves of text, integers and truth values, else over 32 equal bins from the least to the
    greatest; ``entropy(x, bins)`` and ``entropy(x, bins, low, high)`` say which. ``slope(x)`` is the least-squares
    change of x per second. ``ewma(x, alpha)`` moves by alpha of the distance at each row. ``count_distinct``
    is exact up to `bags.TOKENS` values of a group, then an estimate with an error of 0.8 %. Rows that stand for
    several (sampled ones) count so in count, sum, mean, std, quantile and entropy.
    """

    func: str
    argument: Node | None
    parameters: tuple[float, ...]

    def need(self, kind: Kind) -> Need:
        """What the state reads of a column of this kind."""
        exact: Need = "integer" if kind in ("integer", "bool") else "number"
        match self.func:
            case "count":
                return "rows" if self.argument is None else "token" if kind == "text" else exact
            case "count_distinct":
                return "token"
            case "entropy":
                return "token" if not self.parameters and kind != "number" else "number"
            case "first" | "last":
                return "object" if kind == "text" else exact
            case "sum" | "mean" | "min" | "max":
                return exact
            case _:
                return "number"

    def state(self, kind: Kind) -> tuple[Any, ...]:
        """Class and arguments of the state; equal for aggregates that can share one."""
        need = self.need(kind)
        match self.func:
            case "count" | "sum" | "mean":
                return (Moment, need)
            case "std":
                return (Spread, need)
            case "min" | "max":
                return (Extreme, need, self.func)
            case "first" | "last":
                return (Occurrence, need, self.func)
            case "slope":
                return (Slope, need)
            case "ewma":
                return (Ewma, need, self.parameters[0])
            case "entropy" if len(self.parameters) == 3:
                bins, low, high = self.parameters
                return (Histogram, need, int(bins), low, high)
            case "entropy" | "count_distinct" if need == "token":
                return (Tokens, need, self.func == "count_distinct")
            case _:
                return (Values, need)

    def read(self, state: State, slots: NDArray[np.int32], kind: Kind) -> Column:
        """Results for the given places."""
        if isinstance(state, Values | Tokens):
            return self._read_bag(state, slots)
        a = {name: array[slots] for name, array in state.arrays.items()}
        n = a["n"]
        with np.errstate(all="ignore"):
            match self.func:
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

    def _read_bag(self, state: Values | Tokens, slots: NDArray[np.int32]) -> Column:
        parts = state.arena.parts
        if self.func == "count_distinct":
            return Column(bags.count_distinct(slots, *parts))
        if self.func == "quantile":
            found = bags.quantile(slots, self.parameters[0], *parts)
        elif isinstance(state, Tokens):
            found = bags.entropy_tokens(slots, *parts)
        else:
            bins = int(self.parameters[0]) if self.parameters else DEFAULT_BINS
            found = bags.entropy_binned(slots, bins, *parts)
        return _where(~np.isnan(found), found)


def _where(valid: NDArray[np.bool_], data: NDArray[Any]) -> Column:
    if data.dtype.kind == "f":
        valid = valid & ~np.isnan(data)
    return Column(data) if valid.all() else Column(data, valid)


def _text(values: NDArray[np.object_], valid: NDArray[np.bool_]) -> Column:
    encoded = pa.array(values, pa.utf8(), mask=~valid).dictionary_encode()
    return Column(encoded.indices.fill_null(-1).to_numpy(), texts=encoded.dictionary)


def aggregate_call(node: Aggregate, text: str) -> AggregateCall:
    """The call that a parsed aggregate stands for; raises ExpressionError (with positions in ``text``)."""

    def refuse(reason: str) -> ExpressionError:
        return ExpressionError(reason, text, node.at)

    func = _SAME.get(node.func, node.func)
    if node.func == "median":
        if len(node.args) != 1:
            raise refuse("median takes one expression: median(x)")
        return AggregateCall(func, node.args[0], (0.5,))
    least, most = _PARAMETERS.get(func, (0, 0))
    if func == "count" and not node.args:
        return AggregateCall(func, None, ())
    if not 1 + least <= len(node.args) <= 1 + most:
        wanted = {"quantile": "quantile(x, 0.9)", "ewma": "ewma(x, 0.3)", "entropy": "entropy(x, bins, low, high)"}
        raise refuse(f"{len(node.args)} arguments of {node.func}; {wanted.get(func, f'{node.func}(x)')} was wanted")
    parameters = []
    for argument in node.args[1:]:
        if not isinstance(argument, Constant) or isinstance(argument.value, str | bool | None):
            raise refuse(f"{node.func} takes one expression and then numbers")
        parameters.append(float(argument.value))
    if func == "quantile" and not 0 <= parameters[0] <= 1:
        raise refuse(f"quantile {parameters[0]}; a number from 0 to 1 was wanted")
    if func == "ewma":
        parameters = parameters or [DEFAULT_ALPHA]
        if not 0 < parameters[0] <= 1:
            raise refuse(f"ewma with alpha {parameters[0]}; above 0 and at most 1 was wanted")
    if func == "entropy" and parameters:
        if not (1 <= parameters[0] <= 65_536 and parameters[0].is_integer()):
            raise refuse(f"entropy over {parameters[0]} bins; a whole number from 1 to 65536 was wanted")
        if len(parameters) == 2 or (len(parameters) == 3 and not parameters[1] < parameters[2]):
            raise refuse("entropy takes bins, or bins and two bounds, the lower one first: entropy(x, 32, 0, 1)")
    return AggregateCall(func, node.args[0], tuple(parameters))

"""The ``select`` of a window: aggregate calls and the expressions around them, parsed and checked."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Final

from astrocyte.agents.expressions.kinds import OF_ANYTHING
from astrocyte.agents.expressions.nodes import Aggregate, Constant, ExpressionError, Field, Node, is_condition
from astrocyte.agents.expressions.parser import parse
from astrocyte.agents.rules.problems import OfField, in_expression
from astrocyte.schemas.arrow.columns import RESERVED

__all__ = ["AGGREGATES", "RESULT_FIELDS", "AggregateCall", "Select", "aggregate_call", "parse_select"]

DEFAULT_ALPHA: Final = 0.3
_SAME: Final = {"stddev": "std", "median": "quantile"}
_PARAMETERS: Final = {"quantile": (1, 1), "ewma": (0, 1), "entropy": (0, 3)}
AGGREGATES: Final = frozenset(
    {
        "count", "count_if", "count_distinct", "sum", "mean", "std", "stddev", "min", "max", "first", "last",
        "quantile", "median",
        "entropy", "slope", "ewma",
    }
)  # fmt: skip
"""Functions that ``select`` may use; all of them ignore nulls and NaN."""
RESULT_FIELDS: Final = ("window_start", "window_end", "revision", "final", "simulation_id")
"""Fields of every result in addition to those selected and the window's ``by``."""
_BOUNDS: Final = ("window_start", "window_end")


@dataclass(frozen=True, slots=True)
class AggregateCall:
    """One aggregate of one expression over the rows of a group. Without values it is null; counts and sums are 0.

    ``count()`` counts rows, ``count(x)`` values, ``count_if(x)`` those that are true. Text and booleans are no
    numbers, and take part in ``count``, ``count_if``, ``count_distinct``, ``first``, ``last`` and ``entropy`` only.
    ``std`` is the sample standard deviation (n - 1). ``quantile(x, q)`` is linear between order statistics, exact
    up to 8,192 values of a group, then a t-digest. ``entropy(x)`` is in nats: over the distinct values of declared
    integers, text and booleans, of other numbers over 32 equal bins from the minimum to the maximum; ``entropy(x,
    bins)`` and ``entropy(x, bins, low, high)`` set the bins. ``slope(x)`` is the least-squares change of x per
    second. ``ewma(x, alpha)`` moves by alpha times the difference at each row. ``count_distinct`` is exact up to
    65,536 values of a group, then an estimate with an error of 0.8 %. Sampled rows count with their weight in
    count, sum, mean, std, quantile and entropy.
    """

    func: str
    argument: Node | None
    parameters: tuple[float, ...]

    @property
    def as_node(self) -> Node:
        """The call as a part of an expression."""
        return Aggregate(self.func, None, () if self.argument is None else (self.argument,))


@dataclass(frozen=True, slots=True)
class Select:
    """Outputs by name, their aggregates replaced by fields ``#i``: the result of ``calls[i]``."""

    calls: tuple[AggregateCall, ...]
    outputs: Mapping[str, Node]
    written: Mapping[str, Node]
    """Outputs by name as they were parsed, each at its place."""

    @property
    def arguments(self) -> tuple[Node, ...]:
        """The expressions that the calls aggregate, each once."""
        return tuple(dict.fromkeys(call.argument for call in self.calls if call.argument is not None))


def parse_select(select: Mapping[str, str], by: str = "key") -> Select:
    """Parse a window's ``select``. Raises OfField, whose cause says the position."""
    calls: list[AggregateCall] = []
    outputs, written = {}, {}
    taken = {*RESERVED, *RESULT_FIELDS, by}
    for name, text in select.items():
        if name in taken:
            raise OfField(f"select.{name}", f"every result already has a field {name!r}; rename it")
        with in_expression("select", name):
            try:
                written[name] = parse(text, aggregates=AGGREGATES)
                outputs[name] = _extract(written[name], text, calls)
            except ExpressionError as error:
                raise OfField(f"select.{name}", str(error)) from error
    return Select(tuple(calls), outputs, written)


def _extract(node: Node, text: str, calls: list[AggregateCall]) -> Node:
    if isinstance(node, Aggregate):
        call = aggregate_call(node, text)
        if call not in calls:
            calls.append(call)
        return Field(None, f"#{calls.index(call)}", at=node.at)
    if isinstance(node, Field) and node.name not in _BOUNDS:
        raise ExpressionError(
            f"field {node.name!r} is outside an aggregate, but a window has many values of it; "
            f"write last({node.name}) or first({node.name})", text, node.at,
        )  # fmt: skip
    changed: dict[str, Any] = {}
    for attribute in fields(node):
        part = getattr(node, attribute.name)
        if isinstance(part, tuple) and part and isinstance(part[0], Node):
            changed[attribute.name] = tuple(_extract(each, text, calls) for each in part)
        elif isinstance(part, Node):
            changed[attribute.name] = _extract(part, text, calls)
    return replace(node, **changed) if changed else node


def aggregate_call(node: Aggregate, text: str) -> AggregateCall:
    """The call of a parsed aggregate; raises ExpressionError (with positions in ``text``)."""

    def refuse(reason: str) -> ExpressionError:
        return ExpressionError(reason, text, node.at)

    func = _SAME.get(node.func, node.func)
    if func == "count" and not node.args:
        return AggregateCall(func, None, ())
    least, most = (0, 0) if node.func == "median" else _PARAMETERS.get(func, (0, 0))
    if not 1 + least <= len(node.args) <= 1 + most:
        forms = {"quantile": "quantile(x, 0.9)", "ewma": "ewma(x, 0.3)", "entropy": "entropy(x, bins, low, high)"}
        form = forms.get(node.func, f"{node.func}(x)")
        raise refuse(f"expected {form}, got {node.func} with {len(node.args)} arguments")
    if func not in OF_ANYTHING and is_condition(node.args[0]):
        raise refuse(f"{node.func} of a condition: true and false are no numbers; count with count_if(condition)")
    parameters = [0.5] if node.func == "median" else []
    for argument in node.args[1:]:
        if not isinstance(argument, Constant) or isinstance(argument.value, str | bool | None):
            raise refuse(f"{node.func}: expected a number after the first argument, got another expression")
        parameters.append(float(argument.value))
    if func == "ewma" and not parameters:
        parameters = [DEFAULT_ALPHA]
    if func in _CHECKS:
        _CHECKS[func](parameters, refuse)
    return AggregateCall(func, node.args[0], tuple(parameters))


_Refuse = Callable[[str], ExpressionError]


def _check_quantile(parameters: list[float], refuse: _Refuse) -> None:
    if not 0 <= parameters[0] <= 1:
        raise refuse(f"quantile: expected a number from 0 to 1, got {parameters[0]}")


def _check_ewma(parameters: list[float], refuse: _Refuse) -> None:
    if not 0 < parameters[0] <= 1:
        raise refuse(f"ewma: expected an alpha above 0 and at most 1, got {parameters[0]}")


def _check_entropy(parameters: list[float], refuse: _Refuse) -> None:
    if parameters and not (1 <= parameters[0] <= 65_536 and parameters[0].is_integer()):
        raise refuse(f"entropy: expected a whole number of bins from 1 to 65536, got {parameters[0]}")
    if len(parameters) == 2 or (len(parameters) == 3 and not parameters[1] < parameters[2]):
        raise refuse("entropy: expected bins, or bins, low and high with low < high, such as entropy(x, 32, 0, 1)")


_CHECKS: Final[Mapping[str, Callable[[list[float], _Refuse], None]]] = {
    "quantile": _check_quantile,
    "ewma": _check_ewma,
    "entropy": _check_entropy,
}

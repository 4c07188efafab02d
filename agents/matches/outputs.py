"""Outputs of matches: emitted values, confidence and alert messages, computed for all matches of a rule at once.

An expression over the events of a match (``last(heat.value) - stress.value``) becomes an expression over columns with
one row per match: each ``step.field`` and each aggregate over a step is such a column.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from astrocyte.agents.event_time.event_store import Located
from astrocyte.agents.expressions.columns import evaluate
from astrocyte.agents.expressions.nodes import (
    Aggregate,
    And,
    Arith,
    Call,
    Compare,
    Field,
    IsNull,
    Member,
    Negate,
    Node,
    Not,
    Or,
    Text,
)
from astrocyte.agents.expressions.numbers import is_number
from astrocyte.agents.expressions.sums import add_pairs
from astrocyte.agents.expressions.values import Columns as FieldColumns
from astrocyte.agents.expressions.values import Operand, Values, exact_sums, floats, numbers_of, of_arrow
from astrocyte.agents.rules.model import Rule
from astrocyte.schemas.events import Severity
from astrocyte.schemas.values.mixed import concat_columns

__all__ = ["Columns", "gather", "outputs_of"]

Template = tuple[tuple[str, Node | None, str], ...]


class Columns:
    """Fields of the events of matches of one rule, as columns with one row per match."""

    def __init__(
        self, steps: Sequence[str], offsets: NDArray[np.int64], step: NDArray[np.int16], events: Located
    ) -> None:
        self.count = len(offsets) - 1
        self._number = {name: number for number, name in enumerate(steps)}
        self._match = np.repeat(np.arange(self.count), np.diff(offsets))
        self._step = step
        self._events = events
        self._cache: dict[str, pa.Array | Operand] = {}

    def evaluate(self, node: Node) -> list[Any]:
        """Value of an expression for each match, as Python values; null is None."""
        rewritten = self._rewrite(node)
        columns = FieldColumns(self._cache.get, self.count)
        return evaluate(rewritten, columns).to_list(self.count)

    def _rewrite(self, node: Node) -> Node:
        match node:
            case Field(str() as step, name):
                return self._column(f"{step}.{name}", "newest", step, name)
            case Aggregate(func, str() as step, ()):
                return self._column(f"{func}({step})", "count", step, None)
            case Aggregate(func, str() as step, (Field(_, name),)):
                return self._column(f"{func}({step}.{name})", func, step, name)
            case Call(_, args):
                return replace(node, args=tuple(self._rewrite(arg) for arg in args))
            case Arith(_, left, right) | Compare(_, left, right):
                return replace(node, left=self._rewrite(left), right=self._rewrite(right))
            case And(parts) | Or(parts):
                return replace(node, parts=tuple(self._rewrite(part) for part in parts))
            case Negate(value) | Not(value) | Member(value) | Text(_, value) | IsNull(value):
                return replace(node, value=self._rewrite(value))
            case _:
                return node

    def _column(self, label: str, func: str, step: str, name: str | None) -> Node:
        if label not in self._cache:
            rows = np.flatnonzero(self._step == self._number[step])
            match = self._match[rows]
            if name is None:
                column: pa.Array | Operand = Values(np.bincount(match, minlength=self.count))
            elif func == "newest":
                column = gather(self._events, _places(rows, match, self.count), name)
            elif func in ("first", "last"):
                values = gather(self._events, rows, name)
                there = np.flatnonzero(of_arrow(values).is_valid)
                place = _places(there, match[there], self.count, first=func == "first")
                column = values.take(pa.array(place, mask=place < 0))
            else:
                column = _aggregate(func, of_arrow(gather(self._events, rows, name)), match, self.count)
            self._cache[label] = column
        return Field(None, label)


def gather(events: Located, places: NDArray[np.int64], name: str) -> pa.Array:
    """Field ``name`` of the events at ``places`` (-1: null), across frames of different streams."""
    there = np.flatnonzero(places >= 0)
    if not len(there):
        return pa.nulls(len(places), pa.float64())
    parts, positions = [], []
    for chunk, position, rows in events.take(places[there]).parts():
        positions.append(there[position])
        if not chunk.frame.has(name):
            parts.append(pa.nulls(len(rows)))
            continue
        array = chunk.frame.column(name).take(pa.array(rows))
        parts.append(array.dictionary_decode() if pa.types.is_dictionary(array.type) else array)
    if len(parts) == 1 and len(there) == len(places):
        return parts[0] if (np.diff(positions[0]) == 1).all() else parts[0].take(pa.array(np.argsort(positions[0])))
    joined = concat_columns(parts)
    order = np.full(len(places), -1, np.int64)
    order[np.concatenate(positions)] = np.arange(len(joined))
    return joined.take(pa.array(order, mask=order < 0))


def _places(rows: NDArray[np.int64], match: NDArray[np.int64], count: int, *, first: bool = False) -> NDArray[np.int64]:
    """The last (or first) of the rows of each match; -1 without any."""
    place = np.full(count, -1, np.int64)
    order = slice(None, None, -1) if first else slice(None)
    place[match[order]] = rows[order]  # where several assign to one place, NumPy keeps the last assignment
    return place


def _aggregate(func: str, column: Operand, match: NDArray[np.int64], count: int) -> Values:
    """Aggregate the values of each match (``match`` ascends). Nulls are ignored; without a value it is null.

    Functions other than count take numbers only.
    """
    if func == "count":
        return Values(np.bincount(match[column.is_valid], minlength=count))
    numbers = numbers_of(column)
    if numbers is None:
        numbers = Values(np.zeros(len(match)), np.zeros(len(match), np.bool_))
    rows = np.flatnonzero(numbers.is_valid)
    numbers, match = numbers.take(rows), match[rows]
    if func in ("sum", "mean"):
        found = _sums(numbers, match, count)
        number = np.bincount(match, minlength=count)
        if func == "sum":
            return found
        high = found.pair()[0]
        valid = found.is_valid & (number > 0)
        return floats(np.divide(high, number, out=np.zeros(count), where=number > 0), valid)
    return _extremes(func, numbers, match, count)


def _sums(numbers: Values, match: NDArray[np.int64], count: int) -> Values:
    """Sum of the numbers of each match, as `agents.expressions.numbers.total` computes it."""
    starts = np.flatnonzero(np.diff(match, prepend=-1))
    data = numbers.data
    if data.dtype.kind == "i":
        most = int(np.diff(np.append(starts, len(data))).max(initial=0))
        if not len(data) or most * max(int(data.max()), -int(data.min())) < 2**63:
            sums = np.zeros(count, np.int64)
            if len(starts):
                sums[match[starts]] = np.add.reduceat(data, starts)
            return Values(sums)
    high, low = numbers.pair()
    totals, rests = np.zeros(count), np.zeros(count)
    rest = np.zeros(1) if low is None else low
    add_pairs(match, high, rest, int(low is not None), totals, rests)
    whole = np.ones(count, np.bool_)
    whole[match[~np.broadcast_to(numbers.is_integer, match.shape)]] = False
    return exact_sums(totals, rests, whole)


def _extremes(func: str, numbers: Values, match: NDArray[np.int64], count: int) -> Values:
    """Least or greatest number of each match; of equal ones the first."""
    high, low = numbers.pair()
    sign = -1.0 if func == "max" else 1.0
    keys: list[NDArray[Any]] = [sign * high, match]
    order = np.lexsort(keys if low is None else [sign * low, *keys])
    first = order[np.flatnonzero(np.diff(match[order], prepend=-1))]
    place = np.full(count, -1, np.int64)
    place[match[first]] = first
    if not len(first):
        return Values(np.zeros(count), np.zeros(count, np.bool_))
    found = numbers.take(np.maximum(place, 0))
    return replace(found, valid=place >= 0)


def outputs_of(rule: Rule, columns: Columns, *, timed_out: bool, alerts: bool = True) -> Mapping[str, Any]:
    """Columns ``emit`` (mappings), ``confidence`` (an array), ``integrated`` and ``alert`` of matches of one rule.

    Without ``alerts`` no message is computed, and ``alert`` is None.
    A confidence that cannot be computed is 0; without an expression for it, it is 1.
    """
    nodes = rule.timeout_emit_nodes if timed_out else rule.emit_nodes
    alert = rule.alert if not timed_out else rule.on_timeout.alert if rule.on_timeout else None
    message = rule.timeout_message if timed_out else rule.message
    confidence: Any = np.ones(columns.count)
    node = nodes.get("confidence") if timed_out else rule.confidence_node
    if node is not None:
        found = columns.evaluate(node)
        confidence = np.array([value if isinstance(value, int | float) else 0.0 for value in found], np.float64)
    emitted = {name: columns.evaluate(node) for name, node in nodes.items()}
    rows = zip(*emitted.values(), strict=True) if emitted else ()
    emit = [dict(zip(emitted, row, strict=True)) for row in rows] or [{}] * columns.count
    integrated = [value if is_number(value) else None for value in emitted.get("integrated_value", ())]
    messages: list[tuple[Severity, str] | None] = [None] * columns.count
    if alert is not None and message is not None and alerts:
        messages = [(alert.severity, text) for text in _strings(message, columns)]
    return {
        "emit": emit,
        "confidence": confidence,
        "integrated": integrated or [None] * columns.count,
        "alert": messages,
    }


def _strings(template: Template, columns: Columns) -> list[str]:
    pieces: list[Sequence[str]] = []
    for literal, node, spec in template:
        pieces.append([literal] * columns.count)
        if node is not None:
            pieces.append([_text(value, spec) for value in columns.evaluate(node)])
    return ["".join(parts) for parts in zip(*pieces, strict=True)]


def _text(value: Any, spec: str) -> str:
    if value is None or value != value:  # noqa: PLR0124  NaN is the only value unequal to itself
        return "null"
    return str(value) if isinstance(value, bool | str) else format(value, spec)

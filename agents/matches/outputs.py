"""Outputs of matches: emitted values, confidence and alert messages, computed for all matches of a rule at once.

An expression over the events of a match (``last(heat.value) - stress.value``) becomes an expression over columns with
one row per match: each ``step.field`` and each aggregate over a step is such a column.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from astrocyte.agents.event_time.event_store import Located
from astrocyte.agents.expressions.columns import Columns as FieldColumns
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
from astrocyte.agents.expressions.numbers import EXACT, total
from astrocyte.agents.rules.model import Rule
from astrocyte.schemas.events import Severity

__all__ = ["Columns", "gather", "outputs_of"]

Template = tuple[tuple[str, Node | None, str], ...]
_REDUCE: Final = {"min": np.minimum, "max": np.maximum}


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
        self._cache: dict[str, pa.Array] = {}

    def evaluate(self, node: Node) -> list[Any]:
        """Value of an expression for each match, as Python values; null is None."""
        rewritten = self._rewrite(node)
        columns = FieldColumns(self._cache.get, self.count)
        return evaluate(rewritten, columns).to_list(self.count)

    def _rewrite(self, node: Node) -> Node:
        match node:
            case Field(str() as step, name):
                return self._column(f"{step}.{name}", "last", step, name)
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
                column = pa.array(np.bincount(match, minlength=self.count))
            elif func in ("first", "last"):
                # Where several events assign to one place, NumPy keeps the last assignment.
                place = np.full(self.count, -1, np.int64)
                order = slice(None) if func == "last" else slice(None, None, -1)
                place[match[order]] = rows[order]
                column = gather(self._events, place, name)
            else:
                column = _aggregate(func, gather(self._events, rows, name), match, self.count)
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
    joined = _joined(parts)
    order = np.full(len(places), -1, np.int64)
    order[np.concatenate(positions)] = np.arange(len(joined))
    return joined.take(pa.array(order, mask=order < 0))


def _joined(parts: Sequence[pa.Array]) -> pa.Array:
    kinds = {part.type for part in parts if not pa.types.is_null(part.type)}
    if len(kinds) <= 1:
        kind = kinds.pop() if kinds else pa.float64()
        return pa.concat_arrays([part.cast(kind) for part in parts])
    if all(pa.types.is_integer(kind) or pa.types.is_floating(kind) for kind in kinds):
        whole = all(pa.types.is_integer(kind) for kind in kinds)
        return pa.concat_arrays([part.cast(pa.int64() if whole else pa.float64()) for part in parts])
    return pa.concat_arrays([part.cast(pa.utf8()) for part in parts])


def _aggregate(func: str, values: pa.Array, match: NDArray[np.int64], count: int) -> pa.Array:
    """Aggregate the values of each match (``match`` ascends). Nulls and NaN are ignored; without a value it is null."""
    valid = np.asarray(values.is_valid())
    if pa.types.is_floating(values.type):
        valid &= ~np.isnan(values.fill_null(np.nan).to_numpy(zero_copy_only=False))
    match = match[valid]
    numbers = np.bincount(match, minlength=count)
    if func == "count":
        return pa.array(numbers)
    numeric = pa.types.is_integer(values.type) or pa.types.is_floating(values.type) or pa.types.is_boolean(values.type)
    if not numeric:
        values, match, numbers = pa.array([], pa.float64()), match[:0], np.zeros_like(numbers)
    else:
        values = values.filter(pa.array(valid))
    data = values.to_numpy(zero_copy_only=False)
    data = data.astype(np.int64) if data.dtype.kind in "bi" else data.astype(np.float64)
    starts = np.flatnonzero(np.diff(match, prepend=-1))
    if func in ("sum", "mean"):
        result = _sums(data, match, starts, count)
    else:
        result = np.zeros(count, data.dtype)
        if len(starts):
            result[match[starts]] = _REDUCE[func].reduceat(data, starts)
    if func == "mean":
        result = np.divide(result, numbers, out=np.zeros(count), where=numbers > 0)
    return pa.array(result, mask=None if func == "sum" else numbers == 0)


def _sums(
    data: NDArray[Any], match: NDArray[np.int64], starts: NDArray[np.int64], count: int
) -> NDArray[np.int64] | NDArray[np.uint64] | NDArray[np.float64]:
    """Sum of each match; integer sums are int64, or uint64 or float64 if they do not fit."""
    result = np.zeros(count, data.dtype)
    lengths = np.diff(np.append(starts, len(data)))
    if not len(starts):
        return result
    few = data.dtype.kind == "f" and int(lengths.max()) <= 2 and bool((np.abs(data) < EXACT / 2).all())
    if few or (data.dtype.kind == "i" and int(lengths.max()) * max(int(data.max()), -int(data.min())) < 2**63):
        result[match[starts]] = np.add.reduceat(data, starts)
        return result
    sums: list[int | float] = [0] * count
    for place, part in zip(match[starts].tolist(), np.split(data, starts[1:]), strict=True):
        sums[place] = total(part.tolist())
    least, most = min(sums), max(sums)
    if all(isinstance(each, int) for each in sums) and least >= -(2**63) and (most < 2**63 or least >= 0):
        return np.array(sums, np.int64) if most < 2**63 else np.array(sums, np.uint64)
    return np.array(sums, np.float64)


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
    integrated = [value if isinstance(value, int | float) else None for value in emitted.get("integrated_value", ())]
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

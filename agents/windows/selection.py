"""What a window selects: aggregate expressions, the columns they read and how results follow from the states."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from agents.aggregates import AGGREGATES, AggregateCall, State, aggregate_call
from agents.aggregates.calls import Kind
from agents.aggregates.states import Need
from agents.expressions import parse
from agents.expressions_columns import Columns, Values, evaluate
from agents.expressions_nodes import Aggregate, ExpressionError, Field, Node, walk
from agents.windows.rows import ColumnData
from agents.windows.tokens import tokens_of
from schemas.catalog import Catalog
from schemas.errors import InvalidRule
from schemas.frames import RESERVED, Frame

__all__ = ["RESULT_FIELDS", "Layout", "Selection"]

RESULT_FIELDS: Final = ("window_start", "window_end", "revision", "final", "simulation_id")
"""Fields that every result has besides those selected and the window's ``by``."""
_BOUNDS: Final = ("window_start", "window_end")
_INTEGERS: Final = ("int64", "int32")


class Selection:
    """Parsed ``select`` of one window. Raises InvalidRule that names the window and the field."""

    def __init__(self, window: str, by: str, select: Mapping[str, str]) -> None:
        self.calls: list[AggregateCall] = []
        self.outputs: dict[str, Node] = {}
        for name, text in select.items():
            taken = {*RESERVED, *RESULT_FIELDS, *((by,) if by != "key" else ())}
            if name in taken:
                raise InvalidRule(
                    f"window {window!r}: select.{name}: every result has a field {name!r} of its own; rename it"
                )
            try:
                node = parse(text, aggregates=AGGREGATES)
                self.outputs[name] = self._extract(node, text)
            except ExpressionError as error:
                raise InvalidRule(f"window {window!r}: select.{name}: {error}") from error
        self.arguments: list[Node] = []
        for call in self.calls:
            if call.argument is not None and call.argument not in self.arguments:
                self.arguments.append(call.argument)

    def _extract(self, node: Node, text: str) -> Node:
        """The expression with each aggregate replaced by a field ``#i``: result i."""
        if isinstance(node, Aggregate):
            call = aggregate_call(node, text)
            if call not in self.calls:
                self.calls.append(call)
            return Field(None, f"#{self.calls.index(call)}", at=node.at)
        if isinstance(node, Field) and node.name not in _BOUNDS:
            raise ExpressionError(
                f"field {node.name!r} stands outside of an aggregate, and a window holds many of its values; "
                f"write last({node.name}) or first({node.name})", text, node.at,
            )  # fmt: skip
        changed: dict[str, Any] = {}
        for attribute in fields(node):
            part = getattr(node, attribute.name)
            if isinstance(part, tuple) and part and isinstance(part[0], Node):
                changed[attribute.name] = tuple(self._extract(each, text) for each in part)
            elif isinstance(part, Node):
                changed[attribute.name] = self._extract(part, text)
        return replace(node, **changed) if changed else node

    def kinds(self, frame: Frame, columns: Columns, catalog: Catalog) -> list[Kind]:
        """What each argument holds: by the catalog, and for fields that it does not list, by this first frame.

        Numbers of a stream that the catalog does not list are float64, because one record may say 3 and the next 3.5.
        """
        event_type = catalog.find(frame.stream)
        listed = dict(event_type.fields) if event_type is not None else {}
        listed |= {"timestamp": "int64", "key": "string", "type": "string"}
        kinds: list[Kind] = []
        for node in self.arguments:
            values = evaluate(node, columns)
            names = [part.name for part in walk(node) if isinstance(part, Field)]
            of_field = listed.get(node.name) if isinstance(node, Field) else None
            if of_field == "string" or (of_field is None and values.texts is not None):
                kinds.append("text")
            elif values.data.dtype == np.bool_:
                kinds.append("bool")
            elif of_field in _INTEGERS or (
                values.data.dtype.kind == "i" and all(listed.get(name) in _INTEGERS for name in names)
            ):
                kinds.append("integer")
            else:
                kinds.append("number")
        return kinds


@dataclass(frozen=True, slots=True)
class _Reader:
    call: AggregateCall
    state: int
    kind: Kind


class Layout:
    """Columns and states for one selection over arguments of known kinds."""

    def __init__(self, selection: Selection, kinds: Sequence[Kind]) -> None:
        self.kinds = tuple(kinds)
        self._selection = selection
        self._columns: list[tuple[int, Need]] = []
        self._readers: list[_Reader] = []
        self.states: list[tuple[State, int | None]] = []
        made: dict[tuple[Any, ...], int] = {}
        for call in selection.calls:
            kind: Kind = "number"
            column = None
            if call.argument is not None:
                argument = selection.arguments.index(call.argument)
                kind = self.kinds[argument]
                wanted = (argument, call.need(kind))
                if wanted not in self._columns:
                    self._columns.append(wanted)
                column = self._columns.index(wanted)
            recipe = call.state(kind)
            if (recipe, column) not in made:
                made[recipe, column] = len(self.states)
                make, need, *parameters = recipe
                named = {"estimate": parameters.pop()} if make.__name__ == "Tokens" else {}
                self.states.append((make(need, *parameters, **named), column))
            self._readers.append(_Reader(call, made[recipe, column], kind))

    def columns(self, fields: Columns) -> tuple[ColumnData, ...]:
        """The columns that the states read, of the rows of ``fields``."""
        values = [evaluate(node, fields) for node in self._selection.arguments]
        return tuple(_convert(values[argument], need, fields.rows) for argument, need in self._columns)

    def results(
        self, slots: NDArray[np.int32], start: NDArray[np.int64], end: NDArray[np.int64]
    ) -> dict[str, pa.Array]:
        """Selected fields of the given groups."""
        found = {
            f"#{index}": reader.call.read(self.states[reader.state][0], slots, reader.kind)
            for index, reader in enumerate(self._readers)
        }
        found |= {"window_start": Values(start), "window_end": Values(end)}
        columns = Columns(lambda name: found[name].to_arrow(len(slots)), len(slots))
        return {name: evaluate(node, columns).to_arrow(len(slots)) for name, node in self._selection.outputs.items()}


def _convert(values: Values, need: Need, rows: int) -> ColumnData:
    column = _typed(values, need, rows)
    # Arrow's arrays are read-only, which numba takes for another type: it would compile every kernel twice.
    return column if column.data.flags.writeable else ColumnData(column.data.copy(), column.valid)


def _typed(values: Values, need: Need, rows: int) -> ColumnData:
    data = np.broadcast_to(values.data, (rows,))
    valid = None if values.valid is None else np.broadcast_to(values.valid, (rows,))
    if values.texts is not None:
        valid = None if (data >= 0).all() else np.asarray(data >= 0)
    if need == "token":
        return ColumnData(tokens_of(Values(data, valid, values.texts)), valid)
    if need == "object":
        if values.texts is None:
            return ColumnData(np.full(rows, None, np.object_), np.zeros(rows, np.bool_))
        return ColumnData(np.array([*values.texts.to_pylist(), None], np.object_)[data], valid)
    if values.texts is not None:
        return ColumnData(np.zeros(rows, np.int64 if need == "integer" else np.float64), np.zeros(rows, np.bool_))
    if need == "number":
        return ColumnData(data.astype(np.float64, copy=False), valid)
    if data.dtype.kind == "f":
        whole = np.isfinite(data) & (np.abs(data) < 2.0**63)
        kept = np.where(whole, data, 0.0)
        return ColumnData(np.rint(kept).astype(np.int64), whole if valid is None else whole & valid)
    return ColumnData(data.astype(np.int64, copy=False), valid)

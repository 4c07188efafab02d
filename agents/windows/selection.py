"""Columns and states for a window's `select`, and the selected fields computed from the states."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from astrocyte.agents.cep.rows import plain
from astrocyte.agents.expressions.columns import evaluate, truth_of
from astrocyte.agents.expressions.nodes import Arith, Call, Constant, Field, Negate, Node, children, is_condition
from astrocyte.agents.expressions.values import Columns, Mixed, Operand, Values, bools_of, numbers_of, text_of
from astrocyte.agents.rules.select import AggregateCall, Select
from astrocyte.agents.windows.aggregates import State, make_state, need_of, read_results, state_of
from astrocyte.agents.windows.aggregates.calls import Kind, first_that_is, other_need_of
from astrocyte.agents.windows.aggregates.states import Need
from astrocyte.agents.windows.rows import ColumnData
from astrocyte.agents.windows.tokens import tokens_of
from astrocyte.schemas.catalog import Catalog

__all__ = ["Layout", "kinds_of"]

_KINDS: Final[dict[str, Kind]] = {"int64": "integer", "int32": "integer", "float64": "number", "float32": "number",
                                  "bool": "bool", "string": "text", "json": "text"}  # fmt: skip


def kinds_of(select: Select, stream: str, catalog: Catalog) -> list[Kind]:
    """What each argument holds, by the catalog.

    A field that it does not list may hold anything, so that no result depends on which event came first. Numbers
    among its values count as float64, because one event may have 3 and the next 3.5.
    """
    event_type = catalog.find(stream)
    listed = {} if event_type is None else {name: _KINDS.get(kind, "any") for name, kind in event_type.fields.items()}
    listed |= {"timestamp": "integer", "key": "text", "type": "text"}
    return [_kind_of(node, listed) for node in select.arguments]


def _kind_of(node: Node, listed: Mapping[str, Kind]) -> Kind:
    match node:
        case Field(None, name):
            return listed.get(name, "any")
        case Constant(str()):
            return "text"
        case _ if is_condition(node):
            return "bool"
        case Constant(int()):
            return "integer"
        case Arith("+" | "-" | "*" | "%") | Negate() | Call("abs" | "min" | "max"):
            return "integer" if all(_kind_of(part, listed) == "integer" for part in children(node)) else "number"
        case _:
            return "number"


@dataclass(frozen=True, slots=True)
class _Reader:
    call: AggregateCall
    kind: Kind
    state: int
    other: int | None
    """State that gives the results of groups for which the first has none."""


class Layout:
    """Columns and states for one selection over arguments of known types."""

    def __init__(self, select: Select, kinds: Sequence[Kind]) -> None:
        self.kinds = tuple(kinds)
        self._select = select
        self._columns: list[tuple[int, Need]] = []
        self._readers: list[_Reader] = []
        self.states: list[tuple[State, int | None]] = []
        made: dict[tuple[Any, ...], int] = {}
        for call in select.calls:
            kind: Kind = "number" if call.argument is None else self.kinds[select.arguments.index(call.argument)]
            other = other_need_of(call, kind)
            state = self._state(call, need_of(call, kind), made)
            self._readers.append(_Reader(call, kind, state, None if other is None else self._state(call, other, made)))

    def _state(self, call: AggregateCall, need: Need, made: dict[tuple[Any, ...], int]) -> int:
        """Number of the state with this input, which is made where ``made`` has none yet."""
        column = None
        if call.argument is not None:
            wanted = (self._select.arguments.index(call.argument), need)
            if wanted not in self._columns:
                self._columns.append(wanted)
            column = self._columns.index(wanted)
        recipe = state_of(call, need)
        if (recipe, column) not in made:
            made[recipe, column] = len(self.states)
            self.states.append((make_state(recipe), column))
        return made[recipe, column]

    def columns(self, fields: Columns) -> tuple[ColumnData, ...]:
        """The columns that the states read, for the rows of ``fields``."""
        values = [evaluate(node, fields) for node in self._select.arguments]
        return tuple(_convert(values[argument], need, fields.rows) for argument, need in self._columns)

    def results(
        self, slots: NDArray[np.int32], start: NDArray[np.int64], end: NDArray[np.int64]
    ) -> dict[str, pa.Array]:
        """Selected fields of the given groups."""
        found: dict[str, Operand] = {}
        for index, reader in enumerate(self._readers):
            values = read_results(reader.call, self.states[reader.state][0], slots, reader.kind)
            if reader.other is not None:
                other = read_results(reader.call, self.states[reader.other][0], slots, reader.kind)
                values = first_that_is(values, other)
            found[f"#{index}"] = values
        found |= {"window_start": Values(start), "window_end": Values(end)}
        columns = Columns(found.get, len(slots))
        return {name: evaluate(node, columns).to_arrow(len(slots)) for name, node in self._select.outputs.items()}


def _convert(values: Operand, need: Need, rows: int) -> ColumnData:
    if need == "true":
        return ColumnData(np.zeros(rows, np.int8), plain(np.broadcast_to(truth_of(values), (rows,))))
    if need == "number" or (need == "object" and numbers_of(values) is values):
        return _numbers(numbers_of(values), rows)
    if need == "label" and isinstance(values, Mixed):
        values = Mixed(None, values.text, values.bools)
        values = values if len(values.parts) > 1 else values.parts[0]
    if need == "label" and isinstance(values, Values) and numbers_of(values) is not None:
        return ColumnData(np.zeros(rows, np.uint64), np.zeros(rows, np.bool_))
    valid = _valid(values, rows)
    if need == "present":
        return ColumnData(np.zeros(rows, np.int8), valid)
    if need == "object":
        return ColumnData(_objects(values, rows), valid)
    return ColumnData(_whole(tokens_of(values), rows), valid)


def _numbers(numbers: Values | None, rows: int) -> ColumnData:
    if numbers is None:
        return ColumnData(np.zeros(rows), np.zeros(rows, np.bool_))
    high, low = numbers.pair()
    return ColumnData(_whole(high, rows), _valid(numbers, rows), None if low is None else _whole(low, rows))


def _whole(data: NDArray[Any], rows: int) -> NDArray[Any]:
    return plain(np.broadcast_to(data, (rows,)))


def _valid(values: Operand, rows: int) -> NDArray[np.bool_] | None:
    if isinstance(values, Values) and values.strings is None and values.valid is None:
        return None
    valid = np.broadcast_to(values.is_valid, (rows,))
    return None if valid.all() else plain(valid)


def _objects(values: Operand, rows: int) -> NDArray[np.object_]:
    """The values as Python objects; see `ColumnData.as_objects` for numbers."""
    found = np.full(rows, None, np.object_)
    numbers = numbers_of(values)
    if numbers is not None:
        column = _numbers(numbers, rows).as_objects()
        mine = slice(None) if column.valid is None else column.valid
        found[mine] = column.data[mine]
    for part in (text_of(values), bools_of(values)):
        if part is not None:
            listed = np.empty(rows, np.object_)
            listed[:] = part.to_list(rows)
            there = np.broadcast_to(part.is_valid, (rows,))
            found[there] = listed[there]
    return found

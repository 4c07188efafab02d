"""Columns and states for a window's `select`, and the selected fields computed from the states."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from astrocyte.agents.cep.rows import plain
from astrocyte.agents.expressions.columns import Columns, Values, evaluate
from astrocyte.agents.expressions.nodes import Field, walk
from astrocyte.agents.rules.select import AggregateCall, Select
from astrocyte.agents.windows.aggregates import State, make_state, need_of, read_results, state_of
from astrocyte.agents.windows.aggregates.calls import Kind
from astrocyte.agents.windows.aggregates.states import Need
from astrocyte.agents.windows.rows import ColumnData
from astrocyte.agents.windows.tokens import tokens_of
from astrocyte.schemas.catalog import Catalog
from astrocyte.schemas.frames import Frame

__all__ = ["Layout", "kinds_of"]

_INTEGERS: Final = ("int64", "int32")


def kinds_of(select: Select, frame: Frame, columns: Columns, catalog: Catalog) -> list[Kind]:
    """Type of each argument: from the catalog, and for fields that it does not list, from this first frame.

    Numbers of a stream that the catalog does not list are float64, because one record may have 3 and the next 3.5.
    """
    event_type = catalog.find(frame.stream)
    listed = dict(event_type.fields) if event_type is not None else {}
    listed |= {"timestamp": "int64", "key": "string", "type": "string"}
    kinds: list[Kind] = []
    for node in select.arguments:
        values = evaluate(node, columns)
        names = [part.name for part in walk(node) if isinstance(part, Field)]
        of_field = listed.get(node.name) if isinstance(node, Field) else None
        if of_field == "string" or (of_field is None and values.strings is not None):
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
    """Columns and states for one selection over arguments of known types."""

    def __init__(self, select: Select, kinds: Sequence[Kind]) -> None:
        self.kinds = tuple(kinds)
        self._select = select
        self._columns: list[tuple[int, Need]] = []
        self._readers: list[_Reader] = []
        self.states: list[tuple[State, int | None]] = []
        made: dict[tuple[Any, ...], int] = {}
        for call in select.calls:
            kind: Kind = "number"
            column = None
            if call.argument is not None:
                argument = select.arguments.index(call.argument)
                kind = self.kinds[argument]
                wanted = (argument, need_of(call, kind))
                if wanted not in self._columns:
                    self._columns.append(wanted)
                column = self._columns.index(wanted)
            recipe = state_of(call, kind)
            if (recipe, column) not in made:
                made[recipe, column] = len(self.states)
                self.states.append((make_state(recipe), column))
            self._readers.append(_Reader(call, made[recipe, column], kind))

    def columns(self, fields: Columns) -> tuple[ColumnData, ...]:
        """The columns that the states read, for the rows of ``fields``."""
        values = [evaluate(node, fields) for node in self._select.arguments]
        return tuple(_convert(values[argument], need, fields.rows) for argument, need in self._columns)

    def results(
        self, slots: NDArray[np.int32], start: NDArray[np.int64], end: NDArray[np.int64]
    ) -> dict[str, pa.Array]:
        """Selected fields of the given groups."""
        found = {
            f"#{index}": read_results(reader.call, self.states[reader.state][0], slots, reader.kind)
            for index, reader in enumerate(self._readers)
        }
        found |= {"window_start": Values(start), "window_end": Values(end)}
        columns = Columns(lambda name: found[name].to_arrow(len(slots)), len(slots))
        return {name: evaluate(node, columns).to_arrow(len(slots)) for name, node in self._select.outputs.items()}


def _convert(values: Values, need: Need, rows: int) -> ColumnData:
    column = _typed(values, need, rows)
    return column if need == "object" else ColumnData(plain(column.data), column.valid)


def _typed(values: Values, need: Need, rows: int) -> ColumnData:
    data = np.broadcast_to(values.data, (rows,))
    valid = None if values.valid is None else np.broadcast_to(values.valid, (rows,))
    if values.strings is not None:
        valid = None if (data >= 0).all() else np.asarray(data >= 0)
    if need == "token":
        return ColumnData(tokens_of(Values(data, valid, values.strings)), valid)
    if need == "object":
        if values.strings is None:
            return ColumnData(np.full(rows, None, np.object_), np.zeros(rows, np.bool_))
        return ColumnData(np.array([*values.strings.to_pylist(), None], np.object_)[data], valid)
    if values.strings is not None:
        return ColumnData(np.zeros(rows, np.int64 if need == "integer" else np.float64), np.zeros(rows, np.bool_))
    if need == "number":
        return ColumnData(data.astype(np.float64, copy=False), valid)
    if data.dtype.kind == "f":
        whole = np.isfinite(data) & (np.abs(data) < 2.0**63)
        kept = np.where(whole, data, 0.0)
        return ColumnData(np.rint(kept).astype(np.int64), whole if valid is None else whole & valid)
    return ColumnData(data.astype(np.int64, copy=False), valid)

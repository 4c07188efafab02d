"""Validators: they check and transform the events of a stream, whole frames at a time, before rules see them.

Every incoming row passes, is refused with a reason, or is dropped by sampling and counted: in = out + refused +
sampled. A validator keeps no state, so that the same frame always gives the same result.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from astrocyte.agents.expressions.columns import evaluate, predicate
from astrocyte.agents.expressions.nodes import Field, Node, walk
from astrocyte.agents.expressions.values import Columns
from astrocyte.agents.rules.validator_functions import ValidatorFunction, like
from astrocyte.agents.rules.validators import Validator
from astrocyte.schemas.arrow.columns import field_name
from astrocyte.schemas.catalog import CATALOG, Catalog
from astrocyte.schemas.errors import SchemaMismatch
from astrocyte.schemas.frames import Frame, conform
from astrocyte.schemas.ids import mixed
from astrocyte.schemas.json.types import shown
from astrocyte.schemas.times import NEVER_US, are_event_times
from astrocyte.schemas.values.mixed import MIXED, fits, is_null, members, to_list
from astrocyte.schemas.values.nested import NON_FINITE, finite_inside, non_finite_reason, rows_not_finite

__all__ = ["Passed", "Validators"]

Flags = NDArray[np.bool_]
_NARROW: Final = (pa.float32(), pa.int32())
_VECTOR: Final = pa.list_(pa.float32())


@dataclass(frozen=True, slots=True, eq=False)
class Passed:
    """Result of the validators for one frame."""

    frame: Frame
    """The rows that passed, as changed by the validators."""
    rows: NDArray[np.int64]
    """For each row of ``frame``, its row in the original frame."""
    refused: list[tuple[int, str]]
    """Refused rows of the original frame with the reason, in order of the row; they become dead letters."""
    sampled: int = 0
    """Rows dropped by sampling; the weight of the rows that passed accounts for them."""


class Validators:
    """The validators of all streams. Streams without one get only the checks that apply to every event.

    These are: the catalog's types, a timestamp from 1970 to 2100, and finite numbers.
    """

    def __init__(self, specs: Iterable[Validator], *, catalog: Catalog = CATALOG) -> None:
        self._catalog = catalog
        self._specs: dict[str, list[Validator]] = {}
        for spec in specs:
            for stream in spec.stream:
                self._specs.setdefault(stream, []).append(spec)

    def apply(self, frame: Frame, *, typed: bool = True) -> Passed:
        """Check and change the rows of one frame; the returned frame keeps its watermark, end and origin.

        ``typed``: a frame of a listed stream must have the fields and types of the catalog.
        """
        # Results of a window have the window's fields, even if the catalog has a stream of the same name.
        event_type = None if not typed or frame.has("window_start") else self._catalog.find(frame.stream)
        declared = {} if event_type is None else {field.name: field.type for field in event_type.arrow_schema()}
        work = _Work(frame, declared)
        work.check_types()
        if event_type is not None:
            try:
                work.frame = conform(work.frame, event_type)
            except SchemaMismatch as error:
                work.refuse(np.ones(work.frame.num_rows, np.bool_), [str(error)] * work.frame.num_rows)
        work.check_times()
        specs = self._specs.get(frame.stream, ())
        policy = next((spec.non_finite for spec in specs if spec.non_finite is not None), "reject")
        work.check_finite(policy)
        for spec in specs:
            work.check_required(spec.require)
            work.transform(spec)
        return Passed(work.frame, work.rows, sorted(work.refused), work.sampled)


class _Work:
    """One frame while the validators of its stream process it; ``declared`` are the catalog's types of its fields."""

    def __init__(self, frame: Frame, declared: Mapping[str, pa.DataType]) -> None:
        self.frame = frame
        self.declared = declared
        self.rows = np.arange(frame.num_rows, dtype=np.int64)
        self.refused: list[tuple[int, str]] = []
        self.sampled = 0

    def refuse(self, bad: Flags, reasons: Sequence[str]) -> None:
        """Remove the flagged rows; ``reasons`` has one entry for each of them."""
        self.refused += zip(self.rows[bad].tolist(), reasons, strict=True)
        self.keep(~bad)

    def keep(self, good: Flags) -> None:
        """Keep only the flagged rows."""
        chosen = np.flatnonzero(good)
        self.frame = self.frame.take(chosen)
        self.rows = self.rows[chosen]

    def check_types(self) -> None:
        """Refuse the rows whose value is not of the declared type, where a column has values of several types."""
        for name, kind in self.declared.items():
            if not self.frame.has(name) or self.frame.column(name).type != MIXED:
                continue
            values = self.frame.values(name)
            bad = np.array([not fits(value, kind) for value in values], np.bool_)
            wanted = "text" if pa.types.is_dictionary(kind) else kind
            wrong = [value for value, there in zip(values, bad.tolist(), strict=True) if there]
            self.refuse(bad, [f"field {name!r} is {shown(value)}; expected {wanted}" for value in wrong])

    def check_times(self) -> None:
        times = self.frame.timestamps()
        good = are_event_times(times)
        if good.all():
            return
        bad = ~good
        expected = "expected microseconds since 1970 (UTC) before the year 2100; is it in another unit?"
        absent = "there is no timestamp (null or NaT); every event needs a time"
        found = times[bad].tolist()
        self.refuse(bad, [absent if time == NEVER_US else f"timestamp {time}; {expected}" for time in found])

    def check_required(self, names: Sequence[str]) -> None:
        for name in names:
            if not self.frame.has(name):
                every = np.ones(self.frame.num_rows, np.bool_)
                self.refuse(every, [f"field {name!r} is missing"] * len(every))
                return
            column = self.frame.column(name)
            if pa.types.is_dictionary(column.type):
                column = column.indices
            bad = np.asarray(is_null(column))
            if bad.any():
                self.refuse(bad, [f"field {name!r} is null"] * int(bad.sum()))

    def check_finite(self, policy: str) -> None:
        """Refuse the rows with a number that is not finite, in a field or inside one, or make these numbers null."""
        noted = self.take_noted()
        if policy == "keep":
            return
        for name in self.frame.fields:
            column = self.frame.column(name)
            numbers = members(column).get("float") if column.type == MIXED else column
            bad = None if numbers is None else rows_not_finite(numbers)
            if bad is None:
                continue
            if policy == "null":
                # A vector with a hole is none.
                inside = pa.types.is_nested(column.type) and column.type not in (MIXED, _VECTOR)
                none = pa.scalar(None, column.type)
                cleaned = finite_inside(column) if inside else pc.if_else(pa.array(bad), none, column)
                self.frame = self.frame.with_column(name, cleaned)
            else:
                values = to_list(column.filter(pa.array(bad)))
                self.refuse(bad, [str(non_finite_reason(field_name(name), value)) for value in values])
                noted = None if noted is None else noted.filter(pa.array(~bad))
        if policy == "reject" and noted is not None and noted.null_count < len(noted):
            self.refuse(np.asarray(noted.is_valid()), [str(reason) for reason in to_list(noted.drop_null())])

    def take_noted(self) -> pa.Array | None:
        """The column `NON_FINITE`, without which the frame is left."""
        batch = self.frame.batch
        index = batch.schema.get_field_index(NON_FINITE)
        if index < 0:
            return None
        self.frame = replace(self.frame, batch=batch.remove_column(index))
        return batch.column(index)

    def transform(self, spec: Validator) -> None:
        if spec.where_node is not None:
            good = predicate(spec.where_node, self.fields())
            if not good.all():
                self.refuse(~good, self.reasons(spec, spec.where_node, ~good))
        if spec.function is not None:
            self.call(spec.function, spec.options)
        for name, node in spec.set_nodes.items():
            column = evaluate(node, self.fields()).to_arrow(self.frame.num_rows)
            wanted = self.declared.get(name)
            if wanted is None and self.frame.has(name) and self.frame.column(name).type in _NARROW:
                wanted = self.frame.column(name).type  # so the producer of the frame declared it
            if wanted is not None:
                column = like(column, wanted)
            self.frame = self.frame.with_column(name, column)
        if spec.rename or spec.drop:
            kept = [name for name in self.frame.batch.schema.names if name not in spec.drop]
            arrays = [self.frame.batch.column(name) for name in kept]
            names = [spec.rename.get(name, name) for name in kept]
            # A renamed field replaces an existing field of the new name.
            last = {name: index for index, name in enumerate(names)}
            last |= {spec.rename[name]: index for index, name in enumerate(kept) if name in spec.rename}
            order = [index for index, name in enumerate(names) if last[name] == index]
            batch = pa.RecordBatch.from_arrays([arrays[i] for i in order], names=[names[i] for i in order])
            self.frame = replace(self.frame, batch=batch)
        if spec.sample is not None and spec.sample < 1 and self.frame.num_rows:
            chance = mixed(self.frame.ids()).astype(np.float64) / 2.0**64
            chosen = chance < spec.sample
            self.sampled += int((~chosen).sum())
            self.keep(chosen)
            self.frame = replace(self.frame, weight=self.frame.weight / spec.sample)

    def call(self, function: ValidatorFunction, options: Mapping[str, Any]) -> None:
        """Apply a Python validator to the remaining rows; it may accept, refuse and change them."""
        if not self.frame.num_rows:
            return
        self.frame, refused = function.apply(self.frame, options, self.declared)
        if refused:
            rows = sorted(refused)
            bad = np.zeros(self.frame.num_rows, np.bool_)
            bad[rows] = True
            self.refuse(bad, [refused[row] for row in rows])

    def fields(self) -> Columns:
        return Columns.of(self.frame)

    def reasons(self, spec: Validator, node: Node, bad: Flags) -> list[str]:
        """One reason for each refused row, with the values of the fields in the condition."""
        count = int(bad.sum())
        if spec.reason is not None:
            return [spec.reason] * count
        names = sorted({part.name for part in walk(node) if isinstance(part, Field)})
        seen = {
            name: to_list(self.frame.column(name).filter(pa.array(bad))) if self.frame.has(name) else [None] * count
            for name in names
        }
        return [
            f"{spec.where} does not hold ({', '.join(f'{name} is {shown(seen[name][row])}' for name in names)})"
            for row in range(count)
        ]

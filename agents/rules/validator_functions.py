"""Validators written in Python: functions that accept, refuse or change events; rule files refer to them by name.

::

    @register_validator("plausible")
    def plausible(event):                    # one event: fields, key, type, timestamp in microseconds
        if event["value"] > 90:
            return "value above 90"          # a string: refused, with this reason
        return {"value": event["value"] / 2} # a mapping: these fields are set; None: accepted unchanged

    @register_validator("calibrated", per="frame")
    def calibrated(frame):                   # a whole Frame, for speed
        return changed_frame, {row: reason}  # the same rows in the same order, and the refused rows

A validator keeps no state, reads no clock and does not change its input: the same event always gives the same result.
An exception refuses the event (in the frame form: all its rows) with the exception as the reason, so nothing is lost.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, Literal

import numpy as np
import pyarrow as pa

from astrocyte.schemas.arrow.columns import RESERVED
from astrocyte.schemas.errors import AstrocyteError, InvalidSettings, shown_object, wrong_return
from astrocyte.schemas.frames import Frame
from astrocyte.schemas.registry import Registry, described, takes
from astrocyte.schemas.values.mixed import column_of, typed_column
from astrocyte.schemas.values.single import LEAST, MOST

__all__ = ["VALIDATORS", "FrameValidator", "RowValidator", "ValidatorFunction", "function_of", "register_validator"]

RowValidator = Callable[..., "str | Mapping[str, Any] | None"]
"""Takes one event as a dictionary; returns a reason to refuse it, fields to set, or None to accept it."""
FrameValidator = Callable[..., "tuple[Frame, Mapping[int, str]]"]
"""Takes a frame; returns it with fields changed or added, and the reason of each refused row."""

_UNSET: Final = object()
_AS: Final = "_astrocyte_validator"
"""Attribute of a registered function: whether it is called per event or per frame, and its name."""


@dataclass(frozen=True, slots=True)
class ValidatorFunction:
    """A function, and whether it is called per event or per frame."""

    definition: Callable[..., Any]
    per: Literal["event", "frame"] = "event"
    registered: str = ""
    """Name under which it is registered."""

    @property
    def name(self) -> str:
        """What errors call it: its registered name, else that of its function."""
        known = self.registered or getattr(self.definition, "__name__", type(self.definition).__name__)
        return f"validator {known!r}"

    @property
    def _no_reason(self) -> str:
        return f"{self.name} refused it and gave no reason"

    def _two_of(self, found: Any) -> tuple[Frame, Mapping[Any, Any]]:
        match found:
            case Frame() as frame, Mapping() as refused:
                return frame, refused
        expected = "the frame and the reasons of the refused rows, (frame, {row: reason})"
        raise wrong_return(self.name, found, expected)

    def apply(
        self, frame: Frame, options: Mapping[str, Any], declared: Mapping[str, pa.DataType] | None = None
    ) -> tuple[Frame, dict[int, str]]:
        """The frame as changed by the function, with all its rows, and the reasons of the refused rows.

        ``declared`` are the types that fields must have.
        """
        return self._frame(frame, options) if self.per == "frame" else self._rows(frame, options, declared or {})

    def _frame(self, frame: Frame, options: Mapping[str, Any]) -> tuple[Frame, dict[int, str]]:
        try:
            changed, refused = self._two_of(self.definition(frame, **options))
            _check_identity(frame, changed)
            for row in refused:
                if isinstance(row, bool) or not isinstance(row, int | np.integer) or not 0 <= row < frame.num_rows:
                    raise ValueError(f"it refused row {row!r} of a frame of {frame.num_rows} rows")
            return changed, {int(row): str(reason) or self._no_reason for row, reason in refused.items()}
        except (Exception, SystemExit) as error:  # noqa: BLE001  a user's: rows that it fails on are refused, not lost
            return frame, dict.fromkeys(range(frame.num_rows), _failure(self.name, error))

    def _rows(
        self, frame: Frame, options: Mapping[str, Any], declared: Mapping[str, pa.DataType]
    ) -> tuple[Frame, dict[int, str]]:
        names = ["timestamp", "key", "type", *frame.fields]
        columns = [frame.values(name) for name in names]
        refused: dict[int, str] = {}
        changes: dict[str, list[Any]] = {}
        for row, values in enumerate(zip(*columns, strict=True)):
            try:
                verdict = self.definition(dict(zip(names, values, strict=True)), **options)
                if isinstance(verdict, Mapping):
                    _check_names(verdict)
                    for name, value in verdict.items():
                        changes.setdefault(name, [_UNSET] * frame.num_rows)[row] = value
                elif verdict is not None and not isinstance(verdict, str):
                    raise wrong_return(self.name, verdict, "None, a reason (text) or fields to set (a mapping)")
            except (Exception, SystemExit) as error:  # noqa: BLE001  as above
                refused[row] = _failure(self.name, error)
            else:
                if isinstance(verdict, str):
                    refused[row] = verdict or self._no_reason
        before = dict(zip(names, columns, strict=True))
        for name, changed in changes.items():
            old = before.get(name, [None] * frame.num_rows)
            column, misfits = _fitted(self.name, name, changed, old, declared.get(name))
            refused |= {row: reason for row, reason in misfits.items() if row not in refused}
            if column is not None:
                frame = frame.with_column(name, column)
        return frame, refused


def _convert(name: str, found: Any) -> ValidatorFunction:
    made = found if isinstance(found, ValidatorFunction) else ValidatorFunction(found)
    if not takes(made.definition, 1, more=True):
        raise InvalidSettings(
            f"validator {name!r}: expected a function of an event or a frame, got {described(made.definition)}"
        )
    return made if made.registered else replace(made, registered=name)


def function_of(use: Callable[..., Any]) -> ValidatorFunction:
    """The validator that a function is: called and named as it was registered, else per event."""
    registered: tuple[Literal["event", "frame"], str] = getattr(use, _AS, ("event", ""))
    return ValidatorFunction(use, *registered)


VALIDATORS: Final[Registry[ValidatorFunction]] = Registry("validator", group="astrocyte.validators", convert=_convert)
"""Validator functions by the name that rule files give after ``use``."""


def register_validator(
    name: str, function: Callable[..., Any] | None = None, *, per: Literal["event", "frame"] = "event"
) -> Any:
    """Register a function for ``use: name`` in rule files; without ``function`` it returns a decorator.

    ``per``: the function takes one event (a dictionary) or a whole `Frame`. Raises InvalidSettings.
    """
    if per not in ("event", "frame"):
        raise InvalidSettings(f"validator {name!r}: expected per to be event or frame, got {per!r}")

    def add(given: Callable[..., Any]) -> Callable[..., Any]:
        VALIDATORS.register(name, ValidatorFunction(given, per, name))
        with contextlib.suppress(AttributeError):  # of an object without a dictionary
            setattr(given, _AS, (per, name))
        return given

    return add if function is None else add(function)


def like(column: pa.Array, wanted: pa.DataType) -> pa.Array:
    """The column in the type of the catalog, unless that would lose more than floating-point precision."""
    numeric = pa.types.is_integer(column.type) or pa.types.is_floating(column.type)
    if numeric and pa.types.is_floating(wanted):
        return column.cast(wanted, safe=False)
    if pa.types.is_integer(column.type) and pa.types.is_integer(wanted):
        try:
            return column.cast(wanted)
        except pa.ArrowInvalid:
            return column
    return column


def _fitted(
    label: str, name: str, changed: list[Any], old: list[Any], wanted: pa.DataType | None
) -> tuple[pa.Array | None, dict[int, str]]:
    """The column of a field that the validator ``label`` changed (None: as before), and the rows that it cannot hold.

    ``wanted`` is the type that the catalog gives the field; otherwise each value keeps its own.
    """
    made = [now if now is not _UNSET else then for now, then in zip(changed, old, strict=True)]
    try:
        return _column(made, wanted), {}
    except _UNFIT:
        pass  # some value does not fit; which one is found below
    expected = "a value that an event can have" if wanted is None else f"{wanted}, as the catalog says"
    misfits = {}
    for row, value in enumerate(changed):
        if value is not _UNSET:
            try:
                _column([value], wanted)
            except _UNFIT:
                misfits[row] = f"{label} failed: it set {name!r} to {shown_object(value)}; expected {expected}"
    try:
        return _column([old[row] if row in misfits else value for row, value in enumerate(made)], wanted), misfits
    except _UNFIT as error:
        return None, {
            row: misfits.get(row, _failure(label, error)) for row, value in enumerate(changed) if value is not _UNSET
        }


_UNFIT: Final = (pa.ArrowException, ArithmeticError, TypeError, ValueError)


def _column(values: list[Any], wanted: pa.DataType | None) -> pa.Array:
    for kind in set(map(type, values)) - _USUAL:
        pa.array([next(value for value in values if type(value) is kind)])  # refuses objects that are no values
    if wanted is None:
        if any(type(value) is int and not LEAST <= value <= MOST for value in values):
            raise ValueError("an integer beyond 64 bits")
        return column_of(values)
    return typed_column(values, wanted)


_USUAL: Final = frozenset({int, float, str, bool, type(None)})


def _check_names(changes: Mapping[Any, Any]) -> None:
    for name in changes:
        if not isinstance(name, str):
            raise TypeError(f"it set the field {name!r} of type {type(name).__name__}; expected a name as text")
        name.encode()  # raises for half a character, which is no text
        if name in RESERVED:
            raise ValueError(f"it set {name!r}, which validators cannot change; set another field")


def _check_identity(before: Frame, after: Frame) -> None:
    if (after.stream, after.run, after.weight) != (before.stream, before.run, before.weight):
        raise ValueError("it changed the stream, run or weight of the frame; expected the same")
    same = after.num_rows == before.num_rows and np.array_equal(after.timestamps(), before.timestamps())
    if not same or not all(after.column(name).equals(before.column(name)) for name in ("key", "type")):
        raise ValueError("it changed rows, timestamps, keys or types; expected the same rows in the same order")
    if not np.array_equal(after.sequences(), before.sequences()):
        raise ValueError("it changed the numbers of rows, by which events have their ids; expected the same")


def _failure(label: str, error: BaseException) -> str:
    return str(error) if isinstance(error, AstrocyteError) else f"{label} failed: {type(error).__name__}: {error}"

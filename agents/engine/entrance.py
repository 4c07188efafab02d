"""The entrance of an engine: the validators of its rule set, and the events that they refused."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from astrocyte.agents.event_time.event_store import Origin
from astrocyte.agents.ingest.declared import UnreadableEvent, enforce
from astrocyte.agents.ingest.dicts import time_of
from astrocyte.agents.ingest.validate import Validators
from astrocyte.agents.ingest.validate_rows import validate_rows
from astrocyte.agents.rules.model import RuleSet
from astrocyte.schemas.arrow.columns import field_name
from astrocyte.schemas.catalog import Catalog
from astrocyte.schemas.contract import Contracts
from astrocyte.schemas.errors import InvalidEvent
from astrocyte.schemas.frames import Frame
from astrocyte.schemas.json.text import dumps, loads
from astrocyte.schemas.times import CEILING_US
from astrocyte.schemas.values.nested import NON_FINITE

__all__ = ["Entrance", "RefusedEvent"]

_HIDDEN: Final = frozenset({"timestamp", "seq", "event_id"})
_PLAIN: Final = frozenset({int, bool, type(None)})


@dataclass(frozen=True, slots=True)
class RefusedEvent:
    """An event that cannot be read, or that a validator refused, and why. It took part in nothing."""

    id: str
    stream: str
    timestamp_us: int | None
    """None where no time can be read."""
    fields: Mapping[str, Any]
    """``key``, ``type`` and the event's own fields, as they came."""
    reason: str


class Entrance:
    """Checks and changes events as the pipeline does at a domain's entrance. ``refused`` and ``sampled`` count."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._validators = Validators((), catalog=catalog)
        self._checked: frozenset[str] = frozenset()
        """Streams of which a rule file says anything."""
        self._contracts = Contracts(catalog=catalog)
        self._found: list[RefusedEvent] = []
        self.refused = 0
        self.sampled = 0

    def update(self, ruleset: RuleSet, contracts: Contracts) -> None:
        """Put the validators of a rule set in force, and the contracts of its streams."""
        self._validators = Validators(ruleset.validators, catalog=self._catalog)
        self._checked = frozenset(stream for validator in ruleset.validators for stream in validator.stream)
        self._contracts = contracts

    def is_plain(self, stream: str, event: Mapping[str, Any]) -> bool:
        """Whether an event needs no closer look: its stream has no validators, its time and numbers are sound."""
        if stream in self._checked or NON_FINITE in event or not 0 <= event["timestamp"] < CEILING_US:
            return False
        for value in event.values():
            kind = type(value)
            if kind is float:
                if value - value != 0.0:  # NaN and the infinite values
                    return False
            elif kind is str:
                if not value.isascii() and _has_surrogate(value):
                    return False
            elif kind not in _PLAIN and not _is_sound(value):
                return False
        return True

    def admit(self, frame: Frame, origin: Origin | None, *, typed: bool) -> tuple[Frame, Origin | None]:
        """The rows that pass, with their origin; ``typed``: it is a program's own, and held to the types."""
        declaration = self._contracts.declared.get(frame.stream) if typed else None
        if typed:
            exact = self._contracts.of_stream(frame.stream).exact_columns
            frame = frame.settled(exact, () if declaration is None else declaration.typed_columns)
        if declaration is not None:
            whole = frame
            frame, misfits, _ = enforce(frame, declaration)
            if misfits:
                self._refuse(whole, list(misfits.items()))
                if origin is not None:
                    origin = origin.take(np.setdiff1d(np.arange(whole.num_rows), list(misfits)))
        passed = validate_rows(self._validators, frame, typed=typed)
        self.sampled += passed.sampled
        if passed.refused:
            self._refuse(frame, passed.refused)
        if origin is not None and passed.frame.num_rows < frame.num_rows:
            origin = origin.take(passed.rows)
        return passed.frame, origin

    def _refuse(self, frame: Frame, refused: Sequence[tuple[int, str]]) -> None:
        self.refused += len(refused)
        chosen = frame.take(np.array([row for row, _ in refused], np.int64))
        for event_id, row, (_, reason) in zip(chosen.id_strings(), chosen.event_fields(), refused, strict=True):
            self._found.append(RefusedEvent(event_id, frame.stream, row.pop("timestamp"), row, reason))

    def refuse(self, unreadable: UnreadableEvent) -> None:
        """Note an event that was refused before it was part of a frame; it has an id only if its producer set one."""
        self.refused += 1
        row = unreadable.row
        fields = {
            field_name(name) if isinstance(name, str) else name: value
            for name, value in row.items()
            if name not in _HIDDEN and name != "stream"
        }
        try:
            time_us = time_of(row.get("timestamp"))
        except InvalidEvent:
            time_us = None
        own_id = row.get("event_id")
        own_id = own_id if isinstance(own_id, str) else ""
        self._found.append(RefusedEvent(own_id, unreadable.stream, time_us, fields, str(unreadable)))

    def take(self) -> list[RefusedEvent]:
        """Events refused since the last call."""
        found, self._found = self._found, []
        return found

    def pending(self) -> bytes:
        """The same as JSON, for a snapshot, and they stay. A value that JSON cannot hold becomes text."""
        found = [
            [
                _text(each.id),
                _text(each.stream),
                each.timestamp_us,
                {_text(name): _json_form(value) for name, value in each.fields.items()},
                _text(each.reason),
            ]
            for each in self._found
        ]
        return dumps({"events": found})

    def restore(self, pending: bytes, refused: int, sampled: int) -> None:
        """Take over what `pending` gave, and the counts."""
        self._found = [RefusedEvent(*each) for each in loads(pending)["events"]]
        self.refused, self.sampled = refused, sampled


def _is_sound(value: Any) -> bool:
    """Whether a value of another type than Python's plain ones is a finite number; lists need a closer look."""
    return isinstance(value, np.generic) and (not isinstance(value, np.floating) or bool(np.isfinite(value)))


def _has_surrogate(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return True
    return False


def _text(value: Any) -> str:
    """Text without lone surrogates, which JSON cannot hold."""
    return str(value).encode("utf-8", "backslashreplace").decode()


def _json_form(value: Any) -> Any:
    """A value that JSON can hold; of any other the text that Python shows."""
    try:
        return loads(dumps({"": value}))[""]
    except (TypeError, ValueError, RecursionError):
        return ascii(value)

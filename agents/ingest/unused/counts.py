"""What was not used, and why: counts by cause, each with one example, and what the fields of rules were like.

It is collected a frame at a time, from what is known of a frame anyway (its columns, their types and null counts).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Final, Literal, NamedTuple

import numpy as np
import orjson
import pyarrow as pa
from numpy.typing import NDArray

from astrocyte.agents.ingest.unused.reasons import reason_kind
from astrocyte.agents.rules.named_fields import NamedField
from astrocyte.schemas.declarations import member_field
from astrocyte.schemas.events import DeadLetter
from astrocyte.schemas.frames import Frame
from astrocyte.schemas.registry import did_you_mean
from astrocyte.schemas.values.mixed import MIXED, members

__all__ = ["IDLE", "OTHERS", "Cause", "FieldsSeen", "Unused", "UnusedCount", "kind_of", "line_of", "rows_by_kind"]

Cause = Literal[
    "dead",
    "late",
    "duplicate",
    "no_key",
    "unkeyed",
    "kind",
    "no_number",
    "nulled",
    "failed",
    "unit",
    "guessed_unit",
    "stream",
]


class _Key(NamedTuple):
    cause: Cause
    subject: str
    """Topic, rule (``failed``) or stream (``no_key``, ``kind``, ``no_number``, ``nulled``, ``unit``,
    ``guessed_unit``)."""
    detail: str
    """Stage of a dead letter, the stream of a frame (``stream``), a unit (``unit``), a field (``guessed_unit``: the
    time; ``unkeyed``: the key by which the topic is taken to be partitioned), or `IDLE` (``late``)."""
    kind: str = ""
    """Kind of the reason (`reason_kind`) of a dead letter or failed result, or `OTHERS`."""


@dataclass(slots=True)
class UnusedCount:
    """How often one cause occurred, and the first occurrence."""

    count: int
    example: str
    kind: str = ""
    """Kind of the reason, of a dead letter or failed result; `OTHERS` for the rest of many kinds. Of values that are no
    numbers, their kind."""


OTHERS: Final = "others"
IDLE: Final = "idle"
"""Detail of events that are late only because event time went on while their source was idle."""
_MOST_KINDS: Final = 12
"""Most kinds of reasons that are counted one by one for a cause, subject and detail: users write reasons, too."""

_SENTENCES: Final[Mapping[Cause, str]] = {
    "dead": "{count:,} {events} of {subject} refused ({detail}), such as {example}",
    "late": "{count:,} late {events} of {subject}, such as {example}",
    "duplicate": "{count:,} {events} of {subject} had the id of an event that came before, such as {example}",
    "no_key": "{count:,} {events} of {subject} without {detail!r} took part in none of the rules that correlate by it, "
    "such as {example}",
    "unkeyed": "{count:,} {messages} of {subject} came without a Kafka key, so events of one {detail} may be in "
    "several partitions and then never meet; declare 'key: {{field: {detail}, partitioned: false}}' "
    "('partitioned: true' if the producer itself chooses the partition by {detail}); such as {example}",
    "kind": "field {detail!r} of {subject} is of another kind than at first in {count:,} {events}, such as {example}",
    "no_number": "{count:,} {events} of {subject} {have} no number in {detail!r}, of which rules need one, so that "
    "comparisons are false and results null, such as {example}",
    "nulled": "{count:,} {values} of {detail!r} in {subject} {were} of another type than declared and became null "
    "('on_type_error: null'), such as {example}",
    "unit": "{count:,} {events} of {subject}, whose time is declared in {detail}, dated before 1980, such as {example}",
    "guessed_unit": "{count:,} {events} of {subject} {have} a number in {detail!r} that is hardly a time, such as "
    "{example}; declare under streams: which member is the time, or the unit of this one, such as 'time: {{field: "
    "{detail}, unit: s}}'",
    "stream": "{count:,} {events} of {subject} came in frames of stream {detail!r}, so that rules of the topic's "
    "stream do not see them; send them to the topic of {detail!r}; such as {example}",
    "failed": "{count:,} results of {subject} failed ({detail}), such as {example}",
}


_NO_KEY: Final = "declare under streams: which field is their key, such as 'key: customer_id', or give the rule a 'by'"
"""What to do about events without a key where a rule correlates by it."""


_NO_NUMBER: Final = {
    "text": "; for numbers that are written as text declare '{detail}: {{type: float64, text: true}}' under streams:",
    "boolean": "; a truth value is no number: compare it with true or false, or count it with count_if",
}
"""What to do about values that are no numbers, by their kind."""


class Unused:
    """Counts of events and results that were not used. They only grow, so that a reader can tell what is new."""

    def __init__(self) -> None:
        self._counts: dict[_Key, UnusedCount] = {}

    def __bool__(self) -> bool:
        return bool(self._counts)

    def __iter__(self) -> Iterator[tuple[Cause, str, str, UnusedCount]]:
        for key, found in self._counts.items():
            yield key.cause, key.subject, key.detail, found

    def totals(self) -> Mapping[tuple[Cause, str, str], int]:
        """Counts by cause, subject and detail, whatever the kinds of their reasons."""
        found: Counter[tuple[Cause, str, str]] = Counter()
        for cause, subject, detail, each in self:
            found[cause, subject, detail] += each.count
        return found

    def add(
        self, cause: Cause, subject: str, example: str, *, detail: str = "", count: int = 1, kind: str = ""
    ) -> None:
        """Count events; ``example`` is kept if it is the first of its cause, subject, detail and kind of reason."""
        if count <= 0:
            return
        key = _Key(cause, subject, detail, kind)
        if kind and key not in self._counts and self._kinds_of(key) >= _MOST_KINDS:
            key = key._replace(kind=OTHERS)
        found = self._counts.get(key)
        if found is None:
            self._counts[key] = UnusedCount(count, example, key.kind)
        else:
            found.count += count

    def _kinds_of(self, key: _Key) -> int:
        return sum(each[:3] == key[:3] for each in self._counts)

    def add_letter(self, letter: DeadLetter, count: int = 1) -> None:
        """Count the ``count`` events of one dead letter."""
        example, kind = f"{letter.place}: {letter.reason}", reason_kind(letter.reason)
        self.add("dead", letter.topic, example, detail=letter.stage, count=count, kind=kind)

    def merge(self, other: Unused) -> None:
        """Add the counts of another."""
        for cause, subject, detail, found in other:
            self.add(cause, subject, found.example, detail=detail, count=found.count, kind=found.kind)

    def count(self, cause: Cause) -> int:
        """Total of one cause."""
        return sum(found.count for key, found in self._counts.items() if key.cause == cause)

    def once(self, copies: Iterable[tuple[str, str]]) -> Unused:
        """The counts without those of events of copies that are counted in the stream: ``copies`` are source and copy.

        An event that is late or repeated in a stream is so in its repartitioned copies as well.
        """
        by_copy: dict[str, str] = {copy: source for source, copy in copies}
        counts: Counter[tuple[str, str]] = Counter()
        for key, found in self._counts.items():
            counts[key.cause, key.subject] += found.count
        once = Unused()
        for key, found in self._counts.items():
            source = by_copy.get(key.subject) if key.cause in ("late", "duplicate") else None
            if source is None or counts[key.cause, source] < found.count:
                once._counts[key] = found
        return once

    def lines(self) -> list[str]:
        """One sentence for each cause, subject, detail and kind of reason."""
        return [line_of(*each) for each in self]

    def as_json(self) -> list[dict[str, Any]]:
        """The counts for a program to read."""
        return [
            {"cause": cause, "of": subject, "detail": detail, "count": found.count, "example": found.example}
            | ({"kind": found.kind} if found.kind else {})
            for cause, subject, detail, found in self
        ]

    @classmethod
    def from_json(cls, items: Iterable[Mapping[str, Any]]) -> Unused:
        """The counts that `as_json` has given; items of a later version are left out."""
        unused = cls()
        for item in items:
            if item.get("cause") in _SENTENCES:
                kind = item.get("kind", "")  # versions before kinds were counted have none
                unused.add(
                    item["cause"], item["of"], item["example"], detail=item["detail"], count=item["count"], kind=kind
                )
        return unused


def line_of(cause: Cause, subject: str, detail: str, found: UnusedCount) -> str:
    """A sentence that says how many events were not used, and why, with the example."""
    if found.kind == OTHERS:
        detail = f"{detail}, other reasons"
    one = found.count == 1
    line = _SENTENCES[cause].format(
        count=found.count, events="event" if one else "events", messages="message" if one else "messages",
        values="value" if one else "values", have="has" if one else "have", were="was" if one else "were",
        subject=subject, detail=detail, example=found.example,
    )  # fmt: skip
    if cause == "no_number":
        line += _NO_NUMBER.get(found.kind, "").format(detail=detail)
    if (cause, detail) == ("late", IDLE):
        line += ", since event time went on while their source was silent"
    return f"{line}; {_NO_KEY}" if (cause, detail) == ("no_key", "key") else line


class ChangedKind(NamedTuple):
    """Values of a field in a frame that are of another kind than its first value."""

    field: str
    kinds: str
    """Kind of the first of them, and that of the field."""
    row: int
    """Row of the first of them."""
    values: int


@dataclass(slots=True)
class FieldsSeen:
    """Which of the fields that rules name have come, and of which kind, by stream."""

    named: tuple[NamedField, ...] = ()
    streams: dict[str, set[str]] = field(default_factory=dict)
    """Every stream that came, with the names of its fields as long as a named one is missing."""
    _missing: dict[str, set[str]] = field(default_factory=dict)
    _came: set[tuple[str, str]] = field(default_factory=set)
    _null: set[tuple[str, str]] = field(default_factory=set)
    """Fields that came without a value."""
    _read: dict[str, tuple[str, ...]] = field(default_factory=dict)
    _kinds: dict[str, dict[tuple[str, str], str]] = field(default_factory=dict)
    """By topic, the kind of the first value of each field of a stream."""

    def update(self, named: Iterable[NamedField]) -> None:
        """Put other rules in force."""
        self.named = tuple(named)
        pairs = dict.fromkeys((stream, each.field) for each in self.named for stream in each.streams)
        self._missing, self._read = {}, {}
        for stream, name in pairs:
            self._read[stream] = (*self._read.get(stream, ()), name)
            if (stream, name) not in self._came:
                self._missing.setdefault(stream, set()).add(name)

    def begin(self, topic: str, frame: Frame) -> None:
        """Note of what kind the first values in a topic are; frames come in the order in which they stand in it.

        Not when they are used: an event may wait for others before that, and those of a copy come whenever its writer
        has sent them. So what `note` counts is the same wherever the topic is cut, and whatever else is read.
        """
        names = self._read.get(frame.stream)
        if names is None or not frame.num_rows:
            return
        kinds = self._kinds.setdefault(topic, {})
        for name in names:
            if (frame.stream, name) not in kinds and frame.has(name):
                found = rows_by_kind(frame.column(name))
                if found:
                    kinds[frame.stream, name] = min(found, key=lambda kind: int(found[kind][0]))

    def note(self, topic: str, frame: Frame) -> list[ChangedKind]:
        """Note rows that are used; gives the fields with values of another kind than the first in their topic.

        For a topic of which `begin` was given nothing there are none.
        """
        stream = frame.stream
        if not frame.num_rows:
            return []
        if stream not in self.streams:
            self.streams[stream] = set()
        names = self._read.get(stream)
        if names is None:
            return []
        missing = self._missing.get(stream)
        if missing:
            self.streams[stream].update(frame.fields)
        changed = []
        kinds = self._kinds.get(topic, {})
        for name in names:
            if not frame.has(name):
                continue
            column = frame.column(name)
            values = len(column) - column.null_count
            if not values:
                self._null.add((stream, name))
                continue
            if missing and name in missing:
                missing.discard(name)
                self._came.add((stream, name))
            known = kinds.get((stream, name))
            if known is None or kind_of(column.type) == known:
                continue
            found = rows_by_kind(column)
            others = sorted(found.keys() - {known}, key=lambda kind: int(found[kind][0]))
            if others:
                row = int(found[others[0]][0])
                count = sum(len(found[kind]) for kind in others)
                changed.append(ChangedKind(name, f"{others[0]} after {known}", row, count))
        return changed

    def snapshot(self) -> bytes:
        """The kinds of first values, which a domain goes on with after a restart."""
        kinds = ((topic, *each, kind) for topic, found in self._kinds.items() for each, kind in found.items())
        return orjson.dumps(list(kinds))

    def restore(self, snapshot: bytes) -> None:
        """Restore a snapshot."""
        for topic, stream, name, kind in orjson.loads(snapshot):
            self._kinds.setdefault(topic, {})[stream, name] = kind

    def merge(self, other: FieldsSeen) -> None:
        """Add what another has seen of the same rules."""
        for stream, names in other.streams.items():
            self.streams.setdefault(stream, set()).update(names)
        self._came |= other._came
        self._null |= other._null
        self.update(self.named)

    def absent(self, made: Iterable[str] = ()) -> list[str]:
        """Sentences on streams and fields that rules name and that never came; ``made`` are streams of their own."""
        made = set(made)
        lines: dict[str, None] = {}
        for each in self.named:
            outside = [stream for stream in each.streams if stream not in made]
            came = [stream for stream in outside if stream in self.streams]
            if len(outside) < len(each.streams) or not came:
                continue  # a result's fields are checked with the rules; a stream that never came is said below
            if any((stream, each.field) in self._came for stream in came):
                continue
            what = "was always null" if any((stream, each.field) in self._null for stream in came) else "never came"
            known = sorted(set().union(*(self.streams[stream] for stream in came)) - {each.field})
            lines[
                f"field {each.field!r} of {' and '.join(came)}, which {each.reader} reads, {what}"
                f"{_member_hint(each.field, known, came[0]) or did_you_mean(each.field, known)}"
            ] = None
        return list(lines)


def _member_hint(name: str, known: Collection[str], stream: str) -> str:
    """The declaration that makes a member of an object, which came as a whole, a field."""
    outer = name.partition(".")[0]
    if outer == name or outer not in known:
        return ""
    own = member_field(name)
    declared = f"streams: [{{name: {stream}, fields: {{{own}: {{path: {name}}}}}}}]"
    return f"; {outer!r} came: for a member of it declare '{declared}' and write {own}"


_KINDS: Final = {
    "number": (
        pa.types.is_integer, pa.types.is_floating, pa.types.is_decimal, pa.types.is_temporal,
    ),
    "text": (
        pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view, pa.types.is_binary,
        pa.types.is_large_binary, pa.types.is_fixed_size_binary, pa.types.is_binary_view,
    ),
    "list": (
        pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list, pa.types.is_list_view,
        pa.types.is_large_list_view,
    ),
    "object": (pa.types.is_struct, pa.types.is_map),
}  # fmt: skip
"""Kinds of values, and the Arrow types that have them in events: times are numbers, and bytes are text."""


@cache
def kind_of(kind: pa.DataType) -> str:
    """Kind of the values of a column of one type: number, boolean, text, list, object, or value of another type."""
    if pa.types.is_dictionary(kind):
        return kind_of(kind.value_type)
    if pa.types.is_boolean(kind):
        return "boolean"
    for name, tests in _KINDS.items():
        if any(test(kind) for test in tests):
            return name
    return "value of another type"


def rows_by_kind(column: pa.Array) -> dict[str, NDArray[np.int64]]:
    """Rows of the values of each kind in any column; a kind without values is not there."""
    if column.type == MIXED:
        return _rows_of_kinds(column)
    if column.null_count == len(column):
        return {}
    return {kind_of(column.type): np.flatnonzero(np.asarray(column.is_valid()))}


def _rows_of_kinds(column: pa.Array) -> dict[str, NDArray[np.int64]]:
    """Rows of the values of each kind in a column whose values keep their own types."""
    rows: dict[str, list[NDArray[np.int64]]] = {}
    for part in members(column).values():
        rows.setdefault(kind_of(part.type), []).append(np.flatnonzero(np.asarray(part.is_valid())))
    return {kind: np.sort(np.concatenate(parts)) for kind, parts in rows.items()}

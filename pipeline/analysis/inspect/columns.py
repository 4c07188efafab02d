"""The fields of events as a worker has them: kinds, nulls, ranges, distinct values, examples."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from astrocyte.pipeline.console import short
from astrocyte.schemas.arrow.columns import field_name
from astrocyte.schemas.catalog import FieldType
from astrocyte.schemas.frames import Frame
from astrocyte.schemas.values.mixed import MIXED, key_column, members

__all__ = ["FieldStats", "KeyStats", "field_stats", "key_stats", "text_kind", "unnamed_notes"]

_DISTINCT: Final = 10_000
"""Number of different values of a field up to which they are counted."""
_EXAMPLES: Final = 3
_NUMERAL: Final = re.compile(r"\s*[-+]?((0|[1-9][0-9]*)(\.[0-9]*)?|\.[0-9]+)([eE][-+]?[0-9]+)?\s*")
_FRACTION: Final = r"[.eE]"
_COMMA: Final = re.compile(r"\s*[-+]?(0|[1-9][0-9]*),[0-9]+\s*")
_HIDDEN: Final = ("seq_", "event_id_")
Value = int | float | str | bool


@dataclass(slots=True)
class FieldStats:
    """What the values of one field are like."""

    name: str
    """As rules write it."""
    kinds: Counter[str] = field(default_factory=Counter)
    """Number of values by kind: integer, number (with a fraction), text, boolean, list."""
    nulls: int = 0
    """Events in which it is null or missing."""
    least: float | None = None
    most: float | None = None
    """Range of the numbers that are finite."""
    values: Counter[Value] = field(default_factory=Counter)
    """How often each value came, of the first `_DISTINCT` different ones."""
    overflown: bool = False
    """Whether there were more."""
    shortest: int | None = None
    longest: int | None = None
    """Lengths of the strings."""
    numerals: int = 0
    """Strings that are numbers, such as ``"21.5"``; one that begins with a superfluous zero is a code."""
    fractions: int = 0
    """Those of them that are not whole."""
    commas: int = 0
    """Strings that are numbers with a decimal comma, such as ``"21,5"``."""

    @property
    def count(self) -> int:
        """Number of values."""
        return self.kinds.total()

    @property
    def type(self) -> FieldType | None:
        """The type that all values are of; None where they are of several."""
        kinds = {kind for kind, count in self.kinds.items() if count}
        if kinds == {"integer"} and self.most is not None and self.most < 2**63:
            return "int64"
        if kinds in ({"number"}, {"integer", "number"}):
            exact = self.most is None or self.least is None or max(abs(self.least), abs(self.most)) < 2**53
            return "float64" if exact or kinds == {"number"} else None
        if kinds == {"text"}:
            return "string"
        return "bool" if kinds == {"boolean"} else None

    @property
    def is_mixed(self) -> bool:
        """Whether numbers, text and booleans stand beside one another."""
        return len({"number" if kind == "integer" else kind for kind, count in self.kinds.items() if count}) > 1

    def examples(self) -> list[Value]:
        """The most frequent values; of a mixed field one of each of its most frequent kinds of text, and of numbers."""
        if not self.is_mixed:
            return [value for value, _ in self.values.most_common(_EXAMPLES)]
        kinds = Counter[str]()
        first: dict[str, Value] = {}
        for value, count in self.values.most_common():
            kind = f"text {text_kind(value)}" if isinstance(value, str) else _kind_of(value)
            kinds[kind] += count
            first.setdefault(kind, value)
        chosen = [kind for kind, _ in kinds.most_common()]
        strings = [kind for kind in chosen if kind.startswith("text ")][:_EXAMPLES]
        return [first[kind] for kind in (*strings, *(kind for kind in chosen if not kind.startswith("text ")))]


def text_kind(value: str) -> str:
    """What a string is: ``number``, ``comma`` for a number with a decimal comma, else the string itself, quoted."""
    return "number" if _NUMERAL.fullmatch(value) else "comma" if _COMMA.fullmatch(value) else repr(value)


def _kind_of(value: Value) -> str:
    if isinstance(value, bool):
        return "boolean"
    return "text" if isinstance(value, str) else "integer" if isinstance(value, int) else "number"


def field_stats(frames: Iterable[Frame]) -> list[FieldStats]:
    """Statistics of all fields, in the order in which they come."""
    found: dict[str, FieldStats] = {}
    rows = 0
    for frame in frames:
        for column in frame.fields:
            name = field_name(column) if column in _HIDDEN else column
            stats = found.get(name)
            if stats is None:
                stats = found[name] = FieldStats(name, nulls=rows)
            _note(stats, frame.column(column))
        for name, stats in found.items():
            if not frame.has(name):
                stats.nulls += frame.num_rows
        rows += frame.num_rows
    return list(found.values())


def unnamed_notes(fields: Iterable[FieldStats]) -> Iterator[str]:
    """Sentences on the fields that have no name to declare or to read them by."""
    for each in fields:
        if not each.name.strip():
            what = f"whose name is blank ({short(ascii(each.name))})" if each.name else "whose name is empty"
            yield f"the member {what} is left out: nothing can declare or read it"


def _note(stats: FieldStats, column: pa.Array) -> None:
    if column.type == MIXED:
        parts = members(column)
        stats.nulls += len(column) - sum(len(part) - part.null_count for part in parts.values())
        for part in parts.values():
            _note_plain(stats, part.drop_null())
        return
    stats.nulls += column.null_count
    _note_plain(stats, column.drop_null())


def _note_plain(stats: FieldStats, column: pa.Array) -> None:
    if not len(column):
        return
    kind = column.type
    if pa.types.is_dictionary(kind):
        column = column.dictionary_decode()
        kind = column.type
    if pa.types.is_boolean(kind):
        stats.kinds["boolean"] += len(column)
    elif pa.types.is_integer(kind) or pa.types.is_floating(kind):
        stats.kinds["integer" if pa.types.is_integer(kind) else "number"] += len(column)
        _note_range(stats, column)
    elif pa.types.is_string(kind):
        stats.kinds["text"] += len(column)
        lengths = pc.min_max(pc.utf8_length(column)).as_py()
        stats.shortest = min(lengths["min"], lengths["min"] if stats.shortest is None else stats.shortest)
        stats.longest = max(lengths["max"], stats.longest or 0)
        numerals = column.filter(pc.match_substring_regex(column, f"^{_NUMERAL.pattern}$"))
        stats.numerals += len(numerals)
        stats.fractions += _matching(numerals, _FRACTION)
        stats.commas += _matching(column, f"^{_COMMA.pattern}$")
    else:
        stats.kinds["list"] += len(column)
        return
    if stats.overflown:
        return
    for item in pc.value_counts(column).to_pylist():
        stats.values[item["values"]] += item["counts"]
    stats.overflown = len(stats.values) > _DISTINCT


def _matching(column: pa.Array, pattern: str) -> int:
    return int(pc.sum(pc.match_substring_regex(column, pattern)).as_py() or 0)


def _note_range(stats: FieldStats, column: pa.Array) -> None:
    if pa.types.is_floating(column.type):
        column = column.filter(pc.is_finite(column))
        if not len(column):
            return
    found = pc.min_max(column).as_py()
    stats.least = found["min"] if stats.least is None else min(stats.least, found["min"])
    stats.most = found["max"] if stats.most is None else max(stats.most, found["max"])


# -- keys ------------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class KeyStats:
    """The keys of events."""

    counts: Counter[str] = field(default_factory=Counter)
    without: int = 0
    """Events whose key is null."""
    spread: int = 0
    """Keys whose events are in several partitions."""

    @property
    def heaviest(self) -> tuple[str, float] | None:
        """The key with most events, and its share of all."""
        if not self.counts:
            return None
        ((key, count),) = self.counts.most_common(1)
        return key, count / (self.counts.total() + self.without)

    def share_of(self, most: int) -> float:
        """Share of the events that belong to the ``most`` heaviest keys."""
        total = self.counts.total() + self.without
        return sum(count for _, count in self.counts.most_common(most)) / total if total else math.nan


def key_stats(frames: Mapping[int, Iterable[Frame]], name: str = "key") -> KeyStats:
    """Statistics of a field by which events are correlated; ``frames`` by partition."""
    found = KeyStats()
    places: dict[str, int] = {}
    spread: set[str] = set()
    for partition, parts in frames.items():
        for frame in parts:
            if not frame.has(name):
                found.without += frame.num_rows
                continue
            for key, count in _value_counts(frame.column(name)):
                if key is None:
                    found.without += count
                    continue
                found.counts[key] += count
                if places.setdefault(key, partition) != partition:
                    spread.add(key)
    found.spread = len(spread)
    return found


def _value_counts(column: pa.Array) -> list[tuple[str | None, int]]:
    column = key_column(column)
    if pa.types.is_dictionary(column.type):
        names = [*column.dictionary.to_pylist(), None]
        codes = np.asarray(column.indices.fill_null(len(names) - 1))
        counts = np.bincount(codes, minlength=len(names)).tolist()
        return [(name, count) for name, count in zip(names, counts, strict=True) if count]
    return [(item["values"], item["counts"]) for item in pc.value_counts(column).to_pylist()]

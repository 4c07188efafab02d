"""Predicates by stream: the tests of single events of all rules, evaluated over a whole frame.

Equal tests are evaluated once for all rules. Equality tests of a string, alone or as a part of an ``and``, are looked
up by the string: their cost does not grow with their number, and the rest of such a test runs only on rows with that
string.
"""
# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from astrocyte.agents.cep.keys import touched
from astrocyte.agents.cep.operator import Atom
from astrocyte.agents.cep.rows import plain
from astrocyte.agents.cep.values import BOOLEANS, TextNumbers
from astrocyte.agents.expressions.columns import predicate
from astrocyte.agents.expressions.nodes import And, Compare, Constant, Field, Node
from astrocyte.agents.expressions.scalar import Evaluate, compile_scalar
from astrocyte.agents.expressions.values import Columns, Operand, Values, numbers_of, text_of
from astrocyte.agents.jit import kernel

__all__ = ["Bits", "StreamPlan", "captured"]

Bits = NDArray[np.uint64]
_FEW: Final = 32
"""Dictionaries with up to this many entries are looked up entry by entry."""
_CACHED: Final = 8
_NO_PRIOR: Final[Mapping[str, Sequence[Mapping[str, Any]]]] = {}


@kernel
def _spread(of_entry, codes, words):
    """Set the bits of each row's dictionary entry; code -1 (null) reads the last entry."""
    for row in range(codes.shape[0]):
        words[row] |= of_entry[codes[row]]


@kernel
def _pick(of_entry, codes, rows, mask):
    """Rows whose dictionary entry has bits, and the bits; returns their number. Code -1 (null) reads the last entry."""
    n = np.uint64(0)
    last = np.int64(of_entry.shape[0] - 1)
    for row in range(codes.shape[0]):
        code = np.int64(codes[row])
        word = of_entry[np.uint64(code if code >= 0 else last)]
        rows[n] = row
        mask[n] = word
        n += np.uint64(word != 0)
    return np.int64(n)


class _Found(NamedTuple):
    """A dictionary and the meaning of its entries.

    The dictionary is kept so that its address, which is the cache key, cannot be reused for other strings.
    """

    strings: pa.Array
    numbers: NDArray[np.int64]
    """For each entry the number of the tested string that it equals, or their count if none; one more item for null."""
    bits: list[Bits]
    """For each group the bits that each entry sets; one more item for null."""
    idle: bool
    """No entry sets a bit or needs a further test."""


@dataclass(slots=True)
class _Equalities:
    """Tests of the form ``field == string [and ...]``: for each string, the bits that it sets and the further tests."""

    bits: dict[str, list[int]] = field(default_factory=dict)
    further: dict[str, list[tuple[Node, Evaluate, list[int]]]] = field(default_factory=dict)
    cache: dict[tuple[int, int, int], _Found] = field(default_factory=dict)
    """The most recent dictionaries, by addresses and length."""

    @property
    def strings(self) -> dict[str, int]:
        """The tested strings with their numbers."""
        return {text: number for number, text in enumerate(dict.fromkeys([*self.bits, *self.further]))}

    def of(self, strings: pa.Array, groups: int) -> _Found:
        """Meaning of the entries of a dictionary, for ``groups`` rule groups."""
        valid, offsets = strings.buffers()[:2]
        first = 0 if offsets is None else offsets.address + 4 * strings.offset  # an empty array may have no offsets
        where = first, 0 if valid is None else valid.address, len(strings)
        found = self.cache.get(where)
        if found is None:
            wanted = self.strings
            if len(strings) <= _FEW:
                entries = np.array([wanted.get(text, len(wanted)) for text in strings.to_pylist()], np.int64)
            else:
                places = pc.index_in(strings, value_set=pa.array(list(wanted), pa.utf8()))
                entries = places.fill_null(len(wanted)).to_numpy().astype(np.int64)
            numbers = np.append(entries, len(wanted))
            bits = []
            for group in range(groups):
                flags = [self.bits[text][group] if text in self.bits else 0 for text in wanted]
                bits.append(np.array([*flags, 0], np.uint64)[numbers])
            further = any(wanted[text] in entries for text in self.further)
            found = _Found(strings, numbers, bits, not further and not any(each.any() for each in bits))
            while len(self.cache) >= _CACHED:
                self.cache.pop(next(iter(self.cache)))
            self.cache[where] = found
        return found


class StreamPlan:
    """Tests for the events of one stream; word g of an event belongs to ``groups[g]``."""

    def __init__(self, groups: Sequence[int], captures: Sequence[int]) -> None:
        self.groups = tuple(groups)
        self.captures = tuple(captures)
        """Rows of ``Prepared.columns`` that this stream fills."""
        self._always = [0] * len(groups)
        self._equal: dict[str, _Equalities] = {}
        self._other: dict[Node, list[int]] = {}
        self._closures: list[tuple[Evaluate, list[int]]] = []

    def add(self, group: int, bit: int, atom: Atom) -> None:
        """Add a test: ``bit`` of the word of ``groups[group]`` is set where the atom's condition holds."""
        flag = 1 << bit
        if atom.condition is None:
            self._always[group] |= flag
            return
        found = _equality(atom.condition)
        if found is None:
            bits = self._other.get(atom.condition)
            if bits is None:
                bits = self._other[atom.condition] = [0] * len(self.groups)
                self._closures.append((compile_scalar(atom.condition), bits))
            bits[group] |= flag
            return
        name, text, rest = found
        equalities = self._equal.setdefault(name, _Equalities())
        if rest is None:
            equalities.bits.setdefault(text, [0] * len(self.groups))[group] |= flag
            return
        tests = equalities.further.setdefault(text, [])
        bits = next((bits for node, _, bits in tests if node == rest), None)
        if bits is None:
            bits = [0] * len(self.groups)
            tests.append((rest, compile_scalar(rest), bits))
        bits[group] |= flag

    def touched(self, columns: Columns) -> list[tuple[NDArray[np.int64], Bits]]:
        """For each group the rows with a word that is not 0, and these words."""
        if self._other or any(self._always):
            return [touched(words) for words in self.words(columns)]
        looked_up = []
        for name, equalities in self._equal.items():
            values = text_of(columns[name])
            found = None if values is None else equalities.of(values.strings, len(self.groups))
            if values is not None and found is not None and not found.idle:
                looked_up.append((equalities, found, values))
        if not looked_up:
            return [(np.empty(0, np.int64), np.empty(0, np.uint64)) for _ in self.groups]
        if len(looked_up) > 1 or looked_up[0][0].further:
            return [touched(words) for words in self.words(columns)]
        ((_, found, values),) = looked_up
        picked = []
        for bits in found.bits:
            rows, mask = np.empty(columns.rows, np.int64), np.empty(columns.rows, np.uint64)
            end = _pick(bits, plain(values.data), rows, mask)
            picked.append((rows[:end], mask[:end]))
        return picked

    def words(self, columns: Columns) -> Bits:
        """Words of all rows, shape [groups, rows]."""
        words = np.zeros((len(self.groups), columns.rows), np.uint64)
        if any(self._always):
            words[:] = np.array(self._always, np.uint64)[:, None]
        for name, equalities in self._equal.items():
            self._look_up(columns, text_of(columns[name]), equalities, words)
        for node, bits in self._other.items():
            flags = predicate(node, columns)
            for group, flag in enumerate(bits):
                if flag:
                    words[group] |= np.where(flags, np.uint64(flag), np.uint64(0))
        return words

    def _look_up(self, columns: Columns, values: Values | None, equalities: _Equalities, words: Bits) -> None:
        found = None if values is None else equalities.of(values.strings, len(self.groups))
        if values is None or found is None or found.idle:
            return
        of_entry, strings = found.numbers, equalities.strings
        for group, of_bits in enumerate(found.bits):
            if of_bits.any():
                _spread(of_bits, plain(values.data), words[group])
        if not equalities.further:
            return
        of_row = of_entry[values.data]
        order = np.argsort(of_row, kind="stable")
        bounds = np.searchsorted(of_row[order], np.arange(len(strings) + 1))
        for text, number in strings.items():
            rows = order[bounds[number] : bounds[number + 1]]
            if len(rows) and text in equalities.further:
                subset = columns.subset(rows)
                for node, _, bits in equalities.further[text]:
                    hits = rows[predicate(node, subset)]
                    for group, flag in enumerate(bits):
                        if flag:
                            words[group, hits] |= np.uint64(flag)

    def word(self, event: Mapping[str, Any]) -> list[int]:
        """Words of one event."""
        words = self._always.copy()
        for name, equalities in self._equal.items():
            text = event.get(name)
            if not isinstance(text, str):
                continue
            bits = equalities.bits.get(text)
            if bits is not None:
                for group, flag in enumerate(bits):
                    words[group] |= flag
            for _, test, flags in equalities.further.get(text, ()):
                if test(event, _NO_PRIOR):
                    for group, flag in enumerate(flags):
                        words[group] |= flag
        for test, flags in self._closures:
            if test(event, _NO_PRIOR):
                for group, flag in enumerate(flags):
                    words[group] |= flag
        return words


def _equality(node: Node) -> tuple[str, str, Node | None] | None:
    """Field, string and remaining test of a condition that contains ``field == 'string'``."""
    match node:
        case Compare("==", Field(None, name), Constant(str() as text)) | Compare(
            "==", Constant(str() as text), Field(None, name)
        ):
            return name, text, None
        case And(parts):
            for index, part in enumerate(parts):
                found = _equality(part) if isinstance(part, Compare) else None
                if found is not None:
                    rest = parts[:index] + parts[index + 1 :]
                    return found[0], found[1], rest[0] if len(rest) == 1 else And(rest)
    return None


def captured(
    values: Operand, rows: NDArray[np.int64] | None, strings: TextNumbers
) -> tuple[NDArray[np.float64], NDArray[np.float64] | None]:
    """A column as the kernels carry it (see `agents.cep.values`): high and low parts for the given rows."""
    if rows is not None:
        values = values.take(rows)
    if isinstance(values, Values):
        return _captured(values, strings)
    high, low = _captured(values.parts[0], strings)
    for part in values.parts[1:]:
        high = np.where(part.is_valid, _captured(part, strings)[0], high)  # numbers, which have low parts, come first
    return high, low


def _captured(values: Values, strings: TextNumbers) -> tuple[NDArray[np.float64], NDArray[np.float64] | None]:
    if values.strings is not None:
        used, places = np.unique(values.data, return_inverse=True)
        boxes = strings.boxes(values.strings.take(pa.array(used[used >= 0])))
        return np.concatenate([np.full(len(used) - len(boxes), np.nan), boxes])[places], None
    low = None
    if numbers_of(values) is None:
        high = BOOLEANS[values.data.view(np.int8)]
    else:
        high, low = values.pair()
    if values.valid is not None:
        high = np.where(values.valid, high, np.nan)
        low = None if low is None else np.where(values.valid, low, 0.0)
    return high, low

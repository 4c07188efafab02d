"""What a browser holds: values by name, sent once as a whole and then as changes.

A value is a list of numbers (an array), the newest items of a feed, or any other JSON. A patch has four parts, each
left out where it is empty::

    {"set": {name: value},                           # in place of what was there
     "at": {name: {"n": 3, "i": [2], "v": [7.5]}},   # an array's length, and the values that changed
     "add": {name: {"from": 12, "items": [...]}},    # items of a feed, the first of which has this number
     "del": [name, ...]}

Applied to the document before, the patch of two documents gives the second. A snapshot is a patch of an empty one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar

import numpy as np
import orjson
from numpy.typing import NDArray

from astrocyte.pipeline.page.aggregates.newest import Newest

__all__ = ["Document", "Feed", "Shown", "array", "encode", "patch"]

T = TypeVar("T")

_DIGITS: Final = 5
_WHOLE: Final = 0.5
"""Share of changed values from which an array is sent as a whole."""


@dataclass(frozen=True, slots=True)
class Feed:
    """Newest items of a feed; ``first`` is the number of the first of them. ``most`` are kept by a browser."""

    first: int
    items: tuple[Any, ...]
    most: int

    @property
    def end(self) -> int:
        """Number of the item that comes next."""
        return self.first + len(self.items)


class Shown(Generic[T]):
    """The items of a `Newest` as a browser shows them, each made once."""

    def __init__(self, show: Callable[[T], dict[str, Any]], most: int) -> None:
        self._show = show
        self._made: Newest[dict[str, Any]] = Newest(most)
        self._most = most

    def feed(self, newest: Newest[T]) -> Feed:
        """The feed of all items that are kept."""
        new = newest.since(self._made.count)
        self._made.count = newest.count - len(new)  # items that came and went meanwhile are never made
        self._made.extend(map(self._show, new))
        items = tuple(self._made.since(0))
        return Feed(self._made.count - len(items), items, self._most)


Document = Mapping[str, Any]
"""Values by name: a NumPy array of one dimension, a Feed, or what orjson can write."""


def array(values: NDArray[Any], digits: int = _DIGITS) -> NDArray[Any]:
    """Numbers with as many digits as a chart can show, or as are given, and infinite ones as NaN: null in JSON."""
    if values.dtype.kind != "f":
        return values
    values = np.where(np.isfinite(values), values, np.nan)
    with np.errstate(divide="ignore", invalid="ignore"):
        exponents = np.floor(np.log10(np.abs(values)))
    scale = 10.0 ** (digits - 1 - np.where(np.isfinite(exponents), exponents, 0))
    return np.round(values * scale) / scale


def patch(before: Document, now: Document) -> dict[str, Any]:
    """What makes ``now`` of ``before``; empty where they are the same."""
    found: dict[str, dict[str, Any]] = {"set": {}, "at": {}, "add": {}}
    for name, value in now.items():
        old = before.get(name)
        if isinstance(value, np.ndarray):
            _patch_array(found, name, old, value)
        elif isinstance(value, Feed):
            begin = old.end if isinstance(old, Feed) and old.end <= value.end else 0
            new = value.items[max(begin - value.first, 0) :]
            if new or not isinstance(old, Feed):
                first = max(begin, value.first)
                found["add"][name] = {"from": first, "items": new, "most": value.most}
        elif name not in before or type(old) is not type(value) or old != value:
            found["set"][name] = value
    gone = [name for name in before if name not in now]
    return {part: values for part, values in found.items() if values} | ({"del": gone} if gone else {})


def _patch_array(found: dict[str, dict[str, Any]], name: str, old: Any, value: NDArray[Any]) -> None:
    if not isinstance(old, np.ndarray) or old.dtype != value.dtype:
        found["set"][name] = value
        return
    common = min(len(old), len(value))
    changed = ~(
        (old[:common] == value[:common]) | ((old[:common] != old[:common]) & (value[:common] != value[:common]))
    )
    places = np.concatenate([np.flatnonzero(changed), np.arange(common, len(value))])
    if len(places) > _WHOLE * len(value):
        found["set"][name] = value
    elif len(places) or len(old) != len(value):
        found["at"][name] = {"n": len(value), "i": places, "v": value[places]}


def encode(body: Mapping[str, Any]) -> bytes:
    """JSON of a patch; NaN is null."""
    return orjson.dumps(body, option=orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_NON_STR_KEYS)

"""The newest items of a stream of any length, numbered from its beginning."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import Generic, TypeVar

__all__ = ["Newest"]

T = TypeVar("T")


class Newest(Generic[T]):
    """At most ``most`` items, the newest; `count` is the number of all that were added."""

    def __init__(self, most: int) -> None:
        self._kept: deque[T] = deque(maxlen=most)
        self.count = 0

    def extend(self, items: Iterable[T]) -> None:
        """Add items, in order."""
        for item in items:
            self._kept.append(item)
            self.count += 1

    def since(self, number: int) -> list[T]:
        """The kept items from that number on, oldest first."""
        begin = self.count - len(self._kept)
        skip = max(number - begin, 0)
        return [] if skip >= len(self._kept) else list(self._kept)[skip:]

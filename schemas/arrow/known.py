"""Schemas of which something is known, recognised in a microsecond: small frames cost what is looked at in each."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Final

import pyarrow as pa

__all__ = ["KnownSchemas"]

_MOST: Final = 512
_MOST_NAMES: Final = 16_384
"""Characters of the names of a schema that is remembered: it may come from anyone."""


class KnownSchemas:
    """Remembers the schemas for which a test held. What it says depends on names and types of columns alone.

    Metadata are not looked at. The test is given the schema and ``about``, what else it depends on. At most 512 schemas
    are remembered, and as many threads as like may ask.
    """

    def __init__(self, test: Callable[..., bool]) -> None:
        self._test = test
        self._held: dict[Hashable, pa.Schema] = {}

    def holds(self, schema: pa.Schema, *about: Hashable) -> bool:
        """Whether the test holds for a schema."""
        names = tuple(schema.names)
        place = (names, about)
        held = self._held.get(place)
        if held is not None and schema.equals(held):
            return True
        if not self._test(schema, *about):
            return False
        if sum(map(len, names)) <= _MOST_NAMES:
            if len(self._held) >= _MOST:
                self._held.clear()
            self._held[place] = schema.remove_metadata()
        return True

"""What ``'x' in field`` means: whether a list has the member, an object the name, or a text the part."""

from __future__ import annotations

from typing import Final

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc

__all__ = ["each_holds", "holds"]

_BEGINS: Final = pa.array(list("[{ \t\r\n"), pa.utf8())
"""First characters of a JSON list or object; all other strings need no second look."""
_FIRST: Final = frozenset(_BEGINS.to_pylist())


def holds(text: str, part: str) -> bool:
    """Whether ``part`` is inside a value, which is text or the JSON text of a list or an object.

    Of a list it is one of its strings, of an object one of its names, as Python's ``in`` has it. Any other text, one
    that only looks like JSON among them, is searched for it.
    """
    if text[:1] in _FIRST:
        try:
            found = orjson.loads(text)
        except orjson.JSONDecodeError:
            return part in text
        if isinstance(found, list | dict):
            return part in found
    return part in text


def each_holds(strings: pa.Array, part: str) -> pa.Array:
    """`holds` of each text: bool, null where the text is."""
    found = pc.match_substring(strings, part)
    nested = np.flatnonzero(pc.is_in(pc.utf8_slice_codeunits(strings, 0, 1), value_set=_BEGINS))
    if not len(nested):
        return found
    flags = found.to_numpy(zero_copy_only=False).copy()
    flags[nested] = [holds(text, part) for text in strings.take(pa.array(nested)).to_pylist()]
    return pa.array(flags, pa.bool_(), from_pandas=True)

"""What the shipped controllers share: rows of a frame with absent fields as None, and numbers that can be used."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from astrocyte.schemas.frames import Frame

__all__ = ["is_number", "rows_with", "within"]


def rows_with(frame: Frame, names: tuple[str, ...]) -> Iterator[dict[str, Any]]:
    """Rows with these fields and the timestamp (microseconds); a field that the frame lacks is None."""
    columns = {name: frame.values(name) if frame.has(name) else [None] * frame.num_rows for name in names}
    columns["timestamp"] = frame.timestamps().tolist()
    for row in range(frame.num_rows):
        yield {name: values[row] for name, values in columns.items()}


def within(value: float, limits: tuple[float, float]) -> float:
    """The value, or the limit that it exceeds."""
    return min(max(value, limits[0]), limits[1])


def is_number(value: Any) -> bool:
    """Whether a value is a finite number."""
    return isinstance(value, int | float) and math.isfinite(value)

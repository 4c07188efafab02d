"""Values of the query of an address."""

from __future__ import annotations

from typing import Any, Final

from astrocyte.schemas.errors import InvalidSettings

__all__ = ["MOST_US", "at_of", "number_of", "real_of"]

MOST_US: Final = 1 << 62


def at_of(query: Any) -> int | None:
    """The instant ``at`` in microseconds since 1970; None without it. Raises InvalidSettings."""
    return number_of(query, "at", -MOST_US, MOST_US) if "at" in query else None


def number_of(query: Any, name: str, low: int, high: int, otherwise: int | None = None) -> int:
    """A whole number between two bounds. Raises InvalidSettings."""
    text = query.get(name, "")
    if not text and otherwise is not None:
        return otherwise
    try:
        value = int(text)
    except ValueError:
        raise InvalidSettings(f"{name}: expected a whole number, got {text[:40]!r}") from None
    if not low <= value <= high:
        raise InvalidSettings(f"{name}: expected a number from {low} to {high}, got {value}")
    return value


def real_of(query: Any, name: str) -> float:
    """A number. Raises InvalidSettings."""
    text = query.get(name, "")
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not abs(value) <= MOST_US:
        raise InvalidSettings(f"{name}: expected a number, got {text[:40]!r}")
    return value

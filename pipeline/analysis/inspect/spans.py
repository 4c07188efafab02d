"""Spans of time as people read them."""

from __future__ import annotations

__all__ = ["span_text"]


def span_text(us: int) -> str:
    """A span of time in the two largest units that it has, such as ``2h 5m`` or ``1.25s``."""
    if us < 1_000_000:
        return "0s" if us == 0 else f"{us / 1000:g}ms" if us >= 1000 else f"{us}us"
    if us < 60_000_000:
        return f"{us / 1e6:.3g}s"
    seconds = round(us / 1e6)
    units = ((86_400, "d"), (3600, "h"), (60, "m"), (1, "s"))
    found: list[str] = []
    for size, unit in units:
        if seconds >= size and len(found) < 2:
            found.append(f"{seconds // size}{unit}")
            seconds %= size
        elif found:
            break
    return " ".join(found)

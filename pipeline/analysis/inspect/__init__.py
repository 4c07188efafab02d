"""`astrocyte inspect`: what a topic, a recorded log or a file of events holds, and a starter for its rules."""

from __future__ import annotations

from typing import Final

__all__ = ["LIMIT"]

LIMIT: Final = 20_000
"""Events of a topic, and of a log or file, that are read by default: more of them take longer than a person waits."""

"""Windows: aggregates of a stream over tumbling, hopping, sliding and session windows, keyed by any field."""

from __future__ import annotations

from agents.windows.operator import WindowOperator
from agents.windows.panes import windows_for
from agents.windows.rows import WindowRows

__all__ = ["WindowOperator", "WindowRows", "windows_for"]

"""Aggregates of a stream over tumbling, hopping, sliding and session windows, keyed by any field."""

from __future__ import annotations

from astrocyte.agents.windows.operator import WindowOperator
from astrocyte.agents.windows.panes import windows_for
from astrocyte.agents.windows.rows import WindowRows

__all__ = ["WindowOperator", "WindowRows", "windows_for"]

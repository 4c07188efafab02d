"""Aggregates over groups of rows: vectorised, mergeable, and bit-identical for any division of the rows into calls."""

from __future__ import annotations

from astrocyte.agents.windows.aggregates.calls import make_state, need_of, read_results, state_of
from astrocyte.agents.windows.aggregates.states import Members, State

__all__ = ["Members", "State", "make_state", "need_of", "read_results", "state_of"]

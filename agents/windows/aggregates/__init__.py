"""Aggregates over groups of rows: vectorised, mergeable, and with the same bits however the rows were divided."""

from __future__ import annotations

from astrocyte.agents.windows.aggregates.calls import make_state, need_of, read_results, state_of
from astrocyte.agents.windows.aggregates.states import Members, State

__all__ = ["Members", "State", "make_state", "need_of", "read_results", "state_of"]

"""Aggregates over groups of rows: vectorised, mergeable, and with the same bits however the rows were divided."""

from __future__ import annotations

from agents.aggregates.calls import AGGREGATES, AggregateCall, aggregate_call
from agents.aggregates.states import Members, State

__all__ = ["AGGREGATES", "AggregateCall", "Members", "State", "aggregate_call"]

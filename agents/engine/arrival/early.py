"""Which matches an engine puts out before the watermark has passed their events."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from astrocyte.agents.engine.arrival.eventual import EventualPass
from astrocyte.agents.engine.arrival.immediate import ImmediatePass
from astrocyte.agents.engine.tables import MatchTables
from astrocyte.agents.event_time.event_store import EventStore
from astrocyte.schemas.errors import InvalidSettings

__all__ = ["Consistency", "EarlyPass", "early_pass"]

Consistency = Literal["strong", "eventual"]
EarlyPass = EventualPass | ImmediatePass


def early_pass(
    consistency: Consistency, tables: MatchTables, store: EventStore, gather: Callable[[], None], *, immediate: bool
) -> EarlyPass | None:
    """All matches, provisionally (``eventual``); else those of one event, if ``immediate``; else none.

    ``gather`` turns events that were pushed one at a time into frames of ``store``. Raises InvalidSettings.
    """
    if consistency not in ("strong", "eventual"):
        raise InvalidSettings(f"consistency {consistency!r}: expected strong or eventual")
    if consistency == "eventual":
        return EventualPass(tables, gather)
    return ImmediatePass(tables, store, gather) if immediate else None

"""Output of one step of an engine."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from astrocyte.agents.engine.entrance import RefusedEvent
from astrocyte.agents.engine.gates import Formed
from astrocyte.agents.engine.junctions import Led
from astrocyte.agents.event_time.event_store import Origin
from astrocyte.agents.ingest.faults import apart, reason_of
from astrocyte.agents.matches.grouped import GroupedAlert
from astrocyte.agents.matches.table import FailedRow, MatchTable
from astrocyte.schemas.frames import Frame

__all__ = ["EngineOutput", "FailedRow", "take_apart"]


@dataclass(slots=True)
class EngineOutput:
    """Output of one step."""

    matches: MatchTable
    frames: list[Frame] = field(default_factory=list)
    """Results of windows, and matches of exported rules, as events of a stream of the window's or rule's name."""
    late: list[Frame] = field(default_factory=list)
    """Rows that were pushed although the watermark had passed them; they took part in nothing."""
    refused: list[RefusedEvent] = field(default_factory=list)
    """Events that the rule set's validators refused since the last step, with their reasons."""
    grouped: list[GroupedAlert] = field(default_factory=list)
    """Alerts of rules with ``group``: one for all of their matches within a time. `matches` have the other alerts."""
    failed: list[FailedRow] = field(default_factory=list)
    """Results of windows and rules that other rules read and that raised: they took part in nothing."""
    led: list[Led] = field(default_factory=list)
    """Events that junctions made of the matches."""
    formed: list[Formed] = field(default_factory=list)
    """Junctions that lead here and that formed or dissolved between two domains."""

    def __bool__(self) -> bool:
        several = (self.frames, self.late, self.refused, self.grouped, self.failed, self.led, self.formed)
        return bool(len(self.matches) or any(several))


def take_apart(
    frame: Frame, take: Callable[[Frame, Origin | None], None], origin: Origin | None = None
) -> list[FailedRow]:
    """Give results of rules or windows to what reads them, in parts where a row raises; returns these rows."""
    failed: list[FailedRow] = []

    def attempt(first: int, last: int) -> None:
        if last - first == frame.num_rows:
            take(frame, origin)
            return
        rows = np.arange(first, last)
        take(frame.take(rows), None if origin is None else origin.take(rows))

    def refuse(row: int, error: Exception) -> None:
        failed.append(FailedRow(frame.take(np.array([row])), reason_of("reading a result", error)))

    apart(frame.num_rows, attempt, refuse)
    return failed

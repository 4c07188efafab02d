"""Output of one step of an engine."""

from __future__ import annotations

from dataclasses import dataclass, field

from astrocyte.agents.engine.entrance import RefusedEvent
from astrocyte.agents.matches.grouped import GroupedAlert
from astrocyte.agents.matches.table import FailedRow, MatchTable
from astrocyte.schemas.frames import Frame

__all__ = ["EngineOutput", "FailedRow"]


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

    def __bool__(self) -> bool:
        return bool(len(self.matches) or self.frames or self.late or self.refused or self.grouped or self.failed)

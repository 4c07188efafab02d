"""Output of one step of an engine, and the parts of it that a snapshot holds until the next step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from astrocyte.agents.engine.entrance import RefusedEvent
from astrocyte.agents.matches.grouped import GroupedAlert
from astrocyte.agents.matches.table import FailedRow, MatchTable
from astrocyte.schemas.frames import Frame, decode_frame, encode_frame

__all__ = ["EngineOutput", "FailedRow", "pack_frames", "unpack_frames"]


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


def pack_frames(frames: Sequence[Frame]) -> dict[str, bytes]:
    """Frames as part of a snapshot."""
    return {str(number): encode_frame(frame) for number, frame in enumerate(frames)}


def unpack_frames(packed: Mapping[str, Any]) -> list[Frame]:
    """The frames that `pack_frames` packed."""
    return [decode_frame(bytes(packed[str(number)]), bounded=False) for number in range(len(packed))]

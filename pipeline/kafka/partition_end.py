"""A partition at its end, as answered fetches prove it, or why it is not; and how far its reader has come."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["AtEnd", "Position", "Unread"]


@dataclass(frozen=True, slots=True)
class AtEnd:
    """An uninterrupted span of answers that found the partition to end at one offset.

    It says something only of a reader that has come to this offset.
    """

    offset: int
    since_s: float
    """When the first of these fetches was sent, by the monotonic clock."""
    until_s: float
    """When the last of them was sent: later records may not have been seen yet."""
    reading_since_s: float
    """Since when fetches were answered without a gap, wherever the partition ended: a source that sent nothing since
    then, on a partition that is read up to its end, is silent."""
    delivered: int | None = None
    """Offset after the newest chunk that was handed to an agent; None if none was. Until the agent has finished
    that chunk, records still wait to be processed."""

    def is_queued(self, handled: int | None) -> bool:
        """Whether chunks that were handed out wait to be processed; ``handled``: offset after the newest that is."""
        return self.delivered is not None and (handled is None or handled < self.delivered)


@dataclass(frozen=True, slots=True)
class Unread:
    """A partition is not known to be at its end for this worker."""

    why: Literal["paused", "unanswered", "behind"]
    """Its delivery is paused, no answer of the broker says where it ends, or it has records that are not read yet."""
    records: int = 0
    """Number of these records."""


@dataclass(frozen=True, slots=True)
class Position:
    """How far the reader of a partition has come, at one moment."""

    placed: bool
    """Whether it is known where reading begins; before that its state is restored."""
    read: int | None
    """Offset of the next record that is handed to an agent."""
    unread: int
    """Number of records after it, as the last answer of the broker says."""
    held: int
    """Chunks that were handed to agents and are not acknowledged."""
    acknowledged: int | None
    """Offset before which everything is acknowledged."""
    acks: int
    """Acknowledgements since the partition was placed."""
    paused: bool
    answered: bool
    """Whether the broker answers fetches of the partition."""

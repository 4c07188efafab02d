"""Whether findings still stand: those of eventual rules come provisionally, and are confirmed or retracted later."""

from __future__ import annotations

from typing import Final, Literal

__all__ = ["MOST_STATUSES", "Change", "Standing"]

MOST_STATUSES: Final = 4_000
"""Findings whose status is kept for those that look at them."""
_MOST_OPEN: Final = 100_000

Change = Literal["new", "known", "taken back"]


class Standing:
    """The status of findings that were not final at once, by id; of these the newest are kept."""

    def __init__(self) -> None:
        self.statuses: dict[str, str] = {}
        """Status by id: provisional, confirmed or retracted."""
        self._open: dict[str, None] = {}

    def take(self, identity: str, status: str) -> Change:
        """What a message about a finding changes: it is new, one more about a known one, or takes that back."""
        self.statuses.pop(identity, None)
        if status == "final":  # of a known one: a worker that was killed had made it on arrival
            known = identity in self._open
            self._open.pop(identity, None)
            return "known" if known else "new"
        self.statuses[identity] = status
        _bound(self.statuses, MOST_STATUSES)
        if status == "provisional":
            again = identity in self._open
            self._open[identity] = None
            _bound(self._open, _MOST_OPEN)
            return "known" if again else "new"
        known = identity in self._open
        self._open.pop(identity, None)
        if status == "retracted":
            return "taken back" if known else "known"
        return "known" if known else "new"


def _bound(kept: dict[str, str] | dict[str, None], most: int) -> None:
    while len(kept) > most:
        del kept[next(iter(kept))]

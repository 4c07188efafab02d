"""What a role does about events that it does not use: a limit on dead letters, and log lines at a bounded rate."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Callable, Iterable, Iterator
from typing import Final

from astrocyte.agents.ingest.faults import OperatorFailed
from astrocyte.agents.ingest.unused.counts import IDLE, Cause, Unused, UnusedCount, line_of
from astrocyte.agents.sinks.base import SinkError
from astrocyte.pipeline.state.lost import InputReset, SnapshotsLost
from astrocyte.schemas.errors import AstrocyteError, PluginError

__all__ = ["STOPPED_STATUS", "LetterLimit", "TooManyDeadLetters", "UnusedReporter", "stopping"]

logger = logging.getLogger(__name__)

STOPPED_STATUS: Final = 76
"""Exit status of a role that has stopped because going on makes no sense; it is not started again."""
LEAST_RECORDS: Final = 1000
"""Number of records over which the share of dead letters is measured, at least."""
_INTERVAL_S: Final = 60.0
"""Time between two log lines of one cause."""
_LOOK_S: Final = 1.0
"""Time between two looks at the counts."""
_LATE_REMEDY: Final = (
    "; ASTROCYTE_LATENESS says how late an event may arrive. Events of a recorded log are late where newer ones were "
    "read before: 'astrocyte replay --shift' moves them to now, --remap sends them to topics of their own"
)
_IDLE_REMEDY: Final = (
    "; a source is idle after ASTROCYTE_IDLE_TIMEOUT without events, and once all are, event time goes on with the "
    "clock. Date what comes after a pause by the clock ('astrocyte replay --shift' moves the events of a log to now), "
    "make the timeout longer than the pauses, or let the producer send watermarks"
)
_Key = tuple[Cause, str, str, str]
"""Cause, subject, detail and kind of reason of a count."""


class TooManyDeadLetters(AstrocyteError):
    """The share of dead letters is above the limit: decoder, validators or rules do not fit what is read."""


class LetterLimit:
    """Stops a role whose input it cannot use: more than ``share`` of at least 1,000 records in a row are dead letters.

    The share is measured anew after each 1,000 records, so that a fault that begins late is found as well.
    """

    def __init__(self, role: str, share: float) -> None:
        self._role = role
        self._share = share
        self._records = 0
        self._letters = 0

    def count(self, records: int, letters: int, example: str = "") -> None:
        """Count what one chunk held and how many dead letters it made. Raises TooManyDeadLetters."""
        self._records += max(records, letters)
        self._letters += letters
        if self._records < LEAST_RECORDS:
            return
        share = self._letters / self._records
        if share > self._share:
            raise TooManyDeadLetters(
                f"{self._role}: {self._letters:,} of the last {self._records:,} records became dead letters "
                f"({share:.0%}; the limit is {self._share:.0%}){f', such as {example}' if example else ''}; the role "
                "stops. Mend the producer, validator, declaration or rule and start again, or raise "
                "ASTROCYTE_DEAD_LETTER_LIMIT (1: no limit)"
            )
        self._records = self._letters = 0


class UnusedReporter:
    """Logs what was not used: for each cause at most one line a minute, with the number of events since the last.

    ``unused_of`` gives the counts as they are now; ``absent_of`` sentences on what rules read and has not come yet,
    of which each is logged once, a minute after the first look.
    """

    def __init__(
        self,
        unused_of: Callable[[], Iterable[Unused]],
        absent_of: Callable[[], Iterable[str]] = tuple,
        *,
        monotonic: Callable[[], float],
        say: Callable[[str], None] = logger.warning,
    ) -> None:
        self._unused_of = unused_of
        self._absent_of = absent_of
        self._monotonic = monotonic
        self._say = say
        self._looked_s = -_INTERVAL_S
        self._absent_s: float | None = None
        self._said_s: dict[str, float] = {}
        self._said: dict[_Key, int] = {}
        self._absent_said: set[str] = set()

    async def tick(self) -> None:
        """Called often, by the role's timer."""
        now_s = self._monotonic()
        if now_s - self._looked_s < _LOOK_S:
            return
        self._looked_s = now_s
        total = Unused()
        for each in self._unused_of():
            total.merge(each)
        fresh: dict[Cause, list[tuple[_Key, int, UnusedCount]]] = {}
        for cause, subject, detail, found in total:
            key = (cause, subject, detail, found.kind)
            said = self._said.get(key, 0)
            # Counts begin anew where partitions come back after a rebalance.
            new = found.count - said if found.count >= said else found.count
            if new:
                fresh.setdefault(cause, []).append((key, new, found))
        for cause, items in fresh.items():
            if now_s - self._said_s.get(cause, -_INTERVAL_S) < _INTERVAL_S:
                continue
            self._said_s[cause] = now_s
            self._said.update({key: found.count for key, _, found in items})
            self._say(_line(items))
        self._say_absent(now_s)

    def _say_absent(self, now_s: float) -> None:
        if self._absent_s is None:
            self._absent_s = now_s
        if now_s - self._absent_s < _INTERVAL_S:
            return
        self._absent_s = now_s
        for line in self._absent_of():
            if line not in self._absent_said:
                self._absent_said.add(line)
                self._say(line)


def _line(items: list[tuple[_Key, int, UnusedCount]]) -> str:
    """One line for the counts of one cause: the largest in full, the others as a number."""
    items = sorted(items, key=lambda item: -item[1])
    (cause, subject, detail, kind), new, found = items[0]
    line = line_of(cause, subject, detail, UnusedCount(new, found.example, kind))
    more = sum(count for _, count, _ in items[1:])
    line += f"; {more:,} more of {len(items) - 1} other kinds" if more else ""
    return line + ("" if cause != "late" else _IDLE_REMEDY if detail == IDLE else _LATE_REMEDY)


@contextlib.contextmanager
def stopping() -> Iterator[None]:
    """End the process where going on makes no sense, with one line that says why.

    What was not acknowledged is read again by the next process.
    """
    try:
        yield
    except (OperatorFailed, PluginError, TooManyDeadLetters, SnapshotsLost, InputReset, SinkError) as error:
        logger.critical("%s", error)
        for handler in logging.getLogger().handlers:
            handler.flush()
        os._exit(STOPPED_STATUS)

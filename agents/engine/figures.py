"""What an engine says of itself: how much waits, what came of its rules, how far back its state reaches."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from astrocyte.agents.engine.alerts import AlertPacing
    from astrocyte.agents.engine.arrival.early import Early
    from astrocyte.agents.engine.entrance import Entrance
    from astrocyte.agents.engine.event_buffer import EventBuffer
    from astrocyte.agents.engine.gates import Gates
    from astrocyte.agents.engine.strata import Stratum
    from astrocyte.agents.event_time.event_store import EventStore

__all__ = ["Figures"]


class Figures:
    """The figures of an engine, read from its parts."""

    alerts: AlertPacing
    gates: Gates
    _buffer: EventBuffer
    _early: Early
    _entrance: Entrance | None
    _store: EventStore
    _strata: list[Stratum]

    @property
    def refused(self) -> int:
        """Events that validators have refused since the start; the next step's output holds them with reasons."""
        return 0 if self._entrance is None else self._entrance.refused

    @property
    def sampled(self) -> int:
        """Events that validators have sampled away since the start."""
        return 0 if self._entrance is None else self._entrance.sampled

    def size(self) -> dict[str, int]:
        """Rows that wait, rows of frames kept for them and for partial matches, provisional matches."""
        return {
            "waiting": sum(stratum.size() for stratum in self._strata) + len(self._buffer) + self.gates.waiting,
            "rows": self._store.rows,
            "provisional": len(self._early),
        }

    def partials(self) -> int:
        """Number of partial matches, and of events that wait for the others of their match."""
        return sum(stratum.matcher.partials() for stratum in self._strata)

    def counters(self) -> dict[str, dict[str, int]]:
        """By rule: events, partials, matches, timeouts, cut, work, microseconds, alerts suppressed and grouped.

        Of rules of eventual consistency also the matches that were provisional, confirmed and retracted.
        """
        more = self._early.corrections
        return {
            rule.name: {**counts, **self.alerts.counts(rule.name), **more.get(rule.name, {})}
            for stratum in self._strata
            for rule, counts in stratum.counters()
        }

    @property
    def corrections(self) -> Mapping[str, Mapping[str, int]]:
        """By rule of eventual consistency: matches that were provisional, confirmed and retracted since the start."""
        return self._early.corrections

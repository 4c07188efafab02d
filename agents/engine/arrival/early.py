"""What an engine puts out before the watermark has passed the events of a match.

Rules of ``eventual`` consistency are matched on arrival, provisionally; of the others those over one event, whose
matches no other event can change, are matched on arrival as well and are final at once, if the engine wants that.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from astrocyte.agents.cep.rows import Prepared
from astrocyte.agents.engine.arrival.eventual import EventualPass
from astrocyte.agents.engine.arrival.immediate import ImmediatePass
from astrocyte.agents.engine.tables import GivenTables, MatchTables
from astrocyte.agents.event_time.event_store import EventStore
from astrocyte.agents.matches.table import Match, MatchTable
from astrocyte.agents.rules.model import Consistency, Rule, RuleSet
from astrocyte.schemas.errors import InvalidSettings
from astrocyte.schemas.frames import Frame

__all__ = ["Early", "in_order_alone", "is_eventual"]

_LEVELS: Final = ("strong", "eventual")


def in_order_alone(ruleset: RuleSet) -> RuleSet:
    """The same rules, none of which is eventual, for events that are all there: each match comes once and is final."""
    if all(rule.consistency != "eventual" for rule in ruleset.rules):
        return ruleset
    rules = tuple(rule.model_copy(update={"consistency": None}) for rule in ruleset.rules)
    return ruleset.model_copy(update={"rules": rules})


def is_eventual(rule: Rule, otherwise: Consistency) -> bool:
    """Whether a rule is eventual; ``otherwise`` is the consistency of rules that state none."""
    return (rule.consistency or otherwise) == "eventual"


class Early:
    """The eventual and the immediate pass of one engine.

    ``consistency`` is that of rules that state none. ``gather`` turns events that were pushed one at a time into frames
    of ``store``. Raises InvalidSettings.
    """

    def __init__(
        self,
        consistency: Consistency,
        tables: MatchTables,
        store: EventStore,
        gather: Callable[[], None],
        *,
        immediate: bool,
    ) -> None:
        if consistency not in _LEVELS:
            raise InvalidSettings(f"consistency {consistency!r}: expected strong or eventual")
        self._consistency = consistency
        self._tables = tables
        self.given = GivenTables()
        """Matches found on arrival that no output has yet."""
        self._eventual = EventualPass(tables, gather, self.given)
        self._immediate = ImmediatePass(tables, store, gather, self.given) if immediate else None
        self._passes: list[EventualPass | ImmediatePass] = []
        self.streams: frozenset[str] = frozenset()
        """Streams that the rules of the passes read."""

    def __len__(self) -> int:
        return len(self._eventual)

    @property
    def corrections(self) -> Mapping[str, Mapping[str, int]]:
        """By rule: matches that were provisional, confirmed and retracted since the start."""
        return self._eventual.corrections

    def update(self, rules: Sequence[Rule]) -> None:
        """Put rules over incoming streams in force; unchanged ones keep their partial matches."""
        eventual = [rule for rule in rules if is_eventual(rule, self._consistency)]
        self._eventual.update(eventual)
        passes: list[EventualPass | ImmediatePass] = [self._eventual]
        if self._immediate is not None:
            early = {rule.name for rule in eventual}
            self._immediate.update([rule for rule in rules if rule.name not in early])
            passes.append(self._immediate)
        self._passes = [each for each in passes if each.streams]
        self.streams = frozenset().union(*(each.streams for each in self._passes))

    def prepare(self, frame: Frame, first: int) -> list[tuple[EventualPass | ImmediatePass, Prepared]]:
        """Entries for `take` of the rows of a frame, whose handles begin at ``first``."""
        return [(each, each.prepare(frame, first)) for each in self._passes if frame.stream in each.streams]

    def take(self, prepared: Sequence[tuple[EventualPass | ImmediatePass, Prepared]]) -> None:
        """Match prepared rows."""
        for each, rows in prepared:
            each.take(rows)

    def push_event(self, stream: str, event: Mapping[str, Any], ref: int, number: int | str) -> list[Match]:
        """Match one event with handle ``ref``; ``number`` is its own id, or its number in its stream."""
        found: list[Match] = []
        for each in self._passes:
            if stream in each.streams:
                found += each.push_event(stream, event, ref, number)
        return found

    def advance(self, watermark_us: int) -> None:
        """Let time reach the watermark for keys without new events."""
        self._eventual.advance(watermark_us)

    def settle(self, table: MatchTable, watermark_us: int) -> MatchTable:
        """What was found on arrival, then those of the ordered pass with what they confirm and retract."""
        given = self.given.take()
        if self._immediate is not None:
            table = self._immediate.without_given(table)
        settled = self._eventual.settle(table, watermark_us)
        return MatchTable.concat([*given, *settled, MatchTable.empty(self._tables.rules)])

    def refs(self) -> list[NDArray[np.int64]]:
        """Handles of the events that are still needed."""
        return self._eventual.refs()

    def clear(self) -> None:
        """End of all input: nothing is open, and event time may begin anew."""
        self._eventual.clear()

    def snapshot(self) -> dict[str, Any]:
        """State of each pass as nested mappings of arrays and bytes, by its name."""
        parts = {self._eventual.name: self._eventual.snapshot()} if self._eventual.streams or len(self) else {}
        if self._immediate is not None:
            parts[self._immediate.name] = self._immediate.snapshot()
        return parts

    def restore(self, snapshot: Mapping[str, Any], store: EventStore) -> None:
        """Take over an engine's snapshot, with its events in the store; passes that it was made without begin empty."""
        self.given.take()
        self._eventual.restore(snapshot.get(self._eventual.name), store)
        if self._immediate is not None:
            self._immediate.restore(snapshot.get(self._immediate.name), store)

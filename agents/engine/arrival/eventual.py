"""The eventual pass: events matched on arrival, before the watermark has passed them.

Its matches are provisional until the ordered pass confirms or retracts them (`agents.engine.arrival.provisional`). An
event that is older than one before it is matched as if it had the same time; the match has the time of its own events.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from astrocyte.agents.cep.match_columns import MatchBatch
from astrocyte.agents.cep.matcher import Matcher
from astrocyte.agents.cep.rows import Prepared
from astrocyte.agents.engine.arrival.provisional import Provisional, with_own_times
from astrocyte.agents.engine.arrival.single_matches import Recent, Singles, single_matches
from astrocyte.agents.engine.tables import GivenTables, MatchTables
from astrocyte.agents.event_time.event_store import EventStore
from astrocyte.agents.matches.table import Match, MatchTable
from astrocyte.agents.rules.model import Rule
from astrocyte.schemas.frames import Frame
from astrocyte.schemas.times import NEVER_US

__all__ = ["EventualPass"]


class EventualPass:
    """A matcher of its own for events in their order of arrival, and the matches that it has given so far.

    ``gather`` turns events that were pushed one at a time into frames of the store that ``tables`` reads. What is found
    goes to ``given``.
    """

    name: Final = "eventual"

    def __init__(self, tables: MatchTables, gather: Callable[[], None], given: GivenTables) -> None:
        self._tables = tables
        self._gather = gather
        self._given = given
        self._matcher = Matcher([], clock=None, waiting=tuple)  # rows are processed as soon as they are prepared
        self._singles = Singles()
        self._provisional = Provisional()
        self._matched: set[str] = set()
        self.newest_us = NEVER_US
        """Newest time that was matched."""
        self.streams: frozenset[str] = frozenset()
        """Streams that the rules of this pass read."""

    def __len__(self) -> int:
        return len(self._provisional)

    @property
    def corrections(self) -> Mapping[str, Mapping[str, int]]:
        """By rule: matches that were provisional, confirmed and retracted since the start."""
        return self._provisional.corrections

    def update(self, rules: Sequence[Rule]) -> None:
        """Put rules in force; unchanged ones keep their partial matches."""
        self._matcher.update(rules)
        # A rule that has left this pass may still have matches here that the ordered pass decides.
        self._matched.update(rule.name for rule in rules)
        self.streams = frozenset(self._matcher.streams)

    def prepare(self, frame: Frame, first: int) -> Prepared:
        """Entries for `take` of the rows of a frame, whose handles begin at ``first``."""
        return self._matcher.prepare(frame, first)

    def take(self, rows: Prepared) -> None:
        """Match prepared rows."""
        if not len(rows):
            return
        rows = rows.take(np.argsort(rows.t, kind="stable"))
        rows = replace(rows, t=np.maximum(rows.t, self.newest_us))
        self.newest_us = int(rows.t[-1])
        self._give(self._matcher.process(rows))

    def push_event(self, stream: str, event: Mapping[str, Any], ref: int, number: int | str) -> list[Match]:
        """Match one event with handle ``ref``; ``number`` is its own id, or its number in its stream."""
        self._singles.add(ref, Recent(stream, event, number), self._matcher)
        if event["timestamp"] >= self.newest_us:
            self.newest_us = event["timestamp"]
        else:
            event = {**event, "timestamp": self.newest_us}
        batch = self._matcher.process_event(stream, event, ref)
        if not len(batch):
            return []
        made = single_matches(self._matcher, batch, self._singles)
        if made is None:
            self._gather()
            return self._note(batch).matches()
        return [
            match
            for match, name, steps, refs in made
            if self._provisional.note_single(
                name,
                match.time_us,
                np.array(refs, np.int64),
                partial(self._table_of, match, steps, refs),
                self._tables.rule(match.rule),
            )
        ]

    def _table_of(self, match: Match, steps: list[int], refs: list[int]) -> MatchTable:
        self._gather()
        return self._tables.of_match(match, steps, refs)

    def _note(self, batch: MatchBatch) -> MatchTable:
        return self._provisional.note(with_own_times(self._tables.of(self._matcher, batch)))

    def _give(self, batch: MatchBatch) -> None:
        if len(batch):
            self._given.add(self._note(batch))

    def advance(self, watermark_us: int) -> None:
        """Let time reach the watermark for keys without new events."""
        self._give(self._matcher.advance(watermark_us - 1))

    def settle(self, table: MatchTable, watermark_us: int) -> list[MatchTable]:
        """Matches of the ordered pass with what they confirm, then those that are retracted."""
        if not self._matched:
            return [table]
        mine = np.array([rule.name in self._matched for rule in table.rules], np.bool_)
        return self._provisional.settle(table, mine[table.rule], watermark_us, self.newest_us)

    def refs(self) -> list[NDArray[np.int64]]:
        """Handles of the events that are still needed."""
        return [self._matcher.live_refs(), *self._provisional.refs()]

    def clear(self) -> None:
        """End of all input: nothing is open, and event time may begin anew."""
        self._matcher.flush()
        self._provisional.clear()
        self._singles.clear()
        self.newest_us = NEVER_US

    def snapshot(self) -> dict[str, Any]:
        """State as nested mappings of arrays and bytes."""
        return {
            "matcher": self._matcher.snapshot(),
            "provisional": self._provisional.snapshot(),
            "newest_us": np.array([self.newest_us], np.int64),
        }

    def restore(self, snapshot: Mapping[str, Any] | None, store: EventStore) -> None:
        """Take over a snapshot, with its events in the store. One without this pass changes nothing."""
        if snapshot is None:
            return
        self._singles.clear()
        self._matcher.restore(snapshot["matcher"])
        self._matched |= self._provisional.restore(snapshot["provisional"], self._tables.rules, store)
        self.newest_us = int(snapshot["newest_us"][0])

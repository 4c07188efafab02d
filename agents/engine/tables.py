"""Match tables of an engine: what operators find, with the events of the engine's store."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np

from astrocyte.agents.cep.match_columns import TIMEOUT, MatchBatch
from astrocyte.agents.cep.matcher import Matcher
from astrocyte.agents.event_time.event_store import EventStore
from astrocyte.agents.matches.table import FINAL, Match, MatchTable, in_order
from astrocyte.agents.rules.model import Rule

__all__ = ["GivenTables", "MatchTables"]


class MatchTables:
    """Makes tables over the rules in force and the events of ``store``."""

    def __init__(self, store: EventStore, newest: Collection[str] = ()) -> None:
        self._store = store
        self._newest = frozenset(newest)
        self.rules: tuple[Rule, ...] = ()
        self._index: dict[str, int] = {}

    def update(self, rules: Sequence[Rule]) -> None:
        """Put rules in force; tables made from now on number them."""
        self.rules = tuple(rules)
        self._index = {rule.name: index for index, rule in enumerate(self.rules)}

    def rule(self, name: str) -> Rule:
        """The rule in force of that name."""
        return self.rules[self._index[name]]

    def of(self, matcher: Matcher, batch: MatchBatch) -> MatchTable:
        """The matches of a batch in output order, with status final: those with an event of ``newest``, if given."""
        keys = np.array(matcher.key_strings(batch).to_pylist(), dtype=object)
        keyless = np.array([rule.by is None for rule in matcher.rules], np.bool_)[batch.rule]
        keys[keyless] = None
        number = np.array([self._index[rule.name] for rule in matcher.rules], np.int32)
        table = MatchTable(
            self.rules, number[batch.rule], keys, batch.time_us, batch.kind == TIMEOUT,
            np.full(len(batch), FINAL, np.int8), batch.offsets, batch.step, self._store.locate(batch.ref),
        )  # fmt: skip
        order = in_order(table)
        if self._newest:
            held = np.zeros(len(table.events), np.int64)
            for block, positions, _ in table.events.parts():
                held[positions] = block.frame.stream in self._newest
            order = order[np.add.reduceat(held, table.offsets[:-1])[order] > 0]
        return table.take(order)

    def of_match(self, match: Match, steps: Sequence[int], refs: Sequence[int]) -> MatchTable:
        """The table of one match whose events have the handles ``refs`` in the store."""
        key = np.empty(1, object)
        key[0] = match.key
        return MatchTable(
            self.rules, np.array([self._index[match.rule]], np.int32), key, np.array([match.time_us], np.int64),
            np.array([match.timed_out]), np.array([FINAL], np.int8), np.array([0, len(refs)]),
            np.array(steps, np.int16), self._store.locate(np.array(refs, np.int64)),
        )  # fmt: skip

    def merge(self, tables: Sequence[MatchTable]) -> MatchTable:
        """Several tables as one, in output order."""
        table = MatchTable.concat([*tables, MatchTable.empty(self.rules)])
        return table.take(in_order(table)) if len(tables) > 1 else table


class GivenTables:
    """Tables of matches that were found when their events came, until the next output takes them."""

    def __init__(self) -> None:
        self._tables: list[MatchTable] = []

    def __len__(self) -> int:
        return len(self._tables)

    def add(self, table: MatchTable) -> None:
        """Keep a table for the next output."""
        self._tables.append(table)

    def take(self) -> list[MatchTable]:
        """All tables, for an output."""
        found, self._tables = self._tables, []
        return found

    def take_since(self, count: int) -> list[Match]:
        """Matches of the tables after the first ``count``; the next output does not repeat them."""
        found, self._tables = self._tables[count:], self._tables[:count]
        return [match for table in found for match in table.matches()]

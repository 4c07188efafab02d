"""The immediate pass: rules over one event, matched on arrival and final at once.

Whether one event matches depends on no other event and on no order, so such a match need not wait for the watermark.
The ordered pass finds it again, with the same id, for rules that read it; its output leaves it out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import numpy as np
import orjson

from astrocyte.agents.cep.matcher import Matcher
from astrocyte.agents.cep.rows import Prepared
from astrocyte.agents.engine.tables import GivenTables, MatchTables
from astrocyte.agents.event_time.event_store import EventStore
from astrocyte.agents.matches.table import Match, MatchTable
from astrocyte.agents.rules.model import Rule
from astrocyte.agents.rules.steps import Step
from astrocyte.schemas.frames import Frame

__all__ = ["ImmediatePass", "is_order_free"]

_RULE_FIELDS: Final = frozenset({
    "name", "description", "by", "within", "seq", "any", "emit", "confidence", "alert", "consistency", "version"
})  # fmt: skip
_STEP_FIELDS: Final = frozenset({"name", "stream", "where"})


def is_order_free(rule: Rule) -> bool:
    """Whether each match of the rule is one event, whatever other events there are and in whatever order they come.

    True only of rules that use nothing but the fields listed above: a field that is added to the language later counts
    as one that depends on order.
    """
    if not _set_fields(rule) <= _RULE_FIELDS or (rule.seq is not None and len(rule.seq) > 1):
        return False
    return all(isinstance(part, Step) and _set_fields(part) <= _STEP_FIELDS for part in rule.members)


def _set_fields(part: Rule | Step) -> set[str]:
    """Fields whose value is not the default."""
    defaults = {name: info.get_default(call_default_factory=True) for name, info in type(part).model_fields.items()}
    return {name for name, default in defaults.items() if getattr(part, name) != default}


class ImmediatePass:
    """A matcher of its own for rules over one event, in the order of arrival. Such rules hold no state.

    ``store`` numbers the events, and ``gather`` puts those that were pushed one at a time into it. ``_since`` names
    the first event that this pass has seen, for each rule and version: older ones that still wait are matched by the
    ordered pass alone. What is found goes to ``given``.
    """

    name: Final = "immediate"

    def __init__(self, tables: MatchTables, store: EventStore, gather: Callable[[], None], given: GivenTables) -> None:
        self._tables = tables
        self._given = given
        self._store = store
        self._gather = gather
        self._matcher = Matcher([], clock=None, waiting=tuple)  # rows are processed as soon as they are prepared
        self._since: dict[tuple[str, str], int] = {}
        self.streams: frozenset[str] = frozenset()
        """Streams that the rules of this pass read."""

    def update(self, rules: Sequence[Rule]) -> None:
        """Put rules in force; those whose matches depend on order are left to the ordered pass."""
        chosen = [rule for rule in rules if is_order_free(rule)]
        self._matcher.update(chosen)
        self.streams = frozenset(self._matcher.streams)
        names = [(rule.name, rule.content_version) for rule in chosen]
        self._since = {name: self._since.get(name, self._store.next_ref) for name in names}

    def prepare(self, frame: Frame, first: int) -> Prepared:
        """Entries for `take` of the rows of a frame, whose handles begin at ``first``."""
        return self._matcher.prepare(frame, first)

    def take(self, rows: Prepared) -> None:
        """Match prepared rows."""
        batch = self._matcher.process(rows)
        if len(batch):
            self._given.add(self._tables.of(self._matcher, batch))

    def push_event(self, stream: str, event: Mapping[str, Any], ref: int, number: int | str) -> list[Match]:
        """Match one event with handle ``ref``, which `gather` will put into the store."""
        del number
        batch = self._matcher.process_event(stream, event, ref)
        if not len(batch):
            return []
        self._gather()
        return self._tables.of(self._matcher, batch).matches()

    def without_given(self, table: MatchTable) -> MatchTable:
        """The matches of the ordered pass that this one has not given."""
        if not (len(table) and self._since):
            return table
        never = np.iinfo(np.int64).max
        since = [self._since.get((rule.name, rule.content_version), never) for rule in table.rules]
        first_of = np.array(since, np.int64)[table.rule]
        again = first_of < never
        again[again] = table.events.take(table.offsets[:-1][again]).refs() >= first_of[again]
        return table.take(np.flatnonzero(~again)) if again.any() else table

    def snapshot(self) -> dict[str, Any]:
        """State as bytes."""
        return {"since": orjson.dumps([[*name, first] for name, first in self._since.items()])}

    def restore(self, snapshot: Mapping[str, Any] | None, store: EventStore) -> None:
        """Take over a snapshot. Events of one that was made without this pass are left to the ordered pass."""
        kept = {} if snapshot is None else {(name, version): first for name, version, first
                                            in orjson.loads(bytes(snapshot["since"]))}  # fmt: skip
        self._since = {name: kept.get(name, store.next_ref) for name in self._since}

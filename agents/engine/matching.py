"""Matching of events that are all there: one call, no engine to hold."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from astrocyte.agents.engine.arrival.early import in_order_alone
from astrocyte.agents.engine.engine import Engine
from astrocyte.agents.engine.entrance import RefusedEvent
from astrocyte.agents.matches.grouped import GroupedAlert
from astrocyte.agents.matches.table import Match
from astrocyte.agents.rules.model import Rule, RuleSet, as_rule_set
from astrocyte.schemas.frames import Frame

__all__ = ["Matches", "match"]


class Matches(list[Match]):
    """Matches in order of time. ``refused`` holds the events that validators refused, with their reasons.

    ``grouped`` holds the alerts of rules with ``group``. ``duplicates`` counts the events that were left out, since
    one of the same id was there.
    """

    def __init__(
        self,
        matches: Iterable[Match] = (),
        refused: Iterable[RefusedEvent] = (),
        grouped: Iterable[GroupedAlert] = (),
        duplicates: int = 0,
    ) -> None:
        super().__init__(matches)
        self.refused = tuple(refused)
        self.grouped = tuple(grouped)
        self.duplicates = duplicates


def match(rules: RuleSet | Rule | Sequence[Rule], events: Iterable[Mapping[str, Any] | Frame]) -> Matches:
    """Matches of the rules among the events, ordered by time, each of them final, also those of eventual rules.

    Events are mappings with ``stream``, ``timestamp`` (integer microseconds, ISO 8601 text or a datetime), ``key``,
    ``type`` and fields, or frames; their order does not matter, except that events of one stream with the same
    timestamp and no ids of their own are taken in the order in which they come. Rows of frames without a run and ids
    are such events; in a run, rows are known by their numbers, which begin at ``first_seq``. Once the events are over,
    time goes on for ever: absences are decided and partial matches time out.

    Events pass the rule set's validators first, and the checks of every stream, exactly as in ``astrocyte match``;
    ``refused`` of the result holds those that did not pass, or that cannot be read. Raises InvalidRule, and
    InvalidEvent for what is neither a mapping nor a frame and for an event that names no stream.
    """
    engine = Engine(in_order_alone(as_rule_set(rules)))
    engine.push_events(events)
    output = engine.flush()
    return Matches(output.matches.matches(), output.refused, output.grouped, engine.duplicates)

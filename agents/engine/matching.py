"""Matching of events that are all there: one call, no engine to hold."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from astrocyte.agents.engine.engine import Engine
from astrocyte.agents.ingest.dicts import frames_of
from astrocyte.agents.matches.table import Match
from astrocyte.agents.rules.model import Rule, RuleSet
from astrocyte.schemas.frames import Frame

__all__ = ["match"]


def match(rules: RuleSet | Rule | Sequence[Rule], events: Iterable[Mapping[str, Any] | Frame]) -> list[Match]:
    """Matches of the rules among the events, ordered by time.

    Events are mappings with ``stream``, ``timestamp`` (integer microseconds, ISO 8601 text or a datetime), ``key``,
    ``type`` and fields, or frames; their order does not matter, except that events of one stream with the same
    timestamp and no ids of their own are taken in the order in which they come. Once the events are over, time goes
    on for ever: absences are decided and partial matches time out. Raises InvalidRule and InvalidEvent.
    """
    engine = Engine(rules)
    for frame in frames_of(events, sorted(engine.streams)):
        engine.push(frame)
    return engine.flush().matches.matches()

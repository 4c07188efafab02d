"""One group of a domain: the engine of the rules that correlate by one field, and the watermarks of its topics."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from astrocyte.agents.engine.engine import Engine
from astrocyte.agents.event_time.watermarks import Watermarks

__all__ = ["DomainGroup", "GroupTime", "Lane"]


@dataclass(frozen=True, slots=True)
class DomainGroup:
    """One engine of a domain and the topics that feed it, by stream."""

    field: str
    engine: Engine
    topics: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class GroupTime:
    """Event time of the rules and windows of a domain that correlate by one field."""

    field: str
    topics: frozenset[str]
    watermarks: Watermarks
    waiting: int
    """Rows that wait for the watermark, once for each stratum and window that reads them."""


class Lane:
    """One engine and the watermarks of the topics that feed it.

    Every group has watermarks of its own, since a group that reads another's windows is always behind that one.
    """

    def __init__(self, name: str, engine: Engine | None, topics: frozenset[str], watermarks: Watermarks) -> None:
        self.name, self.engine, self.topics, self.watermarks = name, engine, topics, watermarks
        self.correlated: dict[str, str] = {}
        """By stream: the field by which rules correlate it. An event in which it is null takes part in none."""
        self.update()

    def update(self) -> None:
        """Take over the engine's rules."""
        rules = () if self.engine is None else self.engine.rules
        self.correlated = {stream: rule.by for rule in rules if rule.by is not None for stream in rule.streams}

    def time(self, engine: Engine) -> GroupTime:
        """Event time, and what waits for it in the lane's engine."""
        return GroupTime(self.name, self.topics, self.watermarks, engine.size()["waiting"])

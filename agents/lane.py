"""One group of a domain: the engine of the rules that correlate by one field, and the watermarks of its topics."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from astrocyte.agents.accounting import Intake
from astrocyte.agents.event_time.watermarks import Watermarks
from astrocyte.agents.ingest.faults import apart, reason_of
from astrocyte.schemas.frames import Frame

if TYPE_CHECKING:
    from astrocyte.agents.engine.engine import Engine

__all__ = ["DomainGroup", "GroupTime", "Lane", "push", "push_late"]


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


def push(
    intake: Intake, engine: Engine, kept: Frame, rows: NDArray[np.int64], on_time: NDArray[np.bool_]
) -> NDArray[np.int64]:
    """Give the rows that are on time to an engine; returns those that it refused as duplicates.

    A row on which the engine raises is noted as failed; the engine has then changed nothing for it.
    """
    if not on_time.any():
        return np.empty(0, np.int64)
    chosen = np.flatnonzero(on_time)
    repeated: list[NDArray[np.int64]] = []

    def attempt(first: int, last: int) -> None:
        part = chosen[first:last]
        frame, places = (kept, rows) if len(part) == kept.num_rows else (kept.take(part), rows[part])
        topic, partition, offsets = intake.origins(places)
        if engine.push(frame, topic=topic, partition=partition, offsets=offsets):
            repeated.append(places[engine.repeated])

    def refuse(at: int, error: Exception) -> None:
        intake.failed[int(rows[chosen[at]])] = reason_of("correlating an event", error)

    apart(len(chosen), attempt, refuse)
    return np.concatenate([np.empty(0, np.int64), *repeated])


def push_late(intake: Intake, engine: Engine, kept: Frame, rows: NDArray[np.int64], late: NDArray[np.bool_]) -> None:
    """Give late rows to the windows that revise their results."""
    chosen = np.flatnonzero(late)

    def attempt(first: int, last: int) -> None:
        engine.push_late(kept.take(chosen[first:last]))

    def refuse(at: int, error: Exception) -> None:
        intake.failed[int(rows[chosen[at]])] = reason_of("revising a window by a late event", error)

    apart(len(chosen), attempt, refuse)

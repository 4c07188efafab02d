"""What a verification found: counts of every place, the differences, and what was not compared."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from astrocyte.agents.accounting import accounted
from astrocyte.schemas.times import iso_from_us

__all__ = ["Change", "Difference", "Kind", "Place", "Verification"]

Kind = Literal["lost", "twice", "wrong", "unexpected"]
"""lost: expected and not there. twice: stored more than once. wrong: other values. unexpected: there, not expected."""


@dataclass(frozen=True, slots=True)
class Change:
    """One value that differs."""

    name: str
    expected: Any
    found: Any


@dataclass(frozen=True, slots=True)
class Difference:
    """One record, row or point that differs."""

    kind: Kind
    place: str
    identity: str
    """Id of a record, primary key of a row, measurement, tags and time of a point."""
    time_us: int | None = None
    about: str = ""
    """What it is: rule and key of a multi event."""
    at: str = ""
    """Topic, partition and offset, or file, where it was found."""
    changes: tuple[Change, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """All that is known of it."""
        return {
            "kind": self.kind,
            "place": self.place,
            "identity": self.identity,
            "timestamp": None if self.time_us is None else iso_from_us(self.time_us),
            "about": self.about,
            "at": self.at,
            "changes": [{"name": each.name, "expected": each.expected, "found": each.found} for each in self.changes],
        }


@dataclass(slots=True)
class Place:
    """One place that was compared: a topic, a table, a folder of points."""

    name: str
    expected: int = 0
    """What must be there, or may be and is."""
    found: int = 0
    """Of the range that was compared, each once."""
    lost: int = 0
    twice: int = 0
    wrong: int = 0
    unexpected: int = 0
    waiting: int = 0
    """What may still come: its input is not processed yet, or its time has not come."""
    left_out: Counter[str] = field(default_factory=Counter)
    """What was not compared, by the reason."""
    notes: Counter[str] = field(default_factory=Counter)
    """What was compared and is no difference, by what it is."""
    differences: list[Difference] = field(default_factory=list)
    """The first ones, up to the limit."""
    tell: Callable[[Difference], None] | None = None
    """Called with every difference."""

    @property
    def holds(self) -> bool:
        """Whether nothing differs."""
        return not (self.lost or self.twice or self.wrong or self.unexpected)

    def add(self, difference: Difference, most: int, count: int = 1) -> None:
        """Count a difference, and keep it if there are not ``most`` of its kind yet."""
        if self.tell is not None:
            self.tell(difference)
        setattr(self, difference.kind, getattr(self, difference.kind) + count)
        if sum(each.kind == difference.kind for each in self.differences) < most:
            self.differences.append(difference)

    def leave_out(self, kind: Kind, why: str) -> None:
        """Count under a reason what cannot be compared, and would else be a difference."""
        self.left_out[why] += 1
        self.expected -= kind == "lost"
        self.found -= kind == "unexpected"

    def as_json(self) -> dict[str, Any]:
        """Counts, and what was not compared."""
        return {
            "place": self.name,
            "expected": self.expected,
            "found": self.found,
            "lost": self.lost,
            "twice": self.twice,
            "wrong": self.wrong,
            "unexpected": self.unexpected,
            "waiting": self.waiting,
            "left_out": dict(self.left_out),
            "notes": dict(self.notes),
        }


@dataclass(slots=True)
class Verification:
    """Result of a verification."""

    places: list[Place] = field(default_factory=list)
    events: Mapping[str, int] = field(default_factory=dict)
    """What became of the events that the rules read: ``received`` and each of the `agents.accounting.OUTCOMES`."""
    since_us: int | None = None
    """Event time from which outputs were compared; None: from the first event."""
    until_us: int | None = None
    """Event time up to which they were compared, excluded; None: up to the last event."""
    not_compared: list[str] = field(default_factory=list)
    """What was not compared, and why, a sentence each."""

    @property
    def missing_events(self) -> int:
        """Events that were received and have none of the outcomes."""
        return self.events.get("received", 0) - accounted(self.events)

    @property
    def holds(self) -> bool:
        """Whether nothing differs and every event is accounted for."""
        return not self.missing_events and all(place.holds for place in self.places)

    @property
    def differences(self) -> list[Difference]:
        """Those that were kept, of all places."""
        return [each for place in self.places for each in place.differences]

    def as_json(self) -> dict[str, Any]:
        """Everything, for a program."""
        return {
            "equal": self.holds,
            "since": None if self.since_us is None else iso_from_us(self.since_us),
            "until": None if self.until_us is None else iso_from_us(self.until_us),
            "events": dict(self.events) | {"missing": self.missing_events},
            "places": [place.as_json() for place in self.places],
            "differences": [each.as_json() for each in self.differences],
            "not_compared": self.not_compared,
        }

"""Junctions that form and dissolve: their events wait here until event time says whether they are let through.

Nothing of a junction with ``forms`` reaches a rule before every older event of both sides is here. So the events that
wait are judged in order of time, whatever the order in which they came (`agents.engine.formation`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import orjson

from astrocyte.agents.engine.formation import Decision, Formation
from astrocyte.agents.event_time.event_store import EventStore, Origin, chosen_rows
from astrocyte.agents.rules.graph.links import EVENTS, readers_of
from astrocyte.agents.rules.junctions import LED_FROM, Junction
from astrocyte.agents.rules.model import RuleSet
from astrocyte.schemas.frames import Frame
from astrocyte.schemas.ids import hash_id
from astrocyte.schemas.json.cloudevents import OWN_SOURCE
from astrocyte.schemas.json.reader import JsonRecord, cloud_headers
from astrocyte.schemas.times import iso_from_us
from astrocyte.schemas.values.mixed import key_column

__all__ = ["Formed", "Gates", "formed_records"]

Held = tuple[Frame, Origin | None]


class Formed(NamedTuple):
    """A decision on a junction to the rules that correlate by ``by``; None where these correlate nothing."""

    junction: Junction
    by: str | None
    decision: Decision


def formed_records(formed: Sequence[Formed]) -> list[JsonRecord]:
    """The decisions as records of the topic `TOPOLOGY`, keyed by the junction; the same one always has the same id."""
    return [_record(each) for each in formed]


def _record(formed: Formed) -> JsonRecord:
    junction, by, decision = formed
    forms, kind = junction.forms, "formed" if decision.formed else "dissolved"
    assert forms is not None  # only such a junction is decided about
    sender, receiver = decision.pair
    identity = str(hash_id("topology", junction.name, by or "null", sender, receiver, str(decision.at_us), kind))
    body = {
        "decision_id": identity,
        "timestamp": iso_from_us(decision.at_us),
        "kind": kind,
        "junction": junction.name,
        "by": by,
        "from": sender,
        "to": receiver,
        "co_activity": decision.co_activity,
        "over_us": forms.over,
        "every_us": forms.every_us,
        "above": forms.above,
        "below": forms.below,
    }
    source = f"{OWN_SOURCE}junctions/{junction.name}"
    headers = cloud_headers(identity, f"astrocyte.junction.{kind}", source, decision.at_us)
    return JsonRecord(junction.name.encode(), orjson.dumps(body), headers)


@dataclass(slots=True)
class _Gate:
    junction: Junction
    by: str | None
    formation: Formation
    held: list[Held] = field(default_factory=list)


class Gates:
    """The junctions with ``forms`` that the rules of an engine read."""

    def __init__(self) -> None:
        self.counts: dict[str, Counter[str]] = {}
        """By junction: what became of the events that arrived, since the start."""
        self.active: frozenset[str] = frozenset()
        """Streams whose events show that a receiving domain is active."""
        self._gates: dict[str, _Gate] = {}

    def __bool__(self) -> bool:
        return bool(self._gates)

    def update(self, ruleset: RuleSet) -> list[Held]:
        """Put the junctions of a rule set in force; returns what waits of those that are always there from now on.

        One with other bounds than before joins nothing at first.
        """
        before, self._gates = self._gates, {}
        for junction in ruleset.junctions:
            by = [each.by for each in readers_of(junction, ruleset)]
            if junction.forms is None or not by:
                continue
            gate = before.pop(junction.name, None)
            kept = gate is not None and gate.by == by[0] and gate.formation.forms == junction.forms
            formation = gate.formation if gate is not None and kept else Formation(junction.forms)
            held = [] if gate is None else gate.held
            self._gates[junction.name] = _Gate(junction, by[0], formation, held)
            self.counts.setdefault(junction.name, Counter(dict.fromkeys(EVENTS, 0)))
        self.active = frozenset(stream for gate in self._gates.values() for stream in gate.formation.forms.streams)
        return [held for gate in before.values() for held in gate.held]

    def hold(self, frame: Frame, origin: Origin | None) -> bool:
        """Note what a frame says of its domains; True if its rows wait here, as those of a junction that forms do."""
        if frame.stream in self.active:
            for gate in self._gates.values():
                if frame.stream in gate.formation.forms.streams:
                    gate.formation.active(frame.timestamps(), _domains(frame, gate.by))
        if frame.stream not in self._gates:
            return False
        self._gates[frame.stream].held.append((frame, origin))
        return True

    def release(self, watermark_us: int, streams: Collection[str]) -> Iterator[Held]:
        """The events older than the watermark that come over junctions among ``streams`` which are there.

        All such events have been given to `hold`.
        """
        for name, gate in self._gates.items():
            if name not in streams or not gate.held:
                continue
            ready: list[Held] = []
            held, gate.held = gate.held, []
            for frame, origin in held:
                older = frame.timestamps() < watermark_us
                if older.all():
                    ready.append((frame, origin))
                    continue
                gate.held.append(chosen_rows(frame, origin, ~older))
                if older.any():
                    ready.append(chosen_rows(frame, origin, older))
            yield from self._let_through(gate, ready)

    def _let_through(self, gate: _Gate, ready: Sequence[Held]) -> Iterator[Held]:
        if not ready:
            return
        frames = [frame for frame, _ in ready]
        passed = gate.formation.judge(
            np.concatenate([frame.timestamps() for frame in frames]),
            [key for frame in frames for key in _domains(frame, LED_FROM)],
            [key for frame in frames for key in _domains(frame, gate.by)],
        )
        counts = self.counts[gate.junction.name]
        counts["joined"] += int(passed.sum())
        counts["closed"] += int((~passed).sum())
        first = 0
        for frame, origin in ready:
            own = passed[first : first + frame.num_rows]
            first += frame.num_rows
            if own.all():
                yield frame, origin
            elif own.any():
                yield chosen_rows(frame, origin, own)

    def decide(self, watermark_us: int | None) -> list[Formed]:
        """What is decided when nothing older than the watermark follows; None: nothing follows at all."""
        found = []
        for gate in self._gates.values():
            if watermark_us is None:
                gate.formation.end()
            else:
                gate.formation.reach(watermark_us)
            found += [Formed(gate.junction, gate.by, each) for each in gate.formation.take()]
        return found

    @property
    def joined(self) -> dict[str, int]:
        """By junction: the number of pairs of domains that it joins."""
        return {name: gate.formation.joined for name, gate in self._gates.items()}

    @property
    def waiting(self) -> int:
        """Events that wait."""
        return sum(frame.num_rows for gate in self._gates.values() for frame, _ in gate.held)

    def oldest_us(self) -> Iterator[int]:
        """The time of the oldest event that waits for each junction for which some do."""
        for gate in self._gates.values():
            if gate.held:
                yield min(int(frame.timestamps().min()) for frame, _ in gate.held)

    def snapshot(self) -> dict[str, Any]:
        """The state, with the events that wait."""
        events = EventStore()
        for gate in self._gates.values():
            for frame, origin in gate.held:
                events.add(frame, origin)
        states = {name: gate.formation.snapshot() for name, gate in self._gates.items()}
        return {"events": events.snapshot(), "states": orjson.dumps({"links": states, "counts": self.counts})}

    def restore(self, snapshot: Mapping[str, Any] | None) -> None:
        """Restore the state of `snapshot`, of the same rules; versions before formation have none."""
        for gate in self._gates.values():
            gate.held.clear()
            gate.formation.clear()
        if snapshot is None:
            return
        events, states = EventStore(), orjson.loads(bytes(snapshot["states"]))
        self.counts |= {name: Counter(counts) for name, counts in states["counts"].items()}
        for name, gate in self._gates.items():
            if name in states["links"]:
                gate.formation.restore(states["links"][name])
        events.restore(snapshot["events"])
        for block in events.blocks():
            self._gates[block.frame.stream].held.append((block.frame, block.origin))


def _domains(frame: Frame, by: str | None) -> Sequence[str | None]:
    """The domain of each row, None for one without: a value of ``by`` as a key, or "" where that is None."""
    if by is None:
        return [""] * frame.num_rows
    if not frame.has(by):
        return [None] * frame.num_rows
    found: Sequence[str | None] = key_column(frame.column(by)).to_pylist()
    return found

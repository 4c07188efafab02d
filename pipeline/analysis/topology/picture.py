"""Domains, junctions, streams and workers as a picture (Mermaid) and as JSON."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from astrocyte.agents.cep.explain.mermaid import escaped
from astrocyte.agents.rules.junctions import Junction
from astrocyte.pipeline.analysis.topology.decisions import JunctionState
from astrocyte.pipeline.analysis.topology.workers import MemberOfRole
from astrocyte.pipeline.topology.plan import KeyGroup, Plan
from astrocyte.schemas.times import iso_from_us

__all__ = ["Topology"]

_NAMED: Final = 3
"""Pairs of domains that the label of a junction names; JSON has all."""


@dataclass(frozen=True, slots=True)
class Topology:
    """What is linked at an instant. ``workers``: None where they are not known, as of the past."""

    plan: Plan
    states: Mapping[str, JunctionState]
    at_us: int | None = None
    workers: Sequence[MemberOfRole] | None = None

    def as_json(self) -> dict[str, Any]:
        """Domains, junctions and workers, as one object."""
        return {
            "at": None if self.at_us is None else iso_from_us(self.at_us),
            "domains": [
                {
                    "name": group.title,
                    "role": group.role,
                    "rules": sorted(group.makers),
                    "reads": sorted(group.topics.values()),
                }
                for group in self.plan.groups
            ],
            "junctions": [
                {
                    "name": junction.name,
                    "from": sender.title,
                    "to": receiver.title,
                    "topic": topic,
                    "forms": junction.forms is not None,
                    **self._state(junction),
                }
                for junction, sender, receiver, topic in self._ways()
            ],
            "workers": None
            if self.workers is None
            else [
                {"role": each.role, "member": each.member, "host": each.host, "partitions": list(each.partitions)}
                for each in self.workers
            ],
        }

    def mermaid(self) -> str:
        """A flowchart: streams, domains and workers as nodes, junctions as arrows, dotted where they join nothing."""
        at = "now" if self.at_us is None else f"at {iso_from_us(self.at_us)}"
        lines = [f"%% topology {at}", "flowchart LR"]
        groups = {group.name + group.role: f"d{number}" for number, group in enumerate(self.plan.groups)}
        junctions = {link.topic for link in self.plan.links}
        topics = dict.fromkeys(
            topic for group in self.plan.groups for topic in sorted(group.topics.values()) if topic not in junctions
        )
        streams = {topic: f"s{number}" for number, topic in enumerate(topics)}
        lines += [f'    {node}(["{escaped(topic)}"])' for topic, node in streams.items()]
        for group in self.plan.groups:
            rules = "<br/>".join(escaped(name) for name in sorted(group.makers))
            lines.append(f'    {groups[group.name + group.role]}["{escaped(group.title)}<br/>{rules}"]')
        for group in self.plan.groups:
            node = groups[group.name + group.role]
            lines += [f"    {streams[topic]} --> {node}" for topic in sorted(group.topics.values()) if topic in streams]
        for junction, sender, receiver, _ in self._ways():
            first, last = groups[sender.name + sender.role], groups[receiver.name + receiver.role]
            start, end = ("--", "-->") if self._is_there(junction) else ("-.", ".->")
            lines.append(f'    {first} {start} "{self._label(junction)}" {end} {last}')
        lines += self._workers(groups)
        return "\n".join(lines) + "\n"

    def _ways(self) -> Iterator[tuple[Junction, KeyGroup, KeyGroup, str]]:
        """Each junction with a group whose rules it comes from, one to which it leads, and its topic."""
        for sender in self.plan.groups:
            own = {each.name: each for each in sender.ruleset.junctions}
            for link in sender.links:
                for receiver in self.plan.groups:
                    if link.topic in receiver.topics.values():
                        yield own[link.junction], sender, receiver, link.topic

    def _is_there(self, junction: Junction) -> bool:
        return junction.forms is None or bool(self._joined(junction))

    def _joined(self, junction: Junction) -> Sequence[Any]:
        return self.states.get(junction.name, JunctionState()).joined

    def _state(self, junction: Junction) -> dict[str, Any]:
        if junction.forms is None:
            return {}
        state = self.states.get(junction.name, JunctionState())
        joined = [
            {"from": each.sender, "to": each.receiver, "since": each.since, "co_activity": each.co_activity}
            for each in state.joined
        ]
        return {"joined": joined, "formed": state.formed, "dissolved": state.dissolved}

    def _label(self, junction: Junction) -> str:
        if junction.forms is None:
            return escaped(junction.name)
        joined = self._joined(junction)
        if not joined:
            return f"{escaped(junction.name)}: joins nothing"
        named = [
            escaped(f"{each.sender or 'all'} to {each.receiver or 'all'} since {each.since}, {each.co_activity}")
            for each in joined[:_NAMED]
        ]
        more = [f"and {len(joined) - _NAMED:,} more"] if len(joined) > _NAMED else []
        return "<br/>".join([escaped(junction.name), *named, *more])

    def _workers(self, groups: Mapping[str, str]) -> Iterator[str]:
        for number, worker in enumerate(self.workers or ()):
            listed = ", ".join(map(str, worker.partitions)) or "none"
            yield f'    w{number}[["{escaped(worker.member)}<br/>{worker.role}, partitions {listed}"]]'
            for group in self.plan.groups:
                if group.role == worker.role:
                    yield f"    w{number} -.- {groups[group.name + group.role]}"

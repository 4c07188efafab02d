"""Assignment of partitions by number: one member of the group gets partition 3 of every topic."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar

import orjson
from aiokafka.coordinator.assignors.abstract import AbstractPartitionAssignor
from aiokafka.coordinator.protocol import ConsumerProtocolMemberAssignment, ConsumerProtocolMemberMetadata

from astrocyte.pipeline.transport.balance import Balance, Member, divided, packed, plan_of, unpacked

__all__ = ["DomainAssignor", "OnNotes", "note_of", "partitions_of", "topics_of"]

OnNotes = Callable[[Mapping[str, int]], None]
"""Called at each assignment with the number of members that gave each note; without those that gave none."""


def note_of(metadata: bytes) -> str:
    """The note in the metadata with which a member joined, as the broker describes it; empty where there is none."""
    try:
        return unpacked(ConsumerProtocolMemberMetadata.decode(metadata).user_data)[0]
    except ValueError:  # of another client, or while the group is changing
        return ""


def topics_of(metadata: bytes) -> list[str]:
    """The topics in the metadata with which a member joined; none where the broker does not describe them."""
    try:
        return list(ConsumerProtocolMemberMetadata.decode(metadata).subscription)
    except ValueError:  # as above
        return []


def partitions_of(assignment: bytes) -> tuple[int, ...]:
    """The partition numbers that a member has, of any topic; none where the broker does not describe them."""
    try:
        given = ConsumerProtocolMemberAssignment.decode(assignment).assignment
    except ValueError:  # as above
        return ()
    return tuple(sorted({number for _, numbers in given for number in numbers}))


class DomainAssignor(AbstractPartitionAssignor):  # type: ignore[misc]
    """Assigns a partition number as a whole to one member, because a domain joins that partition of all topics.

    aiokafka's round robin, which Faust uses, assigns single partitions and splits a domain when the number of
    partitions is not a multiple of the number of members. A member that does not subscribe to a topic
    (two versions of an application in one group) is skipped for that topic.

    Each member has a note, such as a digest of its rules; every member is given how many members have which. Where
    members say what their domains cost, these are divided by that (`pipeline.transport.balance`), else evenly.
    """

    name = "astrocyte-domain"
    version = 0
    note: ClassVar[str] = ""
    on_notes: ClassVar[OnNotes | None] = None
    balance: ClassVar[Balance | None] = None

    @classmethod
    def with_note(cls, note: str, on_notes: OnNotes | None, balance: Balance | None = None) -> type[DomainAssignor]:
        """The assignor of a member with a note, which says what its domains cost if it has a ``balance``."""
        hook = None if on_notes is None else staticmethod(on_notes)
        return type(cls.__name__, (cls,), {"note": note, "on_notes": hook, "balance": balance})

    @classmethod
    def assign(
        cls, cluster: Any, members: Mapping[str, ConsumerProtocolMemberMetadata]
    ) -> dict[str, ConsumerProtocolMemberAssignment]:
        """Partitions of each member."""
        order = sorted(members)
        subscribed = {member: frozenset(members[member].subscription) for member in order}
        topics = {
            topic: sorted(cluster.partitions_for_topic(topic) or ())
            for topic in sorted(frozenset().union(*subscribed.values()))
        }
        said = {member: unpacked(members[member].user_data) for member in order}
        loads = {member: each for member, (_, each) in said.items() if each is not None}
        places = {partition for partitions in topics.values() for partition in partitions}
        owners, moves = divided({member: loads.get(member, Member(0, {})) for member in order}, places)
        assigned: dict[str, dict[str, list[int]]] = {member: defaultdict(list) for member in order}
        for topic, partitions in topics.items():
            for partition in partitions:
                start = order.index(owners[partition])
                owner = next(member for member in order[start:] + order[:start] if topic in subscribed[member])
                assigned[owner][topic].append(partition)
        notes = Counter(note for note, _ in said.values())
        counts: dict[str, Any] = {note: count for note, count in sorted(notes.items()) if note}
        plan = {"notes": counts, **plan_of(loads, owners, moves)} if len(loads) == len(order) else None
        return {
            member: ConsumerProtocolMemberAssignment(
                cls.version,
                sorted(given.items()),
                orjson.dumps(counts if plan is None else plan | {"own": member}),
            )
            for member, given in assigned.items()
        }

    @classmethod
    def metadata(cls, topics: Iterable[str]) -> ConsumerProtocolMemberMetadata:
        """Metadata that a member sends when it joins."""
        said = cls.note.encode() if cls.balance is None else packed(cls.note, cls.balance.said())
        return ConsumerProtocolMemberMetadata(cls.version, list(topics), said)

    @classmethod
    def on_assignment(cls, assignment: ConsumerProtocolMemberAssignment) -> None:
        """Pass on the notes and loads of the group; one whose leader is of an earlier version gives none."""
        given = orjson.loads(assignment.user_data) if assignment.user_data else None
        if given is None:
            return
        if cls.balance is not None and "members" in given:
            cls.balance.assigned(given["own"], given)
        if cls.on_notes is not None:
            cls.on_notes(given.get("notes", given))

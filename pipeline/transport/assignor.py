"""Assignment of partitions by number: one member of the group gets partition 3 of every topic."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

from aiokafka.coordinator.assignors.abstract import AbstractPartitionAssignor
from aiokafka.coordinator.protocol import ConsumerProtocolMemberAssignment, ConsumerProtocolMemberMetadata

__all__ = ["DomainAssignor"]


class DomainAssignor(AbstractPartitionAssignor):  # type: ignore[misc]
    """Assigns a partition number as a whole to one member, because a domain joins that partition of all topics.

    aiokafka's round robin, which Faust uses, assigns single partitions and splits a domain when the number of
    partitions is not a multiple of the number of members. A member that does not subscribe to a topic
    (two versions of an application in one group) is skipped for that topic.
    """

    name = "astrocyte-domain"
    version = 0

    @classmethod
    def assign(
        cls, cluster: Any, members: Mapping[str, ConsumerProtocolMemberMetadata]
    ) -> dict[str, ConsumerProtocolMemberAssignment]:
        """Partitions of each member."""
        order = sorted(members)
        subscribed = {member: frozenset(members[member].subscription) for member in order}
        assigned: dict[str, dict[str, list[int]]] = {member: defaultdict(list) for member in order}
        for topic in sorted(frozenset().union(*subscribed.values())):
            for partition in sorted(cluster.partitions_for_topic(topic) or ()):
                start = partition % len(order)
                owner = next(member for member in order[start:] + order[:start] if topic in subscribed[member])
                assigned[owner][topic].append(partition)
        return {
            member: ConsumerProtocolMemberAssignment(cls.version, sorted(topics.items()), b"")
            for member, topics in assigned.items()
        }

    @classmethod
    def metadata(cls, topics: Iterable[str]) -> ConsumerProtocolMemberMetadata:
        """Metadata that a member sends when it joins."""
        return ConsumerProtocolMemberMetadata(cls.version, list(topics), b"")

    @classmethod
    def on_assignment(cls, assignment: ConsumerProtocolMemberAssignment) -> None:
        """No-op: the assignor keeps no state between assignments."""

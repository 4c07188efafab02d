"""All consumer groups of the broker: their membership and committed offsets, preserved over a restart of the broker.

Membership is stored so that members continue after a restart without a rebalance, and their next commits are accepted.
"""

from __future__ import annotations

import base64
import logging
import sqlite3
from typing import Any

from astrocyte.pipeline.broker.groups.group import ConsumerGroup, GroupState
from astrocyte.pipeline.broker.groups.member import Member, Timers
from astrocyte.pipeline.broker.protocol.errors import ErrorCode
from astrocyte.pipeline.broker.storage.catalogue import Catalogue, CommittedOffset
from astrocyte.pipeline.broker.storage.topics import Topics

__all__ = ["Coordinator"]

logger = logging.getLogger(__name__)

MAX_METADATA_BYTES = 4096  # Kafka's offset.metadata.max.bytes


class Coordinator:
    """Groups by id, and the committed offsets of each."""

    def __init__(self, catalogue: Catalogue, timers: Timers, *, initial_delay_s: float) -> None:
        self._catalogue, self._timers, self._initial_delay_s = catalogue, timers, initial_delay_s
        self._groups: dict[str, ConsumerGroup] = {}
        self._committed = catalogue.committed_offsets()
        self._stored = catalogue.memberships()
        for group_id, state in list(self._stored.items()):
            if state["members"]:
                _restore(self.joining(group_id), state)

    def group(self, group_id: str) -> ConsumerGroup | None:
        """The group with an id, or None if no member has joined it."""
        return self._groups.get(group_id)

    def joining(self, group_id: str) -> ConsumerGroup:
        """The group with an id, created if needed."""
        group = self._groups.get(group_id)
        if group is None:
            group = ConsumerGroup(group_id, self._timers, initial_delay_s=self._initial_delay_s, changed=self._changed)
            group.generation = self._stored.get(group_id, {}).get("generation", 0)
            self._groups[group_id] = group
        return group

    def known_ids(self) -> list[str]:
        """Every group with members or committed offsets."""
        return sorted(self._committed.keys() | self._groups.keys())

    def knows(self, group_id: str) -> bool:
        """Whether a group has or had members or commits."""
        return group_id in self._committed or group_id in self._groups

    def committed(self, group_id: str) -> dict[tuple[str, int], CommittedOffset]:
        """Committed offsets of a group, by (topic, partition); read-only."""
        return self._committed.get(group_id, {})

    def commit(
        self,
        group_id: str,
        generation: int,
        member_id: str,
        instance_id: str | None,
        offsets: dict[tuple[str, int], CommittedOffset],
    ) -> dict[tuple[str, int], ErrorCode]:
        """Store offsets if the member may commit; returns the error code of each."""
        group = self._groups.get(group_id)
        if group is not None:
            error = group.may_commit(generation, member_id, instance_id)
        else:
            error = ErrorCode.NONE if generation < 0 else ErrorCode.UNKNOWN_MEMBER_ID
        if error:
            return dict.fromkeys(offsets, error)
        outcome = dict.fromkeys(offsets, ErrorCode.NONE)
        taken = {}
        for partition, committed in offsets.items():
            if len(committed.metadata.encode()) > MAX_METADATA_BYTES:
                outcome[partition] = ErrorCode.OFFSET_METADATA_TOO_LARGE
            else:
                taken[partition] = committed
        if not taken:
            return outcome
        try:
            self._catalogue.commit_offsets(group_id, taken)
        except sqlite3.Error as failure:
            logger.error("offsets of group %s cannot be stored: %s", group_id, failure)
            return dict.fromkeys(offsets, ErrorCode.COORDINATOR_NOT_AVAILABLE)  # clients retry
        self._committed.setdefault(group_id, {}).update(taken)
        return outcome

    def move_back(self, topics: Topics) -> None:
        """Commits beyond the end of a log that has lost records are set to that end, or later records are not read."""
        for group_id, offsets in self._committed.items():
            beyond = {}
            for (topic, partition), committed in offsets.items():
                log = topics.log(topic, partition)
                if log is not None and committed.offset > log.end_offset:
                    beyond[topic, partition] = CommittedOffset(log.end_offset, committed.metadata)
                    logger.error(
                        "group %s had read %s[%d] up to offset %d and the log ends at %d: records were lost; the group "
                        "goes on from there",
                        group_id, topic, partition, committed.offset, log.end_offset,
                    )  # fmt: skip
            if beyond:
                self._catalogue.commit_offsets(group_id, beyond)
                offsets.update(beyond)

    def forget_topic(self, name: str) -> None:
        """Drop the offsets committed for a deleted topic."""
        for offsets in self._committed.values():
            for partition in [each for each in offsets if each[0] == name]:
                del offsets[partition]

    def delete(self, group_id: str) -> ErrorCode:
        """Delete a group that has no members."""
        group = self._groups.get(group_id)
        if group is not None and group.members:
            return ErrorCode.NON_EMPTY_GROUP
        if not self.knows(group_id):
            return ErrorCode.GROUP_ID_NOT_FOUND
        try:
            self._catalogue.drop_group(group_id)
        except sqlite3.Error as failure:
            logger.error("group %s cannot be deleted: %s", group_id, failure)
            return ErrorCode.COORDINATOR_NOT_AVAILABLE
        self._groups.pop(group_id, None)
        self._committed.pop(group_id, None)
        self._stored.pop(group_id, None)
        return ErrorCode.NONE

    def close(self) -> None:
        """Stop all timers."""
        for group in self._groups.values():
            group.close()

    def _changed(self, group: ConsumerGroup) -> None:
        if group.state is GroupState.EMPTY and not group.pending and group.id not in self._committed:
            self._groups.pop(group.id, None)  # a group that committed nothing, such as one that read a topic's end
            if self._stored.pop(group.id, None) is None:
                return
        try:
            if group.id in self._groups:
                self._stored[group.id] = {"generation": group.generation}
                self._catalogue.save_membership(group.id, _state(group))
            else:
                self._catalogue.drop_group(group.id)
        except sqlite3.Error as failure:
            logger.error(
                "the membership of group %s cannot be stored: %s; it stays active, but a broker restart rebalances it",
                group.id,
                failure,
            )


def _state(group: ConsumerGroup) -> dict[str, Any]:
    return {
        "generation": group.generation,
        "protocol_type": group.protocol_type,
        "protocol": group.protocol,
        "leader": group.leader,
        "stable": group.state is GroupState.STABLE,
        "members": [
            {
                "id": member.id,
                "instance_id": member.instance_id,
                "client_id": member.client_id,
                "client_host": member.client_host,
                "session_timeout_s": member.session_timeout_s,
                "rebalance_timeout_s": member.rebalance_timeout_s,
                "protocols": [[name, base64.b85encode(metadata).decode()] for name, metadata in member.protocols],
                "assignment": base64.b85encode(member.assignment).decode(),
            }
            for member in group.members.values()
        ],
    }


def _restore(group: ConsumerGroup, state: dict[str, Any]) -> None:
    members = []
    for stored in state["members"]:
        protocols = [(name, base64.b85decode(metadata)) for name, metadata in stored.pop("protocols")]
        assignment = base64.b85decode(stored.pop("assignment"))
        members.append(Member(**stored, protocols=protocols, assignment=assignment))
    group.restore(
        members, state["generation"], state["protocol_type"], state["protocol"], state["leader"], stable=state["stable"]
    )

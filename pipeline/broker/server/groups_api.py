"""Requests about consumer groups: joining and leaving, committed offsets, listing and description."""

from __future__ import annotations

import asyncio
from typing import Any

from astrocyte.pipeline.broker.groups.coordinator import Coordinator
from astrocyte.pipeline.broker.groups.group import GroupState
from astrocyte.pipeline.broker.groups.member import Joined, JoinRequest, Synced
from astrocyte.pipeline.broker.protocol.errors import ErrorCode
from astrocyte.pipeline.broker.protocol.group_messages import JOIN_GROUP, SYNC_GROUP
from astrocyte.pipeline.broker.protocol.schema import Api
from astrocyte.pipeline.broker.server.connection import Answer, Request
from astrocyte.pipeline.broker.settings import BrokerSettings
from astrocyte.pipeline.broker.storage.catalogue import CommittedOffset
from astrocyte.pipeline.broker.storage.topics import Topics

__all__ = ["GroupsApi", "encode"]

MEMBER_ID_REQUIRED_FROM = 4  # JoinGroup version from which a new member gets its id first and joins with it (KIP-394)
AUTHORIZED_OPERATIONS_UNKNOWN = -(1 << 31)


def encode(api: Api, version: int, body: dict[str, Any]) -> Answer:
    """The encoded response."""
    out = bytearray()
    api.response.at_version(version).write(body, out)
    return [out]


class GroupsApi:
    """Serves the group protocol; the coordinator decides about membership and commits."""

    def __init__(self, coordinator: Coordinator, topics: Topics, settings: BrokerSettings) -> None:
        self._coordinator, self._topics, self._settings = coordinator, topics, settings

    def join_group(self, body: dict[str, Any], request: Request) -> asyncio.Future[Answer]:
        """Join; the response is sent when the whole group has joined."""
        answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()

        def reply(joined: Joined) -> None:
            if not answer.done():  # its connection may have ended
                answer.set_result(encode(JOIN_GROUP, request.version, _join_body(joined)))

        session_s = body["session_timeout_ms"] / 1000
        joining = JoinRequest(
            member_id=body["member_id"],
            instance_id=body.get("group_instance_id"),
            client_id=request.client_id,
            client_host="/" + request.client_host.rpartition(":")[0],
            protocol_type=body["protocol_type"],
            protocols=[(each["name"], each["metadata"]) for each in body["protocols"]],
            session_timeout_s=session_s,
            rebalance_timeout_s=body.get("rebalance_timeout_ms", body["session_timeout_ms"]) / 1000,
            member_id_required=request.version >= MEMBER_ID_REQUIRED_FROM,
        )
        if not body["group_id"]:
            reply(Joined(ErrorCode.INVALID_GROUP_ID, member_id=joining.member_id))
        elif not self._settings.min_session_timeout_s <= session_s <= self._settings.max_session_timeout_s:
            reply(Joined(ErrorCode.INVALID_SESSION_TIMEOUT, member_id=joining.member_id))
        elif joining.member_id and self._coordinator.group(body["group_id"]) is None:
            reply(Joined(ErrorCode.UNKNOWN_MEMBER_ID, member_id=joining.member_id))
        else:
            self._coordinator.joining(body["group_id"]).join(joining, reply)
        return answer

    def sync_group(self, body: dict[str, Any], request: Request) -> asyncio.Future[Answer]:
        """Send or request assignments; the response is sent when the leader has sent them."""
        answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()

        def reply(synced: Synced) -> None:
            if not answer.done():
                response = {"throttle_time_ms": 0, "error_code": synced.error, "assignment": synced.assignment}
                answer.set_result(encode(SYNC_GROUP, request.version, response))

        group = self._coordinator.group(body["group_id"])
        if group is None:
            reply(Synced(ErrorCode.UNKNOWN_MEMBER_ID))
        else:
            assignments = {each["member_id"]: each["assignment"] for each in body["assignments"]}
            group.sync(body["generation_id"], body["member_id"], body.get("group_instance_id"), assignments, reply)
        return answer

    def heartbeat(self, body: dict[str, Any], _request: Request) -> dict[str, Any]:
        """Heartbeat of a member."""
        group, error = self._coordinator.group(body["group_id"]), ErrorCode.UNKNOWN_MEMBER_ID
        if group is not None:
            error = group.heartbeat(body["generation_id"], body["member_id"], body.get("group_instance_id"))
        return {"throttle_time_ms": 0, "error_code": error}

    def leave_group(self, body: dict[str, Any], request: Request) -> dict[str, Any]:
        """Members leave: one, or from version 3 on several."""
        group = self._coordinator.group(body["group_id"])

        def left(member_id: str, instance_id: str | None) -> ErrorCode:
            return group.leave(member_id, instance_id) if group is not None else ErrorCode.UNKNOWN_MEMBER_ID

        if request.version < 3:
            return {"throttle_time_ms": 0, "error_code": left(body["member_id"], None)}
        members = [
            each | {"error_code": left(each["member_id"], each["group_instance_id"])} for each in body["members"]
        ]
        return {"throttle_time_ms": 0, "error_code": ErrorCode.NONE, "members": members}

    def offset_commit(self, body: dict[str, Any], _request: Request) -> dict[str, Any]:
        """Commit offsets of partitions that exist."""
        known, outcome = {}, {}
        for topic in body["topics"]:
            for each in topic["partitions"]:
                partition = (topic["name"], each["partition_index"])
                outcome[partition] = ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
                if self._topics.log(*partition) is not None:
                    known[partition] = CommittedOffset(each["committed_offset"], each["committed_metadata"] or "")
        outcome |= self._coordinator.commit(
            body["group_id"], body["generation_id"], body["member_id"], body.get("group_instance_id"), known
        )
        topics = [
            {
                "name": topic["name"],
                "partitions": [
                    {"partition_index": index, "error_code": outcome[topic["name"], index]}
                    for index in (each["partition_index"] for each in topic["partitions"])
                ],
            }
            for topic in body["topics"]
        ]
        return {"throttle_time_ms": 0, "topics": topics}

    def offset_fetch(self, body: dict[str, Any], _request: Request) -> dict[str, Any]:
        """Committed offsets, of the requested partitions or of all."""
        committed = self._coordinator.committed(body["group_id"])
        wanted: dict[str, list[int]] = {}
        if body["topics"] is None:
            for topic, index in committed:
                wanted.setdefault(topic, []).append(index)
        else:
            wanted = {topic["name"]: topic["partition_indexes"] for topic in body["topics"]}
        nothing = CommittedOffset(-1, "")
        topics = []
        for topic, indexes in wanted.items():
            partitions = []
            for index in indexes:
                offset, metadata = committed.get((topic, index), nothing)
                partitions.append(
                    {
                        "partition_index": index,
                        "committed_offset": offset,
                        "committed_leader_epoch": -1,
                        "metadata": metadata,
                        "error_code": ErrorCode.NONE,
                    }
                )
            topics.append({"name": topic, "partitions": partitions})
        return {"throttle_time_ms": 0, "topics": topics, "error_code": ErrorCode.NONE}

    def list_groups(self, _body: dict[str, Any], _request: Request) -> dict[str, Any]:
        """Every group."""
        listed = []
        for group_id in self._coordinator.known_ids():
            group = self._coordinator.group(group_id)
            listed.append({"group_id": group_id, "protocol_type": group.protocol_type if group is not None else ""})
        return {"throttle_time_ms": 0, "error_code": ErrorCode.NONE, "groups": listed}

    def describe_groups(self, body: dict[str, Any], _request: Request) -> dict[str, Any]:
        """Groups with their members."""
        return {"throttle_time_ms": 0, "groups": [self._describe(group_id) for group_id in body["groups"]]}

    def delete_groups(self, body: dict[str, Any], _request: Request) -> dict[str, Any]:
        """Delete groups that have no members."""
        results = [{"group_id": name, "error_code": self._coordinator.delete(name)} for name in body["groups_names"]]
        return {"throttle_time_ms": 0, "results": results}

    def _describe(self, group_id: str) -> dict[str, Any]:
        group = self._coordinator.group(group_id)
        state = "Empty" if self._coordinator.knows(group_id) else "Dead"
        described: dict[str, Any] = {
            "error_code": ErrorCode.NONE,
            "group_id": group_id,
            "group_state": state,
            "protocol_type": "",
            "protocol_data": "",
            "members": [],
            "authorized_operations": AUTHORIZED_OPERATIONS_UNKNOWN,
        }
        if group is None:
            return described
        settled = group.state is GroupState.STABLE
        members = [
            {
                "member_id": member.id,
                "group_instance_id": member.instance_id,
                "client_id": member.client_id,
                "client_host": member.client_host,
                "member_metadata": member.metadata(group.protocol) if settled else b"",
                "member_assignment": member.assignment if settled else b"",
            }
            for member in group.members.values()
        ]
        return described | {
            "group_state": str(group.state),
            "protocol_type": group.protocol_type,
            "protocol_data": group.protocol if settled else "",
            "members": members,
        }


def _join_body(joined: Joined) -> dict[str, Any]:
    return {
        "throttle_time_ms": 0,
        "error_code": joined.error,
        "generation_id": joined.generation,
        "protocol_name": joined.protocol,
        "leader": joined.leader,
        "member_id": joined.member_id,
        "members": [
            {"member_id": member_id, "group_instance_id": instance_id, "metadata": metadata}
            for member_id, instance_id, metadata in joined.members
        ],
    }

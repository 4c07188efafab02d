"""Schemas of the requests about consumer groups, up to the versions with a group instance id.

Static members of Java clients require those versions.
"""

from __future__ import annotations

from astrocyte.pipeline.broker.protocol.schema import (
    BOOL,
    BYTES,
    INT8,
    INT16,
    INT32,
    INT64,
    NULLABLE_STRING,
    STRING,
    Api,
    Array,
    Field,
    Struct,
)

__all__ = [
    "DELETE_GROUPS",
    "DESCRIBE_GROUPS",
    "FIND_COORDINATOR",
    "HEARTBEAT",
    "JOIN_GROUP",
    "LEAVE_GROUP",
    "LIST_GROUPS",
    "OFFSET_COMMIT",
    "OFFSET_FETCH",
    "SYNC_GROUP",
]

THROTTLE = "throttle_time_ms"
PARTITIONS = Array(INT32)

OFFSET_COMMIT = Api(
    8,
    "OffsetCommit",
    2,
    7,
    Struct(
        Field("group_id", STRING),
        Field("generation_id", INT32),
        Field("member_id", STRING),
        Field("group_instance_id", NULLABLE_STRING, 7),
        Field("retention_time_ms", INT64, 2, 4),
        Field(
            "topics",
            Array(
                Struct(
                    Field("name", STRING),
                    Field(
                        "partitions",
                        Array(
                            Struct(
                                Field("partition_index", INT32),
                                Field("committed_offset", INT64),
                                Field("committed_leader_epoch", INT32, 6),
                                Field("committed_metadata", NULLABLE_STRING),
                            )
                        ),
                    ),
                )
            ),
        ),
    ),
    Struct(
        Field(THROTTLE, INT32, 3),
        Field(
            "topics",
            Array(
                Struct(
                    Field("name", STRING),
                    Field("partitions", Array(Struct(Field("partition_index", INT32), Field("error_code", INT16)))),
                )
            ),
        ),
    ),
)

OFFSET_FETCH = Api(
    9,
    "OffsetFetch",
    1,
    5,
    Struct(
        Field("group_id", STRING),
        Field("topics", Array(Struct(Field("name", STRING), Field("partition_indexes", PARTITIONS)), nullable=True)),
    ),
    Struct(
        Field(THROTTLE, INT32, 3),
        Field(
            "topics",
            Array(
                Struct(
                    Field("name", STRING),
                    Field(
                        "partitions",
                        Array(
                            Struct(
                                Field("partition_index", INT32),
                                Field("committed_offset", INT64),
                                Field("committed_leader_epoch", INT32, 5),
                                Field("metadata", NULLABLE_STRING),
                                Field("error_code", INT16),
                            )
                        ),
                    ),
                )
            ),
        ),
        Field("error_code", INT16, 2),
    ),
)

FIND_COORDINATOR = Api(
    10,
    "FindCoordinator",
    0,
    1,
    Struct(Field("key", STRING), Field("key_type", INT8, 1)),
    Struct(
        Field(THROTTLE, INT32, 1),
        Field("error_code", INT16),
        Field("error_message", NULLABLE_STRING, 1),
        Field("node_id", INT32),
        Field("host", STRING),
        Field("port", INT32),
    ),
)

JOIN_GROUP = Api(
    11,
    "JoinGroup",
    0,
    5,
    Struct(
        Field("group_id", STRING),
        Field("session_timeout_ms", INT32),
        Field("rebalance_timeout_ms", INT32, 1),
        Field("member_id", STRING),
        Field("group_instance_id", NULLABLE_STRING, 5),
        Field("protocol_type", STRING),
        Field("protocols", Array(Struct(Field("name", STRING), Field("metadata", BYTES)))),
    ),
    Struct(
        Field(THROTTLE, INT32, 2),
        Field("error_code", INT16),
        Field("generation_id", INT32),
        Field("protocol_name", STRING),
        Field("leader", STRING),
        Field("member_id", STRING),
        Field(
            "members",
            Array(
                Struct(
                    Field("member_id", STRING), Field("group_instance_id", NULLABLE_STRING, 5), Field("metadata", BYTES)
                )
            ),
        ),
    ),
)

HEARTBEAT = Api(
    12,
    "Heartbeat",
    0,
    3,
    Struct(
        Field("group_id", STRING),
        Field("generation_id", INT32),
        Field("member_id", STRING),
        Field("group_instance_id", NULLABLE_STRING, 3),
    ),
    Struct(Field(THROTTLE, INT32, 1), Field("error_code", INT16)),
)

_MEMBER_LEAVING = Struct(Field("member_id", STRING), Field("group_instance_id", NULLABLE_STRING))

LEAVE_GROUP = Api(
    13,
    "LeaveGroup",
    0,
    3,
    Struct(Field("group_id", STRING), Field("member_id", STRING, 0, 2), Field("members", Array(_MEMBER_LEAVING), 3)),
    Struct(
        Field(THROTTLE, INT32, 1),
        Field("error_code", INT16),
        Field("members", Array(Struct(*_MEMBER_LEAVING.fields, Field("error_code", INT16))), 3),
    ),
)

SYNC_GROUP = Api(
    14,
    "SyncGroup",
    0,
    3,
    Struct(
        Field("group_id", STRING),
        Field("generation_id", INT32),
        Field("member_id", STRING),
        Field("group_instance_id", NULLABLE_STRING, 3),
        Field("assignments", Array(Struct(Field("member_id", STRING), Field("assignment", BYTES)))),
    ),
    Struct(Field(THROTTLE, INT32, 1), Field("error_code", INT16), Field("assignment", BYTES)),
)

DESCRIBE_GROUPS = Api(
    15,
    "DescribeGroups",
    0,
    4,
    Struct(Field("groups", Array(STRING)), Field("include_authorized_operations", BOOL, 3)),
    Struct(
        Field(THROTTLE, INT32, 1),
        Field(
            "groups",
            Array(
                Struct(
                    Field("error_code", INT16),
                    Field("group_id", STRING),
                    Field("group_state", STRING),
                    Field("protocol_type", STRING),
                    Field("protocol_data", STRING),
                    Field(
                        "members",
                        Array(
                            Struct(
                                Field("member_id", STRING),
                                Field("group_instance_id", NULLABLE_STRING, 4),
                                Field("client_id", STRING),
                                Field("client_host", STRING),
                                Field("member_metadata", BYTES),
                                Field("member_assignment", BYTES),
                            )
                        ),
                    ),
                    Field("authorized_operations", INT32, 3),
                )
            ),
        ),
    ),
)

LIST_GROUPS = Api(
    16,
    "ListGroups",
    0,
    2,
    Struct(),
    Struct(
        Field(THROTTLE, INT32, 1),
        Field("error_code", INT16),
        Field("groups", Array(Struct(Field("group_id", STRING), Field("protocol_type", STRING)))),
    ),
)

DELETE_GROUPS = Api(
    42,
    "DeleteGroups",
    0,
    1,
    Struct(Field("groups_names", Array(STRING))),
    Struct(
        Field(THROTTLE, INT32), Field("results", Array(Struct(Field("group_id", STRING), Field("error_code", INT16))))
    ),
)

"""Schemas of the supported requests, by Kafka's names and numbers, with their versions and fields.

The announced versions determine what clients do. librdkafka derives its features from them: Produce must begin at 0 or
it stops compressing, Fetch must contain 4, FindCoordinator 0. Versions that need topic ids, leader epochs or the
flexible encoding are left out.
"""

from __future__ import annotations

from astrocyte.pipeline.broker.protocol import group_messages as groups
from astrocyte.pipeline.broker.protocol.schema import (
    BOOL,
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

__all__ = ["APIS", "API_VERSIONS"]

THROTTLE = "throttle_time_ms"

PARTITIONS = Array(INT32)

LIST_OFFSETS = Api(
    2,
    "ListOffsets",
    1,
    3,
    Struct(
        Field("replica_id", INT32),
        Field("isolation_level", INT8, 2),
        Field(
            "topics",
            Array(
                Struct(
                    Field("name", STRING),
                    Field("partitions", Array(Struct(Field("partition_index", INT32), Field("timestamp", INT64)))),
                )
            ),
        ),
    ),
    Struct(
        Field(THROTTLE, INT32, 2),
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
                                Field("error_code", INT16),
                                Field("timestamp", INT64),
                                Field("offset", INT64),
                            )
                        ),
                    ),
                )
            ),
        ),
    ),
)

METADATA = Api(
    3,
    "Metadata",
    0,
    5,
    Struct(Field("topics", Array(STRING, nullable=True)), Field("allow_auto_topic_creation", BOOL, 4)),
    Struct(
        Field(THROTTLE, INT32, 3),
        Field(
            "brokers",
            Array(
                Struct(
                    Field("node_id", INT32),
                    Field("host", STRING),
                    Field("port", INT32),
                    Field("rack", NULLABLE_STRING, 1),
                )
            ),
        ),
        Field("cluster_id", NULLABLE_STRING, 2),
        Field("controller_id", INT32, 1),
        Field(
            "topics",
            Array(
                Struct(
                    Field("error_code", INT16),
                    Field("name", STRING),
                    Field("is_internal", BOOL, 1),
                    Field(
                        "partitions",
                        Array(
                            Struct(
                                Field("error_code", INT16),
                                Field("partition_index", INT32),
                                Field("leader_id", INT32),
                                Field("replica_nodes", PARTITIONS),
                                Field("isr_nodes", PARTITIONS),
                                Field("offline_replicas", PARTITIONS, 5),
                            )
                        ),
                    ),
                )
            ),
        ),
    ),
)

API_VERSIONS = Api(
    18,
    "ApiVersions",
    0,
    0,
    Struct(),
    Struct(
        Field("error_code", INT16),
        Field(
            "api_keys", Array(Struct(Field("api_key", INT16), Field("min_version", INT16), Field("max_version", INT16)))
        ),
    ),
)

CREATE_TOPICS = Api(
    19,
    "CreateTopics",
    2,
    4,
    Struct(
        Field(
            "topics",
            Array(
                Struct(
                    Field("name", STRING),
                    Field("num_partitions", INT32),
                    Field("replication_factor", INT16),
                    Field(
                        "assignments", Array(Struct(Field("partition_index", INT32), Field("broker_ids", PARTITIONS)))
                    ),
                    Field("configs", Array(Struct(Field("name", STRING), Field("value", NULLABLE_STRING)))),
                )
            ),
        ),
        Field("timeout_ms", INT32),
        Field("validate_only", BOOL),
    ),
    Struct(
        Field(THROTTLE, INT32),
        Field(
            "topics",
            Array(Struct(Field("name", STRING), Field("error_code", INT16), Field("error_message", NULLABLE_STRING))),
        ),
    ),
)

DELETE_TOPICS = Api(
    20,
    "DeleteTopics",
    1,
    3,
    Struct(Field("topic_names", Array(STRING)), Field("timeout_ms", INT32)),
    Struct(
        Field(THROTTLE, INT32), Field("responses", Array(Struct(Field("name", STRING), Field("error_code", INT16))))
    ),
)

INIT_PRODUCER_ID = Api(
    22,
    "InitProducerId",
    0,
    1,
    Struct(Field("transactional_id", NULLABLE_STRING), Field("transaction_timeout_ms", INT32)),
    Struct(
        Field(THROTTLE, INT32), Field("error_code", INT16), Field("producer_id", INT64), Field("producer_epoch", INT16)
    ),
)

DESCRIBE_CONFIGS = Api(
    32,
    "DescribeConfigs",
    1,
    2,
    Struct(
        Field(
            "resources",
            Array(
                Struct(
                    Field("resource_type", INT8),
                    Field("resource_name", STRING),
                    Field("configuration_keys", Array(STRING, nullable=True)),
                )
            ),
        ),
        Field("include_synonyms", BOOL),
    ),
    Struct(
        Field(THROTTLE, INT32),
        Field(
            "results",
            Array(
                Struct(
                    Field("error_code", INT16),
                    Field("error_message", NULLABLE_STRING),
                    Field("resource_type", INT8),
                    Field("resource_name", STRING),
                    Field(
                        "configs",
                        Array(
                            Struct(
                                Field("name", STRING),
                                Field("value", NULLABLE_STRING),
                                Field("read_only", BOOL),
                                Field("config_source", INT8),
                                Field("is_sensitive", BOOL),
                                Field(
                                    "synonyms",
                                    Array(
                                        Struct(
                                            Field("name", STRING),
                                            Field("value", NULLABLE_STRING),
                                            Field("source", INT8),
                                        )
                                    ),
                                ),
                            )
                        ),
                    ),
                )
            ),
        ),
    ),
)

CREATE_PARTITIONS = Api(
    37,
    "CreatePartitions",
    0,
    1,
    Struct(
        Field(
            "topics",
            Array(
                Struct(
                    Field("name", STRING),
                    Field("count", INT32),
                    Field("assignments", Array(Struct(Field("broker_ids", PARTITIONS)), nullable=True)),
                )
            ),
        ),
        Field("timeout_ms", INT32),
        Field("validate_only", BOOL),
    ),
    Struct(
        Field(THROTTLE, INT32),
        Field(
            "results",
            Array(Struct(Field("name", STRING), Field("error_code", INT16), Field("error_message", NULLABLE_STRING))),
        ),
    ),
)

APIS = {
    api.key: api
    for api in (
        Api(0, "Produce", 0, 7),
        Api(1, "Fetch", 4, 11),
        LIST_OFFSETS,
        METADATA,
        groups.OFFSET_COMMIT,
        groups.OFFSET_FETCH,
        groups.FIND_COORDINATOR,
        groups.JOIN_GROUP,
        groups.HEARTBEAT,
        groups.LEAVE_GROUP,
        groups.SYNC_GROUP,
        groups.DESCRIBE_GROUPS,
        groups.LIST_GROUPS,
        API_VERSIONS,
        CREATE_TOPICS,
        DELETE_TOPICS,
        INIT_PRODUCER_ID,
        DESCRIBE_CONFIGS,
        CREATE_PARTITIONS,
        groups.DELETE_GROUPS,
    )
}

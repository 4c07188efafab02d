"""Kafka's error codes as the broker returns them, and the broker's exceptions."""

from __future__ import annotations

from enum import IntEnum

from astrocyte.schemas.errors import AstrocyteError

__all__ = ["BrokerError", "DataFolderInUse", "ErrorCode", "MalformedRequest", "RequestRefused"]


class ErrorCode(IntEnum):
    """The codes of https://kafka.apache.org/protocol#protocol_error_codes that this broker uses."""

    NONE = 0
    OFFSET_OUT_OF_RANGE = 1
    CORRUPT_MESSAGE = 2
    UNKNOWN_TOPIC_OR_PARTITION = 3
    MESSAGE_TOO_LARGE = 10
    OFFSET_METADATA_TOO_LARGE = 12
    COORDINATOR_NOT_AVAILABLE = 15
    INVALID_TOPIC = 17
    ILLEGAL_GENERATION = 22
    INCONSISTENT_GROUP_PROTOCOL = 23
    INVALID_GROUP_ID = 24
    UNKNOWN_MEMBER_ID = 25
    INVALID_SESSION_TIMEOUT = 26
    REBALANCE_IN_PROGRESS = 27
    UNSUPPORTED_VERSION = 35
    TOPIC_ALREADY_EXISTS = 36
    INVALID_PARTITIONS = 37
    INVALID_REPLICATION_FACTOR = 38
    INVALID_CONFIG = 40
    INVALID_REQUEST = 42
    UNSUPPORTED_FOR_MESSAGE_FORMAT = 43
    OUT_OF_ORDER_SEQUENCE_NUMBER = 45
    DUPLICATE_SEQUENCE_NUMBER = 46
    INVALID_PRODUCER_EPOCH = 47
    TRANSACTIONAL_ID_AUTHORIZATION_FAILED = 53
    KAFKA_STORAGE_ERROR = 56
    NON_EMPTY_GROUP = 68
    GROUP_ID_NOT_FOUND = 69
    MEMBER_ID_REQUIRED = 79
    FENCED_INSTANCE_ID = 82
    INVALID_RECORD = 87


class BrokerError(AstrocyteError):
    """The broker cannot start or continue; the message says what to do."""


class DataFolderInUse(BrokerError):
    """Another broker holds the lock of the data folder; the message identifies it."""


class RequestRefused(Exception):
    """Ends the handling of one topic, partition or group with an error code for the client."""

    def __init__(self, code: ErrorCode, message: str = "") -> None:
        super().__init__(message or code.name)
        self.code = code


class MalformedRequest(Exception):
    """Bytes that are not a request of the protocol; only their connection is closed."""

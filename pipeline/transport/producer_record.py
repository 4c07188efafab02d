"""A record to produce, the settings under which it is not lost, and the errors that no repetition cures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from aiokafka.errors import (
    ClusterAuthorizationFailedError,
    InvalidTimestampError,
    InvalidTopicError,
    MessageSizeTooLargeError,
    RecordListTooLargeError,
    TopicAuthorizationFailedError,
    UnsupportedForMessageFormatError,
)

from astrocyte.pipeline.kafka.security import security_arguments
from astrocyte.schemas.errors import AstrocyteError

__all__ = ["PERMANENT", "TOO_LARGE", "DeliveryFailed", "ProducerRecord", "producer_settings"]

PERMANENT: Final = (
    ClusterAuthorizationFailedError,
    InvalidTimestampError,
    InvalidTopicError,
    MessageSizeTooLargeError,
    RecordListTooLargeError,
    TopicAuthorizationFailedError,
    UnsupportedForMessageFormatError,
    AssertionError,
    TypeError,
    ValueError,
)
TOO_LARGE: Final = (MessageSizeTooLargeError, RecordListTooLargeError)


class DeliveryFailed(AstrocyteError):
    """The broker refuses a record for good, so sending it again cannot help."""


class ProducerRecord(NamedTuple):
    """One record to produce. Without a partition the key's murmur2 decides, without a key the batch's turn."""

    topic: str
    value: bytes | None
    key: bytes | None = None
    partition: int | None = None
    headers: Sequence[tuple[str, bytes]] = ()
    timestamp_ms: int | None = None


def producer_settings(broker: str | list[str], **overrides: Any) -> dict[str, Any]:
    """Arguments of an AIOKafkaProducer that suit frames and lose nothing; TLS and SASL by ``overrides`` or settings."""
    security = {} if "security_protocol" in overrides else security_arguments()
    return {
        "bootstrap_servers": broker,
        "acks": "all",
        "enable_idempotence": True,
        # aiokafka has one request in flight per broker with one batch per partition: small batches mean round trips.
        "max_batch_size": 1 << 20,
        "max_request_size": 32 << 20,
        # What arrives while a request is in flight forms the next batch, so waiting would only cost latency.
        "linger_ms": 0,
        # A broker that hangs (rather than closing the connection) is given up after this, and the batch sent again.
        "request_timeout_ms": 30_000,
        "metadata_max_age_ms": 60_000,
        **security,
    } | overrides

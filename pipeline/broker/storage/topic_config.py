"""Topic configurations: which of Kafka's the broker applies, which it only stores, and their valid values."""

from __future__ import annotations

from collections.abc import Callable

from astrocyte.pipeline.broker.protocol.errors import ErrorCode, RequestRefused
from astrocyte.pipeline.broker.settings import DAY_MS, SMALLEST_SEGMENT_BYTES, BrokerSettings
from astrocyte.pipeline.broker.storage.log import LogConfig

__all__ = ["checked_config", "default_config", "log_config"]

_POLICIES = {"delete", "compact"}


def _policies(value: str) -> set[str]:
    return {policy.strip() for policy in value.split(",")}


def _at_least(least: int) -> Callable[[str], bool]:
    return lambda value: value.lstrip("-").isdigit() and int(value) >= least


def _one_of(*values: str) -> Callable[[str], bool]:
    return lambda value: value in values


def _fraction(value: str) -> bool:
    return value.replace(".", "", 1).isdigit() and 0 <= float(value) <= 1


# name -> (is the value valid, the expected values)
_APPLIED: dict[str, tuple[Callable[[str], bool], str]] = {
    "cleanup.policy": (lambda value: bool(value) and _policies(value) <= _POLICIES, "delete, compact or both"),
    "retention.ms": (_at_least(-1), "-1 or milliseconds"),
    "retention.bytes": (_at_least(-1), "-1 or bytes"),
    "segment.bytes": (_at_least(SMALLEST_SEGMENT_BYTES), f"at least {SMALLEST_SEGMENT_BYTES}"),
    "segment.ms": (_at_least(1), "milliseconds, at least 1"),
    "max.message.bytes": (_at_least(1), "bytes, at least 1"),
    "delete.retention.ms": (_at_least(0), "milliseconds"),
    "min.cleanable.dirty.ratio": (_fraction, "0 to 1"),
    # The log keeps a producer's timestamps and compression, so other values cannot be applied.
    "message.timestamp.type": (_one_of("CreateTime"), "CreateTime: this broker does not stamp records itself"),
    "compression.type": (
        _one_of("producer", "uncompressed", "gzip", "snappy", "lz4", "zstd"),
        "producer, uncompressed, gzip, snappy, lz4 or zstd (batches are stored unchanged in any case)",
    ),
}

# Valid in Kafka, but without meaning on one node, or about files that this broker does not have.
_STORED = {
    "file.delete.delay.ms",
    "flush.messages",
    "flush.ms",
    "follower.replication.throttled.replicas",
    "index.interval.bytes",
    "leader.replication.throttled.replicas",
    "max.compaction.lag.ms",
    "message.downconversion.enable",
    "message.format.version",
    "message.timestamp.after.max.ms",
    "message.timestamp.before.max.ms",
    "message.timestamp.difference.max.ms",
    "min.compaction.lag.ms",
    "min.insync.replicas",
    "preallocate",
    "segment.index.bytes",
    "segment.jitter.ms",
    "unclean.leader.election.enable",
}


def checked_config(config: dict[str, str | None]) -> dict[str, str]:
    """The configuration of a new topic, without null values (the default). Raises RequestRefused (INVALID_CONFIG)."""
    given = {}
    for name, value in config.items():
        if name not in _APPLIED and name not in _STORED:
            raise RequestRefused(ErrorCode.INVALID_CONFIG, f"unknown topic configuration {name!r}")
        if value is None:
            continue
        if name in _APPLIED:
            valid, expected = _APPLIED[name]
            if not valid(value):
                raise RequestRefused(ErrorCode.INVALID_CONFIG, f"{name}: expected {expected}, got {value!r}")
        given[name] = value
    return given


def default_config(settings: BrokerSettings, *, compacted: bool = False) -> dict[str, str]:
    """The default configuration of a topic."""
    segment_bytes = settings.segment_bytes
    if compacted:
        segment_bytes = min(segment_bytes, settings.compacted_segment_bytes)
    return {
        "cleanup.policy": "delete",
        "compression.type": "producer",
        "delete.retention.ms": str(DAY_MS),
        "max.message.bytes": str(settings.max_message_bytes),
        "message.timestamp.type": "CreateTime",
        "min.cleanable.dirty.ratio": "0.5",
        "min.insync.replicas": "1",
        "retention.bytes": str(settings.retention_bytes),
        "retention.ms": str(settings.retention_ms),
        "segment.bytes": str(segment_bytes),
        "segment.ms": str(7 * DAY_MS),
    }


def log_config(config: dict[str, str], settings: BrokerSettings) -> LogConfig:
    """The configuration of a topic's logs."""
    policies = _policies(config.get("cleanup.policy", "delete"))
    effective = default_config(settings, compacted="compact" in policies) | config
    return LogConfig(
        segment_bytes=int(effective["segment.bytes"]),
        segment_ms=int(effective["segment.ms"]),
        retention_ms=int(effective["retention.ms"]),
        retention_bytes=int(effective["retention.bytes"]),
        max_message_bytes=int(effective["max.message.bytes"]),
        deleted="delete" in policies,
        compacted="compact" in policies,
        delete_retention_ms=int(effective["delete.retention.ms"]),
        min_cleanable_dirty_ratio=float(effective["min.cleanable.dirty.ratio"]),
    )

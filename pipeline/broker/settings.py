"""Settings of the broker: data folder, address, limits, retention."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from astrocyte.pipeline.broker.protocol.errors import BrokerError

__all__ = ["DAY_MS", "BrokerSettings"]

DAY_MS = 86_400_000
SMALLEST_SEGMENT_BYTES = 1024

# setting -> (is it valid, the expected values)
_LIMITS: dict[str, tuple[Callable[[float], bool], str]] = {
    "port": (lambda v: 0 <= v <= 65535, "0 (any free port) to 65535"),
    "default_partitions": (lambda v: 1 <= v <= 10_000, "1 to 10000; set it to the topic_partitions of the Faust app"),
    "segment_bytes": (lambda v: v >= SMALLEST_SEGMENT_BYTES, f"at least {SMALLEST_SEGMENT_BYTES}"),
    "retention_ms": (lambda v: v >= -1, "-1 (keep for ever) or milliseconds"),
    "retention_bytes": (lambda v: v >= -1, "-1 (no limit) or bytes of one partition"),
    "max_message_bytes": (lambda v: v >= 1024, "at least 1024"),
    "max_request_bytes": (lambda v: v >= 4096, "at least 4096, and above max_message_bytes"),
    "max_unfinished_bytes": (lambda v: v >= 1 << 20, "at least 1 MiB, and above max_request_bytes"),
    "idle_timeout_s": (lambda v: v > 0, "seconds above 0"),
    "max_fetch_bytes": (lambda v: v >= 1024, "at least 1024"),
    "flush_interval_s": (lambda v: v > 0, "seconds above 0"),
    "maintenance_interval_s": (lambda v: v > 0, "seconds above 0"),
    "initial_rebalance_delay_s": (lambda v: v >= 0, "seconds, 0 or more"),
    "min_session_timeout_s": (lambda v: v > 0, "seconds above 0"),
    "max_session_timeout_s": (lambda v: v > 0, "seconds above 0"),
    "max_open_files": (lambda v: v >= 8, "at least 8"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerSettings:
    """Settings of one broker; a value out of range raises BrokerError with its name.

    sync says when records and commits are on disk: ``always``, before they are acknowledged and before they can be
    read, so that a power failure loses none of them; ``interval``, within flush_interval_s after that, which is faster
    where a disk syncs slowly. A kill -9 of the broker loses nothing either way.

    default_partitions is Faust's default. Where topics are created on first use, it must equal the
    ``topic_partitions`` of the Faust app, or Faust's agents restart for ever with PartitionsMismatch.
    """

    data_dir: Path
    host: str = "127.0.0.1"
    port: int = 9092
    default_partitions: int = 8
    auto_create_topics: bool = True
    advertised_host: str | None = None  # host announced to clients, if it differs from the bound host
    segment_bytes: int = 128 << 20
    compacted_segment_bytes: int = 16 << 20  # only closed segments are compacted, so these close earlier
    retention_ms: int = 7 * DAY_MS
    retention_bytes: int = -1
    max_message_bytes: int = 64 << 20
    max_request_bytes: int = 100 << 20
    max_unfinished_bytes: int = 256 << 20  # of all clients together: requests half received, or waiting for their turn
    idle_timeout_s: float = 600.0  # a client that sends nothing for so long, and is owed no answer, is disconnected
    max_fetch_bytes: int = 55 << 20
    sync: Literal["always", "interval"] = "always"
    flush_interval_s: float = 1.0
    maintenance_interval_s: float = 10.0
    initial_rebalance_delay_s: float = 0.2
    min_session_timeout_s: float = 1.0
    max_session_timeout_s: float = 1800.0
    max_open_files: int = 256
    verify: Literal["tail", "all"] = "tail"  # checksums verified at start: since the last index file, or all

    def __post_init__(self) -> None:
        for name, (valid, expected) in _LIMITS.items():
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not valid(value):
                raise BrokerError(f"broker setting {name}: expected {expected}, got {value!r}")
        if self.verify not in ("tail", "all"):
            raise BrokerError(f"broker setting verify: expected 'tail' or 'all', got {self.verify!r}")
        if self.sync not in ("always", "interval"):
            raise BrokerError(f"broker setting sync: expected 'always' or 'interval', got {self.sync!r}")
        if self.max_request_bytes <= self.max_message_bytes:
            raise BrokerError(
                f"max_request_bytes ({self.max_request_bytes}) must exceed max_message_bytes "
                f"({self.max_message_bytes}), or a message of that size could not be received; raise it"
            )
        if self.max_unfinished_bytes <= self.max_request_bytes:
            raise BrokerError(
                f"max_unfinished_bytes ({self.max_unfinished_bytes}) must exceed max_request_bytes "
                f"({self.max_request_bytes}), or a request of that size could not be received; raise it"
            )

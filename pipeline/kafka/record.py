"""A record as it was read from Kafka or from a recorded log."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["ConsumedRecord", "Headers", "is_frame", "status_of"]

Headers = tuple[tuple[str, bytes | None], ...]
"""Kafka headers in order; names may repeat, values may be null."""


class ConsumedRecord(NamedTuple):
    """One Kafka message, unchanged; ``timestamp_ms`` is Kafka's own time, -1 where the message has none."""

    topic: str
    partition: int
    offset: int
    timestamp_ms: int
    key: bytes | None
    value: bytes | None
    headers: Headers = ()
    timestamp_type: str = "create"
    """``create``, ``logappend`` or ``unknown``, as in kcat's ``tstype``."""


def status_of(record: ConsumedRecord) -> str:
    """Of a multi event or alert: final, or as a header of it says provisional, confirmed or retracted."""
    value = next((value for name, value in record.headers if name == "ce_status"), None)
    return (value or b"final").decode("utf-8", "replace")


def is_frame(record: ConsumedRecord) -> bool:
    """Whether the message is a frame: it begins with the marker of an Arrow stream, which no JSON text does."""
    return record.value is not None and record.value[:4] == b"\xff\xff\xff\xff"

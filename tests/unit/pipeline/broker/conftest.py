"""Logs in a temporary folder, and a clock that tests advance."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from astrocyte.pipeline.broker.storage.log import LogConfig, PartitionLog
from astrocyte.pipeline.broker.storage.segment import SegmentPool


class Clock:
    """A wall clock in milliseconds that only tests advance."""

    def __init__(self) -> None:
        self.now_ms = 1_700_000_000_000

    def __call__(self) -> int:
        return self.now_ms


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def open_log(tmp_path: Path, clock: Clock) -> Callable[..., PartitionLog]:
    """Opens the log of one folder; the keywords are LogConfig's, ``files`` and ``verify``."""
    usual = LogConfig(
        segment_bytes=1 << 20,
        segment_ms=1 << 40,
        retention_ms=-1,
        retention_bytes=-1,
        max_message_bytes=1 << 20,
        deleted=True,
        compacted=False,
        delete_retention_ms=1000,
        min_cleanable_dirty_ratio=0.0,
    )

    def opened(*, files: int = 64, verify: str = "tail", folder: str = "log", **config: object) -> PartitionLog:
        return PartitionLog(tmp_path / folder, replace(usual, **config), SegmentPool(files), clock, verify)

    return opened

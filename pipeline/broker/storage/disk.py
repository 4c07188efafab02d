"""Bytes and names of files on disk: what a power failure does not undo."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

__all__ = ["sync_file", "sync_folder"]

_FULL_SYNC: int | None = getattr(fcntl, "F_FULLFSYNC", None)
"""macOS: fsync leaves the bytes in the drive's cache, this does not."""


def sync_file(fd: int) -> None:
    """Bring the bytes of an open file to disk. Raises OSError if the disk does not take them."""
    if _FULL_SYNC is not None:
        fcntl.fcntl(fd, _FULL_SYNC)
    else:
        os.fdatasync(fd)


def sync_folder(folder: Path) -> None:
    """Bring the names in a folder to disk: without it a new or renamed file may be missing after a power failure."""
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)

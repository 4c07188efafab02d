"""The lock of a data folder: one broker at a time; the error of a second one identifies the first."""

from __future__ import annotations

import fcntl
import json
import os
from pathlib import Path

from astrocyte.pipeline.broker.protocol.errors import BrokerError, DataFolderInUse

__all__ = ["FolderLock"]


class FolderLock:
    """Held until ``release`` or the end of the process, also by a crash."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "lock"
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            folder.mkdir(mode=0o700, exist_ok=True)  # records are for their owner; files inside follow the umask
            self._fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise BrokerError(
                f"the data folder {folder} cannot be used: {error.strerror}; choose another, or make it writable"
            ) from error
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = self._holder()
            os.close(self._fd)
            raise DataFolderInUse(
                f"the data folder {folder} is in use by {holder}; stop that broker, or choose another folder"
            ) from None
        self.note(address=None)

    def note(self, *, address: str | None) -> None:
        """Record the holder of the lock, for the error message of another broker."""
        content = json.dumps({"pid": os.getpid(), "address": address}).encode()
        try:
            os.ftruncate(self._fd, 0)
            os.pwrite(self._fd, content, 0)
        except OSError:  # a full disk: the lock is held all the same
            return

    def release(self) -> None:
        """Release the folder for another broker."""
        os.close(self._fd)

    def _holder(self) -> str:
        try:
            noted = json.loads(os.pread(self._fd, 4096, 0))
            where = f" at {noted['address']}" if noted["address"] else ""
            return f"the broker with process id {noted['pid']}{where}"
        except (OSError, ValueError, KeyError, TypeError):
            return "another broker"

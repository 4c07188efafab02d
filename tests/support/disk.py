"""A double of the broker's disk: what a power failure leaves of its files.

Of each file it keeps the bytes that were synced, and of the rest any part, or zeros, or other bytes; a file whose name
was not synced may be gone.
"""

from __future__ import annotations

import os
import random
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from astrocyte.pipeline.broker.storage import compaction, disk, index, log

__all__ = ["Disk"]


class _Patch(Protocol):
    def setattr(self, target: object, name: str, value: object) -> None: ...


class Disk:
    """What of the files is on disk. ``fails``: it takes nothing. ``wait`` is called while a sync lasts."""

    def __init__(self, wait: Callable[[], object] = lambda: None) -> None:
        self._wait = wait
        self._lock = threading.Lock()
        self._synced: dict[tuple[int, int], int] = {}
        self._named: set[Path] = set()
        self.fails = False

    def install(self, patch: _Patch) -> None:
        """Take the place of the system's calls in the broker."""
        for module in (disk, log, compaction, index):
            patch.setattr(module, "sync_file", self.sync_file)
            if hasattr(module, "sync_folder"):
                patch.setattr(module, "sync_folder", self.sync_folder)

    def sync_file(self, fd: int) -> None:
        """Bring the bytes of a file to disk."""
        before = os.fstat(fd)
        self._wait()
        if self.fails:
            raise OSError(5, "Input/output error")
        with self._lock:
            self._synced[before.st_dev, before.st_ino] = before.st_size

    def sync_folder(self, folder: Path) -> None:
        """Bring the names in a folder to disk."""
        names = {folder / name for name in os.listdir(folder)}
        with self._lock:
            self._named |= names

    def after_power_cut(self, folder: Path, image: Path, dice: random.Random) -> None:
        """A copy of a folder as the disk has it, with whatever else the kernel may have written.

        What the copy holds is on the disk: a second power failure takes none of it.
        """
        with self._lock:
            synced, named = dict(self._synced), set(self._named)
        # Syncing threads of the broker still rename their drafts.
        shutil.copytree(folder, image, ignore=shutil.ignore_patterns("*.new"))
        for copy in sorted([*image.rglob("*.log"), *image.rglob("*.index")]):
            path = folder / copy.relative_to(image)
            if path not in named and dice.random() < 0.5:
                copy.unlink()
                continue
            found = os.stat(path)
            kept = min(synced.get((found.st_dev, found.st_ino), 0), found.st_size)
            content = bytearray(copy.read_bytes())
            end = dice.randint(kept, len(content))
            lost = len(content) - end
            match dice.randrange(4):
                case 0 | 1:
                    del content[end:]
                case 2:
                    content[end:] = bytes(lost)  # the size was written, the bytes were not
                case 3:
                    content[end:] = dice.randbytes(lost)  # what the blocks of the disk held before
            copy.write_bytes(content)
        with self._lock:
            for path in image.rglob("*"):
                found = path.stat()
                self._synced[found.st_dev, found.st_ino] = found.st_size
                self._named.add(path)

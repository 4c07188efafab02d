"""Memory that a fuzzing process shares with its parent: what it reads now, and how far it has come.

A process that is ended by a signal says nothing more; the page does.
"""

from __future__ import annotations

import mmap
import struct
from pathlib import Path
from typing import Final

__all__ = ["MOST_BYTES", "Page"]

MOST_BYTES: Final = 1 << 20
_HEAD: Final = struct.Struct("<QQQQ")


class Page:
    """Inputs read so far, microseconds of processor time of the slowest, peak of memory in KiB, and the last input."""

    def __init__(self, path: Path) -> None:
        with path.open("a+b") as file:
            file.truncate(_HEAD.size + MOST_BYTES)
            self._memory = mmap.mmap(file.fileno(), _HEAD.size + MOST_BYTES)
        self.inputs, _, self.slowest_us, self.peak_kb = _HEAD.unpack_from(self._memory)

    def begin(self, data: bytes) -> None:
        """The next input is read."""
        self.inputs += 1
        self._memory[_HEAD.size : _HEAD.size + len(data)] = data
        self._note(len(data))

    def end(self, took_us: int, peak_kb: int) -> None:
        """It was read."""
        if took_us > self.slowest_us or peak_kb > self.peak_kb:
            self.slowest_us, self.peak_kb = max(took_us, self.slowest_us), max(peak_kb, self.peak_kb)
            self._note(_HEAD.unpack_from(self._memory)[1])

    def last(self) -> bytes:
        """The input that was begun last."""
        self.inputs, length, self.slowest_us, self.peak_kb = _HEAD.unpack_from(self._memory)
        return self._memory[_HEAD.size : _HEAD.size + length]

    def _note(self, length: int) -> None:
        _HEAD.pack_into(self._memory, 0, self.inputs, length, self.slowest_us, self.peak_kb)

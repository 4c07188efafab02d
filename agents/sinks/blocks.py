"""Compressed files in a folder that several processes use, each appending to a file of its own.

A file is locked by the process that writes it, for as long as that lives, also while it is stopped. Nobody else appends
to it or cuts it; after the process has ended, the next one that opens the folder cuts an incomplete block at its end
and goes on with the newest file. Each batch is one *block*, on disk before it is confirmed: a head, which holds the
offsets of the batch and the length of what follows, and its text. A lock of the folder is held while a batch is
compared with the blocks that are there and appended, so that a line is written once, also where another process has
written it meanwhile: after a crash, a rebalance, or by a process that was stopped and continues.

What was written before is recognised by the lines themselves: those of a block whose offsets cover the line's, and
those of the last `_RECENT` lines, whatever their offsets are. So lines of another cluster with the same offsets are
written, and a record that a restarted worker sent once more is not.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import re
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path
from typing import BinaryIO, Final, Protocol

import orjson

from astrocyte.agents.sinks.base import SinkError
from astrocyte.agents.sinks.block_marks import Ranges, Rows, mark_of, merge, overlap, ranges_in, ranges_of

__all__ = ["BlockFolder", "BlockForm", "Head", "is_at"]

_TRANSIENT: Final = frozenset(
    {errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EAGAIN, errno.ENFILE, errno.EMFILE, errno.ENOLCK}
)
"""Errors after which a batch is tried again."""
_LOCK: Final = ".lock"
_RECENT: Final = 1 << 18
"""Lines that are recognised without regard to their offsets."""
_BLOCKS: Final = 2048
"""Blocks whose place is kept in memory; older ones are looked for in the files when they are needed."""
_ATTEMPTS: Final = 500
_ATTEMPT_S: Final = 0.01

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Head:
    """What a block's head says: its own length and that of the text after it, in bytes, and the mark."""

    head_bytes: int
    body_bytes: int
    mark: bytes


class BlockForm(Protocol):
    """The encoding of blocks in a kind of file."""

    prefix: str
    suffix: str
    magic: bytes
    """First bytes of every block."""

    def pack(self, mark: bytes, text: bytes) -> bytes:
        """A block."""

    def head(self, file: BinaryIO) -> Head | None:
        """The head at the file's position; None where it is incomplete. Raises ValueError where there is none."""

    def unpack(self, body: bytes) -> bytes:
        """Text of a block. Raises ValueError if it is damaged."""

    def identity(self, line: bytes) -> int:
        """Hash of what makes a line another one; used within this process only."""


@dataclass(slots=True, eq=False)
class _Block:
    number: int
    at: int
    head: Head
    ranges: Ranges
    identities: list[int] | None = None
    """Of its lines, if they were read and are among the recent ones."""

    @property
    def end(self) -> int:
        return self.at + self.head.head_bytes + self.head.body_bytes


@dataclass(slots=True)
class _File:
    """What is known of a file: how far it was read, and the offsets of its blocks."""

    end: int = 0
    ranges: Ranges = field(default_factory=dict)
    complete: bool = True
    """Whether everything behind `end` may be a block that is being written, and not damage."""


class BlockFolder:
    """The files of one kind in ``folder``, for one sink. Not safe for several threads at a time."""

    def __init__(self, folder: Path, form: BlockForm, *, sink: str, rotate_bytes: int) -> None:
        self.folder = folder
        self._form = form
        self._sink = sink
        self._rotate_bytes = rotate_bytes
        self._pattern = re.compile(re.escape(form.prefix) + r"-(\d{6,})" + re.escape(form.suffix))
        self._files: dict[int, _File] = {}
        self._blocks: deque[_Block] = deque()
        self._recent: dict[int, None] = {}
        self._lock: int | None = None
        self._file: BinaryIO | None = None
        self._number = 0
        self._end = 0
        """Confirmed length of the own file, in bytes; nothing before it is ever cut."""
        self._torn = False
        """Whether what follows the confirmed end is the rest of a failed attempt of this process."""

    def open(self) -> None:
        """Read the places of all blocks, and continue the newest file if no process writes it. Raises SinkError."""
        self.close()
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._lock = os.open(self.folder / _LOCK, os.O_RDWR | os.O_CREAT, 0o644)
            with self._alone():
                self._refresh()
                self._adopt()
        except OSError as error:
            self.close()
            raise SinkError(f"the folder {self.folder} of sink {self._sink!r} cannot be used: {error}") from error

    def close(self) -> None:
        """Release file and folder. Idempotent."""
        if self._file is not None:
            self._file.close()
            self._file = None
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None
        self._files.clear()
        self._blocks.clear()
        self._recent.clear()

    def append(self, parts: Sequence[Rows]) -> int:
        """Append the lines that no file holds yet, as one block; returns their number when they are on disk.

        Raises OSError, of which some may be tried again (`retriable`), and SinkError where files were deleted or
        changed by another program.
        """
        if self._lock is None:
            raise SinkError(f"sink {self._sink!r} is not open; await open() first")
        try:
            return self._append([part for part in parts if part.lines])
        except OSError as error:
            if self.retriable(error) is not None:
                raise
            raise SinkError(
                f"{self.path()}: {error.strerror or error}; nothing was dropped, the batch is read again: mend the "
                "file or folder, its permissions or the limit on the size of files, and start the role again"
            ) from error

    def _append(self, parts: Sequence[Rows]) -> int:
        if not parts:
            return 0
        self._check()
        with self._alone():
            self._refresh()
            fresh, identities = self._fresh(parts)
            if fresh:
                self._write(fresh, identities)
                self._check()
                if self._end >= self._rotate_bytes and self._file is not None:
                    self._file.close()
                    self._file = None
        return len(identities)

    def retriable(self, error: Exception) -> str | None:
        """Why `append` raised ``error``, where it may be called again; else None."""
        if isinstance(error, OSError) and error.errno in _TRANSIENT:
            return f"{self.path()}: {error.strerror}"
        return None

    def path(self, number: int | None = None) -> Path:
        """The file of a number, by default the one that this process writes."""
        return self.folder / f"{self._form.prefix}-{self._number if number is None else number:06d}{self._form.suffix}"

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Hold the folder's lock. Raises BlockingIOError if another process keeps it."""
        assert self._lock is not None
        for attempt in range(_ATTEMPTS):
            try:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if attempt == _ATTEMPTS - 1:
                    raise BlockingIOError(
                        errno.EAGAIN, "another process holds the lock of the folder; is one stopped there?"
                    ) from None
                time.sleep(_ATTEMPT_S)
        try:
            yield
        finally:
            fcntl.flock(self._lock, fcntl.LOCK_UN)

    def _check(self) -> None:
        """Raises SinkError where the folder or the own file is gone: a deleted file still takes writes."""
        assert self._lock is not None
        if not is_at(self._lock, self.folder / _LOCK):
            raise self._gone(f"the folder {self.folder} (or its file {_LOCK})")
        if self._file is None:
            return
        if not is_at(self._file.fileno(), self.path()):
            raise self._gone(f"the file {self.path()}")
        size = os.fstat(self._file.fileno()).st_size
        if size < self._end or (size > self._end and not self._torn):
            raise SinkError(
                f"the file {self.path()} of sink {self._sink!r} has {size} bytes; this process has written "
                f"{self._end}: another program has changed it. Nothing of this batch was acknowledged. Restore the "
                "file or move it away, and start the worker again"
            )

    def _gone(self, what: str) -> SinkError:
        return SinkError(
            f"{what} of sink {self._sink!r} was deleted or replaced while the sink wrote to it; what it held of "
            "acknowledged batches is gone. Nothing of this batch was acknowledged: it is read again when the worker is "
            "started again, which begins a new file (docs/operations.md, Faults)"
        )

    def _numbers(self) -> dict[int, int]:
        """Size of each file by its number."""
        found = {}
        with os.scandir(self.folder) as entries:
            for entry in entries:
                if match := self._pattern.fullmatch(entry.name):
                    try:
                        found[int(match[1])] = entry.stat().st_size
                    except FileNotFoundError:
                        continue
        return dict(sorted(found.items()))

    def _refresh(self) -> None:
        """Read the heads of blocks that others have appended, and forget files that were taken away."""
        sizes = self._numbers()
        for number in [number for number in self._files if number not in sizes and number != self._number]:
            del self._files[number]
            self._blocks = deque(block for block in self._blocks if block.number != number)
        for number, size in sizes.items():
            if self._file is not None and number == self._number:
                continue
            known = self._files.setdefault(number, _File())
            if size > known.end and known.complete:
                self._survey(number, known)

    def _survey(self, number: int, known: _File) -> None:
        """Read the heads of a file from where it was read before, up to what is no complete block."""
        try:
            for block in self._blocks_from(number, known.end):
                self._add(block)
                merge(known.ranges, block.ranges)
                known.end = block.end
        except FileNotFoundError:
            known.complete = False
        except ValueError:
            known.complete = False
            logger.warning(
                "sink %s: %s is damaged, or of another program, from byte %s on: it is left as it is, and what stands "
                "there is not recognised if it is read again",
                self._sink, self.path(number), known.end,
            )  # fmt: skip

    def _blocks_from(self, number: int, at: int) -> Iterator[_Block]:
        """Complete blocks of a file from byte ``at`` on. Raises FileNotFoundError, and ValueError at what is none."""
        with self.path(number).open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            while at < size:
                file.seek(at)
                head = self._form.head(file)
                if head is None or at + head.head_bytes + head.body_bytes > size:
                    return
                block = _Block(number, at, head, ranges_of(head.mark))
                yield block
                at = block.end

    def _add(self, block: _Block) -> None:
        self._blocks.append(block)
        while len(self._blocks) > _BLOCKS:
            self._blocks.popleft()

    def _adopt(self) -> None:
        """Cut what ended processes have left incomplete, and continue the newest file if it is free and not full."""
        for number, known in list(self._files.items()):
            file = self._locked(number) if known.complete else None
            if file is None:
                continue
            size = os.fstat(file.fileno()).st_size
            last = self._blocks[-1] if self._blocks and self._blocks[-1].number == number else None
            if size == known.end and last is not None and self._lines_of(last) is None:
                # A power failure may leave a block of the right length with other contents.
                self._blocks.pop()
                known.end = last.at
            if known.end < size:
                file.truncate(known.end)
                os.fsync(file.fileno())
            if known.end == 0:
                self.path(number).unlink()
                del self._files[number]
            elif number == max(self._files) and known.end < self._rotate_bytes:
                self._file, self._number, self._end = file, number, known.end
                return
            file.close()

    def _locked(self, number: int) -> BinaryIO | None:
        """The file, locked for this process; None where another one writes it, or it cannot be opened."""
        try:
            file = self.path(number).open("r+b", buffering=0)
        except (FileNotFoundError, PermissionError):
            return None
        try:
            fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            return None
        return file

    def _fresh(self, parts: Sequence[Rows]) -> tuple[list[Rows], list[int]]:
        """The lines that no block holds, each once, and their identities."""
        reached = ranges_in(parts)
        self._load_recent(reached)
        known = self._stored(reached)
        taken = self._recent.keys()
        fresh, identities = [], []
        for part in parts:
            found = [self._form.identity(line) for line in part.lines]
            own = set(found)
            if len(own) < len(found) or not (own.isdisjoint(known) and taken.isdisjoint(own)):
                kept, seen = [], set[int]()
                for row, identity in enumerate(found):
                    if identity not in taken and identity not in known and identity not in seen:
                        seen.add(identity)
                        kept.append(row)
                found = [found[row] for row in kept]
                part = Rows(part.place, part.offsets[kept], [part.lines[row] for row in kept])
            known.update(found)
            identities += found
            if found:
                fresh.append(part)
        return fresh, identities

    def _load_recent(self, reached: Ranges) -> None:
        """Read the lines of these places in the newest blocks, unless they are among the recent ones already."""
        lines, changed = 0, False
        for block in reversed(self._blocks):
            if lines >= _RECENT:
                block.identities = None
                continue
            if block.identities is None and block.ranges.keys() & reached.keys():
                block.identities, changed = self._identities(block), True
            lines += len(block.identities or ())
        if changed:
            self._recent.clear()
            for block in self._blocks:
                self._remember(block.identities or ())

    def _stored(self, reached: Ranges) -> set[int]:
        """Identities of the lines in all blocks with offsets of these ranges."""
        stored: set[int] = set()
        oldest = self._blocks[0].number if self._blocks else max(self._files, default=0) + 1
        for number, known in self._files.items():
            if not overlap(known.ranges, reached):
                continue
            kept: Iterable[_Block] = (block for block in self._blocks if block.number == number)
            if number <= oldest:
                # The places of its first blocks are no longer kept.
                kept = self._blocks_from(number, 0)
            try:
                for block in kept:
                    if overlap(block.ranges, reached):
                        stored.update(self._identities(block))
            except (FileNotFoundError, ValueError):
                continue  # taken away, or damaged, which was said
        return stored

    def _identities(self, block: _Block) -> list[int]:
        return [self._form.identity(line) for line in self._lines_of(block) or ()]

    def _lines_of(self, block: _Block) -> list[bytes] | None:
        """Lines of a block, with their newlines; None if it is damaged or was taken away."""
        try:
            with self.path(block.number).open("rb") as file:
                file.seek(block.at + block.head.head_bytes)
                text = self._form.unpack(file.read(block.head.body_bytes))
        except (FileNotFoundError, ValueError):
            return None
        split = orjson.loads(block.head.mark)["split"]
        pieces = text.split(b"\n")
        lines: list[bytes] = []
        at = 0
        while at < len(pieces) - 1:
            count = split.get(str(len(lines)), 1)
            lines.append(b"\n".join(pieces[at : at + count]) + b"\n")
            at += count
        return lines

    def _remember(self, identities: Iterable[int]) -> None:
        self._recent |= dict.fromkeys(identities)
        for old in list(islice(self._recent, max(0, len(self._recent) - _RECENT))):
            del self._recent[old]

    def _begin(self) -> BinaryIO:
        """A new file with the next number, locked; its directory entry is synced before its content."""
        self._number = max(self._numbers(), default=0) + 1
        file = self._file = self.path().open("x+b", buffering=0)
        fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
        self._end, self._torn = 0, False
        self._files[self._number] = _File()
        folder = os.open(self.folder, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
        return file

    def _write(self, parts: Sequence[Rows], identities: Sequence[int]) -> None:
        ranges = ranges_in(parts)
        lines = list(chain.from_iterable(part.lines for part in parts))
        text = b"".join(lines)
        packed = self._form.pack(mark_of(ranges, lines, text), text)
        file = self._file or self._begin()
        try:
            if self._torn:
                file.truncate(self._end)
            self._torn = True
            file.seek(self._end)
            data = memoryview(packed)
            while data:
                data = data[file.write(data) :]
            os.fsync(file.fileno())
        except OSError:
            # The next attempt begins at the confirmed end.
            file.truncate(self._end)
            raise
        self._torn = False
        file.seek(self._end)
        head = self._form.head(file)
        assert head is not None
        block = _Block(self._number, self._end, head, ranges, list(identities))
        self._add(block)
        self._end = block.end
        known = self._files[self._number]
        known.end = self._end
        merge(known.ranges, ranges)
        self._remember(identities)


def is_at(descriptor: int, path: Path) -> bool:
    """Whether an open file is the one that stands at ``path``: a deleted file takes writes as before."""
    own = os.fstat(descriptor)
    try:
        there = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    return (own.st_dev, own.st_ino) == (there.st_dev, there.st_ino)

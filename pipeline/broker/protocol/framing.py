"""Splits a byte stream into requests: each is a length and a frame. A long frame is read into its own buffer."""

from __future__ import annotations

from astrocyte.pipeline.broker.protocol.errors import MalformedRequest

__all__ = ["SMALLEST_FRAME", "FrameReader"]

SMALLEST_FRAME = 8  # api key, version, correlation id
SCRATCH_BYTES = 1 << 16  # for the bytes before the length of a long frame is known, and for all short frames
CLAIM_BYTES = 1 << 20  # allocated when a client announces a long frame; more only as bytes arrive
LENGTH_BYTES = 4


class FrameReader:
    """Write the next bytes into ``buffer``; ``received`` then returns the complete frames."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._scratch = memoryview(bytearray(SCRATCH_BYTES))
        self._scratched = 0
        self._frame: bytearray | None = None  # an incomplete long frame
        self._view = self._scratch
        self._length = self._filled = 0

    @property
    def held_bytes(self) -> int:
        """Memory of the buffers."""
        return SCRATCH_BYTES + (0 if self._frame is None else len(self._frame))

    @property
    def is_amid_frame(self) -> bool:
        """Whether a long frame is incomplete."""
        return self._frame is not None

    def buffer(self) -> memoryview:
        """Free space for at least one byte; to be filled from its start."""
        if self._frame is not None:
            return self._view[self._filled :]
        return self._scratch[self._scratched :]

    def release(self) -> None:
        """Let go of an incomplete frame; nothing more is read."""
        self._frame, self._view = None, self._scratch
        self._scratched = self._length = self._filled = 0

    def received(self, size: int) -> list[bytearray]:
        """Process ``size`` bytes written into ``buffer``. Raises MalformedRequest for an invalid frame length."""
        if self._frame is None:
            return self._split(self._scratched + size)
        self._filled += size
        if self._filled < len(self._frame):
            return []
        if self._filled < self._length:
            self._grow(self._frame)
            return []
        frame, self._frame, self._view = self._frame, None, self._scratch
        return [frame]

    def _split(self, end: int) -> list[bytearray]:
        frames, at, scratch = [], 0, self._scratch
        while end - at >= LENGTH_BYTES:
            length = int.from_bytes(scratch[at : at + LENGTH_BYTES], "big", signed=True)
            if not SMALLEST_FRAME <= length <= self._max_bytes:
                raise MalformedRequest(f"expected a frame of {SMALLEST_FRAME} to {self._max_bytes} bytes, got {length}")
            begin, at = at + LENGTH_BYTES, at + LENGTH_BYTES + length
            if at > end:
                self._begin_long(length, scratch[begin:end])
                end = at
                break
            frames.append(bytearray(scratch[begin:at]))
        self._scratched = end - at
        if self._scratched:
            scratch[: self._scratched] = bytes(scratch[at:end])
        return frames

    def _begin_long(self, length: int, start: memoryview) -> None:
        self._frame = bytearray(min(length, CLAIM_BYTES))
        self._view, self._length, self._filled = memoryview(self._frame), length, len(start)
        self._view[: len(start)] = start

    def _grow(self, frame: bytearray) -> None:
        larger = bytearray(min(self._length, 2 * len(frame)))  # a new one: asyncio may still hold a view of the old
        larger[: len(frame)] = frame
        self._frame, self._view = larger, memoryview(larger)

"""From rounds to frames, by a worker thread over a bounded queue.

Rows of a stream are ordered by (time, kind, island, slot) and numbered in that order, so rows and sequence numbers
depend only on scenario, config and seed. Frames end at fixed ticks. Clock and sleep are arguments.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Protocol, Self, runtime_checkable

from astrocyte.schemas.errors import AstrocyteError
from astrocyte.schemas.frames import Frame
from astrocyte.simulator.emission.assembly import Assembler
from astrocyte.simulator.runtime.world import Round

__all__ = ["CallableSink", "EmissionFailed", "Emitter", "FrameSink", "MemorySink", "Pace"]


class EmissionFailed(AstrocyteError):
    """The sink refused a frame, or the thread that feeds it failed; the cause is attached."""


@runtime_checkable
class FrameSink(Protocol):
    """Where frames go. Called from one thread.

    A frame with ``watermark_us`` or ``end`` concerns every partition of its stream: a partition to which none of its
    rows hash gets it without rows. Other frames go only to the partitions to which their rows hash.
    """

    def write(self, frame: Frame) -> None:
        """Accept one frame. May block, which is the back-pressure. An accepted frame must not be lost."""

    def flush(self) -> None:
        """Return when everything written has been confirmed; a checkpoint is stored only after that."""

    def close(self) -> None:
        """Flush and release resources. Called by the owner of the sink, not by `simulate`."""


@dataclass(slots=True)
class MemorySink:
    """Keeps every frame in a list."""

    frames: list[Frame] = field(default_factory=list)

    def write(self, frame: Frame) -> None:
        """Keep the frame."""
        self.frames.append(frame)

    def flush(self) -> None:
        """Nothing is pending."""

    def close(self) -> None:
        """Nothing to release."""

    def of(self, stream: str) -> list[Frame]:
        """Frames of one stream, in order."""
        return [frame for frame in self.frames if frame.stream == stream]


@dataclass(slots=True)
class CallableSink:
    """Passes every frame to a function."""

    function: Callable[[Frame], object]

    def write(self, frame: Frame) -> None:
        """Call the function."""
        self.function(frame)

    def flush(self) -> None:
        """The function has returned, so nothing is pending."""

    def close(self) -> None:
        """Nothing to release."""


@dataclass(slots=True)
class Pace:
    """Limits emission to ``rate`` events per second, to ``speed`` simulated seconds per second, or both."""

    clock: Callable[[], float]
    sleep: Callable[[float], None]
    rate: float | None = None
    speed: float | None = None
    _start: float | None = None
    _events: int = 0

    def wait(self, events: int, simulated_s: float) -> None:
        """Return when ``events`` more events may be written, the last of them ``simulated_s`` into the run."""
        if self._start is None:
            self._start = self.clock()
        due = 0.0
        if self.rate is not None:
            self._events += events
            due = self._events / self.rate
        if self.speed is not None:
            due = max(due, simulated_s / self.speed)
        ahead = self._start + due - self.clock()
        if ahead > 0:
            self.sleep(ahead)


Job = Callable[[Assembler], None]


class Emitter:
    """A thread that assembles rounds into frames and writes them to a sink, while the devices compute.

    ``put`` blocks when ``queue_rounds`` rounds wait, and raises EmissionFailed once the thread has failed. Use as a
    context manager: a clean exit writes everything queued; an exception drops the rest.
    """

    def __init__(
        self, assembler: Assembler, sink: FrameSink, *, pace: Pace | None = None, queue_rounds: int = 2
    ) -> None:
        self._assembler, self._sink, self._pace = assembler, sink, pace
        self._first_us = assembler.time_us(assembler.next_tick)
        self._queue: queue.Queue[Round | Job | None] = queue.Queue(queue_rounds)
        self._failure: BaseException | None = None
        self._abandoned = threading.Event()
        self._thread = threading.Thread(target=self._work, name="simulator-emitter", daemon=True)
        self.frames = 0
        """Frames written so far."""

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: object, error: BaseException | None, _: object) -> None:
        if error is not None:
            self._abandoned.set()
        while self._thread.is_alive():
            try:
                self._queue.put(None, timeout=0.1)
                break
            except queue.Full:
                continue
        self._thread.join()
        if error is None:
            self._raise()

    def put(self, item: Round | Job) -> None:
        """Queue a round, or a function that is called once all frames before it are confirmed."""
        while True:
            self._raise()
            try:
                self._queue.put(item, timeout=0.1)
                return
            except queue.Full:
                continue

    def _raise(self) -> None:
        if self._failure is not None:
            raise EmissionFailed(f"emission stopped: {self._failure}") from self._failure

    def _work(self) -> None:
        try:
            self._write(self._assembler.begin())
            while (item := self._queue.get()) is not None:
                if self._abandoned.is_set():
                    return
                if isinstance(item, Round):
                    self._write(self._assembler.add(item))
                else:
                    self._sink.flush()
                    item(self._assembler)
            if not self._abandoned.is_set():
                self._write(self._assembler.finish())
                self._sink.flush()
        except BaseException as error:  # noqa: BLE001 (raised again in the thread that calls put)
            self._failure = error

    def _write(self, frames: Iterable[Frame]) -> None:
        for frame in frames:
            if self._abandoned.is_set():
                return
            if self._pace is not None:
                self._pace.wait(frame.num_rows, self._simulated_s(frame))
            self._sink.write(frame)
            self.frames += 1

    def _simulated_s(self, frame: Frame) -> float:
        times: Any = frame.timestamps() if frame.num_rows else ()
        last = int(times[-1]) if len(times) else frame.watermark_us
        return (last - self._first_us) / 1e6 if last is not None else 0.0

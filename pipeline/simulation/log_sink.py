"""A recorded log as the destination of a simulation, with the messages that Kafka would receive."""

from __future__ import annotations

import threading
from collections import defaultdict
from pathlib import Path

from astrocyte.pipeline.kafka.record import ConsumedRecord
from astrocyte.pipeline.recording.format import LogHeader
from astrocyte.pipeline.recording.writer import LogWriter, check_absent
from astrocyte.pipeline.simulation.publish import Form, messages_of
from astrocyte.schemas.frames import Frame
from astrocyte.schemas.topics import mono_topic

__all__ = ["LogSink"]


class LogSink:
    """Writes frames to a log file (see `pipeline.recording.writer`); the file gets its name when the sink is closed."""

    def __init__(
        self,
        path: Path | str,
        *,
        partitions: int,
        form: Form = "frames",
        overwrite: bool = False,
        source: str | None = None,
    ) -> None:
        self._partitions = partitions
        self._form = form
        self._offsets: dict[tuple[str, int], int] = defaultdict(int)
        check_absent(path, overwrite=overwrite)
        self._path, self._overwrite, self._source = path, overwrite, source
        self._open: LogWriter | None = None
        self._lock = threading.Lock()
        self.events = 0

    def write(self, frame: Frame) -> None:
        """Append the frame's messages."""
        with self._lock:
            writer = self._writer(frame)
            for record in messages_of(frame, self._partitions, self._form):
                place = (record.topic, record.partition or 0)
                writer.write(
                    ConsumedRecord(
                        *place, self._offsets[place], record.timestamp_ms or 0, record.key, record.value,
                        tuple(record.headers),
                    )
                )  # fmt: skip
                self._offsets[place] += 1
            self.events += frame.num_rows

    def flush(self) -> None:
        """Pass written data to the operating system."""
        with self._lock:
            if self._open is not None:
                self._open.flush()

    def close(self) -> None:
        """Finish the file."""
        with self._lock:
            if self._open is not None:
                self._open.close()

    def rescue(self) -> str:
        """Save what was written from another thread, before the process ends; returns a text about it.

        Frames are complete in the file, which keeps its name ``.partial``. The sink writes no more.
        """
        self._lock.acquire()  # and never released: the thread that writes waits for the end of the process
        if self._open is None:
            return "no event was written"
        self._open.abandon()
        return f"{self.events:,} events are in {self._path}.partial"

    def _writer(self, first: Frame) -> LogWriter:
        if self._open is None:
            # The header names every topic, and the first frame every stream.
            topics = {mono_topic(stream): self._partitions for stream in first.peers or (first.stream,)}
            self._open = LogWriter(self._path, LogHeader(topics, source=self._source), overwrite=self._overwrite)
        return self._open

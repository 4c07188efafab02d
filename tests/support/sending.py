"""A producer of live events, on a thread of the test: what it has sent is known exactly."""

from __future__ import annotations

import threading
import time
from itertools import count
from typing import Literal

import numpy as np
from confluent_kafka import Producer

from astrocyte.pipeline.settings import Settings
from astrocyte.pipeline.simulation.publish import Form, KafkaSink, messages_of
from astrocyte.pipeline.transport.producer_record import ProducerRecord
from astrocyte.schemas.event_types.axons import AXON_TYPES
from astrocyte.schemas.frames import Frame
from tests.support.waiting import wait_until

__all__ = ["FORMS", "Sending"]

FORMS: tuple[Form, ...] = ("json", "frames")
Field = Literal["place", "type"]
TICK_S = 0.05
ROWS = 10
"""Events of each stream in a tick, unless the test asks for more."""
KEYS = 8
"""Keys for so many events; there are more where there are more events, so that each has as many as ever."""
WRONG_KEY = "k3"
VALUES = {"place": ("p0", "p1", "p2"), "type": AXON_TYPES}
AHEAD_US = 2 * 3_600_000_000
REPLACED = b"replaced by the next message of its key"
"""A message that compaction removes; none that a worker may read."""


class Sending:
    """Events of the streams, with the time of now, from a thread until asked to stop. ``seed`` determines all else.

    ``field`` is the one by which rules may correlate beside the key; streams of the catalog have no ``place``.
    """

    def __init__(self, settings: Settings, form: Form, field: Field, seed: int) -> None:
        self._settings = settings
        self._field = field
        self.form: Form = form
        self._stop = threading.Event()
        self._dice = np.random.default_rng(seed)
        self._sequence = 0
        self._numbers = count()
        self.rows = ROWS
        """Events of each stream in a tick; may be changed while it sends."""
        self.frames: list[Frame] = []
        self.right: list[Frame] = []
        """The same without the events of a wrong clock."""
        self.wrong_clock = False
        """Whether the clock of the key `WRONG_KEY` is two hours ahead."""
        self._thread = threading.Thread(target=self._send)

    def start(self) -> None:
        """Begin to send."""
        self._thread.start()

    def wait(self, seconds: float) -> None:
        """Until events of so many seconds more were sent."""
        enough = len(self.frames) + len(self._settings.streams) * seconds / TICK_S
        wait_until(lambda: len(self.frames) >= enough, seconds * 5 + 60, "the producer to go on")

    def history(self, seconds: float, tick_s: float) -> None:
        """Send events of so many seconds before now at once; returns when the broker has them."""
        now_us = time.time_ns() // 1000
        ticks = int(seconds / tick_s)
        with self._sink() as sink:
            for tick in range(ticks):
                for frame in self.tick(now_us - int((ticks - tick) * tick_s * 1e6), tick_s):
                    sink.write(frame)

    def with_holes(self, seconds: float) -> None:
        """Send events of so many seconds, each after a message of its key: compaction of the topics leaves holes there.

        Each has a key of its own, so that none of them is removed; rules correlate by another field. The last ones come
        alone, since a broker does not compact what it writes to.
        """
        producer = Producer({"bootstrap.servers": self._settings.broker, "enable.idempotence": True, "log_level": 0})
        ticks = int(seconds / TICK_S)
        for tick in range(ticks):
            self._stop.wait(TICK_S)
            for message in self.messages(counts=True):
                key = f"{self._sequence} {next(self._numbers)}".encode()
                for value in (REPLACED, message.value) if tick < ticks - 10 else (message.value,):
                    producer.produce(message.topic, value, key, message.partition, headers=list(message.headers))
            assert producer.flush(60) == 0

    @property
    def runs(self) -> bool:
        """Whether it sends."""
        return self._thread.is_alive() and not self._stop.is_set()

    def stop(self) -> None:
        """Returns when the broker has everything."""
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join(300)
            assert not self._thread.is_alive()

    @property
    def events(self) -> int:
        """Number of events so far."""
        return sum(frame.num_rows for frame in self.frames)

    @property
    def refused(self) -> int:
        """Number of events with a wrong clock."""
        return self.events - sum(frame.num_rows for frame in self.right)

    def _sink(self) -> KafkaSink:
        return KafkaSink(self._settings.broker, partitions=self._settings.partitions, form=self.form)

    def _send(self) -> None:
        with self._sink() as sink:
            while not self._stop.wait(TICK_S):
                for frame in self.tick(time.time_ns() // 1000):
                    sink.write(frame)

    def messages(self, counts: bool) -> list[ProducerRecord]:
        """Messages of the events of 50 ms, for a producer of the test's own; some do not count, as they are aborted."""
        kept = len(self.frames), len(self.right)
        made = self.tick(time.time_ns() // 1000)
        if not counts:
            del self.frames[kept[0] :], self.right[kept[1] :]
        return [each for frame in made for each in messages_of(frame, self._settings.partitions, self.form)]

    def tick(self, now_us: int, tick_s: float = TICK_S) -> list[Frame]:
        """Events of the last ``tick_s``."""
        made, rows = [], self.rows
        for stream in self._settings.streams:
            keys = [f"k{number}" for number in self._dice.integers(0, KEYS * -(-rows // ROWS), rows)]
            wrong = np.array([self.wrong_clock and key == WRONG_KEY for key in keys])
            times = now_us - np.sort(self._dice.integers(0, int(tick_s * 1e6), rows))[::-1]
            columns = {
                "timestamp": times + np.where(wrong, AHEAD_US, 0),
                "key": keys,
                self._field: [VALUES[self._field][number] for number in self._dice.integers(0, 3, rows)],
                "value": self._dice.random(rows),
            }
            made.append(Frame.from_columns(stream, "run", columns, first_seq=self._sequence))
            self.right.append(made[-1].take(np.flatnonzero(~wrong)) if wrong.any() else made[-1])
        self._sequence += rows
        self.frames += made
        return made

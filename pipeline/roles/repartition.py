"""The repartition role: copies between Kafka topics, with a state that makes a restart exact.

A chunk is acknowledged once its copies are confirmed. The state before it, in which doubted events wait, is written
with them to a compacted topic, and after a crash the next owner of the input partition goes on from there. What it then
copies again, the reader recognises by the positions that each copy names.
"""

from __future__ import annotations

import math
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any, Final

import orjson

from astrocyte.agents.ingest.copies import Copy
from astrocyte.pipeline.kafka.partition_end import AtEnd
from astrocyte.pipeline.roles.output_records import copy_records, letter_record
from astrocyte.pipeline.state.lost import LostState
from astrocyte.pipeline.state.snapshots import pack_state, unpack_state
from astrocyte.pipeline.telemetry.spans import chunk_span
from astrocyte.pipeline.topology.repartition import Repartitioner
from astrocyte.pipeline.transport.producer_record import ProducerRecord
from astrocyte.schemas.errors import AstrocyteError
from astrocyte.schemas.events import DeadLetter
from astrocyte.schemas.topics import CLOCK

__all__ = ["RepartitionRunner"]

_STATE_S: Final = 0.5
"""Time between two states of an input partition; what was copied since the last one is copied again after a crash."""


class RepartitionRunner:
    """One repartitioned stream of a worker.

    ``at_end`` says what the broker has answered about an input partition, which is idle after ``idle_timeout_s``.
    """

    def __init__(
        self,
        repartitioner: Repartitioner,
        state_topic: str,
        deliver: Callable[[Iterable[ProducerRecord]], Awaitable[None]],
        *,
        at_end: Callable[[int], AtEnd | None] = lambda _partition: None,
        idle_timeout_s: float = math.inf,
        lost: LostState | None = None,
        monotonic: Callable[[], float] = time.monotonic,
        now_us: Callable[[], int] = lambda: time.time_ns() // 1000,
    ) -> None:
        self.repartitioner = repartitioner
        self._state_topic = state_topic
        self._deliver = deliver
        self._at_end = at_end
        self._idle_s = idle_timeout_s
        self._lost = lost or LostState(state_topic)
        self._monotonic = monotonic
        self._now_us = now_us
        self._next: dict[int, int] = {}
        """By input partition: offset after the newest message that the state contains."""
        self._due_s: dict[int, float] = {}

    def assigned(
        self, placed: Iterable[int], all_partitions: Iterable[int], states: Mapping[bytes, bytes]
    ) -> dict[int, int]:
        """Reading of some input partitions begins: returns the offsets at which, where a state says so.

        ``all_partitions`` are those that the worker reads now, ``states`` what the state topic holds. Raises
        SnapshotsLost for a state that cannot be restored.
        """
        known = {number: states.get(self._key(number)) for number in placed}
        loaded = {number: None if data is None else self._unpacked(number, data) for number, data in known.items()}
        self.repartitioner.assign(all_partitions, self._monotonic())
        self.repartitioner.restore(loaded)
        starts = {number: int(state["next_offset"]) for number, state in loaded.items() if state is not None}
        for number in loaded:
            self._due_s.pop(number, None)
            self._next[number] = starts.get(number, 0)
        return starts

    def _unpacked(self, number: int, data: bytes) -> dict[str, Any] | None:
        try:
            return unpack_state(data)
        except AstrocyteError as error:
            self._lost.damaged(f"role repartition, {self.repartitioner.repartition.source}[{number}]", str(error))
            return None

    async def handle(self, chunk: Any) -> tuple[int, list[DeadLetter]]:
        """Copy one chunk; returns when the broker has the copies, with the number of their rows and the letters."""
        began_s = self._monotonic()
        number = chunk.partition
        state = []
        if began_s >= self._due_s.get(number, began_s):
            self._due_s[number] = began_s + _STATE_S
            first = max(chunk.records[0].offset, self._next.get(number, 0))
            state = [self._state(number, first)]
        self.repartitioner.recheck(self._at_end, self._idle_s)
        with chunk_span(chunk) as span:
            copies, letters = self.repartitioner.step(number, chunk.records, began_s)
            self._next[number] = max(chunk.next_offset, self._next.get(number, 0))
            await self._carry(copies, letters, state)
            copied = sum(copy.frame.num_rows for copy in copies)
            span.note(copied=copied, dead_letters=len(letters))
        self.repartitioner.carried(number, chunk.next_offset, began_s, self._monotonic())
        return copied, letters

    async def tick(self) -> None:
        """Called every second: accept events whose time has come, and report silent partitions."""
        for number in sorted(self._next) if self.repartitioner.waiting else ():
            now_us = self._now_us()
            idle = self.repartitioner.is_silent(number)
            copies = self.repartitioner.trust(now_us, partition=number, idle=idle)
            if copies:
                # The next state has them among the accepted events.
                self._due_s.pop(number, None)
                await self._carry(copies, (), [self._trusted(number, now_us, idle=idle)])
        silent = self.repartitioner.silence(self._at_end, self._idle_s)
        await self._carry([*silent, *self.repartitioner.cover(self._at_end, self._idle_s)])

    async def _carry(
        self, copies: Sequence[Copy], letters: Sequence[DeadLetter] = (), others: Sequence[ProducerRecord] = ()
    ) -> None:
        plan, partitions = self.repartitioner.repartition, self.repartitioner.partitions
        records = [record for copy in copies for record in copy_records(plan, copy, partitions)]
        records += [letter_record(letter, letter.partition % partitions) for letter in letters]
        if records or others:
            await self._deliver([*others, *records])

    def _key(self, number: int) -> bytes:
        return f"{self.repartitioner.repartition.topic}/{number}".encode()

    def _state(self, number: int, next_offset: int) -> ProducerRecord:
        data = pack_state(self.repartitioner.snapshot(number, next_offset))
        return ProducerRecord(self._state_topic, data, self._key(number), 0)

    def _trusted(self, number: int, now_us: int, *, idle: bool) -> ProducerRecord:
        """Record of what depends on a clock beside the data: a replay must repeat it."""
        plan = self.repartitioner.repartition
        body = {
            "repartition": plan.topic,
            "partition": number,
            "trusted_us": now_us,
            "idle": idle,
            "positions": {plan.source: self._next.get(number, 0)},
        }
        return ProducerRecord(CLOCK, orjson.dumps(body), self._key(number), 0)

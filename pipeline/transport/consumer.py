"""The consumer of the Faust transport: delivers chunks, commits exactly, starts where the application chooses."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import inspect
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from time import monotonic
from typing import Any, Final, cast

from aiokafka.errors import ConsumerStoppedError, IllegalStateError, KafkaError
from faust.transport.drivers import aiokafka as driver
from faust.types import TP
from mode import Service

from astrocyte.pipeline.kafka.partition_end import AtEnd, Position, Unread
from astrocyte.pipeline.transport.chunk import Chunk, ChunkMessage, parts_of
from astrocyte.pipeline.transport.client_log import Silence, StateLog
from astrocyte.pipeline.transport.commits import CommitTracker
from astrocyte.pipeline.transport.consumer_thread import ConsumerThread, Fetched
from astrocyte.pipeline.transport.options import TransportOptions, options_of
from astrocyte.pipeline.transport.partition_ends import PartitionEnds, longest_gap_s
from astrocyte.schemas.errors import TransientError

__all__ = ["Consumer"]

_FETCH_S: Final = 0.1
_COMMIT_S: Final = 10.0
_UNAVAILABLE_S: Final = 2.0
"""Time without a group coordinator after which the broker is reported as unavailable."""
_FIRST_S: Final = 15.0
"""The same at the start. The broker has answered then, and takes its time for a new group."""
_COLLECT_S: Final = 2.0
_ROUNDS_TO_FULL: Final = 30


class Consumer(driver.Consumer):  # type: ignore[misc]
    """Delivers one message per fetched chunk and commits exactly up to the first offset that is not acknowledged.

    Topics read only with ``value_serializer="raw"`` are delivered in chunks; others one message per record, as in
    Faust, with the same exact commits.
    """

    _thread: ConsumerThread

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.tracker: CommitTracker[TP] = CommitTracker()
        self.options: TransportOptions = options_of(self.app)
        self.ends = PartitionEnds(gap_s=longest_gap_s(self.options.fetch_max_wait_ms))
        self._paused_tps: set[TP] = set()
        self._resumed = asyncio.Event()
        self._chunked: dict[str, bool] = {}
        self._state = StateLog("worker", ", ".join(driver.server_list(self.transport.url, 9092)))

    def _new_consumer_thread(self) -> ConsumerThread:
        return ConsumerThread(self, loop=self.loop, beacon=self.beacon)

    @Service.task
    async def _collect(self) -> None:
        """Run the cyclic garbage collector on a timer.

        A chunk creates hundreds of thousands of objects at once, none of them in a cycle. Collections triggered by
        the number of allocations take between a quarter and a third of a worker's time.
        """
        gc.collect()
        gc.freeze()  # objects that exist by now stay for the life of the process
        gc.disable()
        rounds = 0
        try:
            while not self.should_stop:
                await self.sleep(_COLLECT_S)
                rounds += 1
                gc.collect(2 if rounds % _ROUNDS_TO_FULL == 0 else 0)
        finally:
            gc.enable()
            gc.unfreeze()

    # -- back-pressure

    def pause(self, partitions: Iterable[TP]) -> None:
        """Stop delivery of ``partitions`` until `resume`; chunks already in an agent's queue are still delivered.

        Partitions that stay assigned remain paused over a rebalance.
        """
        self._paused_tps.update(partitions)

    def resume(self, partitions: Iterable[TP]) -> None:
        """Deliver ``partitions`` again."""
        partitions = set(partitions)
        self._paused_tps -= partitions
        self.ends.interrupt(partitions)
        self._resumed.set()

    def on_buffer_drop(self, tp: TP) -> None:
        """Fetch again from a partition whose reader has caught up."""
        super().on_buffer_drop(tp)
        self._resumed.set()

    # -- reading

    def at_end(self, partition: TP) -> AtEnd | None:
        """The span in which answered fetches found that ``partition`` ends where its delivery to agents has come.

        None while it is paused, being assigned, or has something that was not handed to an agent.
        """
        end = self.ends.at_end(partition)
        if end is None or partition in self._paused_tps or self.tracker.position(partition) != end.offset:
            return None
        return replace(end, delivered=self.tracker.delivered_to(partition))

    def unread(self, partition: TP) -> Unread | None:
        """Why ``partition`` is not known to have been handed to agents up to its end; None if it has been."""
        if partition in self._paused_tps:
            return Unread("paused")
        end, position = self.ends.at_end(partition), self.tracker.position(partition)
        if end is None or position is None:
            return Unread("unanswered")
        return Unread("behind", end.offset - position) if position < end.offset else None

    async def ends_of(self, partitions: Iterable[TP]) -> dict[TP, int] | None:
        """Offsets at which partitions end, also those that other workers read; None while the broker does not say."""
        try:
            return await self._thread.ends(partitions) if self.connected else None
        except (ConsumerStoppedError, KafkaError, TimeoutError) as error:
            self.log.debug("where partitions end is not known: %r", error)
            return None

    async def _drain_messages(self, fetcher: Any) -> None:
        # Records fetched by an earlier, cancelled loop were dropped: every partition is positioned again.
        self.tracker.forget(self.tracker.partitions)
        stopping = (cast("Service", self)._stopped, cast("Service", fetcher)._stopped)
        try:
            while not any(event.is_set() for event in stopping):
                if not self.flow_active:
                    await self.wait(self.can_resume_flow)
                else:
                    await self._drain_once()
        except self.consumer_stopped_errors:
            if not self.app.should_stop:
                raise
        except asyncio.CancelledError:
            if not self.app.should_stop:
                raise

    async def _drain_once(self) -> None:
        generation = self.app.consumer_generation_id
        # Faust's set may name revoked partitions: a full queue of theirs reports late that it has room again.
        active = self._get_active_partitions() & self.assignment()
        lost = {tp for tp in active if tp not in self.tracker and self._acked_topic(tp.topic)}
        if lost:
            await self._place(lost, generation)
            return
        active -= self._paused_tps
        if not active:
            self._resumed.clear()
            await self._thread.idle()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._resumed.wait(), _FETCH_S)
            return
        # A rebalance can end in the same generation: the group of members that all expired begins at 1 again.
        placements = {tp: self.tracker.placement(tp) for tp in active}
        fetched: Fetched = await self._thread.getmany(active, _FETCH_S)
        # Agents and timers run even if every fetch returns at once.
        await asyncio.sleep(0)
        for tp, records in fetched.records.items():
            if not self._current(generation):
                # These records are read again: after a rebalance every partition is positioned again.
                self.tracker.forget(self.tracker.partitions)
                return
            await self._deliver(tp, records, fetched, generation, placements[tp])
        for tp, position in fetched.positions.items():
            if tp in fetched.records or tp not in self.tracker or self.tracker.placement(tp) != placements.get(tp):
                continue
            if position != self.tracker.position(tp):
                self._report_reset(tp, position)
                self.tracker.advanced(tp, position)

    def _current(self, generation: int) -> bool:
        return bool(self.flow_active) and generation == self.app.consumer_generation_id and not self.should_stop

    async def _deliver(self, tp: TP, records: list[Any], fetched: Fetched, generation: int, placement: int) -> None:
        """Hand out what was fetched, as long as the partition is not positioned anew, after which it is read again."""
        if self.tracker.placement(tp) != placement:
            return
        next_offset = fetched.positions[tp]
        highwater = fetched.highwaters.get(tp) or next_offset
        self.app.monitor.track_tp_end_offset(tp, highwater)
        self._report_reset(tp, records[0].offset)
        await self._report_jump(tp, records[0].offset)
        for record, value, ends_at in self._values(tp, records, next_offset, highwater):
            if self.tracker.placement(tp) != placement:
                return
            await self._hand_out(tp, record, value, ends_at=ends_at, generation=generation)
        self._read_offset[tp] = next_offset - 1

    def _values(self, tp: TP, records: list[Any], next_offset: int, highwater: int) -> Iterator[tuple[Any, Any, int]]:
        """What agents get of the records: the first record of each value, the value, and the offset where it ends."""
        if not self._takes_chunks(tp.topic):
            ends = [record.offset for record in records[1:]] + [next_offset]
            yield from zip(records, (record.value for record in records), ends, strict=True)
            return
        parts = [*parts_of(records)]
        ends = [part[0].offset for part in parts[1:]] + [next_offset]
        for part, end in zip(parts, ends, strict=True):
            yield part[0], Chunk(tp.topic, tp.partition, tuple(part), end, highwater), end

    async def _hand_out(self, tp: TP, record: Any, value: Any, *, ends_at: int, generation: int) -> None:
        tracked = tp in self.tracker
        chunk = isinstance(value, Chunk)
        message = ChunkMessage(
            tp.topic,
            tp.partition,
            record.offset,
            record.timestamp / 1000.0,
            record.timestamp_type,
            () if chunk else record.headers,
            None if chunk else record.key,
            value,
            None,
            0 if chunk else record.serialized_key_size,
            0 if chunk else record.serialized_value_size,
            tp,
            generation_id=generation,
            delivery=self.tracker.delivered(tp, record.offset, ends_at) if tracked else None,
        )
        await self.wait_first(self.callback(message), self.suspend_flow.wait())

    def _takes_chunks(self, topic: str) -> bool:
        known = self._chunked.get(topic)
        if known is None:
            readers = [channel for channel in self.app.topics if topic in channel.topics]
            default = self.app.conf.value_serializer
            known = bool(readers) and all(
                (channel.schema.value_serializer or default) == "raw" and channel.value_type in (None, bytes)
                for channel in readers
            )
            self._chunked[topic] = known
        return known

    def _acked_topic(self, topic: str) -> bool:
        return bool(self.app.topics.acks_enabled_for(topic))

    def _report_reset(self, tp: TP, first: int) -> None:
        expected = self.tracker.position(tp)
        if expected is not None and first < expected and self.options.on_reset is not None:
            self.options.on_reset(tp, expected, first)

    async def _report_jump(self, tp: TP, first: int) -> None:
        expected = self.tracker.position(tp)
        if expected is None or first <= expected:
            return
        earliest = (await self._thread.earliest_offsets(tp)).get(tp)
        if earliest is not None and earliest > expected:
            self.log.error(
                "%s[%s]: retention has removed offsets %s to %s before they were read; raise the topic's retention "
                "or add workers",
                tp.topic, tp.partition, expected, earliest - 1,
            )  # fmt: skip

    # -- positions

    async def perform_seek(self) -> None:
        """Position all partitions again, before anything of them is delivered."""
        # Faust abandons its recovery if this takes long, so the fetch loop does the positioning.
        self.tracker.forget(self.tracker.partitions)

    async def seek(self, partition: TP, offset: int) -> None:
        """Continue reading ``partition`` at ``offset``; open deliveries of it become stale."""
        place = await self._thread.place({partition: offset})
        self.ends.interrupt([partition])
        self.tracker.assign(partition, place[partition], None)

    async def _place(self, partitions: set[TP], generation: int) -> None:
        try:
            committed: Mapping[TP, int | None] = await self._thread.committed(partitions)
            chosen, known = dict(committed), dict(committed)
            if self.options.on_assigned is not None:
                answer = self.options.on_assigned(dict(committed))
                answer = await answer if inspect.isawaitable(answer) else answer
                chosen.update({tp: offset for tp, offset in (answer or {}).items() if tp in partitions})
                # What a snapshot holds is done, also where the worker was killed before its first commit.
                known.update({tp: 0 for tp in answer or {} if tp in partitions and committed[tp] is None})
            if not self._current(generation):
                return
            places = await self._thread.place(chosen)
            self.ends.interrupt(partitions)
        except (IllegalStateError, KafkaError, TimeoutError, TransientError) as error:
            self.log.info("positions are not known yet (%r); retrying", error)
            await asyncio.sleep(0.2)
            return
        if self._current(generation):
            for tp, position in places.items():
                self.tracker.assign(tp, position, known[tp])

    # -- rebalances

    async def on_partitions_revoked(self, revoked: set[TP]) -> None:
        """Let the application finish, commit what is acknowledged, and only then forget the partitions."""
        if not self.app.should_stop:
            self.stop_flow()
            self.app.flow_control.suspend()
            self.app.flow_control.clear()
            await self._finish(revoked)
        self.tracker.forget(self.tracker.partitions)
        self._paused_tps -= revoked
        self.ends.interrupt_all()
        await super().on_partitions_revoked(revoked)

    async def _finish(self, partitions: set[TP]) -> None:
        limit = self.options.revoke_timeout_s
        if self.options.on_revoked is not None and partitions:
            try:
                await asyncio.wait_for(self.options.on_revoked(set(partitions)), limit)
            except TimeoutError:
                self.log.warning("on_revoked took longer than %.0f s; what it did not acknowledge is read again", limit)
            except Exception:
                self.log.exception("on_revoked failed; what it did not acknowledge is read again")
        # An unavailable broker must not delay a shutdown: what is not committed is read again.
        timeout_s = min(limit, _COMMIT_S) if self.connected else 0.5
        try:
            await asyncio.wait_for(self.commit(), timeout_s)
        except TimeoutError:
            self.log.warning("the broker did not confirm the last commit; records after the one before are read again")

    async def on_stop(self) -> None:
        """Let the application finish and commit; open deliveries never delay a shutdown."""
        try:
            assignment = self.assignment()
        except Exception:  # noqa: BLE001  the consumer never started, so there is nothing to finish
            return
        await self._finish(assignment)
        cast("driver.Transport", self.transport)._topic_waiters.clear()

    async def wait_empty(self) -> None:
        """Commit without waiting for open deliveries: the next owner of the partition reads them again."""
        await asyncio.wait_for(self.commit(), _COMMIT_S)

    # -- commits

    def _filter_tps_with_pending_acks(self, topics: Any = None) -> list[TP]:
        for ledger in (self._acked, self._acked_index):
            ledger.clear()  # written by Faust's compiled iterator, not used here
        return [tp for tp in self.tracker.partitions if topics is None or tp in topics or tp.topic in topics]

    def _new_offset(self, tp: TP) -> int | None:
        return self.tracker.committable(tp)

    def _should_commit(self, tp: TP, offset: int) -> bool:  # noqa: ARG002
        return True

    async def _add_gap(self, tp: TP, offset_from: int, offset_to: int) -> None:
        """No-op: the tracker knows which offsets were delivered and does not infer gaps."""

    async def _commit_offsets(self, offsets: Mapping[TP, int], start_new_transaction: bool = True) -> bool:  # noqa: ARG002
        mine = {tp: offset for tp, offset in offsets.items() if tp in self.assignment()}
        if not mine:
            return False
        # Confirmed outputs precede the acknowledgement of their inputs; this flush is for agents that only sent theirs.
        await self.app.producer.flush()
        if not await self._commit(mine):
            return False
        for tp, offset in mine.items():
            self.tracker.committed(tp, offset)
        self.app.tables.on_commit(mine)
        self.app.monitor.on_tp_commit(mine)
        self._committed_offset.update(mine)
        return True

    def ack(self, message: Any) -> bool:
        """Acknowledge a message that every agent has processed; False if it was acknowledged before or is stale."""
        delivery = getattr(message, "delivery", None)
        fresh = not message.acked and (delivery is None or not delivery.stale)
        message.acked = True
        self._unacked_messages.discard(message)
        return fresh

    async def rejoin(self) -> None:
        """Ask the group for a new assignment of its partitions."""
        await self._thread.rejoin()

    # -- liveness

    @property
    def connected(self) -> bool:
        """Whether the coordinator of the group is known."""
        return self._thread.connected

    def positions(self) -> dict[TP, Position]:
        """How far the reader of each assigned partition has come that agents acknowledge; for `pipeline.watch`."""
        found = {}
        for tp, fetched, end in self._thread.positions():
            if not self._acked_topic(tp.topic):
                continue
            placed = tp in self.tracker
            read = self.tracker.position(tp) if placed else fetched
            found[tp] = Position(
                placed, read, max(0, end - read) if read is not None else 0, self.tracker.held(tp),
                self.tracker.acknowledged(tp), self.tracker.acks_of(tp), tp in self._paused_tps,
                self.ends.at_end(tp) is not None,
            )  # fmt: skip
        return found

    async def verify_all_partitions_active(self) -> None:
        """No-op: Faust's own check only logs, and reports a long window as a hang."""

    @Service.task
    async def _report_broker(self) -> None:
        """Say once that the broker is away, and once that it is back."""
        silence = Silence(_FIRST_S, _UNAVAILABLE_S)
        while not self.should_stop:
            await self.sleep(0.5)
            connected = self.connected
            silent = silence.is_long(monotonic(), found=connected)
            if connected:
                self._state.back()
            elif silent:
                self._state.away("the group coordinator does not answer")

"""The thread that runs aiokafka's consumer: connecting, fetching with positions, seeking, committing."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable, Mapping
from dataclasses import dataclass, field
from time import monotonic
from typing import Any, Final, cast

import aiokafka
from aiokafka.errors import CommitFailedError, ConsumerStoppedError, IllegalStateError, KafkaError
from aiokafka.structs import OffsetAndMetadata, TopicPartition
from faust.transport.drivers import aiokafka as driver
from faust.types import TP

from astrocyte.pipeline.kafka.closing import ended
from astrocyte.pipeline.kafka.record_batches import unpack_answers
from astrocyte.pipeline.transport.assignor import DomainAssignor
from astrocyte.pipeline.transport.client_log import StateLog
from astrocyte.pipeline.transport.options import client_security
from astrocyte.pipeline.transport.partition_ends import observe_fetches

__all__ = ["ConsumerThread", "Fetched"]

_COMMIT_S: Final = 10.0
_ENDS_S: Final = 2.0
_RETRY_S: Final = 0.5
_LEAVE_S: Final = 10.0
"""Leaving a group and closing its connections takes no longer than this."""


@dataclass(slots=True)
class Fetched:
    """What one fetch returned."""

    records: dict[TP, list[Any]] = field(default_factory=dict)
    positions: dict[TP, int] = field(default_factory=dict)
    """Offset of the next fetch, for every requested partition whose position is known, with or without records."""
    highwaters: dict[TP, int] = field(default_factory=dict)


def _end(state: Any) -> int:
    """End of the readable records: an open transaction of a producer is not lag."""
    ends = [end for end in (state.highwater, state.lso) if end is not None and end >= 0]
    return min(ends, default=0)


class ConsumerThread(driver.AIOKafkaConsumerThread):  # type: ignore[misc]
    """aiokafka's consumer, called from Faust's own thread."""

    async def on_start(self) -> None:
        """Connect, retrying until a broker answers."""
        self.time_started = monotonic()
        state = StateLog("worker", ", ".join(driver.server_list(self.transport.url, 9092)))
        while not self.should_stop:
            consumer = self._create_consumer(loop=self.thread_loop)
            try:
                await consumer.start()
            except (KafkaError, OSError) as error:
                state.away(f"{type(error).__name__}: {error}")
                await ended(consumer.stop, _LEAVE_S)
                await asyncio.sleep(_RETRY_S)
            else:
                unpack_answers(consumer)
                observe_fetches(consumer._fetcher, self.consumer.ends)
                self._consumer = consumer
                state.back()
                return

    async def on_thread_stop(self) -> None:
        """Leave the group and disconnect."""
        await super(driver.AIOKafkaConsumerThread, self).on_thread_stop()
        if self._consumer is None:
            return
        try:
            await ended(self._consumer.stop, _LEAVE_S)
        except (asyncio.CancelledError, KafkaError):
            # aiokafka's fetcher propagates the cancellation of its own tasks while the broker is unavailable. That
            # would end this thread without an error, and Faust would wait for it for ever.
            await ended(self._consumer._client.close)

    def _create_worker_consumer(self, transport: Any) -> Any:
        conf = self.app.conf
        options = self.consumer.options
        # Faust's assignor carries the placement of changelogs, without which its tables cannot recover.
        own = DomainAssignor.with_note(options.note, options.on_notes, options.balance)
        self._assignor = self.app.assignor if self.app.tables.changelog_topics else own
        return aiokafka.AIOKafkaConsumer(
            client_id=conf.broker_client_id,
            group_id=conf.id,
            group_instance_id=conf.consumer_group_instance_id,
            bootstrap_servers=driver.server_list(transport.url, transport.default_port),
            partition_assignment_strategy=[self._assignor],
            enable_auto_commit=False,
            auto_offset_reset=conf.consumer_auto_offset_reset,
            max_poll_records=conf.broker_max_poll_records,
            max_poll_interval_ms=int((conf.broker_max_poll_interval or 0) * 1000),
            max_partition_fetch_bytes=conf.consumer_max_fetch_size,
            fetch_max_bytes=options.fetch_max_bytes,
            fetch_max_wait_ms=options.fetch_max_wait_ms,
            request_timeout_ms=int(conf.broker_request_timeout * 1000),
            check_crcs=conf.broker_check_crcs,
            session_timeout_ms=int(conf.broker_session_timeout * 1000),
            rebalance_timeout_ms=int(conf.broker_rebalance_timeout * 1000),
            heartbeat_interval_ms=int(conf.broker_heartbeat_interval * 1000),
            isolation_level="read_committed",
            metadata_max_age_ms=conf.consumer_metadata_max_age_ms,
            connections_max_idle_ms=conf.consumer_connections_max_idle_ms,
            **client_security(conf),
        )

    # -- fetching

    async def getmany(self, active_partitions: set[TP] | None, timeout: float) -> Fetched:  # noqa: ASYNC109  Faust's name
        """Records of ``active_partitions`` that are fetched already or arrive within ``timeout`` seconds."""
        consumer = self._ensure_consumer()
        return cast("Fetched", await self.call_thread(self._fetch, consumer, active_partitions, timeout))

    async def _fetch(self, consumer: Any, active: set[TP], within_s: float) -> Fetched:
        if not self.consumer.flow_active:
            return Fetched()
        fetcher = consumer._fetcher
        if consumer._closed or fetcher._closed:
            raise ConsumerStoppedError
        with fetcher._subscriptions.fetch_context():
            records = await fetcher.fetched_records(active, timeout=within_s, max_records=consumer._max_poll_records)
        # No await from here on, so that positions are those after exactly these records.
        found = Fetched({TP(tp.topic, tp.partition): rows for tp, rows in records.items()})
        for tp, state in self._states(active):
            if state.has_valid_position:
                found.positions[tp] = state.position
            if state.highwater is not None:
                found.highwaters[tp] = state.highwater
        # A partition without a position was revoked in the meantime: another member reads its records.
        found.records = {tp: rows for tp, rows in found.records.items() if tp in found.positions}
        return found

    async def idle(self) -> None:
        """Report to aiokafka that the application is alive though it fetches nothing, or it would leave the group."""
        await self.call_thread(self._touch)

    async def _touch(self) -> None:
        with self._ensure_consumer()._fetcher._subscriptions.fetch_context():
            pass

    async def rejoin(self) -> None:
        """Ask the group for a new assignment, as a member that joins does."""
        await self.call_thread(self._ask_to_rejoin)

    async def _ask_to_rejoin(self) -> None:
        self._ensure_consumer()._coordinator.request_rejoin()

    def _states(self, partitions: Iterable[TP] | None = None) -> list[tuple[TP, Any]]:
        subscription = self._consumer._subscription.subscription if self._consumer is not None else None
        assignment = subscription.assignment if subscription is not None else None
        if assignment is None or not assignment.active:
            return []
        names = assignment.tps if partitions is None else partitions
        states = ((TP(tp.topic, tp.partition), assignment.state_value(TopicPartition(*tp))) for tp in names)
        return [(tp, state) for tp, state in states if state is not None]

    @property
    def connected(self) -> bool:
        """Whether the coordinator of the group is known. Any thread may ask: it is a plain attribute, as below."""
        coordinator = getattr(self._consumer, "_coordinator", None)
        return getattr(coordinator, "coordinator_id", None) is not None

    def positions(self) -> list[tuple[TP, int | None, int]]:
        """Of each assigned partition the offset of the next fetch, and the end as the last answer says.

        Empty while the broker is away.
        """
        states = self._states() if self.connected else []
        return [(tp, state.position if state.has_valid_position else None, _end(state)) for tp, state in states]

    # -- positions and commits

    async def committed(self, partitions: Iterable[TP]) -> dict[TP, int | None]:
        """Committed offsets of the group, None where it has committed nothing."""
        return cast("dict[TP, int | None]", await self.call_thread(self._committed, set(partitions)))

    async def _committed(self, partitions: set[TP]) -> dict[TP, int | None]:
        names = [TopicPartition(*tp) for tp in partitions]
        coordinator = self._ensure_consumer()._coordinator
        found = await asyncio.wait_for(coordinator.fetch_committed_offsets(names), _COMMIT_S)
        offsets = {TP(tp.topic, tp.partition): entry.offset for tp, entry in found.items()}
        return {tp: offset if (offset := offsets.get(tp, -1)) >= 0 else None for tp in partitions}

    async def ends(self, partitions: Iterable[TP]) -> dict[TP, int]:
        """Offsets at which partitions end, also those of other members. Raises KafkaError, TimeoutError."""
        return cast("dict[TP, int]", await self.call_thread(self._ends, list(partitions)))

    async def _ends(self, partitions: list[TP]) -> dict[TP, int]:
        names = [TopicPartition(*tp) for tp in partitions]
        found = await asyncio.wait_for(self._ensure_consumer().end_offsets(names), _ENDS_S)
        return {TP(tp.topic, tp.partition): offset for tp, offset in found.items()}

    async def place(self, wanted: Mapping[TP, int | None]) -> dict[TP, int | None]:
        """Seek to the given offsets, and to the beginning where the offset is None; returns the positions.

        With ``consumer_auto_offset_reset="latest"`` the position of the latter is left to aiokafka and is None.
        Raises IllegalStateError for a partition that is not assigned.
        """
        return cast("dict[TP, int | None]", await self.call_thread(self._place, dict(wanted)))

    async def _place(self, wanted: dict[TP, int | None]) -> dict[TP, int | None]:
        consumer = self._ensure_consumer()
        places: dict[TP, int | None] = dict(wanted)
        for tp, offset in wanted.items():
            if offset is not None:
                consumer.seek(TopicPartition(*tp), offset)
        new = [TopicPartition(*tp) for tp, offset in wanted.items() if offset is None]
        if new and self.app.conf.consumer_auto_offset_reset == "earliest":
            await asyncio.wait_for(consumer.seek_to_beginning(*new), _COMMIT_S)
            for tp, state in self._states(TP(*name) for name in new):
                places[tp] = state.position if state.has_valid_position else None
        return places

    async def _commit(self, offsets: Mapping[TP, int]) -> bool:
        """Commit; False if it has to be retried. aiokafka itself would retry for ever."""
        entries = {TopicPartition(*tp): OffsetAndMetadata(offset, "") for tp, offset in offsets.items()}
        try:
            await self._within_limit(self._ensure_consumer().commit(entries))
        except (CommitFailedError, IllegalStateError) as error:
            self.log.info("commit rejected, the group has rebalanced: %s", error)
            return False
        except TimeoutError:
            self.log.info("the broker did not answer a commit; it is retried")
            return False
        except Exception as error:
            self.log.exception("the broker rejects commits, and a retry cannot succeed: %r", error)
            await self.crash(error)
            return False
        return True

    async def _within_limit(self, work: Coroutine[Any, Any, None]) -> None:
        """Await ``work`` for ten seconds, or until the app stops while no broker answers. Raises TimeoutError."""
        task = asyncio.ensure_future(work)
        deadline = monotonic() + _COMMIT_S
        try:
            while not task.done():
                await asyncio.wait({task}, timeout=0.1)
                stopping_offline = self.app.should_stop and not self.connected
                if not task.done() and (stopping_offline or monotonic() > deadline):
                    raise TimeoutError
        finally:
            task.cancel()
        task.result()

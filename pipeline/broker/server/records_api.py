"""Requests about records: Produce, Fetch, ListOffsets."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

from astrocyte.pipeline.broker.protocol.errors import ErrorCode, RequestRefused
from astrocyte.pipeline.broker.protocol.produce_fetch import (
    FetchedPartition,
    FetchRequest,
    ProducedPartition,
    read_fetch,
    read_produce,
    write_fetch,
    write_produce,
)
from astrocyte.pipeline.broker.server.connection import Answer, Request
from astrocyte.pipeline.broker.settings import BrokerSettings
from astrocyte.pipeline.broker.storage.log import PartitionLog
from astrocyte.pipeline.broker.storage.topics import Topics

__all__ = ["RecordsApi"]

logger = logging.getLogger(__name__)

OLDEST_PRODUCE = 3  # earlier versions carry message sets older than Kafka 0.11
LATEST, EARLIEST = -1, -2  # ListOffsets' special timestamps


class RecordsApi:
    """Serves records of the topics."""

    def __init__(self, topics: Topics, settings: BrokerSettings, flush_soon: Callable[[], None]) -> None:
        self._topics, self._settings, self._flush_soon = topics, settings, flush_soon
        self._storage_fails = False

    def produce(self, request: Request) -> Answer | asyncio.Future[Answer]:
        """Append records; each partition has its own outcome, with sync=always once they are on disk."""
        wanted = read_produce(request.frame, request.at, request.version)
        refusal = ErrorCode.NONE
        if request.version < OLDEST_PRODUCE:
            refusal = ErrorCode.UNSUPPORTED_VERSION
        elif wanted.transactional_id is not None:
            refusal = ErrorCode.TRANSACTIONAL_ID_AUTHORIZATION_FAILED
        produced = [
            (topic, [self._append(topic, index, records, refusal) for index, records in partitions])
            for topic, partitions in wanted.topics
        ]
        if self._settings.sync == "always":
            self._flush_soon()
            if wanted.acks:
                return _DelayedProduce(self, produced, request.version).answer
        return write_produce(request.version, produced) if wanted.acks else None

    def fetch(self, request: Request) -> Answer | asyncio.Future[Answer]:
        """Records now, or once enough have arrived, or at the end of the client's ``max_wait_ms``."""
        wanted = read_fetch(request.frame, request.at, request.version)
        fetched, size, settled = self.collect(wanted)
        if settled or size >= wanted.min_bytes or wanted.max_wait_ms <= 0:
            return write_fetch(request.version, fetched)
        return _DelayedFetch(self, wanted, request.version, size).answer

    def collect(self, wanted: FetchRequest) -> tuple[list[tuple[str, list[FetchedPartition]]], int, bool]:
        """The records present, their size in bytes, and whether to respond at once because a partition has an error."""
        total, settled = 0, False
        most = min(wanted.max_bytes, self._settings.max_fetch_bytes)
        topics = []
        for topic, partitions in wanted.topics:
            fetched = []
            for index, offset, max_bytes in partitions:
                log = self._topics.log(topic, index)
                if log is None:
                    fetched.append(FetchedPartition(index, ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, -1, -1, b""))
                    settled = True
                    continue
                error, records = ErrorCode.NONE, memoryview(b"")
                if total < most or not total:
                    try:
                        records = log.read(offset, min(max_bytes, most - total))
                    except RequestRefused as refused:
                        error, settled = refused.code, True
                    if total and len(records) > most - total:  # only the first batch of a response may exceed the limit
                        records = memoryview(b"")
                    total += len(records)
                fetched.append(FetchedPartition(index, error, log.stable_offset, log.start_offset, records))
            topics.append((topic, fetched))
        return topics, total, settled

    def log(self, topic: str, partition: int) -> PartitionLog | None:
        """The log of a partition."""
        return self._topics.log(topic, partition)

    def logs(self, wanted: FetchRequest) -> list[PartitionLog]:
        """The logs of the partitions in a fetch request."""
        named = (self._topics.log(topic, each.partition) for topic, partitions in wanted.topics for each in partitions)
        return [log for log in named if log is not None]

    def list_offsets(self, body: dict[str, Any], _request: Request) -> dict[str, Any]:
        """Offsets by time, and the first and last offsets of the logs."""
        topics = [
            {
                "name": topic["name"],
                "partitions": [self._list_offset(topic["name"], **each) for each in topic["partitions"]],
            }
            for topic in body["topics"]
        ]
        return {"throttle_time_ms": 0, "topics": topics}

    def _list_offset(self, topic: str, partition_index: int, timestamp: int) -> dict[str, int]:
        log, error, found = self._topics.log(topic, partition_index), ErrorCode.NONE, (-1, -1)
        try:
            if log is None:
                error = ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
            elif timestamp == LATEST:
                found = (log.stable_offset, -1)
            elif timestamp == EARLIEST:
                found = (log.start_offset, -1)
            elif timestamp < 0:
                error = ErrorCode.UNSUPPORTED_VERSION
            else:
                at = log.offset_for_timestamp(timestamp)
                found = at if at is not None and at[0] < log.stable_offset else found
        except RequestRefused as refused:
            error = refused.code
        return {"partition_index": partition_index, "error_code": error, "timestamp": found[1], "offset": found[0]}

    def _append(self, topic: str, index: int, records: memoryview | None, refusal: ErrorCode) -> ProducedPartition:
        log = self._topics.log(topic, index)
        try:
            if refusal:
                raise RequestRefused(refusal)
            if log is None:
                raise RequestRefused(ErrorCode.UNKNOWN_TOPIC_OR_PARTITION)
            appended = log.append(records if records is not None else memoryview(b""))
        except RequestRefused as refused:
            if refused.code is ErrorCode.KAFKA_STORAGE_ERROR:
                self.note_storage(str(refused))
            return ProducedPartition(index, refused.code, -1, -1)
        if self._settings.sync != "always":
            self.note_storage("")
        return ProducedPartition(index, ErrorCode.NONE, appended.base_offset, log.start_offset)

    def note_storage(self, failure: str) -> None:
        """Log once when storing begins to fail, and once when it works again."""
        if bool(failure) == self._storage_fails:
            return
        if failure:
            logger.error("records cannot be stored, producers will retry: %s; free disk space", failure)
        else:
            logger.warning("records can be stored again")
        self._storage_fails = bool(failure)


class _DelayedProduce:
    """A produce request that waits until its records are on disk, or its connection cancels the response."""

    def __init__(self, api: RecordsApi, produced: list[tuple[str, list[ProducedPartition]]], version: int) -> None:
        self._api, self._produced, self._version = api, produced, version
        self.answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        # A repeated batch may lie further back, but its first copy need not be on disk yet either.
        self._due = {
            (topic, each.partition): (log, log.end_offset)
            for topic, partitions in produced
            for each in partitions
            if not each.error and (log := api.log(topic, each.partition)) is not None
        }
        self._logs = [log for log, _ in self._due.values()]
        self._failed: set[tuple[str, int]] = set()
        for log in self._logs:
            log.listen(self._flushed)
        self.answer.add_done_callback(self._end)
        self._complete()

    def _flushed(self, size: int) -> None:
        if not size:
            for place, (log, _) in self._due.items():
                if log.closed or log.sync_error is not None:
                    self._failed.add(place)
        self._complete()

    def _complete(self) -> None:
        if self.answer.done():
            return
        self._due = {
            place: (log, end)
            for place, (log, end) in self._due.items()
            if place not in self._failed and log.stable_offset < end
        }
        if self._due:
            return
        for log in self._logs:
            self._api.note_storage(f"{log.directory}: {log.sync_error.strerror}" if log.sync_error is not None else "")
        produced = [
            (topic, [_refused(each) if (topic, each.partition) in self._failed else each for each in partitions])
            for topic, partitions in self._produced
        ]
        self.answer.set_result(write_produce(self._version, produced))

    def _end(self, _answer: asyncio.Future[Answer]) -> None:
        for log in self._logs:
            log.unlisten(self._flushed)


def _refused(partition: ProducedPartition) -> ProducedPartition:
    return ProducedPartition(partition.partition, ErrorCode.KAFKA_STORAGE_ERROR, -1, -1)


class _DelayedFetch:
    """A fetch that waits until enough records arrive, its time is over, or its connection cancels the response."""

    def __init__(self, api: RecordsApi, wanted: FetchRequest, version: int, size: int) -> None:
        self._api, self._wanted, self._version = api, wanted, version
        self._loop = asyncio.get_running_loop()
        self.answer: asyncio.Future[Answer] = self._loop.create_future()
        self._missing = wanted.min_bytes - size
        self._due = False
        self._logs = api.logs(wanted)
        for log in self._logs:
            log.listen(self._arrived)
        self._timer = self._loop.call_later(wanted.max_wait_ms / 1000, self._complete, True)
        self.answer.add_done_callback(self._end)

    def _arrived(self, size: int) -> None:
        self._missing -= size
        if (self._missing <= 0 or not size) and not self._due:  # size 0: the log was closed
            self._due = True
            self._loop.call_soon(self._complete)  # after the whole Produce request, for several partitions at once

    def _complete(self, timed_out: bool = False) -> None:
        self._due = False
        if self.answer.done():
            return
        fetched, size, settled = self._api.collect(self._wanted)
        if settled or timed_out or size >= self._wanted.min_bytes:
            self.answer.set_result(write_fetch(self._version, fetched))
        else:
            self._missing = self._wanted.min_bytes - size

    def _end(self, _answer: asyncio.Future[Answer]) -> None:
        self._timer.cancel()
        for log in self._logs:
            log.unlisten(self._arrived)

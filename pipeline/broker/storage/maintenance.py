"""Background tasks of the broker: sync records to disk, apply retention, compact; slow parts run on another thread."""

from __future__ import annotations

import asyncio
import logging
import math
import sqlite3
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final, TypeVar

from astrocyte.pipeline.broker.settings import BrokerSettings
from astrocyte.pipeline.broker.storage.catalogue import Catalogue
from astrocyte.pipeline.broker.storage.compaction import CleanedSegment, clean, compactable, swap
from astrocyte.pipeline.broker.storage.log import FlushJob, PartitionLog
from astrocyte.pipeline.broker.storage.segment import Segment
from astrocyte.pipeline.broker.storage.topics import Topics

__all__ = ["Maintenance"]

logger = logging.getLogger(__name__)

T = TypeVar("T")

_SYNCS: Final = 16
"""Files that are synced at once."""
_TOGETHER: Final = 64
"""Logs that are flushed in one round; each takes a descriptor for every file that is due."""


class Maintenance:
    """Runs as long as its broker; ``flush``, ``expire`` and ``compact`` can also be called directly."""

    def __init__(
        self, topics: Topics, catalogue: Catalogue, settings: BrokerSettings, now_ms: Callable[[], int]
    ) -> None:
        self._topics, self._catalogue, self._settings, self._now_ms = topics, catalogue, settings, now_ms
        self._flushing = asyncio.Lock()  # a flush must not run at the same time as another, or as stop
        self._compacting = asyncio.Lock()
        self._wanted = asyncio.Event()
        self._disk = ThreadPoolExecutor(_SYNCS, "sync")
        self._checkpointed_s = -math.inf
        self._tasks: list[asyncio.Task[None]] = []
        self._flush_fails = False

    def start(self) -> None:
        """Start the periodic tasks."""
        self._tasks = [asyncio.create_task(self._flush_rounds()), asyncio.create_task(self._cleaning_rounds())]

    async def stop(self) -> None:
        """Stop the tasks; no work runs on another thread after this."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        async with self._flushing, self._compacting:
            self._disk.shutdown()

    def flush_soon(self) -> None:
        """Records were appended; with the setting sync=always they are synced now."""
        self._wanted.set()

    async def flush(self) -> None:
        """Sync to disk all records appended before."""
        async with self._flushing:
            logs = list(self._topics.logs())
            for first in range(0, len(logs), _TOGETHER):
                await self._flush(logs[first : first + _TOGETHER])
            if time.monotonic() - self._checkpointed_s < self._settings.flush_interval_s:
                return
            try:
                await _to_the_end(self._catalogue.checkpoint)
            except sqlite3.Error as error:
                logger.warning("the catalogue cannot be synced to disk now: %s", error)
            self._checkpointed_s = time.monotonic()

    async def _flush(self, logs: list[PartitionLog]) -> None:
        begun = [(log, jobs) for log in logs if (jobs := log.begin_flush())]
        # At once: file systems bring what several threads wait for to disk together.
        running = [[self._disk.submit(_outcome, job) for job in jobs] for _, jobs in begun]
        await _all_done(running)
        for (log, _), done in zip(begun, running, strict=True):
            outcomes = [each.result() for each in done]
            failed = [(job, error) for job, error in outcomes if error is not None]
            log.end_flush(
                [job for job, error in outcomes if error is None],
                [job for job, _ in failed],
                failed[0][1] if failed else None,
            )
            if not log.closed:  # its topic may have been deleted meanwhile, and its folder with it
                self._note_flush(failed)

    def expire(self) -> None:
        """Remove segments beyond their retention."""
        for log in self._topics.logs():
            try:
                log.roll_if_aged()
                for path in log.expire():
                    logger.info("%s is beyond its retention and was removed", path)
            except OSError as error:
                logger.warning("%s: old segments cannot be removed now: %s", log.directory, error)

    async def compact(self) -> int:
        """Compact the logs that are due; returns the bytes saved."""
        saved = 0
        for log in self._topics.logs():
            if not log.config.compacted or log.closed:
                continue
            async with self._compacting:
                sources = compactable(log)
                if sources:
                    saved += await self._compact(log, sources)
        return saved

    async def _compact(self, log: PartitionLog, sources: list[Segment]) -> int:
        cleaned: list[CleanedSegment] = []
        try:
            cleaned = await _to_the_end(
                lambda: clean(
                    sources,
                    now_ms=self._now_ms(),
                    delete_retention_ms=log.config.delete_retention_ms,
                    segment_bytes=log.config.segment_bytes,
                )
            )
            saved = swap(log, cleaned)
        except (OSError, ValueError) as error:
            if not log.closed:
                logger.error("%s cannot be compacted now: %s", log.directory, error)
            for each in cleaned:
                each.draft.unlink(missing_ok=True)
            return 0
        logger.info("%s: compaction saved %d bytes", log.directory, saved)
        return saved

    def _note_flush(self, failed: list[tuple[FlushJob, OSError]]) -> None:
        if failed and not self._flush_fails:
            job, error = failed[0]
            logger.error("%s cannot be synced to disk: %s; each round retries", job.segment.path, error.strerror)
        self._flush_fails = bool(failed)

    async def _flush_rounds(self) -> None:
        while True:
            if self._settings.sync == "always":
                await self._wanted.wait()
                self._wanted.clear()
            else:
                await asyncio.sleep(self._settings.flush_interval_s)
            try:
                await self.flush()
                if any(log.dirty for log in self._topics.logs()):
                    asyncio.get_running_loop().call_later(self._settings.flush_interval_s, self._wanted.set)
            except Exception:
                logger.exception("a round of syncing records to disk failed; the next round retries")

    async def _cleaning_rounds(self) -> None:
        while True:
            await asyncio.sleep(self._settings.maintenance_interval_s)
            try:
                self.expire()
                self.flush_soon()  # only segments that are on disk are compacted
                await self.compact()
            except Exception:
                logger.exception("a round of retention and compaction failed; the next round retries")


Outcome = tuple[FlushJob, OSError | None]


def _outcome(job: FlushJob) -> Outcome:
    """Run a job; with the error if it failed."""
    try:
        job.run()
    except OSError as error:
        return job, error
    return job, None


async def _all_done(running: list[list[Future[Outcome]]]) -> None:
    await _finished(asyncio.gather(*(asyncio.wrap_future(each) for jobs in running for each in jobs)))


async def _to_the_end(work: Callable[[], T]) -> T:
    """Run on another thread and wait even if the task is cancelled: the same files must not be used meanwhile."""
    return await _finished(asyncio.get_running_loop().run_in_executor(None, work))


async def _finished(working: asyncio.Future[T]) -> T:
    try:
        return await asyncio.shield(working)
    except asyncio.CancelledError:
        await asyncio.wait([working])
        raise

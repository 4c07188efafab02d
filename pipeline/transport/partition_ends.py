"""Which partitions are at their ends, as far as the answers of the broker prove it.

A fetch that was answered with no records, for the offset at which the answer says that the partition ends, proves that
there was nothing to read. Two such answers for one offset prove that nothing arrived between them. This is evidence
only for the time in which fetches were answered: while the broker is unavailable or this process is stopped, producers
may have to wait, so a longer gap between two answers begins a new span.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from threading import Lock
from typing import Any, Final

from aiokafka.protocol.fetch import FetchRequest
from faust.types import TP

from astrocyte.pipeline.kafka.partition_end import AtEnd

__all__ = ["LONGEST_GAP_S", "PartitionEnds", "longest_gap_s", "observe_fetches"]

LONGEST_GAP_S: Final = 2.0
"""Longest time between two answers of one span. A busy worker fetches this often; one that stands still, or that waits
for its broker, does not."""
_WAITS: Final = 20
"""The same, in times for which the broker keeps a fetch open."""


class PartitionEnds:
    """Spans by partition. Written by the thread that fetches, read by any other."""

    def __init__(self, *, gap_s: float = LONGEST_GAP_S, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._gap_s = gap_s
        self._monotonic = monotonic
        self._spans: dict[TP, AtEnd] = {}
        self._lock = Lock()

    def at_end(self, partition: TP) -> AtEnd | None:
        """The span that still lasts, None if the partition's end is not known or was not asked for lately."""
        span = self._spans.get(partition)
        return None if span is None or self._monotonic() - span.until_s > self._gap_s else span

    def answered(self, partition: TP, offset: int, end: int | None, *, records: bool, sent_s: float) -> None:
        """A fetch from ``offset``, sent at ``sent_s``, was answered; ``end`` is None or negative where unknown.

        The time that counts is that of sending: an answer may have waited for a process that stood still.
        """
        with self._lock:
            known = self._spans.pop(partition, None)
            if end is None or end < 0:
                return
            goes_on = known is not None and sent_s - known.until_s <= self._gap_s
            still = goes_on and known is not None and not records and known.offset == offset == end
            self._spans[partition] = AtEnd(
                end,
                known.since_s if still and known is not None else sent_s,
                sent_s,
                known.reading_since_s if goes_on and known is not None else sent_s,
            )

    def interrupt(self, partitions: Iterable[TP]) -> None:
        """Spans of these partitions end: a fetch failed, or they are paused, placed anew or revoked."""
        with self._lock:
            for partition in partitions:
                self._spans.pop(partition, None)

    def interrupt_all(self) -> None:
        """All spans end, as at a rebalance."""
        with self._lock:
            self._spans.clear()


def longest_gap_s(fetch_max_wait_ms: int) -> float:
    """Longest time between two answers of one span, for fetches that the broker keeps open for so long."""
    return max(LONGEST_GAP_S, _WAITS * fetch_max_wait_ms / 1000)


def observe_fetches(fetcher: Any, ends: PartitionEnds, monotonic: Callable[[], float] = time.monotonic) -> None:
    """Let ``ends`` see each answer that aiokafka's fetcher gets; call it before partitions are assigned.

    aiokafka keeps the high watermark of the last answer, but not when it came, and not whether one came at all.
    """
    fetcher._client = _ObservedClient(fetcher._client, ends, monotonic)


class _ObservedClient:
    """aiokafka's client as the fetcher sees it."""

    def __init__(self, client: Any, ends: PartitionEnds, monotonic: Callable[[], float]) -> None:
        self._client = client
        self._ends = ends
        self._monotonic = monotonic

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    async def send(self, node_id: int, request: Any, **options: Any) -> Any:
        if not isinstance(request, FetchRequest):
            return await self._client.send(node_id, request, **options)
        offsets = {TP(topic, partition): offset for topic, rows in request.topics for partition, offset, *_ in rows}
        sent_s = self._monotonic()
        try:
            response = await self._client.send(node_id, request, **options)
        except BaseException:
            self._ends.interrupt(offsets)
            raise
        for topic, rows in response.topics:
            for partition, error, end, *rest in rows:
                place = TP(topic, partition)
                if error or place not in offsets:
                    self._ends.interrupt([place])
                else:
                    # Records of a transaction that is still open are not delivered, but the end lies after them.
                    self._ends.answered(place, offsets[place], end, records=bool(rest[-1]), sent_s=sent_s)
        return response

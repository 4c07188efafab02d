"""When a worker that is behind leaves out events: decided by its lag, written to `control.sampling`, then applied.

Each decision names the offsets for which it holds, and none of them is read before the broker has the decision. So a
worker that goes on after a crash finds what was decided for each offset that the life before may have read: it reads
these decisions, and makes its own for the offsets behind them. While nothing is left out, that is decided as well, for
some offsets ahead.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import Any, Final

import orjson

from astrocyte.agents.ingest.overload import Interval, RecordedDecisions
from astrocyte.agents.rules.streams import Overload
from astrocyte.pipeline.kafka.client import consumer_client, scan, topic_partitions
from astrocyte.pipeline.kafka.offsets import Start
from astrocyte.pipeline.kafka.record import ConsumedRecord
from astrocyte.pipeline.roles.correlation.partition import Partition
from astrocyte.pipeline.transport.chunk import Chunk
from astrocyte.pipeline.transport.producer_record import ProducerRecord
from astrocyte.schemas.topics import SAMPLING, TopicPartition

__all__ = ["DecisionReader", "OverloadControl", "decisions_since"]

logger = logging.getLogger(__name__)

DecisionReader = Callable[[int], AsyncIterator[list[ConsumedRecord]]]
"""The records of `control.sampling` from an offset on."""
_AHEAD_SHARE: Final = 4
"""Part of the lag at which a policy begins for which decisions are made ahead: by so much it may begin later."""
_LEAST_AHEAD: Final = 64
"""The same in records, where that lag is a time."""


class OverloadControl:
    """Decides for the domains of a worker. ``policies`` are by topic, and leave out events.

    ``known_end`` is the end of a partition as far as fetches have found it.
    """

    def __init__(
        self,
        policies: Mapping[str, Overload],
        send_batch: Callable[[str, int, Sequence[ProducerRecord]], Awaitable[Sequence[asyncio.Future[Any]]]],
        read: DecisionReader,
        *,
        role: str,
        known_end: Callable[[TopicPartition], int] = lambda _place: 0,
        now_us: Callable[[], int] = lambda: time.time_ns() // 1000,
    ) -> None:
        self.policies = policies
        self._send_batch = send_batch
        self._read = read
        self._role = role
        self._known_end = known_end
        self._now_us = now_us

    async def decide(self, part: Partition, chunk: Chunk) -> None:
        """Make sure that there is a decision for each offset of a chunk, and that the broker has it."""
        if not part.decided and (self.policies or part.domain.leaving_out.known):
            await self._take_up(part)
        policy = self.policies.get(chunk.topic)
        if policy is None:
            return
        schedule = part.domain.leaving_out.schedule(chunk.topic)
        end = int(chunk.records[-1].offset) + 1
        first = max(int(chunk.records[0].offset), schedule.end)
        if end <= first:
            return
        lag, before = self._lag(policy, chunk, first), schedule.last
        exceeded = lag > (policy.begins_above if before == "block" else policy.ends_below)
        ahead = _LEAST_AHEAD if policy.by_age else policy.begins_above // _AHEAD_SHARE
        chosen: list[Interval] = []
        if not exceeded:
            chosen = [Interval(first, end + ahead, "block")]
        elif policy.policy == "sample":
            chosen = [Interval(first, end + ahead, "sample", policy.share or 1.0)]
        elif policy.policy == "latest":
            chosen = [Interval(first, end, "latest")]
        else:
            kept = min(max(first, self._first_kept(policy, chunk)), end)
            chosen = [Interval(first, kept, "drop_oldest"), Interval(kept, end, "block")]
        for interval in chosen:
            if interval.first < interval.end:
                await self._write(part, chunk.topic, interval, lag, policy)
                schedule.add(interval)
        if chosen[0].policy != before:
            self._say(part, chunk, chosen[0], lag, policy)

    def _lag(self, policy: Overload, chunk: Chunk, first: int) -> int:
        """Records from an offset to the end of the partition, or the age of a chunk's first record in microseconds."""
        if policy.by_age:
            return max(0, self._now_us() - int(chunk.records[0].timestamp) * 1000)
        return max(0, self._end_of(chunk) - first)

    def _first_kept(self, policy: Overload, chunk: Chunk) -> int:
        """The offset from which on the lag is small enough."""
        if not policy.by_age:
            return self._end_of(chunk) - policy.ends_below
        since_ms = (self._now_us() - policy.ends_below) // 1000
        young = (int(each.offset) for each in chunk.records if int(each.timestamp) >= since_ms)
        return next(young, chunk.last_offset + 1)

    def _end_of(self, chunk: Chunk) -> int:
        """End of the partition, as the newest fetch found it: what is in the worker's queues is not processed yet."""
        return max(chunk.highwater, self._known_end(TopicPartition(chunk.topic, chunk.partition)))

    async def _take_up(self, part: Partition) -> None:
        """Say that this life of the domain begins, and take over what was decided before."""
        domain = (self._role, part.domain.partition)
        known = RecordedDecisions({domain: part.decided_by} if part.decided_by else None)
        end = await self._record(part, {"begins": True})
        async for records in self._read(part.decided_from):
            for record in records:
                found = known.read(record.value)
                if found is not None and (found[0], found[1].partition) == domain:
                    part.domain.leaving_out.schedule(found[1].topic).add(found[2])
        part.decided, part.decided_by, part.decided_from = True, part.life, end

    async def _write(self, part: Partition, topic: str, interval: Interval, lag: int, policy: Overload) -> None:
        body = {
            "topic": topic,
            "from": interval.first,
            "until": interval.end,
            "policy": interval.policy,
            "share": policy.share if interval.policy == "sample" else None,
            "lag": lag,
            "unit": "us" if policy.by_age else "records",
            "above": policy.begins_above,
            "below": policy.ends_below,
        }
        part.decided_from = await self._record(part, body)

    async def _record(self, part: Partition, body: Mapping[str, Any]) -> int:
        """Offset after a record; returns when the broker has it."""
        head = {"role": self._role, "partition": part.domain.partition, "life": part.life}
        key = f"{self._role}/{part.domain.partition}".encode()
        record = ProducerRecord(SAMPLING, orjson.dumps(head | dict(body)), key, 0)
        (future,) = await self._send_batch(SAMPLING, 0, [record])
        metadata = await future
        return int(metadata.offset) + 1

    def _say(self, part: Partition, chunk: Chunk, interval: Interval, lag: int, policy: Overload) -> None:
        behind = f"{lag / 1e6:,.1f} s behind" if policy.by_age else f"{lag:,} records behind"
        place = f"{chunk.topic}[{chunk.partition}] from offset {interval.first:,}"
        if interval.policy != "block":
            share = f" {policy.share:g}" if interval.policy == "sample" else ""
            logger.warning("%s: %s, events are left out (overload: %s%s)", place, behind, interval.policy, share)
            return
        so_far = sum(counts.total() for counts in part.domain.leaving_out.counts.values())
        logger.warning(
            "%s: %s, nothing is left out any more (%s events so far, of all streams of this partition)",
            place, behind, f"{so_far:,}",
        )  # fmt: skip


async def decisions_since(broker: str, offset: int) -> AsyncIterator[list[ConsumedRecord]]:
    """The records of `control.sampling` from an offset on, to its present end."""
    if SAMPLING not in await topic_partitions(broker):
        return
    async with consumer_client(broker) as client:
        async for records in scan(client, {SAMPLING: 1}, start=Start("offset", offset)):
            yield records

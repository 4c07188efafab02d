"""The topics of a broker as the source of a page, live."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Any, Final

from astrocyte.pipeline.analysis.origins import BrokerOrigin
from astrocyte.pipeline.kafka.client import BrokerUnavailable, consumer_client, record_of, topic_partitions
from astrocyte.pipeline.kafka.record import ConsumedRecord
from astrocyte.pipeline.page.content.state import PageState, is_read
from astrocyte.pipeline.page.content.worlds import SAMPLES
from astrocyte.pipeline.page.sources.messages import Newest, newest_of_broker
from astrocyte.pipeline.page.sources.run_frames import BrokerFrames, RunFrames
from astrocyte.pipeline.page.sources.source import Lineages, Reader
from astrocyte.pipeline.recording.dead_letters import Retried, retry
from astrocyte.pipeline.roles.health import group_health
from astrocyte.pipeline.settings import Settings
from astrocyte.pipeline.watch.ask import WorkerUnreachable, roles_of_worker
from astrocyte.schemas.arrow.messages import holds_no_rows
from astrocyte.schemas.errors import AstrocyteError
from astrocyte.schemas.events import DeadLetter
from astrocyte.schemas.topics import MONO_PREFIX, SIMULATIONS, STATS, is_derived, mono_topic

if TYPE_CHECKING:
    from aiokafka import AIOKafkaConsumer, TopicPartition

__all__ = ["BrokerSource"]

_POLL_S: Final = 1.0
_FETCH: Final = {"fetch_min_bytes": 1 << 20, "fetch_max_wait_ms": 500}
"""An answer with a few messages costs as much as one with many, and a poll wants those of a second."""
_MOST_RECORDS: Final = 5_000
"""Messages of one poll."""
_TOPICS_S: Final = 10.0
"""Between looks for new topics and at the health of the roles, which ask much of a broker. Sooner while it has none."""
_SAMPLED: Final = frozenset(map(mono_topic, SAMPLES))
_MOST_SAMPLES: Final = 8
"""Messages of a partition of such a stream that are decoded of one poll."""
_RETRY_S: Final = 2.0


class BrokerSource:
    """Everything from ``history_us`` ago on (all that there is without it), and what comes.

    Of the topics that the pipeline writes or knows, and of ``inputs``, which its rules read: those of other programs
    on the broker are left alone. ``demo`` is the folder of the demo whose broker this is.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        inputs: Collection[str] = (),
        history_us: int | None = None,
        demo: Path | None = None,
    ) -> None:
        self._settings = settings
        self._demo = demo
        self._inputs = frozenset(inputs)
        self._history_us = history_us
        self._positions: dict[TopicPartition, int] = {}
        self._problem = ""

    @property
    def logs(self) -> Sequence[Path]:
        """See `Source`."""
        return ()

    def about(self) -> Mapping[str, Any]:
        """See `Source`."""
        broker = self._settings.broker
        about = {"kind": "broker", "name": broker, "live": True, "note": self._problem}
        if self._demo is not None:
            return about | {"again": f"astrocyte page {quote(str(self._demo))}", "demo": True}
        named = "" if broker == Settings.model_fields["broker"].default else f" -b {quote(broker)}"
        start = f"astrocyte simulate cells --seconds 60 --realtime{named}"
        return about | {"again": f"astrocyte page{named}", "start": start}

    def frames(self, run: str, streams: Sequence[str]) -> RunFrames:
        """See `Source`."""
        return BrokerFrames(self._settings, run, streams, self._history_us)

    async def newest(self, wanted: Newest) -> list[ConsumedRecord]:
        """See `Source`."""
        return await newest_of_broker(self._settings.broker, wanted)

    async def send_again(self, letter: DeadLetter) -> Retried:
        """Send what a letter holds to its topic, unless it was sent before. Raises BrokerUnavailable."""
        return await retry(self._settings.broker, [letter], replication=self._settings.replication)

    def origins(self) -> Sequence[Lineages]:
        """See `Source`."""
        return (BrokerOrigin(self._settings.broker),)

    async def feed(self, page: Reader) -> None:
        """See `Source`; a broker that is away is tried again."""
        while True:
            await page.wait_for_looks()
            try:
                await self._follow(page)
            except BrokerUnavailable as error:
                self._problem = str(error)
            await asyncio.sleep(_RETRY_S)

    async def _follow(self, page: Reader) -> None:
        """Read until nobody looks any more."""
        async with consumer_client(self._settings.broker, **_FETCH) as client:
            self._problem = ""
            looked_s = -_TOPICS_S
            while page.is_looked_at:
                if time.monotonic() - looked_s >= (_TOPICS_S if self._positions else _RETRY_S):
                    there = await topic_partitions(self._settings.broker)
                    counts = {topic: there[topic] for topic in there if self._concerns(topic)}
                    await self._assign(client, counts)
                    page.figures("health", await self._health())
                    looked_s = time.monotonic()
                began_s = time.monotonic()
                await self._count(client, counts, page)
                while records := await self._poll(client):
                    await page.take_records(records)
                    if len(records) < _MOST_RECORDS:
                        break
                await asyncio.sleep(max(_POLL_S - (time.monotonic() - began_s), 0.05))

    def _concerns(self, topic: str) -> bool:
        return topic in self._inputs or topic == SIMULATIONS or topic.startswith(MONO_PREFIX) or is_derived(topic)

    async def _assign(self, client: AIOKafkaConsumer, counts: Mapping[str, int]) -> None:
        from aiokafka import TopicPartition

        wanted = {
            TopicPartition(topic, number) for topic in counts if is_read(topic) for number in range(counts[topic])
        }
        if wanted == set(client.assignment()):
            return
        kept = {place: await client.position(place) for place in client.assignment() & wanted}
        client.assign(list(wanted))
        known = self._positions | kept
        new = [place for place in wanted if place not in known]
        begins = await client.beginning_offsets(new) if new else {}
        if self._history_us is not None and new:
            since_ms = int(time.time() * 1000 - self._history_us / 1000)
            found = await client.offsets_for_times({place: since_ms for place in new if place.topic != STATS})
            ends = await client.end_offsets(list(found)) if found else {}
            begins |= {place: ends[place] if each is None else each.offset for place, each in found.items()}
        for place in wanted:
            client.seek(place, known.get(place, begins.get(place, 0)))

    async def _poll(self, client: AIOKafkaConsumer) -> list[ConsumedRecord]:
        if not client.assignment():
            return []
        records: list[ConsumedRecord] = []
        for place, messages in (await client.getmany(timeout_ms=0, max_records=_MOST_RECORDS)).items():
            self._positions[place] = messages[-1].offset + 1
            if place.topic in _SAMPLED:
                messages = [each for each in messages if each.value and not holds_no_rows(each.value)]
                messages = messages[:: max(-(-len(messages) // _MOST_SAMPLES), 1)]
            records += [record_of(message) for message in messages]
        return records

    async def _count(self, client: AIOKafkaConsumer, counts: Mapping[str, int], page: Reader) -> None:
        """Messages of all topics by the ends of their partitions, also of those that are not read."""
        from aiokafka import TopicPartition

        places = [TopicPartition(topic, number) for topic, count in counts.items() for number in range(count)]
        if not places:
            return
        sums: dict[str, int] = defaultdict(int)
        for place, end in (await client.end_offsets(places)).items():
            sums[place.topic] += end
        now_us = time.time_ns() // 1000

        def change(state: PageState) -> None:
            state.traffic.ended(sums, now_us)

        await page.take(change)

    async def _health(self) -> Mapping[str, Any]:
        """Members, state and lag by role; with a metrics port also what the worker there says of itself."""
        try:
            found = await group_health(self._settings)
        except BrokerUnavailable:
            raise
        except AstrocyteError as error:
            return {"problem": str(error), "roles": {}}
        if self._settings.metrics_port:
            try:
                for role, process in (await asyncio.to_thread(roles_of_worker, self._settings)).items():
                    found.setdefault(role, {})["process"] = process
            except WorkerUnreachable as error:
                return {"problem": str(error), "roles": found}
        return {"problem": "", "roles": found}

"""What the sink roles store of a recorded log: their own runner over its messages, with real sinks in a folder."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from astrocyte.agents.rules.model import RuleSet
from astrocyte.agents.sinks.base import Sink
from astrocyte.agents.sinks.influx.file import InfluxFileSink
from astrocyte.agents.sinks.sql.sink import SqlSink
from astrocyte.pipeline.kafka.record import ConsumedRecord
from astrocyte.pipeline.recording.frames import raw_record
from astrocyte.pipeline.roles.acceptance import Acceptance
from astrocyte.pipeline.roles.sink.runner import SinkRunner
from astrocyte.pipeline.topology.plan import contracts_of, decoders_of
from astrocyte.pipeline.topology.topics import RECORD_TOPICS

__all__ = ["Messages", "store_in", "store_in_sql", "store_messages", "store_points"]

Messages = dict[tuple[str, int], list[Any]]
"""By topic and partition, as sinks read them."""


def store_in_sql(address: str, ruleset: RuleSet, records: Iterable[ConsumedRecord]) -> None:
    """Write the messages to a database, as the role ``sql`` does."""
    asyncio.run(store_in(SqlSink(address, now_us=lambda: 1), "sql", ruleset, records))


def store_points(folder: Path, ruleset: RuleSet, records: Iterable[ConsumedRecord]) -> None:
    """Write the points of the messages to files, as the role ``influx`` does."""
    asyncio.run(store_in(InfluxFileSink(folder), "influx", ruleset, records))


async def store_in(sink: Sink, role: str, ruleset: RuleSet, records: Iterable[ConsumedRecord]) -> None:
    """Write the messages to a sink, as its role does."""
    messages: Messages = {}
    for each in records:
        messages.setdefault((each.topic, each.partition), []).append(raw_record(each))
    await store_messages(sink, role, ruleset, messages)


async def store_messages(sink: Sink, role: str, ruleset: RuleSet, messages: Messages, *, partitions: int = 2) -> None:
    """Write messages, which are given by topic and partition, to a sink; events first, as they are the first to come.

    Fails where the role would write a dead letter.
    """

    async def deliver(letters: Iterable[Any]) -> None:
        assert not list(letters)

    runner = SinkRunner(
        sink, deliver, partitions=partitions, stage=role, decoders=decoders_of(contracts_of(ruleset)),
        acceptance=Acceptance(ruleset),
    )  # fmt: skip
    await sink.open()
    for (topic, partition), records in sorted(messages.items(), key=lambda item: item[0][0] in RECORD_TOPICS):
        chunk = SimpleNamespace(topic=topic, partition=partition)
        await runner.handle(chunk, SimpleNamespace(ack_through=lambda: True), records)  # type: ignore[arg-type]
        await runner.finish()
    await sink.close()

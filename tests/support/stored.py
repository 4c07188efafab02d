"""What the sink roles store of a recorded log: their own runner over its messages, with real sinks in a folder."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
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

__all__ = ["store_in", "store_in_sql", "store_points"]

Messages = dict[tuple[str, int], list[Any]]


def store_in_sql(address: str, ruleset: RuleSet, records: Iterable[ConsumedRecord]) -> None:
    """Write the messages to a database, as the role ``sql`` does."""
    asyncio.run(store_in(SqlSink(address, now_us=lambda: 1), "sql", ruleset, records))


def store_points(folder: Path, ruleset: RuleSet, records: Iterable[ConsumedRecord]) -> None:
    """Write the points of the messages to files, as the role ``influx`` does."""
    asyncio.run(store_in(InfluxFileSink(folder), "influx", ruleset, records))


def _by_place(records: Iterable[ConsumedRecord]) -> Messages:
    messages: Messages = {}
    for each in records:
        messages.setdefault((each.topic, each.partition), []).append(raw_record(each))
    return messages


async def store_in(sink: Sink, role: str, ruleset: RuleSet, records: Iterable[ConsumedRecord]) -> None:
    """Write the messages to a sink, as its role does."""
    messages = _by_place(records)

    async def deliver(letters: Sequence[Any]) -> None:
        assert not list(letters)

    await sink.open()
    runner = SinkRunner(
        sink, deliver, partitions=2, stage=role, decoders=decoders_of(contracts_of(ruleset)),
        acceptance=Acceptance(ruleset),
    )  # type: ignore[arg-type]  # fmt: skip
    for (topic, partition), records in sorted(messages.items(), key=lambda item: item[0][0] in RECORD_TOPICS):
        chunk = SimpleNamespace(topic=topic, partition=partition)
        await runner.handle(chunk, SimpleNamespace(ack_through=lambda: True), records)  # type: ignore[arg-type]
    await runner.finish()
    await sink.close()

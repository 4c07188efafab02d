"""A Faust app for tests of the transport: ``faust -A tests.support.transport_app worker`` with its options in T_*.

It writes what happens to it as JSON lines to T_OUT.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import faust

from astrocyte.pipeline.transport.transport import (
    TP,
    ProducerRecord,
    TransportOptions,
    ack_handle,
    app_settings,
    configure,
    confirm,
)

OPTIONS = {name[2:].lower(): value for name, value in os.environ.items() if name.startswith("T_")}
OUT = Path(OPTIONS["out"]).open("a", buffering=1)  # noqa: SIM115  open as long as the process lives

app = faust.App(
    OPTIONS["group"],
    datadir=OPTIONS["data"],
    **app_settings(
        OPTIONS["broker"],
        broker_max_poll_records=int(OPTIONS["max_poll"]) if "max_poll" in OPTIONS else None,
        broker_commit_interval=float(OPTIONS.get("commit_interval", "0.1")),
        broker_session_timeout=2.0,
        broker_heartbeat_interval=0.3,
    ),
)
HELD = []


def say(**what: Any) -> None:
    """Write one line."""
    OUT.write(json.dumps(what) + "\n")


async def on_assigned(committed):
    """Start at the offset T_SEEK."""
    say(event="assigned", committed=sorted([*tp, offset] for tp, offset in committed.items()))
    return {tp: int(OPTIONS["seek"]) for tp in committed} if "seek" in OPTIONS else None


async def on_revoked(partitions):
    """Acknowledge held deliveries if T_ACK_AT_REVOCATION is set."""
    say(event="revoked", partitions=sorted(partitions))
    if "ack_at_revocation" in OPTIONS:
        for handle in HELD:
            handle.ack()


configure(app, TransportOptions(on_assigned=on_assigned, on_revoked=on_revoked))
HOLD = {int(offset) for offset in OPTIONS.get("hold", "").split(",") if offset}
topic = app.topic(*OPTIONS["topics"].split(","), value_serializer=OPTIONS.get("serializer", "raw"))


@app.agent(topic)
async def read(stream):
    """Acknowledge every chunk, but those that hold an offset of T_HOLD."""
    async for event in stream.noack().events():
        chunk = event.value
        if not hasattr(chunk, "records"):
            say(event="record", offset=event.message.offset, value=str(chunk))
            event.ack()
            continue
        say(event="chunk", topic=chunk.topic, partition=chunk.partition, offsets=[row.offset for row in chunk])
        if "take_turns" in OPTIONS:
            # After a chunk of one partition comes one of the other.
            this, other = TP(chunk.topic, chunk.partition), TP(chunk.topic, 1 - chunk.partition)
            app.consumer.resume([other])
            app.consumer.pause([this])
        if int(OPTIONS.get("fail_at", "-1")) in [row.offset for row in chunk]:
            raise RuntimeError("the agent of the test fails")
        if "copy_to" in OPTIONS:
            await confirm(app, [ProducerRecord(OPTIONS["copy_to"], row.value, row.key) for row in chunk])
            # The other way to produce, of any Faust agent; the second await is for the broker's confirmation.
            await (await app.topic(OPTIONS["copy_to"]).send(value=b"sent", partition=0))
        if HOLD.isdisjoint(row.offset for row in chunk):
            event.ack()
        else:
            HELD.append(ack_handle(event))
            say(event="held", offset=chunk.first_offset)

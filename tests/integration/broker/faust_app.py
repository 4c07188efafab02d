"""A Faust app on the stock aiokafka driver: records what it reads, and with TABLE=1 counts it in a table."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import faust

seen = Path(os.environ["SEEN"])
app = faust.App(
    "counting",
    broker=f"kafka://{os.environ['BROKER']}",
    datadir=os.environ["DATADIR"],
    store="memory://",
    topic_partitions=4,
    topic_replication_factor=1,
    topic_allow_declare=True,
    broker_session_timeout=4.0,
    broker_heartbeat_interval=0.2,
    broker_commit_interval=0.1,
    stream_wait_empty=False,
    web_enabled=False,
)
numbers = app.topic("numbers", key_serializer="raw", value_serializer="raw", partitions=4)
counts = app.Table("counts", default=int, partitions=4) if os.environ.get("TABLE") else Counter()


@app.agent(numbers)
async def count(stream):
    with seen.open("a", buffering=1) as file:
        async for event in stream.events():
            key = event.key.decode()
            counts[key] += 1
            message = event.message
            file.write(f"{message.partition} {message.offset} {key} {counts[key]}\n")


@app.on_partitions_assigned.connect
async def assigned(_app, assigned, **_kwargs):
    mine = sorted(tp.partition for tp in assigned if tp.topic == "numbers")
    seen.with_suffix(".assigned").write_text(" ".join(map(str, mine)))


if __name__ == "__main__":
    app.main()

"""Send each line of a file to a topic as a message.

Lines are JSON objects, or rows below a header line of a file with the ending .csv. The member or column of --key
is the message's key, by which Kafka chooses the partition. Any other Kafka producer does as well.
"""

import argparse
import asyncio
import csv
import json
import os
from collections.abc import Iterator
from pathlib import Path

from aiokafka import AIOKafkaProducer


def messages(file: Path, key: str) -> Iterator[tuple[str, str]]:
    """Key and value of each message."""
    header, *rows = file.read_text().splitlines()
    if file.suffix == ".csv":
        column = header.split(",").index(key)
        yield from ((next(csv.reader([row]))[column], row) for row in rows)
    else:
        yield from ((str(json.loads(line)[key]), line) for line in (header, *rows))


async def send(file: Path, topic: str, key: str, broker: str) -> int:
    """Send all messages in the order of the file; returns their number."""
    count = 0
    async with AIOKafkaProducer(bootstrap_servers=broker, enable_idempotence=True) as producer:
        for name, value in messages(file, key):
            await producer.send(topic, value.encode(), key=name.encode())
            count += 1
    return count


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Send each line of a file to a topic.")
    parser.add_argument("file", type=Path)
    parser.add_argument("topic")
    parser.add_argument("--key", required=True, help="member or column that is the key of a message")
    parser.add_argument("--broker", default=os.environ.get("ASTROCYTE_BROKER", "127.0.0.1:9092"))
    given = parser.parse_args()
    print(asyncio.run(send(given.file, given.topic, given.key, given.broker)), "messages sent to", given.topic)

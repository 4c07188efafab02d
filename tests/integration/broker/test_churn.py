"""Churn on the embedded broker: members come, go and die, topics are made and deleted, connections break off."""

from __future__ import annotations

import os
import random
import socket
import struct
import subprocess
import threading
import time
from pathlib import Path

import pytest
from confluent_kafka import Consumer, Producer
from confluent_kafka.admin import AdminClient, NewTopic

from astrocyte.pipeline.broker import BrokerProcess
from tests.support.broker import kcat
from tests.support.clients import make_topic
from tests.support.waiting import wait_until

PARTITIONS = 6
KEPT = "kept"
MEMBERS = 4
TOPICS = 8


BROKEN = (struct.pack(">i", 1000) + b"\0\3", b"GET / HTTP/1.1\r\n\r\n", struct.pack(">i", -1), b"")


class Churn:
    """What clients do to a broker, drawn from a seed; what they have read of the topic that stays."""

    def __init__(self, address: str, rng: random.Random) -> None:
        self.address, self.rng = address, rng
        self.read: set[bytes] = set()
        self.sent = 0
        self.failed: list[str] = []
        self.members: list[tuple[threading.Thread, threading.Event]] = []
        self.doomed: list[subprocess.Popen[bytes]] = []
        self.topics: list[str] = []
        self.made = self.deleted = self.joined = self.killed = 0
        self.admin = AdminClient({"bootstrap.servers": address})
        self.producer = Producer({"bootstrap.servers": address, "linger.ms": 5, "enable.idempotence": True})

    def send(self, count: int) -> None:
        for _ in range(count):
            self.producer.produce(KEPT, b"%d" % self.sent, key=b"%d" % self.sent, on_delivery=self._delivered)
            self.sent += 1
        self.producer.poll(0)

    def _delivered(self, error, message) -> None:
        if error is not None:
            self.failed.append(str(error))

    def join(self) -> None:
        """One more member, or one that commits nothing and will be killed."""
        if self.members and self.rng.random() < 0.25:
            options = {"enable.auto.commit": "false", "auto.offset.reset": "earliest", "session.timeout.ms": "6000"}
            given = [part for name, value in options.items() for part in ("-X", f"{name}={value}")]
            self.doomed.append(
                subprocess.Popen(
                    [kcat(), "-b", self.address, "-q", "-G", "members", *given, KEPT],
                    stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                )
            )  # fmt: skip
            return
        stop = threading.Event()
        thread = threading.Thread(target=self._member, args=(stop,), daemon=True)
        thread.start()
        self.members.append((thread, stop))
        self.joined += 1

    def leave(self) -> None:
        if self.doomed:
            doomed = self.doomed.pop()
            doomed.kill()
            doomed.wait()
            self.killed += 1
            return
        thread, stop = self.members.pop(self.rng.randrange(len(self.members)))
        stop.set()
        thread.join(60)
        assert not thread.is_alive()

    def _member(self, stop: threading.Event) -> None:
        """Notes what it has read, then commits it."""
        consumer = Consumer(
            {
                "bootstrap.servers": self.address, "group.id": "members", "auto.offset.reset": "earliest",
                "session.timeout.ms": 6000, "heartbeat.interval.ms": 200, "enable.auto.commit": False,
                "topic.metadata.refresh.interval.ms": 500,
            }
        )  # fmt: skip
        consumer.subscribe([KEPT])
        while not stop.is_set():
            for message in consumer.consume(50, 0.1):
                if message.error() is None:
                    self.read.add(message.value())
                    consumer.commit(message=message, asynchronous=True)
        consumer.close()

    def make_topic(self) -> None:
        name = f"short-{self.made}"
        self.made += 1
        self.admin.create_topics([NewTopic(name, self.rng.randrange(1, 9))])[name].result(30)
        for number in range(self.rng.randrange(20)):
            self.producer.produce(name, b"x" * 100, key=b"%d" % number)
        self.topics.append(name)

    def delete_topic(self) -> None:
        self.producer.flush(30)
        name = self.topics.pop(self.rng.randrange(len(self.topics)))
        self.admin.delete_topics([name])[name].result(30)
        self.deleted += 1

    def break_off(self) -> None:
        """A connection that ends inside a request, or sends what is none."""
        host, port = self.address.rsplit(":", 1)
        with socket.create_connection((host, int(port)), timeout=30) as connection:
            connection.sendall(
                self.rng.choice(
                    [struct.pack(">i", 1000) + b"\0\3", b"GET / HTTP/1.1\r\n\r\n", struct.pack(">i", -1), b""]
                )
            )

    def step(self) -> None:
        """One thing that clients do, while records are sent."""
        self.send(20)
        actions = [self.break_off]
        actions += [self.join] if len(self.members) < MEMBERS else []
        actions += [self.leave] if len(self.members) + len(self.doomed) > 1 else []
        actions += [self.make_topic] * 2 if len(self.topics) < TOPICS else []
        actions += [self.delete_topic] if self.topics else []
        self.rng.choice(actions)()

    def close(self) -> None:
        """Clients that see their broker end would log each attempt to reach it."""
        del self.producer, self.admin

    def end(self) -> None:
        while self.members or self.doomed:
            self.leave()
        self.producer.flush(30)


def _folders(data: Path) -> set[str]:
    return {path.name for path in (data / "topics").iterdir()}


def _descriptors(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


def _memory_mb(pid: int) -> int:
    text = Path(f"/proc/{pid}/status").read_text()
    return int(text.partition("VmRSS:")[2].split()[0]) >> 10


@pytest.mark.parametrize(
    "seconds",
    [
        pytest.param(5, marks=pytest.mark.time_limit(90, "a member that died is noticed after six seconds")),
        pytest.param(1800, marks=pytest.mark.soak),
    ],
)
def test_clients_that_come_and_go_and_topics_that_are_made_and_deleted_lose_nothing(seconds, tmp_path, search_seed):
    folder = tmp_path / "data"
    with BrokerProcess(folder, default_partitions=PARTITIONS, initial_rebalance_delay_s=0.1) as broker:
        churn = Churn(broker.address, random.Random(search_seed))
        try:
            make_topic(broker.address, KEPT, PARTITIONS)
            churn.join()
            end_s, steps, memory_mb = time.monotonic() + seconds, 0, 0
            while time.monotonic() < end_s:
                churn.step()
                steps += 1
                if steps == 50:
                    memory_mb = _memory_mb(broker.pid)
            churn.producer.flush(30)
            wait_until(
                lambda: len(churn.read) == churn.sent, 60, lambda: f"{len(churn.read)} of {churn.sent} were read"
            )
        finally:
            churn.end()
        assert not churn.failed
        assert churn.joined >= 2
        assert churn.deleted >= 1
        assert set(churn.admin.list_topics(timeout=30).topics) == {KEPT, *churn.topics}
        while churn.topics:
            churn.delete_topic()
        wait_until(lambda: _folders(folder) == {KEPT}, 30, lambda: f"folders of {_folders(folder)} are left")
        wait_until(lambda: _descriptors(broker.pid) < 60, 30, lambda: f"{_descriptors(broker.pid)} files are open")
        assert not memory_mb or _memory_mb(broker.pid) < memory_mb + 100
        churn.close()
        assert broker.stop() == 0

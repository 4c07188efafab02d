"""Stock Faust workers on the broker."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from confluent_kafka import Producer

from pipeline.broker import BrokerProcess
from tests.support.broker import wait_until

APP = Path(__file__).with_name("faust_app.py")


class Worker:
    """A Faust worker as a process; what it saw and was assigned is in files of its own."""

    def __init__(self, folder, name, address):
        self.seen_in, self.log = folder / f"{name}.seen", folder / f"{name}.log"
        self.seen_in.touch()
        environment = os.environ | {"BROKER": address, "SEEN": str(self.seen_in), "DATADIR": str(folder / name)}
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, str(APP), "worker", "-l", "info", "--without-web"],
                env=environment, stdout=log, stderr=log, cwd=folder,
            )  # fmt: skip

    def seen(self):
        return [tuple(line.split()) for line in self.seen_in.read_text().splitlines() if line.count(" ") == 3]

    def assigned(self):
        path = self.seen_in.with_suffix(".assigned")
        return path.read_text().split() if path.exists() else None

    def end(self, *, by_force=False):
        (self.process.kill if by_force else self.process.terminate)()
        self.process.wait(30)


@pytest.fixture
def start_worker(tmp_path):
    workers = []

    def start(name, address):
        workers.append(Worker(tmp_path, name, address))
        return workers[-1]

    yield start
    for worker in workers:
        worker.process.kill()
        worker.process.wait()


def test_two_workers_share_the_work_come_and_go_and_outlive_the_broker(tmp_path, start_worker):
    """Join, leave, kill -9 of the broker and of a worker: each record is seen, the table keeps all."""
    with BrokerProcess(tmp_path / "data", default_partitions=4, initial_rebalance_delay_s=0.1) as broker:
        sent = 0
        producer = Producer({"bootstrap.servers": broker.address, "enable.idempotence": True, "log_level": 0})

        def send(count):
            nonlocal sent
            for i in range(sent, sent + count):
                producer.produce("numbers", b"%d" % i, key=b"key-%d" % (i % 20))
            assert producer.flush(30) == 0
            sent += count

        def positions(*workers):
            return {(partition, offset) for worker in workers for partition, offset, _, _ in worker.seen()}

        send(200)
        first = start_worker("first", broker.address)
        wait_until(lambda: len(positions(first)) == 200, timeout_s=60, what="all records at one worker")
        second = start_worker("second", broker.address)
        wait_until(
            lambda: len(first.assigned() or ()) == len(second.assigned() or ()) == 2,
            timeout_s=60,
            what="shared work",
        )
        send(200)
        wait_until(lambda: len(positions(first, second)) == 400, timeout_s=60, what="all records at two workers")
        assert {p for p, o, _, _ in second.seen()} <= set(second.assigned())

        broker.kill()
        broker.start()
        send(200)
        wait_until(lambda: len(positions(first, second)) == 600, timeout_s=60, what="all records after its end")
        assert len(second.assigned()) == 2, "the broker's restart is no rebalance"

        first.end(by_force=True)
        send(200)
        wait_until(lambda: len(second.assigned()) == 4, timeout_s=60, what="the whole assignment")
        wait_until(lambda: len(positions(first, second)) == 800, timeout_s=60, what="all records at the other worker")
        second.end()

        third = start_worker("third", broker.address)  # recovers the table from its changelog
        send(20)
        wait_until(lambda: len(positions(third)) >= 20, timeout_s=60, what="the records after the recovery")
        newest = {key: int(count) for _, _, key, count in third.seen()}
        assert len(newest) == 20
        assert all(count >= 41 for count in newest.values()), "800 records of 20 keys, and one more of each"
        third.end()

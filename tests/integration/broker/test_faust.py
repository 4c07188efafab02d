"""Stock Faust workers on the broker."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from confluent_kafka import ConsumerGroupTopicPartitions, Producer
from confluent_kafka.admin import AdminClient

from astrocyte.pipeline.broker import BrokerProcess
from tests.support.waiting import wait_until

APP = Path(__file__).with_name("faust_app.py")


class Worker:
    """A Faust worker as a process; it writes what it read and its assignments to its own files."""

    def __init__(self, folder, name, address, **given):
        self.seen_in, self.log = folder / f"{name}.seen", folder / f"{name}.log"
        self.seen_in.touch()
        environment = os.environ | {"BROKER": address, "SEEN": str(self.seen_in), "DATADIR": str(folder / name)}
        environment |= given
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

    def start(name, address, **environment):
        workers.append(Worker(tmp_path, name, address, **environment))
        return workers[-1]

    yield start
    for worker in workers:
        worker.process.kill()
        worker.process.wait()


class Source:
    """Sends numbered records of 20 keys."""

    def __init__(self, address):
        self.sent = 0
        self._producer = Producer({"bootstrap.servers": address, "enable.idempotence": True, "log_level": 0})

    def send(self, count):
        for i in range(self.sent, self.sent + count):
            self._producer.produce("numbers", b"%d" % i, key=b"key-%d" % (i % 20))
        assert self._producer.flush(30) == 0
        self.sent += count


def positions(*workers):
    return {(partition, offset) for worker in workers for partition, offset, _, _ in worker.seen()}


def committed(address):
    """The sum of the offsets that the workers' group has committed."""
    admin = AdminClient({"bootstrap.servers": address})  # its answers end with it
    found = admin.list_consumer_group_offsets([ConsumerGroupTopicPartitions("counting")])["counting"].result(10)
    return sum(partition.offset for partition in found.topic_partitions)


def shares(*workers):
    return [len(worker.assigned() or ()) for worker in workers]


def test_two_workers_share_the_work_join_leave_and_survive_a_restart_of_the_broker(tmp_path, start_worker):
    with BrokerProcess(tmp_path / "data", default_partitions=4, initial_rebalance_delay_s=0.1) as broker:
        source = Source(broker.address)
        source.send(200)
        first = start_worker("first", broker.address)
        wait_until(lambda: len(positions(first)) == 200, timeout_s=120, what="all records at one worker")
        second = start_worker("second", broker.address)
        wait_until(lambda: shares(first, second) == [2, 2], timeout_s=120, what="shared work")
        source.send(200)
        wait_until(lambda: len(positions(first, second)) == 400, timeout_s=120, what="all records at two workers")
        assert {partition for partition, _ in positions(second)} <= set(second.assigned())

        broker.kill()
        broker.start()
        source.send(200)
        wait_until(lambda: len(positions(first, second)) == 600, timeout_s=120, what="all records after its end")
        assert shares(first, second) == [2, 2], "the broker's restart is no rebalance"

        first.end(by_force=True)
        source.send(200)
        wait_until(lambda: shares(second) == [4], timeout_s=120, what="the whole assignment")
        wait_until(lambda: len(positions(first, second)) == 800, timeout_s=120, what="all records at the other worker")
        second.end()


def test_a_table_is_restored_from_its_changelog_after_kill_9_of_worker_and_broker(tmp_path, start_worker):
    """After a commit and without a rebalance among the living: otherwise stock Faust may wait for ever for a changelog
    that it has read before. It may forget records that it fetched during the recovery: then later ones of the key come.
    """
    with BrokerProcess(tmp_path / "data", default_partitions=4, initial_rebalance_delay_s=0.1) as broker:
        source = Source(broker.address)
        source.send(200)
        first = start_worker("first", broker.address, TABLE="1")
        wait_until(lambda: len(positions(first)) == 200, timeout_s=120, what="all records")
        wait_until(lambda: committed(broker.address) == 200, what="the commit")
        first.end(by_force=True)
        broker.kill()
        broker.start()
        source.send(20)
        second = start_worker("second", broker.address, TABLE="1")
        last_sent_s = time.monotonic()

        def saw_each_key():
            nonlocal last_sent_s
            if time.monotonic() > last_sent_s + 5:  # for a record that stock Faust has forgotten in its recovery
                source.send(20)
                last_sent_s = time.monotonic()
            return len({key for _, _, key, _ in second.seen()}) == 20

        wait_until(saw_each_key, timeout_s=120, what="a record of each key")
        newest = {key: int(count) for _, _, key, count in second.seen()}
        assert min(newest.values()) >= 11, "10 records of each key are in the table, and one more came"
        second.end()

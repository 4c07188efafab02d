"""A publisher on the embedded broker: absent, slow, killed in the middle. Nothing blocks, every event is counted."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
import time
import uuid
from itertools import chain

import orjson
import pytest

import astrocyte
from astrocyte.pipeline.broker import BrokerProcess
from astrocyte.pipeline.kafka.client import ensure_topics
from tests.support.brokers import pause, read_all, resume
from tests.support.waiting import loop_turns, wait_until

SLOW_EMIT_S = 3.0  # of one event, on a machine shared by many; one that waited for the broker would take 10 s or more


def stream_name() -> str:
    return f"rooms_{uuid.uuid4().hex[:8]}"


def values(address: str, stream: str) -> list[int]:
    records = read_all(address, f"mono.{stream}")
    return [orjson.loads(record.value)["value"] for record in chain.from_iterable(records.values())]


def ids(address: str, stream: str) -> list[str]:
    records = read_all(address, f"mono.{stream}")
    return [orjson.loads(record.value)["event_id"] for record in chain.from_iterable(records.values())]


class Ledger:
    """Checks in a thread of its own, as long as it is open, that the counts add up."""

    def __init__(self, publisher: astrocyte.Publisher) -> None:
        self.publisher, self.wrong, self.looks = publisher, [], 0
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def _watch(self) -> None:
        while not self._done.wait(0.001):
            counts = self.publisher.counts
            self.looks += 1
            if counts.emitted != counts.delivered + counts.buffered + counts.dropped + counts.logged:
                self.wrong.append(counts)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._done.set()
        self._thread.join()
        assert self.looks > 10
        assert self.wrong == []


def emit_all(publisher: astrocyte.Publisher, stream: str, numbers: range) -> float:
    """Emit, and return the seconds that the slowest call took."""
    slowest = 0.0
    for n in numbers:
        began = time.monotonic()
        publisher.emit(stream, {"value": n}, key=f"room {n % 7}")
        slowest = max(slowest, time.monotonic() - began)
    return slowest


def test_events_of_threads_and_coroutines_arrive_once_and_in_the_order_of_their_key(embedded_address):
    stream = stream_name()
    with astrocyte.connect(embedded_address) as publisher:

        async def emit_some(first: int) -> None:
            for n in range(first, first + 500):
                publisher.emit(stream, {"value": n}, key=str(first))
                await loop_turns(1)

        async def emit_from_tasks() -> None:
            await asyncio.gather(*(emit_some(first) for first in (0, 1_000)))

        threads = [
            threading.Thread(target=lambda: asyncio.run(emit_from_tasks())),
            threading.Thread(
                target=lambda: [publisher.emit(stream, {"value": n}, key="t") for n in range(2_000, 2_500)]
            ),
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert publisher.flush(30)
        assert publisher.counts.delivered == 1_500
    found = read_all(embedded_address, f"mono.{stream}")
    by_key: dict[bytes, list[int]] = {}
    for record in chain.from_iterable(found.values()):
        by_key.setdefault(record.key, []).append(orjson.loads(record.value)["value"])
    assert by_key == {
        b"0": list(range(500)), b"1000": list(range(1_000, 1_500)), b"t": list(range(2_000, 2_500))
    }  # fmt: skip


def test_events_that_were_emitted_before_the_broker_was_there_arrive(tmp_path):
    broker = BrokerProcess(tmp_path / "broker", auto_create_topics=False)
    broker.start()
    broker.kill()
    stream = stream_name()
    with astrocyte.connect(broker.address, buffer_events=1_000) as publisher, Ledger(publisher):
        assert emit_all(publisher, stream, range(1_200)) < SLOW_EMIT_S
        assert (publisher.counts.buffered, publisher.counts.dropped) == (1_000, 200)
        broker.start()
        assert publisher.flush(60)
        assert (publisher.counts.delivered, publisher.counts.dropped) == (1_000, 200)
    assert sorted(values(broker.address, stream)) == list(range(1_000))
    broker.kill()


def test_a_broker_that_is_killed_in_the_middle_delays_events_and_loses_none(own_embedded):
    stream = stream_name()
    with astrocyte.connect(own_embedded.address) as publisher, Ledger(publisher):
        slowest = emit_all(publisher, stream, range(3_000))
        wait_until(lambda: publisher.counts.delivered > 0)
        own_embedded.kill()
        slowest = max(slowest, emit_all(publisher, stream, range(3_000, 6_000)))
        own_embedded.start()
        slowest = max(slowest, emit_all(publisher, stream, range(6_000, 7_000)))
        assert publisher.flush(60)
        assert (publisher.counts.delivered, publisher.counts.dropped) == (7_000, 0)
    assert slowest < SLOW_EMIT_S
    assert set(values(own_embedded.address, stream)) == set(range(7_000))
    assert len(set(ids(own_embedded.address, stream))) == 7_000  # those that were sent twice have the same id


def test_a_broker_that_hangs_neither_delays_emit_nor_closing(own_embedded):
    stream = stream_name()
    publisher = astrocyte.connect(own_embedded.address, buffer_events=500)
    with Ledger(publisher):
        emit_all(publisher, stream, range(10))
        assert publisher.flush(30)
        pause(own_embedded)
        try:
            assert emit_all(publisher, stream, range(10, 1_000)) < SLOW_EMIT_S
            assert not publisher.flush(0.1)
            began = time.monotonic()
            counts = publisher.close(0.5)
            assert time.monotonic() - began < 20
        finally:
            resume(own_embedded)
    assert counts.emitted == 1_000
    assert counts.delivered >= 10
    assert counts.dropped == 1_000 - counts.delivered
    assert counts.buffered == 0


def test_what_the_log_kept_and_what_was_delivered_are_together_everything(own_embedded, tmp_path):
    from astrocyte.pipeline.recording.frames import frames_of

    stream = stream_name()
    folder = tmp_path / "missed"
    publisher = astrocyte.connect(own_embedded.address, buffer_events=2_000, missed=folder)
    emit_all(publisher, stream, range(500))
    assert publisher.flush(30)
    own_embedded.kill()
    for n in range(500, 5_000):
        publisher.emit(stream, {"value": n})
    counts = publisher.close(0)
    assert (counts.dropped, counts.delivered + counts.logged) == (0, 5_000)
    own_embedded.start()
    (log,) = folder.iterdir()
    kept = [row["value"] for _, _, _, frame in frames_of(log) for row in frame.rows()]
    assert set(values(own_embedded.address, stream)) | set(kept) == set(range(5_000))


def run_program(text: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", text, *arguments], capture_output=True, text=True, timeout=40, check=False
    )


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
def test_a_program_that_ends_after_its_last_event_delivers_it(embedded_address, host):
    first, second = stream_name(), stream_name()
    address = f"{host}:{embedded_address.rpartition(':')[2]}"
    begun = "import astrocyte, sys; p = astrocyte.connect(sys.argv[1]); p.emit(sys.argv[2], {'value': 1})"
    done = run_program(begun, address, first)
    assert (done.returncode, done.stderr) == (0, "")
    assert values(embedded_address, first) == [1]
    done = run_program(begun + "; p.flush(30); p.emit(sys.argv[3], {'value': 2})", address, first, second)
    assert (done.returncode, done.stderr) == (0, "")
    assert values(embedded_address, second) == [2]


FORK = """
import astrocyte, os, sys, threading
publisher = astrocyte.connect(sys.argv[1], close_timeout_s=0)
publisher.on("rooms")(lambda event: None)
locked, done = threading.Event(), threading.Event()
def hold():
    with publisher._outbox._lock, publisher._closing, publisher._dispatcher._outbox._lock:
        locked.set()
        done.wait()
threading.Thread(target=hold, daemon=True).start()
locked.wait()  # what a thread holds when the process forks, no thread of the child releases
child = os.fork()
if child == 0:
    assert publisher.flush(1) and publisher.counts.emitted == publisher.handler_counts.emitted == 0
    sys.exit(7)
status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
done.set()
sys.exit(status)
"""


def test_a_forked_process_ends_though_a_thread_of_its_parent_was_emitting():
    assert run_program(FORK, "127.0.0.1:1").returncode == 7


SIGNAL = """
import astrocyte, os, signal, sys
publisher = astrocyte.connect(sys.argv[1], close_timeout_s=1)
def end(*_):
    counts = publisher.close()
    os._exit(0 if counts.emitted == counts.dropped else 1)
signal.signal(signal.SIGTERM, end)
with publisher._outbox._lock, publisher._closing:  # as within emit, when the signal comes
    os.kill(os.getpid(), signal.SIGTERM)
    for _ in range(10):
        publisher.emit("rooms", {"value": 1})
"""


def test_a_signal_handler_may_close_the_publisher_whose_emit_it_interrupts():
    assert run_program(SIGNAL, "127.0.0.1:1").returncode == 0


def test_one_event_that_the_broker_refuses_is_dropped_and_the_others_are_delivered(own_embedded):
    stream = stream_name()
    topic = f"mono.{stream}"
    asyncio.run(ensure_topics(own_embedded.address, {topic: 1}, config={topic: {"max.message.bytes": "3000"}}))
    with astrocyte.connect(own_embedded.address) as publisher:
        for n in range(50):
            publisher.emit(stream, {"value": n, "text": "x" * (5_000 if n == 20 else 10)})
        assert publisher.flush(60)
        counts = publisher.counts
    assert (counts.delivered, counts.dropped) == (49, 1)
    assert "max.message.bytes" in next(iter(counts.reasons))
    assert set(values(own_embedded.address, stream)) == set(range(50)) - {20}


@pytest.mark.parametrize("partitions", [1, 6])
def test_a_topic_that_exists_keeps_its_partitions(embedded_address, partitions):
    stream = stream_name()
    asyncio.run(ensure_topics(embedded_address, {f"mono.{stream}": partitions}))
    with astrocyte.connect(embedded_address) as publisher:
        for n in range(100):
            publisher.emit(stream, {"value": n})  # without a key: in turn
        assert publisher.flush(30)
    found = read_all(embedded_address, f"mono.{stream}")
    assert len(found) == partitions
    assert all(records for records in found.values())

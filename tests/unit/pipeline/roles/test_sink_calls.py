"""Calls of a sink that use threads: none runs beside another, nor beside `close`, whatever is cancelled."""

import asyncio
import threading
from types import SimpleNamespace

import pytest

from astrocyte.agents.sinks.base import SinkError
from astrocyte.agents.sinks.memory import MemorySink
from astrocyte.pipeline.roles.sink import build
from astrocyte.pipeline.roles.sink.build import close_sink
from astrocyte.pipeline.roles.sink.calls import SinkCalls
from astrocyte.pipeline.roles.sink.runner import SinkRunner
from astrocyte.schemas.frames import encode_frame
from astrocyte.schemas.json.reader import RawRecord
from tests.support.batches import a_batch
from tests.support.waiting import loop_turns


class InThread:
    """A sink that writes on a thread, which takes until ``release`` is set, and says what ran when."""

    name = "threads"

    def __init__(self) -> None:
        self.began, self.release = threading.Semaphore(0), threading.Event()
        self.said: list[str] = []

    async def open(self) -> None: ...

    async def write(self, batch):
        await asyncio.to_thread(self._put)
        return []

    def _put(self) -> None:
        self.said.append("begins")
        self.began.release()
        assert self.release.wait(20)
        self.said.append("ends")

    async def close(self) -> None:
        self.said.append("closed")


@pytest.fixture
def sink():
    made = InThread()
    yield made
    made.release.set()


@pytest.fixture
def ended(monkeypatch):
    """Ends of the process: line and status."""
    found: list[tuple[str, int]] = []

    class Ended(BaseException):
        """In place of the end of the process."""

    def end(line: str, status: int) -> None:
        found.append((line, status))
        raise Ended

    monkeypatch.setattr(build, "end_now", end)
    monkeypatch.setattr(build, "_SETTLE_S", 0.05)
    return SimpleNamespace(found=found, error=Ended)


async def cancelled_write(sink: InThread, calls: SinkCalls, done: list[str]) -> SinkRunner:
    """A runner whose write was cancelled, as by SIGTERM, while the sink's thread runs."""
    runner = SinkRunner(sink, None, partitions=1, calls=calls)
    await take(runner, done)
    writing = asyncio.create_task(runner.finish())
    await asyncio.to_thread(sink.began.acquire)
    writing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await writing
    return runner


async def take(runner: SinkRunner, done: list[str]) -> None:
    delivery = SimpleNamespace(ack_through=lambda: done.append("acked"))
    (item, *_) = a_batch()
    record = RawRecord(5, 0, b"k", encode_frame(item.frame))
    await runner.handle(SimpleNamespace(topic=item.topic, partition=0), delivery, [record])


async def test_close_waits_for_the_thread_of_a_cancelled_write(sink):
    calls, done = SinkCalls(), []
    await cancelled_write(sink, calls, done)
    closing = asyncio.create_task(close_sink("threads", sink, calls, asyncio.Event()))
    await loop_turns(20)
    assert sink.said == ["begins"]
    sink.release.set()
    await closing
    assert (sink.said, done) == (["begins", "ends", "closed"], [])


async def test_a_thread_that_does_not_end_in_time_ends_the_process_without_close(sink, ended):
    calls, done = SinkCalls(), []
    await cancelled_write(sink, calls, done)
    with pytest.raises(ended.error):
        await close_sink("threads", sink, calls, asyncio.Event())
    ((line, status),) = ended.found
    assert line.startswith(
        "astrocyte: role 'threads': write() of the sink still runs 0.05 s after the end of the work;"
    )
    assert (status, sink.said, done) == (1, ["begins"], [])


async def test_the_next_batch_waits_for_the_thread_of_a_cancelled_write(sink):
    done: list[str] = []
    runner = await cancelled_write(sink, SinkCalls(), done)
    await take(runner, done)
    writing = asyncio.create_task(runner.finish())
    await loop_turns(20)
    assert sink.said == ["begins"]
    sink.release.set()
    await writing
    assert (sink.said, done) == (["begins", "ends"] * 2, ["acked"])


async def test_an_error_of_a_call_is_raised_and_does_not_hold_up_close():
    calls, sink = SinkCalls(), MemorySink()

    async def fail() -> None:
        raise SinkError("full")

    with pytest.raises(SinkError, match="full"):
        await calls.run("write()", fail)
    await close_sink("memory", sink, calls, asyncio.Event())

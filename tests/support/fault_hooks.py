"""A plugin that fault tests load into workers: it notes what is read, and kills the process at chosen steps.

Two more kinds of faults are of the process itself: its clock is moved, and its clients report failures.

``FAULT_READ`` names the file to which it appends role, topic, partition and offsets of each chunk. ``FAULT_DEATHS``
names a file that counts the deaths of this worker by one byte each, and ``FAULT_KILLS`` is a JSON list: each life of
the worker ends by kill -9 at the step and call that the list has for it. Lives after the last one are left alone.
``FAULT_CLOCK`` names a file of eight bytes: nanoseconds by which the wall clock of the process is ahead.
``FAULT_CLIENT`` lists what clients report (`CLIENT`).
"""

from __future__ import annotations

import asyncio
import functools
import gc
import importlib
import inspect
import json
import mmap
import os
import signal
import struct
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Any

from aiokafka import AIOKafkaConsumer
from aiokafka.errors import CommitFailedError, RequestTimedOutError

from astrocyte.pipeline.transport.producer import ConfirmedProducer

_CORRELATE = "astrocyte.pipeline.roles.correlation.correlate:Correlator"
_CONSUMER = "astrocyte.pipeline.transport.consumer:Consumer"
_SINK = "astrocyte.pipeline.roles.sink.runner:SinkRunner"
_REPARTITION = "astrocyte.pipeline.roles.repartition:RepartitionRunner"
_COMMON = {
    "at start": f"before {_CONSUMER}._place",
    "during commit": f"before {_CONSUMER}._commit",
    "after commit": f"after {_CONSUMER}._commit",
    "during revocation": f"before {_CONSUMER}._finish",
    "after revocation": f"after {_CONSUMER}._finish",
}
_ACK = {"before ack": "before astrocyte.pipeline.transport.commits:Delivery.ack_through"}
STEPS: dict[str, dict[str, str]] = {
    "correlate": {
        "after read": f"before {_CORRELATE}.handle",
        "after match": "after astrocyte.agents.domain:Domain.feed",
        "after produce": f"after {_CORRELATE}._send_output",
        "before snapshot": "before astrocyte.pipeline.state.snapshot_store:KafkaStateStore.messages",
        "during restore": f"after {_CORRELATE}._restore",
    }
    | _ACK
    | _COMMON,
    "sql": {
        "while it opens": "before astrocyte.agents.sinks.sql.connection:SqlConnection.persist",
        "after read": f"before {_SINK}.handle",
        "in the transaction": "after astrocyte.agents.sinks.sql.sink:SqlSink._write_rows",
        "after SQL write": "after astrocyte.agents.sinks.sql.sink:SqlSink._commit",
    }
    | _ACK
    | _COMMON,
    "influx": {
        "after read": f"before {_SINK}.handle",
        "after a request": "after astrocyte.agents.sinks.influx.sink:InfluxSink._post",
        "after Influx write": "after astrocyte.agents.sinks.influx.sink:InfluxSink.write",
    }
    | _ACK
    | _COMMON,
    "repartition": {
        "after read": f"before {_REPARTITION}.handle",
        "after match": "after astrocyte.pipeline.topology.repartition:Repartitioner.step",
        "after produce": f"after {_REPARTITION}._carry",
    }
    | _COMMON,
}
"""By role: where a step ends, as the function before or after whose call the process dies."""
RARE = {"at start", "during restore", "while it opens", "during revocation", "after revocation"}
"""Steps that happen once or twice in a life."""


def _wrapped(where: str, act: Callable[[tuple[Any, ...]], None]) -> None:
    """Replace a function by one that calls ``act`` with its arguments before or after it."""
    when, _, place = where.partition(" ")
    module, _, path = place.partition(":")
    owner: Any = importlib.import_module(module)
    *outer, name = path.split(".")
    for each in outer:
        owner = getattr(owner, each)
    function = getattr(owner, name)
    if inspect.iscoroutinefunction(function):

        @functools.wraps(function)
        async def asynchronous(*args: Any, **options: Any) -> Any:
            if when == "before":
                act(args)
                return await function(*args, **options)
            found = await function(*args, **options)
            act(args)
            return found

        setattr(owner, name, asynchronous)
        return

    @functools.wraps(function)
    def plain(*args: Any, **options: Any) -> Any:
        if when == "before":
            act(args)
            return function(*args, **options)
        found = function(*args, **options)
        act(args)
        return found

    setattr(owner, name, plain)


def _note_reads(role: str, path: str) -> None:
    places = {"correlate": f"{_CORRELATE}.handle", "repartition": f"{_REPARTITION}.handle"}
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    waiting = bytearray()

    def note(args: tuple[Any, ...]) -> None:
        chunk = args[1]
        waiting.extend(
            f"{role} {chunk.topic} {chunk.partition} {chunk.records[0].offset} {chunk.next_offset}\n".encode()
        )
        # A full disk is a fault for the role, and none of these notes: they are written when there is room.
        with suppress(OSError):
            del waiting[: os.write(file, waiting)]

    _wrapped(f"before {places.get(role, f'{_SINK}.handle')}", note)


def _kill_at(role: str, step: str, call: int, deaths: Path) -> None:
    left = call

    def act(args: tuple[Any, ...]) -> None:
        nonlocal left
        if step.endswith("revocation") and not args[1]:
            return  # a worker joins with nothing to give back
        left -= 1
        if left == 0:
            with deaths.open("ab") as file:
                file.write(b".")
            os.kill(os.getpid(), signal.SIGKILL)

    _wrapped(STEPS[role][step], act)


def _reject_commits() -> None:
    """Of three commits one is refused, and one is refused although it was applied."""
    commit, calls = AIOKafkaConsumer.commit, count()

    async def rejected(self: Any, *args: Any, **options: Any) -> None:
        number = next(calls) % 3
        if number != 1:
            await commit(self, *args, **options)
        if number != 0:
            raise CommitFailedError("the test rejects it")

    AIOKafkaConsumer.commit = rejected


def _doubt_deliveries() -> None:
    """Each tenth batch is written, and reported as one whose outcome is not known."""
    add, calls = ConfirmedProducer._add, count(1)

    async def doubted(self: Any, *args: Any) -> asyncio.Future[Any]:
        inner = await add(self, *args)
        if next(calls) % 10:
            return inner
        outer = asyncio.get_running_loop().create_future()

        def written(_done: asyncio.Future[Any]) -> None:
            if not outer.done():
                outer.set_exception(RequestTimedOutError("the test says so"))

        inner.add_done_callback(written)
        return outer

    ConfirmedProducer._add = doubted  # type: ignore[method-assign]


CLIENT = {"commits are rejected": _reject_commits, "outcomes are unknown": _doubt_deliveries}
"""What clients of a worker report, by name."""


def _move_clock(path: str) -> None:
    """The wall clock of Python code is ahead by what the file says at that moment."""
    with open(path, "rb") as file:
        shared = mmap.mmap(file.fileno(), 8, access=mmap.ACCESS_READ)
    real_ns = time.time_ns

    def moved_ns() -> int:
        return real_ns() + int(struct.unpack("<q", shared[:8])[0])

    time.time_ns = moved_ns
    time.time = lambda: moved_ns() / 1e9


def _show_waits(*_signal: Any) -> None:
    """Write to the log where the product's coroutines wait, and what its producers hold."""
    for each in gc.get_objects():
        if (
            inspect.iscoroutine(each)
            and each.cr_frame is not None
            and f"{os.sep}pipeline{os.sep}" in each.cr_code.co_filename
        ):
            what = each.cr_await
            print(f"{each.__qualname__}, line {each.cr_frame.f_lineno}, waits for {what}", file=sys.stderr)
        elif isinstance(each, ConfirmedProducer):
            state = {name: str(getattr(each, name)) for name in ("_ready", "current", "_repairing", "_broken")}
            waiting = [(item.topic, item.partition, len(item.rows), item.future) for item in each._outbox.values()]
            print(f"producer {state}, waiting {waiting}", file=sys.stderr)
    sys.stderr.flush()


def _install() -> None:
    signal.signal(signal.SIGRTMIN, _show_waits)
    if path := os.environ.get("FAULT_CLOCK"):
        _move_clock(path)
    for name in json.loads(os.environ.get("FAULT_CLIENT", "[]")):
        CLIENT[name]()
    role = os.environ.get("ASTROCYTE_ROLES", "")
    if "," in role:
        return  # the supervisor; its children load the plugin as well
    if path := os.environ.get("FAULT_READ"):
        _note_reads(role, path)
    kills = json.loads(os.environ.get("FAULT_KILLS", "[]"))
    if kills:
        deaths = Path(os.environ["FAULT_DEATHS"])
        lives = deaths.stat().st_size if deaths.exists() else 0
        if lives < len(kills):
            step, call = kills[lives]
            _kill_at(role, step, call, deaths)


_install()

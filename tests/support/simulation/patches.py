"""What the process of a simulation has instead of clocks, threads and random numbers.

`install` comes before the product is imported, since modules keep what they import (``from time import monotonic``) and
default arguments what they name. Outside of a simulation everything does what it always does.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import gc
import os
import random
import sqlite3
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable
from typing import Any

from tests.support.simulation.loop import LoopPolicy
from tests.support.simulation.world import WALL_NS, Thread, World, active

__all__ = ["GreenletLocal", "install"]

_Executor = concurrent.futures.ThreadPoolExecutor
_Event, _Thread = threading.Event, threading.Thread


def _current() -> tuple[World, Thread] | None:
    world = active()
    return None if world is None or world.current is None else (world, world.current)


def _clocks() -> None:
    real = {name: getattr(time, name) for name in ("time", "time_ns", "monotonic", "monotonic_ns", "perf_counter")}
    real_perf_ns, real_sleep = time.perf_counter_ns, time.sleep

    def wall() -> float:
        world = active()
        return real["time"]() if world is None else (world.now_ns + WALL_NS) / 1e9

    def wall_ns() -> int:
        world = active()
        return real["time_ns"]() if world is None else world.now_ns + WALL_NS

    def monotonic() -> float:
        world = active()
        return real["monotonic"]() if world is None else world.now_ns / 1e9

    def monotonic_ns() -> int:
        world = active()
        return real["monotonic_ns"]() if world is None else world.now_ns

    def perf_counter() -> float:
        world = active()
        return real["perf_counter"]() if world is None else world.now_ns / 1e9

    def perf_counter_ns() -> int:
        world = active()
        return real_perf_ns() if world is None else world.now_ns

    def sleep(seconds: float) -> None:
        found = _current()
        if found is None:
            real_sleep(seconds)
        else:
            found[0].sleep(seconds)

    time.real_monotonic = real["monotonic"]
    time.time, time.time_ns = wall, wall_ns
    time.monotonic, time.monotonic_ns = monotonic, monotonic_ns
    time.perf_counter, time.perf_counter_ns = perf_counter, perf_counter_ns
    time.sleep = sleep


def _random_numbers() -> None:
    real = os.urandom

    def urandom(size: int) -> bytes:
        world = active()
        return real(size) if world is None else world.entropy.randbytes(size)

    os.urandom = urandom
    random._urandom = urandom


def _exits() -> None:
    real = os._exit

    def leave(status: int) -> Any:
        found = _current()
        if found is None:
            real(status)
        else:
            found[1].node.end(status)

    os._exit = leave


class _SimulatedThread(_Thread):
    """``threading.Thread``: within a simulation a thread of the node that starts it."""

    _simulated: Thread | None = None

    def start(self) -> None:
        found = _current()
        if found is None:
            super().start()
            return
        self._simulated = found[1].node.spawn(self.name, self.run)

    def join(self, timeout: float | None = None) -> None:
        found = _current()
        if self._simulated is None or found is None:
            super().join(timeout)
            return
        found[0].join(self._simulated, timeout)

    def is_alive(self) -> bool:
        return super().is_alive() if self._simulated is None else not self._simulated.done


class _SimulatedTimer(_SimulatedThread, threading.Timer):
    """``threading.Timer``."""


class _SimulatedEvent(_Event):
    """``threading.Event`` for which threads of a simulation can wait."""

    def wait(self, timeout: float | None = None) -> bool:
        found = _current()
        if found is None:
            return super().wait(timeout)
        world, thread = found
        until_ns = None if timeout is None else world.now_ns + int(timeout * 1e9)
        self.__dict__.setdefault("waiting", []).append(thread)
        while not self.is_set() and (until_ns is None or world.now_ns < until_ns):
            world.park(None if until_ns is None else (until_ns - world.now_ns) / 1e9)
        self.__dict__["waiting"].remove(thread)
        return self.is_set()

    def set(self) -> None:
        super().set()
        for thread in self.__dict__.get("waiting", ()):
            thread.node.world.wake(thread)


class _Outcome(concurrent.futures.Future):
    """A future of the pool below, whose result a thread of the simulation can wait for."""

    def result(self, timeout: float | None = None) -> Any:
        found = _current()
        if found is not None and not self.done():
            ended = _SimulatedEvent()
            self.add_done_callback(lambda _: ended.set())
            if not ended.wait(timeout):
                raise TimeoutError
        return super().result(timeout)


class _SimulatedPool(_Executor):
    """``ThreadPoolExecutor`` whose threads are those of the node; each piece of work takes a drawn time."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        found = _current()
        if found is None:
            return super().submit(fn, *args, **kwargs)
        world, thread = found
        outcome = _Outcome()
        state = self.__dict__.setdefault("work", deque())
        state.append((outcome, fn, args, kwargs))
        running = self.__dict__.setdefault("running", [0])
        if running[0] < self._max_workers:
            running[0] += 1
            thread.node.spawn(self._thread_name_prefix or "pool", lambda: self._serve(world, state, running))
        return outcome

    @staticmethod
    def _serve(world: World, state: deque[Any], running: list[int]) -> None:
        while state:
            outcome, function, args, kwargs = state.popleft()
            world.work()
            if outcome.set_running_or_notify_cancel():
                try:
                    outcome.set_result(function(*args, **kwargs))
                except BaseException as error:
                    outcome.set_exception(error)
        running[0] -= 1

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        if _current() is None:
            super().shutdown(wait, cancel_futures=cancel_futures)


class GreenletLocal:
    """``threading.local`` by threads of the simulation."""

    def _values(self) -> dict[str, Any]:
        found = _current()
        return self.__dict__ if found is None else found[1].locals.setdefault(id(self), {})

    def __getattr__(self, name: str) -> Any:
        try:
            return self._values()[name]
        except KeyError:
            raise AttributeError(name) from None

    def __setattr__(self, name: str, value: Any) -> None:
        self._values()[name] = value


class _Connection(sqlite3.Connection):
    """A connection to which there can be weak references."""


def _databases() -> None:
    real = sqlite3.connect

    def connect(*args: Any, **kwargs: Any) -> Any:
        found = _current()
        # Threads of the simulation are one of the system, and SQLite would wait for a lock in real time.
        ours = {"check_same_thread": False, "timeout": 0.0} if found is not None else {}
        made = real(*args, **{"factory": _Connection} | kwargs | ours)
        if found is not None:
            # What a process has not committed when it is killed is undone, and its locks end.
            kept = weakref.ref(made)
            found[1].node.on_death.append(lambda: (connection := kept()) is not None and connection.close())
        return made

    sqlite3.connect = sqlite3.dbapi2.connect = connect


def install() -> None:
    """Once, before the product is imported."""
    _clocks()
    _random_numbers()
    _exits()
    _databases()
    threading.Thread = _SimulatedThread
    threading.Timer = _SimulatedTimer
    threading.Event = _SimulatedEvent
    concurrent.futures.ThreadPoolExecutor = concurrent.futures.thread.ThreadPoolExecutor = _SimulatedPool
    asyncio.set_event_loop_policy(LoopPolicy())
    gc.disable()

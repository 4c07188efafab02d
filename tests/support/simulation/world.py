"""The simulated machine room: a virtual clock, nodes, and threads of which exactly one runs at a time.

A thread is a greenlet. It runs until it waits (for a timeout, an event, or the selector of its event loop) and then
switches to the hub, which draws the next runnable thread, or moves the clock to the next timer. A node is a process:
a killed one is never resumed, so that none of its code runs after its death, as after kill -9.
"""

from __future__ import annotations

import asyncio
import hashlib
import heapq
import random
import sys
import traceback
from collections.abc import Callable
from itertools import count
from typing import Any, Self

from greenlet import getcurrent, greenlet

from tests.support.simulation.network import Network

__all__ = ["Node", "Stuck", "Thread", "World", "active"]

START_NS = 1_000 * 1_000_000_000
"""The monotonic clock at the start."""
WALL_NS = 1_767_225_600 * 1_000_000_000 - START_NS
"""What to add to it for the wall clock: the simulation begins at the first second of 2026."""
_active: World | None = None


def active() -> World | None:
    """The world in which this process lives at present."""
    return _active


class Stuck(Exception):
    """Nothing can happen any more, or the simulated time is over."""


class Node:
    """A process on a machine of its own. ``on_death``: what the kernel closes when it ends."""

    def __init__(self, world: World, name: str) -> None:
        self.world = world
        world.nodes.append(self)
        self.name = name
        self.alive = True
        self.status: int | None = None
        """Exit status once it has ended; -9 of a killed one."""
        self.threads: list[Thread] = []
        self.on_death: list[Callable[[], object]] = []
        self.stalled_until_ns = 0

    def spawn(self, name: str, run: Callable[[], object]) -> Thread:
        """Start a thread of it."""
        thread = Thread(self, name, run)
        self.threads.append(thread)
        self.world.wake(thread)
        return thread

    def end(self, status: int) -> None:
        """It is gone, from this moment on. Called by one of its own threads, this does not return."""
        if self.alive:
            self.alive = False
            self.status = status
            self.world.note("end", self.name, status)
            for act in self.on_death:
                act()
        current = self.world.current
        if current is not None and current.node is self:
            self.world.leave()

    def stall(self, seconds: float) -> None:
        """None of its threads runs for so long, as between SIGSTOP and SIGCONT."""
        self.stalled_until_ns = max(self.stalled_until_ns, self.world.now_ns + int(seconds * 1e9))


class Thread:
    """A thread of a node. Its event loop and the hooks of asyncio belong to it, as to one of the system."""

    def __init__(self, node: Node, name: str, run: Callable[[], object]) -> None:
        self.node = node
        self.name = f"{node.name}/{name}"
        self.loop: asyncio.AbstractEventLoop | None = None
        """What ``asyncio.set_event_loop`` has set."""
        self.running_loop: asyncio.AbstractEventLoop | None = None
        self.hooks: Any = (None, None)
        self.locals: dict[Any, Any] = {}
        """Of objects that take the place of ``threading.local``."""
        self.queued = False
        self.done = False
        self.error: BaseException | None = None
        self.waits = 0
        """Number of the present wait: timers of earlier ones do nothing."""
        self._run = run
        self.greenlet = greenlet(self._begin, node.world.hub)
        self.waiters: list[Thread] = []

    def _begin(self) -> None:
        try:
            self._run()
        except Exception as error:
            self.error = error
            self.node.world.report(self, error)
        self.done = True
        for each in self.waiters:
            self.node.world.wake(each)


class World:
    """One simulation. ``seed`` determines all of it; ``trace`` is called with a line for everything that happens."""

    def __init__(self, seed: int, trace: Callable[[str], object] | None = None) -> None:
        self.seed = seed
        self.now_ns = START_NS
        self.hub = getcurrent()
        self.current: Thread | None = None
        self.turns = 0
        """How often a thread was given its turn."""
        self.entropy = self.dice("entropy")
        """Source of what programs draw themselves."""
        self._work = self.dice("work")
        self._work_s = self._work.choice([0.0005, 0.005, 0.03])
        """Mean time of a piece of work on a thread of a pool: of a store or a disk, for example."""
        self.network = Network(self)
        self.nodes: list[Node] = []
        self.errors: list[str] = []
        """Threads that have ended with an error."""
        self._dice = self.dice("turns")
        self._trace = trace
        self._digest = hashlib.blake2b(digest_size=8)
        self._runnable: list[Thread] = []
        self._timers: list[tuple[int, int, Callable[[], object]]] = []
        self._numbers = count()

    def dice(self, name: str) -> random.Random:
        """Random numbers of one purpose."""
        return random.Random(f"{self.seed} {name}")

    def __enter__(self) -> Self:
        global _active  # noqa: PLW0603  clocks and threads of the process belong to it
        assert _active is None, "one simulation at a time"
        _active = self
        random.seed(self.seed)
        return self

    def __exit__(self, *_error: object) -> None:
        global _active  # noqa: PLW0603
        _active = None

    # -- what happened

    @property
    def seconds(self) -> float:
        """Simulated seconds since the start."""
        return (self.now_ns - START_NS) / 1e9

    @property
    def digest(self) -> str:
        """Hash of everything that has happened so far, in its order."""
        return self._digest.hexdigest()

    def note(self, *what: object) -> None:
        """Add to what has happened."""
        line = f"{self.now_ns} {' '.join(map(str, what))}"
        self._digest.update(line.encode())
        if self._trace is not None:
            self._trace(line)

    def report(self, thread: Thread, error: BaseException) -> None:
        """A thread has ended with an error."""
        self.errors.append(f"{thread.name}: {''.join(traceback.format_exception(error))}")
        self.note("error", thread.name, type(error).__name__)

    # -- of threads

    def call_at(self, when_ns: int, act: Callable[[], object]) -> None:
        """Call a function at a time, on no thread."""
        heapq.heappush(self._timers, (when_ns, next(self._numbers), act))

    def call_later(self, seconds: float, act: Callable[[], object]) -> None:
        """The same after a delay."""
        self.call_at(self.now_ns + int(seconds * 1e9), act)

    def wake(self, thread: Thread) -> None:
        """A thread may go on."""
        if not thread.queued and not thread.done and thread.node.alive:
            thread.queued = True
            self._runnable.append(thread)

    def park(self, seconds: float | None = None) -> None:
        """The running thread waits until it is woken, or for so many seconds."""
        thread = self.current
        assert thread is not None, "only a thread of the simulation can wait"
        if seconds is not None:
            wait = thread.waits
            self.call_at(self.now_ns + max(0, int(seconds * 1e9)), lambda: thread.waits == wait and self.wake(thread))
        self.leave()
        thread.waits += 1

    def give_way(self) -> None:
        """Let others run that can."""
        assert self.current is not None
        self.wake(self.current)
        self.leave()

    def leave(self) -> None:
        """Switch to the hub; the thread comes back when it is its turn again."""
        self.hub.switch()

    def sleep(self, seconds: float) -> None:
        """``time.sleep`` of the running thread."""
        until_ns = self.now_ns + int(seconds * 1e9)
        while self.now_ns < until_ns:
            self.park((until_ns - self.now_ns) / 1e9)

    def work(self) -> None:
        """Take the time of a piece of work; some take long."""
        mean_s = self._work_s * (20 if self._work.random() < 0.03 else 1)
        self.sleep(min(self._work.expovariate(1 / mean_s), 1.0))

    def join(self, thread: Thread, seconds: float | None = None) -> None:
        """Wait for the end of a thread."""
        if thread.done or not thread.node.alive:
            return
        assert self.current is not None
        thread.waiters.append(self.current)
        until_ns = None if seconds is None else self.now_ns + int(seconds * 1e9)
        while not thread.done and (until_ns is None or self.now_ns < until_ns):
            self.park(None if until_ns is None else (until_ns - self.now_ns) / 1e9)

    # -- the hub

    def run(self, until: Callable[[], bool], limit_s: float) -> None:
        """Let everything happen until a condition holds. Raises Stuck if it does not within a simulated time."""
        limit_ns = self.now_ns + int(limit_s * 1e9)
        timers, runnable, dice = self._timers, self._runnable, self._dice
        while not until():
            while timers and timers[0][0] <= self.now_ns:
                heapq.heappop(timers)[2]()
            if runnable:
                place = dice.randrange(len(runnable)) if len(runnable) > 1 else 0
                thread = runnable[place]
                runnable[place] = runnable[-1]
                runnable.pop()
                self._turn(thread)
                # Work takes time, too: otherwise a loop that polls would stop the clock.
                self.now_ns += 1_000 + dice.getrandbits(14)
            elif timers:
                self.now_ns = timers[0][0]
            else:
                raise Stuck("\n".join(["no thread can run and no timer is set", *self.errors]))
            if self.now_ns > limit_ns:
                raise Stuck(f"{limit_s:g} s of simulated time were not enough")

    def _turn(self, thread: Thread) -> None:
        node = thread.node
        if not node.alive:
            return
        if node.stalled_until_ns > self.now_ns:
            # It keeps its place, and is drawn again when the node goes on.
            self.call_at(node.stalled_until_ns, lambda: self._requeue(thread))
            return
        thread.queued = False
        self.turns += 1
        self.current = thread
        asyncio._set_running_loop(thread.running_loop)
        sys.set_asyncgen_hooks(*thread.hooks)
        try:
            thread.greenlet.switch()
        finally:
            thread.running_loop = asyncio._get_running_loop()
            thread.hooks = sys.get_asyncgen_hooks()
            asyncio._set_running_loop(None)
            sys.set_asyncgen_hooks(None, None)
            self.current = None
        self._digest.update(b"%d %s" % (self.now_ns, thread.name.encode()))
        if self._trace is not None:
            self._trace(f"{self.now_ns} turn {thread.name}")

    def _requeue(self, thread: Thread) -> None:
        if thread.node.alive:
            self._runnable.append(thread)

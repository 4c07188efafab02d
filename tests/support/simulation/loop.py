"""The event loop of simulated threads: asyncio's own, whose selector waits in virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from itertools import count
from typing import TYPE_CHECKING, Any

from tests.support.simulation.world import Thread, World, active

if TYPE_CHECKING:
    from tests.support.simulation.network import Listener

__all__ = ["LoopPolicy", "SimulatedLoop"]

_numbers = count()


class _Future(asyncio.Future):
    """A future whose hash does not depend on its address, so that the order of sets of futures does not."""

    def __init__(self, *, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop=loop)
        self._number = next(_numbers)

    def __hash__(self) -> int:
        return self._number


class _Task(asyncio.Task):
    """The same of a task."""

    _number = -1

    def __hash__(self) -> int:
        if self._number < 0:  # asked for by asyncio before the constructor returns
            self._number = next(_numbers)
        return self._number


class _Selector:
    def __init__(self, loop: SimulatedLoop) -> None:
        self._loop = loop

    def select(self, timeout_s: float | None) -> list[Any]:
        loop = self._loop
        world, loop.thread = loop.world, loop.world.current
        if timeout_s is not None and timeout_s <= 0:
            world.give_way()
        elif not loop._ready:
            world.park(timeout_s)
        return []


class SimulatedLoop(asyncio.BaseEventLoop):
    """asyncio's loop over the clock and the network of a world."""

    def __init__(self, world: World) -> None:
        super().__init__()
        self.world = world
        self.thread: Thread | None = None
        """The thread on which it runs, or ran last."""
        self._selector = _Selector(self)
        self._clock_resolution = 1e-9
        self.set_task_factory(_new_task)

    def time(self) -> float:
        """Seconds of the virtual clock."""
        return self.world.now_ns / 1e9

    def create_future(self) -> _Future:
        """A future of this loop."""
        return _Future(loop=self)

    def _process_events(self, _events: object) -> None:
        pass

    def _write_to_self(self) -> None:
        if self.thread is not None:
            self.world.wake(self.thread)

    def run_forever(self) -> None:
        """Run on the present thread of the simulation."""
        self.thread = self.world.current
        super().run_forever()

    async def create_connection(
        self,
        protocol_factory: Callable[[], Any],
        host: Any = None,
        port: Any = None,
        *,
        sock: Any = None,
        **_options: Any,
    ) -> tuple[Any, Any]:
        """Connect over the simulated network; ``sock`` is what `Network.connected` gave."""
        end = sock if sock is not None else await self.world.network.connect(self, int(port))
        protocol = protocol_factory()
        end.attach(self, protocol)
        return end, protocol

    async def create_server(
        self,
        protocol_factory: Callable[[], Any],
        _host: Any = None,
        port: int | None = None,
        *,
        start_serving: bool = True,
        **_options: Any,
    ) -> Listener:
        """Listen on a port of the simulated network, on which every address is the same machine's."""
        listener = self.world.network.listen(self, protocol_factory, port or 0)
        if start_serving:
            await listener.start_serving()
        return listener

    def add_signal_handler(self, *_arguments: Any) -> None:
        """No signals: the simulation ends nodes."""

    async def shutdown_default_executor(self, *_arguments: Any) -> None:
        """No-op: its threads end with their node."""


def _new_task(loop: asyncio.AbstractEventLoop, coroutine: Any, **options: Any) -> _Task:
    return _Task(coroutine, loop=loop, **options)


class LoopPolicy(asyncio.DefaultEventLoopPolicy):
    """Each thread of the simulation has its own event loop; outside, everything is as always."""

    def get_event_loop(self) -> asyncio.AbstractEventLoop:
        """The loop that was set. Raises RuntimeError where there is none."""
        thread = _thread()
        if thread is None:
            return super().get_event_loop()
        if thread.loop is None:
            raise RuntimeError(f"no event loop was set in thread {thread.name}")
        return thread.loop

    def set_event_loop(self, loop: asyncio.AbstractEventLoop | None) -> None:
        """Of the present thread."""
        thread = _thread()
        if thread is None:
            super().set_event_loop(loop)
        else:
            thread.loop = loop

    def new_event_loop(self) -> asyncio.AbstractEventLoop:
        """A simulated loop within a simulation."""
        world = active()
        return super().new_event_loop() if world is None else SimulatedLoop(world)


def _thread() -> Thread | None:
    world = active()
    return None if world is None else world.current

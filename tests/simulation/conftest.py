"""Worlds for tests of the simulation itself, in this process and without the patches of clocks and threads."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import pytest

from tests.support.simulation.loop import SimulatedLoop
from tests.support.simulation.world import Node, Thread, World

Start = Callable[[Node, Coroutine[Any, Any, Any]], Thread]


@pytest.fixture
def make_world() -> Iterator[Callable[[int], World]]:
    """A world of a seed, until the end of the test or the next one."""
    made: list[World] = []

    def make(seed: int) -> World:
        for world in made:
            world.__exit__()
        made[:] = [World(seed).__enter__()]
        return made[0]

    yield make
    for world in made:
        world.__exit__()


@pytest.fixture
def world(make_world) -> World:
    return make_world(1)


@pytest.fixture
def start() -> Iterator[Start]:
    """Runs a coroutine on a loop of a new thread of a node."""
    loops: list[SimulatedLoop] = []

    def begin(node: Node, work: Coroutine[Any, Any, Any]) -> Thread:
        loop = SimulatedLoop(node.world)
        loops.append(loop)
        return node.spawn("main", lambda: loop.run_until_complete(work))

    yield begin
    for loop in loops:
        loop._thread_id = None  # of a node that was killed while it ran
        # What its tasks still wait for never comes.
        for task in asyncio.all_tasks(loop):
            task._log_destroy_pending = False
            task.get_coro().close()
        loop.close()

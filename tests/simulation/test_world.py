"""Virtual time, threads and nodes of the simulation."""

from __future__ import annotations

import asyncio
import time

import pytest

from tests.support.simulation.world import Node, Stuck


def test_an_hour_of_waiting_takes_no_time(world, start):
    seen = []

    async def wait(name: str, seconds: float) -> None:
        await asyncio.sleep(seconds)
        seen.append((name, round(world.seconds)))

    async def both() -> None:
        await asyncio.gather(wait("long", 3600), wait("short", 60))

    began_s = time.monotonic()
    thread = start(Node(world, "a"), both())
    world.run(lambda: thread.done, 4000)
    assert seen == [("short", 60), ("long", 3600)]
    assert time.monotonic() - began_s < 5


def test_an_error_of_a_thread_is_reported(world, start):
    async def fail() -> None:
        raise ValueError("this one")

    thread = start(Node(world, "a"), fail())
    world.run(lambda: thread.done, 1)
    assert "this one" in world.errors[0]


def test_threads_of_several_loops_call_each_other(world, start):
    node, answers = Node(world, "a"), []

    async def ask() -> None:
        loop = asyncio.get_running_loop()
        asked = loop.create_future()
        node.spawn("other", lambda: loop.call_soon_threadsafe(asked.set_result, "an answer"))
        answers.append(await asked)

    thread = start(node, ask())
    world.run(lambda: thread.done, 1)
    assert answers == ["an answer"]


def test_nothing_of_a_killed_node_runs_any_more(world, start):
    seen = []

    async def work() -> None:
        try:
            seen.append("began")
            await asyncio.sleep(10)
        finally:
            seen.append("cleaned up")

    node = Node(world, "a")
    thread = start(node, work())
    world.call_later(5, lambda: node.end(-9))
    world.run(lambda: world.seconds >= 20 or not node.alive, 30)
    world.call_later(20, lambda: None)
    with pytest.raises(Stuck):
        world.run(lambda: thread.done, 15)
    assert seen == ["began"]
    assert node.status == -9


def test_a_stalled_node_goes_on_where_it_was(world, start):
    seen = []

    async def tick() -> None:
        for _ in range(4):
            await asyncio.sleep(1)
            seen.append(round(world.seconds))

    node = Node(world, "a")
    thread = start(node, tick())
    world.call_later(1.5, lambda: node.stall(10))
    world.run(lambda: thread.done, 60)
    assert seen == [1, 12, 13, 14]


def test_a_world_in_which_nothing_can_happen_is_stuck(world, start):
    async def wait() -> None:
        await asyncio.get_running_loop().create_future()

    thread = start(Node(world, "a"), wait())
    with pytest.raises(Stuck, match="no timer"):
        world.run(lambda: thread.done, 60)


def test_one_seed_gives_one_order_and_others_give_others(make_world, start):
    def order_of(seed: int) -> tuple[str, str]:
        world = make_world(seed)
        seen: list[str] = []

        async def work(name: str) -> None:
            for _ in range(5):
                seen.append(name)
                await asyncio.sleep(0)

        threads = [start(Node(world, name), work(name)) for name in "abc"]
        world.run(lambda: all(thread.done for thread in threads), 1)
        return "".join(seen), world.digest

    found = [order_of(seed) for seed in range(5)]
    assert [order_of(seed) for seed in range(5)] == found
    assert len(set(found)) == 5

"""The network of the simulation: what clients and servers see when it fails."""

from __future__ import annotations

import asyncio

import pytest

from tests.support.simulation.world import Node, World

# Streams of processes that were killed, or still run when the test ends, are never closed.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
PORT = 7


class Server:
    """Echoes lines; knows its clients."""

    def __init__(self, world: World, start) -> None:
        self.node = Node(world, "server")
        self.received = b""
        self.ended = 0
        start(self.node, self._serve())

    async def _serve(self) -> None:
        self.listener = await asyncio.start_server(self._client, "127.0.0.1", PORT)
        await asyncio.get_running_loop().create_future()

    async def _client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while line := await reader.readline():
                self.received += line
                writer.write(line)
        except ConnectionError:
            pass
        finally:
            self.ended += 1
            writer.close()


@pytest.fixture
def server(world, start) -> Server:
    return Server(world, start)


@pytest.fixture
def client(world, start):
    """Runs a client's coroutine until it ends; its result."""

    def run(work, *, limit_s: float = 120, node: Node | None = None):
        thread = start(node or Node(world, "client"), work)
        world.run(lambda: thread.done, limit_s)
        if thread.error is not None:
            raise thread.error

    return run


async def connected(world: World) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    while not any(port == PORT for port in world.network._listeners):
        await asyncio.sleep(0.01)
    return await asyncio.open_connection("127.0.0.1", PORT)


def test_bytes_arrive_in_their_order_after_a_delay(world, server, client):
    async def ask():
        reader, writer = await connected(world)
        lines = [b"%d\n" % number for number in range(200)]
        began_s = world.seconds
        for line in lines:
            writer.write(line)
        assert [await reader.readline() for _ in lines] == lines
        assert world.seconds > began_s
        writer.close()

    client(ask())
    assert server.received.count(b"\n") == 200
    world.run(lambda: server.ended, 10)


def test_a_port_on_which_nobody_listens_refuses(world, client):
    async def ask():
        await asyncio.open_connection("127.0.0.1", PORT)

    with pytest.raises(ConnectionRefusedError):
        client(ask())


def test_both_ends_see_that_a_connection_is_cut(world, server, client):
    async def ask():
        reader, _ = await connected(world)
        world.call_later(1, lambda: world.network.cut("client", "server"))
        with pytest.raises(ConnectionResetError):
            await reader.readline()

    client(ask())
    world.run(lambda: server.ended, 10)


def test_an_answer_that_is_lost_was_nevertheless_worked_on(world, server, client):
    async def ask():
        reader, writer = await connected(world)
        writer.write(b"1\n")
        assert await reader.readline() == b"1\n"
        for end in world.network.streams("server", "client"):
            end.cut_next = True
        writer.write(b"2\n")
        with pytest.raises(ConnectionResetError):
            await reader.readline()

    client(ask())
    assert server.received == b"1\n2\n"


def test_what_is_sent_into_a_partition_arrives_when_it_ends(world, server, client):
    async def ask():
        reader, writer = await connected(world)
        world.network.block("client", "server")
        world.call_later(5, lambda: world.network.heal("client", "server"))
        began_s = world.seconds
        writer.write(b"1\n")
        assert await reader.readline() == b"1\n"
        assert world.seconds - began_s >= 5

    client(ask())


def test_the_end_of_a_process_is_seen_at_once(world, server, client):
    async def ask():
        reader, _ = await connected(world)
        world.call_later(1, lambda: (server.node.end(-9), world.network.node_ended(server.node)))
        with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
            await reader.readexactly(1)
        assert world.seconds < 2

    client(ask())


def test_a_machine_without_power_says_nothing_and_resets_when_it_is_back(world, server, client):
    async def ask():
        reader, writer = await connected(world)
        server.node.end(-9)
        world.network.node_ended(server.node, power=True)
        began_s = world.seconds
        world.call_later(20, lambda: world.network.node_began("server"))
        writer.write(b"1\n")
        with pytest.raises(ConnectionResetError):
            await reader.readline()
        assert 20 <= world.seconds - began_s <= 22

    client(ask())
    assert server.received == b""


def test_a_connection_attempt_without_an_answer_times_out(world, server, client):
    async def ask():
        (await connected(world))[1].close()
        world.network.block("client", "server")
        with pytest.raises(TimeoutError):
            await asyncio.open_connection("127.0.0.1", PORT)
        assert 29 < world.seconds < 40

    client(ask())


def test_a_writer_is_paused_while_the_reader_takes_nothing(world, server, client):
    async def ask():
        _, writer = await connected(world)
        world.network.block("client", "server")
        writer.write(b"x" * 1_000_000 + b"\n")
        drained = asyncio.ensure_future(writer.drain())
        await asyncio.sleep(10)
        assert not drained.done()
        world.network.heal("client", "server")
        await drained

    client(ask())

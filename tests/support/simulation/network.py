"""The simulated network: streams between nodes with delays, cuts, partitions and ends that nobody reports.

Each node is a machine of its own. A port is that of one listener, whatever the address.
"""

from __future__ import annotations

import asyncio
import zlib
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tests.support.simulation.loop import SimulatedLoop
    from tests.support.simulation.world import Node, World

__all__ = ["End", "Listener", "Network"]

KERNEL_BYTES = 256 << 10
"""What the kernels of both sides take before a writer has to pause."""
CONNECT_S = 30.0
"""After this time a connection attempt that nobody answers fails."""
FIRST_PORT = 20_000


class Network:
    """All streams of a world."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.slow: dict[frozenset[str], float] = {}
        """Mean delay in seconds of messages between two nodes, where it is not the usual one."""
        self.blocked: dict[frozenset[str], list[Callable[[], object]]] = {}
        """Pairs of nodes between which nothing gets through, with what waits until it does."""
        self._dice = world.dice("network")
        self._mean_s = self._dice.choice([0.0002, 0.001, 0.005])
        self._listeners: dict[int, Listener] = {}
        self._off: set[str] = set()
        """Machines without power: they answer nothing."""
        self._open: dict[End, None] = {}
        self._next_port = FIRST_PORT
        self._countdowns: dict[str, list[list[Any]]] = {}
        self._homes: dict[int, str] = {}
        """Names of the nodes that have ever listened, by port."""
        self._unanswered: dict[str, dict[End, None]] = {}
        """Ends whose bytes a machine without power did not get, by its name."""

    # -- of loops

    def listen(self, loop: SimulatedLoop, factory: Callable[[], Any], port: int) -> Listener:
        """Reserve a port. Raises OSError if it is taken."""
        if not port:
            self._next_port += 1
            port = self._next_port
        if port in self._listeners:
            raise OSError(98, f"port {port} is in use")
        listener = Listener(self, _node_of(loop), loop, factory, port)
        self._listeners[port] = listener
        return listener

    async def connect(self, loop: SimulatedLoop, port: int) -> End:
        """Our end of a new stream to a port. Raises ConnectionRefusedError, or TimeoutError."""
        node, answer = _node_of(loop), loop.create_future()
        self._try_to_connect(node, port, loop, answer, self.world.now_ns + int(CONNECT_S * 1e9))
        end: End = await answer
        return end

    def _try_to_connect(
        self, node: Node, port: int, loop: SimulatedLoop, answer: asyncio.Future[End], until_ns: int
    ) -> None:
        def settle(result: End | BaseException) -> None:
            if not node.alive:
                return

            def tell() -> None:
                if answer.done():
                    return
                if isinstance(result, BaseException):
                    answer.set_exception(result)
                else:
                    answer.set_result(result)

            loop.call_soon_threadsafe(tell)

        def arrive() -> None:
            if answer.done() or not node.alive:
                return
            listener = self._listeners.get(port)
            name = listener.node.name if listener is not None else self._homes.get(port, "")
            if name in self._off or frozenset((node.name, name)) in self.blocked:
                if self.world.now_ns >= until_ns:
                    settle(TimeoutError(110, "the connection attempt timed out"))
                else:
                    self.world.call_later(1.0, arrive)
            elif listener is None or not listener.serving:
                settle(ConnectionRefusedError(111, f"nobody listens on port {port}"))
            else:
                ours, theirs = End(self, node), End(self, listener.node)
                ours.peer, theirs.peer = theirs, ours
                ours.names = (f"{node.name}>{listener.node.name}", port)
                theirs.names = (f"{listener.node.name}>{node.name}", port)
                self._open[ours] = self._open[theirs] = None
                self.world.note("connect", *ours.names)
                listener.loop.call_soon_threadsafe(listener.accept, theirs)
                self._carry(theirs, lambda: settle(ours))

        self.world.call_later(self._delay_s(node.name, ""), arrive)

    # -- of ends

    def _delay_s(self, one: str, other: str) -> float:
        mean_s = self.slow.get(frozenset((one, other)), self._mean_s)
        if self._dice.random() < 0.01:
            mean_s *= 10  # it was sent again
        return min(self._dice.expovariate(1 / mean_s), 10 * mean_s)

    def _carry(self, source: End, arrive: Callable[[], object]) -> None:
        """Call ``arrive`` when something that leaves ``source`` now is at its peer; in order."""
        peer = source.peer
        pair = frozenset((source.node.name, peer.node.name))
        if pair in self.blocked:
            self.blocked[pair].append(lambda: self._carry(source, arrive))
            return
        at_ns = self.world.now_ns + int(self._delay_s(source.node.name, peer.node.name) * 1e9)
        source.last_ns = max(source.last_ns + 1, at_ns)

        def delivered() -> None:
            if pair in self.blocked:  # it was on its way
                self.blocked[pair].append(delivered)
            else:
                arrive()

        self.world.call_at(source.last_ns, delivered)

    def send(self, source: End, data: bytes) -> None:
        """Bring bytes to the other end."""
        self.world.note("send", source.names[0], len(data), zlib.crc32(data))
        due = self._count_down(source.node.name)
        # A process that is killed here has sent it, or has come to this point only.
        late = [act for number, act in enumerate(due) if self._dice.random() < 0.5 or number]
        for act in due:
            if act not in late:
                act()
        if source.node.name in self._off:
            return
        if source.cut_next:
            # The program believes that it has answered; the client never learns what.
            self.world.note("cut", source.names[0])
            source.fail()
            source.peer.fail()
            return
        peer = source.peer
        self._carry(source, lambda: peer.arrived(data))
        for act in late:
            act()

    def close(self, source: End) -> None:
        """Tell the other end that nothing follows."""
        if source.node.name not in self._off:
            self._carry(source, source.peer.ended)

    def reset(self, source: End) -> None:
        """Tell the other end that the stream is gone."""
        self._open.pop(source, None)
        if source.node.name not in self._off:
            self._carry(source, source.peer.fail)

    def unknown(self, end: End) -> None:
        """Bytes have come for a stream that is gone."""
        if end.node.name in self._off:
            self._unanswered.setdefault(end.node.name, {})[end.peer] = None
        else:
            self._carry(end, end.peer.fail)

    def forget(self, end: End) -> None:
        """An end is closed."""
        self._open.pop(end, None)

    def _count_down(self, name: str) -> list[Callable[[], object]]:
        waiting = self._countdowns.get(name)
        if not waiting:
            return []
        for each in waiting:
            each[0] -= 1
        due = [act for left, act in waiting if left <= 0]
        self._countdowns[name] = [each for each in waiting if each[0] > 0]
        return due

    # -- of faults

    def after_sends(self, name: str, sends: int, act: Callable[[], object]) -> None:
        """Call a function when a node has sent so many messages more."""
        self._countdowns.setdefault(name, []).append([sends, act])

    def node_ended(self, node: Node, *, power: bool = False) -> None:
        """A process is gone: its kernel closes its streams, unless the machine lost its power."""
        for port in [port for port, each in self._listeners.items() if each.node is node]:
            del self._listeners[port]
        if power:
            self._off.add(node.name)
        for end in [end for end in self._open if end.node is node]:
            self._open.pop(end)
            end.dead = True
            if not power:
                self._carry(end, end.peer.fail if end.inbox or self._dice.random() < 0.5 else end.peer.ended)

    def node_began(self, name: str) -> None:
        """The machine of this name has power again."""
        self._off.discard(name)
        for end in self._unanswered.pop(name, ()):
            # What was not acknowledged is sent again, and its kernel knows no such stream.
            self.world.call_later(self._dice.random(), end.fail)

    def streams(self, one: str, other: str = "") -> list[End]:
        """Ends at node ``one``, of streams to ``other`` or all."""
        return [end for end in self._open if end.node.name == one and (not other or end.peer.node.name == other)]

    def cut(self, one: str, other: str) -> None:
        """All streams between two nodes are reset at both ends at once."""
        for end in self.streams(one, other):
            end.fail()
            end.peer.fail()

    def block(self, one: str, other: str) -> None:
        """Nothing gets through between two nodes."""
        self.blocked.setdefault(frozenset((one, other)), [])

    def heal(self, one: str, other: str) -> None:
        """It does again, and what was sent meanwhile arrives."""
        for arrive in self.blocked.pop(frozenset((one, other)), []):
            arrive()


class Listener:
    """What `create_server` returns: the part of asyncio.Server that is used."""

    def __init__(
        self, network: Network, node: Node, loop: SimulatedLoop, factory: Callable[[], Any], port: int
    ) -> None:
        self._network = network
        self.node = node
        self.loop = loop
        self._factory = factory
        self.port = port
        self.serving = False
        network._homes[port] = node.name

    @property
    def sockets(self) -> list[Listener]:
        """Itself: it has an address."""
        return [self]

    def getsockname(self) -> tuple[str, int]:
        """Address and port."""
        return ("127.0.0.1", self.port)

    async def start_serving(self) -> None:
        """Accept from now on."""
        self.serving = True

    def is_serving(self) -> bool:
        """Whether it accepts."""
        return self.serving

    def close(self) -> None:
        """Accept no more."""
        self.serving = False
        if self._network._listeners.get(self.port) is self:
            del self._network._listeners[self.port]

    async def wait_closed(self) -> None:
        """It is closed at once."""

    def accept(self, end: End) -> None:
        """A client has connected; called on the loop."""
        if self.serving and not end.dead:
            end.attach(self.loop, self._factory())
        else:
            end.fail()


class End(asyncio.Transport):
    """One end of a stream: the transport of a protocol."""

    peer: End
    names: tuple[str, int]

    def __init__(self, network: Network, node: Node) -> None:
        super().__init__()
        self.node = node
        self.inbox: deque[bytes] = deque()
        self.last_ns = 0
        """When the last of what was sent arrives."""
        self.dead = False
        """The process is gone, or the stream is reset: nothing arrives any more."""
        self.cut_next = False
        """What is sent next is lost, and the stream with it."""
        self._network = network
        self._loop: SimulatedLoop | None = None
        self._protocol: Any = None
        self._reading = True
        self._closing = False
        self._eof = False
        self._lost = False
        self._waiting_bytes = 0
        """Sent and not taken by the protocol of the other end."""
        self._high, self._low = 64 << 10, 16 << 10
        self._paused = False

    # -- asyncio's side

    def attach(self, loop: SimulatedLoop, protocol: Any) -> None:
        """The stream is the protocol's from now on."""
        self._loop, self._protocol = loop, protocol
        protocol.connection_made(self)
        self._drain()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Of the other end: its address."""
        return ("127.0.0.1", self.names[1]) if name in ("peername", "sockname") else default

    def set_protocol(self, protocol: Any) -> None:
        """Another protocol takes over."""
        self._protocol = protocol

    def get_protocol(self) -> Any:
        """The protocol."""
        return self._protocol

    def is_closing(self) -> bool:
        """Whether it is closed, or soon is."""
        return self._closing

    def is_reading(self) -> bool:
        """Whether the protocol takes bytes."""
        return self._reading and not self._closing

    def pause_reading(self) -> None:
        """The protocol takes nothing for now."""
        self._reading = False

    def resume_reading(self) -> None:
        """It does again."""
        self._reading = True
        if self._loop is not None:
            self._loop.call_soon(self._drain)

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """When the writer has to pause."""
        self._high = 64 << 10 if high is None else high
        self._low = self._high // 4 if low is None else low

    def get_write_buffer_size(self) -> int:
        """Bytes that the kernels do not take."""
        return max(0, self._waiting_bytes - KERNEL_BYTES)

    def can_write_eof(self) -> bool:
        """Half-closed streams are not simulated."""
        return False

    def write(self, data: Any) -> None:
        """Send bytes."""
        if self._closing or self.dead or not data:
            return
        content = bytes(data)
        self._waiting_bytes += len(content)
        self._network.send(self, content)
        if not self._paused and self.get_write_buffer_size() > self._high:
            self._paused = True
            self._protocol.pause_writing()

    def writelines(self, list_of_data: Any) -> None:
        """Send several pieces as one."""
        self.write(b"".join(bytes(each) for each in list_of_data))

    def close(self) -> None:
        """Close, after everything that was written."""
        if not self._closing:
            self._closing = True
            self._network.close(self)
            self._lose(None)

    def abort(self) -> None:
        """Close at once."""
        if not self._lost:
            self._closing = True
            self._network.reset(self)
            self._lose(None)

    def _lose(self, error: BaseException | None) -> None:
        if self._lost:
            return
        self._lost = self._closing = True
        self._network.forget(self)
        if self._protocol is not None and self._loop is not None:
            self._loop.call_soon_threadsafe(self._protocol.connection_lost, error)

    # -- the network's side, on no thread

    def arrived(self, data: bytes) -> None:
        """Bytes are at this machine."""
        if self.dead or self._lost:
            self._network.unknown(self)
            return
        self.inbox.append(data)
        self._call(self._drain)

    def ended(self) -> None:
        """The other end has closed."""
        if not self.dead and not self._lost:
            self._eof = True
            self._call(self._drain)

    def fail(self) -> None:
        """The stream is reset."""
        self._network.forget(self)
        if not self.dead and not self._lost:
            self.dead = True
            self._call(self._reset)

    def _call(self, act: Callable[[], object]) -> None:
        if self._loop is not None and self.node.alive:
            self._loop.call_soon_threadsafe(act)

    def _reset(self) -> None:
        self._lose(ConnectionResetError(104, "the connection was reset"))

    def _drain(self) -> None:
        """Hand over what has arrived; on the loop."""
        while self.inbox and self._reading and not self._lost:
            data = self.inbox.popleft()
            self._take(data)
            self.peer._taken(len(data))
        if self._eof and not self.inbox and not self._lost:
            self._eof = False
            if not self._protocol.eof_received():
                self.close()
        elif self.dead and not self._lost:
            self._reset()

    def _take(self, data: bytes) -> None:
        if isinstance(self._protocol, asyncio.BufferedProtocol):
            view = memoryview(data)
            while len(view) and not self._lost:
                buffer = self._protocol.get_buffer(len(view))
                size = min(len(buffer), len(view))
                buffer[:size] = view[:size]
                view = view[size:]
                self._protocol.buffer_updated(size)
        else:
            self._protocol.data_received(data)

    def _taken(self, size: int) -> None:
        self._waiting_bytes -= size
        if self._paused and self.get_write_buffer_size() <= self._low:
            self._paused = False
            self._call(self._resume)

    def _resume(self) -> None:
        if not self._lost:
            self._protocol.resume_writing()


def _node_of(loop: SimulatedLoop) -> Node:
    assert loop.thread is not None, "the loop does not run"
    return loop.thread.node

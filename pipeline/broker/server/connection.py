"""One client's connection: reads frames and sends responses, one request at a time and in order, as Kafka does.

Back-pressure: while a response waits for a slow client, or requests wait for an earlier one, nothing more is read from
its socket. A malformed frame is logged and closes only its own connection.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import socket
import struct
from collections import deque
from typing import Protocol

from astrocyte.pipeline.broker.protocol.errors import MalformedRequest
from astrocyte.pipeline.broker.protocol.framing import SMALLEST_FRAME, FrameReader

__all__ = ["Answer", "Connection", "Dispatcher", "Request"]

logger = logging.getLogger(__name__)

Buffer = bytes | bytearray | memoryview
Answer = list[Buffer] | None  # None: no response is expected (Produce with acks=0)

QUEUED_BYTES = 1 << 20  # requests read ahead of the one being served
UNSENT_BYTES = 1 << 16  # in the transport, before the rest of a response waits for them to be sent
SMALL_ANSWER = 1 << 16  # joined into one write
_HEADER = struct.Struct(">hhih")


class Request:
    """A frame with its decoded header; the body begins at ``at``."""

    __slots__ = ("api_key", "at", "client_host", "client_id", "correlation_id", "frame", "version")

    def __init__(self, frame: bytearray, client_host: str = "") -> None:
        try:
            self.api_key, self.version, self.correlation_id, id_length = _HEADER.unpack_from(frame)
        except struct.error:
            if len(frame) < SMALLEST_FRAME:
                raise MalformedRequest(
                    f"expected a frame of at least {SMALLEST_FRAME} bytes, got {len(frame)}"
                ) from None
            self.api_key, self.version, self.correlation_id = struct.unpack_from(">hhi", frame)
            id_length = -1
        self.at = _HEADER.size + max(id_length, 0)
        if id_length < -1 or self.at > max(len(frame), _HEADER.size):
            raise MalformedRequest(f"a client id of {id_length} bytes in a frame of {len(frame)} bytes")
        try:
            self.client_id = frame[_HEADER.size : self.at].decode()
        except UnicodeDecodeError:
            raise MalformedRequest("a client id that is not UTF-8") from None
        self.frame = memoryview(frame)
        self.client_host = client_host


class Dispatcher(Protocol):
    """Serves the requests of all connections."""

    max_request_bytes: int

    def opened(self, connection: Connection) -> None:
        """A client has connected."""

    def closed(self, connection: Connection) -> None:
        """The connection has ended."""

    def received(self, connection: Connection) -> None:
        """What the connection holds has changed; may close this or another one."""

    def serve(self, request: Request) -> Answer | asyncio.Future[Answer]:
        """A response, or a future of it (cancelled when the connection ends).

        Raises MalformedRequest, which closes the connection.
        """


class Connection(asyncio.BufferedProtocol):
    """The asyncio side of a client."""

    def __init__(self, dispatcher: Dispatcher) -> None:
        self._dispatcher = dispatcher
        self._reader = FrameReader(dispatcher.max_request_bytes)
        self._frames: deque[bytearray] = deque()
        self._queued_bytes = 0
        self._waiting: asyncio.Future[Answer] | None = None
        self._unwritten: deque[Buffer] = deque()  # unsent parts of the current response
        self._writable = True
        self._reading = True
        self._transport: asyncio.Transport | None = None
        self._last_request: tuple[int, int, str] | None = None  # api key, version, client id
        self.peer = "?"
        self.heard_s = 0.0
        """When the client last sent bytes, or took some, by the clock of the loop."""

    @property
    def held_bytes(self) -> int:
        """Bytes of requests that are not complete, or wait for their turn."""
        return self._reader.held_bytes + self._queued_bytes

    @property
    def is_amid_request(self) -> bool:
        """Whether a part of a long request has come, and the rest is to come."""
        return self._reader.is_amid_frame

    @property
    def is_answering(self) -> bool:
        """Whether the client waits for the answer to a request."""
        return self._waiting is not None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by asyncio: a client has connected."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self.heard_s = asyncio.get_running_loop().time()
        peer = transport.get_extra_info("peername")
        self.peer = f"{peer[0]}:{peer[1]}" if peer else "?"
        sock = transport.get_extra_info("socket")
        if sock is not None:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        transport.set_write_buffer_limits(high=UNSENT_BYTES, low=0)
        self._dispatcher.opened(self)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        """Called by asyncio: the connection has ended; cancel its pending request."""
        self._transport = None
        self._frames.clear()
        self._unwritten.clear()
        if self._waiting is not None:
            self._waiting.cancel()
        self._dispatcher.closed(self)

    def abort(self) -> None:
        """Close at once, and let go of what it holds: asyncio ends it in a later turn, when others have sent more."""
        if self._transport is not None:
            self._transport.abort()
            self._frames.clear()
            self._queued_bytes = 0
            self._reader.release()

    def pause_writing(self) -> None:
        """Called by asyncio: the write buffer is full."""
        self._writable = False

    def resume_writing(self) -> None:
        """Called by asyncio: the write buffer is empty."""
        self._writable = True
        self.heard_s = asyncio.get_running_loop().time()
        self._write_pending()
        self._serve_queued()

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002 - asyncio's signature
        """Called by asyncio: buffer for bytes of requests, split at any position."""
        return self._reader.buffer()

    def buffer_updated(self, nbytes: int) -> None:
        """Called by asyncio: bytes were received."""
        self.heard_s = asyncio.get_running_loop().time()
        try:
            frames = self._reader.received(nbytes)
        except MalformedRequest as fault:
            self._close_for(fault)
            return
        if frames:
            self._frames += frames
            self._queued_bytes += sum(map(len, frames))
            self._serve_queued()
        if self._transport is not None:
            self._dispatcher.received(self)

    def _serve_queued(self) -> None:
        try:
            while self._frames and self._waiting is None and self._may_answer and self._transport is not None:
                frame = self._frames.popleft()
                self._queued_bytes -= len(frame)
                request = Request(frame, self.peer)
                self._last_request = (request.api_key, request.version, request.client_id)
                answer = self._dispatcher.serve(request)
                if isinstance(answer, asyncio.Future):
                    self._waiting = answer
                    answer.add_done_callback(functools.partial(self._answered, request))
                else:
                    self._send(request, answer)
        except MalformedRequest as fault:
            self._close_for(fault)
        except Exception:
            logger.exception("%s: %s failed; closing the connection", self.peer, self._last())
            self.abort()
        self._update_reading()

    def _answered(self, request: Request, future: asyncio.Future[Answer]) -> None:
        self._waiting = None
        if future.cancelled() or self._transport is None:
            return
        failure = future.exception()
        if isinstance(failure, MalformedRequest):
            self._close_for(failure)
        elif failure is not None:
            logger.error("%s: %s failed; closing the connection", self.peer, self._last(), exc_info=failure)
            self.abort()
        else:
            self._send(request, future.result())
            self._serve_queued()
            if self._transport is not None:
                self._dispatcher.received(self)

    def _send(self, request: Request, answer: Answer) -> None:
        if answer is None or self._transport is None:
            return
        length = 4 + sum(map(len, answer))
        head = struct.pack(">ii", length, request.correlation_id)
        if length <= SMALL_ANSWER:
            self._transport.write(b"".join((head, *answer)))
            return
        self._unwritten += (head + answer[0], *answer[1:])
        self._write_pending()

    def _write_pending(self) -> None:
        """Write parts of a response one by one: bytes that the socket accepts at once are never copied."""
        while self._unwritten and self._writable and self._transport is not None:
            self._transport.write(self._unwritten.popleft())

    @property
    def _may_answer(self) -> bool:
        """Whether all earlier responses are written."""
        return self._writable and not self._unwritten

    def _update_reading(self) -> None:
        """Pause or resume reading from the socket: it is read only while more requests may be queued."""
        if self._transport is None or self._transport.is_closing():
            return
        room = self._queued_bytes < QUEUED_BYTES and self._may_answer
        if room != self._reading:
            self._reading = room
            if room:
                self._transport.resume_reading()
            else:
                self._transport.pause_reading()

    def _close_for(self, fault: MalformedRequest) -> None:
        logger.warning("%s: %s (after %s); closing the connection", self.peer, fault, self._last())
        self.abort()

    def _last(self) -> str:
        if self._last_request is None:
            return "no request"
        api_key, version, client_id = self._last_request
        return f"api {api_key} version {version} of client {client_id!r}"

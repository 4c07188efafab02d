"""One client's connection: frames in, answers out, one request at a time and in order, as Kafka does.

Back-pressure: while an answer waits for a slow client, or requests wait for an earlier one, nothing more is read from
its socket. A frame that makes no sense closes this connection, with a line in the log, and no other.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import socket
import struct
from collections import deque
from typing import Protocol

from pipeline.broker.errors import MalformedRequest

__all__ = ["Answer", "Connection", "Dispatcher", "Request"]

logger = logging.getLogger(__name__)

Buffer = bytes | bytearray | memoryview
Answer = list[Buffer] | None  # None: the client wants none (Produce with acks=0)

SMALLEST_FRAME = 8  # api key, version, correlation id
QUEUED_BYTES = 1 << 20  # requests read ahead of the one being served
ANSWER_BYTES = 1 << 20  # of answers in the transport before the next request is served
_HEADER = struct.Struct(">hhih")


class Request:
    """A frame with its header taken apart: the body begins at ``at``."""

    __slots__ = ("api_key", "at", "client_host", "client_id", "correlation_id", "frame", "version")

    def __init__(self, frame: bytearray, client_host: str = "") -> None:
        try:
            self.api_key, self.version, self.correlation_id, id_length = _HEADER.unpack_from(frame)
        except struct.error:
            if len(frame) < SMALLEST_FRAME:
                raise MalformedRequest(f"a frame of {len(frame)} bytes") from None
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
    """What serves the requests of all connections."""

    max_request_bytes: int

    def opened(self, connection: Connection) -> None:
        """A client has connected."""

    def closed(self, connection: Connection) -> None:
        """The connection is gone."""

    def serve(self, request: Request) -> Answer | asyncio.Future[Answer]:
        """Answer now, or promise to (cancelled when the connection ends); MalformedRequest ends the connection."""


class Connection(asyncio.Protocol):
    """The asyncio side of a client."""

    def __init__(self, dispatcher: Dispatcher) -> None:
        self._dispatcher = dispatcher
        self._partial = bytearray()  # of the frame that is coming in, with its length in front
        self._frames: deque[bytearray] = deque()
        self._queued_bytes = 0
        self._waiting: asyncio.Future[Answer] | None = None
        self._writable = True
        self._reading = True
        self._transport: asyncio.Transport | None = None
        self._last_request = "no request"
        self.peer = "?"

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by asyncio: a client is there."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        peer = transport.get_extra_info("peername")
        self.peer = f"{peer[0]}:{peer[1]}" if peer else "?"
        sock = transport.get_extra_info("socket")
        if sock is not None:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        transport.set_write_buffer_limits(high=ANSWER_BYTES)
        self._dispatcher.opened(self)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        """Called by asyncio: what still waited for an answer no longer does."""
        self._transport = None
        self._frames.clear()
        if self._waiting is not None:
            self._waiting.cancel()
        self._dispatcher.closed(self)

    def abort(self) -> None:
        """Close at once."""
        if self._transport is not None:
            self._transport.abort()

    def pause_writing(self) -> None:
        """Called by asyncio: the client reads too slowly."""
        self._writable = False

    def resume_writing(self) -> None:
        """Called by asyncio: the client has caught up."""
        self._writable = True
        self._serve_queued()

    def data_received(self, data: bytes) -> None:
        """Called by asyncio: bytes of requests, cut anywhere."""
        try:
            self._split(data)
        except MalformedRequest as fault:
            self._close_for(fault)
            return
        self._serve_queued()

    def _split(self, data: bytes) -> None:
        """Queue the frames that are whole now. A frame's bytes are copied once, into a buffer of its own."""
        at, partial = 0, self._partial
        while at < len(data):
            if not partial and at + 4 <= len(data):
                length = self._frame_length(data[at : at + 4])
                if at + 4 + length <= len(data):
                    self._queue(bytearray(data[at + 4 : at + 4 + length]))
                    at += 4 + length
                    continue
            if len(partial) < 4:
                taken = data[at : at + 4 - len(partial)]
                partial += taken
                at += len(taken)
                if len(partial) < 4:
                    return
            missing = 4 + self._frame_length(partial[:4]) - len(partial)
            taken = data[at : at + missing] if at or missing < len(data) else data
            partial += taken
            at += len(taken)
            if len(taken) < missing:
                return
            del partial[:4]
            self._queue(partial)
            partial = self._partial = bytearray()

    def _frame_length(self, prefix: bytes | bytearray) -> int:
        length = int.from_bytes(prefix, "big", signed=True)
        if not SMALLEST_FRAME <= length <= self._dispatcher.max_request_bytes:
            raise MalformedRequest(
                f"a frame of {length} bytes; wanted {SMALLEST_FRAME} to {self._dispatcher.max_request_bytes}"
            )
        return length

    def _queue(self, frame: bytearray) -> None:
        self._frames.append(frame)
        self._queued_bytes += len(frame)

    def _serve_queued(self) -> None:
        try:
            while self._frames and self._waiting is None and self._writable and self._transport is not None:
                frame = self._frames.popleft()
                self._queued_bytes -= len(frame)
                request = Request(frame, self.peer)
                self._last_request = f"api {request.api_key} version {request.version} of client {request.client_id!r}"
                answer = self._dispatcher.serve(request)
                if isinstance(answer, asyncio.Future):
                    self._waiting = answer
                    answer.add_done_callback(functools.partial(self._answered, request))
                else:
                    self._send(request, answer)
        except MalformedRequest as fault:
            self._close_for(fault)
        except Exception:
            logger.exception("%s: %s failed; closing the connection", self.peer, self._last_request)
            self.abort()
        self._read_on()

    def _answered(self, request: Request, future: asyncio.Future[Answer]) -> None:
        self._waiting = None
        if future.cancelled() or self._transport is None:
            return
        failure = future.exception()
        if isinstance(failure, MalformedRequest):
            self._close_for(failure)
        elif failure is not None:
            logger.error("%s: %s failed; closing the connection", self.peer, self._last_request, exc_info=failure)
            self.abort()
        else:
            self._send(request, future.result())
            self._serve_queued()

    def _send(self, request: Request, answer: Answer) -> None:
        if answer is None or self._transport is None:
            return
        length = 4 + sum(map(len, answer))
        self._transport.writelines([struct.pack(">ii", length, request.correlation_id), *answer])

    def _read_on(self) -> None:
        """Read from the socket only while there is room for more requests."""
        if self._transport is None or self._transport.is_closing():
            return
        room = self._queued_bytes < QUEUED_BYTES and self._writable
        if room != self._reading:
            self._reading = room
            if room:
                self._transport.resume_reading()
            else:
                self._transport.pause_reading()

    def _close_for(self, fault: MalformedRequest) -> None:
        logger.warning("%s: %s (after %s); closing the connection", self.peer, fault, self._last_request)
        self.abort()

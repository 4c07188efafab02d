"""One stream of changes for any number of browsers (server-sent events, the HTML standard, section 9.2).

Each change is serialised once. A browser that takes its changes too slowly loses those that wait for it and gets a
snapshot in their place; it holds up neither others nor the pipeline.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Final

from astrocyte.pipeline.page.content.document import Document, encode, patch

__all__ = ["HEARTBEAT", "MOST_CLIENTS", "Client", "Hub"]

MOST_CLIENTS: Final = 64
_MOST_WAITING: Final = 8
"""Changes that wait for one browser."""
HEARTBEAT: Final = b": the stream is alive\n\n"


class Client:
    """One browser's end: `next_frame` gives what is to be written to it."""

    def __init__(self, snapshot: Callable[[], bytes]) -> None:
        self._snapshot = snapshot
        self._waiting: deque[bytes] = deque()
        self._behind = True
        self._awake = asyncio.Event()
        self._awake.set()
        self.skipped = 0
        """Changes that were dropped because they were not taken in time."""

    def push(self, frame: bytes) -> None:
        """Let a frame wait; too many of them are dropped for a snapshot."""
        if self._behind:
            return  # the snapshot, made when it is taken, contains the change
        if len(self._waiting) >= _MOST_WAITING:
            self.skipped += len(self._waiting) + 1
            self._waiting.clear()
            self._behind = True
        else:
            self._waiting.append(frame)
        self._awake.set()

    async def next_frame(self) -> bytes:
        """The next frame; waits for one."""
        await self._awake.wait()
        if self._behind:
            self._behind = False
            frame = self._snapshot()
        else:
            frame = self._waiting.popleft()
        if not self._waiting:
            self._awake.clear()
        return frame


class Hub:
    """The document that all browsers hold, and its changes."""

    def __init__(self) -> None:
        self._document: Document = {}
        self._snapshot: bytes | None = None
        self._number = 0
        self._clients: set[Client] = set()

    @property
    def clients(self) -> int:
        """Number of browsers."""
        return len(self._clients)

    def join(self) -> Client:
        """A browser more; its first frame is the snapshot."""
        client = Client(self.snapshot)
        self._clients.add(client)
        return client

    def leave(self, client: Client) -> None:
        """A browser less."""
        self._clients.discard(client)

    def publish(self, document: Document) -> bool:
        """Send what has changed; returns whether anything has."""
        changes = patch(self._document, document)
        self._document = document
        if not changes:
            return False
        self._snapshot = None
        self._number += 1
        self._push(_event("patch", self._number, encode(changes)))
        return True

    def heartbeat(self) -> None:
        """Send a comment, by which the connection of a browser that is gone is found to be closed."""
        self._push(HEARTBEAT)

    def snapshot(self) -> bytes:
        """The event that makes the document out of nothing."""
        if self._snapshot is None:
            self._snapshot = _event("snapshot", self._number, encode(patch({}, self._document)))
        return self._snapshot

    def _push(self, frame: bytes) -> None:
        for client in self._clients:
            client.push(frame)


def _event(kind: str, number: int, data: bytes) -> bytes:
    return b"event: %b\nid: %d\ndata: %b\n\n" % (kind.encode(), number, data)

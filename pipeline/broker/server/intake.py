"""What the requests of all clients may hold before they are served, and how long a client may be silent."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from astrocyte.pipeline.broker.server.connection import Connection

__all__ = ["Intake"]

logger = logging.getLogger(__name__)

_LOOKS: Final = 10
"""How often silence is looked for within the time that is allowed."""


class Intake:
    """Closes the connections that hold too much, or are silent for too long.

    Where all connections together hold more than ``most_bytes`` in requests that are not complete or wait for their
    turn, the one that has sent nothing for the longest time is closed, of those that are in the midst of a long request
    if there are any: a client that goes on sending, or waits for its answer, is not closed for those that have stopped.
    A client whose connection is closed connects again, and sends again what was not answered.
    """

    def __init__(self, most_bytes: int, idle_s: float) -> None:
        self._most_bytes = most_bytes
        self._idle_s = idle_s
        self._held: dict[Connection, int] = {}
        self.total_bytes = 0
        self._watching: asyncio.Task[None] | None = None

    @property
    def connections(self) -> list[Connection]:
        """Connections that are open."""
        return list(self._held)

    def start(self) -> None:
        """Begin to look for silent clients."""
        self._watching = asyncio.create_task(self._watch())

    def stop(self) -> None:
        """Look no more."""
        if self._watching is not None:
            self._watching.cancel()

    def opened(self, connection: Connection) -> None:
        """A client has connected."""
        self._held[connection] = 0
        self.received(connection)

    def closed(self, connection: Connection) -> None:
        """A client has disconnected."""
        self.total_bytes -= self._held.pop(connection, 0)

    def received(self, connection: Connection) -> None:
        """What a connection holds has changed."""
        if connection not in self._held:
            return  # it was closed, and asyncio has not said so yet
        held = connection.held_bytes
        self.total_bytes += held - self._held[connection]
        self._held[connection] = held
        while self.total_bytes > self._most_bytes and self._held:
            # Requests that are complete wait for this broker, not for their client. The least that any connection holds
            # is its buffer for short requests.
            least = min(self._held.values())
            holding = (
                [each for each in self._held if each.is_amid_request]
                or [each for each, size in self._held.items() if size > least]
                or list(self._held)
            )
            stalest = min(holding, key=lambda each: each.heard_s)
            logger.warning(
                "%s: closing the connection, which holds %d bytes of unfinished requests; all hold %d, and "
                "max_unfinished_bytes is %d",
                stalest.peer, self._held[stalest], self.total_bytes, self._most_bytes,
            )  # fmt: skip
            self.closed(stalest)
            stalest.abort()

    async def _watch(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(self._idle_s / _LOOKS)
            before_s = loop.time() - self._idle_s
            for connection in self.connections:
                if connection.heard_s <= before_s and not connection.is_answering:
                    logger.info("%s: closing the connection, which was silent for %g s", connection.peer, self._idle_s)
                    connection.abort()

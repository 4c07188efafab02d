"""The page of one source: reads it while somebody looks, and publishes what has changed once a tick."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, TypeVar

from astrocyte.pipeline.kafka.record import ConsumedRecord
from astrocyte.pipeline.page.content.document import Document
from astrocyte.pipeline.page.content.state import PageState
from astrocyte.pipeline.page.server.hub import Client, Hub
from astrocyte.pipeline.page.sources.source import Source
from astrocyte.schemas.errors import AstrocyteError

__all__ = ["TICK_S", "Page"]

logger = logging.getLogger(__name__)

T = TypeVar("T")

TICK_S: Final = 1.0
_SHORT_TICKS: Final = 12
_HEARTBEAT_S: Final = 15.0
_REST_S: Final = 60.0
"""For how long the source is read on after the last browser has left."""


class Page:
    """State, source and browsers. Everything about the state happens on one thread of its own, in order."""

    def __init__(self, source: Source, state: PageState | None = None, *, tick_s: float = TICK_S) -> None:
        self.source = source
        self.state = state or PageState()
        self.hub = Hub()
        self._tick_s = tick_s
        self._worker = ThreadPoolExecutor(1, "page")
        self._looked_at = asyncio.Event()
        self._joined = asyncio.Event()
        self._short_ticks = _SHORT_TICKS
        self._figures: dict[str, Any] = {}
        self._problem = ""
        self._complete = False

    # -- what a source calls ----------------------------------------------------------------------------------------

    async def take(self, change: Callable[[PageState], object]) -> None:
        """Let ``change`` advance the state, on its thread."""
        await asyncio.get_running_loop().run_in_executor(self._worker, change, self.state)

    async def ask(self, question: Callable[[PageState], T]) -> T:
        """What a question about the state gives, on its thread."""
        return await asyncio.get_running_loop().run_in_executor(self._worker, question, self.state)

    async def take_records(self, records: Sequence[ConsumedRecord]) -> None:
        """Advance the state by messages."""
        await self.take(lambda state: state.take(records))

    def figures(self, name: str, values: Mapping[str, Any]) -> None:
        """Show values that are not of the state, such as the lag of roles."""
        self._figures[name] = values

    @property
    def is_looked_at(self) -> bool:
        """Whether a browser is connected, or was a moment ago."""
        return self._looked_at.is_set()

    async def wait_for_looks(self) -> None:
        """Wait until somebody looks: a page that nobody has opened reads nothing."""
        await self._looked_at.wait()

    # -- its life ----------------------------------------------------------------------------------------------------

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[Page]:
        """Read and publish until the context ends."""
        tasks = [asyncio.create_task(self._read()), asyncio.create_task(self._publish())]
        try:
            yield self
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self._worker.shutdown(wait=False, cancel_futures=True)

    def join(self) -> Client:
        """A browser begins to look."""
        self._looked_at.set()
        self._joined.set()
        return self.hub.join()

    async def _read(self) -> None:
        await self.wait_for_looks()
        try:
            await self.source.feed(self)
            self._complete = True
        except AstrocyteError as error:
            self._problem = str(error)
        except Exception:
            logger.exception("the source of the page cannot be read")
            self._problem = "the source cannot be read; the log of the page says why"

    async def _publish(self) -> None:
        since_sent_s = since_looked_s = 0.0
        while True:
            if self.hub.clients:
                since_looked_s = 0.0
                document = await asyncio.get_running_loop().run_in_executor(self._worker, self._document)
                sent = self.hub.publish(document)
                since_sent_s = 0.0 if sent else since_sent_s + self._tick_s
                if since_sent_s >= _HEARTBEAT_S:
                    self.hub.heartbeat()
                    since_sent_s = 0.0
            else:
                since_looked_s += self._tick_s
                if since_looked_s >= _REST_S:
                    self._looked_at.clear()
            await self._next_tick()

    async def _next_tick(self) -> None:
        """Wait for a tick; the first ones of a browser that comes while none looks are short."""
        if self.hub.clients:
            self._short_ticks = max(self._short_ticks - 1, 0)
            await asyncio.sleep(self._tick_s / (4 if self._short_ticks else 1))
            return
        self._short_ticks = _SHORT_TICKS
        self._joined.clear()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._joined.wait(), self._tick_s)

    def _document(self) -> Document:
        source = {
            **self.source.about(),
            "complete": self._complete,
            "problem": self._problem,
        }
        return {**self.state.document(), **self._figures, "source": source}

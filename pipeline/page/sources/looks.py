"""What is read of a run only while somebody looks at it, such as single births."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar

from astrocyte.pipeline.page.sources.run_frames import RunFrames
from astrocyte.pipeline.page.sources.source import Source
from astrocyte.schemas.errors import AstrocyteError
from astrocyte.schemas.frames import Frame

__all__ = ["MOST_RUNS", "Look", "Looks"]

logger = logging.getLogger(__name__)
T = TypeVar("T")
R = TypeVar("R")

MOST_RUNS: Final = 2
"""Runs that are kept: those that were looked at last."""
_REST_S: Final = 10.0
"""A browser that shows something live asks every second; this long after the last question no more is read."""


@dataclass(eq=False)
class Look(Generic[T]):
    """What was read of one run, in ``held``, and how far that is."""

    held: T
    frames: RunFrames
    complete: bool = False
    problem: str = ""
    events: int = 0
    asked_s: float = 0.0
    reading: asyncio.Task[None] | None = None

    def about(self) -> dict[str, Any]:
        """How far it is read, for a browser."""
        notes = self.frames.notes if self.complete else []
        return {"complete": self.complete, "events": self.events, "problem": self.problem, "notes": notes}


class Looks(Generic[T]):
    """Reads ``streams`` of the runs that are asked for into what ``make`` makes for each, by ``add``.

    Both, and all work that is asked for, happen on one thread of its own, in order; `close` ends it.
    """

    def __init__(
        self, source: Source, streams: Sequence[str], make: Callable[[str], T], add: Callable[[T, Frame], object]
    ) -> None:
        self._source = source
        self._streams = tuple(streams)
        self._make = make
        self._add = add
        self._looks: OrderedDict[str, Look[T]] = OrderedDict()
        self._worker = ThreadPoolExecutor(1, "look")

    async def ask(self, run: str, work: Callable[[Look[T]], R]) -> R:
        """The result of ``work`` on what is read of a run, which is read on from now."""
        look = self._looks.get(run)
        if look is None:
            look = self._looks[run] = Look(self._make(run), self._source.frames(run, self._streams))
        self._looks.move_to_end(run)
        look.asked_s = time.monotonic()
        if not look.complete and (look.reading is None or look.reading.done()):
            look.reading = asyncio.create_task(self._read(run, look))
        while len(self._looks) > MOST_RUNS:
            _, gone = self._looks.popitem(last=False)
            if gone.reading is not None:
                gone.reading.cancel()
        return await self._on_thread(lambda: work(look))

    async def read(self, run: str) -> None:
        """Wait until all is read of a run of a recording, if it was asked for."""
        look = self._looks.get(run)
        if look is not None and look.reading is not None:
            await look.reading

    async def close(self) -> None:
        """End all reading."""
        for look in self._looks.values():
            if look.reading is not None:
                look.reading.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await look.reading
        self._worker.shutdown(wait=False, cancel_futures=True)

    async def _on_thread(self, work: Callable[[], R]) -> R:
        return await asyncio.get_running_loop().run_in_executor(self._worker, work)

    async def _read(self, run: str, look: Look[T]) -> None:
        """Take frames until there are no more, or nobody has looked for some time."""
        portions = look.frames.portions()
        try:
            async for frames in portions:
                await self._on_thread(lambda frames=frames: self._take(look, frames))  # type: ignore[misc]
                if look.frames.live and time.monotonic() - look.asked_s > _REST_S:
                    return
            look.complete = True
        except AstrocyteError as error:
            look.problem, look.complete = str(error), not look.frames.live
        except Exception:
            logger.exception("run %r cannot be read", run)
            look.problem, look.complete = "this cannot be read; the log of the page says why", True
        finally:
            await portions.aclose()

    def _take(self, look: Look[T], frames: list[Frame]) -> None:
        for frame in frames:
            look.events += frame.num_rows
            self._add(look.held, frame)

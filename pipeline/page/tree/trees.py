"""The trees that browsers look at: births are read while somebody does, and windows are answered."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, TypeVar

from astrocyte.pipeline.analysis.phylogeny.records import PEDIGREES
from astrocyte.pipeline.page.sources.run_frames import RunFrames
from astrocyte.pipeline.page.sources.source import Source
from astrocyte.pipeline.page.tree.colours import colours_of, range_of, values_of
from astrocyte.pipeline.page.tree.forest import Forest
from astrocyte.pipeline.page.tree.layout import Layout, lay_out
from astrocyte.pipeline.page.tree.named import events_naming
from astrocyte.pipeline.page.tree.relatives import line_of, relatives
from astrocyte.pipeline.page.tree.window import Window, shown
from astrocyte.schemas.errors import AstrocyteError
from astrocyte.schemas.frames import Frame

__all__ = ["MOST_RUNS", "Trees"]

logger = logging.getLogger(__name__)
T = TypeVar("T")

MOST_RUNS: Final = 2
"""Runs whose births are kept: those that were looked at last."""
_REST_S: Final = 10.0
"""A browser that shows a tree asks every second; this long after the last question no more births are read."""
_WAIT_S: Final = 8.0
"""Births are joined at most this many times as long after as it took the last time."""
_LAYOUTS: Final = 4


@dataclass(eq=False)
class _Tree:
    """Births of one run, and how far they are read."""

    forest: Forest | None = None
    complete: bool = False
    problem: str = ""
    notes: list[str] = field(default_factory=list)
    events: int = 0
    asked_s: float = 0.0
    built_s: float = 0.0
    took_s: float = 0.0
    reading: asyncio.Task[None] | None = None
    births: RunFrames | None = None
    layouts: OrderedDict[tuple[int, int | None, bool], Layout] = field(default_factory=OrderedDict)


class Trees:
    """Trees by run. Everything about them happens on one thread of its own; `close` ends it."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._trees: OrderedDict[str, _Tree] = OrderedDict()
        self._worker = ThreadPoolExecutor(1, "tree")
        self._turn = asyncio.Lock()

    async def window(self, run: str, window: Window | None, **how: Any) -> dict[str, Any]:
        """The lines of a window on the tree of a run (all of it without one), with what is known of the tree.

        ``at_us`` is the instant, by default the newest; ``with_extinct`` and ``colour`` as the browser chose them;
        ``size`` the width and height of the picture in pixels.
        """
        tree = self._looked_at(run)
        return await self._on_thread(lambda: self._window(tree, window, **how))

    async def individual(self, run: str, number: int, at_us: int | None) -> dict[str, Any]:
        """One individual, its ancestors and its children. Raises InvalidSettings for one who is not in the tree."""
        tree = self._looked_at(run)
        return await self._on_thread(lambda: relatives(self._built(tree), number, at_us))

    async def events(self, run: str, number: int, at_us: int | None) -> dict[str, Any]:
        """The genome of an individual and the newest events that name it, up to an instant. Raises AstrocyteError."""
        tree = self._looked_at(run)
        kind = tree.forest.pedigree.individual if tree.forest is not None else ""
        line = await self._on_thread(lambda: line_of(self._built(tree), number))
        async with self._turn:
            return await events_naming(self._source, run, kind, line, at_us)

    async def close(self) -> None:
        """End all reading."""
        for tree in self._trees.values():
            await _end(tree)
        self._worker.shutdown(wait=False, cancel_futures=True)

    async def _on_thread(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._worker, work)

    def _looked_at(self, run: str) -> _Tree:
        """The tree of a run, whose births are read from now on."""
        tree = self._trees.setdefault(run, _Tree())
        self._trees.move_to_end(run)
        tree.asked_s = time.monotonic()
        if not tree.complete and (tree.reading is None or tree.reading.done()):
            tree.reading = asyncio.create_task(self._read(run, tree))
        while len(self._trees) > MOST_RUNS:
            _, gone = self._trees.popitem(last=False)
            if gone.reading is not None:
                gone.reading.cancel()
        return tree

    async def _read(self, run: str, tree: _Tree) -> None:
        """Take births until there are no more, or nobody has looked for some time."""
        if tree.births is None:
            tree.births = self._source.frames(run, tuple(PEDIGREES))
        parts = tree.births.portions()
        try:
            async for frames in parts:
                await self._on_thread(partial(_take, tree, run, frames))
                if tree.births.live and time.monotonic() - tree.asked_s > _REST_S:
                    return
            tree.complete = True
            tree.notes = tree.births.notes
        except AstrocyteError as error:
            tree.problem, tree.complete = str(error), not tree.births.live
        except Exception:
            logger.exception("the births of run %r cannot be read", run)
            tree.problem, tree.complete = "the births cannot be read; the log of the page says why", True
        finally:
            await parts.aclose()

    def _built(self, tree: _Tree) -> Forest | None:
        """The forest with what has come, unless it was joined a moment ago."""
        forest = tree.forest
        if forest is not None and forest.events:
            now_s = time.monotonic()
            if tree.complete or now_s - tree.built_s >= _WAIT_S * tree.took_s:
                forest.build()
                tree.built_s = time.monotonic()
                tree.took_s = tree.built_s - now_s
        return forest

    def _window(
        self,
        tree: _Tree,
        window: Window | None,
        *,
        at_us: int | None,
        with_extinct: bool,
        colour: str,
        size: tuple[int, int],
    ) -> dict[str, Any]:
        forest = self._built(tree)
        found: dict[str, Any] = {
            "complete": tree.complete, "events": tree.events,
            "problem": tree.problem or (forest.problem if forest is not None else ""), "notes": tree.notes,
        }  # fmt: skip
        population = None if forest is None else forest.population
        if forest is None or population is None:
            return found
        if at_us is not None and at_us < population.first_us:
            at_us = population.first_us
        layout = _laid_out(tree, forest, at_us, with_extinct)
        values = values_of(layout.tree, colour)
        found |= {
            "individual": forest.pedigree.individual, "individuals": len(population) + forest.released,
            "released_until": forest.released_until_us, "from": population.first_us, "to": population.at_us,
            "at": layout.at_us, "rows": layout.rows, "living": int(layout.tree.living.sum()),
            "drawn": len(layout.tree), "colours": colours_of(population), "range": range_of(values),
            "two_parents": bool((population.second >= 0).any()),
        }  # fmt: skip
        if not layout.rows:
            return found
        if window is None:
            window = Window(population.first_us, max(layout.at_us, population.first_us + 1), 0, layout.rows, *size)
        return found | shown(layout, window, values)


def _take(tree: _Tree, run: str, frames: list[Frame]) -> None:
    for frame in frames:
        if tree.forest is None:
            tree.forest = Forest(PEDIGREES[frame.stream], run)
        if tree.forest.pedigree.stream == frame.stream:
            tree.events += frame.num_rows
            tree.forest.add(frame)


def _laid_out(tree: _Tree, forest: Forest, at_us: int | None, with_extinct: bool) -> Layout:
    assert forest.population is not None
    place = (forest.version, at_us, with_extinct)
    layout = tree.layouts.get(place)
    if layout is None:
        layout = lay_out(forest.population, forest.extinct, at_us, with_extinct=with_extinct)
        tree.layouts[place] = layout
        while len(tree.layouts) > _LAYOUTS or next(iter(tree.layouts))[0] != forest.version:
            tree.layouts.popitem(last=False)
    tree.layouts.move_to_end(place)
    return layout


async def _end(tree: _Tree) -> None:
    if tree.reading is not None:
        tree.reading.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await tree.reading

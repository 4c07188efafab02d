"""The trees that browsers look at: births are read while somebody does, and windows are answered."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Any, Final

from astrocyte.pipeline.analysis.phylogeny.population import Population
from astrocyte.pipeline.analysis.phylogeny.records import PEDIGREES
from astrocyte.pipeline.page.sources.looks import Look, Looks
from astrocyte.pipeline.page.sources.source import Source
from astrocyte.pipeline.page.tree.colours import colours_of, range_of, values_of
from astrocyte.pipeline.page.tree.forest import Forest
from astrocyte.pipeline.page.tree.genomes import GENOMES, Genomes, Sampled, genome_traits
from astrocyte.pipeline.page.tree.layout import Layout, lay_out
from astrocyte.pipeline.page.tree.named import events_naming
from astrocyte.pipeline.page.tree.relatives import line_of, relatives
from astrocyte.pipeline.page.tree.window import Window, shown
from astrocyte.schemas.frames import Frame

__all__ = ["Trees"]

_WAIT: Final = 8.0
"""Births are joined at most this many times as long after as it took the last time."""
_LAYOUTS: Final = 4


@dataclass(eq=False)
class _Tree:
    """The births of one run; its stream is that of the first of them."""

    run: str
    forest: Forest | None = None
    built_s: float = 0.0
    took_s: float = 0.0
    layouts: OrderedDict[tuple[int, int | None, bool], Layout] = field(default_factory=OrderedDict)

    def add(self, frame: Frame) -> None:
        if self.forest is None:
            self.forest = Forest(PEDIGREES[frame.stream], self.run)
        if self.forest.pedigree.stream == frame.stream:
            self.forest.add(frame)


class Trees:
    """Trees by run; `close` ends their reading."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._looks = Looks(source, tuple(PEDIGREES), _Tree, _Tree.add)
        self._genomes = Looks(source, tuple(GENOMES.values()), Genomes, Genomes.add)
        """Read only while somebody colours by them."""
        self._turn = asyncio.Lock()

    async def window(
        self,
        run: str,
        window: Window | None,
        *,
        at_us: int | None,
        with_extinct: bool,
        colour: str,
        size: tuple[int, int],
    ) -> dict[str, Any]:
        """The lines of a window on the tree of a run, with what is known of the tree.

        Without a window all of it is shown, in ``size`` pixels of width and height. ``at_us`` is the instant, by
        default the newest; ``colour`` the name of the value by which lines are coloured.
        """
        genomes = None
        if any(colour in genome_traits(stream) for stream in PEDIGREES):
            genomes = await self._genomes.ask(run, lambda look: _sampled(look, colour))

        def answer(look: Look[_Tree]) -> dict[str, Any]:
            forest = _built(look)
            found = look.about()
            if forest is None or forest.population is None:
                return found | {"problem": look.problem or (forest.problem if forest is not None else "")}
            layout = _laid_out(look.held, forest, forest.population, at_us, with_extinct)
            population = forest.population
            traits = genome_traits(forest.pedigree.stream)
            values = values_of(layout.tree, colour, genomes[0] if genomes is not None and colour in traits else None)
            found |= _about(look, forest, population, layout)
            found |= {"colours": colours_of(population, traits), "range": range_of(values)}
            if genomes is not None and colour in traits:
                found |= _joined(found, genomes[1])
            if not layout.rows:
                return found
            end_us = max(layout.at_us, population.first_us + 1)
            whole = Window(population.first_us, end_us, 0, layout.rows, *size)
            return found | shown(layout, window or whole, values)

        return await self._looks.ask(run, answer)

    async def individual(self, run: str, number: int, at_us: int | None) -> dict[str, Any]:
        """One individual, its ancestors and its children. Raises InvalidSettings for one who is not in the tree."""
        return await self._looks.ask(run, lambda look: relatives(_built(look), number, at_us))

    async def events(self, run: str, number: int, at_us: int | None) -> dict[str, Any]:
        """The genome of an individual and the newest events that name it, up to an instant. Raises AstrocyteError."""
        kind, line = await self._looks.ask(run, lambda look: line_of(_built(look), number))
        async with self._turn:
            return await events_naming(self._source, run, kind, line, at_us)

    async def read(self, run: str) -> None:
        """Wait until all is read of a run of a recording whose tree was asked for."""
        await self._looks.read(run)
        await self._genomes.read(run)

    async def close(self) -> None:
        """End all reading."""
        await self._looks.close()
        await self._genomes.close()


def _built(look: Look[_Tree]) -> Forest | None:
    """The forest with what has come, unless it was joined a moment ago."""
    tree = look.held
    if tree.forest is not None and tree.forest.events:
        now_s = time.monotonic()
        if look.complete or now_s - tree.built_s >= _WAIT * tree.took_s:
            tree.forest.build()
            tree.built_s = time.monotonic()
            tree.took_s = tree.built_s - now_s
    return tree.forest


def _laid_out(tree: _Tree, forest: Forest, population: Population, at_us: int | None, with_extinct: bool) -> Layout:
    if at_us is not None:
        at_us = max(at_us, population.first_us)
    place = (forest.version, at_us, with_extinct)
    layout = tree.layouts.get(place)
    if layout is None:
        layout = lay_out(population, forest.extinct, at_us, with_extinct=with_extinct)
        tree.layouts[place] = layout
        while len(tree.layouts) > _LAYOUTS or next(iter(tree.layouts))[0] != forest.version:
            tree.layouts.popitem(last=False)
    tree.layouts.move_to_end(place)
    return layout


def _sampled(look: Look[Genomes], trait: str) -> tuple[Sampled, dict[str, Any]]:
    """A trait of the genomes that have come, and how far they are read."""
    found = look.about()
    notes = ["an individual without a sampled genome has the colour of its nearest ancestor"]
    if look.held.left_out:
        notes.append(f"{look.held.left_out:,} samples of genomes beyond those of the first million are left out")
    return look.held.newest(trait), found | {"notes": [*found["notes"], *notes]}


def _joined(found: dict[str, Any], genomes: dict[str, Any]) -> dict[str, Any]:
    """What is known of the births and of the genomes that colour their tree."""
    notes = list(dict.fromkeys([*found["notes"], *genomes["notes"]]))
    return {
        "complete": found["complete"] and genomes["complete"], "events": found["events"] + genomes["events"],
        "problem": found["problem"] or genomes["problem"], "notes": notes,
    }  # fmt: skip


def _about(look: Look[_Tree], forest: Forest, population: Population, layout: Layout) -> dict[str, Any]:
    return {
        "problem": look.problem or forest.problem, "individual": forest.pedigree.individual,
        "individuals": _until(population, forest, layout.at_us), "released_until": forest.released_until_us,
        "from": population.first_us, "to": population.at_us, "at": layout.at_us, "rows": layout.rows,
        "living": int(layout.tree.living.sum()), "drawn": len(layout.tree),
        "two_parents": bool((population.second >= 0).any()),
    }  # fmt: skip


def _until(population: Population, forest: Forest, at_us: int) -> int:
    """How many were born or named up to an instant; of those that were let go, once all of them had died out."""
    released = forest.released if at_us >= (forest.released_until_us or 0) else 0
    return int((population.origin_us <= at_us).sum()) + released

"""Trees that browsers look at: births are read only while somebody looks, and everything asked is answered."""

import numpy as np
import pytest

from astrocyte.pipeline.bench.phylogeny import moran_frames
from astrocyte.pipeline.page.sources import looks
from astrocyte.pipeline.page.sources.looks import MOST_RUNS
from astrocyte.pipeline.page.tree.trees import Trees
from astrocyte.pipeline.page.tree.window import Window
from astrocyte.schemas.errors import AstrocyteError, InvalidSettings
from astrocyte.schemas.frames import Frame
from tests.support.waiting import eventually, loop_turns

HOW = {"at_us": None, "with_extinct": False, "colour": "", "size": (900, 600)}


class Frames:
    """A stream of portions: a recording ends after them, a live one goes on with empty ones."""

    def __init__(self, portions, *, live=False, error=None):
        self._portions, self.live, self._error = portions, live, error
        self.notes = ["the log is torn"]
        self.given = 0
        self.open = False

    async def portions(self):
        self.open = True
        try:
            while self.given < len(self._portions):
                self.given += 1
                yield self._portions[self.given - 1]
            if self._error is not None:
                raise AstrocyteError(self._error)
            while self.live:
                await loop_turns(1)
                yield []
        finally:
            self.open = False


class Source:
    def __init__(self, frames, genomes=()):
        self._frames = frames
        self._genomes = Frames(genomes)
        self.asked = []

    def frames(self, run, streams):
        self.asked.append((run, streams))
        return self._genomes if streams == ("genome_data",) else self._frames


def births(count=600, size=64):
    return [[frame] for frame in moran_frames(count, size)]


async def complete(trees, run="moran"):
    await trees.window(run, None, **HOW)
    await trees.read(run)
    return await trees.window(run, None, **HOW)


async def test_births_are_read_when_somebody_looks_and_all_of_them_are_drawn():
    source = Source(Frames(births()))
    trees = Trees(source)
    assert source.asked == []
    found = await complete(trees)
    assert source.asked == [("moran", ("evolutionary_events", "kernel_geometry"))]
    assert (found["living"], found["rows"], found["individual"]) == (64, 64, "cell")
    assert found["notes"] == ["the log is torn"]
    assert found["colours"][:2] == ["generation", "metabolism"]
    assert sum(found["lines"]["alive"]) >= 60
    await trees.close()


async def test_genomes_are_read_when_a_tree_is_coloured_by_them_and_inherited_where_there_is_no_sample():
    founders = np.arange(64)
    columns = {"timestamp": founders, "key": ["0"] * 64, "cell_id": founders, "metabolism": founders.astype(np.float32)}
    source = Source(Frames(births()), [[Frame.from_columns("genome_data", "moran", columns)]])
    trees = Trees(source)
    await complete(trees)
    assert [streams for _, streams in source.asked] == [("evolutionary_events", "kernel_geometry")]
    coloured = HOW | {"colour": "metabolism"}
    await trees.window("moran", None, **coloured)
    await trees.read("moran")
    found = await trees.window("moran", None, **coloured)
    assert found["complete"]
    assert "an individual without a sampled genome has the colour of its nearest ancestor" in found["notes"]
    lines = found["lines"]
    for number, value, parent in zip(lines["id"], lines["value"], lines["parent"], strict=True):
        expected = float(number) if int(number) < 64 else None
        if expected is not None:
            assert value == expected
        elif parent >= 0:
            assert value == lines["value"][parent]
    assert set(lines["value"]) <= set(range(64))
    await trees.close()


async def test_a_live_source_is_left_when_nobody_asks_any_more_and_taken_up_again(monkeypatch):
    frames = Frames(births(), live=True)
    trees = Trees(Source(frames))
    await trees.window("moran", None, **HOW)

    async def drawn():
        return (await trees.window("moran", None, **HOW)).get("rows") == 64

    await eventually(drawn)
    assert frames.open
    monkeypatch.setattr(looks, "_REST_S", -1.0)

    async def left():
        return not frames.open

    await eventually(left)
    monkeypatch.undo()
    await trees.window("moran", None, **HOW)

    async def opened():
        return frames.open

    await eventually(opened)
    assert (await trees.window("moran", None, **HOW))["living"] == 64
    await trees.close()
    assert not frames.open


async def test_the_tree_of_an_instant_of_the_past_holds_those_who_lived_then():
    trees = Trees(Source(Frames(births())))
    newest = await complete(trees)
    at_us = (newest["from"] + newest["to"]) // 2
    found = await trees.window("moran", None, **HOW | {"at_us": at_us})
    assert found["at"] == at_us
    assert all(birth <= at_us for birth in found["lines"]["birth"])
    assert found["drawn"] < newest["drawn"]
    rows = [row for portion in births() for frame in portion for row in frame.rows()]
    named = {row["cell_id"] for row in rows if row["timestamp"] <= at_us}
    named |= {row["parent_id"] for row in rows if row["timestamp"] <= at_us and row["parent_id"] is not None}
    assert (found["individuals"], newest["individuals"]) == (len(named), 664)
    before = await trees.window("moran", None, **HOW | {"at_us": newest["from"] - 1_000_000})
    assert before["at"] == newest["from"]
    await trees.close()


async def test_what_cannot_be_read_is_said():
    trees = Trees(Source(Frames([], error="the log is damaged")))
    assert (await complete(trees))["problem"] == "the log is damaged"
    with pytest.raises(InvalidSettings, match="7 is not among"):
        await trees.individual("moran", 7, None)
    await trees.close()


async def test_an_individual_is_shown_with_its_ancestors_to_the_founder():
    trees = Trees(Source(Frames(births())))
    found = await complete(trees)
    newest = max(zip(found["lines"]["birth"].tolist(), found["lines"]["id"], strict=True))[1]
    about = await trees.individual("moran", int(newest), None)
    generations = [about["individual"]["generation"], *(each["generation"] for each in about["ancestors"])]
    assert generations == list(range(generations[0], -1, -1))
    mother = await trees.individual("moran", int(about["ancestors"][0]["id"]), None)
    assert newest in [each["id"] for each in mother["children"]]
    await trees.close()


async def test_trees_of_the_runs_that_were_looked_at_last_are_kept():
    trees = Trees(Source(Frames([])))
    for number in range(MOST_RUNS + 2):
        await trees.window(f"run-{number}", None, **HOW)
    assert list(trees._looks._looks) == [f"run-{number}" for number in range(2, MOST_RUNS + 2)]
    await trees.close()


async def test_a_window_of_rows_is_answered():
    trees = Trees(Source(Frames(births())))
    whole = await complete(trees)
    part = await trees.window("moran", Window(whole["from"], whole["to"], 0, 8, 900, 600), **HOW)
    assert 0 < len(part["lines"]["id"]) < len(whole["lines"]["id"])
    await trees.close()

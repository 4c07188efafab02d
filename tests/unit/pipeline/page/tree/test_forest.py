"""The forest: the same whatever the portions in which events come, that of `astrocyte phylogeny`, and bounded."""

import dataclasses
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from astrocyte import phylogeny
from astrocyte.pipeline.analysis.phylogeny.population import NEVER_US, population_of, records_of
from astrocyte.pipeline.analysis.phylogeny.records import PEDIGREES, Records
from astrocyte.pipeline.bench.phylogeny import moran_frames
from astrocyte.pipeline.page.tree.forest import Forest
from astrocyte.pipeline.page.tree.layout import lay_out
from astrocyte.schemas.frames import Frame
from tests.support.lineages import birth, cells_log, death, division
from tests.support.logs import T0_US

CELLS = PEDIGREES["evolutionary_events"]


def frame_of(events):
    names = {name: None for event in events for name in event}
    columns = {"key": ["0"] * len(events)} | {name: [event.get(name) for event in events] for name in names}
    return Frame.from_columns("evolutionary_events", "run-1", columns)


def same(one, other):
    for field in dataclasses.fields(one):
        mine, theirs = getattr(one, field.name), getattr(other, field.name)
        if field.name == "traits":
            assert mine.keys() == theirs.keys()
            for name in mine:
                np.testing.assert_array_equal(mine[name], theirs[name])
        else:
            np.testing.assert_array_equal(mine, theirs)


@st.composite
def histories(draw):
    """Events of cells that live, divide and die, some of which are not there, in the order of time."""
    alive, events, following = [1, 2], [], 3
    for step in range(draw(st.integers(1, 30))):
        at_s = step / 4
        what = draw(st.sampled_from(["birth", "birth", "death", "mutation", "founder"]))
        if what == "founder" or not alive:
            events.append(birth(at_s, following, None, 0))
            alive.append(following)
            following += 1
        elif what == "birth":
            mother = draw(st.sampled_from(alive))
            events += [birth(at_s, following, mother, draw(st.integers(1, 9))), division(at_s, mother, 1)]
            alive.append(following)
            following += 1
        elif what == "mutation":
            cell = draw(st.sampled_from(alive))
            events.append({"timestamp": T0_US + int(at_s * 1e6), "type": "mutation.point", "cell_id": cell})
        else:
            cell = draw(st.sampled_from(alive))
            alive.remove(cell)
            events.append(death(at_s, cell))
    return [event for event in events if draw(st.integers(0, 9))] or events


@settings(derandomize=True, deadline=None, max_examples=60)
@given(histories(), st.lists(st.integers(1, 40), max_size=5))
def test_a_population_joined_portion_by_portion_is_that_of_all_events_at_once(events, cuts):
    records = Records()
    records.add_frame(CELLS, frame_of(events))
    whole = population_of(records, CELLS)
    forest = Forest(CELLS, "run-1")
    bounds = [0, *sorted(each for each in cuts if each < len(events)), len(events)]
    for begin, end in itertools.pairwise(bounds):
        if events[begin:end]:
            forest.add(frame_of(events[begin:end]))
            forest.build()
    assert forest.problem == ""
    same(forest.population, whole)
    same(population_of(records_of(whole), CELLS), whole)


@pytest.mark.parametrize("at", [None, 0.5])
def test_the_tree_is_that_which_astrocyte_phylogeny_finds_in_the_log(tmp_path, at):
    events = [event for frame in moran_frames(400, 64) for event in frame.rows()]
    names = ("timestamp", "type", "cell_id", "parent_id", "generation")
    log = cells_log(tmp_path / "moran.jsonl.zst", [{name: event[name] for name in names} for event in events])
    forest = Forest(CELLS, "moran")
    for frame in moran_frames(400, 64):
        forest.add(frame)
        forest.build()
    population = forest.population
    at_us = None if at is None else int(population.first_us + at * (population.at_us - population.first_us))
    found = phylogeny(log, at_us=at_us).tree
    layout = lay_out(population, forest.extinct, at_us)
    assert len(layout.tree) > 64
    same(layout.tree, found)
    assert layout.rows == int(found.living.sum())


def test_lines_that_died_out_are_let_go_and_counted_and_the_tree_of_the_living_stays():
    frames = list(moran_frames(6_000, 64))
    stretched = [
        Frame.from_columns(
            "evolutionary_events", "moran",
            {"key": ["0"] * frame.num_rows, "timestamp": frame.timestamps() * 1 + number * 1_000_000}
            | {name: frame.column(name) for name in ("type", "cell_id", "parent_id", "generation")},
        )
        for number, frame in enumerate(frames)
    ]  # fmt: skip
    bounded, whole = Forest(CELLS, "moran", most=2_000), Forest(CELLS, "moran")
    for number, frame in enumerate(stretched):
        bounded.add(frame)
        whole.add(frame)
        if number % 25 == 24:
            bounded.build()
            assert len(bounded.population) <= 2_000
    bounded.build()
    whole.build()
    assert bounded.problem == ""
    assert bounded.released > 3_000
    mine = lay_out(bounded.population, bounded.extinct)
    theirs = lay_out(whole.population, whole.extinct)
    same(mine.tree, theirs.tree)
    np.testing.assert_array_equal(mine.extinct, theirs.extinct)
    assert mine.extinct.sum() > 0
    assert bounded.released_until_us < bounded.population.at_us


def test_more_living_than_there_is_room_for_is_said_and_no_more_is_taken():
    forest = Forest(CELLS, "run-1", most=100)
    forest.add(frame_of([birth(0, cell, 1, 1) for cell in range(2, 200)]))
    assert "more than 100 cells live" in forest.problem
    events = forest.population.at_us
    forest.add(frame_of([birth(9, 999, 1, 1)]))
    forest.build()
    assert forest.population.at_us == events


def test_births_that_cannot_be_are_said_and_what_was_known_stays():
    forest = Forest(CELLS, "run-1")
    forest.add(frame_of([birth(0, 2, 1, 1)]))
    forest.build()
    forest.add(frame_of([birth(1, 2, 7, 1)]))
    forest.build()
    assert "expected one birth of each id" in forest.problem
    assert list(forest.population.ids) == [1, 2]
    assert (forest.population.died_us == NEVER_US).all()

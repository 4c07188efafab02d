"""Layouts and windows: rows of clades, held to a reference that goes from one to the next, and bounded numbers."""

from collections import defaultdict

import numpy as np
import pytest

from astrocyte.pipeline.analysis.phylogeny.records import PEDIGREES
from astrocyte.pipeline.bench.phylogeny import moran_frames
from astrocyte.pipeline.page.tree.colours import colours_of, range_of, values_of
from astrocyte.pipeline.page.tree.forest import Forest
from astrocyte.pipeline.page.tree.layout import lay_out
from astrocyte.pipeline.page.tree.window import MOST_LINES, Window, shown


def forest_of(births, size):
    forest = Forest(PEDIGREES["evolutionary_events"], "moran")
    for frame in moran_frames(births, size):
        forest.add(frame)
    forest.build()
    return forest


@pytest.fixture(scope="module")
def small():
    return forest_of(300, 32)


@pytest.fixture(scope="module")
def large():
    return forest_of(60_000, 512)


def whole(layout, width=1000, height=600):
    return Window(layout.tree.first_us, layout.at_us, 0, layout.rows, width, height)


@pytest.mark.parametrize("with_extinct", [False, True])
def test_each_clade_has_the_rows_of_its_leaves(small, with_extinct):
    layout = lay_out(small.population, small.extinct, with_extinct=with_extinct)
    children = defaultdict(list)
    for row, parent in enumerate(layout.tree.first):
        children[parent].append(row)

    def leaves(row):
        return sum(map(leaves, children[row])) + int(layout.is_leaf[row])

    taken = []
    for row in range(len(layout.tree)):
        assert layout.leaves[row] == leaves(row)
        first = layout.first_row[row]
        for child in children[row]:
            assert layout.first_row[child] == first
            first += layout.leaves[child]
        if layout.is_leaf[row]:
            assert layout.middle()[row] == first + 0.5
            taken.append(first)
    assert sorted(taken) == list(range(layout.rows))


def test_extinct_descendants_are_those_that_the_tree_lacks(small):
    population = small.population
    layout = lay_out(population, small.extinct)
    drawn = set(layout.tree.ids.tolist())
    ids, parent = population.ids.tolist(), population.first.tolist()
    expected = defaultdict(int)
    for row, number in enumerate(ids):
        if number not in drawn:
            above = parent[row]
            while above >= 0:
                expected[ids[above]] += 1
                above = parent[above]
    found = dict(zip(layout.tree.ids.tolist(), layout.extinct.tolist(), strict=True))
    assert found == {number: expected[number] for number in found}


def test_a_tree_with_room_for_all_is_shown_as_a_whole(small):
    layout = lay_out(small.population, small.extinct)
    found = shown(layout, whole(layout), values_of(layout.tree, "generation"))
    lines = found["lines"]
    assert len(found["bundles"]) == 0
    assert {*lines["id"]} >= {*layout.tree.ids[layout.is_leaf].astype(str)}
    parents = dict(zip(layout.tree.ids.tolist(), layout.tree.first.tolist(), strict=True))
    for number, parent in zip(lines["id"], lines["parent"], strict=True):
        above = parents[int(number)]
        while above >= 0 and str(layout.tree.ids[above]) not in lines["id"]:
            above = int(layout.tree.first[above])
        assert (lines["id"][parent] if parent >= 0 else None) == (str(layout.tree.ids[above]) if above >= 0 else None)


@pytest.mark.parametrize("with_extinct", [False, True])
@pytest.mark.parametrize("height", [50, 600, 4000])
def test_the_number_of_lines_is_bounded_and_every_leaf_is_in_a_line_or_a_bundle(large, with_extinct, height):
    layout = lay_out(large.population, large.extinct, with_extinct=with_extinct)
    found = shown(layout, whole(layout, height=height), values_of(layout.tree, "generation"))
    lines, bundles = found["lines"], found["bundles"]
    assert 0 < len(lines["id"]) <= MOST_LINES
    assert len(bundles.get("top", ())) <= height / 3 + 1
    covered = np.zeros(layout.rows, bool)
    for top, bottom in zip(bundles.get("top", ()), bundles.get("bottom", ()), strict=True):
        covered[top:bottom] = True
    for top, bottom in zip(lines["top"], lines["bottom"], strict=True):
        covered[top:bottom] = True
    assert covered.all()


def test_a_window_shows_those_of_its_rows_who_live_in_it(large):
    layout = lay_out(large.population, large.extinct)
    window = Window(layout.at_us - 100_000, layout.at_us, 100, 120, 1000, 600)
    found = shown(layout, window, values_of(layout.tree, "generation"))
    lines = found["lines"]
    inside = layout.is_leaf & (layout.middle() > 100) & (layout.middle() < 120)
    assert {*layout.tree.ids[inside].astype(str)} <= {*lines["id"]}
    assert (lines["bottom"] > 100).all()
    assert (lines["top"] < 120).all()


def test_values_by_which_lines_are_coloured(small):
    population = small.population
    assert colours_of(population) == ["generation"]
    low, high = range_of(values_of(population, "generation"))
    assert 0 <= low < high <= population.generation.max()
    assert range_of(np.array([np.nan])) is None

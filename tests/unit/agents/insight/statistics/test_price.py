"""The Price equation and descent: against a plain simulation that follows every individual."""

import numpy as np
import pytest

from astrocyte.agents.insight.descent import LineageEvents, descend
from astrocyte.agents.insight.operator import InsightOperator
from astrocyte.agents.insight.statistic import Windows
from astrocyte.agents.insight.statistics.price import Price
from astrocyte.schemas.frames import Frame

TRAITS = ("fitness_delta", "generation_gap")


class World:
    """Individuals that divide and die at random; each is followed by name. The reference of these tests."""

    def __init__(self, seed, founders=40, ticks=300, select=0.0):
        rng = np.random.default_rng(seed)
        self.rows, self.history = [], {0: {}}
        self.parent, self.born = {}, {}
        living = {int(each): (0.0, 0) for each in rng.permutation(10_000)[:founders]}
        self.history[0] = dict(living)
        serial = 100_000
        for tick in range(1, ticks + 1):
            crowd = len(living) / founders
            for cell, (z, generation) in list(living.items()):
                if rng.uniform() < 0.02 * crowd:
                    del living[cell]
                    self.rows.append((tick, "death", cell, None, None, None))
                elif rng.uniform() < 0.02 * np.exp(select * z):
                    delta = float(rng.normal(0.0, 0.5))
                    serial += 1
                    living[serial] = (z + delta, generation + 1)
                    self.parent[serial], self.born[serial] = cell, tick
                    self.rows.append((tick, "birth", serial, cell, delta, 1))
            self.history[tick] = dict(living)

    def frame(self, rows=None, run="r"):
        rows = self.rows if rows is None else rows
        names = ("timestamp", "type", "cell_id", "parent_id", *TRAITS)
        columns = dict(zip(names, map(list, zip(*rows, strict=True)), strict=True))
        return Frame.from_columns("evolutionary_events", run, {**columns, "key": ["0"] * len(rows)})

    def ancestor_at(self, cell, tick):
        while cell in self.born and self.born[cell] > tick:
            cell = self.parent[cell]
        return cell


def results(world, size, order=None):
    operator = InsightOperator(Price(windows=Windows(size)))
    rows = world.rows if order is None else [world.rows[index] for index in order]
    for first in range(0, len(rows), 17):
        operator.add(world.frame(rows[first : first + 17]))
    return operator.flush().rows()


def test_the_change_of_the_mean_is_selection_and_transmission_to_1e_9():
    found = results(World(1, select=0.2), 50)
    assert len(found) == 2 * 7
    for row in found:
        assert abs(row["change"] - row["selection"] - row["transmission"]) < 1e-9
        assert row["before"] > 0
    assert any(abs(row["selection"]) > 0.01 for row in found)


def test_terms_are_those_of_every_individual_followed_by_name():
    world = World(2, select=0.2)
    found = {(row["window_end"], row["trait"]): row for row in results(world, 100) if row["window_start"] >= 100}
    for end in (200, 300):  # event times 100 to 199: the living of the ticks 99 and 199
        before, after = world.history[end - 101], world.history[min(end - 1, 300)]
        known = {cell for _, _, child, parent, _, _ in world.rows for cell in (child, parent)}
        before = {cell: value for cell, value in before.items() if cell in known}
        after = {cell: value for cell, value in after.items() if cell in known}
        for index, trait in enumerate(TRAITS):
            row = found[end, trait]
            z = {cell: value[index] for cell, value in before.items()}
            w = dict.fromkeys(before, 0)
            change = dict.fromkeys(before, 0.0)
            for cell, value in after.items():
                ancestor = world.ancestor_at(cell, end - 101)
                w[ancestor] += 1
                change[ancestor] += value[index] - z[ancestor]
            mean_w = np.mean(list(w.values()))
            cov = np.cov(list(w.values()), list(z.values()), ddof=0)[0, 1]
            assert row["after"] == len(after)
            assert row["mean_after"] == pytest.approx(np.mean([value[index] for value in after.values()]), abs=1e-9)
            if row["before"] == len(before):  # those who have done nothing yet are not known
                assert row["selection"] == pytest.approx(cov / mean_w, abs=1e-9)
                assert row["transmission"] == pytest.approx(np.mean(list(change.values())) / mean_w, abs=1e-9)
    assert found[300, "fitness_delta"]["before"] > 20


def test_the_order_of_arrival_changes_nothing():
    world = World(3)
    order = np.random.default_rng(0).permutation(len(world.rows))
    assert results(world, 60, order) == results(world, 60)


def test_a_restart_in_between_changes_nothing():
    world = World(4)
    operator, found = InsightOperator(Price(windows=Windows(30))), []
    for first in range(0, len(world.rows), 20):
        rows = world.rows[first : first + 20]
        operator.add(world.frame(rows))
        frame = operator.advance(rows[-1][0])
        found += [] if frame is None else frame.rows()
        saved = operator.snapshot()
        operator = InsightOperator(Price(windows=Windows(30)))
        operator.restore(saved)
    assert found + operator.flush().rows() == results(world, 30)


def test_extinction_leaves_no_terms():
    rows = [(1, "birth", 2, 1, 0.5, 1), (5, "death", 1, None, None, None), (6, "death", 2, None, None, None)]
    operator = InsightOperator(Price(windows=Windows(10)))
    operator.add(World(1, ticks=1).frame(rows))
    row = operator.flush().rows()[0]
    assert (row["before"], row["after"], row["founders"]) == (1, 0, 1)
    assert row["change"] is None


def test_a_birth_may_precede_that_of_its_parent_and_circles_are_refused():
    events = LineageEvents()
    rows = [
        (1, "birth", 12, 11, 0.25, 1),
        (2, "birth", 11, 1, 0.5, 1),
        (3, "birth", 21, 22, 1.0, 1),
        (3, "birth", 22, 21, 1.0, 1),
        (4, "birth", 11, 5, 9.0, 1),
        (5, "birth", 13, None, 1.0, 1),
    ]
    read = events.source().read(World(1, ticks=1).frame(rows), {}).ordered()
    descent = descend(np.array([1, 5]), np.zeros((2, 2)), events, read)
    assert descent.ids.tolist() == [1, 5, 11, 12]
    assert descent.ancestor.tolist() == [0, 1, 0, 0]
    assert descent.value[:, 0].tolist() == [0.0, 0.0, 0.5, 0.75]
    assert descent.refused == 4
    assert descent.fitness.tolist() == [3.0, 1.0]


def test_without_selection_the_selection_term_has_mean_zero():
    terms = [
        row["selection"]
        for seed in range(6)
        for row in results(World(100 + seed, founders=30, ticks=200), 25)
        if row["trait"] == "fitness_delta" and row["change"] is not None
    ]
    assert abs(np.mean(terms)) < 3 * np.std(terms) / np.sqrt(len(terms))

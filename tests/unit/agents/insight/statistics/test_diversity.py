"""Diversity: against scipy, against individuals followed by name, and against theory of ideal populations."""

import numpy as np
import pytest
from scipy import stats

from astrocyte.agents.insight.operator import InsightOperator
from astrocyte.agents.insight.statistic import Windows
from astrocyte.agents.insight.statistics.diversity import Diversity, effective_size, hill_numbers
from astrocyte.schemas.errors import InvalidSettings
from astrocyte.schemas.frames import Frame


def events(rows, run="r"):
    """Rows of (time, type, child, parent)."""
    t, kind, child, parent = map(list, zip(*rows, strict=True))
    columns = {"timestamp": t, "key": ["0"] * len(t), "type": kind, "cell_id": child, "parent_id": parent}
    return Frame.from_columns("evolutionary_events", run, columns)


def moran(rng, n, steps):
    """Moran's model: at each step one divides and another dies. Yields rows, and each individual's line of descent."""
    living, serial = list(range(n)), n
    line = {cell: (cell,) for cell in living}
    born = {}
    rows = []
    for step in range(1, steps + 1):
        mother, dead = rng.choice(n, 2, replace=False)
        rows.append((step, "birth", serial, living[mother]))
        rows.append((step, "death", living[dead], None))
        line[serial] = (*line[living[mother]], serial)
        born[serial] = step
        living[dead] = serial
        serial += 1
    return rows, living, line, born


def results(rows, size, chunk=50, restart=False, **settings):
    make = lambda: InsightOperator(Diversity(windows=Windows(size), traits=(), **settings))  # noqa: E731
    operator, found = make(), []
    for first in range(0, len(rows), chunk):
        part = rows[first : first + chunk]
        operator.add(events(part))
        frame = operator.advance(min(row[0] for row in part))
        found += [] if frame is None else frame.rows()
        if restart:
            saved = operator.snapshot()
            operator = make()
            operator.restore(saved)
    frame = operator.flush()
    return found + ([] if frame is None else frame.rows())


def test_hill_numbers_are_those_of_their_definition():
    counts = np.array([50, 0, 30, 15, 5])
    p = counts[counts > 0] / 100
    zero, one, two, shannon = hill_numbers(counts)
    assert zero == 4
    assert shannon == pytest.approx(stats.entropy(p), rel=1e-12)
    assert one == pytest.approx(np.exp(stats.entropy(p)), rel=1e-12)
    assert two == pytest.approx(1 / (p**2).sum(), rel=1e-12)
    near = (p**0.99999).sum() ** (1 / (1 - 0.99999))  # order 1 is the limit
    assert one == pytest.approx(near, rel=1e-4)
    assert hill_numbers(np.full(7, 3))[:3] == pytest.approx((7, 7, 7))
    assert np.isnan(hill_numbers(np.zeros(3, int))).all()


def test_the_effective_size_of_an_ideal_population_is_its_size():
    rng = np.random.default_rng(1)
    n = 50
    shares = [1 / effective_size(np.bincount(rng.integers(0, n, n), minlength=n)) for _ in range(2_000)]
    assert np.mean(shares) == pytest.approx(1 / n, abs=3 * np.std(shares) / np.sqrt(len(shares)))


def test_half_the_parents_halve_the_effective_size():
    rng = np.random.default_rng(2)
    shares = [1 / effective_size(np.bincount(rng.integers(0, 25, 50), minlength=50)) for _ in range(2_000)]
    assert np.mean(shares) == pytest.approx(1 / 25, abs=3 * np.std(shares) / np.sqrt(len(shares)))


def test_lineages_and_coalescence_are_those_of_the_lines_of_descent():
    rng = np.random.default_rng(3)
    shared = 0
    for steps in (30, 100, 400, 500):
        rows, living, line, born = moran(rng, 8, steps)
        last = [row for row in results(rows, steps + 1, restart=True) if row["window_end"] == steps + 1][-1]
        named = {cell for _, _, *pair in rows for cell in pair}
        living = [cell for cell in living if cell in named]
        counts = np.unique([line[cell][0] for cell in living], return_counts=True)[1]
        expected = hill_numbers(counts)
        if len(counts) == 1:
            together = 0  # nodes that all lines share
            while len({line[cell][: together + 1] for cell in living}) == 1:
                together += 1
            parted = min(born[line[cell][together]] for cell in living if len(line[cell]) > together)
            assert last["coalescence_us"] == steps + 1 - parted
            assert last["hill_0"] == 1.0
            shared += 1
        else:
            assert last["coalescence_us"] is None
            assert (last["hill_0"], last["hill_1"]) == pytest.approx(expected[:2])
        assert last["individuals"] == len(living)
    assert shared >= 2


def test_windows_and_restarts_do_not_change_where_the_genealogy_ends():
    rows, *_ = moran(np.random.default_rng(4), 12, 599)
    whole = results(rows, 100)
    assert results(rows, 100, chunk=13, restart=True) == whole
    finer = {row["window_end"]: row for row in results(rows, 10, chunk=999)}
    for row in whole:
        for name in ("hill_0", "hill_2", "coalescence_us"):
            assert finer[row["window_end"]][name] == row[name] or row["window_end"] <= 100


def test_the_depth_of_coalescence_is_that_of_morans_model():
    n, apart = 10, 100  # steps; expected (n - 1)^2: sum over k of n (n - 1) / (k (k - 1))
    rows, *_ = moran(np.random.default_rng(5), n, 12_000)
    depths = [row["coalescence_us"] for row in results(rows, apart, chunk=2_000)][10:]
    assert None not in depths
    error = np.std(depths) / np.sqrt(len(depths) / 2)
    assert np.mean(depths) == pytest.approx((n - 1) ** 2, abs=3 * error + 1)


def test_traits_are_counted_by_the_last_observation_in_classes_of_equal_ratio():
    t, ids, values = [1, 2, 3, 4, 5], [1, 2, 3, 1, 4], [0.05, 0.05, 5.0, 4.9, None]
    frame = Frame.from_columns(
        "genome_data", "r", {"timestamp": t, "key": ["0"] * 5, "cell_id": ids, "metabolism": values}
    )
    operator = InsightOperator(Diversity(windows=Windows(10), traits=("metabolism",)))
    operator.add(frame)
    (row,) = operator.flush().rows()
    assert (row["subject"], row["individuals"], row["hill_0"]) == ("metabolism", 3, 2.0)
    assert row["shannon"] == pytest.approx(stats.entropy([1 / 3, 2 / 3]))


def test_bounds_that_nobody_gave_are_asked_for():
    with pytest.raises(InvalidSettings, match="bounds=\\{'wings'"):
        Diversity(windows=Windows(10), traits=("wings",))
    assert Diversity(windows=Windows(10), traits=("wings",), bounds={"wings": (0, 4)}).bounds["wings"] == (0, 4)


def test_extinction_leaves_no_lineage():
    rows = [(1, "birth", 2, 1), (2, "death", 1, None), (3, "death", 2, None)]
    (row,) = results(rows, 10)
    assert (row["individuals"], row["hill_0"], row["effective_size"]) == (0, None, None)

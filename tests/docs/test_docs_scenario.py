"""The scenario of docs/simulator.md is extracted and run, and its pictures exist."""

import re
from pathlib import Path

import pytest

from astrocyte.scenario import MemorySink, simulate

PAGE = Path(__file__).parents[2] / "docs" / "simulator.md"


@pytest.fixture(scope="module")
def source():
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    return next(block for block in blocks if "(Scenario)" in block)


def test_scenario_of_the_docs_is_about_forty_lines(source):
    assert len(source.strip().splitlines()) <= 48


def test_scenario_of_the_docs_runs_and_its_fireflies_synchronise(source):
    names = {"__name__": "fireflies"}
    exec(compile(source, str(PAGE), "exec"), names)
    sink = MemorySink()
    summary = simulate(names["Fireflies"](), {"size": 64}, seed=1, ticks=600, sink=sink)
    rows = [row for frame in sink.frames for row in frame.rows()]
    assert summary.events["flashes"] == len(rows) > 600
    assert {row["key"] for row in rows} == {f"f{number:04d}" for number in range(64)}
    since = min(row["timestamp"] for row in rows)

    def together(first, last):
        ticks = [(row["timestamp"] - since) // 10_000 for row in rows]
        counts = [ticks.count(tick) for tick in range(first, last)]
        return max(counts)

    assert together(540, 600) > 2 * together(0, 60)


def test_pictures_of_the_docs_exist_and_are_small():
    pictures = re.findall(r"\]\((img/[a-z_]+\.png)\)", PAGE.read_text())
    assert len(pictures) == 5
    for picture in pictures:
        assert 0 < (PAGE.parent / picture).stat().st_size < 80_000

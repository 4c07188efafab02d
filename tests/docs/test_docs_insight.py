"""The page "Insight" is true: its program runs, statistics have their parts, fields are those of the results."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from astrocyte.agents import insight
from astrocyte.insight import Diversity, EarlyWarning, Forecast, Mutations, Price, Selection, Trends, Windows

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "insight.md").read_text(encoding="utf-8")
SECOND = 1_000_000
STATISTICS = [
    Selection(windows=Windows(SECOND)),
    Price(windows=Windows(SECOND)),
    Diversity(windows=Windows(SECOND)),
    Mutations(windows=Windows(SECOND)),
    EarlyWarning(windows=Windows(SECOND)),
    Forecast(windows=Windows(SECOND), horizons_us=(SECOND,)),
    Trends(windows=Windows(60 * SECOND), every_us=SECOND),
]


def field_table(statistic):
    """The fields of a result as the page shows them."""
    lines = ["| field | unit | meaning | null |", "|---|---|---|---|"]
    for name, each in statistic.result.about.items():
        if name not in ("simulation_id", "window_start", "window_end"):
            lines.append(f"| `{name}` | {each.unit} | {each.doc} | {each.null} |")
    return "\n".join(lines)


def test_the_program_runs_and_finds_the_selected_trait():
    (program,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["size positive", "shape none"]


def test_every_statistic_that_there_is_has_its_part():
    classes = {name for name in insight.__all__ if hasattr(getattr(insight, name), "step")}
    assert classes == {type(each).__name__ for each in STATISTICS}
    parts = dict(re.findall(r"^## (\w+)\n(.*?)(?=^## )", PAGE, re.DOTALL | re.MULTILINE))
    for each in STATISTICS:
        part = parts[each.result.stream]
        assert "- Assumes:" in part
        assert "- Fails:" in part


@pytest.mark.parametrize("statistic", STATISTICS, ids=lambda each: each.result.stream)
def test_the_fields_of_its_results_are_listed(statistic):
    assert f"### {statistic.result.stream}\n\n{field_table(statistic)}\n" in PAGE + "\n"

"""The page "Insight" is true: its program runs, statistics have their parts, fields are those of the results."""

import re
import subprocess
import sys
from pathlib import Path

from astrocyte.agents import insight
from astrocyte.agents.loading import load_rules
from astrocyte.agents.rules.insight import STATISTIC_SPECS, StatisticSpec
from astrocyte.insight import Diversity, EarlyWarning, Forecast, Mutations, Price, Selection, Trends, Windows
from astrocyte.schemas.catalog import CATALOG

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


def test_the_rule_file_is_valid_and_reads_only_fields_that_there_are():
    (text,) = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    ruleset = load_rules(text, known_streams={each.stream for each in CATALOG})
    assert [spec.statistic for spec in ruleset.insight] == ["selection", "forecast", "price"]


def test_every_setting_of_a_rule_file_is_listed():
    rows = dict(re.findall(r"^\| `(\w+)` \| (.*) \|$", PAGE, re.MULTILINE))
    common = StatisticSpec.model_fields
    shared = set(STATISTIC_SPECS["selection"].model_fields)
    for name, spec in STATISTIC_SPECS.items():
        listed = set(re.findall(r"`(\w+)`", re.sub(r"\(.*?\)", "", rows[name])))
        listed |= shared if name == "mutations" else set()
        assert listed | {*common} >= {*spec.model_fields}, name

"""The page "Analysis of a run" is true: its program runs, and its lists are complete."""

import dataclasses
import re
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from astrocyte import analysis
from astrocyte.insight import Forecast, Windows
from astrocyte.pipeline.analysis.report.build import _SECTIONS
from astrocyte.pipeline.cli.app import app
from tests.support.evolving import evolving_frames, evolving_log

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "analysis.md").read_text(encoding="utf-8")
INSIGHT = (ROOT / "docs" / "insight.md").read_text(encoding="utf-8")


def test_the_program_runs_and_answers(tmp_path):
    (program,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    evolving_log(tmp_path / "run.jsonl.zst", evolving_frames(slopes={"metabolism": -0.6}, collapse_at=40))
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].startswith("metabolism negative -0.")
    assert lines[7].startswith("population 0.8 17")
    assert re.match(r"rising \(.*\) falling \('metabolism'", lines[8])
    assert lines[-1] == "2"
    assert lines[-2] == "7 ['window_end', 'trait', 'low', 'high', 'individuals']"


def test_the_page_says_how_the_command_that_a_report_prints_differs_from_the_one_given(tmp_path):
    (tmp_path / "demo").mkdir()
    evolving_log(tmp_path / "demo" / "events.jsonl.zst", evolving_frames(ticks=6, size=40))
    given = ["analyze", str(tmp_path / "demo"), "--report", str(tmp_path / "other.html")]
    done = CliRunner().invoke(app, given)
    assert done.exit_code == 0, done.output
    printed = "astrocyte analyze events.jsonl.zst --report report.html"
    assert printed in (tmp_path / "other.html").read_text(encoding="utf-8")
    text = " ".join(PAGE.split())
    assert (
        "has the name of the file that was read without its folder (`events.jsonl.zst` for the folder of a demo)"
        in text
    )
    assert "always `--report report.html`" in text


def test_every_method_is_listed_and_its_statistics_have_a_part():
    (table,) = re.findall(r"\| method \| answer \| statistics \|\n\|[-|]+\n(.*?)\n\n", PAGE, re.DOTALL)
    listed = set(re.findall(r"`(\w+)\(", table))
    own = {name for name in vars(analysis.RunAnalysis) if not name.startswith("_")} - {"history"}
    assert listed == own
    for anchor in re.findall(r"\(insight\.md#(\w+)\)", PAGE):
        assert f"\n## {anchor}\n" in INSIGHT


def test_every_part_of_the_report_is_listed():
    (table,) = re.findall(r"\| part \| shows \|\n\|[-|]+\n(.*?)\n\n", PAGE, re.DOTALL)
    parts = re.findall(r"^\| ([\w-]+(?: landscape)?) \|", table, re.MULTILINE)
    names = {"fitness landscape": "landscape", "phylogeny": "lineages", "co-evolution": "coevolution"}
    assert [names.get(each, each) for each in parts] == ["findings", *(name for name, _, _ in _SECTIONS)]


@pytest.mark.parametrize("name", sorted(set(analysis.__all__) - {"read_run", "NotEnoughData"}))
def test_answers_are_frozen_dataclasses_with_tables(name):
    kind = getattr(analysis, name)
    assert dataclasses.is_dataclass(kind)
    assert kind.__dataclass_params__.frozen
    assert kind.__doc__


def test_a_forecast_is_made_of_a_window_that_is_long_enough_for_it():
    assert Forecast(windows=Windows(1), horizons_us=(1,)).min_samples == 10

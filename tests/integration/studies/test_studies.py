"""Every shipped study in its quick form: a whole report, the same one again, and as the command writes it."""

import re

import pytest
from typer.testing import CliRunner

from astrocyte.pipeline.cli.app import app
from astrocyte.pipeline.studies.report import markdown
from astrocyte.pipeline.studies.study import STUDIES, StudyRun, run_study, study_command
from astrocyte.simulator.runtime.programs import TRACES

pytestmark = pytest.mark.time_limit(120, "compiles a program of worlds and runs some")


@pytest.mark.parametrize("name", STUDIES.shipped)
def test_a_study_reports_numbers_with_intervals(name):
    phases = []
    run = StudyRun(name, quick=True, progress=lambda what, done, total: phases.append((done, total)))
    text = markdown(run_study(run), study_command(run))
    assert phases
    assert phases[-1][0] == phases[-1][1]
    assert re.search(r"\*\*Answer\.\*\* .*\d", text)
    assert len(re.findall(r"[\d.]+ \([-\d.]+ to [-\d.]+\)", text)) >= 1
    assert text.count("\n| --- |") >= 2
    assert "nan" not in text
    assert text.endswith(f"```\nastrocyte study {name} --quick\n```\n")


def test_all_studies_of_cells_share_one_program():
    run_study(StudyRun("co-evolution", quick=True, seeds=(1, 2, 3)))
    before = dict(TRACES)
    for name in ("capacity", "architectures", "mutation-rate"):
        run_study(StudyRun(name, quick=True, seeds=(1, 2, 3)))
    assert before == TRACES


def test_the_command_writes_the_same_bytes_again(tmp_path):
    files = [tmp_path / name for name in ("one.md", "other.md", "page.html")]
    for file in files:
        arguments = ["study", "co-evolution", "--quick", "--seeds", "3", "--set", "supply=0.5", "-o", str(file)]
        done = CliRunner().invoke(app, arguments, catch_exceptions=False)
        assert done.exit_code == 0, done.output
    assert files[0].read_bytes() == files[1].read_bytes()
    assert "astrocyte study co-evolution --seeds 3 --quick --set supply=0.5" in files[0].read_text()
    assert "<td>hardware</td>" in files[2].read_text()


def test_without_a_name_studies_are_listed():
    done = CliRunner().invoke(app, ["study"], catch_exceptions=False)
    assert done.stdout.split() == list(STUDIES.names())

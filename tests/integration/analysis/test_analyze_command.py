"""The command ``analyze``: findings, the same bytes from the same source, and what it refuses."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from astrocyte.pipeline.cli.app import app
from astrocyte.schemas.errors import AstrocyteError, InvalidSettings
from tests.support.evolving import evolving_frames, evolving_log


@pytest.fixture(scope="module")
def log(tmp_path_factory):
    folder = tmp_path_factory.mktemp("analyze")
    return evolving_log(folder / "run.jsonl.zst", evolving_frames(slopes={"metabolism": -0.6}, collapse_at=40))


def run(*options):
    return CliRunner().invoke(app, ["analyze", *map(str, options)], catch_exceptions=False)


def contents(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def command(log, *options, seed=0):
    """The command in a process of its own, whose sets have another order."""
    environment = os.environ | {"PYTHONHASHSEED": str(seed), "TZ": ("UTC", "Asia/Tokyo")[seed]}
    program = Path(sys.executable).with_name("astrocyte")
    done = subprocess.run(
        [program, "analyze", log, *options], capture_output=True, text=True, env=environment, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_same_source_has_the_same_findings_and_numbers_in_another_process(log):
    one, other = (command(log, "--json", seed=seed) for seed in (0, 1))
    assert one == other


@pytest.mark.soak
@pytest.mark.time_limit(300, "draws every figure three times, in processes of their own")
def test_the_same_source_gives_the_same_bytes_in_another_process_and_under_another_name(log, tmp_path):
    made = []
    for number, name in enumerate(("one", "other")):
        folder = tmp_path / name
        folder.mkdir()
        more = ["-o", folder / "report.md"] if number else []
        said = command(log, "--rules", "cells", "-o", folder / "report.html", *more, seed=number)
        assert "population_collapse" in said
        made.append(contents(folder))
    assert made[0] == {"report.html": made[1]["report.html"]}
    names = set(made[1])
    assert {"report.html", "report.md", "tree.png", "surface.png", "alerts.png"} <= names
    page, text = made[1]["report.html"].decode(), made[1]["report.md"].decode()
    for each in (page, text):
        assert "astrocyte analyze run.jsonl.zst --rules cells --report report.html" in each
    assert page.count("<svg ") == len(names) - 2, "as many figures as pictures"
    assert all(f"(report_figures/{name})" in text for name in names if name.endswith(".png"))
    assert len(page) < 2_000_000


def test_without_a_report_the_findings_are_printed_and_nothing_is_written(log):
    before = contents(log.parent)
    done = run(log)
    assert done.exit_code == 0
    assert "Selection favours smaller metabolism" in done.stdout
    assert contents(log.parent) == before


def test_as_json_it_has_tables_findings_and_the_command(log):
    found = json.loads(run(log, "--json", "--time-window", "2s", "--horizon", "300ms").stdout)
    assert found["command"] == "astrocyte analyze run.jsonl.zst --time-window 2s --horizon 300ms --report report.html"
    parts = {each["name"]: each for each in found["sections"]}
    assert parts["selection"]["tables"][0]["head"][0] == "trait"
    assert "horizon=300000" in parts["forecasts"]["made_by"][0]


def test_what_exists_is_not_replaced_unless_it_is_said(log, tmp_path):
    (tmp_path / "report.html").write_text("mine")
    with pytest.raises(InvalidSettings, match=r"report\.html exists; name another file, or replace it with --force"):
        run(log, "-o", tmp_path / "report.html")
    (tmp_path / "other_figures").mkdir()
    with pytest.raises(InvalidSettings, match="other_figures exists"):
        run(log, "-o", tmp_path / "other.md")


@pytest.mark.parametrize(
    ("make", "options", "problem"),
    [
        (dict, (), "holds no events of evolutionary_events"),
        (lambda: evolving_frames(ticks=1), (), "are of one instant, 2023-11-14T22:13:20Z; statistics over time"),
        (
            lambda: evolving_frames(ticks=4, size=30),
            ("--time-window", "5"),
            "write 5s or 5ms|write a number and a unit",
        ),
        (lambda: evolving_frames(ticks=4, size=30), ("--run", "nobody"), "has no run 'nobody'"),
        (lambda: evolving_frames(ticks=4, size=30), ("-o", "report.txt"), r"ends with \.html or \.md"),
    ],
    ids=["empty", "one tick", "window", "run", "form"],
)
def test_what_cannot_be_is_refused_with_what_to_do(tmp_path, make, options, problem):
    log = evolving_log(tmp_path / "run.jsonl.zst", make())
    with pytest.raises(AstrocyteError, match=problem):
        run(log, *options)


def test_a_run_without_births_has_a_report_that_says_what_it_lacks(tmp_path):
    log = evolving_log(tmp_path / "run.jsonl.zst", evolving_frames(ticks=40, size=60, births=False))
    done = run(log)
    assert done.exit_code == 0
    assert "The population went from 60 to 60 cells" in done.stdout
    assert "Selection: run 'run-1' has no events of evolutionary_events" in done.stderr
    assert "Phylogeny and lineages: run 'run-1' has no events of evolutionary_events" in done.stderr

"""The page "Phylogenies" is true: its commands write what it shows, and its programs run."""

import doctest
import re
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from astrocyte.pipeline.cli.app import app

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "phylogeny.md").read_text()


def blocks(form):
    return re.findall(rf"```{form}\n(.*?)```", PAGE, re.DOTALL)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    (events,) = blocks("json")
    (tmp_path / "births.jsonl").write_text(events)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*options):
    done = CliRunner().invoke(app, ["phylogeny", "births.jsonl", *options], catch_exceptions=False)
    assert done.exit_code == 0
    return done.stdout


def test_the_commands_print_and_write_what_the_page_shows(folder):
    assert run("-o", "tree.nwk") == blocks("text")[0]
    assert (folder / "tree.nwk").read_text() == blocks("newick")[0]
    run("--all", "-o", "tree.csv")
    assert (folder / "tree.csv").read_text() == blocks("csv")[0]


def test_the_program_prints_what_the_page_shows(folder):
    (program,) = blocks("python")
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == blocks("text")[1]


@pytest.mark.filterwarnings("ignore")  # phyloframe's own use of pandas
def test_phyloframe_reads_the_table_as_the_page_shows(folder):
    pytest.importorskip("phyloframe", reason="the extra phylogeny is not installed")
    run("-o", "tree.csv")
    (session,) = blocks("pycon")
    test = doctest.DocTestParser().get_doctest(session, {}, "phylogeny.md", None, 0)
    assert doctest.DocTestRunner().run(test).failed == 0

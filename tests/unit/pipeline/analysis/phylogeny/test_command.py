"""The command ``phylogeny``: what it prints, what it writes, and what it refuses."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from astrocyte import phylogeny
from astrocyte.pipeline.cli.app import app
from astrocyte.schemas.errors import AstrocyteError, InvalidSettings
from tests.support.lineages import birth, cells_log, death, division

EVENTS = [division(1, 1, 0), birth(1, 2, 1, 1), birth(2, 3, 1, 1), birth(3, 4, 2, 2), death(4, 3, 1)]


@pytest.fixture
def log(tmp_path):
    return cells_log(tmp_path / "run.jsonl.zst", EVENTS)


def run(*options):
    return CliRunner().invoke(app, ["phylogeny", *map(str, options)], catch_exceptions=False)


def test_without_a_file_only_the_summary_is_printed(log):
    before = set(log.parent.iterdir())
    done = run(log)
    assert done.stdout.splitlines()[1:3] == [
        "births 3, deaths 1, living 3",
        "founders 1, of which 1 live or have living descendants",
    ]
    assert "common ancestor of the living: cell 1 at depth 0" in done.stdout
    assert set(log.parent.iterdir()) == before


def test_the_summary_says_how_many_births_are_not_in_the_source(tmp_path):
    done = run(cells_log(tmp_path / "middle.jsonl.zst", [birth(9, 31, 30, 8), birth(9, 33, 32, 8)]), "--length", "time")
    assert "of 2 of them the source has no birth" in done.stdout
    assert "the living have no single common ancestor: they descend from 2 founders" in done.stdout


def test_as_json_it_is_the_summary_of_the_library(log, tmp_path):
    target = tmp_path / "tree.csv"
    found = json.loads(run(log, "--json", "--length", "generation", "-o", target).stdout)
    assert found == phylogeny(log).summary("generation") | {"file": str(target)}
    assert found["tree"]["total_length"] == 2


def test_every_form_holds_the_tree_and_the_same_source_gives_the_same_bytes(log, tmp_path):
    for name in ("tree.csv", "tree.nwk", "tree.newick", "tree.parquet", "tree.arrow"):
        one, other = tmp_path / name, tmp_path / f"other_{name}"
        done = run(log, "-o", one)
        assert f"3 cells written to {one}" in done.stderr
        run(log, "-o", other)
        assert one.read_bytes() == other.read_bytes()
    expected = phylogeny(log).table()
    assert pq.read_table(tmp_path / "tree.parquet").equals(expected)
    with pa.ipc.open_file(tmp_path / "tree.arrow") as reader:
        assert reader.read_all().equals(expected)
    assert not list(tmp_path.glob("*.partial"))


def test_a_file_that_exists_is_kept_unless_it_shall_be_replaced(log, tmp_path):
    target = tmp_path / "tree.csv"
    target.write_text("mine")
    with pytest.raises(InvalidSettings, match="exists; name another file, or replace it with --force"):
        run(log, "-o", target)
    assert target.read_text() == "mine"
    run(log, "-o", target, "--force", "--all")
    assert len(target.read_text().splitlines()) == 5


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (["-o", "tree.txt"], r"expected a name that ends with \.csv, .* got '\.txt'"),
        (["--length", "years"], "--length: expected time or generation, got 'years'"),
        (["--at", "soon"], "expected a time, got 'soon'"),
        (["--run", "other"], "has no run 'other'; it holds 'run-1'"),
        (["-o", "nowhere/tree.csv"], r"nowhere/tree\.csv cannot be written: No such file or directory"),
    ],
)
def test_wrong_use_is_refused(log, options, problem):
    with pytest.raises(InvalidSettings, match=problem):
        run(log, *options)


def test_where_all_have_died_the_pruned_tree_is_refused_and_the_whole_one_is_written(tmp_path):
    log = cells_log(tmp_path / "run.jsonl.zst", [birth(1, 2, 1, 1), death(2, 1, 0), death(2, 2, 1)])
    with pytest.raises(AstrocyteError, match=r"nothing is left of the pruned tree.*--all"):
        run(log, "-o", tmp_path / "tree.csv")
    assert not (tmp_path / "tree.csv").exists()
    done = run(log, "--all", "-o", tmp_path / "tree.nwk")
    assert done.exit_code == 0
    assert (tmp_path / "tree.nwk").read_text() == "(2:0)1;\n"

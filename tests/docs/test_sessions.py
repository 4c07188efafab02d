"""The examples and the tutorial: every command runs, in the order of the page, and prints what the page shows."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from astrocyte.pipeline.topology.rule_files import read_rule_files
from tests.support.session import Command, check_output, commands_of, matches, run_page

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
FOLDERS = sorted(path.parent.name for path in EXAMPLES.glob("*/README.md"))


def test_the_overview_lists_every_example():
    text = (EXAMPLES / "README.md").read_text()
    assert FOLDERS
    assert {path.name for path in EXAMPLES.iterdir() if path.is_dir()} == set(FOLDERS)
    assert all(f"({name}/README.md)" in text for name in FOLDERS)


@pytest.mark.parametrize("name", FOLDERS)
def test_the_data_of_an_example_are_small_and_written_by_its_program(name, tmp_path):
    shutil.copytree(EXAMPLES / name, tmp_path / name)
    subprocess.run([sys.executable, "make_data.py"], cwd=tmp_path / name, check=True)
    data = [path for path in (EXAMPLES / name).iterdir() if path.suffix in {".csv", ".jsonl"}]
    assert len(data) == len([*(EXAMPLES / name).glob("*.yaml")])
    for path in data:
        assert (tmp_path / name / path.name).read_bytes() == path.read_bytes()
        assert path.stat().st_size < 100_000


@pytest.mark.parametrize("name", FOLDERS)
def test_the_page_of_an_example_names_each_of_its_rules(name):
    page = (EXAMPLES / name / "README.md").read_text()
    for path in (EXAMPLES / name).glob("*.yaml"):
        assert all(f"{rule.name}: " in page for rule in read_rule_files([path]).rules)


@pytest.mark.time_limit(180, "starts a broker and a worker, and a dozen commands")
@pytest.mark.parametrize("name", FOLDERS)
def test_an_example_prints_what_its_page_shows(name, tmp_path):
    shutil.copytree(EXAMPLES, tmp_path / "examples")
    run_page((EXAMPLES / name / "README.md").read_text(), tmp_path / "examples" / name, check_output)


@pytest.mark.time_limit(180, "starts a broker and workers, and a dozen commands")
def test_the_tutorial_prints_what_it_shows(tmp_path):
    run_page((ROOT / "docs" / "tutorial.md").read_text(), tmp_path, check_output)


@pytest.mark.parametrize(
    ("shown", "printed", "fits"),
    [
        ("a\nb\n", "a\nb\n", True),
        ("a\nb\n", "b\na\n", False),
        ("...\nb\n", "x\ny\nb\n", True),
        ("took ... s\n", "took 1.5 s\n", True),
        ("took ... s\n", "took 1.5 s\nand more\n", False),
        ("a\n", "", False),
        ("", "a\n", False),
    ],
)
def test_what_a_page_shows_is_compared_with_what_is_printed(shown, printed, fits):
    assert matches(shown, printed) is fits


def test_lines_without_an_order_are_compared_without_one():
    assert matches("a\nb\n", "b\na\n", unordered=True)
    assert not matches("a\nb\n", "b\nb\n", unordered=True)


def test_a_page_has_commands_with_their_output_and_files():
    page = "Text\n\n```console\n$ cat << END\n> x\n> END\nx\n$ true\n```\n\n```yaml\n# r.yaml\nrules: []\n```\n"
    assert [each if isinstance(each, tuple) else each.text for each in commands_of(page)] == [
        "cat << END\nx\nEND", "true", ("r.yaml", "# r.yaml\nrules: []\n")
    ]  # fmt: skip
    assert [each.shown for each in commands_of(page) if isinstance(each, Command)] == ["x\n", ""]

"""The page "Inspecting topics and files" shows what the commands print and write."""

import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from astrocyte.pipeline.cli.app import app

PAGE = (Path(__file__).parents[2] / "docs" / "inspect.md").read_text()
EXAMPLE = PAGE.partition("## An example")[2].partition("\n## ")[0]


def blocks(kind: str) -> list[str]:
    return re.findall(rf"^```{kind}\n(.*?)^```", EXAMPLE, re.DOTALL | re.MULTILINE)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")
    (tmp_path / "sensors.csv").write_text(blocks("csv")[0])
    (tmp_path / "mine.yaml").write_text(blocks("yaml")[1])
    return tmp_path


def run(command: str) -> str:
    result = CliRunner().invoke(app, command.split()[1:])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.stdout


def test_the_commands_print_and_write_what_the_page_shows(folder):
    found = re.findall(r"^```\n(\$.*?)^```", EXAMPLE, re.MULTILINE | re.DOTALL)
    shown = [block.removeprefix("$ ").partition("\n") for block in found]
    assert len(shown) == 3
    for command, _, output in shown:
        printed = run(command)
        if output.startswith("...\n"):
            assert printed.endswith("\n\n" + output.removeprefix("...\n"))
        elif output:
            assert printed == output
        else:
            assert printed.count("\n") == 4
    assert (folder / "sensors.yaml").read_text() == blocks("yaml")[0]

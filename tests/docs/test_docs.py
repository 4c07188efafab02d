"""README and docs are true: their programs run, their links have targets, and the settings they list exist."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from astrocyte.agents.sinks.registry import SINKS
from astrocyte.pipeline.role_registry import ROLES
from astrocyte.pipeline.settings import Settings
from astrocyte.scenario import load_scenario
from astrocyte.simulator.scenario import SCENARIOS

ROOT = Path(__file__).parents[2]
PACKAGES = ("schemas", "simulator", "agents", "pipeline")
PAGES = sorted(
    [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md"), *(ROOT / "examples").rglob("*.md")]
)


def names(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def test_the_programs_of_the_readme_run():
    programs = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert programs
    for program in programs:
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, check=False)
        assert done.returncode == 0, done.stderr
        assert done.stdout.strip() == "fever ward 3 from 38.2 to 39.5"


@pytest.mark.parametrize("page", PAGES, ids=names)
def test_links_point_to_files(page):
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text()):
        if not target.startswith(("http://", "https://")):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


# Pages on extending also name variables of the extensions that they build; test_extending.py runs them.
@pytest.mark.parametrize("page", [page for page in PAGES if page.parent.name != "extending"], ids=names)
def test_named_variables_are_settings(page):
    for variable in re.findall(r"\bASTROCYTE_([A-Z_]+)\b", page.read_text()):
        if not variable.startswith("TEST_"):
            assert variable.lower() in Settings.model_fields, f"{page.name} names ASTROCYTE_{variable}"


def test_every_setting_is_in_the_readme_with_its_description():
    rows = dict(re.findall(r"^\| `(ASTROCYTE_\w+)` \|[^|]*\| (.*) \|$", (ROOT / "README.md").read_text(), re.MULTILINE))
    for name, field in Settings.model_fields.items():
        assert field.description is None or rows[f"ASTROCYTE_{name.upper()}"] == field.description
        assert rows[f"ASTROCYTE_{name.upper()}"]


def test_the_layout_lists_the_top_level_folders_and_those_of_the_packages():
    layout = re.search(r"## Layout\n\n```\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert layout is not None
    listed: set[str] = set()
    top = ""
    for line in layout[1].splitlines():
        folder = line.split("/")[0]
        top = top if folder.startswith("  ") else folder
        listed.add(f"{top}/{folder.strip()}" if folder.startswith("  ") else folder)
    tracked = subprocess.run(["git", "ls-files"], capture_output=True, text=True, cwd=ROOT, check=True).stdout
    places = [line.split("/") for line in tracked.splitlines() if "/" in line and not line.startswith(".")]
    folders = {place[0] for place in places}
    folders |= {"/".join(place[:2]) for place in places if place[0] in PACKAGES and len(place) > 2}
    assert listed == folders


@pytest.mark.parametrize("page", PAGES, ids=names)
def test_commands_that_are_named_exist(page):
    from typer.main import get_command

    from astrocyte.pipeline.cli.app import app

    known = get_command(app).commands
    for command in re.findall(r"(?<!from )astrocyte ([a-z][a-z-]+)", page.read_text()):
        assert command in known, f"{page.name} names astrocyte {command}"


def test_the_glossary_explains_every_role_scenario_and_planted_anomaly():
    text = (ROOT / "docs" / "glossary.md").read_text()
    # Shipped ones: tests of the registries add others to the same process.
    names_used = {*ROLES.shipped, *SINKS.shipped, *SCENARIOS.shipped}
    for scenario in SCENARIOS.shipped:
        names_used |= set(load_scenario(scenario).Config.plant_kinds)
    assert {name for name in names_used if not re.search(rf"\b{name}\b", text)} == set()


def test_the_table_of_planted_anomalies_has_each_kind_with_its_defaults_and_rules():
    section = (ROOT / "docs" / "simulator.md").read_text().split("<!-- kinds -->")[1].split("<!-- end -->")[0]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in section.strip().splitlines()[2:]]
    shown = [
        (row[0], row[1], float(row[2]), int(row[3]), *(tuple(re.findall(r"`(\w+)`", cell)) for cell in row[5:7]))
        for row in rows
    ]
    kinds = [
        (name, kind, spec.strength, spec.ticks, spec.rules, spec.may_follow)
        for name in ("cells", "ecology", "kernels", "dna")
        for kind, spec in load_scenario(name).Config.plant_kinds.items()
    ]
    assert shown == kinds


def test_the_tests_that_show_a_guarantee_exist():
    text = (ROOT / "docs" / "guarantees.md").read_text()
    named = re.findall(r"`(tests/[\w/.]+)`", text)
    assert len(named) > 10
    assert [path for path in named if not (ROOT / path).exists()] == []
    lines = re.findall(
        r'"([^"]+?)(?: \.\.\.)?"', text.partition("## What is promised")[2].partition("Why they hold:")[0]
    )
    assert len(lines) > 5
    faults = (ROOT / "tests" / "faults" / "test_faults.py").read_text()
    assert [line for line in lines if line not in faults] == []


def test_the_overview_links_to_every_page():
    text = (ROOT / "docs" / "index.md").read_text()
    for page in (ROOT / "docs").glob("*.md"):
        assert page.name == "index.md" or f"({page.name}" in text, page.name


def test_the_pictures_of_the_readme_are_small_and_ask_no_other_host():
    pictures = [ROOT / path for path in re.findall(r"!\[[^]]+\]\(([^)]+)\)", (ROOT / "README.md").read_text())]
    assert {path.name for path in pictures} == {"page.png", "terminal.svg"}
    for path in pictures:
        assert path.stat().st_size < 200_000
        if path.suffix == ".svg":
            assert not re.search(r"(?:href|url|src)\W+https?:", path.read_text())

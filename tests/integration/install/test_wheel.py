"""The wheel as a user installs it: one top-level name, beside a package that is called ``agents``, from any folder."""

import json
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
MATCH = """
import importlib.util
from pathlib import Path

from astrocyte import load_rules, match

other = Path(importlib.util.find_spec("agents").origin)
assert not (other.parent / "jit.py").exists(), other
rules = load_rules("rules: [{name: pair, within: 2s, seq: [{as: a, stream: A}, {as: b, stream: B}]}]")
events = [{"stream": "A", "timestamp": 1_000_000, "key": "k"}, {"stream": "B", "timestamp": 2_000_000, "key": "k"}]
print([found.rule for found in match(rules, events)])
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir"]
    done = subprocess.run([*command, str(folder), str(ROOT)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (made,) = folder.glob("astrocyte-*.whl")
    return made


@pytest.fixture(scope="module")
def environment(wheel, tmp_path_factory) -> Path:
    """A virtual environment with the wheel and openai-agents; other dependencies are those of the test run."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=True)
    python = folder / "bin" / "python"
    site = Path(sysconfig.get_path("purelib", "venv", {"base": str(folder), "platbase": str(folder)}))
    (site / "dependencies.pth").write_text(
        "\n".join(path for path in sys.path if path.endswith("site-packages")) + "\n"
    )
    install = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
    subprocess.run([*install, str(wheel)], check=True)
    done = subprocess.run([*install, "openai-agents==0.24.0"], capture_output=True, text=True, check=False)
    if done.returncode:
        # Without a package index, a package of the same top-level name takes its place.
        (site / "agents").mkdir()
        (site / "agents" / "__init__.py").write_text("class Agent: ...\n")
    return folder


def run(environment: Path, folder: Path, *command: str) -> str:
    path = str(environment / "bin" / command[0])
    done = subprocess.run([path, *command[1:]], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_wheel_brings_one_top_level_name(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = {name.partition("/")[0] for name in archive.namelist()}
    assert {name for name in names if not name.endswith(".dist-info")} == {"astrocyte"}


def test_the_wheel_holds_the_rules_the_migrations_and_the_type_marker(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    assert "astrocyte/pipeline/rules/axons.yaml" in names
    assert "astrocyte/agents/sinks/sql/migrations/env.py" in names
    assert "astrocyte/py.typed" in names


def test_matching_works_beside_a_package_called_agents(environment, tmp_path):
    assert run(environment, tmp_path, "python", "-c", MATCH) == "['pair']\n"


def test_the_installed_command_prints_its_version(environment, tmp_path):
    assert run(environment, tmp_path, "astrocyte", "--version").startswith("astrocyte 0.")


def test_a_simulation_and_the_shipped_rules_are_found_from_another_folder(environment, tmp_path):
    log = str(tmp_path / "spikes.jsonl")
    simulation = ("simulate", "axons", "--ticks", "50", "--seed", "7", "--out", log, "--json")
    assert json.loads(run(environment, tmp_path, "astrocyte", *simulation))["events"]["axon_1"] > 0
    checked = json.loads(run(environment, tmp_path, "astrocyte", "rules", "check", "axons", "--json"))
    assert "mono.axon_1" in checked["topics"]


@pytest.mark.soak
def test_kernels_are_compiled_beforehand_into_a_folder_of_their_own_as_in_the_image(environment, tmp_path, monkeypatch):
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "kernels"))
    monkeypatch.setenv("HOME", str(tmp_path / "nowhere"))
    assert run(environment, tmp_path, "python", "-m", "astrocyte.agents.warm").startswith("kernels compiled in ")
    compiled = set((tmp_path / "kernels").rglob("*.nb?"))
    assert compiled
    assert list(environment.rglob("*.nbi")) == []
    log = str(tmp_path / "spikes.jsonl")
    run(environment, tmp_path, "astrocyte", "simulate", "axons", "--ticks", "50", "--out", log)
    assert run(environment, tmp_path, "astrocyte", "match", "axons", log)
    assert set((tmp_path / "kernels").rglob("*.nb?")) == compiled


@pytest.mark.soak
def test_a_demo_runs_from_another_folder(environment, tmp_path):
    summary = json.loads(
        run(environment, tmp_path, "astrocyte", "demo", "--seconds", "4", "--seed", "7", "--size", "256", "--json")
    )
    assert summary["lost"] == 0
    assert summary["multi_events"] > 0

"""The shape of the tree: which package may import which, how large a module may be, what must not be imported early."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("schemas", "simulator", "agents", "pipeline")
MAY_IMPORT = {
    "schemas": {"schemas"},
    "simulator": {"schemas", "simulator"},
    "agents": {"schemas", "agents"},
    "pipeline": {"schemas", "simulator", "agents", "pipeline"},
}
HOME_OF = {"jax": ("simulator",), "faust": ("pipeline",), "aiokafka": ("pipeline",), "typer": ("pipeline",)}
HOME_OF |= {"influxdb_client": ("agents/sinks",), "psycopg": ("agents/sinks",), "alembic": ("agents/sinks",)}


def modules():
    return sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))


def imports(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            names.add(node.module)
    return names


def test_there_are_modules_to_look_at():
    assert len(modules()) > 20


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_follow_the_arrows(path):
    place = path.relative_to(ROOT)
    for name in imports(path):
        top, _, rest = name.partition(".")
        assert top not in PACKAGES, f"{place} imports {name}: write astrocyte.{name}"
        if top == "astrocyte":
            top = rest.partition(".")[0]
            assert top in MAY_IMPORT[place.parts[0]], f"{place} imports {name}"
        if top in HOME_OF and not place.as_posix().startswith("pipeline/bench/"):
            homes = HOME_OF[top]
            assert any(place.as_posix().startswith(home) for home in homes), f"{place} imports {name}"


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(ROOT)))
def test_no_module_has_more_than_500_lines(path):
    assert len(path.read_text().splitlines()) <= 500


@pytest.mark.parametrize("package", PACKAGES)
def test_importing_a_package_is_quiet_and_light(package):
    code = (
        f"import sys, json, astrocyte.{package}\n"
        "print(json.dumps(sorted({name.partition('.')[0] for name in sys.modules})))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    loaded = set(json.loads(done.stdout))
    assert done.stderr == ""
    assert not loaded & {"jax", "faust", "sqlalchemy", "influxdb_client", "typer", "aiokafka"}

"""The shape of the tree: which package and folder may import which, how large they may be, what tests may not do."""

import ast
import json
import subprocess
import sys
from collections import defaultdict
from functools import cache
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

# Within a folder: what each of its sub-folders imports from its other sub-folders and modules, exactly. A new arrow is
# a decision: it is added here, where a reviewer sees it, and only if it makes no cycle.
ARROWS: dict[str, dict[str, str]] = {
    "agents": {
        "cep": "expressions jit rules",
        "engine": "cep event_time expressions ingest insight matches rules windows",
        "expressions": "jit",
        "ingest": "event_time expressions rules sinks",
        "matches": "event_time expressions ingest rules",
        "rules": "expressions insight",
        "sinks": "tls",
        "stores": "sinks",
        "windows": "cep expressions jit rules",
    },
    "agents/cep": {
        "combinations": "compiler key_headers operator rows",
        "compiler": "operator predicates",
        "conjunction": "operator rows values",
        "explain": "combinations compiler operator",
        "sequence": "compiler key_headers operator rows values",
    },
    "agents/engine": {
        "arrival": "tables",
    },
    "agents/insight": {
        "statistics": "descent distributions followed genealogy rows series statistic",
    },
    "agents/rules": {
        "graph": "junctions model problems windows",
        "reading": "graph insight junctions model named_fields problems select validators windows",
    },
    "agents/sinks": {
        "audit": "base sql",
        "http": "base retry",
        "influx": "base block_marks blocks http retry",
        "sql": "base retry",
    },
    "agents/windows": {
        "aggregates": "rows",
    },
    "pipeline": {
        "analysis": "console kafka recording roles settings simulation topology transport",
        "broker": "kafka",
        "bench": "analysis broker kafka page roles settings simulation topology transport",
        "cli": "analysis bench broker console demo experiments kafka logging page recording role_registry roles "
        "settings simulation stopping studies topology transport watch",
        "embed": "kafka recording settings stopping transport",
        "demo": "analysis broker console kafka page recording roles settings simulation stopping topology",
        "experiments": "settings simulation",
        "kafka": "settings",
        "page": "analysis kafka recording roles settings topology transport watch",
        "recording": "console kafka",
        "roles": "kafka logging metrics role_registry settings state stopping telemetry topology transport watch",
        "simulation": "console kafka recording settings stopping transport",
        "state": "kafka transport",
        "topology": "kafka settings",
        "transport": "kafka",
        "watch": "kafka settings",
    },
    "pipeline/analysis": {
        "evolution": "offline phylogeny sources",
        "history": "backtest explain inputs offline",
        "inspect": "inputs offline",
        "phylogeny": "sources",
        "report": "evolution phylogeny",
        "topology": "inputs offline",
        "verify": "inputs offline",
    },
    "pipeline/analysis/inspect": {
        "proposals": "forms",
        "starting": "columns numerals proposals report run sample",
    },
    "pipeline/analysis/report": {
        "sections": "content palette text",
    },
    "pipeline/broker": {
        "groups": "protocol storage",
        "server": "groups protocol settings storage",
        "storage": "protocol settings",
    },
    "pipeline/cli": {
        "correlation": "options",
        "evolution": "options",
    },
    "pipeline/bench": {
        "page": "phylogeny processes",
    },
    "pipeline/page": {
        "content": "aggregates",
        "rules": "aggregates sources",
        "scenes": "aggregates sources",
        "server": "content listening near_misses rules scenes sources tree",
        "sources": "content",
        "tree": "sources",
    },
    "pipeline/page/server": {
        "routes": "inquiry page security",
    },
    "pipeline/recording": {
        "replays": "format index reader",
    },
    "pipeline/studies": {
        "shipped": "cells evolution_models intervals loop_measures report steered study",
    },
    "pipeline/roles": {
        "correlation": "idleness output_records refusals stalls",
        "sink": "acceptance output_records refusals worker worker_app",
    },
    "schemas": {
        "arrow": "errors times values",
        "event_types": "catalog frames",
        "json": "arrow catalog contract declarations errors frames ids times values",
        "tables": "catalog errors",
        "values": "errors times",
    },
    "simulator": {
        "emission": "config event_spec runtime scenario",
        "runtime": "config context event_spec rng scenario",
        "scenarios": "anomalies config context event_spec population rng scenario",
    },
    "simulator/scenarios": {
        "kernels": "ecology",
    },
}

MOST_MODULES = 14  # of one folder, not counting __init__ and sub-folders
LARGER_FOLDERS: dict[str, str] = {}  # folder: why it may hold more

TEST_LEVELS = {"unit", "integration", "conformance", "faults", "fuzz", "simulation", "docs", "peers", "support"}
REAL_TIME_FREE = {"support", "simulation"}
# Sleeps that do not wait for a condition: they place a fault at a random moment.
MAY_PAUSE = {
    "tests/fuzz/broker.py": 1,  # turns of the loop between the bytes of a client
    "tests/integration/kafka/test_transport_kafka.py": 3,  # the moments of sends, kills and restarts
}


def modules() -> list[Path]:
    return sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))


def files_of_tests() -> list[Path]:
    return sorted((ROOT / "tests").rglob("*.py"))


def place_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def imports(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            names.add(node.module)
    return names


def module_name(path: Path) -> str:
    """``agents/cep/__init__.py`` is ``agents/cep``, ``agents/jit.py`` is ``agents/jit``."""
    place = path.relative_to(ROOT).with_suffix("")
    return (place.parent if place.name == "__init__" else place).as_posix()


@cache
def module_imports() -> dict[str, frozenset[str]]:
    """Each module of the four packages with the project's modules that it imports, anywhere in its source."""
    known = {module_name(path) for path in modules()}

    def found(path: Path) -> frozenset[str]:
        targets = set()
        for node in ast.walk(tree_of(path)):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
                names = [f"{node.module}.{alias.name}" for alias in node.names]
            else:
                continue
            for name in names:
                target = name.removeprefix("astrocyte.").replace(".", "/") if name.startswith("astrocyte.") else ""
                while target and target not in known:  # the last parts are names inside the module
                    target = target.rpartition("/")[0]
                targets |= {target} - {"", module_name(path)}
        return frozenset(targets)

    return {module_name(path): found(path) for path in modules()}


def folder_imports(parent: str) -> dict[str, set[str]]:
    """Each sub-folder of ``parent`` with the other children of ``parent`` that it imports."""
    arrows: dict[str, set[str]] = {
        path.name: set() for path in (ROOT / parent).iterdir() if (path / "__init__.py").exists()
    }

    def child(module: str) -> str:
        return module.removeprefix(f"{parent}/").partition("/")[0] if module.startswith(f"{parent}/") else ""

    for module, targets in module_imports().items():
        if child(module) in arrows:
            arrows[child(module)] |= {child(target) for target in targets} - {"", child(module)}
    return arrows


def parents() -> list[str]:
    """Folders that have sub-folders."""
    return sorted({module_name(path).rpartition("/")[0] for path in modules() if path.name == "__init__.py"} - {""})


def circles(graph: dict[str, set[str] | frozenset[str]]) -> set[tuple[str, ...]]:
    """Strongly connected components of more than one member."""

    def reached(start: str) -> set[str]:
        seen: set[str] = set()
        todo = [start]
        while todo:
            new = set(graph.get(todo.pop(), ())) - seen
            seen |= new
            todo += new
        return seen

    reach = {node: reached(node) for node in graph}
    return {
        tuple(sorted({node} | {other for other in reach[node] if node in reach.get(other, ())}))
        for node in graph
        if node in reach[node]
    }


def test_there_are_modules_to_look_at():
    assert len(modules()) > 20
    assert len(files_of_tests()) > 20


@pytest.mark.parametrize("path", modules(), ids=place_of)
def test_imports_follow_the_order_of_the_packages(path):
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


@pytest.mark.parametrize("parent", parents())
def test_folders_import_each_other_as_the_table_says(parent):
    found = {child: targets for child, targets in folder_imports(parent).items() if targets}
    allowed = {child: set(targets.split()) for child, targets in ARROWS.get(parent, {}).items()}
    new = sorted(f"{child} -> {to}" for child in found for to in found[child] - allowed.get(child, set()))
    gone = sorted(f"{child} -> {to}" for child in allowed for to in allowed[child] - found.get(child, set()))
    assert not new, f"new imports inside {parent}: {new}; avoid them or add them to ARROWS"
    assert not gone, f"imports that are no more inside {parent}: {gone}; take them out of ARROWS"


def test_there_is_no_import_cycle_of_modules_or_folders():
    found = circles(module_imports())
    for parent in parents():
        for circle in circles(folder_imports(parent)):
            found.add(tuple(f"{parent}/{child}" for child in circle))
    assert not found


def test_import_cycles_are_found():
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": {"a"}}) == {("b", "c")}
    assert circles({"a": {"b"}, "b": {"c"}, "c": set()}) == set()


@pytest.mark.parametrize("path", modules(), ids=place_of)
def test_no_module_has_more_than_500_lines(path):
    assert len(path.read_text().splitlines()) <= 500


def test_no_folder_is_a_long_flat_list():
    sizes: dict[str, int] = defaultdict(int)
    for path in modules():
        sizes[place_of(path.parent)] += path.name != "__init__.py"
    large = {folder: size for folder, size in sizes.items() if size > MOST_MODULES and folder not in LARGER_FOLDERS}
    assert not large, f"more than {MOST_MODULES} modules: {large}; group them by concept in sub-folders"
    needless = [folder for folder in LARGER_FOLDERS if sizes[folder] <= MOST_MODULES]
    assert not needless, f"no longer large: {needless}"


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


def test_roles_that_do_not_correlate_load_no_kernels():
    code = (
        "import sys, astrocyte.pipeline.roles.build, astrocyte.pipeline.roles.sink.build\n"
        "print('faust' in sys.modules, {'numba', 'astrocyte.agents.domain'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.split() == ["True", "set()"]


def test_inspecting_a_topic_loads_no_compiler():
    code = "import sys, astrocyte.pipeline.analysis.inspect.run\nprint('numba' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.strip() == "False"


def test_every_test_is_in_the_folder_of_a_level():
    strays = {
        place_of(path) for path in files_of_tests() if path.relative_to(ROOT / "tests").parts[0] not in TEST_LEVELS
    }
    assert strays == {"tests/__init__.py", "tests/conftest.py"}


def pauses(tree: ast.AST) -> list[int]:
    """Lines that sleep: ``time.sleep``, ``asyncio.sleep``, and the wait for an event that nothing can set."""
    names = {
        alias.asname or alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module in {"time", "asyncio"}
        for alias in node.names
        if alias.name == "sleep"
    }
    lines = []
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        match node.func:
            case ast.Attribute(value=ast.Name(id="time" | "asyncio"), attr="sleep"):
                lines.append(node.lineno)
            case ast.Name(id=name) if name in names:
                lines.append(node.lineno)
            case ast.Attribute(value=ast.Call(func=ast.Attribute(attr="Event") | ast.Name(id="Event")), attr="wait"):
                lines.append(node.lineno)
    return lines


@pytest.mark.parametrize(
    "code",
    ["import time\ntime.sleep(1)", "from asyncio import sleep\nawait sleep(0)", "threading.Event().wait(2)"],
)
def test_a_sleep_is_recognised(code):
    assert pauses(ast.parse(code))


def test_no_test_sleeps_to_wait_for_a_condition():
    files = [path for path in files_of_tests() if path.relative_to(ROOT / "tests").parts[0] not in REAL_TIME_FREE]
    found = {place_of(path): len(lines) for path in files if (lines := pauses(tree_of(path)))}
    assert found == MAY_PAUSE, "await the condition with tests.support.waiting"


def test_no_fixtures_are_imported_by_a_star():
    for path in files_of_tests():
        for node in ast.walk(tree_of(path)):
            if isinstance(node, ast.ImportFrom):
                assert all(alias.name != "*" for alias in node.names), f"{place_of(path)} imports * from {node.module}"

"""Settings of all tests: levels and their time limits, how properties are searched, fixtures of servers.

tests/README.md says which level a test belongs to.
"""

import os
import sys
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from astrocyte.pipeline.simulation.compilations import compilation_folder

# Before any test imports JAX, here and in child processes. What is compiled is shared by all of them and by the next
# run, since compiling the worlds takes minutes. A program is found by its content.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(compilation_folder("astrocyte-tests") or ""))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
# Hundreds of child processes import the packages. Where byte code is not kept, each compiles two hundred modules anew.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False
# What child processes do before all else: tests/support/startup/sitecustomize.py.
os.environ["PYTHONPATH"] = os.pathsep.join(
    filter(None, (str(Path(__file__).parent / "support/startup"), os.environ.get("PYTHONPATH")))
)

# Fixtures are found in every folder, and a server that lasts for the session is started once.
pytest_plugins = [
    "tests.support.alertmanager",
    "tests.support.brokers",
    "tests.support.influxd",
    "tests.support.postgres",
    "tests.support.process_state",
    "tests.support.prometheus",
    "tests.support.victoria",
    "tests.support.worker",
]

# `make test` gives the same result every time: examples are derived from the test's source. No deadline for single
# examples, because machines are shared and noisy. `make soak` draws from the seed that it prints.
settings.register_profile("astrocyte", derandomize=True, deadline=None, database=None, print_blob=True)
settings.register_profile(
    "soak",
    settings.get_profile("astrocyte"),
    derandomize=False,
    max_examples=300,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("astrocyte")


@dataclass(frozen=True)
class Level:
    """Seconds that the body of one test should take at most, and those after which it is stopped because it hangs.

    Between the two the run goes on and lists the test at its end: a shared machine of two cores, on which code is also
    compiled, takes several times longer than an idle one. Fixtures have limits of their own, where servers are started.
    """

    target_s: float
    limit_s: float


LEVELS = {
    "unit": Level(5, 60),
    "conformance": Level(5, 60),
    "fuzz": Level(30, 120),
    "docs": Level(60, 300),
    "peers": Level(5, 60),
    "integration": Level(60, 300),
    "faults": Level(300, 900),
    "simulation": Level(60, 900),
}
SOAK = Level(3600, 6 * 3600)
TESTS = Path(__file__).parent
LONGEST_FIRST = ("faults", "integration", "unit/simulator")
"""Folders whose files run first: neither process of ``make test`` begins a long one when the other has nothing left."""


def level_of(item: pytest.Item) -> str:
    """Name of the level whose folder holds the test."""
    level = item.path.relative_to(TESTS).parts[0]
    if level not in LEVELS:
        raise pytest.UsageError(f"{item.path}: tests lie in a folder of a level, one of {', '.join(LEVELS)}")
    return level


def limits_of(item: pytest.Item) -> Level:
    """Limits of the level, or those that the test's marker ``time_limit(seconds, reason)`` asks for."""
    marker = item.get_closest_marker("time_limit")
    if marker is not None:
        seconds, reason = marker.args
        assert reason, "a longer time limit needs a reason"
        return Level(seconds, 5 * seconds)
    soaks = item.get_closest_marker("soak") or item.config.getoption("--hypothesis-profile") == "soak"
    return SOAK if soaks else LEVELS[level_of(item)]


def turn(item: pytest.Item) -> int:
    """Order of the item's folder; within it, and in all other folders, tests keep the order of their files."""
    path = item.path.relative_to(TESTS).as_posix()
    found = (number for number, folder in enumerate(LONGEST_FIRST) if path.startswith(f"{folder}/"))
    return next(found, len(LONGEST_FIRST))


@pytest.hookimpl(tryfirst=True)  # before tests are selected by their markers
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=turn)
    for item in items:
        level_of(item)
        item.add_marker(pytest.mark.timeout(limits_of(item).limit_s, func_only=True))
        if getattr(getattr(item, "obj", None), "is_hypothesis_test", False) and not item.get_closest_marker("soak"):
            item.add_marker("search")


@pytest.fixture
def search_seed(request: pytest.FixtureRequest) -> int:
    """First seed of a test that draws with its own generators: 0, or far from other rounds' in ``make soak``."""
    return 1_000_000 * int(request.config.getoption("--hypothesis-seed") or 0)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]):
    report = yield
    if call.when == "call" and call.duration > limits_of(item).target_s:
        report.user_properties.append(("over_target_s", limits_of(item).target_s))
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """List the tests that took longer than their level should, and what experiments have measured."""
    slow: dict[float, list[tuple[float, str]]] = defaultdict(list)
    experiments: dict[tuple[str, ...], list[dict[str, object]]] = defaultdict(list)
    for reports in terminalreporter.stats.values():
        for report in reports:
            for name, value in getattr(report, "user_properties", ()):
                if name == "over_target_s" and report.when == "call":
                    slow[value].append((report.duration, report.nodeid))
                elif name == "experiment" and report.when == "call":
                    experiments[tuple(value)].append(value)
    for names, measured in experiments.items():
        terminalreporter.section("experiments", sep="-")
        rows = [names, *([str(each[name]) for name in names] for each in measured)]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        for row in rows:
            terminalreporter.line("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)))
    if slow:
        terminalreporter.section("slower than their level should be (no failure)", sep="-")
        for target_s, found in sorted(slow.items()):
            for duration, name in sorted(found, reverse=True):
                terminalreporter.line(f"{duration:7.1f} s of {target_s:.0f} s  {name}")

"""The first run on a machine, without compiled operators: compiling them delays no group and loses nothing."""

import asyncio
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from astrocyte.pipeline.roles.health import group_health
from astrocyte.pipeline.roles.worker import environment_of, worker_command
from astrocyte.pipeline.settings import load_settings
from astrocyte.pipeline.topology.topics import make_topics, mono_topics
from astrocyte.schemas.topics import ALERTS, DEAD_LETTERS, LATE, MULTI_EVENTS
from tests.support.brokers import own_embedded  # noqa: F401  fixture
from tests.support.worker import wait_until

COMPILING = "compiling the correlation kernels for this machine, once"
READY = "kernels are ready"
DEMO = [sys.executable, "-c", "from astrocyte.pipeline.cli.app import main; main()", "demo", "--seconds", "6", "--json"]


@pytest.fixture(scope="module")
def first_demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """A demo that found no compiled operators, and its folder, in whose ``kernels`` they are now."""
    folder = tmp_path_factory.mktemp("first")
    environment = os.environ | {"NUMBA_CACHE_DIR": str(folder / "kernels")}
    return folder, subprocess.run(
        DEMO, check=False, cwd=folder, env=environment, capture_output=True, text=True, timeout=400
    )


def test_a_demo_without_compiled_operators_reports_that_it_compiles_them_and_loses_nothing(first_demo):
    folder, done = first_demo
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    assert (summary["lost"], summary["late"], summary["dead_letters"]) == (0, 0, 0)
    assert summary["mono_events"] > 1000
    assert done.stderr.count(COMPILING) == 1
    assert COMPILING not in (folder / "demo-data/logs/worker.log").read_text()


def test_a_worker_joins_its_group_once_its_operators_are_compiled(own_embedded, tmp_path, first_demo):  # noqa: F811
    kernels = tmp_path / "kernels"
    shutil.copytree(first_demo[0] / "kernels", kernels)
    # The operators of one package are missing: enough that the worker has to compile, in a fraction of the time.
    missing = list(kernels.glob("conjunction_*/*.nbi"))
    assert missing
    for index in missing:
        index.unlink()
    settings = load_settings(broker=own_embedded.address, rules=("axons",), roles=("correlate",))
    asyncio.run(make_topics(settings, [*mono_topics(("axon_1",)), MULTI_EVENTS, ALERTS, LATE, DEAD_LETTERS]))
    log = tmp_path / "worker.log"
    with log.open("wb") as out:
        environment = environment_of(settings) | {"NUMBA_CACHE_DIR": str(kernels)}
        process = subprocess.Popen(worker_command(), env=environment, stdout=out, stderr=out)

    def members() -> int:
        return int(asyncio.run(group_health(settings))["correlate"]["members"])

    try:
        wait_until(lambda: COMPILING in log.read_text(), 120)
        assert members() == 0
        wait_until(members, 240, log.read_text)
        assert READY in log.read_text()
        assert log.read_text().count(COMPILING) == 1
        assert all(index.exists() for index in missing)
    finally:
        process.terminate()
        assert process.wait(30) == 0

"""The first run on a machine, without compiled operators: compiling them delays no group and loses nothing.

The demo of test_demo.py runs without some of them.
"""

import asyncio
import json
import os
import subprocess
import sys

import pytest

from astrocyte.pipeline.roles.health import group_health
from astrocyte.pipeline.roles.worker import environment_of, worker_command
from astrocyte.pipeline.settings import load_settings
from astrocyte.pipeline.topology.topics import make_topics, mono_topics
from astrocyte.schemas.topics import ALERTS, DEAD_LETTERS, LATE, MULTI_EVENTS
from tests.support.brokers import own_embedded  # noqa: F401  fixture
from tests.support.kernels import COMPILING, some_kernels
from tests.support.worker import wait_until

READY = "kernels are ready"
DEMO = [sys.executable, "-c", "from astrocyte.pipeline.cli.app import main; main()", "demo", "--seconds", "6", "--json"]


@pytest.mark.parametrize("missing", ["some", pytest.param("all", marks=pytest.mark.soak)])
def test_a_worker_joins_its_group_once_its_operators_are_compiled(own_embedded, tmp_path, missing):  # noqa: F811
    cache = tmp_path / "kernels"
    kernels = some_kernels(cache) if missing == "some" else {"NUMBA_CACHE_DIR": str(cache)}
    before = set(cache.glob("**/*.nbi"))
    settings = load_settings(broker=own_embedded.address, rules=("axons",), roles=("correlate",))
    asyncio.run(make_topics(settings, [*mono_topics(("axon_1",)), MULTI_EVENTS, ALERTS, LATE, DEAD_LETTERS]))
    log = tmp_path / "worker.log"
    with log.open("wb") as out:
        process = subprocess.Popen(worker_command(), env=environment_of(settings) | kernels, stdout=out, stderr=out)

    def members() -> int:
        return int(asyncio.run(group_health(settings))["correlate"]["members"])

    try:
        wait_until(lambda: COMPILING in log.read_text(), 120)
        assert members() == 0
        wait_until(members, 240, log.read_text)
        assert READY in log.read_text()
        assert log.read_text().count(COMPILING) == 1
        assert set(cache.glob("**/*.nbi")) > before
    finally:
        process.terminate()
        assert process.wait(30) == 0


@pytest.mark.soak
def test_a_demo_without_compiled_operators_reports_that_it_compiles_them_and_loses_nothing(tmp_path):
    environment = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path / "kernels")}
    done = subprocess.run(DEMO, check=True, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=400)
    summary = json.loads(done.stdout)
    assert (summary["lost"], summary["late"], summary["dead_letters"]) == (0, 0, 0)
    assert summary["mono_events"] > 1000
    assert done.stderr.count(COMPILING) == 1
    assert COMPILING not in (tmp_path / "demo-data/logs/worker.log").read_text()

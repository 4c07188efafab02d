"""A worker that cannot start says why in one line."""

import asyncio
import re
import subprocess
import sys

import pytest

from astrocyte.pipeline.kafka.client import ensure_topics, topic_partitions
from tests.support.brokers import own_embedded  # noqa: F401  fixture
from tests.support.waiting import wait_until

PLUGIN = """
from astrocyte import register_sink
register_sink("needy", lambda context: context.require("url"), records=("alerts",))
"""


def test_a_sink_without_its_setting_ends_the_worker_with_one_line(tmp_path):
    (tmp_path / "needy_sink.py").write_text(PLUGIN)
    command = [sys.executable, "-c", "from astrocyte.pipeline.cli.app import main; main()", "worker", "--role", "needy"]
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "ASTROCYTE_PLUGINS": "needy_sink"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("astrocyte: sink 'needy' needs the setting 'url'; set ASTROCYTE_NEEDY_URL")


def run(folder, *arguments, **environment):
    command = [sys.executable, "-c", "from astrocyte.pipeline.cli.app import main; main()", *arguments]
    settings = {"PATH": "/usr/bin:/bin", "HOME": str(folder), **environment}
    return subprocess.run(command, cwd=folder, env=settings, capture_output=True, text=True, check=False, timeout=120)


RULE = 'rules: [{name: hot, seq: [{as: a, stream: readings, where: "temp > 30"}]}]'


@pytest.mark.parametrize("roles", [(), ("--role", "correlate")])
def test_a_worker_beside_topics_with_another_number_of_partitions_refuses_and_creates_nothing(
    own_embedded,  # noqa: F811
    tmp_path,
    roles,
):
    (tmp_path / "rule.yaml").write_text(RULE)
    address = own_embedded.address
    asyncio.run(ensure_topics(address, {"mono.readings": 4}))
    done = run(tmp_path, "worker", "--rules", "rule.yaml", *roles, ASTROCYTE_BROKER=address, ASTROCYTE_PARTITIONS="2")
    assert done.returncode == 2
    lines = [line for line in done.stderr.splitlines() if line.startswith("astrocyte: ")]
    (line,) = lines
    assert line.startswith("astrocyte: topic 'mono.readings': expected 2 partitions, got 4; all topics of a pipeline")
    assert "set ASTROCYTE_PARTITIONS=4, or use another broker or topic" in line
    assert "Traceback" not in done.stderr
    assert asyncio.run(topic_partitions(address)) == {"mono.readings": 4}


def test_a_worker_starts_with_the_setting_that_its_refusal_advises(own_embedded, tmp_path):  # noqa: F811
    (tmp_path / "rule.yaml").write_text(RULE)
    address = own_embedded.address
    asyncio.run(ensure_topics(address, {"mono.readings": 4}))
    refused = run(tmp_path, "worker", "--rules", "rule.yaml", ASTROCYTE_BROKER=address, ASTROCYTE_PARTITIONS="2")
    (advised,) = set(re.findall(r"set ASTROCYTE_PARTITIONS=(\d+)", refused.stderr))
    command = [sys.executable, "-c", "from astrocyte.pipeline.cli.app import main; main()", "worker"]
    settings = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "ASTROCYTE_BROKER": address}
    log = tmp_path / "worker.log"
    with log.open("wb") as out:
        worker = subprocess.Popen(
            [*command, "--rules", "rule.yaml", "--role", "correlate"],
            cwd=tmp_path, env=settings | {"ASTROCYTE_PARTITIONS": advised}, stdout=out, stderr=out,
        )  # fmt: skip
    try:
        ready = "role correlate is ready and reads (topic and partitions): mono.readings 0,1,2,3"
        wait_until(lambda: ready in log.read_text(), 50, lambda: log.read_text()[-2000:])
    finally:
        worker.terminate()
        worker.wait(30)
    assert {count for topic, count in asyncio.run(topic_partitions(address)).items() if topic == "multi.events"} == {4}


def test_a_folder_with_the_name_of_a_shipped_rule_set_does_not_hide_it(tmp_path):
    (tmp_path / "axons").mkdir()
    (tmp_path / "mine").mkdir()
    done = run(tmp_path, "rules", "check", "axons")
    assert (done.returncode, done.stderr) == (0, "")
    done = run(tmp_path, "rules", "check", "mine")
    assert (done.returncode, done.stderr) == (2, "astrocyte: 'mine' is a folder; name the rule files in it\n")

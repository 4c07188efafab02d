"""A worker that cannot start says why in one line."""

import asyncio
import signal
import subprocess
import sys

import pytest

from astrocyte.pipeline.kafka.client import ensure_topics, producer_client, topic_partitions
from astrocyte.pipeline.roles.worker import _roles_now
from astrocyte.pipeline.roles.worker_app import make_app, rules_now
from astrocyte.pipeline.settings import Settings
from astrocyte.schemas.topics import RULES
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


WRONG = """
from astrocyte import register_sink


class Wrong:
    def __init__(self, context):
        self.name, self.fault = context.name, context.require("fault")
        if self.fault == "made":
            raise RuntimeError("boom when made")

    async def open(self):
        if self.fault == "open":
            raise RuntimeError("boom in open")

    async def write(self, batch):
        return []

    async def close(self):
        import threading, time

        if self.fault == "close":
            time.sleep(600)
        threading.Thread(target=time.sleep, args=(600,)).start()


register_sink("wrong", Wrong, streams=(), records=("alerts",))
"""


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("made", "astrocyte: making the sink 'wrong' raised RuntimeError: boom when made ("),
        ("open", "astrocyte: open() of sink 'wrong' raised RuntimeError: boom in open ("),
    ],
)
def test_a_sink_that_raises_when_it_is_made_or_opened_ends_the_worker_with_one_line(
    fault,
    said,
    own_embedded,  # noqa: F811
    tmp_path,
):
    (tmp_path / "wrong_sink.py").write_text(WRONG)
    done = run(
        tmp_path, "worker", "--role", "wrong", ASTROCYTE_PLUGINS="wrong_sink", ASTROCYTE_WRONG_FAULT=fault,
        ASTROCYTE_BROKER=own_embedded.address,
    )  # fmt: skip
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("astrocyte: ")]
    assert line.startswith(said)
    assert "wrong_sink.py:" in line


@pytest.mark.soak
@pytest.mark.parametrize("fault", ["close", "thread"])
def test_a_sink_whose_close_hangs_or_leaves_a_thread_does_not_keep_the_worker(
    fault,
    own_embedded,  # noqa: F811
    tmp_path,
):
    (tmp_path / "wrong_sink.py").write_text(WRONG)
    log = tmp_path / "log"
    command = [sys.executable, "-c", "from astrocyte.pipeline.cli.app import main; main()", "worker", "--role", "wrong"]
    environment = {
        "PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "ASTROCYTE_PLUGINS": "wrong_sink",
        "ASTROCYTE_WRONG_FAULT": fault, "ASTROCYTE_BROKER": own_embedded.address,
    }  # fmt: skip
    with log.open("w") as output:
        worker = subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=output, stderr=output)
        try:
            wait_until(lambda: "is ready and reads" in log.read_text(), 60, log.read_text)
            worker.send_signal(signal.SIGTERM)
            assert worker.wait(20) == 0
        finally:
            worker.kill()
            worker.wait()
    assert (
        "role 'wrong': close() has not returned, or has left a thread, 5 s after the end of the work" in log.read_text()
    )


def run(folder, *arguments, **environment):
    command = [sys.executable, "-c", "from astrocyte.pipeline.cli.app import main; main()", *arguments]
    settings = {"PATH": "/usr/bin:/bin", "HOME": str(folder), **environment}
    return subprocess.run(command, cwd=folder, env=settings, capture_output=True, text=True, check=False, timeout=120)


RULE = 'rules: [{name: hot, seq: [{as: a, stream: readings, where: "temp > 30"}]}]'


@pytest.mark.parametrize("roles", [(), ("--role", "correlate")])
def test_a_worker_whose_own_topics_have_another_number_of_partitions_refuses_and_creates_nothing(
    own_embedded,  # noqa: F811
    tmp_path,
    roles,
):
    (tmp_path / "rule.yaml").write_text(RULE)
    address = own_embedded.address
    asyncio.run(ensure_topics(address, {"mono.readings": 3, "alerts": 4}))
    done = run(tmp_path, "worker", "--rules", "rule.yaml", *roles, ASTROCYTE_BROKER=address, ASTROCYTE_PARTITIONS="2")
    assert done.returncode == 2
    lines = [line for line in done.stderr.splitlines() if line.startswith("astrocyte: ")]
    (line,) = lines
    assert line.startswith(
        "astrocyte: topic 'alerts': expected 2 partitions, got 4; the topics that the pipeline writes"
    )
    assert "set ASTROCYTE_PARTITIONS=4, or use another broker" in line
    assert "Traceback" not in done.stderr
    assert asyncio.run(topic_partitions(address)) == {"alerts": 4, "mono.readings": 3}


def test_published_rules_that_the_topics_contradict_are_refused_and_those_of_the_files_stay_in_force(
    own_embedded,  # noqa: F811
    tmp_path,
):
    (tmp_path / "rule.yaml").write_text(RULE)
    contrary = b"""
        streams: [{name: others, topic: readings}]
        rules: [{name: cold, seq: [{as: a, stream: others, where: "temp < 30"}]}]
    """

    async def publish() -> None:
        await ensure_topics(own_embedded.address, {"readings": 4, RULES: 1})
        async with producer_client(own_embedded.address) as producer:
            await producer.send_and_wait(RULES, contrary, key=b"contrary", partition=0)

    asyncio.run(publish())
    settings = Settings(
        broker=own_embedded.address, rules=(str(tmp_path / "rule.yaml"),), roles=("correlate",), partitions=4
    )
    assert asyncio.run(_roles_now(settings)) == ("correlate",)
    live, _, known = rules_now(settings, make_app(settings, "correlate").watch)
    assert [rule.name for rule in live.ruleset.rules] == ["hot"]
    assert known.plan(live.ruleset).topics == ("readings",)


def test_a_folder_with_the_name_of_a_shipped_rule_set_does_not_hide_it(tmp_path):
    (tmp_path / "axons").mkdir()
    (tmp_path / "mine").mkdir()
    done = run(tmp_path, "rules", "check", "axons")
    assert (done.returncode, done.stderr) == (0, "")
    done = run(tmp_path, "rules", "check", "mine")
    assert (done.returncode, done.stderr) == (2, "astrocyte: 'mine' is a folder; name the rule files in it\n")

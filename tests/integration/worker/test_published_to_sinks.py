"""Sinks and the control role read by the declarations, validators and windows that are published while they run."""

import asyncio
import subprocess
import sys
from pathlib import Path

import orjson
from typer.testing import CliRunner

from astrocyte.pipeline.cli.app import app
from astrocyte.pipeline.kafka.client import topic_partitions
from astrocyte.pipeline.kafka.record import ConsumedRecord
from astrocyte.pipeline.roles.worker import environment_of
from astrocyte.pipeline.settings import load_settings
from astrocyte.schemas.topics import metrics_topic
from tests.support.brokers import own_embedded  # noqa: F401  fixture
from tests.support.logs import produce
from tests.support.waiting import wait_until

SINK = '''
import os
from pathlib import Path

from astrocyte import register_sink
from astrocyte.sink import SourcedFrame


class Lines:
    """The value of each event as a line, once: what was not acknowledged before a restart comes again."""

    def __init__(self, context):
        self.name, self.path = context.name, Path(context.require("path"))

    async def open(self):
        self.path.touch()
        self.known = set(self.path.read_text().split())

    async def write(self, batch):
        with self.path.open("a") as file:
            for item in batch:
                for row in item.frame.rows() if isinstance(item, SourcedFrame) else ():
                    line = repr(row["value"])
                    if line not in self.known:
                        self.known.add(line)
                        file.write(line + "\\n")
        return []

    async def close(self):
        """Nothing is held open."""


register_sink("lines", Lines, streams=("orders",), records=(), windows=True)
'''
RULES = """
streams: [{name: orders, id: id, fields: {value: int64}}]
rules: [{name: big, seq: [{as: a, stream: orders, where: "value > 5"}]}]
"""
CHANGED = RULES.replace("int64", "float64") + 'validators: [{stream: orders, where: "value < 100"}]\n'
WITH_WINDOW = CHANGED + 'windows: [{name: w, from: orders, by: key, every: 10s, select: {n: "count()"}}]\n'
NOON_MS = 1_772_366_400_000
MAIN = [sys.executable, "-c", "from astrocyte.pipeline.cli.app import main; main()"]


def test_a_running_sink_takes_over_published_declarations_and_is_restarted_for_other_topics(own_embedded, tmp_path):  # noqa: F811
    address = own_embedded.address
    (tmp_path / "lines_sink.py").write_text(SINK)
    (tmp_path / "rules.yaml").write_text(RULES)
    lines, log = tmp_path / "lines.txt", tmp_path / "worker.log"
    settings = load_settings(broker=address, group="lines", rules=(tmp_path / "rules.yaml",), partitions=1)
    environment = environment_of(settings) | {
        "ASTROCYTE_PLUGINS": "lines_sink", "ASTROCYTE_LINES_PATH": str(lines), "ASTROCYTE_ROLES": "lines,control",
        "PYTHONPATH": str(tmp_path),
    }  # fmt: skip

    def logged(text: str) -> None:
        wait_until(lambda: text in log.read_text(), 60, lambda: log.read_text()[-3000:])

    def publish(text: str) -> None:
        path: Path = tmp_path / "orders.yaml"
        path.write_text(text)
        done = CliRunner().invoke(app, ["rules", "publish", str(path), "--broker", address])
        assert done.exit_code == 0, done.output

    def send(offset: int, value: float, wanted: list[str]) -> None:
        body = orjson.dumps({"timestamp": NOON_MS + offset, "id": f"o{offset}", "value": value})
        record = ConsumedRecord("mono.orders", 0, offset, NOON_MS + offset, b"k", body)
        asyncio.run(produce(address, [record], partitions=1))
        if wanted:
            wait_until(lambda: lines.read_text().split() == wanted, 60, lambda: lines.read_text() + log.read_text())

    with log.open("wb") as out:
        worker = subprocess.Popen([*MAIN, "worker"], cwd=tmp_path, env=environment, stdout=out, stderr=out)
    try:
        logged("role lines is ready")
        logged("role control is ready")
        send(0, 7, ["7"])
        publish(CHANGED)
        logged("lines reads by the changed rules")
        logged("control reads by the changed rules")
        send(1, 500, [])
        send(2, 9.5, ["7", "9.5"])
        publish(WITH_WINDOW)
        logged("lines: the changed rules have other topics")
        wait_until(lambda: log.read_text().count("role lines is ready") == 2, 60, lambda: log.read_text()[-3000:])
        assert f"{metrics_topic('w')} 0" in log.read_text().rsplit("role lines is ready", 1)[1]
        assert metrics_topic("w") in asyncio.run(topic_partitions(address))
        send(3, 8.5, ["7", "9.5", "8.5"])
        assert worker.poll() is None
    finally:
        worker.terminate()
        worker.wait(30)
    assert "Traceback" not in log.read_text()

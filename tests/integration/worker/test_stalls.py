"""A real worker says for what it waits: in its log, in `astrocyte health`, and in its metrics."""

import json
import urllib.request

import pytest
from typer.testing import CliRunner

from astrocyte.pipeline.cli.app import app
from astrocyte.pipeline.roles.worker import environment_of
from astrocyte.pipeline.settings import load_settings
from astrocyte.pipeline.simulation.publish import KafkaSink
from astrocyte.pipeline.topology.plan import make_plan
from astrocyte.pipeline.topology.rule_files import read_rule_files
from astrocyte.schemas.frames import Frame
from tests.support.kafka import free_port
from tests.support.role_worker import Worker
from tests.support.waiting import wait_until

START_US = 1_750_000_000_000_000
RULES = "rules: [{name: placed, by: place, within: 1s, seq: [{as: a, stream: moves}, {as: b, stream: moves}]}]"


def moves(first: int, count: int = 50) -> Frame:
    columns = {
        "timestamp": [START_US + number * 10_000 for number in range(first, first + count)],
        "key": [f"k{number % 7}" for number in range(count)],
        "place": [f"p{number % 5}" for number in range(count)],
    }
    return Frame.from_columns("moves", "run", columns, first_seq=first)


@pytest.fixture
def settings(own_embedded, tmp_path):
    rules = tmp_path / "rules.yaml"
    rules.write_text(RULES)
    assert make_plan(read_rule_files([rules])).repartitions
    return load_settings(
        broker=own_embedded.address, group="stalls", rules=(rules,), partitions=2, roles=("correlate",),
        streams=("moves",), stall_timeout="2s", idle_timeout="1s", metrics_port=free_port(),
    )  # fmt: skip


def health(settings, *options: str):
    return CliRunner().invoke(app, ["health", "-b", settings.broker, *options], env=environment_of(settings))


def waits(settings) -> list[dict]:
    return json.loads(health(settings, "--json").stdout.splitlines()[0])["correlate"]["stalls"]


def test_a_repartition_role_that_does_not_run_is_named_until_it_does(settings, tmp_path):
    worker = Worker(settings, "correlate", tmp_path / "correlate.log", {})
    other = None
    try:
        worker.ready()
        with KafkaSink(settings.broker, partitions=2, form="json") as sink:
            sink.write(moves(0))
        wait_until(lambda: b"waits for keyed.place.moves" in worker.log.read_bytes(), 60, worker.log.read_text)
        assert "role repartition does not run or is behind" in worker.log.read_text()
        wait_until(lambda: len(waits(settings)) == 2, 30)
        assert {(each["by"], each["why"]) for each in waits(settings)} == {("place", "repartition")}
        said = health(settings)
        assert said.exit_code == 1
        assert "no worker of this group runs the role repartition" in said.stdout
        with urllib.request.urlopen(f"http://127.0.0.1:{settings.metrics_port}/metrics") as answer:
            metrics = answer.read().decode()
        labels = 'by="place",origin="",partition="0",role="correlate",topic="keyed.place.moves"'
        assert f"astrocyte_stalled_seconds{{{labels}" in metrics
        # The port beside the free one may be taken.
        without_metrics = settings.model_copy(update={"metrics_port": None})
        other = Worker(without_metrics, "repartition", tmp_path / "repartition.log", {})
        wait_until(lambda: b"event time goes on at" in worker.log.read_bytes(), 60, worker.log.read_text)
        wait_until(lambda: health(settings).exit_code == 0, 30)
    finally:
        for each in (worker, *([] if other is None else [other])):
            each.stop()

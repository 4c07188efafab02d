"""What InfluxDB computes of raw points, by the tasks of version 2 and the continuous queries of version 1."""

from __future__ import annotations

import asyncio
import re
import time
from itertools import count
from types import SimpleNamespace

import numpy as np
import pytest
from influxdb_client import InfluxDBClient

from astrocyte.agents.engine.engine import Engine
from astrocyte.agents.sinks.base import SinkError, SourcedFrame
from astrocyte.agents.sinks.influx.continuous import CONTINUOUS, continuous_query
from astrocyte.agents.sinks.influx.query import BucketReader
from astrocyte.agents.sinks.influx.setup import TASKS, setup_influx, task_flux
from astrocyte.agents.sinks.influx.sink import InfluxSink
from astrocyte.pipeline.topology.rule_files import read_rule_files
from astrocyte.schemas.frames import Frame
from astrocyte.schemas.times import iso_from_us
from tests.support.influxd import InfluxServer
from tests.support.waiting import wait_until
from tests.support.written import written

MINUTE_US = 60_000_000
MINUTES = 10
BEGIN_US = 1_700_000_100_000_000
"""The beginning of a window of five minutes."""
WINDOW_OF = {"astrocyte_population_stats": "population_stats", "astrocyte_diversity": "diversity_metrics"}


def attempts(begin_us, rows=600, step_us=MINUTES * MINUTE_US // 600):
    """Attempts at problems, sampled, and genomes, at equal distances."""
    dice = np.random.default_rng(3)
    times = begin_us + np.arange(rows) * step_us // 10_000 * 10_000
    common = {"timestamp": times, "key": ["0"] * rows, "cell_id": np.arange(rows) % 40}
    solving = common | {
        "type": ["solved"] * rows, "problem_type": ["pattern"] * rows, "difficulty": [1] * rows,
        "accuracy": dice.random(rows, np.float32), "energy_reward": dice.normal(2, 3, rows).astype(np.float32),
    }  # fmt: skip
    genomes = common | {
        "type": ["genome"] * rows, "genome_type": ["bio"] * rows,
        "metabolism": dice.gamma(2, 1, rows).astype(np.float32), "tpu_cores": dice.gamma(2, 4, rows).astype(np.float32),
    }  # fmt: skip
    return [
        Frame.from_columns("problem_solving", "run", solving, weight=4.0),
        Frame.from_columns("genome_data", "run", genomes),
    ]


def store(server, bucket, frames):
    sink = InfluxSink(server.url, token="any", org="any", bucket=bucket)
    batch = [SourcedFrame(frame, f"mono.{frame.stream}", 0, number) for number, frame in enumerate(frames)]
    assert asyncio.run(written(sink, batch)) == []


@pytest.fixture(scope="module")
def held(influx_server):
    """Ten minutes of attempts in a bucket, and the results of the shipped windows over them."""
    frames = attempts(BEGIN_US)
    engine = Engine(read_rule_files(["cells"]), validated=True)
    for frame in frames:
        engine.push(frame)
    results = [row | {"window": frame.stream} for frame in engine.flush().frames for row in frame.rows()]
    bucket = influx_server.database("attempts")
    store(influx_server, bucket, frames)
    return SimpleNamespace(bucket=bucket, results=results)


def window_results(held, window):
    return [row for row in held.results if row["window"] == window]


def run_at(now, script):
    """The script of a task as the scheduler would run it, with its results answered and not written."""
    numbers = count()
    script = re.sub(r"\|> to\(.*\)", lambda _: f'|> yield(name: "{next(numbers)}")', script)
    imports = "".join(re.findall(r"^import .*\n", script, re.MULTILINE))
    rest = re.sub(r"^import .*\n", "", script, flags=re.MULTILINE)
    return f"{imports}option now = () => {now}\n{rest.replace('option task', 'task')}"


@pytest.mark.parametrize("task", TASKS)
def test_a_task_computes_what_the_window_does(task, held, influx_server):
    """InfluxDB 1 has Flux without tasks and without ``to``."""
    fields = set(re.findall(r'_field: "(\w+)"', task_flux(task, held.bucket, "any")))
    results = window_results(held, WINDOW_OF[task])
    assert len(results) == {"population_stats": 10, "diversity_metrics": 2}[WINDOW_OF[task]]
    for result in results:
        rows = influx_server.flux(run_at(iso_from_us(result["window_end"]), task_flux(task, held.bucket, "any")))
        found = {row["_field"]: float(row["_value"]) for row in rows}
        assert set(found) == fields
        assert found == pytest.approx({name: result[name] for name in fields}, rel=1e-5)


@pytest.mark.parametrize("name", CONTINUOUS)
def test_a_continuous_query_computes_what_the_window_does(name, held, influx_server):
    target = influx_server.database("by_query")
    query = re.search(r"BEGIN (.*) END", continuous_query(name, held.bucket, target))[1]
    until = BEGIN_US + MINUTES * MINUTE_US
    bounds = f"WHERE time >= {BEGIN_US}u AND time < {until}u GROUP BY"
    influx_server.influxql(query.replace("GROUP BY", bounds), held.bucket)
    (series,) = influx_server.influxql(f'SELECT * FROM "{WINDOW_OF[name]}"', target)
    found = [dict(zip(series["columns"], row, strict=True)) for row in series["values"]]
    results = window_results(held, WINDOW_OF[name])
    assert [row.pop("time") // 1000 for row in found] == [result["window_start"] for result in results]
    for row, result in zip(found, results, strict=True):
        assert row == pytest.approx({field: result[field] for field in row}, rel=1e-5)


def test_a_continuous_query_runs_by_itself(influx_server):
    bucket, target = influx_server.database("live"), influx_server.database("live_downsampled")
    (name,) = CONTINUOUS
    statement = continuous_query(name, bucket, target)
    influx_server.influxql(statement.replace("time(1m)", "time(1s)").replace("FOR 2m", "FOR 60s"))
    now_us = time.time_ns() // 10_000_000 * 10_000
    frames = attempts(now_us - 2_000_000, rows=200, step_us=10_000)
    store(influx_server, bucket, frames)
    summed = 'SELECT sum("count_cell_id") FROM "population_stats"'

    def counted():
        return [row[1] for series in influx_server.influxql(summed, target) for row in series["values"]]

    wait_until(lambda: counted() == [800.0], 60, lambda: f"all 200 attempts, weighed: {counted()}")


def set_up(server, bucket, **options):
    made = setup_influx(server.url, token="any", org="any", bucket=bucket, **options)
    return [(each.kind, each.name, each.done) for each in made]


def test_databases_and_continuous_queries_are_made_once_and_found_again(influx_server):
    names = [
        ("database", "of one"),
        ("database", "of one_downsampled"),
        *(("continuous query", each) for each in CONTINUOUS),
    ]
    assert set_up(influx_server, "of one") == [(*each, "made") for each in names]
    assert set_up(influx_server, "of one") == [(*each, "as it should be") for each in names]
    (policy,) = influx_server.influxql('SHOW RETENTION POLICIES ON "of one"')
    assert [row[:2] for row in policy["values"]] == [["autogen", "720h0m0s"]]
    assert set_up(influx_server, "of one", raw_days=0)[0][2] == "retention changed"
    assert set_up(influx_server, "of one", raw_days=0)[0][2] == "as it should be"
    (name,) = CONTINUOUS
    influx_server.influxql(f'DROP CONTINUOUS QUERY "{name}" ON "of one"')
    other = continuous_query(name, "of one", "of one_downsampled").replace("mean(", "max(")
    influx_server.influxql(other)
    assert [each[2] for each in set_up(influx_server, "of one", raw_days=0)] == [*["as it should be"] * 2, "changed"]
    assert [each[2] for each in set_up(influx_server, "of one", raw_days=0)] == ["as it should be"] * 3


def test_a_bucket_names_a_retention_policy_after_a_stroke(influx_server):
    assert {each[2] for each in set_up(influx_server, "policies/month")} == {"made"}
    assert {each[2] for each in set_up(influx_server, "policies/month")} == {"as it should be"}
    store(influx_server, "policies/month", attempts(time.time_ns() // 1000 - MINUTE_US, rows=10, step_us=10_000))
    (series,) = influx_server.influxql('SELECT count("accuracy") FROM "month"."problem_solving"', "policies")
    assert series["values"][0][1] == 10


def test_what_the_server_refuses_is_one_clear_line(influx_server):
    with pytest.raises(SinkError, match=r"InfluxDB answered to ALTER RETENTION POLICY .*: .*duration"):
        set_up(influx_server, "shortest", raw_days=0.001)


def test_user_and_password_are_the_token_of_version_1(influx_server, tmp_path):
    server = InfluxServer(tmp_path, login=True)
    try:
        server.influxql("CREATE USER mine WITH PASSWORD 'secret' WITH ALL PRIVILEGES")
        options = {"org": "any", "bucket": "cells"}
        assert {each.done for each in setup_influx(server.url, token="mine:secret", **options)} == {"made"}
        sink = InfluxSink(server.url, token="mine:secret", **options)
        frames = attempts(time.time_ns() // 1000 - MINUTE_US, rows=10, step_us=10_000)
        assert asyncio.run(written(sink, [SourcedFrame(frames[0], "mono.problem_solving", 0, 0)])) == []
        reader = BucketReader(server.url, token="mine:secret", org="any", bucket="cells")
        assert len([name for _, name, _ in reader.values() if name == "accuracy"]) == 10
        with pytest.raises(SinkError, match="401: the token is not valid") as error:
            list(setup_influx(server.url, token="mine:wrong", **options))
        assert "wrong" not in str(error.value)
    finally:
        server.stop()


def test_the_version_is_asked_of_the_server(influx_server):
    with InfluxDBClient(url=influx_server.url, token="any", org="any") as client:
        assert client.version().startswith("1.13")

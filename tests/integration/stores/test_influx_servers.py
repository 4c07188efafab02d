"""The InfluxDB sink against real servers."""

import asyncio
import os
from uuid import uuid4

import numpy as np
import pytest
from influxdb_client import InfluxDBClient

from astrocyte.agents.sinks.base import SourcedFrame, SourcedRecords
from astrocyte.agents.sinks.influx.setup import setup_influx
from astrocyte.agents.sinks.influx.sink import InfluxSink
from astrocyte.agents.sinks.testing import alert, multi_event, results
from astrocyte.schemas.frames import Frame
from tests.support.written import written


async def test_victoria_metrics_accepts_every_line(victoria):
    sink = InfluxSink(victoria.url, token="any", org="any", bucket="any", most_lines=3_000)
    frame = SourcedFrame(results(rows=10_000), "mono.problem_solving", 0, 5)
    matches = SourcedRecords("multi_events", [multi_event(number) for number in range(6)], "multi.events", 0, 20)
    alerts = SourcedRecords("alerts", [alert(number) for number in range(3)], "alerts", 2, 7)
    assert await written(sink, [frame], [matches, alerts]) == []
    assert sink.written == 10_009
    accuracies = victoria.samples("problem_solving_accuracy")
    assert len(accuracies) == 10_000
    assert sum(accuracies) == pytest.approx(5_000, rel=1e-4)
    assert victoria.samples("multi_events_integrated_value") == [25.0] * 6
    assert victoria.samples("multi_events_sources") == [2.0] * 6
    assert victoria.unreadable_lines() == 0


async def test_escaped_tags_reach_victoria_metrics_unchanged(victoria):
    kinds = ["a b", "c,d", "e=f", 'say "no"', "C:\\tmp", "é"]
    columns = {
        "timestamp": np.full(len(kinds), 1_735_689_600_000_000),
        "key": ["k"] * len(kinds),
        "cell_id": np.arange(len(kinds)),
        "problem_type": kinds,
        "accuracy": np.ones(len(kinds), np.float32),
    }
    frame = Frame.from_columns("problem_solving", "run-1", columns)
    sink = InfluxSink(victoria.url, token="any", org="any", bucket="any")
    assert await written(sink, [SourcedFrame(frame, "mono.problem_solving", 0, 0)]) == []
    assert victoria.unreadable_lines() == 0
    found = {line["metric"]["problem_type"] for line in victoria.series("problem_solving_accuracy")}
    assert found == set(kinds)


async def test_a_real_influxdb_holds_every_point_once():
    address = os.environ.get("ASTROCYTE_TEST_INFLUX")
    if not address:
        pytest.skip("ASTROCYTE_TEST_INFLUX is not set (url|token|org|bucket of an InfluxDB 2)")
    url, token, org, bucket = address.split("|")
    # The server also parses the Flux of the tasks, which no stub can check.
    await asyncio.to_thread(lambda: list(setup_influx(url, token=token, org=org, bucket=bucket, raw_days=0)))
    run = f"test-{uuid4().hex}"
    columns = {
        "timestamp": np.full(2_000, 1_735_689_600_000_000),
        "key": ["k"] * 2_000,
        "type": ["A"] * 2_000,
        "value": np.arange(2_000.0),
    }
    batch = [SourcedFrame(Frame.from_columns("axon_1", run, columns), "mono.axon_1", 0, 0)]
    sink = InfluxSink(url, token=token, org=org, bucket=bucket)
    assert await written(sink, batch, batch) == []
    assert sink.expired == 0
    query = f"""from(bucket: "{bucket}") |> range(start: 2025-01-01T00:00:00Z, stop: 2025-01-02T00:00:00Z)
        |> filter(fn: (r) => r._measurement == "axon_1" and r._field == "value" and r.simulation_id == "{run}")
        |> group() |> reduce(identity: {{n: 0, sum: 0.0}},
            fn: (r, accumulator) => ({{n: accumulator.n + 1, sum: accumulator.sum + r._value}}))"""
    with InfluxDBClient(url=url, token=token, org=org) as client:
        (record,) = [record for table in client.query_api().query(query) for record in table.records]
    assert (record["n"], record["sum"]) == (2_000, 1_999_000.0)

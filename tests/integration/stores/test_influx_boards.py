"""A real InfluxDB holds small worlds, and answers every query of the boards with the pipeline's own numbers."""

from __future__ import annotations

import asyncio
import importlib
import json
import math
import statistics
from collections import defaultdict
from itertools import product
from pathlib import Path

import pytest

from astrocyte.agents.sinks.influx.sink import InfluxSink
from astrocyte.pipeline.analysis.verify import verify
from astrocyte.pipeline.recording.reader import read_log
from astrocyte.pipeline.settings import load_settings
from astrocyte.schemas.times import iso_from_us, us_from_iso
from astrocyte.simulator.config import EPOCH_US
from tests.support.recorded_world import recorded_world
from tests.support.small_worlds import SMALL_WORLDS
from tests.support.stored import store_in

GRAFANA = Path(__file__).parents[3] / "docker/grafana"
ROW_OF = {"axons": "Axons", "cells": "Cells", "ecology": "Ecology", "kernels": "Kernels", "dna": "DNA"}
FOUND = "What was found"
INTERVAL_US = 200_000
WHOLE_US = 600_000_000
"""An interval that holds a whole world: multi events and alerts are moved apart by some milliseconds."""
RECORDS_APART_US = 10_000
MOST_IN_TABLE = 20
SPAN_US = (EPOCH_US - 60_000_000, EPOCH_US + 600_000_000)
AGGREGATES = {"mean": statistics.fmean, "sum": math.fsum, "count": len, "min": min, "max": max}
TOKEN = "any"  # the server asks for none


@pytest.fixture(scope="module")
def described():
    """The charts of each row of the board."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(GRAFANA))
        return dict(importlib.import_module("world_rows").WORLDS)


@pytest.fixture(scope="module", params=SMALL_WORLDS)
def world(request, tmp_path_factory):
    return recorded_world(request.param, tmp_path_factory.mktemp(request.param))


@pytest.fixture(scope="module")
def bucket(world, influx_server):
    """The world in a bucket of the server, as the role ``influx`` writes it."""
    name = influx_server.database(f"world_{world.name}")
    sink = InfluxSink(influx_server.url, token=TOKEN, org="astrocyte", bucket=name)
    asyncio.run(store_in(sink, "influx", world.rules, read_log(world.log)))
    return name


def asked(language, row):
    """Title and queries, with what Grafana sets, of the panels in a row of a board."""
    heading = ""
    for panel in json.loads((GRAFANA / f"boards/worlds-{language}.json").read_text())["panels"]:
        if panel["type"] == "row":
            heading = panel["title"]
        elif heading == row:
            yield panel["title"], [target["query"] for target in panel["targets"]]


def in_flux(query, bucket, interval_us):
    start, stop = map(iso_from_us, SPAN_US)
    values = {
        "v.timeRangeStart": start, "v.timeRangeStop": stop, "v.windowPeriod": f"{interval_us}us",
        "v.defaultBucket": f'"{bucket}"',
    }  # fmt: skip
    for name, value in values.items():
        query = query.replace(name, value)
    return query


def in_influxql(query, interval_us):
    start, stop = (each // 1000 for each in SPAN_US)
    return query.replace("$timeFilter", f"time >= {start}ms and time <= {stop}ms").replace(
        "$__interval", f"{interval_us}u"
    )


def expected(series, rows, interval_us):
    """Values of the chart by legend and beginning of the interval, from what the pipeline sent."""
    groups = defaultdict(list)
    for row in rows.get(series.measurement, ()):
        if all(row[name] == value for name, value in series.where.items()) and not missing(row[series.field]):
            place = series.legend.format_map(row), row["time_us"] // interval_us * interval_us
            groups[place].append(row[series.field])
    return {place: AGGREGATES[series.how](values) for place, values in groups.items()}


def missing(value):
    return value is None or (isinstance(value, float) and not math.isfinite(value))


def answer_of_flux(server, query, bucket, interval_us):
    rows = server.flux(in_flux(query, bucket, interval_us))
    return {(row["series"], us_from_iso(row["_time"])): float(row["_value"]) for row in rows}


def answer_of_influxql(server, query, bucket, interval_us, legend):
    return {
        (legend.format_map(series.get("tags", {})), time_ns // 1000): value
        for series in server.influxql(in_influxql(query, interval_us), bucket)
        for time_ns, value in series["values"]
    }


def test_every_chart_of_a_world_shows_the_values_that_the_pipeline_sent(world, bucket, influx_server, described):
    for row, interval_us in ((ROW_OF[world.name], INTERVAL_US), (FOUND, WHOLE_US)):
        charts = described[row]
        flux, influxql = dict(asked("flux", row)), dict(asked("influxql", row))
        assert [*flux] == [*influxql] == [chart.title for chart in charts]
        for chart in charts:
            if not hasattr(chart.queries[0], "how"):  # a table
                continue
            for number, series in enumerate(chart.queries):
                wanted = expected(series, world.rows, interval_us)
                assert wanted or (row == FOUND and not world.rows[series.measurement]), chart.title
                question = flux[chart.title][number], bucket, interval_us
                by_flux = answer_of_flux(influx_server, *question)
                question = influxql[chart.title][number], bucket, interval_us
                by_influxql = answer_of_influxql(influx_server, *question, series.legend)
                assert by_flux == pytest.approx(wanted, rel=1e-5, abs=1e-9), chart.title
                assert by_influxql == pytest.approx(wanted, rel=1e-5, abs=1e-9), chart.title


def test_the_table_of_alerts_shows_the_newest_first(world, bucket, influx_server):
    (flux,) = dict(asked("flux", FOUND))["Newest alerts"]
    (influxql,) = dict(asked("influxql", FOUND))["Newest alerts"]
    names = ("rule", "severity", "message")
    answers = (
        [
            (us_from_iso(row["_time"]), *(row[name] for name in names))
            for row in influx_server.flux(in_flux(flux, bucket, WHOLE_US))
        ],
        [
            (time_ns // 1000, *strings)
            for series in influx_server.influxql(in_influxql(influxql, WHOLE_US), bucket)
            for time_ns, *strings in series["values"]
        ],
    )
    wanted = sorted((*(row[name] for name in names), row["time_us"]) for row in world.rows["alerts"])
    assert len(wanted) <= MOST_IN_TABLE
    for found in answers:
        assert [time_us for time_us, *_ in found] == sorted((time_us for time_us, *_ in found), reverse=True)
        placed = sorted((*strings, time_us) for time_us, *strings in found)
        assert [each[:-1] for each in placed] == [each[:-1] for each in wanted]
        assert all(0 <= one[-1] - other[-1] < RECORDS_APART_US for one, other in zip(placed, wanted, strict=True))


def test_verify_finds_every_point_of_a_world_and_one_that_was_changed(world, bucket, influx_server):
    settings = load_settings(
        partitions=2, lateness="1s", influx_url=influx_server.url, influx_token=TOKEN, influx_bucket=bucket
    )

    def verified():
        return verify(settings, logs=[world.log], ruleset=world.rules, where=("influx",), now_us=EPOCH_US)

    done = verified()
    assert done.holds, done.differences
    (place,) = done.places
    assert place.found == place.expected > 200
    influx_server.write(bucket, f"stray,key=k value=1 {EPOCH_US * 1000}")
    done = verified()
    assert [each.kind for each in done.differences] == ["unexpected"]
    influx_server.influxql('DROP MEASUREMENT "stray"', bucket)
    assert verified().holds


def test_no_field_of_a_board_has_one_name_with_a_tag(world, bucket, influx_server):
    """One name for both makes InfluxQL and the pivots of Flux take either."""
    del world
    tags, fields = (
        {series["name"]: {row[0] for row in series["values"]} for series in influx_server.influxql(query, bucket)}
        for query in ("SHOW TAG KEYS", "SHOW FIELD KEYS")
    )
    assert {name: both for name in fields if (both := fields[name] & tags.get(name, set()))} == {}


@pytest.mark.parametrize(("row", "language"), list(product((*ROW_OF.values(), FOUND), ("flux", "influxql"))))
def test_an_empty_bucket_is_an_empty_board_and_no_error(row, language, influx_server):
    bucket = influx_server.database("empty")
    for _, queries in asked(language, row):
        for query in queries:
            if language == "flux":
                assert influx_server.flux(in_flux(query, bucket, INTERVAL_US)) == []
            else:
                assert influx_server.influxql(in_influxql(query, INTERVAL_US), bucket) == []

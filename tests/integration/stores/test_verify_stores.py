"""``verify`` over PostgreSQL and over an InfluxDB server."""

from __future__ import annotations

import asyncio

import psycopg
import pytest

from astrocyte.agents.loading import load_rules
from astrocyte.agents.sinks.base import SinkError
from astrocyte.agents.sinks.influx.sink import InfluxSink
from astrocyte.pipeline.analysis.verify import verify
from astrocyte.pipeline.recording.reader import read_log
from astrocyte.pipeline.settings import load_settings
from tests.support.influx_stub import influx_stub
from tests.support.logs import T0_US, write_log
from tests.support.pair_log import PAIR, in_frames, spikes, with_outputs
from tests.support.stored import store_in, store_in_sql


@pytest.fixture
def rules():
    return load_rules(PAIR)


@pytest.fixture
def log(tmp_path, rules):
    plain = write_log(tmp_path / "plain.jsonl.zst", in_frames(spikes(3)))
    return with_outputs(rules, plain, tmp_path / "log.jsonl.zst")


def verified(log, rules, where, **settings):
    chosen = load_settings(partitions=2, lateness="1s", **settings)
    return verify(chosen, logs=[log], ruleset=rules, where=(where,), now_us=T0_US)


def counts(done):
    return {each.name: (each.expected, each.found, each.lost, each.wrong, each.unexpected) for each in done.places}


def test_rows_in_postgresql_are_equal_and_a_changed_one_is_found(log, rules, postgres):
    store_in_sql(postgres, rules, read_log(log))
    done = verified(log, rules, "sql", sql_url=postgres)
    assert done.holds, done.differences
    assert counts(done)["sql multi_events"] == (24, 24, 0, 0, 0)
    with psycopg.connect(postgres.replace("+psycopg", ""), autocommit=True) as connection:
        connection.execute("UPDATE spikes SET value = 99.5 WHERE axon = 'axon_2' AND id = 3")
        connection.execute("DELETE FROM alerts WHERE alert_id = (SELECT max(alert_id) FROM alerts)")
    done = verified(log, rules, "sql", sql_url=postgres)
    assert counts(done)["sql spikes"] == (48, 48, 0, 1, 0)
    assert counts(done)["sql alerts"] == (24, 23, 1, 0, 0)


async def test_points_of_a_server_are_equal_and_changed_ones_are_found(log, rules):
    async with influx_stub() as stub:
        sink = InfluxSink(stub.url, token=stub.token, org=stub.org, bucket=stub.bucket)
        await store_in(sink, "influx", rules, read_log(log))

        async def compared():
            address = {"influx_url": stub.url, "influx_token": stub.token}
            return await asyncio.to_thread(lambda: verified(log, rules, "influx", **address))

        done = await compared()
        assert done.holds, done.differences
        (place,) = done.places
        assert place.found == sum(len(fields) for fields in stub.points.values()) > 200
        spikes_of = [fields for (measurement, _, _), fields in stub.points.items() if measurement == "axon_1"]
        spikes_of[0]["value"] = 99.5
        del spikes_of[1]["value"]
        spikes_of[2]["more"] = "x"
        (place,) = (await compared()).places
        assert (place.wrong, place.lost, place.unexpected) == (1, 1, 1)


async def test_points_of_a_server_are_in_no_file_of_the_folder_of_points(log, rules, tmp_path):
    (tmp_path / "points-000001.lp").write_text("spike,type=A value=1 1\n")
    async with influx_stub() as stub:
        sink = InfluxSink(stub.url, token=stub.token, org=stub.org, bucket=stub.bucket)
        await store_in(sink, "influx", rules, read_log(log))
        next(iter(stub.points.values()))["more"] = "x"
        address = {"influx_url": stub.url, "influx_token": stub.token, "influx_dir": tmp_path}
        done = await asyncio.to_thread(lambda: verified(log, rules, "influx", **address))
        assert [(each.kind, each.at) for each in done.differences] == [("unexpected", "")]


async def test_a_server_that_refuses_the_token_is_an_error_without_it(log, rules):
    async with influx_stub() as stub:
        address = {"influx_url": stub.url, "influx_token": "another-token"}
        with pytest.raises(SinkError, match="401") as error:
            await asyncio.to_thread(lambda: verified(log, rules, "influx", **address))
        assert "another-token" not in str(error.value)

"""``astrocyte influx setup`` against a stub of the API of buckets and tasks."""

import asyncio
import re

import orjson
import pytest
from typer.testing import CliRunner

from astrocyte.agents.sinks.base import SinkError
from astrocyte.agents.sinks.influx.setup import TASKS, setup_influx, task_flux
from astrocyte.pipeline.cli.app import app
from astrocyte.pipeline.topology.rule_files import read_rule_files
from tests.support.influx_stub import TOKEN, influx_stub

DAY_S = 86_400


async def set_up(stub, **options):
    options = {"token": TOKEN, "org": "astrocyte", "bucket": "astrocyte", "timeout_s": 5.0} | options
    url = options.pop("url", stub.url)
    return await asyncio.to_thread(lambda: [(each.name, each.done) for each in setup_influx(url, **options)])


async def test_buckets_and_tasks_are_made_once_and_found_again():
    async with influx_stub() as stub:
        first = await set_up(stub)
        changes = list(stub.changes)
        second = await set_up(stub)
        assert stub.changes == changes, "the second run changes nothing"
    names = ["astrocyte", "astrocyte_downsampled", *TASKS]
    assert first == [(name, "made") for name in names]
    assert second == [(name, "as it should be") for name in names]
    assert stub.buckets["astrocyte"]["retentionRules"] == [{"type": "expire", "everySeconds": 30 * DAY_S}]
    assert stub.buckets["astrocyte_downsampled"]["retentionRules"] == [{"type": "expire", "everySeconds": 0}]
    assert {task["status"] for task in stub.tasks.values()} == {"active"}


async def test_only_differing_settings_are_updated():
    async with influx_stub() as stub:
        await set_up(stub)
        stub.changes.clear()
        stub.tasks["astrocyte_diversity"]["flux"] += "\n// mine"
        stub.tasks["astrocyte_population_stats"]["status"] = "inactive"
        done = dict(await set_up(stub, raw_days=0))
        assert stub.changes == [
            "change bucket astrocyte",
            "change task astrocyte_population_stats",
            "change task astrocyte_diversity",
        ]
    assert done["astrocyte"] == "retention changed"
    assert stub.buckets["astrocyte"]["retentionRules"] == [{"type": "expire", "everySeconds": 0}]
    assert stub.tasks["astrocyte_diversity"]["flux"] == task_flux("astrocyte_diversity", "astrocyte", "astrocyte")
    assert stub.tasks["astrocyte_population_stats"]["status"] == "active"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"token": "wrong"}, "answered 401: the token is not valid; set ASTROCYTE_INFLUX_TOKEN"),
        ({"org": "other"}, "answered 404: there is no organisation 'other'"),
        ({"url": "http://127.0.0.1:9"}, "cannot be reached"),
        ({"url": "127.0.0.1:9"}, "InfluxDB address '127.0.0.1:9'; expected"),
    ],
)
async def test_errors_are_one_clear_line(options, said):
    async with influx_stub() as stub:
        with pytest.raises(SinkError, match=said) as caught:
            await set_up(stub, **options)
    assert stub.changes == []
    assert "\n" not in str(caught.value)
    assert "wrong" not in str(caught.value)


def balanced(flux):
    """Whether brackets of a Flux script close in their order, outside of string literals."""
    open_ones = []
    for char in re.sub(r'"(\\.|[^"\\])*"', '""', flux):
        if char in "([{":
            open_ones.append(char)
        elif char in ")]}" and (not open_ones or "([{".index(open_ones.pop()) != ")]}".index(char)):
            return False
    return not open_ones


async def test_the_command_prints_one_json_object_per_bucket_and_task(monkeypatch):
    async with influx_stub() as stub:
        monkeypatch.setenv("ASTROCYTE_INFLUX_URL", stub.url)
        monkeypatch.setenv("ASTROCYTE_INFLUX_TOKEN", TOKEN)
        ran = await asyncio.to_thread(CliRunner().invoke, app, ["influx", "setup", "--raw-days", "7", "--json"])
    assert ran.exit_code == 0, ran.output
    assert [orjson.loads(line)["name"] for line in ran.stdout.splitlines()] == [*stub.buckets, *TASKS]
    assert stub.buckets["astrocyte"]["retentionRules"][0]["everySeconds"] == 7 * DAY_S


def test_the_command_says_what_to_set_where_no_influxdb_is(monkeypatch):
    monkeypatch.delenv("ASTROCYTE_INFLUX_URL", raising=False)
    ran = CliRunner().invoke(app, ["influx", "setup"])
    assert ran.exit_code != 0
    assert "set ASTROCYTE_INFLUX_URL and ASTROCYTE_INFLUX_TOKEN" in f"{ran.output} {ran.exception}"


@pytest.mark.parametrize("name", TASKS)
def test_a_task_is_named_reads_the_raw_bucket_and_writes_the_other(name):
    flux = task_flux(name, "raw", "the org")
    assert balanced(flux)
    assert re.search(rf'option task = {{name: "{name}", every: [15]m, offset: 10s}}', flux)
    assert 'from(bucket: "raw")' in flux
    assert 'to(bucket: "raw_downsampled", org: "the org")' in flux
    assert flux.count("range(start: -task.every)") == flux.count("from(bucket")
    for imported in re.findall(r"(\w+)\.\w+\(", flux):
        assert f'import "{imported}"' in flux


def test_tasks_compute_the_fields_of_the_shipped_windows_at_their_pace():
    windows = {window.name: window for window in read_rule_files(["cells"]).windows}
    for task, window, every in (
        ("astrocyte_population_stats", "population_stats", "1m"),
        ("astrocyte_diversity", "diversity_metrics", "5m"),
    ):
        flux = task_flux(task, "b", "o")
        assert f"every: {every}" in flux
        assert set(re.findall(r'_field: "(\w+)"', flux)) == set(windows[window].select)
        assert f'_measurement: "{window}"' in flux


def test_names_cannot_break_out_of_their_literals():
    flux = task_flux("astrocyte_diversity", 'a"b\\${c}', "o")
    assert 'from(bucket: "a\\"b\\\\\\${c}")' in flux
    assert balanced(flux)

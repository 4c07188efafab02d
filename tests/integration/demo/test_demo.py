"""The main job as a user runs it: the demo, what it leaves, and the commands that it prints."""

import asyncio
import json
import os
import re
import shlex
import signal
import sqlite3
import subprocess
import sys
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from types import MappingProxyType

import pytest

from astrocyte.pipeline.broker import BrokerProcess
from astrocyte.pipeline.kafka.client import consumer_client, topic_partitions
from astrocyte.pipeline.roles.worker import RoleProcesses
from astrocyte.pipeline.settings import load_settings
from tests.support.broker import kcat
from tests.support.brokers import read_all
from tests.support.kafka import free_port
from tests.support.kernels import COMPILING, some_kernels
from tests.support.waiting import wait_until

SECONDS = "4"


def astrocyte(
    *arguments: str, cwd: Path, status: int = 0, environment: Mapping[str, str] = MappingProxyType({})
) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from astrocyte.pipeline.cli.app import main; main()", *arguments]
    done = subprocess.run(
        command, check=False, cwd=cwd, env={**os.environ, **environment}, capture_output=True, text=True, timeout=240
    )
    assert done.returncode == status, done.stderr
    return done


@contextmanager
def serving(*arguments: str, cwd: Path) -> Iterator[str]:
    """A command that serves a page until Ctrl-C, with its address; no browser is opened."""
    command = [sys.executable, "-c", "from astrocyte.pipeline.cli.app import main; main()", *arguments]
    log = cwd / "page.log"
    with log.open("wb") as out:
        process = subprocess.Popen(command, cwd=cwd, env={**os.environ, "BROWSER": "true"}, stdout=out, stderr=out)
    try:
        found = wait_until(lambda: re.search(r"page ready at (\S+)", log.read_text()), 120, log.read_text)
        yield found[1]
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0, log.read_text()
    finally:
        process.kill()
        process.wait()


def demo(folder: Path, *more: str, **options: Mapping[str, str]) -> tuple[dict[str, object], str]:
    """Summary of a demo, and what it said."""
    arguments = ("demo", "--seconds", SECONDS, "--seed", "7", "--size", "256", "--data", "data", "--json", *more)
    done = astrocyte(*arguments, cwd=folder, **options)
    (line,) = done.stdout.splitlines()
    return json.loads(line), done.stderr


def multi_event_ids(database: Path) -> set[str]:
    with closing(sqlite3.connect(database)) as connection:
        assert connection.execute("PRAGMA foreign_key_check").fetchall() == []
        return {row[0] for row in connection.execute("SELECT event_id FROM multi_events")}


@pytest.fixture(scope="module")
def run_once(tmp_path_factory) -> tuple[Path, dict[str, object], str]:
    """A demo that finds only some of the compiled operators: its folder, summary and messages."""
    folder = tmp_path_factory.mktemp("demo")
    return folder, *demo(folder, environment=some_kernels(folder / "kernels"))


@pytest.fixture
def first(run_once) -> tuple[Path, dict[str, object]]:
    """Folder and summary."""
    return run_once[:2]


def test_the_demo_reports_that_it_compiles_the_operators_that_are_missing(run_once):
    folder, _, messages = run_once
    assert messages.count(COMPILING) == 1
    assert COMPILING not in (folder / "data/logs/worker.log").read_text()


def test_the_demo_loses_nothing_and_reports_what_it_stored(first):
    _, summary = first
    names = {
        "mono_events",
        "multi_events",
        "alerts",
        "late",
        "dead_letters",
        "sampled",
        "sql_rows",
        "influx_points",
        "lost",
        "seconds",
        "events_per_s",
    }
    assert names <= summary.keys()
    assert (summary["lost"], summary["late"], summary["dead_letters"]) == (0, 0, 0)
    assert summary["mono_events"] > 1000
    assert 0 < summary["events_per_s"] < summary["mono_events"] / float(SECONDS) * 1.5
    assert summary["multi_events"] > 100
    assert summary["influx_points"] > summary["mono_events"]
    (score,) = summary["scores"]
    assert score["rule"] == "strong_A_and_B_within_2s"
    assert min(score["recall"], score["precision"]) >= 0.95


def test_the_same_seed_gives_the_same_ids_with_other_partitions_and_shuffled_arrival(first, tmp_path):
    folder, before = first
    after, _ = demo(tmp_path, "--partitions", "3", "--shuffle")
    assert after["lost"] == after["late"] == 0
    assert after["mono_events"] == before["mono_events"]
    assert multi_event_ids(tmp_path / "data/astrocyte.db") == multi_event_ids(folder / "data/astrocyte.db")


def test_rules_over_the_recorded_log_find_the_same_multi_events_without_a_broker(first):
    folder, _ = first
    done = astrocyte("match", "axons", "data/events.jsonl.zst", cwd=folder)
    found = {json.loads(line)["event_id"] for line in done.stdout.splitlines()}
    assert found == multi_event_ids(folder / "data/astrocyte.db")


def test_the_printed_commands_work_as_printed(first):
    from astrocyte.pipeline.demo.view import Summary

    folder, _ = first
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        lines = Summary.gather(
            data=Path("data"), database="sqlite:///data/astrocyte.db", emitted=0,
            counts={"processed": 0, "late": 0, "dead": 0, "sampled": 0}, seconds=0.0, sent_s=0.0, run="",
            rules=(Path("axons"),), world={},
        ).commands()  # fmt: skip
    (page,) = [line for line in lines if "astrocyte page" in line]
    tap, explain, verify = (astrocyte(*shlex.split(line)[1:], cwd=folder) for line in lines if line != page)
    with (
        serving(*shlex.split(page)[1:], "--port", str(free_port()), cwd=folder) as address,
        urllib.request.urlopen(address, timeout=60) as answer,
    ):
        assert "Astrocyte" in answer.read().decode()
    assert len(tap.stdout.splitlines()) == 5
    assert "mono.axon_1[" in explain.stdout
    assert "\nequal: lost = 0, twice = 0, wrong = 0, unexpected = 0, events missing = 0" in verify.stdout


def test_a_demo_of_which_events_were_left_out_is_verified_as_it_says(tmp_path):
    policy = '{"policy": "sample", "share": 0.5, "above": 2, "below": 1}'
    summary, _ = demo(tmp_path, environment={"ASTROCYTE_OVERLOAD": policy})
    assert summary["sampled"] > 0
    log, stores = "data/events.jsonl.zst", ("--db", "sqlite:///data/astrocyte.db", "--influx-dir", "data/influx")
    done = astrocyte("verify", log, "--rules", "axons", *stores, cwd=tmp_path)
    assert f" + {summary['sampled']:,} sampled, 0 missing" in done.stdout
    assert "\nequal: lost = 0, twice = 0, wrong = 0, unexpected = 0, events missing = 0" in done.stdout
    matched = astrocyte("match", "axons", log, cwd=tmp_path)
    assert {json.loads(line)["event_id"] for line in matched.stdout.splitlines()} == multi_event_ids(
        tmp_path / "data/astrocyte.db"
    )


def test_a_replay_into_an_empty_broker_gives_the_same_ids(first, tmp_path):
    folder, _ = first
    expected = multi_event_ids(folder / "data/astrocyte.db")
    with BrokerProcess(tmp_path / "broker", default_partitions=4) as broker:
        log = str(folder / "data/events.jsonl.zst")
        astrocyte("replay", log, "--rate", "max", "-b", broker.address, cwd=tmp_path)
        settings = load_settings(broker=broker.address, rules=("axons",), roles=("correlate",))
        with (tmp_path / "worker.log").open("w") as output:
            workers = RoleProcesses(settings, ("correlate",), output=output)
            workers.start()
            try:

                def found() -> set[str]:
                    records = read_all(broker.address, "multi.events") if known(broker.address) else {}
                    return {json.loads(record.value)["event_id"] for part in records.values() for record in part}

                wait_until(lambda: len(found()) >= len(expected), 90, lambda: f"{len(found())} of {len(expected)}")
                assert found() == expected
            finally:
                workers.stop()


def test_kcat_reads_every_topic_that_a_demo_leaves(first):
    folder, _ = first
    with BrokerProcess(folder / "data/broker") as broker:
        topics = sorted(asyncio.run(topic_partitions(broker.address)))
        assert {"mono.axon_1", "multi.events", "alerts", "late"} <= set(topics)
        for topic in topics:
            command = [kcat(), "-b", broker.address, "-C", "-t", topic, "-o", "beginning", "-e", "-q", "-f", "%p %o\\n"]
            done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60)
            found = {tuple(map(int, line.split())) for line in done.stdout.splitlines()}
            parts = read_all(broker.address, topic)
            assert found == {(place, record.offset) for place, part in parts.items() for record in part}, topic


def known(address: str) -> bool:
    async def ask() -> bool:
        async with consumer_client(address) as consumer:
            return "multi.events" in await consumer.topics()

    return asyncio.run(ask())


def test_a_demo_says_at_once_what_it_does_and_counts_only_once_events_flow(tmp_path):
    done = astrocyte("demo", "--seconds", "2", "--size", "64", cwd=tmp_path)
    lines = [line for line in done.stderr.splitlines() if "compil" not in line.partition(":")[0]]
    assert lines[0].startswith("demo of the world axons: broker, workers, stores and a page on this machine, for 2 s")
    assert lines[1:4] == [
        "axons: loading the simulator ...", "axons: loading the rules ...", "axons: starting the broker ..."
    ]  # fmt: skip
    assert lines[4].startswith("look at the worlds, the findings and the pipeline while this runs: http://127.0.0.1:")
    counts = [line for line in lines if " events sent, " in line]
    assert counts
    assert not any(" 0 events sent" in line for line in counts)
    assert "in each second" in done.stdout
    assert "\x1b" not in done.stdout + done.stderr


def test_a_folder_with_other_files_is_not_changed(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "thesis.txt").write_text("years of work")
    done = astrocyte("demo", "--data", "data", cwd=tmp_path, status=2)
    assert "contains files that no demo created" in done.stderr
    assert (tmp_path / "data" / "thesis.txt").read_text() == "years of work"

"""docs/extending: every program on the pages runs, prints the documented output, and passes the page's test."""

import asyncio
import re
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import orjson
import pytest
import yaml

import astrocyte
from astrocyte.pipeline.kafka.client import ensure_topics, producer_client
from astrocyte.pipeline.roles.worker import RoleProcesses
from astrocyte.pipeline.settings import Settings
from astrocyte.pipeline.topology.topics import make_topics
from astrocyte.schemas.topics import ALERTS, DEAD_LETTERS, MULTI_EVENTS
from tests.support.brokers import own_embedded, read_all  # noqa: F401  fixture
from tests.support.worker import wait_until

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "docs" / "extending"
PAGES = sorted(path.stem for path in FOLDER.glob("*.md"))
BLOCK = re.compile(r"```(\w*)\n(.*?)```", re.DOTALL)


def blocks(page: str) -> list[tuple[str, str]]:
    return [(kind, text) for kind, text in BLOCK.findall((FOLDER / f"{page}.md").read_text())]


def programs(page: str) -> dict[str, str]:
    """Source by file name, which is the first line's comment."""
    return {text.split("\n", 1)[0].removeprefix("# "): text for kind, text in blocks(page) if kind == "python"}


def written(page: str, folder: Path) -> dict[str, str]:
    found = programs(page)
    for name, text in found.items():
        (folder / name).write_text(text)
    return found


def run(*arguments: str, cwd: Path) -> str:
    done = subprocess.run([sys.executable, *arguments], cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


def test_every_extension_point_has_a_page_and_the_index_links_to_it():
    extensions = {"stream", "validator", "rule", "sink", "table", "scenario", "controller", "agent", "study"}
    assert set(PAGES) == {"index", "publish", "consume", "experiment", *extensions}
    index = (FOLDER / "index.md").read_text()
    assert all(f"({page}.md)" in index for page in PAGES if page != "index")


@pytest.mark.parametrize("page", [page for page in PAGES if page != "index"])
def test_a_program_is_complete_and_has_10_to_40_lines(page, tmp_path):
    program, *_ = written(page, tmp_path).values()
    assert 10 <= len(program.strip().splitlines()) <= 40
    printed = [text for kind, text in blocks(page) if kind == "text"]
    (name, *_) = programs(page)
    assert run(name, cwd=tmp_path) == "".join(printed)


@pytest.mark.parametrize("page", [page for page in PAGES if any(name.startswith("test_") for name in programs(page))])
def test_the_test_of_a_page_passes(page, tmp_path):
    names = written(page, tmp_path)
    (test,) = (name for name in names if name.startswith("test_"))
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    assert "1 passed" in run("-m", "pytest", "-q", "-p", "no:cacheprovider", test, cwd=tmp_path)


def test_the_sink_that_refuses_rows_returns_them_with_their_place(tmp_path):
    written("sink", tmp_path)
    program = """
import asyncio
from astrocyte.sink import SourcedRecords
from short_alerts import write
item = SourcedRecords("alerts", [{"message": "short", "key": "a"}, {"message": "x" * 81, "key": "b"}], "alerts", 2, 40)
for each in asyncio.run(write(None, [item])):
    print(each.topic, each.partition, each.offset, each.row, each.reason, each.key)
"""
    shown = run("-c", program, cwd=tmp_path)
    assert shown == "short\nalerts 2 41 None a message of 81 characters; expected 80 at most b'b'\n"


def test_the_scenario_with_anomalies_keeps_the_contract_and_plants_them(tmp_path):
    written("scenario", tmp_path)
    program = """
from astrocyte.testing import check_scenario
from tired import Tired
print(check_scenario(Tired(), ticks=40, plants=[{"kind": "pause", "at_tick": 5}]))
"""
    assert run("-c", program, cwd=tmp_path) == "[]\n"


def test_the_documents_name_no_module_but_those_that_may_be_imported():
    """The index lists them: a program that imports another one breaks without notice."""
    index = (FOLDER / "index.md").read_text()
    allowed = {"astrocyte.pipeline.app", "astrocyte.schemas.tables"}
    assert all(f"`{module}`" in index for module in allowed)
    pages = [ROOT / "README.md", *FOLDER.parent.rglob("*.md")]
    inner = re.compile(r"(?<!-m )(?<![\w.])astrocyte\.(?:agents|pipeline|schemas|simulator)(?:\.\w+)*")
    assert {module for page in pages for module in inner.findall(page.read_text())} == allowed


@pytest.mark.parametrize("page", PAGES)
def test_links_of_the_pages_point_to_files(page):
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", (FOLDER / f"{page}.md").read_text()):
        assert (FOLDER / target).exists(), f"{page}.md links to {target}"


def test_a_scenario_of_a_plugin_is_known_by_its_name(tmp_path, monkeypatch):
    written("scenario", tmp_path)
    monkeypatch.setenv("ASTROCYTE_PLUGINS", "walkers")
    command = "from astrocyte.pipeline.cli.app import main; main()"
    run("-c", command, "simulate", "walkers", "--ticks", "50", "--out", "walk.jsonl.zst", "--json", cwd=tmp_path)
    assert (tmp_path / "walk.jsonl.zst").stat().st_size > 1000


RULES = """
rules:
  - name: hot
    seq: [{as: now, stream: room_climate, where: "value > 30"}]
    alert: {severity: critical, message: "{now.room} has {now.value} degrees"}
"""


@pytest.fixture
def worker(own_embedded, tmp_path, monkeypatch) -> Iterator[Settings]:  # noqa: F811  fixture
    """Workers of the roles correlate, sql, alert_log and pager, with the pages' programs as plugins."""
    for page in ("stream", "table", "sink", "agent"):
        written(page, tmp_path)
    (tmp_path / "rules.yaml").write_text(RULES)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ASTROCYTE_ALERT_LOG_PATH", str(tmp_path / "alerts.txt"))
    roles = ("correlate", "sql", "alert_log", "pager")
    # Not by load_settings, which would import the plugins into the process of the tests.
    settings = Settings(
        broker=own_embedded.address, group="own", partitions=2, rules=("rules.yaml",),
        plugins=("rooms", "room_table", "alert_log", "pager"),
        roles=roles, idle_timeout="1s", snapshot_interval="200ms",
        sql_url=f"sqlite:///{tmp_path / 'own.db'}",
    )  # fmt: skip
    asyncio.run(make_topics(settings, ["mono.room_climate", MULTI_EVENTS, ALERTS, DEAD_LETTERS, "pages"]))
    with (tmp_path / "worker.log").open("w") as log:
        processes = RoleProcesses(settings, roles, output=log)
        processes.start()
        try:
            yield settings
        except BaseException:
            sys.stderr.write((tmp_path / "worker.log").read_text(errors="replace")[-4000:])
            raise
        finally:
            processes.stop()


async def send_csv(broker: str) -> None:
    async with producer_client(broker) as producer:
        for room, value in (("attic", "31.5"), ("cellar", "12.0"), ("attic", "much")):
            message = f"2025-01-01T00:00:00Z,{room},{value}".encode()
            headers = [("content-type", b"text/csv")]
            await producer.send_and_wait("mono.room_climate", message, key=room.encode(), headers=headers)


def stored(database: Path) -> list[tuple[str, float]]:
    with closing(sqlite3.connect(database)) as connection:
        try:
            return connection.execute("SELECT room, value FROM room_climate ORDER BY room").fetchall()
        except sqlite3.OperationalError:
            return []  # the table is not there yet


def test_own_stream_table_sink_and_agent_run_in_real_workers(worker, tmp_path):
    asyncio.run(send_csv(worker.broker))
    alerts = tmp_path / "alerts.txt"

    def log() -> str:
        return (tmp_path / "worker.log").read_text(errors="replace")[-4000:]

    def bodies(topic: str) -> list[dict]:
        return [orjson.loads(record.value) for records in read_all(worker.broker, topic).values() for record in records]

    wait_until(lambda: alerts.exists() and alerts.read_text(), 90, log)
    wait_until(lambda: bodies("pages"), 60, log)
    (line,) = alerts.read_text().splitlines()
    assert line.endswith(" critical attic has 31.5 degrees")
    (page,) = bodies("pages")
    assert page == {"id": line.split()[0], "text": "attic has 31.5 degrees"}
    wait_until(lambda: len(stored(tmp_path / "own.db")) == 2, 60, log)
    assert stored(tmp_path / "own.db") == [("attic", 31.5), ("cellar", 12.0)]
    (letter,) = bodies(DEAD_LETTERS)
    assert letter["reason"] == "decoder 'climate_csv' failed: ValueError: could not convert string to float: 'much'"


def test_the_table_of_the_page_is_enough_for_the_sql_role_to_store_its_stream(own_embedded, tmp_path, monkeypatch):  # noqa: F811
    written("table", tmp_path)
    (tmp_path / "hot.yaml").write_text(RULES)
    monkeypatch.chdir(tmp_path)
    settings = Settings(
        broker=own_embedded.address, group="table", partitions=2, rules=("hot.yaml",), plugins=("room_table",),
        roles=("sql",), sql_url=f"sqlite:///{tmp_path / 'own.db'}",
    )  # fmt: skip
    asyncio.run(send_json(settings.broker))
    with (tmp_path / "worker.log").open("w") as log:
        processes = RoleProcesses(settings, ("sql",), output=log)
        processes.start()
        try:
            stored_all = [("attic", 31.5), ("cellar", 12.0)]
            wait_until(lambda: stored(tmp_path / "own.db") == stored_all, 60, (tmp_path / "worker.log").read_text)
        finally:
            processes.stop()


async def send_json(broker: str) -> None:
    await ensure_topics(broker, {"mono.room_climate": 2})
    async with producer_client(broker) as producer:
        for room, value in (("attic", 31.5), ("cellar", 12.0)):
            event = {"timestamp": "2025-01-01T00:00:00Z", "room": room, "value": value}
            await producer.send_and_wait("mono.room_climate", orjson.dumps(event), key=room.encode())


def test_the_programs_that_publish_and_handle_events_meet_on_a_broker(own_embedded, tmp_path, monkeypatch):  # noqa: F811
    written("publish", tmp_path)
    written("consume", tmp_path)
    monkeypatch.setenv("ASTROCYTE_BROKER", own_embedded.address)
    run("snapshots.py", cwd=tmp_path)
    (record,) = [each for part in read_all(own_embedded.address, "mono.config_sizes").values() for each in part]
    assert orjson.loads(record.value)["value"] == 2
    with subprocess.Popen(
        [sys.executable, "dashboard.py"], cwd=tmp_path, stdout=subprocess.PIPE, text=True
    ) as dashboard:
        assert dashboard.stdout is not None
        lines: list[str] = []
        reader = threading.Thread(target=lambda: lines.extend(dashboard.stdout or ()))
        reader.start()
        try:

            def seen() -> bool:
                run("snapshots.py", cwd=tmp_path)  # the dashboard's group begins at the end of the topics
                return any(line.startswith("dna.snapshot_created coder {") for line in lines)

            wait_until(seen, 60)
        finally:
            dashboard.terminate()
            reader.join()
    assert dashboard.returncode == 0


@pytest.mark.time_limit(180, "starts a program twice")
def test_the_evaluation_of_snapshots_scores_each_once_also_when_it_is_killed(own_embedded, tmp_path, monkeypatch):  # noqa: F811
    monkeypatch.setenv("ASTROCYTE_BROKER", own_embedded.address)
    written("consume", tmp_path)

    def create(*snapshots: int) -> None:
        with astrocyte.connect(own_embedded.address) as publisher:
            for number in snapshots:
                publisher.dna.snapshot_created(
                    snapshot_id=number, agent_id="coder", version=number, source="manual", dna_size=3, traits_count=2,
                    created_at=1.0,
                )  # fmt: skip
            assert publisher.flush(30)

    def scored() -> list[int]:
        parts = read_all(own_embedded.address, "mono.dna.karma_updated").values()
        return sorted(orjson.loads(each.value)["payload"]["snapshot_id"] for part in parts for each in part)

    create(1, 2, 3)
    for wanted in (3, 4):
        with subprocess.Popen([sys.executable, "karma.py"], cwd=tmp_path) as service:
            try:
                wait_until(lambda wanted=wanted: len(scored()) >= wanted, 60)
            finally:
                service.kill()
        create(4)
    assert scored() == [1, 2, 3, 4]


def test_the_sweep_of_the_page_is_one():
    from astrocyte.pipeline.experiments.sweep import Sweep

    (text,) = [text for kind, text in blocks("experiment") if kind == "yaml"]
    assert Sweep(**yaml.safe_load(text)).count == 15

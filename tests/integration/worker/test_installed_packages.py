"""Installed packages: their streams are known when topics are planned, and a broken one costs nothing else."""

import subprocess
import sys

import numpy as np
import pytest
from sqlalchemy import BigInteger, Column, MetaData, Table

from astrocyte import Frame, encode_frame
from astrocyte.agents.sinks.registry import SINKS
from astrocyte.agents.sinks.sql.targets import TABLES, register_table
from astrocyte.pipeline.kafka.record import ConsumedRecord
from astrocyte.pipeline.recording.format import LogHeader
from astrocyte.pipeline.recording.writer import LogWriter
from astrocyte.pipeline.settings import Settings
from astrocyte.pipeline.topology.topics import sink_topics, unread_streams
from astrocyte.schemas.contract import Contracts

PACKAGE = """
from astrocyte import CATALOG, EventType, register_decoder

HIVES = EventType("hives", key="hive", fields={"hive": "string", "weight": "float64"})


@register_decoder("hive_book")
def book(record):
    hive, weight = record.value.decode().split()
    return {"timestamp": 1_700_000_000, "hive": hive, "weight": float(weight)}


CATALOG.register(EventType("books", key="hive", fields={"hive": "string", "weight": "float64"}))
"""
RULES = """
streams: [{name: books, decoder: hive_book}]
rules:
  - {name: heavy, by: hive, seq: [{as: a, stream: hives, where: "weight > 30"}]}
  - {name: light, by: hive, seq: [{as: a, stream: books, where: "weight < 30"}]}
"""


def install(folder, text: str, **modules: str) -> None:
    """A package in ``folder`` with these entry points."""
    (folder / "hive-1.0.dist-info").mkdir()
    (folder / "hive-1.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: hive\nVersion: 1.0\n")
    (folder / "hive-1.0.dist-info" / "entry_points.txt").write_text(text)
    for name, source in modules.items():
        (folder / f"{name}.py").write_text(source)


def run(folder, *arguments: str):
    command = [sys.executable, "-c", "from astrocyte.pipeline.cli.app import main; main()", *arguments]
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(folder), "PYTHONPATH": str(folder)}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=60)


def test_the_streams_of_a_package_are_known_when_topics_are_planned(tmp_path):
    entries = "[astrocyte.streams]\nhives = hivepkg:HIVES\n\n[astrocyte.decoders]\nhive_book = hivepkg:book\n"
    install(tmp_path, entries, hivepkg=PACKAGE)
    (tmp_path / "rules.yaml").write_text(RULES)
    done = run(tmp_path, "rules", "check", "rules.yaml")
    assert (done.returncode, done.stderr) == (0, "")
    assert "repartition" not in done.stdout


def test_a_decoder_that_cannot_be_imported_is_named_in_one_line_and_frames_are_read(tmp_path):
    entries = "[astrocyte.decoders]\nbroken = hivepkg:book\n\n[astrocyte.tables]\nhives = hivepkg:table\n"
    install(tmp_path, entries, hivepkg="raise SystemExit(5)")
    frame = Frame.from_columns("hives", "run", {"timestamp": np.array([1_700_000_000_000_000]), "key": ["a"]})
    with LogWriter(tmp_path / "log.jsonl", LogHeader({"mono.hives": 1})) as log:
        log.write(ConsumedRecord("mono.hives", 0, 0, 1_700_000_000_000, None, encode_frame(frame)))
    (tmp_path / "rules.yaml").write_text("rules: [{name: any_hive, seq: [{as: a, stream: hives}]}]")
    done = run(tmp_path, "match", "rules.yaml", "log.jsonl")
    assert done.returncode == 0
    named = [line for line in done.stderr.splitlines() if "entry point" in line]
    assert len(named) == 2  # the decoder and the table
    assert "entry point 'broken' in 'astrocyte.decoders' of hive 1.0: importing 'hivepkg' failed: SystemExit: 5" in (
        "\n".join(named)
    )
    assert "any_hive" in done.stdout


@pytest.fixture
def table():
    register_table("test_honey", Table("test_honey", MetaData(), Column("id", BigInteger, primary_key=True)))
    yield
    # Another test's database must not get this table too.
    TABLES._registered.pop("test_honey")
    TABLES._loaded.pop("test_honey")


def test_the_sql_role_reads_the_streams_of_own_tables_or_says_that_it_does_not(table):
    kind = SINKS.get("sql")
    assert "mono.test_honey" in sink_topics(Settings(), kind, Contracts(), ())
    assert "mono.test_honey" not in sink_topics(Settings(), SINKS.get("influx"), Contracts(), ())
    assert unread_streams(Settings(), kind) == []
    assert unread_streams(Settings(streams=("axon_1",)), kind) == ["test_honey"]

"""The lineage of a multi event from a log, a broker and a database: the same tree, down to the source events."""

from __future__ import annotations

import asyncio
import json

import pytest
import typer
from sqlalchemy import create_engine, insert
from typer.testing import CliRunner

from astrocyte.pipeline.analysis.explain import NoSuchEvent, explain, render
from astrocyte.pipeline.analysis.origins import BrokerOrigin, LogOrigin, SqlOrigin
from astrocyte.pipeline.cli.correlation import rules as cli_rules
from astrocyte.pipeline.kafka.record import ConsumedRecord
from astrocyte.schemas.errors import AstrocyteError
from astrocyte.schemas.events import Alert, LineageEntry, MultiEvent
from astrocyte.schemas.frames import decode_frame
from astrocyte.schemas.tables.base import Base
from astrocyte.schemas.tables.outputs import AlertRow, MultiEventRow, MultiEventSource
from astrocyte.schemas.times import iso_from_us, us_from_iso
from tests.support.broker import BrokerThread
from tests.support.logs import T0_US, axon_frame, frame_messages, json_messages, produce, write_log

app = typer.Typer()
cli_rules.register(app)

FIRST, SECOND, ALERT_ID = "10000000-0000-8000-8000-000000000001", "10000000-0000-8000-8000-000000000002", "a-1"


def story() -> list[ConsumedRecord]:
    """Two mono events make FIRST; FIRST and a third mono event make SECOND, which has an alert."""
    mono = frame_messages(axon_frame("axon_1", ["d1", "d1"], [0, 10], types="AC"), 1, {})
    mono += json_messages(axon_frame("axon_2", ["d1"], [20], types="B"), offset=4)
    frame = decode_frame(mono[0].value)
    a, c = frame.id_strings()
    b = json.loads(mono[1].value)["event_id"]
    first = MultiEvent(
        event_id=FIRST, timestamp=iso_from_us(T0_US + 20), source_events=(a, b), correlation_rule="pair",
        integrated_value=7.5, confidence=0.5, metadata={"gap_us": 20},
        lineage={
            "axon_1": LineageEntry(
                event_id=a, timestamp=iso_from_us(T0_US), step="a", topic="mono.axon_1", partition=0, offset=0
            ),
            "axon_2": LineageEntry(
                event_id=b, timestamp=iso_from_us(T0_US + 20), step="b", topic="mono.axon_2", partition=0, offset=4
            ),
        },
    )  # fmt: skip
    time = iso_from_us(T0_US + 20)
    inner = LineageEntry(event_id=FIRST, timestamp=time, step="p", topic="metrics.pair", partition=0, offset=0)
    third = LineageEntry(
        event_id=c, timestamp=iso_from_us(T0_US + 10), step="c", topic="mono.axon_1", partition=0, offset=0
    )
    second = MultiEvent(
        event_id=SECOND, timestamp=time, source_events=(FIRST, c), correlation_rule="outer",
        lineage={"pair": inner, "axon_1": third},
    )  # fmt: skip
    alert = Alert(
        alert_id=ALERT_ID, timestamp=iso_from_us(T0_US + 20), rule="outer", severity="warning", message="look",
        multi_event_id=SECOND,
    )  # fmt: skip
    outputs = [
        ConsumedRecord("multi.events", 0, n, T0_US // 1000, b"d1", item.model_dump_json().encode())
        for n, item in enumerate((first, second))
    ]
    return [*mono, *outputs, ConsumedRecord("alerts", 0, 0, T0_US // 1000, b"d1", alert.model_dump_json().encode())]


def store(records: list[ConsumedRecord], url: str) -> None:
    """The rows that the SQL sink makes of the outputs."""
    engine = create_engine(url)
    Base.metadata.create_all(engine, tables=[MultiEventRow.__table__, MultiEventSource.__table__, AlertRow.__table__])
    with engine.begin() as connection:
        for record in records:
            if record.topic == "multi.events":
                for table, row in _multi_event_rows(json.loads(record.value)):
                    connection.execute(insert(table).values(row))
            elif record.topic == "alerts":
                body = json.loads(record.value)
                connection.execute(
                    insert(AlertRow.__table__).values(
                        {name: body[name] for name in body if name != "key"} | {"timestamp": T0_US + 20}
                    )
                )
    engine.dispose()


def _multi_event_rows(body):
    entries = {entry["event_id"]: (stream, entry) for stream, entry in body["lineage"].items()}
    names = ("event_id", "event_type", "correlation_rule", "integrated_value", "confidence")
    own = {"timestamp": us_from_iso(body["timestamp"]), "event_key": "d1", "details": body.get("metadata")}
    yield MultiEventRow.__table__, {name: body.get(name) for name in names} | own
    for position, source in enumerate(body["source_events"]):
        stream, entry = entries[source]
        place = {f"source_{name}": entry[name] for name in ("topic", "partition", "offset")}
        row = {"event_id": body["event_id"], "position": position, "source_event_id": source, "stream": stream}
        time_us = us_from_iso(entry["timestamp"])
        yield MultiEventSource.__table__, row | place | {"step": entry["step"], "timestamp": time_us}


@pytest.fixture
def log(tmp_path):
    return str(write_log(tmp_path / "run.jsonl.zst", story(), partitions=1))


def test_a_log_gives_the_tree_with_the_fields_of_every_source(log):
    tree = explain(SECOND, [LogOrigin([log])])
    assert tree.sources[0].event_id == FIRST
    inner = tree.sources[0].made_of
    assert inner is not None
    assert [(source.topic, source.partition, source.offset) for source in inner.sources] == [
        ("mono.axon_1", 0, 0),
        ("mono.axon_2", 0, 4),
    ]
    assert [source.fields["type"] for source in inner.sources] == ["A", "B"]
    assert tree.sources[1].fields["type"] == "C"
    assert tree.alerts == [{"alert_id": ALERT_ID, "severity": "warning", "message": "look"}]
    assert tree.key == "d1"


def test_the_tree_is_printed_as_text(log):
    text = render(explain(SECOND, [LogOrigin([log])]))
    assert "outer, key d1" in text
    assert "alert (warning): look" in text
    assert "mono.axon_2[0]@4" in text
    assert "integrated_value = 7.5  confidence = 0.5  gap_us = 20" in text
    assert "type = B" in text


def test_control_characters_of_events_do_not_reach_the_terminal(tmp_path):
    found = MultiEvent(
        event_id=FIRST, timestamp=iso_from_us(T0_US), source_events=(), correlation_rule="pair", lineage={},
        metadata={"note": "a\x1b[2Jb"},
    )  # fmt: skip
    record = ConsumedRecord("multi.events", 0, 0, T0_US // 1000, b"k\x1b[2J", found.model_dump_json().encode())
    path = write_log(tmp_path / "run.jsonl.zst", [record])
    shown = CliRunner().invoke(app, ["explain", FIRST, "--log", str(path)])
    assert "note = a\\x1b[2Jb" in shown.stdout
    assert "\x1b" not in shown.stdout


def test_an_alert_leads_to_its_multi_event(log):
    assert explain(ALERT_ID, [LogOrigin([log])]).event_id == SECOND


def test_broker_database_and_log_give_the_same_tree(tmp_path, log):
    expected = explain(SECOND, [LogOrigin([log])]).as_json()
    url = f"sqlite:///{tmp_path / 'a.db'}"
    store(story(), url)
    assert explain(SECOND, [SqlOrigin(url), LogOrigin([log])]).as_json() == expected
    with BrokerThread(tmp_path / "broker") as running:
        # Offsets on the broker begin at 0, so the JSON record of the log is its fifth.
        filler = [ConsumedRecord("mono.axon_2", 0, n, 1, b"x", b"{}") for n in range(4)]
        asyncio.run(produce(running.address, filler + story(), partitions=1))
        assert explain(SECOND, [BrokerOrigin(running.address)]).as_json() == expected


def test_a_database_alone_gives_the_places(tmp_path):
    url = f"sqlite:///{tmp_path / 'a.db'}"
    store(story(), url)
    tree = explain(ALERT_ID, [SqlOrigin(url)])
    assert tree.event_id == SECOND
    assert tree.sources[0].made_of.sources[1].offset == 4
    assert tree.sources[1].fields is None


def test_an_unknown_id_says_where_it_was_looked_for(tmp_path, log):
    with pytest.raises(NoSuchEvent, match=r"no multi event 'nope' in .*run\.jsonl\.zst; 'astrocyte tap multi\.events'"):
        explain("nope", [LogOrigin([log])])
    url = f"sqlite:///{tmp_path / 'a.db'}"
    store([], url)
    with pytest.raises(NoSuchEvent, match=r"a\.db"):
        explain("nope", [SqlOrigin(url)])


def test_an_absent_or_empty_database_is_one_sentence(tmp_path):
    with pytest.raises(NoSuchEvent, match="there is no database"):
        SqlOrigin(f"sqlite:///{tmp_path / 'none.db'}")
    (tmp_path / "empty.db").touch()
    with pytest.raises(AstrocyteError, match="no such table: multi_events"):
        explain("x", [SqlOrigin(f"sqlite:///{tmp_path / 'empty.db'}")])
    (tmp_path / "other.db").write_text("not a database, but a text of some length" * 20)
    with pytest.raises(AstrocyteError, match="not a database"):
        explain("x", [SqlOrigin(f"sqlite:///{tmp_path / 'other.db'}")])


def test_a_source_in_a_topic_of_its_own_name_is_not_looked_up_as_a_result(tmp_path):
    looked_up = []

    class Counting(LogOrigin):
        def find(self, event_id):
            looked_up.append(event_id)
            return super().find(event_id)

    places = {
        stream: LineageEntry(event_id=f"e-{stream}", timestamp=iso_from_us(T0_US), step="a", topic=topic, partition=0,
                             offset=0)
        for stream, topic in (("orders", "shop.orders"), ("payments", "mono.payments"))
    }  # fmt: skip
    found = MultiEvent(
        event_id=FIRST, timestamp=iso_from_us(T0_US), source_events=("e-orders", "e-payments"), correlation_rule="pair",
        lineage=places,
    )  # fmt: skip
    record = ConsumedRecord("multi.events", 0, 0, T0_US // 1000, b"k", found.model_dump_json().encode())
    path = tmp_path / "events.jsonl"
    write_log(path, [record])
    tree = explain(FIRST, [Counting([path])])
    assert [source.topic for source in tree.sources] == ["shop.orders", "mono.payments"]
    assert looked_up == [FIRST]


def test_cyclic_lineage_terminates(tmp_path):
    body = json.loads(story()[2].value) | {"event_id": "loop", "source_events": ["loop"], "lineage": {}}
    path = write_log(
        tmp_path / "loop.jsonl", [ConsumedRecord("multi.events", 0, 0, 1, None, json.dumps(body).encode())]
    )
    assert "loop" in render(explain("loop", [LogOrigin([path])]))


def test_the_command_prints_json_or_the_tree(log):
    result = CliRunner().invoke(app, ["explain", SECOND, "--log", log, "--json"])
    assert json.loads(result.stdout)["sources"][0]["made_of"]["event_id"] == FIRST
    result = CliRunner().invoke(app, ["explain", FIRST, "--log", log])
    assert result.stdout.startswith(FIRST)


def test_without_options_the_settings_say_where_to_look(tmp_path, monkeypatch):
    url = f"sqlite:///{tmp_path / 'a.db'}"
    store(story(), url)
    monkeypatch.setenv("ASTROCYTE_SQL_URL", url)
    result = CliRunner().invoke(app, ["explain", FIRST, "--json"])
    assert json.loads(result.stdout)["event_id"] == FIRST
    monkeypatch.setenv("ASTROCYTE_SQL_URL", f"sqlite:///{tmp_path / 'none.db'}")
    monkeypatch.setenv("ASTROCYTE_BROKER", "127.0.0.1:1")
    result = CliRunner().invoke(app, ["explain", FIRST])
    assert "no Kafka broker answers" in str(result.exception)

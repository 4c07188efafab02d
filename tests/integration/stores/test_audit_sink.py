import io

import orjson
import pyarrow as pa
import pytest
from sqlalchemy import text

from astrocyte.agents.sinks.audit.sink import AuditSink, audit_entries, export_audit, verify_audit
from astrocyte.agents.sinks.base import SourcedFrame, SourcedRecords
from astrocyte.agents.sinks.retention import apply_retention
from astrocyte.agents.sinks.sql.engines import engine_of
from astrocyte.schemas.errors import InvalidSettings
from astrocyte.schemas.frames import Frame

START_US = 1_735_689_600_000_000
DAY_US = 86_400_000_000


def snapshots(first: int = 1, rows: int = 4) -> SourcedFrame:
    numbers = list(range(first, first + rows))
    columns = {
        "timestamp": [START_US + number for number in numbers],
        "key": ["coder_agent"] * rows,
        "type": ["dna.snapshot_created"] * rows,
        "snapshot_id": numbers,
        "agent_id": ["coder_agent"] * rows,
        "version": numbers,
        "source": ["manual"] * rows,
        "parent_snapshot_id": pa.array([None] * rows, pa.int64()),
        "reason": ["because"] * rows,
    }
    return SourcedFrame(
        Frame.from_columns("dna.snapshot_created", "run-1", columns, first_seq=first), "mono.dna", 0, first
    )


def control(number: int) -> SourcedRecords:
    record = {
        "event_id": f"rule-{number}",
        "timestamp": START_US,
        "kind": "rule.changed",
        "subject": "population_collapse",
        "payload": {"within": "60s"},
    }
    return SourcedRecords("audit", [record], "rules", 0, number)


async def appended(database, *batches, now_us=START_US):
    sink = AuditSink(database, now_us=lambda: now_us)
    await sink.open()
    rejected = [row for batch in batches for row in await sink.write(batch)]
    await sink.close()
    return rejected


def run(database, statement):
    with engine_of(database).begin() as connection:
        connection.execute(text(statement))


async def test_events_are_appended_once_in_a_chain_that_holds(database):
    batch = [snapshots(), control(1)]
    assert await appended(database, batch, batch) == []
    assert await appended(database, [snapshots(3), control(2)]) == []
    verdict = verify_audit(database)
    assert (verdict.ok, verdict.entries) == (True, 8)
    entries = list(audit_entries(database))
    assert [entry.kind for entry in entries[3:5]] == ["dna.snapshot_created", "rule.changed"]
    assert entries[0].subject == "coder_agent"
    assert orjson.loads(entries[0].payload)["payload"]["reason"] == "because"


async def test_a_change_in_the_database_is_named(database):
    await appended(database, [snapshots()])
    run(database, "UPDATE audit_log SET payload = '{}' WHERE entry = 3")
    assert verify_audit(database).broken_entry == 3
    run(database, "DELETE FROM audit_log WHERE entry = 2")
    assert "entry 2 is missing" in verify_audit(database).reason


async def test_the_log_is_exported_as_json_lines(database):
    await appended(database, [snapshots(rows=2), control(1)])
    output = io.BytesIO()
    assert export_audit(database, output) == 3
    lines = [orjson.loads(line) for line in output.getvalue().splitlines()]
    assert [line["entry"] for line in lines] == [1, 2, 3]
    assert lines[2]["payload"] == {"within": "60s"}


async def test_a_record_that_cannot_be_stored_is_rejected_alone(database):
    broken = SourcedRecords("audit", [{"event_id": None, "timestamp": 1, "kind": "k", "payload": 1}], "rules", 0, 7)
    rejected = await appended(database, [broken, control(1)])
    assert [row.offset for row in rejected] == [7]
    assert "'event_id' is null" in rejected[0].reason
    assert verify_audit(database).entries == 1


async def test_retention_of_the_audit_log_leaves_a_chain_that_holds(database):
    await appended(database, [snapshots(1)], now_us=START_US)
    await appended(database, [snapshots(5)], now_us=START_US + 60 * DAY_US)
    kept = list(apply_retention(database, now_us=START_US + 89 * DAY_US, days={"audit_log": 90}))
    assert kept == []
    later = START_US + 100 * DAY_US
    removed = list(apply_retention(database, now_us=later, days={"audit_log": 90}, batch_rows=3))
    assert sum(item.rows for item in removed) == 4
    verdict = verify_audit(database)
    assert verdict.ok, verdict.reason
    assert [entry.kind for entry in audit_entries(database)].count("dna.snapshot_created") == 4


def test_the_audit_log_is_never_kept_shorter_than_ninety_days(database):
    with pytest.raises(InvalidSettings, match="audit_log is 30 days; expected at least 90"):
        list(apply_retention(database, now_us=0, days={"audit_log": 30}))

from dataclasses import replace

import orjson
import pytest

from astrocyte.agents.sinks.audit.chain import GENESIS, PURGED, append, export_line, purge_payload, verify


def chain(length=6):
    entries = []
    for number in range(length):
        previous = entries[-1] if entries else None
        entries.append(
            append(previous, timestamp=number, kind="dna.snapshot_created", event_id=f"e{number}", payload='{"a":1}')
        )
    return entries


def test_a_chain_holds_from_its_first_entry():
    entries = chain()
    assert entries[0].previous_hash == GENESIS
    verdict = verify(entries)
    assert (verdict.ok, verdict.entries, verdict.last_hash) == (True, 6, entries[-1].hash)
    assert verify([]).ok


@pytest.mark.parametrize(
    ("change", "value"),
    [
        ("payload", '{"a":2}'),
        ("timestamp", 99),
        ("kind", "x"),
        ("subject", "s"),
        ("event_id", "e"),
        ("simulation_id", "r"),
    ],
)
def test_a_changed_entry_is_named(change, value):
    entries = chain()
    entries[3] = replace(entries[3], **{change: value})
    verdict = verify(entries)
    assert (verdict.ok, verdict.broken_entry) == (False, 4)
    assert "entry 4 was changed" in verdict.reason


def test_an_entry_replaced_with_its_hash_breaks_the_next_link():
    entries = chain()
    entries[3] = append(entries[2], timestamp=3, kind="dna.snapshot_created", event_id="e3", payload='{"a":2}')
    verdict = verify(entries)
    assert verdict.broken_entry == 5
    assert "does not continue entry 4" in verdict.reason


def test_a_removed_entry_is_named():
    entries = chain()
    del entries[2]
    verdict = verify(entries)
    assert "entry 3 is missing; 4 follows 2" in verdict.reason


def test_entries_in_another_order_are_a_broken_chain():
    entries = chain()
    entries[1], entries[2] = entries[2], entries[1]
    assert verify(entries).broken_entry == 3


def test_a_truncated_start_without_a_record_is_a_broken_chain():
    verdict = verify(chain()[2:])
    assert verdict.broken_entry == 3
    assert "entries up to 2 are missing" in verdict.reason


def test_a_start_removed_by_retention_is_valid():
    entries = chain()
    purge = purge_payload(2, entries[1].hash)
    entries.append(append(entries[-1], timestamp=9, kind=PURGED, event_id="p", payload=purge))
    assert verify(entries[2:]).ok
    assert not verify(entries[3:]).ok


def test_a_truncated_end_is_detected_with_the_last_hash():
    entries = chain()
    assert verify(entries[:-1]).ok
    verdict = verify(entries[:-1], expected_last_hash=entries[-1].hash)
    assert verdict.broken_entry == 6


def test_an_exported_line_is_json_with_the_payload_inside():
    entry = chain(1)[0]
    line = orjson.loads(export_line(entry))
    assert line["payload"] == {"a": 1}
    assert line["hash"] == entry.hash
    assert orjson.loads(export_line(replace(entry, payload="no json")))["payload"] == "no json"

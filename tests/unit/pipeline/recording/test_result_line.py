"""Alerts and multi events in readable form, as `match` and `tap` show them on a terminal."""

import orjson

from astrocyte.pipeline.kafka.record import ConsumedRecord
from astrocyte.pipeline.recording.tap import Selector, columns_line, result_line

ALERT = {
    "alert_id": "0d0ad5d5-7a4b-8c55-9d3a-5a5b0c3a6a01", "timestamp": "2025-09-28T10:30:04Z", "rule": "fever",
    "severity": "warning", "message": "from 38.2\nto \x1b[31m39.5", "key": "ward 3", "multi_event_id": "x",
}  # fmt: skip
FOUND = {
    "event_id": "8583fb6c-e9dd-8750-b207-1c93a6234319", "timestamp": "2025-09-28T10:30:04Z",
    "event_type": "MULTI_ORIGINATED", "source_events": ["a", "b"], "correlation_rule": "fever",
    "integrated_value": None, "confidence": 1.0, "lineage": {}, "metadata": {"rise": 1.25, "ward": "3"},
}  # fmt: skip


def test_an_alert_is_its_severity_rule_and_message_without_control_characters():
    assert result_line(b"ward 3", orjson.dumps(ALERT)).decode() == (
        "2025-09-28T10:30:04Z        ward 3       warning fever: from 38.2\\nto \\x1b[31m39.5\n"
    )


def test_a_multi_event_is_its_rule_values_and_id():
    shown = result_line(b"ward 3", orjson.dumps(FOUND)).decode()
    assert shown.startswith("2025-09-28T10:30:04Z        ward 3       fever rise=1.25 ward=3 event_id=8583fb6c-")
    unsure = result_line(None, orjson.dumps(FOUND | {"confidence": 0.5, "integrated_value": 30.0})).decode()
    assert " -            fever integrated_value=30 rise=1.25 ward=3 confidence=0.5 event_id=" in unsure


def test_tap_shows_a_result_with_its_place():
    record = ConsumedRecord("alerts", 2, 7, 0, b"ward 3", orjson.dumps(ALERT), ())
    (event,) = Selector()([record])
    place = "alerts[2]@7                  ward 3       "
    assert columns_line(event).decode().endswith(f"{place}warning fever: from 38.2\\nto \\x1b[31m39.5\n")

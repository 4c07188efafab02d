"""What `astrocyte health` says of the last reports of the domains."""

from __future__ import annotations

import orjson

from astrocyte.agents.domain import Domain
from astrocyte.pipeline.roles.correlate import _stats_record
from astrocyte.pipeline.roles.health import correlate_summary
from astrocyte.schemas.json.reader import RawRecord

HOUR_MS = 3_600_000
NOW_MS = 1_772_359_200_000


def event(offset: int, key: str, time_ms: int) -> RawRecord:
    body = {"timestamp": time_ms * 1000, "key": key, "type": "x", "value": 1}
    return RawRecord(offset, NOW_MS, key.encode(), orjson.dumps(body))


def test_events_that_wait_for_the_check_of_clocks_are_counted_and_explained():
    """They are in no other count, and their messages are acknowledged, so that they are no lag either."""
    domain = Domain(0, [], topics=["mono.A"])
    domain.feed("mono.A", [event(0, "a", NOW_MS), *(event(n, "fast", NOW_MS + 8000 * HOUR_MS) for n in range(1, 4))])
    report = orjson.loads(_stats_record(domain, []).value or b"")
    found = correlate_summary([report], {})
    assert found["waiting"] == 3
    assert report["received"] + found["waiting"] == 4
    assert len(found["waits"]) == 1
    assert found["waits"][0].startswith("mono.A: 3 events are further ahead of Kafka's time")
    assert "they wait" in found["waits"][0]

"""Headers of the records that a rule makes: those of CloudEvents, and which rule it was."""

from __future__ import annotations

from astrocyte.schemas.json.cloudevents import OWN_SOURCE
from astrocyte.schemas.json.reader import JSON_CONTENT_TYPE

__all__ = ["Headers", "own_headers", "rule_headers"]

Headers = list[tuple[str, bytes]]


def rule_headers(kind: str, rule: str, version: str, *, timed_out: bool) -> Headers:
    """Headers common to all records of one kind, such as ``astrocyte.alert``, of one rule."""
    headers = [
        ("ce_specversion", b"1.0"),
        ("ce_type", kind.encode()),
        ("ce_source", f"{OWN_SOURCE}rules/{rule}".encode()),
        ("content-type", JSON_CONTENT_TYPE.encode()),
        ("ce_ruleversion", version.encode()),
    ]
    if timed_out:
        headers.append(("ce_timedout", b"true"))
    return headers


def own_headers(record_id: str, time: str, run: str) -> Headers:
    """Headers of one record: its id, its time, and the run of the match's first event, where that has one."""
    headers = [("ce_id", record_id.encode()), ("ce_time", time.encode())]
    if run:
        headers.append(("ce_simulationid", run.encode()))
    return headers

"""What of a record is compared, and how two of them differ.

The worker that was killed writes a record again, at another place and time; frames of internal topics are cut by what
was fetched together. So places in internal topics and times of writing are no part of what is compared.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from astrocyte.pipeline.analysis.verify.ledger import Entry, Item
from astrocyte.pipeline.analysis.verify.report import Change, Kind
from astrocyte.pipeline.roles.sink.decode import record_body
from astrocyte.schemas.frames import Frame
from astrocyte.schemas.ids import format_ids
from astrocyte.schemas.json.reader import KafkaRecord
from astrocyte.schemas.json.text import read_object
from astrocyte.schemas.times import us_from_iso
from astrocyte.schemas.topics import ALERTS, DEAD_LETTERS, LATE, MULTI_EVENTS, TOPOLOGY, is_derived

__all__ = ["IDENTITIES", "about", "changes", "forget_places", "item_of", "kind_of", "window_items"]

_PLACE: Final = ("topic", "partition", "offset")
IDENTITIES: Final[Mapping[str, str]] = {
    MULTI_EVENTS: "event_id",
    ALERTS: "alert_id",
    LATE: "event_id",
    DEAD_LETTERS: "letter_id",
    TOPOLOGY: "decision_id",
}
"""Field of the id of the records of each output topic that holds JSON records."""
_KINDS: Final = {MULTI_EVENTS: "multi_events", ALERTS: "alerts", DEAD_LETTERS: "dead_letters"}
_STATUS: Final = "ce_status"
_COPY: Final = "source_copy"


def item_of(topic: str, record: KafkaRecord) -> Item:
    """The record of an output topic that holds JSON records. Raises InvalidEvent, KeyError."""
    kind = _KINDS.get(topic)
    body = read_object(record.value) if kind is None else record_body(record, kind)  # type: ignore[arg-type]
    status = ""
    if topic == LATE:
        # It is the event as it came; what is compared is which events were late, in their topic and in copies of it.
        headers = {name: value.decode(errors="replace") for name, value in record.headers}
        identity = headers.get("ce_id") or str(body.get("event_id") or body.get("id") or body)
        copy = headers.get(_COPY)
        run = headers.get("ce_simulationid") or None
        return Item(f"{identity} in {copy}" if copy else identity, _time(body.get("timestamp")), run, {})
    if topic in (MULTI_EVENTS, ALERTS):
        status = dict(record.headers).get(_STATUS, b"").decode(errors="replace")
        for name in ("provisional", "status"):
            body.pop(name, None)
    if topic == MULTI_EVENTS:
        forget_places(body)
    time_us = _time(body.get("timestamp"))
    if topic == DEAD_LETTERS:
        body.pop("timestamp", None)  # when it was written
    return Item(str(body[IDENTITIES[topic]]), time_us, body.get("simulation_id"), body, status)


def window_items(frame: Frame) -> Iterator[Item]:
    """Results of a window; each revision is one of its own. The id of a result does not name its run."""
    ids = format_ids(frame.ids())
    for identity, row in zip(ids, frame.event_fields(), strict=True):
        revision = row.get("revision")
        run = row.get("simulation_id") or frame.run or None
        name = identity if run is None else f"{identity} of {run}"
        time_us = row.get("window_end", row.get("timestamp"))
        yield Item(f"{name}, revision {revision}" if revision else name, time_us, run, row)


def about(topic: str, body: Mapping[str, Any]) -> str:
    """What a record is, in a few words."""
    if topic == DEAD_LETTERS:
        return f"{body.get('stage')}: {body.get('topic')}[{body.get('partition')}]@{body.get('offset')}"
    if topic == TOPOLOGY:
        return f"junction {body.get('junction')} {body.get('from')} -> {body.get('to')} {body.get('kind')}"
    named = {"rule": body.get("correlation_rule") or body.get("rule"), "key": body.get("key")}
    return " ".join(f"{name} {value}" for name, value in named.items() if value is not None)


def kind_of(entry: Entry) -> tuple[Kind | None, tuple[Change, ...]]:
    """In what way a record differs, None where it does not, and the values that do."""
    if entry.times == 0:
        return "lost", ()
    if entry.expected is None:
        return "unexpected", ()
    for there in (entry.found, entry.other):
        if there is not None and (differing := tuple(changes(entry.expected, there))):
            return "wrong", differing
    return ("twice" if entry.times > 1 else None), ()


def changes(expected: Any, found: Any, name: str = "") -> Iterator[Change]:
    """The values that differ, objects and lists of the same length value by value."""
    if isinstance(expected, Mapping) and isinstance(found, Mapping):
        for key in [*expected, *(each for each in found if each not in expected)]:
            yield from changes(expected.get(key), found.get(key), f"{name}.{key}" if name else str(key))
    elif isinstance(expected, list) and isinstance(found, list) and len(expected) == len(found):
        for number, (one, other) in enumerate(zip(expected, found, strict=True)):
            yield from changes(one, other, f"{name}[{number}]")
    elif expected != found or isinstance(expected, bool) != isinstance(found, bool):
        yield Change(name, expected, found)


def forget_places(body: dict[str, Any]) -> None:
    """Take the places in internal topics out of a multi event: frames are cut by what was fetched together."""
    for entry in (body.get("lineage") or {}).values():
        for each in (entry, *(entry.get("also") or ())):
            if is_derived(str(each.get("topic", ""))):
                for name in _PLACE:
                    each.pop(name, None)


def _time(value: Any) -> int | None:
    try:
        return us_from_iso(value) if isinstance(value, str) else None
    except ValueError:
        return None

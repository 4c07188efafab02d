"""Proposing a declaration of a stream from a sample of its messages: decoder, key, time, id, nested fields."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import orjson

from astrocyte.pipeline.analysis.inspect.forms import CsvForm, Forms, Opened, why_unreadable
from astrocyte.pipeline.console import short
from astrocyte.schemas.arrow.columns import column_name
from astrocyte.schemas.contract import Contract, Event, is_uuid, key_text, read_event
from astrocyte.schemas.declarations import DEBEZIUM, KeyReading
from astrocyte.schemas.errors import InvalidEvent
from astrocyte.schemas.times import CEILING_US, TIME_NAMES, TimeUnit, time_us, unit_of
from astrocyte.schemas.values import single

__all__ = ["Proposal", "Seen", "numbers_of_time", "propose"]

_FROM_US: Final = 631_152_000 * 1_000_000
"""The year 1990: a number that stands for an earlier time is rather a count or an id."""
_SHARE: Final = 0.95
"""Share of the events that must have a member which is proposed as time or key."""
_DEPTH: Final = 3
_PREFIX: Final = {"cloudevents": "data.", DEBEZIUM: "after.", "dna": "payload."}
"""Where the fields of an event stand in its envelope."""
_DECLARED: Final = frozenset({"json", "cloudevents", DEBEZIUM, "dna", "arrow", "avro"})
_ROWS: Final = ("json", "csv", "avro")
"""Forms without an envelope that says where the time stands."""
_TIME_WORDS: Final = re.compile(
    r"(?:^|_)(?:time|timestamp|ts|t|date|datetime|at|when|created|occurred|updated|received|logged|millis|epoch)(?:_|$)"
)
_FIRST_TIMES: Final = re.compile(r"event|occur|creat|timestamp|measur|sampl")
_KEY_WORDS: Final = re.compile(
    r"(?:^|_)(?:user|customer|device|sensor|host|hostname|session|account|card|vehicle|machine|client|player|agent|node|"
    r"room|station|symbol|visitor|member|tenant|ip|email|mac|imei|vin|cookie|meter|truck|patient|robot|pump|asset|ward)"
    r"(?:_|$)"
)
_ID_WORDS: Final = re.compile(r"(?:^|_)(?:id|key|uuid|guid|no|number)$")
_ID_NAMES: Final = frozenset({"id", "uuid", "guid", "event_id", "event_uuid", "message_id", "msg_id", "record_id"})
_UNNAMED: Final = re.compile(r"column_\d+")
"""A column of CSV without a header has no name that says what it is."""
_DATE_LIKE: Final = re.compile(r"\d{1,4}[/.-]\w{1,9}[/.-]\d{1,4}\b|\b\d{1,2}:\d{2}:\d{2}\b")


@dataclass(slots=True)
class Seen:
    """Values of one member of the events: at ``path``, which is the field ``name``."""

    path: str
    name: str
    values: list[Any] = field(default_factory=list)


@dataclass(slots=True)
class Proposal:
    """A declaration as a rule file holds it, and what led to it."""

    declaration: dict[str, Any]
    time: str = ""
    """How the time is read, such as ``created_at, ISO 8601 text``."""
    needs: list[str] = field(default_factory=list)
    """Why the declaration is needed: what would happen without it."""
    hints: list[str] = field(default_factory=list)
    """Members that might serve as time or key as well, and what cannot be read."""
    problems: list[str] = field(default_factory=list)
    """Messages of another form than nearly all others."""
    problem: str | None = None
    """Why no event can be read, also with the declaration."""


def propose(
    contract: Contract,
    forms: Forms,
    *,
    topic: str | None = None,
    is_file: bool = False,
    partitions: int = 1,
    csv: CsvForm | None = None,
) -> Proposal:
    """A declaration for the messages of a stream; ``topic`` is given where it is not that of the stream's name."""
    given: dict[str, Any] = {"name": contract.stream}
    if topic is not None:
        given["topic"] = topic
    proposal = Proposal(given)
    form = forms.main
    if csv is not None:
        given["decoder"] = {"name": "csv", "columns": list(csv.columns)}
        if csv.delimiter != ",":
            given["decoder"]["delimiter"] = csv.delimiter
        proposal.needs.append("decoder: csv, else every message is refused")
        if not csv.named:
            proposal.hints.append("the lines do not name their columns: replace column_1 and so on by names")
    elif form in _DECLARED and contract.event_type is None:
        given["decoder"] = form
    if form == "arrow" and csv is None:
        proposal.time = "timestamp, a column of microseconds"
        return proposal
    if contract.event_type is None:
        proposal.problems += _strays(forms)
    forms = forms.usual()
    read = list(_events(forms.opened, contract))
    events = [event for event, _ in read]
    if not events:
        proposal.problem = why_unreadable(forms)
        return proposal
    seen = list(_members(events, forms.opened).values())
    _propose_time(proposal, events, seen, forms, is_file=is_file)
    if contract.event_type is None:
        seen = [each for each in seen if each.path.rpartition(".")[2]]  # a declaration names no empty member
        _propose_key(proposal, read, seen, form=form, partitions=partitions)
        _propose_id(proposal, seen, events, form)
        _propose_paths(proposal, seen)
    return proposal


def _strays(forms: Forms) -> Iterator[str]:
    """Messages of other forms, which do not change the declaration."""
    total = forms.known.total()
    for name in dict.fromkeys(each.envelope for each in forms.strays):
        same = [each for each in forms.strays if each.envelope == name]
        be = "is" if len(same) == 1 else "are"
        effect = "reads them as flat records" if forms.main == "json" else "refuses them"
        yield (
            f"{len(same):,} of {total:,} messages studied {be} {name}, not {forms.main}, "
            f"such as that at offset {same[0].record.offset}: decoder: {forms.main} {effect}"
        )


def _events(opened: Sequence[Opened], contract: Contract) -> Iterator[tuple[Event, Opened]]:
    for each in opened:
        try:
            key = None if each.record.key is None else key_text(each.record.key)
            yield read_event(each.body, contract, key=key, envelope=each.envelope), each
        except InvalidEvent:
            continue


def _members(events: Sequence[Event], opened: Sequence[Opened]) -> dict[str, Seen]:
    """Members of the events by path: their fields, and what stands inside fields that are objects."""
    prefix = next((_PREFIX[each.envelope] for each in opened if each.envelope in _PREFIX), "")
    found: dict[str, Seen] = {}

    def note(path: str, name: str, value: Any, depth: int) -> None:
        if isinstance(value, Mapping) and depth < _DEPTH:
            inner = path if depth else prefix + path
            for member, each in value.items():
                note(f"{inner}.{member}", f"{name}_{member}", each, depth + 1)
        elif value is not None:
            found.setdefault(path, Seen(path, name)).values.append(value)

    for event in events:
        for name, value in event.fields.items():
            plain = name[:-1] if name in ("event_id_", "seq_", "type_") else name
            nested = isinstance(event.document.get("metadata"), Mapping) and name in event.document["metadata"]
            note(f"metadata.{plain}" if nested and isinstance(value, Mapping) else plain, plain, value, 0)
    return found


# -- time ------------------------------------------------------------------------------------------------------------


def _propose_time(
    proposal: Proposal, events: Sequence[Event], seen: Sequence[Seen], forms: Forms, *, is_file: bool
) -> None:
    own = [event for event in events if event.time is not None and _time(event.time, event.unit) is not None]
    candidates = sorted(filter(None, (_time_candidate(each, len(events)) for each in seen)), key=lambda each: each[0])
    named = [(each.path, unit) for _, each, unit in candidates if each.path]  # a declaration names no empty member
    if len(own) >= _SHARE * len(events):
        names = {_time_member(event) for event in own}
        name = names.pop() if len(names) == 1 else None
        unit = own[0].unit or _unit([event.time for event in own])
        where = "source.ts_ms of the envelope" if forms.main == DEBEZIUM else "the time of the envelope"
        proposal.time = f"{short(name) if name else where}, {unit or 'ISO 8601 text'}"
        if name in TIME_NAMES and forms.main in _ROWS:
            proposal.declaration["time"] = {"field": name} | ({"unit": unit} if unit else {})
        if named:
            proposal.hints.append(f"other times: {', '.join(short(path) for path, _ in named[:4])}")
        return
    without = "every event is refused" if is_file else "the time of the Kafka message is taken"
    if named:
        path, unit = named[0]
        proposal.declaration["time"] = {"field": path} | ({"unit": unit} if unit else {})
        proposal.time = f"{short(path)}, {unit or 'ISO 8601 text'}"
        proposal.needs.append(f"time: {short(path)}, else {without}")
        if named[1:]:
            proposal.hints.append(f"other times: {', '.join(short(path) for path, _ in named[1:5])}")
        return
    strange = next((each for each in seen if _is_date_like(each.values)), None)
    if strange is not None:
        proposal.hints.append(
            f"{short(strange.path)} looks like a time but is not ISO 8601, such as {short(strange.values[0])!r}: "
            "convert it first"
        )
    if is_file:
        proposal.problem = (
            f"no member is a time that can be read (expected {', '.join(TIME_NAMES)}, or another one with ISO 8601 "
            "text or a number of s, ms, us or ns since 1970), and a file has no other time"
        )
        return
    proposal.time = "the time of the Kafka message"


def numbers_of_time(forms: Forms, contract: Contract) -> list[float]:
    """The numbers that stand where a declaration says the event time is."""
    if contract.declaration is None or contract.declaration.time is None:
        return []
    found = []
    for each in forms.opened:
        try:
            number = _number(read_event(each.body, contract, envelope=each.envelope).time)
        except InvalidEvent:
            continue
        if number is not None:
            found.append(number)
    return found


def _time_member(event: Event) -> str | None:
    return next((name for name in TIME_NAMES if event.document.get(name) is not None), None)


def _time(value: Any, unit: TimeUnit | None) -> int | None:
    try:
        found = time_us(value, unit)
    except InvalidEvent:
        return None
    return found if 0 <= found < CEILING_US else None


def _unit(values: Sequence[Any]) -> TimeUnit | None:
    """The unit of nearly all numbers, as their magnitude shows it; None for text."""
    units = Counter(unit_of(number) for value in values if (number := _number(value)) is not None)
    ((unit, count),) = units.most_common(1) or [(None, 0)]
    return unit if count >= _SHARE * len(values) else None


def _number(value: Any) -> float | None:
    if isinstance(value, bool):
        return None
    if isinstance(value, int | float):
        return value
    return float(value) if isinstance(value, str) and re.fullmatch(r"\d{9,20}(\.\d+)?", value) else None


def _time_candidate(each: Seen, events: int) -> tuple[tuple[int, int], Seen, TimeUnit | None] | None:
    """A member that nearly all events have, and whose values are times of these days."""
    if len(each.values) < _SHARE * events:
        return None
    unit = _unit(each.values)
    worded = bool(_TIME_WORDS.search(_snake(each.path.rpartition(".")[2])))
    if unit is None and not all(isinstance(value, str) and len(value) >= 8 for value in each.values[:50]):
        return None
    if unit is not None and not worded and not _UNNAMED.fullmatch(each.name):
        return None  # a number may be anything
    times = [_time(value, unit) for value in each.values]
    good = sum(time is not None and time >= _FROM_US for time in times)
    if good < _SHARE * len(times) or len(set(times)) < min(2, len(times)):
        return None
    first = 0 if _FIRST_TIMES.search(_snake(each.path)) else 1 if worded else 2
    return (first, each.path.count(".")), each, unit


def _is_date_like(values: Sequence[Any]) -> bool:
    return bool(values) and all(isinstance(value, str) and _DATE_LIKE.search(value) for value in values[:50])


def _snake(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "_", re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()).strip("_")


# -- key and id ------------------------------------------------------------------------------------------------------


def _propose_key(
    proposal: Proposal,
    read: Sequence[tuple[Event, Opened]],
    seen: Sequence[Seen],
    *,
    form: str | None,
    partitions: int,
) -> None:
    events, keys = [event for event, _ in read], [each.record.key for _, each in read]
    kafka = [key for key in keys if key is not None]
    timed = proposal.declaration.get("time", {}).get("field")
    ranked = sorted(
        ((rank, each) for each in seen if each.path != timed and (rank := _key_rank(each, len(events))) is not None),
        key=lambda item: item[0],
    )
    if kafka and len(kafka) >= _SHARE * len(keys):
        reading = _key_reading(kafka)
        names = [each for each in seen if _is_kafka_key(each, events, kafka, reading)]
        if names:
            same = min(names, key=lambda each: (each.path.count("."), len(each.path)))
            _set_key(
                proposal,
                same,
                None if form == DEBEZIUM and reading == "json" else reading,
                partitioned=form == DEBEZIUM,
            )
        elif reading is not None and form != DEBEZIUM:
            proposal.declaration["key"] = {"field": "key", "reading": reading}
        elif form == DEBEZIUM and ranked:
            _set_key(proposal, ranked[0][1], None)
    elif any(event.key is not None for event in events):
        if sum(event.key is not None for event in events) < _SHARE * len(events) and ranked:
            _set_key(proposal, ranked[0][1], None)
    elif ranked:
        best = ranked[0][1]
        _set_key(proposal, best, None, spread=partitions > 1)
        proposal.needs.append(f"key: {short(best.path)}, else the events have no key")
    chosen = proposal.declaration.get("key")
    used = chosen if isinstance(chosen, str) else (chosen or {}).get("path", (chosen or {}).get("field"))
    others = [each.path for rank, each in ranked if each.path != used and rank[0] == 0]
    if others:
        proposal.hints.append(f"other keys: {', '.join(map(short, others[:4]))}")


def _set_key(
    proposal: Proposal, each: Seen, reading: KeyReading | None, *, partitioned: bool = False, spread: bool = False
) -> None:
    """Declare a key; ``spread``: its events are in several partitions, ``partitioned``: those of one key in one."""
    key: dict[str, Any] = {"field": each.name}
    if each.path != each.name:
        key["path"] = each.path
    if reading is not None:
        key["reading"] = reading
    if spread:
        key["partitioned"] = False
    elif partitioned:
        key["partitioned"] = True
    proposal.declaration["key"] = each.name if key == {"field": each.name} else key


def _key_reading(keys: Sequence[bytes]) -> KeyReading | None:
    """The reading that binary and JSON keys need; None for text."""
    if all(key[:1] in b"{[" and _is_json(key) for key in keys[:100]):
        return "json"
    strings = [key_text(key) for key in keys]
    if not any(text is not None and text.startswith("0x") for text in strings):
        return None
    sizes = {len(key) for key in keys}
    return "int64" if sizes == {8} else "int32" if sizes == {4} else "hex"


def _is_json(key: bytes) -> bool:
    try:
        orjson.loads(key)
    except orjson.JSONDecodeError:
        return False
    return True


def _is_kafka_key(each: Seen, events: Sequence[Event], kafka: Sequence[bytes], reading: KeyReading | None) -> bool:
    """Whether the values of a member are those of the Kafka keys, event by event."""
    if len(each.values) != len(events) or len(events) != len(kafka) or any(map(_is_large, each.values[:20])):
        return False
    try:
        return all(
            single.key_text(value) == key_text(key, reading) for value, key in zip(each.values, kafka, strict=True)
        )
    except InvalidEvent:
        return False


def _is_large(value: Any) -> bool:
    return isinstance(value, bool | list | Mapping)


def _key_rank(each: Seen, events: int) -> tuple[int, int, float] | None:
    """Smaller is better; None for a member that is no key: it needs to repeat, and nearly all events have it."""
    values = each.values
    if len(values) < _SHARE * events or any(isinstance(value, bool | float | list | Mapping) for value in values):
        return None
    distinct = len(set(map(single.key_text, values)))
    if distinct < 2 or distinct > 0.7 * len(values):
        return None
    name = _snake(each.path.rpartition(".")[2])
    words = 0 if _KEY_WORDS.search(name) else 1 if _ID_WORDS.search(name) else 2
    if words == 2 and not all(isinstance(value, str) for value in values):
        return None
    return words, each.path.count("."), -distinct


def _propose_id(proposal: Proposal, seen: Sequence[Seen], events: Sequence[Event], form: str | None) -> None:
    """A member that identifies an event: nearly all values are different, where they are not the id already."""
    if form not in _ROWS or all(event.event_id is not None for event in events):
        return
    for each in seen:
        if _snake(each.path) not in _ID_NAMES or len(each.values) != len(events):
            continue
        if any(isinstance(value, float | bool | list | Mapping) for value in each.values):
            continue
        ids = Counter(map(single.key_text, each.values))
        bodies = {
            (single.key_text(value), single.json_text(event.document))
            for value, event in zip(each.values, events, strict=True)
        }
        if len(ids) == len(bodies) and len(ids) >= 0.5 * len(events) and len(events) > 1:
            proposal.declaration["id"] = each.path
            if not all(is_uuid(str(value)) for value in each.values[:100]):
                proposal.needs.append(f"id: {short(each.path)}, else an event that is sent twice counts twice")
            return


def _propose_paths(proposal: Proposal, seen: Sequence[Seen]) -> None:
    """Fields inside objects get names of their own."""
    taken = {column_name(each.name) for each in seen if "." not in each.path}
    fields: dict[str, Any] = {}
    for each in seen:
        last = each.path.rpartition(".")[2]
        if each.path == each.name or each.name in taken or "." not in each.path:
            continue
        name = re.sub(r"\W", "_", each.name)
        if any(isinstance(value, list) for value in each.values[:5]) or not last or len(fields) >= 40:
            continue
        fields[name] = {"path": each.path}
    if fields:
        proposal.declaration["fields"] = fields
        named = ", ".join(map(short, list(fields)[:3]))
        proposal.needs.append(f"fields: {named}, else the members of objects are JSON text")

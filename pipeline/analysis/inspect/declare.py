"""Proposing a declaration of a stream from a sample of its messages: decoder, key, id, nested fields."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

import orjson

from astrocyte.pipeline.analysis.inspect.forms import CsvForm, Forms, Opened, why_unreadable
from astrocyte.pipeline.analysis.inspect.proposal import ROWS, SHARE, Proposal, Seen, odd_line, propose_time, snake
from astrocyte.pipeline.console import short
from astrocyte.schemas.arrow.columns import column_name
from astrocyte.schemas.contract import Contract, Event, is_uuid, read_event
from astrocyte.schemas.declarations import DEBEZIUM, KeyReading
from astrocyte.schemas.errors import InvalidEvent
from astrocyte.schemas.json.kafka_keys import key_text
from astrocyte.schemas.values import single

__all__ = ["propose", "repartitioned"]

_ALIKE: Final = 0.8
"""Share of the events in which a member has to be the Kafka key so that it is what the key means."""
_NAMED: Final = 0.8
"""Share of the events that must have a member which is named like a key, or an id, so that it is proposed."""
_HEAVIEST: Final = 0.5
"""Share of the events from which on one value says that a member without the name of a key is a kind of events."""
_UNWORDED: Final = 2
"""Rank of a key whose name is neither that of a key nor of an id."""
_DEPTH: Final = 3
_PREFIX: Final = {"cloudevents": "data.", DEBEZIUM: "after.", "dna": "payload."}
"""Where the fields of an event stand in its envelope."""
_DECLARED: Final = frozenset({"json", "cloudevents", DEBEZIUM, "dna", "arrow", "avro"})
_KEY_WORDS: Final = re.compile(
    r"(?:^|_)(?:user|customer|device|sensor|host|hostname|session|account|card|vehicle|machine|client|player|agent|node|"
    r"room|station|symbol|visitor|member|tenant|ip|email|mac|imei|vin|cookie|meter|truck|patient|robot|pump|asset|ward)"
    r"(?:_|$)"
)
_ID_WORDS: Final = re.compile(r"(?:^|_)(?:id|key|uuid|guid|no|number)$")
_ID_NAMES: Final = frozenset({"id", "uuid", "guid", "event_id", "event_uuid", "message_id", "msg_id", "record_id"})


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
    odd = propose_time(proposal, events, seen, forms, is_file=is_file)
    if contract.event_type is None:
        seen = [each for each in seen if each.path.rpartition(".")[2]]  # a declaration names no empty member
        _propose_key(proposal, read, seen, form=form, partitions=partitions)
        _propose_id(proposal, seen, events, form)
        _propose_paths(proposal, seen)
    if odd is not None:
        proposal.problems.append(odd_line(odd, proposal, events, seen))
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

    def note(path: str, name: str, value: Any, depth: int, row: int) -> None:
        if isinstance(value, Mapping) and depth < _DEPTH:
            inner = path if depth else prefix + path
            for member, each in value.items():
                note(f"{inner}.{member}", f"{name}_{member}", each, depth + 1, row)
        elif value is not None:
            seen = found.setdefault(path, Seen(path, name))
            seen.values.append(value)
            seen.rows.append(row)

    for row, event in enumerate(events):
        for name, value in event.fields.items():
            plain = name[:-1] if name in ("event_id_", "seq_", "type_") else name
            nested = isinstance(event.document.get("metadata"), Mapping) and name in event.document["metadata"]
            note(f"metadata.{plain}" if nested and isinstance(value, Mapping) else plain, plain, value, 0, row)
    return found


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
    if kafka and len(kafka) >= SHARE * len(keys):
        reading = _key_reading(kafka)
        alike = [(each, share) for each in seen if (share := _alike(each, events, keys, reading)) >= _ALIKE]
        if alike:
            same, share = min(alike, key=lambda item: (-item[1], item[0].path.count("."), len(item[0].path)))
            if share < 1:
                proposal.hints.append(
                    f"{short(same.path)} differs from the Kafka key in {max(1, round((1 - share) * len(keys))):,} of "
                    f"{len(keys):,} messages studied"
                )
            _set_key(
                proposal,
                same,
                None if form == DEBEZIUM and reading == "json" else reading,
                partitioned=form == DEBEZIUM and share == 1,
                spread=partitions > 1 and share < 1,
            )
        elif reading is not None and form != DEBEZIUM:
            proposal.declaration["key"] = {"field": "key", "reading": reading}
        elif form == DEBEZIUM and ranked:
            _set_key(proposal, ranked[0][1], None)
    elif any(event.key is not None for event in events):
        if sum(event.key is not None for event in events) < SHARE * len(events) and ranked:
            _set_key(proposal, ranked[0][1], None)
    elif ranked:
        best = ranked[0][1]
        _set_key(proposal, best, None, spread=partitions > 1)
        proposal.needs.append(f"key: {short(best.path)}, else the events have no key")
        if lacking := len(events) - len(best.values):
            proposal.hints.append(
                f"{short(best.path)} is missing in {lacking:,} of {len(events):,} events studied, which take part "
                "in no rule by it"
            )
    chosen = proposal.declaration.get("key")
    used = chosen if isinstance(chosen, str) else (chosen or {}).get("path", (chosen or {}).get("field"))
    others = [each.path for rank, each in ranked if each.path != used and rank[0] < _UNWORDED]
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


def repartitioned(proposal: Proposal, field: str, spread: int) -> Proposal:
    """The proposal where ``spread`` keys turned out to have events in several partitions of the topic."""
    declared = proposal.declaration.get("key", field)
    key = {"field": declared} if isinstance(declared, str) else dict(declared)
    keys = "1 key" if spread == 1 else f"{spread:,} keys"
    need = f"key: {short(field)}, partitioned: false, else the events of {keys} in several partitions never meet"
    return replace(
        proposal,
        declaration=proposal.declaration | {"key": key | {"partitioned": False}},
        needs=[*proposal.needs, need],
    )


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


def _alike(each: Seen, events: Sequence[Event], keys: Sequence[bytes | None], reading: KeyReading | None) -> float:
    """Share of the events in which a member, which each of them has, is the Kafka key."""
    if len(each.values) != len(events) or any(map(_is_large, each.values[:20])):
        return 0.0
    return sum(
        key is not None and single.key_text(value) == _read_key(key, reading)
        for value, key in zip(each.values, keys, strict=True)
    ) / len(events)


def _read_key(key: bytes, reading: KeyReading | None) -> str | None:
    try:
        return key_text(key, reading)
    except InvalidEvent:
        return None


def _is_large(value: Any) -> bool:
    return isinstance(value, bool | list | Mapping)


def _key_rank(each: Seen, events: int) -> tuple[int, int, float] | None:
    """Smaller is better; None for a member that is no key: it needs to repeat, and most events have it."""
    values = each.values
    if any(isinstance(value, bool | float | list | Mapping) for value in values):
        return None
    name = snake(each.path.rpartition(".")[2])
    words = 0 if _KEY_WORDS.search(name) else 1 if _ID_WORDS.search(name) else _UNWORDED
    if len(values) < (SHARE if words == _UNWORDED else _NAMED) * events:
        return None
    counts = Counter(map(single.key_text, values))
    distinct = len(counts)
    if distinct < 2 or distinct > 0.7 * len(values):
        return None
    if words == _UNWORDED and not all(isinstance(value, str) for value in values):
        return None
    if words == _UNWORDED and distinct > 2 and max(counts.values()) > _HEAVIEST * len(values):
        return None
    return words, each.path.count("."), -distinct


def _propose_id(proposal: Proposal, seen: Sequence[Seen], events: Sequence[Event], form: str | None) -> None:
    """A member that identifies an event: nearly all values are different, where they are not the id already."""
    if form not in ROWS or all(event.event_id is not None for event in events):
        return
    for each in seen:
        if snake(each.path) not in _ID_NAMES or len(each.values) < _NAMED * len(events):
            continue
        if any(isinstance(value, float | bool | list | Mapping) for value in each.values):
            continue
        ids = Counter(map(single.key_text, each.values))
        bodies = {
            (single.key_text(value), single.json_text(events[row].document))
            for value, row in zip(each.values, each.rows, strict=True)
        }
        lacking = len(events) - len(each.values)
        if not lacking and len(ids) == len(bodies) and len(ids) >= 0.5 * len(events) and len(events) > 1:
            proposal.declaration["id"] = each.path
            if not all(is_uuid(str(value)) for value in each.values[:100]):
                proposal.needs.append(f"id: {short(each.path)}, else an event that is sent twice counts twice")
            return
        if len(ids) >= _NAMED * len(each.values) and len(events) > 1:
            without = f"; {lacking:,} events lack it and would be refused" if lacking else ""
            proposal.hints.append(
                f"{short(each.path)} looks like an id ({len(ids):,} of {len(each.values):,} values differ{without}): "
                "declare id, and a second event with its value is a duplicate"
            )
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

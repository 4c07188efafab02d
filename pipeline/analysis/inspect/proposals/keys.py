"""The key of a stream: the Kafka key, or the member that names the thing of which the events tell."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

import orjson

from astrocyte.pipeline.analysis.inspect.forms import Opened
from astrocyte.pipeline.analysis.inspect.proposals.proposal import SHARE, Proposal, Seen, looks_like_times, snake
from astrocyte.pipeline.console import short
from astrocyte.schemas.contract import Event
from astrocyte.schemas.declarations import DEBEZIUM, KeyReading
from astrocyte.schemas.errors import InvalidEvent
from astrocyte.schemas.json.kafka_keys import key_text
from astrocyte.schemas.values import single

__all__ = ["ID_NAMES", "NAMED", "POSITIONS", "identifies", "key_rank", "propose_key", "repartitioned"]

_ALIKE: Final = 0.8
"""Share of the events in which a member has to be the Kafka key so that it is what the key means."""
NAMED: Final = 0.8
"""Share of the events that must have a member which is named like a key, or an id, so that it is proposed."""
_HEAVIEST: Final = 0.5
"""Share of the events from which on one value says that a member without the name of a key is a kind of events."""
_MOST_DISTINCT: Final = 0.7
"""Greatest share of different values: the things of which events tell come back."""
_FEW: Final = 20
"""Number of messages up to which different Kafka keys say nothing: those of few things may not have come back yet."""
_LEAST_DISTINCT: Final = 5
"""Fewest values of a member without the name of a key: fewer are kinds of events or things rather than things."""
_LONGEST: Final = 64
"""Most characters of the values of such a member: longer ones are messages."""
_NUMERALS: Final = 0.3
"""Share of numbers written as text from which on such a member is a measurement."""
_NUMERAL: Final = re.compile(r"[-+]?\d+([.,]\d+)?")
_UNWORDED: Final = 2
"""Rank of a key whose name is neither that of a key nor of an id."""
_THINGS: Final = (
    r"user|customer|device|sensor|host|session|account|acct|card|vehicle|vessel|ship|machine|client|player|agent|node|"
    r"room|station|symbol|ticker|visitor|member|tenant|meter|truck|car|patient|robot|pump|asset|ward|person|employee|"
    r"driver|subscriber|peer|runner|server|instance|container|pod|terminal|gateway|order|product|sku"
)
_NAMES: Final = (
    r"ip|ipv4|ipv6|addr|address|hostname|username|login|email|mac|imei|imsi|iccid|msisdn|phone|vin|plate|cookie|mmsi|imo|"
    r"callsign|serial|iban|uid|eui|deveui|partitionkey"
)
_IDS: Final = r"id|key|uuid|guid|no|number"
_MARKS: Final = rf"{_IDS}|{_NAMES}|name|code|ref|hash|sn"
_THING: Final = re.compile(
    rf"(?:^|_)(?:{_NAMES}|(?:{_THINGS})(?:{_MARKS})?)$|(?:^|_)(?:{_THINGS})_(?:\w+_)?(?:{_MARKS})$"
)
"""A name that ends in that of a thing or of what identifies one: ``device``, ``userId``, ``remote_addr``.

What follows the name of a thing may be any property of it: ``vessel_type``, ``device_temperature``.
"""
_ID_WORDS: Final = re.compile(rf"(?:^|_)(?:{_IDS})$")
_KINDS: Final = re.compile(
    r"(?:^|_)(?:type|kind|class|category|status|state|level|severity|priority|phase|stage|mode|method|op|operation|action|"
    r"event|outcome|result|reason|currency|country|language|lang|locale|unit|version|env|environment|message|msg|text|"
    r"user_agent|traceparent|tracestate|color|colour|model|os|browser|source|protocol|scheme|query|referer|referrer)$"
)
"""Names of what divides events, or things, into kinds."""
ID_NAMES: Final = frozenset({"id", "uuid", "guid", "event_id", "event_uuid", "message_id", "msg_id", "record_id"})
_EVENT_IDS: Final = (ID_NAMES - {"id", "uuid", "guid"}) | {"ce_id"}
"""Names of what identifies an event, also where another source has given the same."""
POSITIONS: Final = re.compile(
    r"__index_level_\d+__|index|unnamed_\d+|row(?:_?(?:id|no|number))?|line_?(?:no|number)?|offset|seq"
)
"""Names of where an event stands in its table or file."""


def propose_key(
    proposal: Proposal,
    read: Sequence[tuple[Event, Opened]],
    seen: Sequence[Seen],
    *,
    form: str | None,
    partitions: int,
) -> None:
    """Propose the key of the events into ``proposal``: the member that the Kafka key is, else one that serves as key.

    A Kafka key that is no member is the key as it is; where nearly every message has one of its own, it names no thing.
    """
    events, keys = [event for event, _ in read], [each.record.key for _, each in read]
    kafka = [key for key in keys if key is not None]
    timed = proposal.declaration.get("time", {}).get("field")
    ranked = sorted(
        ((rank, each) for each in seen if each.path != timed and (rank := key_rank(each, len(events))) is not None),
        key=lambda item: item[0],
    )
    columns: Sequence[str] = ()
    if kafka and len(kafka) >= SHARE * len(keys) and ranked and _names_messages(kafka):
        best = ranked[0][1]
        _set_key(proposal, best, None, spread=partitions > 1)
        proposal.needs.append(f"key: {short(best.path)}, else nearly every event has a key of its own")
    elif kafka and len(kafka) >= SHARE * len(keys):
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
        elif reading is not None and not (form == DEBEZIUM and reading == "json"):
            proposal.declaration["key"] = {"field": "key", "reading": reading}
        columns = _columns_of(kafka) if reading == "json" and not alike else ()
        if columns:
            whole = "both" if len(columns) == 2 else "all of them"
            proposal.hints.append(
                f"the Kafka key has {len(columns)} columns, {_joined(columns)}: rules by key correlate by {whole}, "
                f"by {short(columns[-1])} alone also events whose {_joined(columns[:-1])} differ"
            )
    elif any(event.key is not None for event in events):
        if sum(event.key is not None for event in events) < SHARE * len(events) and ranked:
            _set_key(proposal, ranked[0][1], None)
    elif ranked:
        best = ranked[0][1]
        _set_key(proposal, best, None, spread=partitions > 1)
        proposal.needs.append(f"key: {short(best.path)}, else the events have no key")
    chosen = proposal.declaration.get("key")
    used = chosen if isinstance(chosen, str) else (chosen or {}).get("path", (chosen or {}).get("field"))
    others = [each.path for rank, each in ranked if each.path not in (used, *columns) and rank[0] < _UNWORDED]
    if others:
        proposal.hints.append(f"other keys: {', '.join(map(short, others[:4]))}")


def _names_messages(keys: Sequence[bytes]) -> bool:
    """Whether Kafka keys are ids of messages: nearly each is another."""
    return len(keys) >= _FEW and len(set(keys)) > _MOST_DISTINCT * len(keys)


def _columns_of(keys: Sequence[bytes]) -> tuple[str, ...]:
    """Members of keys that are JSON objects of several; none if they are not all of the same."""
    found = {_members_of(key) for key in keys[:100]}
    columns = found.pop() if len(found) == 1 else ()
    return columns if len(columns) > 1 else ()


def _members_of(key: bytes) -> tuple[str, ...]:
    value = orjson.loads(key)
    if isinstance(value, Mapping) and value.keys() == {"schema", "payload"}:
        value = value["payload"]
    return tuple(value) if isinstance(value, Mapping) else ()


def _joined(names: Sequence[str]) -> str:
    return " and ".join(filter(None, (", ".join(map(short, names[:-1])), short(names[-1]))))


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


def key_rank(each: Seen, events: int) -> tuple[int, int, float] | None:
    """How well a member of ``events`` events serves as their key, smaller is better; None for one that is no key.

    A key names things that come back: its values repeat, and most events have it. It is no time, no measurement, no
    position in a table, and no id of the event itself. First rank members that are named as what identifies a thing,
    then ids, then other text of several values; in each rank those nearer the top, and with more values.
    """
    values, name = each.values, snake(each.path.rpartition(".")[2])
    if any(isinstance(value, bool | float | list | Mapping) for value in values):
        return None
    if name in _EVENT_IDS or _KINDS.search(name) or POSITIONS.fullmatch(each.path) or POSITIONS.fullmatch(name):
        return None
    words = 0 if _THING.search(name) else 1 if _ID_WORDS.search(name) else _UNWORDED
    if len(values) < (SHARE if words == _UNWORDED else NAMED) * events or looks_like_times(name, values):
        return None
    counts = Counter(map(single.key_text, values))
    distinct = len(counts)
    if distinct < 2 or distinct > _MOST_DISTINCT * len(values):
        return None
    if words == _UNWORDED and not _names_things(values, counts):
        return None
    return words, each.path.count("."), -distinct


def identifies(name: str) -> bool:
    """Whether the name of a field says that its values identify something, so that they are no numbers."""
    last = snake(name.rpartition(".")[2])
    return bool(_THING.search(last) or _ID_WORDS.search(last)) or last in _EVENT_IDS


def _names_things(values: Sequence[Any], counts: Mapping[str | None, int]) -> bool:
    """Whether values under any name are short text of several kinds, of which none prevails, and no numbers."""
    if len(counts) < _LEAST_DISTINCT or max(counts.values()) > _HEAVIEST * len(values):
        return False
    if not all(isinstance(value, str) and len(value) <= _LONGEST for value in values):
        return False
    return sum(_NUMERAL.fullmatch(value.strip()) is not None for value in values) < _NUMERALS * len(values)

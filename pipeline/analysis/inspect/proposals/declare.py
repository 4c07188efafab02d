"""Proposing a declaration of a stream from a sample of its messages: decoder, key, id, nested fields."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from astrocyte.pipeline.analysis.inspect.forms import CsvForm, Forms, Opened, why_unreadable
from astrocyte.pipeline.analysis.inspect.proposals.guess import guessed_times
from astrocyte.pipeline.analysis.inspect.proposals.keys import ID_NAMES, NAMED, key_rank, propose_key
from astrocyte.pipeline.analysis.inspect.proposals.proposal import (
    ROWS,
    Proposal,
    Seen,
    propose_time,
    snake,
    with_keys,
)
from astrocyte.pipeline.console import short
from astrocyte.schemas.arrow.columns import column_name
from astrocyte.schemas.contract import Contract, Event, is_uuid, read_event
from astrocyte.schemas.declarations import DEBEZIUM
from astrocyte.schemas.errors import InvalidEvent
from astrocyte.schemas.json.kafka_keys import key_text
from astrocyte.schemas.values import single

__all__ = ["propose"]

_DEPTH: Final = 3
_PREFIX: Final = {"cloudevents": "data.", DEBEZIUM: "after.", "dna": "payload."}
"""Where the fields of an event stand in its envelope."""
_UNWRITABLE: Final = frozenset("`\n")
"""Characters that no name in an expression has: it stands in backquotes, in one line."""
_DECLARED: Final = frozenset({"json", "cloudevents", DEBEZIUM, "dna", "arrow", "avro"})


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
    # A declaration names no empty or blank member.
    seen = [each for each in _members(events, forms.opened).values() if each.path.rpartition(".")[2].strip()]
    guesses = guessed_times(seen, [each for _, each in read], len(events), is_file=is_file)
    odd = propose_time(proposal, events, seen, forms, is_file=is_file, guesses=guesses)
    if contract.event_type is None:
        propose_key(proposal, read, _writable(proposal, seen, len(events)), form=form, partitions=partitions)
        _propose_id(proposal, seen, events, form)
        _propose_paths(proposal, seen)
    if odd is not None:
        proposal.odd = with_keys(odd, proposal, events, seen)
    return proposal


def _writable(proposal: Proposal, seen: Sequence[Seen], events: int) -> list[Seen]:
    """The members whose names an expression can write; a hint names those of the others that may be the key."""
    odd = [each for each in seen if not _UNWRITABLE.isdisjoint(each.name)]
    if keys := [short(each.path) for each in odd if key_rank(each, events) is not None]:
        proposal.hints.append(
            f"left out as keys: {', '.join(keys[:4])}, because expressions of rules can write no name with a backquote "
            "or a line end"
        )
    return [each for each in seen if each not in odd]


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


# -- id and paths ------------------------------------------------------------------------------------------------------


def _propose_id(proposal: Proposal, seen: Sequence[Seen], events: Sequence[Event], form: str | None) -> None:
    """A member that identifies an event: nearly all values are different, where they are not the id already."""
    if form not in ROWS or all(event.event_id is not None for event in events):
        return
    for each in seen:
        if snake(each.path) not in ID_NAMES or len(each.values) < NAMED * len(events):
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
        if len(ids) >= NAMED * len(each.values) and len(events) > 1:
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
        if each.path == each.name or each.name in taken or "." not in each.path:
            continue
        name = re.sub(r"\W", "_", each.name)
        if any(isinstance(value, list) for value in each.values[:5]) or len(fields) >= 40:
            continue
        fields[name] = {"path": each.path}
    if fields:
        proposal.declaration["fields"] = fields
        named = ", ".join(map(short, list(fields)[:3]))
        proposal.needs.append(f"fields: {named}, else the members of objects are JSON text")

"""Which form the messages of a topic have: the decoder or envelope by which each would be read."""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import orjson

from astrocyte.agents.ingest.csv_lines import DELIMITERS
from astrocyte.agents.ingest.decoders import ARROW, DECODERS, Decoder, Decoders, run_decoder
from astrocyte.schemas.contract import ENVELOPES, Contract, envelope_of
from astrocyte.schemas.errors import InvalidEvent
from astrocyte.schemas.frames import Frame
from astrocyte.schemas.json.reader import RawRecord, read_body

__all__ = [
    "MAJORITY",
    "CsvForm",
    "Forms",
    "Opened",
    "avro_schemas",
    "csv_form",
    "forms_of",
    "why_unreadable",
]

MAJORITY: Final = 0.95
"""Share of the messages from which on a form is that of a topic, and the others are strays."""
_NAME: Final = re.compile(r"[A-Za-z_@][\w.@ -]*")


@dataclass(frozen=True, slots=True)
class Opened:
    """One message as the object that it holds, before it is read as an event."""

    record: RawRecord
    body: Mapping[str, Any]
    envelope: str


@dataclass(slots=True)
class Forms:
    """Messages by form."""

    counts: Counter[str] = field(default_factory=Counter)
    """By ``json``, ``mono``, ``cloudevents``, ``debezium``, ``dna``, ``arrow``, the name of a decoder, ``tombstone``
    and ``unreadable``."""
    opened: list[Opened] = field(default_factory=list)
    unreadable: list[RawRecord] = field(default_factory=list)

    @property
    def known(self) -> Counter[str]:
        """Messages that hold an event, by form; ``json`` includes mono events where there are both."""
        known = Counter({name: n for name, n in self.counts.items() if name not in ("tombstone", "unreadable")})
        if known["json"] and known["mono"]:
            known["json"] += known.pop("mono")
        return +known

    @property
    def main(self) -> str | None:
        """The form of nearly all messages that hold an event, if there is one; a few unreadable ones do not count."""
        known = self.known
        if not known or self.counts["unreadable"] > known.total():
            return None
        ((name, count),) = known.most_common(1)
        return name if count >= MAJORITY * known.total() else None

    @property
    def strays(self) -> list[Opened]:
        """Opened messages of another form than the main one."""
        main = self.main
        same = {"json", "mono"} if main == "json" else {main}
        return [each for each in self.opened if each.envelope not in same] if main in ENVELOPES else []

    def usual(self) -> Forms:
        """The messages without the strays."""
        strays = set(map(id, self.strays))
        return Forms(self.counts, [each for each in self.opened if id(each) not in strays], self.unreadable)


def forms_of(topic: str, partition: int, records: Sequence[RawRecord], decoders: Decoders, found: Forms) -> None:
    """Add the messages of one partition to ``found``."""
    contract = decoders.contracts.of_topic(topic)
    names = {id(decoder): name for name, decoder in DECODERS.items()}
    for record in records:
        (decoder,) = decoders.chosen([record], contract)
        if record.value is None:
            found.counts["tombstone"] += 1
        elif decoder is ARROW:
            found.counts["arrow"] += 1
        elif decoder.is_json:
            _open(record, contract, decoder.envelope, found)
        else:
            name = names.get(id(decoder), contract.decoder or "own")
            made = _decoded(record, decoder, topic, partition)
            found.counts["unreadable" if made is None else name] += 1
            if made is None:
                found.unreadable.append(record)
            elif not isinstance(made, Frame):
                found.opened += [Opened(each, orjson.loads(each.value or b"{}"), "json") for each in made]


def _open(record: RawRecord, contract: Contract, envelope: str | None, found: Forms) -> None:
    try:
        body, cloud = read_body(record, contract, envelope)
    except (InvalidEvent, orjson.JSONDecodeError, UnicodeDecodeError):
        found.counts["unreadable"] += 1
        found.unreadable.append(record)
        return
    name = cloud or envelope_of(body, contract)
    found.counts[name] += 1
    found.opened.append(Opened(record, body, name))


def _decoded(record: RawRecord, decoder: Decoder, topic: str, partition: int) -> Frame | list[RawRecord] | None:
    """What a decoder makes of a message; None for one that it refuses."""
    try:
        return run_decoder(decoder, record, topic, partition)
    except InvalidEvent:
        return None


# -- forms that need a declaration -----------------------------------------------------------------------------------


def avro_schemas(records: Sequence[RawRecord]) -> list[int]:
    """Ids of the schemas, if the messages are in Confluent's wire format."""
    values = [record.value for record in records if record.value is not None]
    if not values or not all(len(value) > 5 and value[0] == 0 for value in values):
        return []
    return sorted({int.from_bytes(value[1:5], "big") for value in values})


@dataclass(frozen=True, slots=True)
class CsvForm:
    """Lines of delimited values."""

    columns: tuple[str, ...]
    delimiter: str
    named: bool
    """Whether the first message gave the names of the columns."""


def csv_form(records: Sequence[RawRecord]) -> CsvForm | None:
    """The form of the messages if they are lines of delimited values, at least two in each line."""
    try:
        strings = [record.value.decode() for record in records if record.value is not None]
    except UnicodeDecodeError:
        return None
    if any(_is_array(text) for text in strings[:100]):
        return None  # the comma divides its members
    for delimiter in DELIMITERS:
        try:
            rows = [row for text in strings for row in csv.reader(io.StringIO(text), delimiter=delimiter, strict=True)]
        except csv.Error:
            continue
        widths = {len(row) for row in rows if row}
        if len(widths) != 1 or (width := widths.pop()) < 2:
            continue
        first = rows[0]
        named = len(rows) > 1 and len(set(first)) == width and all(_NAME.fullmatch(text) for text in first)
        named = named and not any(row == first for row in rows[1:]) and any(_is_number(text) for text in rows[1])
        columns = tuple(first) if named else tuple(f"column_{number}" for number in range(1, width + 1))
        return CsvForm(columns, delimiter, named)
    return None


def why_unreadable(forms: Forms) -> str:
    """Why none of the messages holds an event."""
    values = [record.value for record in forms.unreadable if record.value is not None]
    if values and all(map(_is_array, values)):
        return (
            "the messages are JSON arrays; give each event a message or line of its own, or declare a decoder of "
            "your own that divides them"
        )
    return "no message holds an event that can be read"


def _is_array(text: str | bytes) -> bool:
    try:
        return isinstance(orjson.loads(text), list)
    except orjson.JSONDecodeError:
        return False


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True

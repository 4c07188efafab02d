"""Decoders: from Kafka messages to events. JSON records and frames are read in bulk, other forms one by one.

::

    @register_decoder("csv", content_type="text/csv")
    def csv(record):                                   # one message: key, value, headers, offset, timestamp in ms
        value, room = record.value.decode().split(",")
        return {"value": float(value), "key": room}    # an event, like a JSON record; or a list of them; or a Frame

A stream's messages go to the decoder that its declaration names (``decoder:`` under ``streams:`` of a rule file). Where
none is declared, a message goes to the decoder of its ``content-type`` header, else to the first that recognises its
value, else it is a frame or a JSON record, whose envelope is recognised by its members (`schemas.contract`).
A recogniser that raises recognises nothing, is named in one warning, and counted (`RECOGNISE_FAILED`).
InvalidEvent, or any other exception except a TransientError, makes the message a dead letter with that reason.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from typing import Any, Final

import numpy as np

from astrocyte.schemas.arrow.stream import ARROW_MAGIC
from astrocyte.schemas.contract import ENVELOPES, FRAME_ROW, Contract, Contracts
from astrocyte.schemas.errors import AstrocyteError, InvalidEvent, InvalidSettings, TransientError, wrong_return
from astrocyte.schemas.frames import CONTENT_TYPE, Frame, decode_frame
from astrocyte.schemas.ids import ROW_BITS, Ids, format_ids, place_ids
from astrocyte.schemas.json.reader import (
    JSON_CONTENT_TYPE,
    ROW_ALONE,
    KafkaRecord,
    RawRecord,
    first_offset,
    retried_rows,
)
from astrocyte.schemas.json.text import dumps, loads
from astrocyte.schemas.registry import Registry, described, one_line, takes

__all__ = [
    "ARROW",
    "DECODERS",
    "JSON",
    "RECOGNISE_FAILED",
    "REFUSED_HEADER",
    "Decoder",
    "Decoders",
    "chosen_decoders",
    "of_retried",
    "register_decoder",
    "row_ids",
    "run_decoder",
]

logger = logging.getLogger(__name__)

RECOGNISE_FAILED: Final[Counter[str]] = Counter()
"""Messages of this process on which the ``recognise`` of a decoder raised, by the decoder's name."""
REFUSED_HEADER: Final = "astrocyte_refused"
"""First header of what stands for a row of a file, or a batch of a topic, of which no event can be read: the reason."""


@dataclass(frozen=True, slots=True)
class Decoder:
    """Decoder of one form of messages."""

    definition: Callable[[KafkaRecord], Any]
    content_type: str | None = None
    recognise: Callable[[bytes], bool] | None = None
    envelope: str | None = None
    """For JSON records, which are read in bulk: their envelope; None where each is recognised by its members."""
    configure: Callable[[Contract, Mapping[str, Any]], Callable[[KafkaRecord], Any]] | None = None
    """Makes ``definition`` for one stream, from its contract and the options of its declaration."""
    name: str = ""
    """Name under which it is registered."""

    @property
    def is_json(self) -> bool:
        """Whether messages are JSON records."""
        return self is JSON or self.envelope is not None


def _read_arrow(record: KafkaRecord) -> Frame:
    return decode_frame(record.value or b"")


def _refuse(record: KafkaRecord) -> Any:
    raise InvalidEvent(record.headers[0][1].decode(errors="replace"))


def _read_json(record: KafkaRecord) -> Any:
    return loads(record.value or b"")


ARROW: Final = Decoder(_read_arrow, CONTENT_TYPE, lambda value: value.startswith(ARROW_MAGIC), name="arrow")
JSON: Final = Decoder(_read_json, JSON_CONTENT_TYPE, lambda _value: True, name="json")
_REFUSED: Final = Decoder(_refuse)
_ROW: Final = Decoder(_read_json, envelope=FRAME_ROW)


def _configured(module: str) -> Decoder:
    """A shipped decoder that must be declared: ``astrocyte.agents.ingest.<module>`` is loaded where it is."""

    def configure(contract: Contract, options: Mapping[str, Any]) -> Callable[[KafkaRecord], Any]:
        found: Callable[[KafkaRecord], Any] = import_module(f"astrocyte.agents.ingest.{module}").configure(
            contract, options
        )
        return found

    return Decoder(_undeclared, configure=configure)


def _undeclared(_record: KafkaRecord) -> Any:
    raise InvalidEvent("this decoder needs a declaration of its stream; add it under streams: of the rule file")


_SHIPPED: Final[dict[str, Decoder]] = {
    "arrow": ARROW,
    "json": JSON,
    "avro": _configured("avro"),
    "csv": _configured("csv_lines"),
    **{name: Decoder(_read_json, envelope=name) for name in ENVELOPES if name not in ("json", "mono")},
}


def _convert(name: str, found: Any) -> Decoder:
    decoder = found if isinstance(found, Decoder) else Decoder(found)
    if not takes(decoder.definition, 1):
        raise InvalidSettings(
            f"decoder {name!r}: expected a function of a message, got {described(decoder.definition)}"
        )
    if not isinstance(decoder.content_type, str | None) or not (decoder.content_type or "").isascii():
        raise InvalidSettings(
            f"decoder {name!r}: expected content_type to be text in ASCII, got {described(decoder.content_type)}"
        )
    if decoder.recognise is not None and not takes(decoder.recognise, 1):
        raise InvalidSettings(
            f"decoder {name!r}: expected recognise to be a function of the value, got {described(decoder.recognise)}"
        )
    return decoder if decoder.name else replace(decoder, name=name)


DECODERS: Final[Registry[Decoder]] = Registry("decoder", group="astrocyte.decoders", shipped=_SHIPPED, convert=_convert)
"""Decoders by name."""


class Decoders:
    """The decoders of a set of contracts, each configured once. Raises InvalidSettings for an unknown one."""

    def __init__(
        self,
        contracts: Contracts,
        options: Callable[[str], Mapping[str, Any]] = lambda _decoder: {},
        *,
        json_only: bool = False,
    ) -> None:
        """``options``: settings of a decoder by its name, under those of a declaration.

        ``json_only``: the messages are the rows of files. They are JSON records, whatever other decoder is declared.
        """
        self.contracts = contracts
        self._json_only = json_only
        self._of_stream: dict[str, Decoder] = {}
        for name, declaration in contracts.declared.items():
            if declaration.decoder is None:
                continue
            chosen = declaration.decoder
            decoder = DECODERS.get(chosen.name)
            if json_only and not decoder.is_json:
                self._of_stream[name] = JSON
                continue
            if decoder.configure is not None:
                given = {**options(chosen.name), **chosen.options}
                decoder = replace(decoder, definition=decoder.configure(contracts.of_stream(name), given))
            elif chosen.options:
                odd = next(iter(chosen.options))
                raise InvalidSettings(f"stream {name!r}: decoder {chosen.name!r} takes no option {odd!r}; leave it out")
            if chosen.name == "json":
                decoder = replace(decoder, envelope="json")
            self._of_stream[name] = decoder

    def chosen(self, records: Sequence[KafkaRecord], contract: Contract) -> list[Decoder]:
        """The decoder of each message of a stream."""
        declared = None if contract.declaration is None else self._of_stream.get(contract.stream)
        chosen = chosen_decoders(records) if declared is None else [declared] * len(records)
        for number, record in enumerate(records):
            if record.headers and record.headers[0][0] == REFUSED_HEADER:
                chosen[number] = _REFUSED
        return chosen


def of_retried(record: KafkaRecord, decoder: Decoder) -> Decoder:
    """The decoder of a message that was a dead letter: ``decoder``, which its topic has, unless it is a frame's row."""
    if retried_rows(record) != ROW_ALONE:
        return decoder
    return ARROW if record.value is not None and record.value.startswith(ARROW_MAGIC) else _ROW


def register_decoder(
    name: str,
    function: Callable[[KafkaRecord], Any] | None = None,
    *,
    content_type: str | None = None,
    recognise: Callable[[bytes], bool] | None = None,
) -> Any:
    """Register a decoder for another form of messages; without ``function`` a decorator.

    ``content_type`` is the value of their header ``content-type``; ``recognise`` tests the value of a message that has
    no known ``content-type``. A decoder with neither reads the streams whose declaration names it. Raises
    InvalidSettings.
    """

    def add(given: Callable[[KafkaRecord], Any]) -> Callable[[KafkaRecord], Any]:
        DECODERS.register(name, Decoder(given, content_type, recognise, name=name))
        return given

    return add if function is None else add(function)


def chosen_decoders(records: Sequence[KafkaRecord]) -> list[Decoder]:
    """The decoder of each message; raises for none. One comparison per message where no others are registered."""
    shipped = DECODERS.shipped
    own = [decoder for name, decoder in DECODERS.items() if name not in shipped]
    if not own:
        return [
            ARROW if record.value is not None and record.value.startswith(ARROW_MAGIC) else JSON for record in records
        ]
    by_type = {decoder.content_type.lower().encode(): decoder for decoder in own if decoder.content_type is not None}
    recognisers = [decoder for decoder in own if decoder.recognise is not None]
    return [_choose(record, by_type, recognisers) for record in records]


def _choose(record: KafkaRecord, by_type: Mapping[bytes, Decoder], recognisers: Sequence[Decoder]) -> Decoder:
    for name, value in record.headers:
        if name.lower() == "content-type" and value is not None:
            found = by_type.get(bytes(value).partition(b";")[0].strip().lower())
            if found is not None:
                return found
    if record.value is None:
        return JSON
    for decoder in recognisers:
        if _recognises(decoder, record.value):
            return decoder
    return ARROW if record.value.startswith(ARROW_MAGIC) else JSON


def _recognises(decoder: Decoder, value: bytes) -> bool:
    """Whether a decoder recognises a value. It is asked about messages of every stream, so it can refuse none."""
    try:
        return decoder.recognise is not None and bool(decoder.recognise(value))
    except MemoryError:
        raise
    except (Exception, SystemExit) as error:  # noqa: BLE001  whatever it raises, the message may be of another decoder
        if not RECOGNISE_FAILED[decoder.name]:
            logger.warning(
                "recognise of decoder %r failed: %s; it is given the value as bytes. Messages on which it fails are "
                "not read by this decoder (said once)",
                decoder.name, one_line(error),
            )  # fmt: skip
        RECOGNISE_FAILED[decoder.name] += 1
        return False


def row_ids(record: KafkaRecord, topic: str, partition: int, count: int) -> Ids:
    """Ids of the events that a message holds, made of its place. Raises InvalidEvent for too many of them."""
    if count > 1 << ROW_BITS:
        raise InvalidEvent(f"the message holds {count:,} events; expected at most {1 << ROW_BITS:,}, divide it")
    return place_ids(topic, partition, np.full(count, first_offset(record), np.int64), np.arange(count))


def _events_of(decoder: Decoder, found: Any) -> list[Mapping[str, Any]]:
    """The events that a decoder returned. Raises PluginError where it returned anything else."""
    if isinstance(found, Mapping):
        return [found]
    name = f"decoder {decoder.name!r}"
    expected = "an event (a mapping), a list of them or a Frame"
    if isinstance(found, str | bytes) or not isinstance(found, Iterable):
        raise wrong_return(name, found, expected)
    rows = list(found)
    for row in rows:
        if not isinstance(row, Mapping):
            raise wrong_return(name, found, f"{expected}; an element of it is a {type(row).__name__}")
    return rows


def run_decoder(decoder: Decoder, record: KafkaRecord, topic: str, partition: int) -> Frame | list[RawRecord]:
    """Result of a registered decoder for one message: a frame, or JSON records. Raises InvalidEvent.

    If a message holds several events, their ids are made of the message's topic, partition and offset and the row.
    """
    try:
        found = decoder.definition(record)
        if isinstance(found, Frame):
            return found
        rows = _events_of(decoder, found)
        ids = format_ids(row_ids(record, topic, partition, len(rows))) if len(rows) > 1 else []
        records = []
        for row, event in enumerate(rows):
            body = dict(event)
            if ids and body.get("event_id") is None:
                body["event_id"] = ids[row]
            value = dumps(body)
            records.append(RawRecord(record.offset, record.timestamp, record.key, value, record.headers))
    except TransientError:
        raise  # nothing is wrong with the message
    except AstrocyteError as error:
        raise InvalidEvent(str(error)) from error
    except (Exception, SystemExit) as error:
        raise InvalidEvent(f"decoder {decoder.name!r} failed: {type(error).__name__}: {error}") from error
    return records

"""Messages of topics: frames, JSON and other forms with their headers, records that sinks read, dead letters."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from functools import partial

from astrocyte.agents.ingest.decode import decode_chunk
from astrocyte.agents.ingest.decoders import Decoders
from astrocyte.agents.ingest.letters import events_in
from astrocyte.agents.loading import load_rules
from astrocyte.pipeline.kafka.record import ConsumedRecord
from astrocyte.pipeline.recording.dead_letters import LetterFilter, letters_of, retried_messages
from astrocyte.pipeline.roles.sink.decode import decode_for_sink
from astrocyte.schemas.contract import Contracts
from astrocyte.schemas.events import DeadLetter
from astrocyte.schemas.frames import Frame, decode_frame, encode_frame
from astrocyte.schemas.json.reader import RawRecord, frame_to_records
from astrocyte.schemas.topics import DEAD_LETTERS
from tests.fuzz.target import Check, Target, joined, parts
from tests.support import mutants

__all__ = ["TARGETS"]

TOPIC = "mono.A"
MOST_RECORDS = 6
DECLARED = """
key: {field: k, path: k}, time: {field: at, unit: ms}, id: id,
fields: {x: float64, n: int64, b: bool, s: string, inner: {type: float64, path: deep.a}}"""
_TIME = struct.Struct(">q")


def _decoders(declaration: str) -> Decoders:
    rules = mutants.RULES + (f"streams: [{{name: A, {declaration}}}]\n" if declaration else "")
    return Decoders(Contracts(load_rules(rules).streams))


def _check(records: list[RawRecord], decoders: Decoders, *, counted: bool) -> None:
    """Each message is in frames or letters, and what was read can be used, written and read again."""
    frames, letters = decode_chunk(TOPIC, 0, records, decoders=decoders)
    for letter in letters:
        assert letter.reason
        assert 0 <= letter.offset < len(records)
        assert DeadLetter.model_validate_json(letter.model_dump_json()) == letter
    if counted:
        assert sum(item.frame.num_rows for item in frames) + len(letters) >= len(records)
    for item in frames:
        _use(item.frame)


def _use(frame: Frame) -> None:
    frame.batch.validate(full=True)
    assert len(frame.timestamps()) == len(frame.id_strings()) == frame.num_rows
    again = decode_frame(encode_frame(frame))
    assert again.num_rows == frame.num_rows
    assert again.id_strings() == frame.id_strings()
    if frame.num_rows <= 50:
        assert len(frame_to_records(frame)) == frame.num_rows


def _values(declaration: Callable[[], str], *, counted: bool = True) -> Check:
    decoders = _decoders(declaration())

    def check(data: bytes) -> None:
        found = parts(data, MOST_RECORDS)
        records = [RawRecord(number, mutants.TIME_MS, b"k", value) for number, value in enumerate(found)]
        _check(records, decoders, counted=counted)

    return check


def _open_headers() -> Check:
    decoders = _decoders("")

    def check(data: bytes) -> None:
        time, key, value, *given = parts(data, 20) + [b""] * 3
        time_ms = _TIME.unpack(time)[0] if len(time) == _TIME.size else mutants.TIME_MS
        headers = [(name.decode(errors="replace"), of) for name, of in zip(given[::2], given[1::2], strict=False)]
        _check([RawRecord(0, time_ms, key or None, value, headers)], decoders, counted=True)

    return check


def _header_seeds() -> Iterator[bytes]:
    for kind in ("headers", "cloudevents", "json"):
        for record in mutants.KINDS[kind]()[1]:
            given = [part for name, value in record.headers for part in (name.encode(), value)]
            yield joined(_TIME.pack(record.timestamp), record.key or b"", record.value or b"", *given)
    yield joined(_TIME.pack(-1), b'{"k": 1}', b"", b"content-type", b"application/vnd.apache.arrow.stream")


def _seeds(kind: str) -> Iterator[bytes]:
    records = mutants.KINDS[kind]()[1]
    yield from (record.value or b"" for record in records)
    if kind != "frames":
        yield joined(*(record.value or b"" for record in records[:MOST_RECORDS]))


def _declared_seeds() -> Iterator[bytes]:
    first = b'{"k": 7, "id": "i", "at": 1700000000000, "x": 1.5, "n": 3, "b": true, "s": "t", "deep": {"a": 1.5}}'
    other = b'{"k": "8", "at": "1700000000001", "x": "1e400", "n": 9223372036854775808, "list": [1, {"a": null}]}'
    yield from (first, other, joined(first, other, first))


def _declaration(kind: str) -> Callable[[], str]:
    return lambda: mutants.KINDS[kind]()[0]


def _open_records() -> Check:
    """Records of outputs and dead letters, as sinks and ``astrocyte dead-letters`` read them."""
    topics = ("multi.events", "alerts", "simulations", DEAD_LETTERS)

    def check(data: bytes) -> None:
        key, value, name, given = (*parts(data, 4), b"", b"", b"", b"")[:4]
        headers = [(name.decode(errors="replace"), given)] if name else []
        for topic in topics:
            record = RawRecord(0, mutants.TIME_MS, key or None, value, headers)
            found = decode_for_sink(topic, 0, [record])
            assert len(found.items) + len(found.letters) + len(found.unread) == 1
        letters = letters_of([ConsumedRecord(DEAD_LETTERS, 0, 0, mutants.TIME_MS, key or None, value, tuple(headers))])
        retried_messages([each.letter for each in letters.found])
        for each in letters.found:
            LetterFilter(key="k", reason="x")(each)
            events_in(each.letter)

    return check


def _record_seeds() -> Iterator[bytes]:
    from astrocyte.agents.sinks.testing import alert, multi_event
    from astrocyte.schemas.json.text import dumps

    yield joined(b"k", dumps(multi_event(1)), b"ce_timedout", b"true")
    yield joined(b"", dumps(alert(1)))
    decoders = _decoders("")
    _, letters = decode_chunk(TOPIC, 0, [RawRecord(3, mutants.TIME_MS, b"k", b"{", [("a", b"b")])], decoders=decoders)
    yield from (joined(b"k", each.model_dump_json().encode()) for each in letters)


TARGETS = [
    Target("json", partial(_values, str), partial(_seeds, "json")),
    Target("declared", partial(_values, lambda: DECLARED), _declared_seeds),
    Target("cloudevents", partial(_values, _declaration("cloudevents")), partial(_seeds, "cloudevents")),
    Target("debezium", partial(_values, _declaration("debezium"), counted=False), partial(_seeds, "debezium")),
    Target("csv", partial(_values, _declaration("csv"), counted=False), partial(_seeds, "csv")),
    Target("avro", partial(_values, _declaration("avro")), partial(_seeds, "avro")),
    Target("frames", partial(_values, str, counted=False), partial(_seeds, "frames"), in_place=True),
    Target("headers", _open_headers, _header_seeds),
    Target("records", _open_records, _record_seeds),
]

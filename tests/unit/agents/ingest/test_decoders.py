"""Messages of other formats: chosen by content type or by content, and counted as JSON records are."""

import logging
from decimal import Decimal
from importlib.metadata import EntryPoint

import numpy as np
import orjson
import pytest

from astrocyte import Frame, encode_frame
from astrocyte.agents.ingest import decoders
from astrocyte.agents.ingest.decode import decode_chunk
from astrocyte.agents.ingest.decoders import Decoders, register_decoder
from astrocyte.schemas import registry as registries
from astrocyte.schemas.contract import Contracts
from astrocyte.schemas.declarations import StreamDeclaration
from astrocyte.schemas.errors import InvalidEvent, InvalidSettings, TransientError
from astrocyte.schemas.json.reader import RawRecord

CSV = (("content-type", b"text/csv; charset=utf-8"),)
FRAME = Frame.from_columns("other", "run", {"timestamp": np.array([1_700_000_000_000_000]), "key": ["k"]})


@pytest.fixture(autouse=True)
def _own_registry(monkeypatch):
    registry = decoders.Registry(
        "decoder", group="no.such.group", shipped={"arrow": decoders.ARROW, "json": decoders.JSON}
    )
    monkeypatch.setattr(decoders, "DECODERS", registry)
    decoders.RECOGNISE_FAILED.clear()


def record(offset: int, value: bytes | None, headers: object = ()) -> RawRecord:
    return RawRecord(offset, 1_700_000_000_000, b"room 1", value, headers)


def csv(message: RawRecord):
    fields = message.value.decode().split(",")
    if len(fields) != 2:
        raise InvalidEvent(f"{len(fields)} fields; expected 2")
    return {"timestamp": fields[0], "value": float(fields[1])}


def test_messages_of_several_forms_are_read_in_offset_order():
    register_decoder("csv", csv, content_type="text/csv")
    chunk = [
        record(3, b"2025-01-01T00:00:00Z,21.5", CSV),
        record(4, b'{"timestamp": "2025-01-01T00:00:01Z", "value": 1}'),
        record(5, encode_frame(FRAME)),
        record(6, b"2025-01-01T00:00:02Z,22.5", CSV),
    ]
    frames, letters = decode_chunk("mono.room", 0, chunk)
    assert [(item.frame.stream, item.offset) for item in frames] == [
        ("room", 3),
        ("room", 4),
        ("other", 5),
        ("room", 6),
    ]
    assert frames[0].frame.rows()[0]["value"] == 21.5
    assert frames[0].frame.rows()[0]["key"] == "room 1"
    assert letters == []


def test_a_decoder_keeps_numbers_that_are_not_finite_and_large_ones():
    def numbers(message: RawRecord):
        return {
            "value": float(message.value),
            "part": [np.float32("nan")],
            "whole": Decimal(2**62),
            "half": Decimal("0.5"),
        }

    register_decoder("csv", numbers, content_type="text/csv")
    chunk = [record(offset, value, CSV) for offset, value in enumerate((b"nan", b"-inf", b"1"))]
    frames, letters = decode_chunk("mono.room", 0, chunk)
    rows = [row for item in frames for row in item.frame.rows()]
    assert [repr(row["value"]) for row in rows] == ["nan", "-inf", "1.0"]
    assert [(row["whole"], row["half"]) for row in rows] == [(2**62, 0.5)] * 3
    assert letters == []


def test_a_message_that_a_decoder_refuses_is_a_dead_letter_with_its_bytes():
    register_decoder("csv", csv, content_type="text/csv")
    frames, letters = decode_chunk("mono.room", 0, [record(7, b"1,2,3", CSV), record(8, b"2025-01-01,x", CSV)])
    assert frames == []
    assert [(letter.offset, letter.reason) for letter in letters] == [
        (7, "3 fields; expected 2"),
        (8, "decoder 'csv' failed: ValueError: could not convert string to float: 'x'"),
    ]
    assert letters[0].payload_b64 == "MSwyLDM="


def test_several_events_of_one_message_have_reproducible_ids():
    register_decoder("lines", lambda message: [orjson.loads(line) for line in message.value.splitlines()],
                     recognise=lambda value: b"\n" in value)  # fmt: skip
    message = record(9, b'{"time": 1700000000, "value": 1}\n{"time": 1700000001, "value": 2}')
    first, again = (decode_chunk("mono.room", 0, [message])[0] for _ in range(2))
    assert [row["value"] for row in first[0].frame.rows()] == [1, 2]
    ids = first[0].frame.id_strings()
    assert len(set(ids)) == 2
    assert ids == again[0].frame.id_strings()
    assert first[0].offsets.tolist() == [9, 9]


def test_a_decoder_may_return_frames_and_a_recogniser_never_sees_tombstones():
    register_decoder("fixed", lambda _message: FRAME, recognise=lambda value: value.startswith(b"FX"))
    frames, letters = decode_chunk("mono.room", 0, [record(1, b"FX"), record(2, None)])
    assert [item.frame.stream for item in frames] == ["other"]
    assert [letter.offset for letter in letters] == [2]


def test_a_decoder_with_neither_content_type_nor_recognise_reads_the_streams_that_declare_it():
    register_decoder("pairs", csv)
    message = record(3, b"2025-01-01T00:00:00Z,21.5", CSV)
    contracts = Contracts([StreamDeclaration.model_validate({"name": "room", "decoder": "pairs"})])
    frames, letters = decode_chunk("mono.room", 0, [message], decoders=Decoders(contracts))
    assert [row["value"] for item in frames for row in item.frame.rows()] == [21.5]
    assert letters == []
    frames, letters = decode_chunk("mono.room", 0, [message])
    assert (frames, len(letters)) == ([], 1)


def test_an_installed_decoder_that_cannot_be_imported_refuses_no_frame(monkeypatch, caplog):
    broken = EntryPoint("broken_dec", "tests.support.broken_plugin:dec", "no.such.group")
    monkeypatch.setattr(registries, "entry_points", lambda group: [broken])
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            frames, letters = decode_chunk("mono.other", 0, [record(5, encode_frame(FRAME))])
            assert [item.frame.num_rows for item in frames] == [1]
            assert letters == []
    (line,) = [entry.getMessage() for entry in caplog.records]
    assert line.startswith("entry point 'broken_dec' in 'no.such.group'")


def test_messages_of_one_event_each_are_read_as_one_frame_with_the_rows_and_letters_of_each_alone():
    register_decoder("csv", csv, content_type="text/csv")
    values = [b"2025-01-01T00:00:00Z,1.5", b"1,2,3", b"2025-01-01T00:00:01Z,2.5", b"no time,3", b"x", b"2025-01-02,4"]
    chunk = [record(offset, value, CSV) for offset, value in enumerate(values)]
    frames, letters = decode_chunk("mono.room", 0, chunk)
    (item,) = frames
    assert (item.offset, item.last_offset, item.offsets.tolist(), item.numbers) == (0, 5, [0, 2, 5], None)
    assert [message.offset for message in item.received] == [0, 2, 5]
    singly = [decode_chunk("mono.room", 0, [message]) for message in chunk]
    alone = [each.frame for made, _ in singly for each in made]
    assert item.frame.rows() == [row for frame in alone for row in frame.rows()]
    assert item.frame.id_strings() == [text for frame in alone for text in frame.id_strings()]
    assert letters == [letter for _, refused in singly for letter in refused]
    assert [letter.offset for letter in letters] == [1, 3, 4]


def test_a_message_of_several_events_between_others_keeps_its_place():
    register_decoder("lines", lambda message: [orjson.loads(line) for line in message.value.splitlines()],
                     recognise=lambda _value: True)  # fmt: skip
    one, two = b'{"time": 1700000000, "value": 1}', b'{"time": 1700000000, "value": 2}\n{"time": 1, "value": 3}'
    chunk = [record(offset, value) for offset, value in enumerate((one, one, two, b"", two, one))]
    frames, letters = decode_chunk("mono.room", 0, chunk)
    assert [item.offsets.tolist() for item in frames] == [[0, 1], [2, 2, 4, 4], [5]]
    assert [None if item.numbers is None else item.numbers.tolist() for item in frames] == [None, [0, 1, 0, 1], None]
    assert letters == []
    singly = [item.frame for message in chunk for item in decode_chunk("mono.room", 0, [message])[0]]
    ids = [text for item in frames for text in item.frame.id_strings()]
    assert ids == [text for frame in singly for text in frame.id_strings()]
    assert len(set(ids)) == 7


def test_a_refused_event_among_several_messages_of_several_events_keeps_its_number():
    register_decoder("lines", lambda message: [orjson.loads(line) for line in message.value.splitlines()],
                     recognise=lambda _value: True)  # fmt: skip
    good, bad = b'{"time": 1700000000, "value": 1}', b'{"time": "never"}'
    chunk = [
        record(offset, b"\n".join(lines)) for offset, lines in enumerate([(good, bad, good), (bad, good), (good,) * 2])
    ]
    frames, letters = decode_chunk("mono.room", 0, chunk)
    (item,) = frames
    assert list(zip(item.offsets.tolist(), item.numbers.tolist(), strict=True)) == [
        (0, 0),
        (0, 2),
        (1, 1),
        (2, 0),
        (2, 1),
    ]
    assert [(letter.offset, letter.row) for letter in letters] == [(0, 1), (1, 0)]


@pytest.mark.parametrize(
    ("found", "reason"),
    [
        (None, "decoder 'odd' returned None; expected an event (a mapping), a list of them or a Frame"),
        (7, "decoder 'odd' returned 7 of type int; expected an event (a mapping), a list of them or a Frame"),
        ("{}", "decoder 'odd' returned '{}' of type str; expected an event (a mapping), a list of them or a Frame"),
        ([{"value": 1}, 2], "decoder 'odd' returned [{'value': 1}, 2] of type list; expected an event"),
    ],
)
def test_what_a_decoder_may_not_return_is_the_dead_letter_of_its_message_and_names_it(found, reason):
    def returns(message: RawRecord):
        return found if message.value == b"odd" else {"timestamp": 1_700_000_000_000_000, "value": 1.0}

    register_decoder("odd", returns, content_type="text/csv")
    frames, letters = decode_chunk("mono.room", 0, [record(3, b"odd", CSV), record(4, b"fine", CSV)])
    assert [letter.offset for letter in letters] == [3]
    assert letters[0].reason.startswith(reason)
    assert [item.offset for item in frames] == [4]


@pytest.mark.parametrize("raised", [TypeError, ValueError, TransientError, SystemExit])
def test_a_recogniser_that_raises_refuses_no_message_and_is_named_once_and_counted(raised, caplog):
    def recognise(_value: bytes) -> bool:
        raise raised("startswith\nfailed")

    register_decoder("hive", csv, recognise=recognise)
    register_decoder("lines", csv, recognise=lambda value: value.endswith(b"5"))
    chunk = [
        record(1, encode_frame(FRAME)),
        record(2, b'{"timestamp": "2025-01-01T00:00:01Z", "value": 1}'),
        record(3, b"2025-01-01T00:00:02Z,22.5"),
    ]
    with caplog.at_level(logging.WARNING):
        frames, letters = decode_chunk("mono.other", 0, chunk)
    assert ([item.offset for item in frames], letters) == ([1, 2, 3], [])
    (line,) = [entry.getMessage() for entry in caplog.records]
    assert line.startswith(f"recognise of decoder 'hive' failed: {raised.__name__}: startswith failed; it is given")
    assert dict(decoders.RECOGNISE_FAILED) == {"hive": 3}


def test_content_types_are_compared_without_regard_to_case():
    register_decoder("csv", csv, content_type="Text/CSV")
    frames, _ = decode_chunk("mono.room", 0, [record(3, b"2025-01-01T00:00:00Z,21.5", CSV)])
    assert [item.frame.rows()[0]["value"] for item in frames] == [21.5]


def test_a_content_type_that_no_header_can_hold_is_refused_when_it_is_registered():
    with pytest.raises(InvalidSettings, match="decoder 'csv': expected content_type to be text in ASCII, got "):
        decoders._convert("csv", decoders.Decoder(csv, "text/\udc80"))


def test_a_decoder_that_raises_is_named_by_its_registered_name():
    register_decoder("hive", lambda message: message.value.split(b",", 9)[9], recognise=lambda _value: True)
    _, letters = decode_chunk("mono.room", 0, [record(3, b"x")])
    assert letters[0].reason == "decoder 'hive' failed: IndexError: list index out of range"

"""CloudEvents that lack a required attribute, and records that only look like CloudEvents."""

from base64 import b64encode

import pytest

from astrocyte import load_rules, match
from astrocyte.agents.ingest.decode import decode_chunk
from tests.support.declared import decoders, message, read

_CLOUD = {"specversion": b"1.0", "id": b"9", "source": b"/s", "type": b"t"}


@pytest.mark.parametrize("stream", ["{name: a, decoder: cloudevents}", "{name: a}", None])
@pytest.mark.parametrize("missing", ["id", "source", "type"])
@pytest.mark.parametrize("empty", [False, True])
def test_a_binary_cloudevent_without_an_attribute_is_a_dead_letter_that_names_it(stream, missing, empty):
    present = {name: value for name, value in _CLOUD.items() if empty or name != missing}
    headers = [(f"ce_{name}", b"" if name == missing else value) for name, value in present.items()]
    records = [
        message({"value": 1}, headers=headers),
        message({"value": 2}, headers=[(f"ce_{name}", value) for name, value in _CLOUD.items()], offset=1),
    ]
    given = None if stream is None else decoders(stream)
    frames, letters = decode_chunk("mono.a", 0, records, decoders=given)
    assert [letter.reason for letter in letters] == [
        "expected a CloudEvent with the headers ce_specversion, ce_id, ce_source and ce_type; it has no ce_" + missing
    ]
    assert [row["value"] for item in frames for row in item.frame.event_fields()] == [2]
    assert len(decode_chunk("mono.a", 0, records[:1], decoders=given)[1]) == 1


def test_a_binary_cloudevent_with_text_names_what_it_lacks_and_not_json():
    text = [("ce_specversion", b"1.0"), ("ce_source", b"/s"), ("ce_type", b"t"), ("content-type", b"text/plain")]
    _, letters = decode_chunk("mono.a", 0, [message(b"21 degrees", headers=text)])
    assert letters[0].reason.endswith("it has no ce_id")


def test_a_structured_cloudevent_with_some_attributes_in_headers_is_read_from_its_value():
    body = {"specversion": "1.0", "id": "1", "source": "/s", "type": "t", "data": {"value": 3}}
    rows, letters, _ = read("{name: a, decoder: cloudevents}", message(body, headers=[("ce_specversion", b"1.0")]))
    assert (letters, [row["value"] for row in rows]) == ([], [3])


@pytest.mark.parametrize(
    ("body", "missing"),
    [
        ({"specversion": "1.0", "source": "/s", "type": "t", "data": {"value": 1}}, "id"),
        ({"specversion": "1.0", "id": "", "source": "/s", "type": "t", "data": {"value": 1}}, "id"),
        ({"specversion": "1.0", "id": "1", "source": "/s"}, "type"),
        ({"specversion": "1.0", "data": {"value": 1}}, "id, source, type"),
        ({"specversion": "1.0", "data_base64": "AA=="}, "id, source, type"),
    ],
)
def test_a_structured_cloudevent_without_attributes_is_a_dead_letter_also_where_no_decoder_is_declared(body, missing):
    wanted = f"expected a CloudEvent with specversion, id, source and type; it has no {missing}"
    for stream in ("{name: a, decoder: cloudevents}", "{name: a}"):
        _, letters, _ = read(stream, message(body))
        assert [letter.reason for letter in letters] == [wanted]
    _, letters = decode_chunk("mono.a", 0, [message(body), message({"value": 1}, offset=1)])
    assert [letter.reason for letter in letters] == [wanted]


@pytest.mark.parametrize(
    "body",
    [
        {"specversion": "2.1", "value": 1},
        {"specversion": "2.1", "type": "t", "value": 1},
        {"specversion": 1, "id": "1", "source": "/s", "value": 1},
        {"spec_version": "1.0", "id": "1", "source": "/s", "data": 2, "value": 1},
        {"id": "1", "source": "/s", "type": "t", "data": 2, "value": 1},
    ],
)
def test_a_flat_record_with_a_field_like_specversion_stays_one(body):
    frames, letters = decode_chunk("mono.a", 0, [message(body)])
    assert letters == []
    (row,) = frames[0].frame.event_fields()
    assert {name: row[name] for name in body} == body


def test_decoder_json_reads_a_record_that_looks_like_a_cloudevent_as_flat():
    rows, letters, _ = read("{name: a, decoder: json}", message({"specversion": "1.0", "data": "x"}))
    assert (letters, rows[0]["specversion"], rows[0]["data"]) == ([], "1.0", "x")


def _of_bytes(content: bytes | str, kind: str | None) -> dict:
    given = content if isinstance(content, str) else b64encode(content).decode()
    named = {} if kind is None else {"datacontenttype": kind}
    return {"specversion": "1.0", "id": "1", "source": "/s", "type": "t", "data_base64": given, **named}


_KINDS = [None, "application/json", "Application/JSON; charset=utf-8", "text/json", "application/vnd.acme+json"]


@pytest.mark.parametrize("kind", _KINDS)
@pytest.mark.parametrize("stream", ["{name: a, decoder: cloudevents}", "{name: a}"])
def test_json_in_base64_is_the_data_of_the_event_also_at_paths(stream, kind):
    declared = stream.replace("}", ", fields: {v: int64, w: {path: data.inner.w, type: int64}}}")
    rows, letters, _ = read(declared, message(_of_bytes(b'{"v": 6, "inner": {"w": 7}}', kind)))
    assert (letters, [(row["v"], row["w"]) for row in rows]) == ([], [(6, 7)])
    assert "data" not in rows[0]
    rules = load_rules(
        f"streams: [{declared}]\nrules: [{{name: r, seq: [{{as: x, stream: a, where: v == 6}}], emit: {{w: x.w}}}}]"
    )
    event = _of_bytes(b'{"v": 6, "inner": {"w": 7}}', kind) | {"partitionkey": "k", "time": "2026-11-01T09:00:00Z"}
    assert [each.emit["w"] for each in match(rules, [event])] == [7]


@pytest.mark.parametrize("kind", ["application/octet-stream", "text/plain", "application/jsonl", "image/json5"])
def test_bytes_of_another_type_stay_base64_text(kind):
    rows, letters, _ = read("{name: a}", message(_of_bytes(b'{"v": 6}', kind)))
    assert (letters, [row["data"] for row in rows]) == ([], ["eyJ2IjogNn0="])


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("%%%", "'data_base64' is '%%%'; expected base64 text"),
        ("eyJ2Ij", "'data_base64' is 'eyJ2Ij'; expected base64 text"),
        (b"{'v'", "'data_base64' holds no JSON, and the event has no datacontenttype, which stands for"),
        (b"\xff\xfe", "'data_base64' holds no JSON"),
    ],
)
def test_damaged_base64_or_json_is_a_dead_letter_with_its_reason(content, reason):
    rows, letters, _ = read("{name: a}", message(_of_bytes(content, None)))
    assert rows == []
    assert [letter.reason.startswith(reason) for letter in letters] == [True]


def test_the_binary_mode_is_as_before():
    headers = [(f"ce_{name}", value) for name, value in _CLOUD.items()]
    rows, letters, _ = read("{name: a}", message({"data_base64": "AA=="}, headers=headers))
    assert (letters, [row["data_base64"] for row in rows]) == ([], ["AA=="])


def _without_value(headers):
    return message(b"", headers=headers)._replace(value=None)


_DATA = {"key": "inner", "ce_id": "mine", "n": 1}


@pytest.mark.parametrize("stream", ["{name: a, decoder: cloudevents}", "{name: a}"])
@pytest.mark.parametrize("is_binary", [False, True])
@pytest.mark.parametrize(("kafka_key", "key"), [(b"k", "k"), (None, "pk")])
def test_members_of_the_data_are_fields_beside_the_key_and_the_attributes(stream, is_binary, kafka_key, key):
    attributes = _CLOUD | {"partitionkey": b"pk"}
    if is_binary:
        sent = message(_DATA, key=kafka_key, headers=[(f"ce_{name}", value) for name, value in attributes.items()])
    else:
        sent = message({name: value.decode() for name, value in attributes.items()} | {"data": _DATA}, key=kafka_key)
    rows, letters, _ = read(stream, sent)
    assert letters == []
    found = {name: rows[0].get(name) for name in ("key", "key_", "ce_id", "ce_id_", "ce_partitionkey", "n")}
    assert found == {"key": key, "key_": "inner", "ce_id": "9", "ce_id_": "mine", "ce_partitionkey": "pk", "n": 1}


def test_a_member_of_the_data_that_is_the_key_or_an_attribute_is_there_once():
    headers = [(f"ce_{name}", value) for name, value in (_CLOUD | {"partitionkey": b"pk"}).items()]
    rows, _, _ = read("{name: a}", message({"key": "pk", "ce_id": "9"}, key=b"pk", headers=headers))
    assert {"key_", "ce_id_"}.isdisjoint(name for name, value in rows[0].items() if value is not None)
    assert rows[0]["key"] == "pk"


def test_binary_data_that_are_neither_json_nor_text_are_a_dead_letter_that_names_their_content_type():
    headers = [(f"ce_{name}", value) for name, value in _CLOUD.items()]
    sent = message(b"\xff\xfe\x00", headers=[*headers, ("content-type", b"application/octet-stream")])
    rows, letters, _ = read("{name: a, decoder: cloudevents}", sent)
    assert rows == []
    assert letters[0].reason.startswith(
        "the data of the CloudEvent are 3 bytes of content type 'application/octet-stream', neither JSON nor text"
    )


@pytest.mark.parametrize("stream", ["{name: a, decoder: cloudevents}", "{name: a}"])
def test_a_cloudevent_without_data_is_an_event_in_both_modes(stream):
    structured = message({name: value.decode() for name, value in _CLOUD.items()})
    binary = _without_value([(f"ce_{name}", value) for name, value in _CLOUD.items()])
    both = [read(stream, sent) for sent in (structured, binary)]
    assert [letters for _, letters, _ in both] == [[], []]
    assert both[0][0] == both[1][0]


def test_a_message_without_value_and_attributes_is_a_tombstone():
    _, letters, _ = read("{name: a, decoder: cloudevents}", _without_value([("trace", b"1")]))
    assert [letter.reason for letter in letters] == ["expected an event, got a message without a value (a tombstone)"]

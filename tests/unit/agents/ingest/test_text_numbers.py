"""Numbers that are written as text, read as numbers where that is declared: from every decoder, frames and mappings."""

from __future__ import annotations

import io
import json
from decimal import Decimal
from typing import Any

import fastavro
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from astrocyte import Frame, InvalidRules, encode_frame, load_rules, match
from astrocyte.schemas.values.single import LEAST, MOST, number_of
from tests.support.declared import START_US, message, read

FIELDS = "fields: {amount: {type: float64, text: true}, count: {type: int64, text: true}}"
WRITTEN = {"amount": "220.22", "count": "9007199254740993"}
WANTED = (220.22, 9007199254740993)
AVRO = {
    "type": "record",
    "name": "Order",
    "fields": [{"name": "time", "type": "long"}, *({"name": name, "type": "string"} for name in WRITTEN)],
}


def avro() -> bytes:
    stream = io.BytesIO()
    fastavro.schemaless_writer(stream, fastavro.parse_schema(AVRO), {"time": START_US // 1000, **WRITTEN})
    return b"\x00\x00\x00\x00\x01" + stream.getvalue()


def frame(**columns: Any) -> bytes:
    found = Frame.from_columns("a", "r", {"timestamp": np.array([START_US]), "key": ["k"], "type": ["a"], **columns})
    return encode_frame(found)


DEBEZIUM = {"op": "u", "ts_ms": 5, "source": {"ts_ms": START_US // 1000}, "before": WRITTEN, "after": WRITTEN}
CLOUD = {"specversion": "1.0", "id": "1", "source": "/s", "type": "t", "data": WRITTEN}
BINARY = [("ce_specversion", b"1.0"), ("ce_id", b"1"), ("ce_source", b"/s"), ("ce_type", b"t")]
MESSAGES = {
    "json": (f"{{name: a, {FIELDS}}}", message(WRITTEN)),
    "declared json": (f"{{name: a, decoder: json, {FIELDS}}}", message(WRITTEN)),
    "debezium": (f"{{name: a, decoder: debezium, {FIELDS}}}", message(DEBEZIUM)),
    "debezium with a wrapper": (f"{{name: a, {FIELDS}}}", message({"schema": {}, "payload": DEBEZIUM})),
    "a path": (
        "{name: a, fields: {amount: {path: before.amount, type: float64, text: true}, count: *count}}".replace(
            "*count", "{type: int64, text: true}"
        ),
        message(DEBEZIUM),
    ),
    "cloudevents": (f"{{name: a, {FIELDS}}}", message(CLOUD)),
    "binary cloudevents": (f"{{name: a, decoder: cloudevents, {FIELDS}}}", message(WRITTEN, headers=BINARY)),
    "csv": (f"{{name: a, decoder: csv, {FIELDS}}}", message(b"220.22,9007199254740993\n")),
    "avro": (f"{{name: a, decoder: {{name: avro, schemas: FOLDER}}, {FIELDS}}}", message(avro())),
    "arrow": (f"{{name: a, {FIELDS}}}", message(frame(**{name: [text] for name, text in WRITTEN.items()}))),
    "arrow of large strings": (
        f"{{name: a, {FIELDS}}}",
        message(frame(**{name: pa.array([text], pa.large_string()) for name, text in WRITTEN.items()})),
    ),
}


@pytest.mark.parametrize("form", MESSAGES)
def test_text_that_writes_a_number_is_read_from_every_decoder(form, tmp_path):
    (tmp_path / "1.avsc").write_text(json.dumps(AVRO))
    stream, sent = MESSAGES[form]
    rows, letters, frames = read(stream.replace("FOLDER", str(tmp_path)), sent)
    assert [letter.reason for letter in letters] == []
    assert [(row["amount"], row["count"]) for row in rows] == [WANTED]
    assert [frames[0].frame.column(name).type for name in WRITTEN] == [pa.float64(), pa.int64()]


def test_mappings_in_python_are_read_alike():
    rules = load_rules(f"""
streams: [{{name: a, {FIELDS}}}]
rules: [{{name: r, seq: [{{as: x, stream: a, where: "amount > 220 and count == 9007199254740993"}}],
          emit: {{half: x.amount / 2}}}}]
""")
    events = [{"stream": "a", "timestamp": START_US, "key": "k", **WRITTEN}]
    assert [each.emit["half"] for each in match(rules, events)] == [110.11]


@pytest.mark.parametrize("text", ["n/a", "", "1_000", "1,5", "12abc", "0x10", "١٢"])
@pytest.mark.parametrize("in_frames", [False, True])
def test_other_text_is_a_value_of_another_type(text, in_frames):
    sent = message(frame(amount=[text])) if in_frames else message({"amount": text})
    _, letters, _ = read("{name: a, fields: {amount: {type: float64, text: true}}}", sent)
    assert [letter.reason for letter in letters] == [f"field 'amount' is {text!r}; expected float64"]
    rows, letters, _ = read("{name: a, fields: {amount: {type: float64, text: true}}, on_type_error: null}", sent)
    assert (letters, [row["amount"] for row in rows]) == ([], [None])


@pytest.mark.parametrize(
    ("text", "wanted"),
    [("5.00", 5), ("5e3", 5000), (" 7 ", 7), ("+7", 7), ("-0012", -12), ("5.5", None), ("9223372036854775808", None)],
)
def test_integers_are_read_without_loss_or_refused(text, wanted):
    rows, letters, _ = read("{name: a, fields: {n: {type: int64, text: true}}}", message({"n": text}))
    assert [row["n"] for row in rows] == ([] if wanted is None else [wanted])
    assert [letter.reason.partition("; ")[2] for letter in letters] == (
        [] if wanted is not None else ["expected int64"]
    )


def test_numbers_that_are_numbers_stay_what_they_are():
    rows, letters, _ = read(f"{{name: a, {FIELDS}}}", message({"amount": 5, "count": None}))
    assert (letters, [(row["amount"], row["count"]) for row in rows]) == ([], [(5.0, None)])


@pytest.mark.parametrize("in_frames", [False, True])
def test_the_refusal_of_a_number_in_text_names_the_declaration_that_reads_it(in_frames):
    sent = message(frame(amount=["220.22"])) if in_frames else message({"amount": "220.22"})
    _, letters, _ = read("{name: a, fields: {amount: float64}}", sent)
    advice = "for numbers that are written as text declare '{type: float64, text: true}'"
    assert [letter.reason for letter in letters] == [f"field 'amount' is '220.22'; expected float64; {advice}"]


def test_a_key_that_is_a_number_in_text_is_the_key_of_the_number():
    stream = "{name: a, key: customer, fields: {customer: {type: int64, text: true}}}"
    rows, _, _ = read(stream, message({"customer": "0042"}), message({"customer": 42}, offset=1))
    assert [(row["key"], row["customer"]) for row in rows] == [("42", 42), ("42", 42)]


@pytest.mark.parametrize("kind", ["string", "bool", "json", None])
def test_only_fields_of_numbers_are_declared_as_text(kind):
    field = "{text: true}" if kind is None else f"{{type: {kind}, text: true}}"
    with pytest.raises(InvalidRules, match=r"text: true reads numbers .* expected one of int64, int32, float64"):
        load_rules(f"streams: [{{name: a, fields: {{x: {field}}}}}]")


@given(st.integers(LEAST, MOST))
def test_every_integer_of_64_bits_is_read_as_itself(number):
    assert number_of(str(number), whole=True) == number


@given(st.floats(allow_nan=False))
def test_every_float_is_read_as_itself(number):
    assert number_of(repr(number).replace("inf", "Infinity"), whole=False) == number


@given(st.decimals(allow_nan=False, allow_infinity=False, places=4))
def test_a_decimal_is_the_nearest_float(number):
    assert number_of(f"{number:f}", whole=False) == float(Decimal(number))


@given(st.text(st.sampled_from("0123456789+-.eE _xNaInfity"), max_size=12))
def test_text_is_a_number_only_where_python_reads_the_same(text):
    found = number_of(text, whole=False)
    if found is not None and found == found:
        assert found == float(text)

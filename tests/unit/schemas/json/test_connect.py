"""Decimals of Kafka Connect: read as numbers where the message holds their schema."""

from __future__ import annotations

from base64 import b64encode
from fractions import Fraction
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from astrocyte.schemas.errors import InvalidEvent
from astrocyte.schemas.json.connect import with_decimals
from astrocyte.schemas.values.single import key_text, plain
from tests.support.declared import START_US, message, read


def bytes_of(unscaled: int) -> str:
    return b64encode(unscaled.to_bytes(unscaled.bit_length() // 8 + 1, "big", signed=True)).decode()


def decimal(scale: int, field: str = "amount") -> dict[str, Any]:
    return {"type": "bytes", "optional": True, "name": "org.apache.kafka.connect.data.Decimal", "version": 1,
            "parameters": {"scale": str(scale)}, "field": field}  # fmt: skip


VARIABLE = {"type": "struct", "name": "io.debezium.data.VariableScaleDecimal", "field": "any",
            "fields": [{"type": "int32", "field": "scale"}, {"type": "bytes", "field": "value"}]}  # fmt: skip
ROW = [{"type": "int32", "field": "id"}, decimal(2), decimal(0, "whole"), VARIABLE,
       {"type": "string", "field": "note"}]  # fmt: skip
SCHEMA = {
    "type": "struct",
    "fields": [{"type": "struct", "field": name, "fields": ROW} for name in ("before", "after")],
}


def change(before: Any, after: Any) -> dict[str, Any]:
    source = {"ts_ms": START_US // 1000}
    return {"schema": SCHEMA, "payload": {"op": "u", "source": source, "before": before, "after": after}}


def row(amount: int, whole: int, scale: int, value: int) -> dict[str, Any]:
    inner = {"scale": scale, "value": bytes_of(value)}
    return {"id": 7, "amount": bytes_of(amount), "whole": bytes_of(whole), "any": inner, "note": "Vg4="}


@pytest.mark.parametrize("decoder", ["", "decoder: debezium, "])
def test_decimals_of_debezium_with_a_schema_are_numbers_in_the_row_and_at_paths(decoder):
    stream = f"{{name: a, {decoder}fields: {{amount: float64, was: {{path: before.amount, type: float64}}}}}}"
    sent = message(change(row(20000, 1, 0, 1), row(-22022, 2**60 + 1, 3, 1500)))
    rows, letters, _ = read(stream, sent)
    assert letters == []
    assert [(each["amount"], each["was"], each["whole"], each["any"], each["note"]) for each in rows] == [
        (-220.22, 200.0, 2**60 + 1, 1.5, "Vg4=")
    ]


def test_a_null_decimal_is_null_and_a_row_that_is_not_there_too():
    rows, letters, _ = read("{name: a, fields: {amount: float64}}", message(change(None, {"id": 1, "amount": None})))
    assert (letters, [each["amount"] for each in rows]) == ([], [None])


def test_a_key_of_a_decimal_is_its_number():
    key = {"schema": {"type": "struct", "fields": [decimal(0, "id")]}, "payload": {"id": bytes_of(4711)}}
    rows, _, _ = read("{name: a, decoder: debezium}", message(change(None, {"id": 1}), key=orjson.dumps(key)))
    assert [each["key"] for each in rows] == ["4711"]


@pytest.mark.parametrize(
    ("value", "scale"), [("%%%", 2), ("AAA", 2), ("AQ==", None), ("AQ==", "x"), ("AQ==", 10**9), (5, 2)]
)
def test_what_is_no_decimal_is_a_dead_letter_that_names_the_field(value, scale):
    schema = {**decimal(2), "parameters": {} if scale is None else {"scale": scale}}
    with pytest.raises(InvalidEvent, match=r"field 'amount' is .* expected the base64 text of a decimal's bytes"):
        with_decimals({"amount": value}, {"type": "struct", "fields": [schema]})
    body = change(None, {"amount": "%%%"})
    _, letters, _ = read("{name: a}", message(body))
    assert [letter.stage for letter in letters] == ["decode"]


@given(st.integers(-(10**40), 10**40), st.integers(-20, 40))
def test_a_decimal_is_the_nearest_float_and_an_integer_without_fraction_digits(unscaled, scale):
    (found,) = with_decimals([bytes_of(unscaled)], {"type": "array", "items": decimal(scale)})
    assert plain(found) == plain(float(f"{unscaled}e{-scale}") if scale > 0 else unscaled * 10**-scale)
    assert isinstance(found, int | float) or found == Fraction(unscaled, 10**scale)
    assert Fraction(key_text(found) or "") == (Fraction(unscaled, 10**scale) if scale > 0 else unscaled * 10**-scale)


@pytest.mark.parametrize("schema", [None, {}, [], {"type": "struct"}, {"type": "struct", "fields": [5, {"field": 5}]}])
def test_a_schema_that_describes_nothing_changes_nothing(schema):
    value = {"amount": "Vg4="}
    assert with_decimals(value, schema) is value

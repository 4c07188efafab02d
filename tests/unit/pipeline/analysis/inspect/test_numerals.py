"""Numbers that are written as text are named, with the declaration that reads them, and kinds of text are shown."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from astrocyte.pipeline.analysis.inspect.report import Inspection
from astrocyte.pipeline.analysis.inspect.run import Request, inspect, take_sample
from astrocyte.pipeline.analysis.inspect.starting.starter import make_starter
from astrocyte.pipeline.analysis.inspect.text import render
from astrocyte.pipeline.settings import Settings

START_S = 1_759_055_400


def inspected(tmp_path, values: list[Any], name: str = "amount") -> tuple[Inspection, str]:
    rows = [{"ts": START_S + n, "device": f"d{n % 3}", name: value} for n, value in enumerate(values)]
    path = tmp_path / "sales.jsonl"
    path.write_bytes(b"\n".join(map(orjson.dumps, rows)))
    request = Request(str(path), Settings())
    sample = take_sample(request)
    found = inspect(request, sample)
    return found, make_starter(request, sample, found, path="rules.yaml").text


def notes(found: Inspection) -> str:
    return " ".join(found.reports[0].notes)


@pytest.mark.parametrize(
    ("values", "spec"),
    [
        (["220.22", "3", "-0.5"], "{type: float64, text: true}"),
        (["1e3", ".5", " 7 "], "{type: float64, text: true}"),
        (["220", "9007199254740993", "0"], "{type: int64, text: true}"),
        ([1.5, "2", 2.5], "{type: float64, text: true}"),
        (["220.22", "n/a", "1.0"], "{type: float64, text: true}"),
    ],
)
def test_numbers_written_as_text_are_named_with_the_declaration_that_reads_them(tmp_path, values, spec):
    found, written = inspected(tmp_path, values * 20)
    assert f"declare fields: {{amount: {spec}}} to read them" in notes(found)
    (line,) = [line for line in written.splitlines() if line.strip().startswith("amount:")]
    assert line.endswith(f"; numbers written as text: {spec} reads them")


@pytest.mark.parametrize("width", [60, 80])
def test_they_are_named_on_a_narrow_screen(tmp_path, width):
    found, _ = inspected(tmp_path, [f"{n}.25" for n in range(60)])
    text = " ".join(render(found, width=width).split())
    assert 'all 60 values of amount are numbers written as text, such as "0.25"' in text
    assert "text: true}} to read them" in text


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("amount", ["n/a", "ok", "7"]),
        ("amount", ["007", "012", "000"]),
        ("amount", [1, 2, 3]),
        ("amount", ["1.2.3", "10.0.0.1", "1-2"]),
        ("orderId", ["1", "2", "3"]),
        ("phone", ["4791234567", "4791234568", "1"]),
    ],
)
def test_words_codes_versions_and_ids_are_no_numbers(tmp_path, name, values):
    found, written = inspected(tmp_path, values * 20, name)
    assert "written as text" not in notes(found)
    assert "text: true" not in written


def test_decimal_commas_among_numbers_are_shown_although_another_text_is_more_frequent(tmp_path):
    values = [*range(40), *["n/a"] * 30, *[f"{n},5" for n in range(20)], "", ""]
    found, written = inspected(tmp_path, values, "celsius")
    assert '"n/a", "0,5", ""' in render(found, width=120)
    assert '20 of 92 values of celsius are numbers written as text with a decimal comma, such as "0,5"' in notes(found)
    assert '# mixed: integer 40, text 52, such as "n/a", "0,5", "", 0' in written


def test_one_value_is_one(tmp_path):
    found, _ = inspected(tmp_path, [*range(40), "1,5"])
    assert "1 of 41 values of amount is a number written as text with a decimal comma" in notes(found)

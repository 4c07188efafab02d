"""The header line of a CSV file: what is strange about the names of the columns."""

from __future__ import annotations

import csv
import json
import math
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from astrocyte.agents.ingest.csv_lines import DELIMITERS
from astrocyte.pipeline.console import short
from astrocyte.pipeline.recording.format import InvalidLog
from astrocyte.pipeline.recording.reader import read_lines

__all__ = ["doubts_of", "repeated"]

_DATE: Final = re.compile(r"\d{4}-\d{2}-\d{2}([T ]\d{2}:\d{2}.*)?")


def _names_of(path: str | Path, delimiter: str) -> list[str]:
    """The names of the columns; none where the first line cannot be read, which reading the file says."""
    try:
        first = next(iter(read_lines(path, known=True)), b"").decode("utf-8-sig")
        return next(csv.reader([first], delimiter=delimiter, strict=True), [])
    except (InvalidLog, csv.Error, UnicodeDecodeError):
        return []


def repeated(names: Sequence[str]) -> list[str]:
    """Names that several columns have."""
    return [name for name, count in Counter(names).items() if count > 1]


def doubts_of(path: str | Path, delimiter: str) -> list[str]:
    """Sentences on another delimiter, on names that several columns have, and on a first line that is rather data."""
    names = _names_of(path, delimiter)
    if (other := _other_delimiter(names)) is not None:
        shown, written = short(names[0], 60), json.dumps(other)
        line = f"{path}: no {delimiter!r} divides the first line, {shown!r}, and its delimiter looks like {other!r}"
        return [f"{line}; write decoder: {{name: csv, delimiter: {written}}} in the stream's declaration"]
    doubts = [
        f"{path}: {names.count(name)} columns are called {short(name)!r}, of which only the last one is used; give "
        "each a name of its own"
        for name in repeated(names)
    ]
    if _is_data(names):
        shown = ", ".join(repr(short(name, 30)) for name in names[:4]) + (", ..." if len(names) > 4 else "")
        doubts.append(
            f"{path}: the first line, {shown}, looks like data; it is taken as the names of the columns and not as an "
            "event: put a line of names before it"
        )
    return doubts


def _other_delimiter(names: Sequence[str]) -> str | None:
    """The delimiter that divides the only name of a line into several; None where there are several names, or none."""
    if len(names) != 1:
        return None
    counts = {delimiter: names[0].count(delimiter) for delimiter in DELIMITERS}
    best = max(counts, key=counts.__getitem__)
    return best if counts[best] else None


def _is_data(names: Sequence[str]) -> bool:
    """Whether a line holds times or numbers, other than years and counts from 0 or 1: wide tables have such names."""
    if any(_DATE.fullmatch(name.strip()) for name in names):
        return True
    numbers = [number for name in names if (number := _number(name)) is not None]
    if not numbers or all(number.is_integer() and 1900 <= number <= 2100 for number in numbers):
        return False
    counted = [numbers[0] + step for step in range(len(numbers))]
    is_count = numbers[0] in (0, 1) and numbers == counted and (len(numbers) > 1 or names[0] == "")
    return not is_count


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None  # nan and inf may be names

"""A small strict reader of line protocol, written after InfluxDB 2's rules and independent of the encoder."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

__all__ = ["Malformed", "Point", "read_points"]

_NUMBER = re.compile(r"-?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?\Z")
_BOOLS = {"t": True, "T": True, "true": True, "True": True, "TRUE": True}
_BOOLS |= {"f": False, "F": False, "false": False, "False": False, "FALSE": False}


class Malformed(ValueError):
    """A line that InfluxDB would refuse."""


@dataclass(frozen=True, slots=True)
class Point:
    measurement: str
    tags: tuple[tuple[str, str], ...]
    fields: dict[str, int | float | bool | str]
    time_ns: int

    @property
    def identity(self) -> tuple[str, tuple[tuple[str, str], ...], int]:
        """The identity of a point in InfluxDB: measurement, tags and time."""
        return self.measurement, tuple(sorted(self.tags)), self.time_ns


def read_points(payload: bytes | str) -> list[Point]:
    """Points of a request; comments and empty lines are passed over. Raises Malformed."""
    text = payload if isinstance(payload, str) else payload.decode()
    return list(_Reader(text).points())


class _Reader:
    def __init__(self, text: str) -> None:
        self.text, self.at = text, 0

    def points(self) -> Iterator[Point]:
        while self.at < len(self.text):
            if self.text[self.at] == "\n":
                self.at += 1
            elif self.text[self.at] == "#":
                self.at = (self.text + "\n").index("\n", self.at)
            else:
                yield self._point()

    def _fail(self, wanted: str) -> Malformed:
        return Malformed(f"unable to parse {self.text[max(0, self.at - 40) : self.at + 40]!r}: {wanted}")

    def _next(self) -> str:
        return self.text[self.at] if self.at < len(self.text) else "\n"

    def _take(self, char: str) -> None:
        if self._next() != char:
            raise self._fail(f"expected {char!r}")
        self.at += 1

    def _token(self, stops: str, escapes: str, what: str) -> str:
        made = ""
        while (char := self._next()) not in stops:
            if char in "\n=" and (char == "\n" or "=" in escapes):
                raise self._fail(f"{char!r} in a {what}")
            following = self.text[self.at + 1 : self.at + 2]
            if char == "\\" and following and following in escapes:
                made += following
                self.at += 2
            else:
                made += char
                self.at += 1
        if not made:
            raise self._fail(f"empty {what}")
        return made

    def _point(self) -> Point:
        measurement = self._token(", ", ", ", "measurement")
        tags = []
        while self._next() == ",":
            self.at += 1
            key = self._token("=", ",= ", "tag key")
            self._take("=")
            tags.append((key, self._token(", ", ",= ", "tag value")))
        if len({key for key, _ in tags}) < len(tags):
            raise self._fail("duplicate tags")
        self._take(" ")
        fields = dict([self._field()])
        while self._next() == ",":
            self.at += 1
            fields |= dict([self._field()])
        self._take(" ")
        start = self.at
        while self._next() in "-0123456789":
            self.at += 1
        if not re.fullmatch(r"-?\d{1,19}", self.text[start : self.at]):
            raise self._fail("expected a time in nanoseconds")
        time_ns = int(self.text[start : self.at])
        if self._next() != "\n":
            raise self._fail("expected the end of the line")
        self.at += 1
        return Point(measurement, tuple(tags), fields, time_ns)

    def _field(self) -> tuple[str, int | float | bool | str]:
        key = self._token("=", ",= ", "field key")
        self._take("=")
        if self._next() == '"':
            return key, self._string()
        start = self.at
        while self._next() not in ", \n":
            self.at += 1
        return key, self._plain(self.text[start : self.at])

    def _plain(self, text: str) -> int | float | bool:
        if text in _BOOLS:
            return _BOOLS[text]
        if re.fullmatch(r"-?\d+i", text):
            number = int(text[:-1])
            if -(2**63) <= number < 2**63:
                return number
            raise self._fail("value out of range")
        if _NUMBER.match(text):
            return float(text)
        raise self._fail("invalid field value")

    def _string(self) -> str:
        self.at += 1
        made = ""
        while self.at < len(self.text):
            char = self.text[self.at]
            if char == '"':
                self.at += 1
                return made
            following = self.text[self.at + 1 : self.at + 2]
            if char == "\\" and following and following in '"\\':
                char, self.at = following, self.at + 1
            made += char
            self.at += 1
        raise self._fail("unbalanced quotes")

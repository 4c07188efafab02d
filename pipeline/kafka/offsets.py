"""Start and end of reading a topic: kcat's ``-o`` syntax, and times in readable forms."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

from astrocyte.agents.rules.steps import parse_duration
from astrocyte.schemas.errors import InvalidSettings
from astrocyte.schemas.times import us_from_iso

__all__ = ["EARLIEST", "LATEST", "Start", "parse_offsets", "parse_span_us", "parse_start", "parse_time_us"]

_LIMIT: Final = 2**63
_FORMS: Final = "earliest, latest, an offset, -N (the last N), s@MILLISECONDS, 2025-09-28T10:30:00Z or '10m ago'"


@dataclass(frozen=True, slots=True)
class Start:
    """Start of each partition; ``value`` is an offset, a count from the end, or milliseconds since 1970."""

    kind: Literal["earliest", "latest", "offset", "tail", "time"]
    value: int = 0


EARLIEST: Final = Start("earliest")
LATEST: Final = Start("latest")
_NAMED: Final = {
    "earliest": EARLIEST,
    "beginning": EARLIEST,
    "start": EARLIEST,
    "latest": LATEST,
    "end": LATEST,
}


def parse_span_us(text: str) -> int:
    """Microseconds of ``250ms``, ``2s``, ``1.5h``, or of a plain number of seconds. Raises InvalidSettings."""
    try:
        if re.fullmatch(r"[0-9]+(\.[0-9]+)?", text.strip()):
            return round(float(text) * 1_000_000)
        return parse_duration(text)
    except ValueError as error:
        raise InvalidSettings(str(error)) from None


def parse_time_us(text: str, *, now_us: int) -> int:
    """Microseconds since 1970 of ISO 8601 text (UTC where it names no zone), ``now``, ``10m ago`` or ``@SECONDS``.

    Raises InvalidSettings.
    """
    plain = text.strip()
    if plain == "now":
        return now_us
    if plain.startswith("@"):
        try:
            return _checked(round(float(plain[1:]) * 1_000_000), text)
        except (ValueError, OverflowError):
            pass
    found = re.fullmatch(r"-?\s*(.+?)\s+ago|-\s*(\d.*[a-z])", plain)
    try:
        if found:
            return _checked(now_us - parse_duration(found[1] or found[2]), text)
        return us_from_iso(plain)
    except ValueError:
        raise InvalidSettings(
            f"expected a time, got {text!r}; write 2025-09-28T10:30:00Z, now, '10m ago' or @SECONDS since 1970"
        ) from None


def parse_start(text: str, *, now_us: int) -> Start:
    """The start given by ``--from`` or ``-o``; see `_FORMS`. Raises InvalidSettings."""
    plain = text.strip()
    if plain in _NAMED:
        return _NAMED[plain]
    if plain == "stored":
        raise InvalidSettings("'stored' offsets need a consumer group, which tap does not have; write " + _FORMS)
    if re.fullmatch(r"\d+", plain):
        return Start("offset", int(plain))
    if re.fullmatch(r"-\d+", plain):
        return Start("tail", int(plain[1:]))
    if plain.startswith("s@"):
        return Start("time", _milliseconds(plain[2:], now_us))
    try:
        return Start("time", parse_time_us(plain, now_us=now_us) // 1000)
    except InvalidSettings:
        raise InvalidSettings(f"expected a position, got {text!r}; write {_FORMS}") from None


def parse_offsets(options: Sequence[str], *, now_us: int) -> tuple[Start | None, int | None]:
    """Start and end (milliseconds, exclusive) of kcat's ``-o`` options; ``e@`` sets the end."""
    start: Start | None = None
    until_ms: int | None = None
    for option in options:
        if option.strip().startswith("e@"):
            until_ms = _milliseconds(option.strip()[2:], now_us)
        elif start is not None:
            raise InvalidSettings(f"expected one start, got a second: {option!r}; give one, and e@TIME for the end")
        else:
            start = parse_start(option, now_us=now_us)
    return start, until_ms


def _milliseconds(text: str, now_us: int) -> int:
    if not re.fullmatch(r"-?[0-9]+", text):
        return parse_time_us(text, now_us=now_us) // 1000
    return _checked(int(text), text)


def _checked(number: int, text: str) -> int:
    """A number that Kafka can take. Raises InvalidSettings."""
    if not -_LIMIT <= number < _LIMIT:
        raise InvalidSettings(f"expected a time, got {text!r}, which is more than 64 bits hold")
    return number

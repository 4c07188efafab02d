"""What is proposed for a stream: its declaration, and first of all the event time."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, get_args

from astrocyte.pipeline.analysis.inspect.forms import Forms
from astrocyte.pipeline.console import short
from astrocyte.schemas.contract import Contract, Event, read_event, time_member
from astrocyte.schemas.declarations import DEBEZIUM
from astrocyte.schemas.errors import InvalidEvent
from astrocyte.schemas.times import CEILING_US, TIME_NAMES, TimeUnit, is_doubted, reading_of, time_us, unit_of
from astrocyte.schemas.values import single

__all__ = [
    "ROWS",
    "SHARE",
    "GuessedTime",
    "OddTimes",
    "Proposal",
    "Seen",
    "looks_like_times",
    "number_of_time",
    "numbers_of_time",
    "propose_time",
    "snake",
    "with_keys",
]

_FROM_US: Final = 631_152_000 * 1_000_000
"""The year 1990: a number that stands for an earlier time is rather a count or an id."""
SHARE: Final = 0.95
"""Share of the events that must have a member which is proposed as time or key, whatever its name."""
_MOST_ROWS: Final = 0.5
_MOST_MESSAGES: Final = 0.8
"""Share of the rows of a file, and of messages, that must have a time in a member which is named like one.

Messages without it would have the time of Kafka, and rows none.
"""
_KEYS_NAMED: Final = 3
"""Most keys that are named as those with odd times."""
ROWS: Final = ("json", "csv", "avro")
"""Forms without an envelope that says where the time stands."""
_TIME_WORDS: Final = re.compile(
    r"(?:^|_)(?:time|timestamp|ts|t|date|datetime|at|when|created|occurred|updated|received|logged|millis|epoch)(?:_|$)"
)
_FIRST_TIMES: Final = re.compile(r"event|occur|creat|timestamp|measur|sampl")
_UNNAMED: Final = re.compile(r"column_\d+")
"""A column of CSV without a header has no name that says what it is."""
_DATE_LIKE: Final = re.compile(
    r"(?<![\w.])(?:\d{4}([/.-])\d{1,2}\1\d{1,2}|\d{1,2}([/.-])(?:\d{1,2}|[A-Za-z]{3,9})\2\d{4}|\d{1,2}/\d{1,2}/\d{2})(?![\d/]|[.-]\d)"
    r"|(?<![:\w])\d{1,2}:\d{2}:\d{2}(?![:\w])"
)
"""A date with a year of four digits, or of two behind slashes, and a time of day; neither an address nor a version."""


@dataclass(slots=True)
class Seen:
    """Values of one member of the events: at ``path``, which is the field ``name``."""

    path: str
    name: str
    values: list[Any] = field(default_factory=list)
    rows: list[int] = field(default_factory=list)
    """Number of the event that has each of the values."""


@dataclass(slots=True)
class Proposal:
    """A declaration as a rule file holds it, and what led to it."""

    declaration: dict[str, Any]
    time: str = ""
    """How the time is read, such as ``created_at, ISO 8601 text``."""
    is_guessed: bool = False
    """Whether the values of a member were taken for times, and not its name."""
    needs: list[str] = field(default_factory=list)
    """Why the declaration is needed: what would happen without it."""
    hints: list[str] = field(default_factory=list)
    """Members that might serve as time or key as well, and what cannot be read."""
    problems: list[str] = field(default_factory=list)
    """Messages of another form than nearly all others."""
    odd: OddTimes | None = None
    """Events that have no time of these days."""
    doubted: DoubtedTimes | None = None
    """The time of most events, where it is hardly one."""
    problem: str | None = None
    """Why no event can be read, also with the declaration."""


@dataclass(frozen=True, slots=True)
class GuessedTime:
    """A member that is a time by its values, though its name says nothing of it."""

    path: str
    unit: TimeUnit


@dataclass(frozen=True, slots=True)
class OddTimes:
    """Events in which the member that is taken as the time is no time of these days."""

    path: str
    example: Any
    rows: list[int]
    keys: frozenset[str] = frozenset()
    """Keys of these events, where all have one."""
    line: str = ""
    """A sentence on them."""


@dataclass(frozen=True, slots=True)
class DoubtedTimes:
    """The member that is read as the time and holds numbers that are hardly times (`schemas.times.is_doubted`)."""

    path: str
    example: int | float

    def line(self, count: int) -> str:
        """A sentence on ``count`` such events."""
        what = "1 event has" if count == 1 else f"{count:,} events have"
        return (
            f"{what} a number in {short(self.path)} that is hardly a time, such as {reading_of(self.example)}: declare "
            "which member is the time, or the unit of this one"
        )


def propose_time(
    proposal: Proposal,
    events: Sequence[Event],
    seen: Sequence[Seen],
    forms: Forms,
    *,
    is_file: bool,
    guesses: Sequence[GuessedTime] = (),
) -> OddTimes | None:
    """Propose the member that is the time of most events, into ``proposal``; returns the events that have none.

    ``guesses``: members that are times by their values alone, the best first, for where nothing else says the time.
    """
    own = [event for event in events if event.time is not None and _time(event.time, event.unit) is not None]
    least = _MOST_ROWS if is_file else _MOST_MESSAGES
    candidates = [each for each in (_time_candidate(each, len(events), least) for each in seen) if each is not None]
    candidates.sort(key=lambda each: each.rank)
    full = [each for each in candidates if each.is_full]
    named = full or sorted(candidates, key=lambda each: -each.good)
    doubted = _doubted_time(own)
    better = bool(full or (named and named[0].good > len(own)))
    if own and not (doubted and full) and (len(own) >= SHARE * len(events) or not better):
        proposal.doubted = doubted
        _hint_at(proposal, "other times", [each.seen.path for each in named])
        return _own_time(proposal, own, events, forms, is_file=is_file)
    if named:
        best, unit = named[0], named[0].unit
        path = best.seen.path
        without = "every event is refused" if is_file else "the time of the Kafka message is taken"
        if doubted is not None:
            without = f"{short(doubted.path)} is, such as {reading_of(doubted.example)}"
        proposal.declaration["time"] = {"field": path} | ({"unit": unit} if unit else {})
        proposal.time = f"{short(path)}, {unit or 'ISO 8601 text'}"
        proposal.needs.append(f"time: {short(path)}, else {without}")
        _hint_at(proposal, "other times", [each.seen.path for each in named[1:]])
        if not best.odd:
            return None
        return OddTimes(path, best.seen.values[best.odd[0]], [best.seen.rows[at] for at in best.odd])
    strange = next((each for each in seen if _is_date_like(each.values)), None)
    if strange is not None:
        proposal.hints.append(
            f"{short(strange.path)} looks like a time but is not ISO 8601, such as {short(strange.values[0])!r}: "
            "convert it first"
        )
    if is_file and guesses:
        _guess(proposal, guesses)
        return None
    if is_file:
        proposal.problem = (
            f"no member is a time that can be read (expected {', '.join(TIME_NAMES)}, or another one with ISO 8601 "
            "text or a number of s, ms, us or ns since 1970), and a file has no other time"
        )
        return None
    proposal.time = "the time of the Kafka message"
    for guess in guesses[:1]:
        path = short(guess.path)
        proposal.hints.append(
            f"{path} is near the time of Kafka, in {guess.unit}, and may be the time of the event: declare "
            f"time: {{field: {path}, unit: {guess.unit}}} if it is"
        )
    return None


def _guess(proposal: Proposal, guesses: Sequence[GuessedTime]) -> None:
    best = guesses[0]
    proposal.declaration["time"] = {"field": best.path, "unit": best.unit}
    proposal.time = f"{short(best.path)}, {best.unit}, guessed by its values"
    proposal.is_guessed = True
    proposal.needs.append(f"time: {short(best.path)}, else every event is refused")
    proposal.hints.append(f"{short(best.path)} is taken as the time for its values, not for its name: make sure of it")
    _hint_at(proposal, "other times", [each.path for each in guesses[1:]])


def _hint_at(proposal: Proposal, what: str, paths: Sequence[str]) -> None:
    found = [short(path) for path in paths if path]  # a declaration names no empty member
    if found:
        proposal.hints.append(f"{what}: {', '.join(found[:4])}")


def _doubted_time(own: Sequence[Event]) -> DoubtedTimes | None:
    """The time of most of these events, where it is a number without a unit that is hardly a time; else None."""
    small = [event for event in own if event.doubted_time is not None]
    if 2 * len(small) <= len(own):
        return None
    return DoubtedTimes(time_member(small[0].document) or "time", small[0].time)


def _own_time(
    proposal: Proposal, own: Sequence[Event], events: Sequence[Event], forms: Forms, *, is_file: bool
) -> OddTimes | None:
    """The time that is read without a declaration."""
    names = {time_member(event.document) for event in own}
    name = names.pop() if len(names) == 1 else None
    values = [event.time for event in own]
    units = _units(values) if own[0].unit is None else {}
    unit = own[0].unit or (None if len(units) > 1 else _unit(values, _MOST_ROWS))
    where = "source.ts_ms of the envelope" if forms.main == DEBEZIUM else "the time of the envelope"
    proposal.time = f"{short(name) if name else where}, {unit or 'ISO 8601 text'}"
    if len(units) > 1:
        text = any(number_of_time(value) is None for value in values)
        proposal.time = f"{short(name) if name else where}, numbers in {', '.join(units)}{' and text' if text else ''}"
        counts = ", ".join(f"{unit} {count:,}" for unit, count in units.items())
        proposal.problems.append(
            f"numbers in {short(name) if name else where} have several units ({counts} of those studied), and each is "
            "read by its size: send one unit, and declare it"
        )
    if len(own) < len(events):
        others = "the others are refused" if is_file else "the time of the Kafka message in the others"
        proposal.time += f", in {len(own) / len(events):.1%} of the events; {others}"
    if name in TIME_NAMES and forms.main in ROWS and len(own) >= SHARE * len(events) and len(units) < 2:
        proposal.declaration["time"] = {"field": name} | ({"unit": unit} if unit else {})
    odd = [
        row
        for row, event in enumerate(events)
        if event.time is not None and ((time := _time(event.time, event.unit or unit)) is None or time < _FROM_US)
    ]
    if not odd or len(odd) > len(own) / 2:
        return None
    return OddTimes(name or where, events[odd[0]].time, odd)


def with_keys(odd: OddTimes, proposal: Proposal, events: Sequence[Event], seen: Sequence[Seen]) -> OddTimes:
    """The same with the keys that have these times, and a sentence that says how many events do and names the keys."""
    declared = proposal.declaration.get("key")
    path = declared if isinstance(declared, str) else (declared or {}).get("path", (declared or {}).get("field", "key"))
    keys: dict[int, Any] = {row: event.key for row, event in enumerate(events)}
    field = next((each for each in seen if each.path == path), None)
    if field is not None:
        keys = dict(zip(field.rows, field.values, strict=True))
    found = Counter(single.key_text(keys[row]) for row in odd.rows if keys.get(row) is not None)
    names = sorted(map(str, found))
    whose = ""
    if 0 < len(found) <= _KEYS_NAMED:
        whose = f", all of {short(path)} {', '.join(repr(short(name)) for name in names)}"
    count, are = len(odd.rows), "is" if len(odd.rows) == 1 else "are"
    line = (
        f"{count:,} of {len(events):,} values of {short(odd.path)} studied {are} no time of these days, such as "
        f"{short(str(odd.example))}{whose}: correct them before they are sent, or refuse them by a validator"
    )
    return replace(odd, keys=frozenset(names) if found.total() == count else frozenset(), line=line)


def numbers_of_time(forms: Forms, contract: Contract) -> list[float]:
    """The numbers that stand where a declaration says the event time is."""
    if contract.declaration is None or contract.declaration.time is None:
        return []
    found = []
    for each in forms.opened:
        try:
            number = number_of_time(read_event(each.body, contract, envelope=each.envelope).time)
        except InvalidEvent:
            continue
        if number is not None:
            found.append(number)
    return found


def _time(value: Any, unit: TimeUnit | None) -> int | None:
    try:
        found = time_us(value, unit)
    except InvalidEvent:
        return None
    return found if 0 <= found < CEILING_US else None


def _unit(values: Sequence[Any], share: float) -> TimeUnit | None:
    """The unit of at least that share of the values, as the magnitude of the numbers shows it; None for text."""
    units = Counter(unit_of(number) for value in values if (number := number_of_time(value)) is not None)
    ((unit, count),) = units.most_common(1) or [(None, 0)]
    return unit if count >= share * len(values) else None


def _units(values: Sequence[Any]) -> dict[TimeUnit, int]:
    """Numbers of each unit, as their magnitudes show it, finer ones last, without those that are hardly times."""
    numbers = [number for value in values if (number := number_of_time(value)) is not None and not is_doubted(number)]
    units = Counter(unit for number in numbers if (unit := unit_of(number)) is not None)
    return {unit: units[unit] for unit in get_args(TimeUnit) if units[unit]}


def number_of_time(value: Any) -> float | None:
    """The number that a value is, if it may count from 1970; text needs as many digits as seconds of these days."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int | float):
        return value
    return float(value) if isinstance(value, str) and re.fullmatch(r"\d{9,20}(\.\d+)?", value) else None


@dataclass(frozen=True, slots=True)
class _TimeCandidate:
    """A member that may be the time; ``odd`` are the numbers of its values that are no times of these days."""

    rank: tuple[int, int]
    seen: Seen
    unit: TimeUnit | None
    odd: list[int]
    is_full: bool
    """Whether nearly all events have such a time."""

    @property
    def good(self) -> int:
        """Number of values that are times of these days."""
        return len(self.seen.values) - len(self.odd)


def _time_candidate(each: Seen, events: int, least: float) -> _TimeCandidate | None:
    """A member whose values are times of these days in nearly all events, or in ``least`` of them if named so."""
    if len(each.values) < least * events or not each.path:
        return None
    worded = bool(_TIME_WORDS.search(snake(each.path.rpartition(".")[2])))
    unit = _unit(each.values, least)
    if unit is None and sum(isinstance(value, str) and len(value) >= 8 for value in each.values) < least * events:
        return None
    if unit is not None and not worded and not _UNNAMED.fullmatch(each.name):
        return None  # a number may be anything
    times = [_time(value, unit) for value in each.values]
    odd = [at for at, time in enumerate(times) if time is None or time < _FROM_US]
    good = len(times) - len(odd)
    if good < (least if worded else SHARE) * events or len(set(times)) < min(2, len(times)):
        return None
    first = 0 if _FIRST_TIMES.search(snake(each.path)) else 1 if worded else 2
    return _TimeCandidate((first, each.path.count(".")), each, unit, odd, good >= SHARE * events)


def _is_date_like(values: Sequence[Any]) -> bool:
    return bool(values) and all(isinstance(value, str) and _DATE_LIKE.search(value) for value in values[:50])


def looks_like_times(name: str, values: Sequence[Any]) -> bool:
    """Whether the values of a member of that name, as `snake` gives it, are times or dates, in whatever form."""
    if _is_date_like(values):
        return True
    if values and all(isinstance(value, str) for value in values[:50]):
        return all(
            len(value) >= 8 and number_of_time(value) is None and _time(value, None) is not None
            for value in values[:50]
        )
    return bool(_TIME_WORDS.search(name)) and _unit(values, SHARE) is not None


def snake(name: str) -> str:
    """A name in small letters with underscores, by which words are found in it."""
    return re.sub(r"[^a-z0-9]+", "_", re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()).strip("_")

"""A verification as readable lines."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from astrocyte.agents.accounting import OUTCOMES
from astrocyte.pipeline.analysis.verify.report import Difference, Verification
from astrocyte.pipeline.console import number_text, short
from astrocyte.schemas.times import iso_from_us

__all__ = ["lines_of"]

_COLUMNS: Final = ("expected", "found", "lost", "twice", "wrong", "unexpected", "waiting")
_NAMES: Final = {
    "lost": "lost",
    "twice": "there twice",
    "wrong": "other values than expected",
    "unexpected": "not expected",
}
_LONGEST: Final = 60


def lines_of(done: Verification) -> Iterator[str]:
    """The table, what was not compared, and the differences that were kept."""
    yield _span_line(done)
    if done.events:
        yield _events_line(done)
    width = max([len(place.name) for place in done.places], default=5)
    yield f"{'place':<{width}}  " + " ".join(f"{name:>10}" for name in _COLUMNS)
    for place in done.places:
        yield f"{place.name:<{width}}  " + " ".join(f"{getattr(place, name):>10,}" for name in _COLUMNS)
    yield from _left_out(done)
    yield from _difference_lines(done)
    yield _verdict(done)


def _difference_lines(done: Verification) -> Iterator[str]:
    """The differences that were kept, by place and kind, each with what it is."""
    for place in done.places:
        for kind, name in _NAMES.items():
            kept = [each for each in place.differences if each.kind == kind]
            total = getattr(place, kind)
            if total:
                yield f"{place.name}: {total:,} {name}"
            for each in kept:
                yield from _lines(each)
            if kept and total > len(kept):
                yield f"  ... {total - len(kept):,} more (--show N)"


def _lines(difference: Difference) -> Iterator[str]:
    time = "" if difference.time_us is None else f", {iso_from_us(difference.time_us)}"
    about = f", {short(difference.about, 80)}" if difference.about else ""
    at = f", {difference.at}" if difference.at else ""
    yield f"  {short(difference.identity, 120)}{about}{time}{at}"
    for change in difference.changes:
        yield f"    {change.name}: expected {_text(change.expected)}, found {_text(change.found)}"


def _text(value: Any) -> str:
    if isinstance(value, float):
        return number_text(value)
    return "nothing" if value is None else short(str(value), _LONGEST)


def _span_line(done: Verification) -> str:
    since = "the first event" if done.since_us is None else iso_from_us(done.since_us)
    until = "the last one" if done.until_us is None else iso_from_us(done.until_us)
    return f"results of event times from {since} to {until}"


def _events_line(done: Verification) -> str:
    parts = [f"{done.events[name]:,} {name}" for name in OUTCOMES if done.events.get(name) or name == "processed"]
    return f"events: {done.events['received']:,} received = {' + '.join(parts)}, {done.missing_events:,} missing"


def _left_out(done: Verification) -> Iterator[str]:
    for place in done.places:
        for why, count in sorted(place.notes.items()):
            yield f"{place.name}: {count:,} {why}"
        for why, count in sorted(place.left_out.items()):
            yield f"not compared: {place.name}: {count:,} {why}"
    waiting = sum(place.waiting for place in done.places)
    if waiting:
        yield f"not compared: {waiting:,} that may still come: of input in flight, or whose time has not come"
    for line in done.not_compared:
        yield f"not compared: {line}"


def _verdict(done: Verification) -> str:
    total: dict[str, int] = {name: sum(getattr(place, name) for place in done.places) for name in _NAMES}
    counts = ", ".join(f"{name} = {count:,}" for name, count in total.items())
    return f"{'equal' if done.holds else 'different'}: {counts}, events missing = {done.missing_events:,}"

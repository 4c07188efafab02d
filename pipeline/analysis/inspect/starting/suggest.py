"""Rules to begin with, from the values in a sample: a threshold, two events in order, and a window."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final

import numpy as np

from astrocyte.agents.expressions.nodes import Field
from astrocyte.agents.expressions.unparse import to_text
from astrocyte.agents.rules.steps import format_duration
from astrocyte.pipeline.analysis.inspect.columns import FieldStats
from astrocyte.pipeline.analysis.inspect.proposals.keys import POSITIONS
from astrocyte.pipeline.analysis.inspect.report import StreamReport
from astrocyte.pipeline.analysis.inspect.sample import free_name
from astrocyte.schemas.declarations import StreamDeclaration
from astrocyte.schemas.frames import Frame
from astrocyte.schemas.times import TIME_NAMES
from astrocyte.schemas.values import mixed

__all__ = ["Suggestion", "every_event", "set_apart", "suggest"]

_MEASURES: Final = re.compile(
    r"amount|price|value|total|temp|score|cost|duration|latency|elapsed|size|bytes|speed|pressure|level|rate|power|"
    r"current|voltage|humidity|heart|ms$|seconds|quantity"
)
_CATEGORIES: Final = re.compile(r"action|event|type|status|state|page|op$|kind|method|level|outcome|result|stage|phase")
_IDS: Final = re.compile(
    r"(^|_)(id|uuid|guid|no|number|ts|time|timestamp|date|at|version|port|zip|year|lat|lon)$", re.IGNORECASE
)
_LONGEST: Final = 40
"""Characters of a field, value or stream that the name of a rule takes from it."""
_LONGEST_FIELD: Final = 100
"""Longest field in conditions and messages: a longer one makes no rule that one can read."""
_FAR: Final = 6e8
_TEXT: Final = re.compile(r"[\w .:/@+-]{1,40}")
_SPANS_US: Final = tuple(
    number * unit
    for unit, numbers in (
        (1000, (1, 10, 100)),
        (1_000_000, (1, 2, 5, 10, 30)),
        (60_000_000, (1, 5, 10, 30)),
        (3_600_000_000, (1, 6, 12)),
        (86_400_000_000, (1, 7, 30)),
    )
    for number in numbers
)


@dataclass(frozen=True, slots=True)
class Suggestion:
    """A rule, and the window that it reads, as a rule file holds them, with a comment each."""

    rule: dict[str, Any]
    comment: str
    window: dict[str, Any] | None = None
    window_comment: str = ""


def suggest(report: StreamReport, *, prefix: str = "") -> list[Suggestion]:
    """Rules over one stream, the best first. Names begin with ``prefix``."""
    by = report.key_field if report.keys.counts else None
    made = [_threshold(report, by, prefix), _pair(report, by, prefix), _busy(report, by, prefix)]
    return [each for each in made if each is not None] or [every_event(report, by, prefix)]


def set_apart(suggestions: Iterable[Suggestion], streams: Iterable[str]) -> None:
    """Number those names of rules and windows that others have, or streams: their results are streams of their own."""
    taken = set(streams)
    for each in suggestions:
        for entry in filter(None, (each.window, each.rule)):
            before, entry["name"] = entry["name"], free_name(entry["name"], taken)
            taken.add(entry["name"])
            if entry is each.window:
                for step in each.rule["seq"]:
                    step["stream"] = entry["name"] if step["stream"] == before else step["stream"]


def _is_usable(report: StreamReport, each: FieldStats) -> bool:
    declaration = report.contract.declaration
    taken = {report.key_field, *TIME_NAMES}
    if declaration is not None:
        taken |= {declaration.id or "", _time_name(declaration)}
    if not each.name.strip() or len(each.name) > _LONGEST_FIELD or not each.name.isprintable():
        return False
    if POSITIONS.fullmatch(each.name):
        return False
    if each.name in taken or "`" in each.name or each.name.startswith("ce_") or _IDS.search(each.name):
        return False
    # Numbers that lie close together and far from zero are times or counters.
    return each.least is None or each.most is None or each.least < _FAR or each.most > 1.5 * each.least


def _time_name(declaration: StreamDeclaration) -> str:
    return "" if declaration.time is None else declaration.time.field


def _name(prefix: str, *parts: str) -> str:
    names = (re.sub(r"[^A-Za-z0-9]+", "_", part).strip("_")[:_LONGEST].strip("_") or "x" for part in parts)
    name = re.sub(r"[^\w.-]+", "_", prefix[:_LONGEST], flags=re.ASCII) + "_".join(names)
    return f"r_{name}" if name[:1].isdigit() else name


def _threshold(report: StreamReport, by: str | None, prefix: str) -> Suggestion | None:
    """Events whose value is among the highest percent."""
    fields = [
        each
        for each in report.fields
        if (each.kinds["integer"] + each.kinds["number"]) >= 0.5 * report.reading.events
        and (each.overflown or len(each.values) > 2)
        and _is_usable(report, each)
    ]
    if not fields:
        return None
    best = max(fields, key=lambda each: (bool(_MEASURES.search(each.name.lower())), len(each.values)))
    numbers = np.array(
        [value for frame in report.reading.all_frames if frame.has(best.name) for value in _numbers(frame, best.name)]
    )
    numbers = numbers[np.isfinite(numbers)]
    limit = _round_down(float(np.quantile(numbers, 0.99)))
    if not (numbers > limit).any():
        limit = _round_down(float(np.quantile(numbers, 0.9)))
        if not (numbers > limit).any():
            return None
    field, value = to_text(Field(None, best.name)), to_text(Field("high", best.name))
    rule = {
        "name": _name(prefix, "high", best.name),
        "by": by,
        "seq": [{"as": "high", "stream": report.contract.stream, "where": f"{field} > {limit:g}"}],
        "emit": {"value": value},
        "alert": {"severity": "warning", "message": f"{_whose(by, 'high')}{best.name} is {{{value}}}"},
    }
    share = (numbers > limit).mean()
    return Suggestion(
        rule,
        f"One event is enough: {best.name} above {limit:g}, as in {share:.1%} of the sample. `where` is an "
        "expression over the fields.",
    )


def _whose(by: str | None, step: str) -> str:
    return "" if by is None or len(by) > _LONGEST_FIELD else f"{{{to_text(Field(step, by))}}}: "


def _numbers(frame: Frame, name: str) -> list[float]:
    values = frame.values(name)
    return [value for value in values if isinstance(value, int | float) and not isinstance(value, bool)]


def _round_down(value: float) -> float:
    """The value with three digits, not above it."""
    short = float(f"{value:.3g}")
    if short <= value:
        return short
    digits = 3 - len(str(int(abs(value)))) if abs(value) >= 1 else 3
    return float(f"{value - 10.0**-digits:.3g}") if value - 10.0**-digits < value else value


def _categories(report: StreamReport) -> list[tuple[str, dict[str, int]]]:
    """Fields that divide the events into few kinds, the best first."""
    found = [("type", report.types)] if 1 < len(report.types) <= 40 else []
    found += [
        (each.name, {str(value): count for value, count in each.values.items()})
        for each in report.fields
        if each.type == "string" and not each.overflown and 1 < len(each.values) <= 40 and _is_usable(report, each)
    ]
    total = report.reading.events
    found = [(name, values) for name, values in found if len(values) < 0.5 * total or len(values) == 2]
    return sorted(found, key=lambda item: (not _CATEGORIES.search(item[0].lower()), len(item[1])))


def _pair(report: StreamReport, by: str | None, prefix: str) -> Suggestion | None:
    """Two events of one key in order: the step from one kind to another that leads to the rarest kind."""
    for name, counts in _categories(report):
        steps = _steps(report, name)
        likely = [(pair, gaps) for pair, gaps in steps.items() if len(gaps) >= 2 and all(map(_TEXT.fullmatch, pair))]
        if not likely:
            continue
        (before, after), gaps = min(likely, key=lambda item: (counts.get(item[0][1], 0), -len(item[1]), item[0]))
        within = _span_of(float(np.quantile(gaps, 0.9)) * 1.1)
        field, stream = to_text(Field(None, name)), report.contract.stream
        rule = {
            "name": _name(prefix, before, "then", after),
            "by": by,
            "within": format_duration(within),
            "seq": [
                {"as": "first", "stream": stream, "where": f"{field} == '{before}'"},
                {"as": "second", "stream": stream, "where": f"{field} == '{after}'"},
            ],
            "skip": "past_last",
            "alert": {"severity": "info", "message": f"{_whose(by, 'second')}{before}, then {after}"},
        }
        return Suggestion(
            rule,
            f"Two events of one key in order, at most {format_duration(within)} apart. Others may come between them "
            "(contiguity: next forbids that); past_last: an event is in one match only.",
        )
    return None


def _steps(report: StreamReport, name: str) -> dict[tuple[str, str], list[int]]:
    """Gaps in microseconds between successive events of one key, by the kinds of the two, which differ."""
    by_key: dict[str | None, list[tuple[int, str]]] = {}
    for frame in report.reading.all_frames:
        if not frame.has(name):
            continue
        keys = mixed.to_list(mixed.key_column(frame.column(_key_column(report, frame))))
        for key, time_us, value in zip(keys, frame.timestamps().tolist(), frame.values(name), strict=True):
            if isinstance(value, str):
                by_key.setdefault(key, []).append((time_us, value))
    found: dict[tuple[str, str], list[int]] = {}
    for events in by_key.values():
        for (first_us, before), (second_us, after) in pairwise(sorted(events)):
            if before != after:
                found.setdefault((before, after), []).append(second_us - first_us)
    return found


def _key_column(report: StreamReport, frame: Frame) -> str:
    return report.key_field if frame.has(report.key_field) else "key"


def _span_of(us: float) -> int:
    return next((span for span in _SPANS_US if span >= us), _SPANS_US[-1])


def _busy(report: StreamReport, by: str | None, prefix: str) -> Suggestion | None:
    """Keys with many events in a window."""
    if by is None or not report.usual_span_us:
        return None
    every = _span_of(report.usual_span_us / 60)
    counts: Counter[tuple[str | None, int]] = Counter()
    for frame in report.reading.all_frames:
        keys = mixed.to_list(mixed.key_column(frame.column(_key_column(report, frame))))
        windows = (frame.timestamps() // every).tolist()
        counts.update((key, window) for key, window in zip(keys, windows, strict=True) if key is not None)
    sizes = np.array(list(counts.values()))
    if not len(sizes) or sizes.max() < 2:
        return None
    limit = int(min(np.quantile(sizes, 0.95), sizes.max() - 1))
    span, stream = format_duration(every), report.contract.stream
    name = _name("", stream, "per", span)
    window = {"name": name, "from": stream, "by": by, "every": span, "select": {"events": "count()"}}
    rule = {
        "name": _name(prefix, "busy"),
        "by": by,
        "seq": [{"as": "window", "stream": name, "where": f"events > {limit}"}],
        "emit": {"events": "window.events"},
        "alert": {"severity": "info", "message": f"{_whose(by, 'window')}{{window.events}} events in {span}"},
    }
    return Suggestion(
        rule,
        "The results of a window are events, too. This rule reads them.",
        window,
        f"Events of each key in every {span}. `select` takes mean(x), max(x), quantile(x, 0.95) and more.",
    )


def every_event(report: StreamReport, by: str | None, prefix: str = "") -> Suggestion:
    """A rule that matches every event, by ``by``."""
    rule = {"name": _name(prefix, "every_event"), "by": by, "seq": [{"as": "event", "stream": report.contract.stream}]}
    return Suggestion(rule, 'Every event is a match. Add a condition: where: "field > 3".')

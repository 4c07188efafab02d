"""Why a rule did not match on a recorded log: the events of one key, followed through the steps of the rule."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from astrocyte.agents.cep.explain.why_not import Attempt, WhyNot
from astrocyte.agents.cep.explain.why_not import why_not as follow
from astrocyte.agents.domain import DomainOutput
from astrocyte.agents.event_time.clock_guard import CLOCK_TOLERANCE_US
from astrocyte.agents.rules.model import Rule, RuleSet
from astrocyte.agents.sinks.base import SourcedFrame
from astrocyte.pipeline.analysis.backtest import made_of
from astrocyte.pipeline.analysis.inputs import Inputs
from astrocyte.pipeline.analysis.offline import run_rules
from astrocyte.pipeline.kafka.offsets import parse_span_us, parse_time_us
from astrocyte.pipeline.recording.format import InvalidLog
from astrocyte.pipeline.recording.frames import chunks_of
from astrocyte.schemas.errors import InvalidSettings
from astrocyte.schemas.mixed import key_column
from astrocyte.schemas.times import iso_from_us

__all__ = ["Followed", "Report", "render", "why_not"]

_MOST_KEYS = 8


class _Run(NamedTuple):
    """Rules over logs."""

    ruleset: RuleSet
    paths: Sequence[str | Path]
    lateness_us: int
    clock_tolerance_us: int
    stream: str | None = None

    def outputs(self) -> Iterator[DomainOutput]:
        """Outputs of the rules over the logs."""
        return run_rules(
            self.ruleset,
            self.paths,
            lateness_us=self.lateness_us,
            clock_tolerance_us=self.clock_tolerance_us,
            stream=self.stream,
        )[1]


class Followed(NamedTuple):
    """One event that the rule saw: its fields and location (no topic for results of windows and rules)."""

    fields: dict[str, Any]
    event_id: str
    topic: str | None
    partition: int | None
    offset: int | None

    @property
    def time_us(self) -> int:
        """Event time."""
        time_us: int = self.fields["timestamp"]
        return time_us

    def place(self) -> str:
        """Stream, time and location as readable text."""
        where = "" if self.topic is None else f" {self.topic}[{self.partition}]@{self.offset}"
        return f"{self.fields['stream']} {iso_from_us(self.time_us)}{where}"


@dataclass(frozen=True, slots=True)
class Report:
    """How far the partial matches of one rule and key got."""

    key: str | None
    at_us: int | None
    found: WhyNot
    events: tuple[Followed, ...]

    def as_json(self) -> dict[str, Any]:
        """The report as nested objects."""
        return {
            "rule": self.found.rule,
            "key": self.key,
            "at": None if self.at_us is None else iso_from_us(self.at_us),
            "events": self.found.events,
            "matches": self.found.matches,
            "steps": [
                {
                    "step": step.step,
                    "seen": step.seen,
                    "fitted": step.fitted,
                    "failed": step.failed,
                    "nearest": step.nearest or None,
                }
                for step in self.found.steps
            ],
            "attempts": [self._attempt(attempt) for attempt in self.found.attempts],
        }

    def _attempt(self, attempt: Attempt) -> dict[str, Any]:
        taken: list[dict[str, Any]] = []
        for step, index in attempt.taken:
            event = self.events[index]
            place = {"topic": event.topic, "partition": event.partition, "offset": event.offset}
            taken.append({"step": step, "event_id": event.event_id, "timestamp": iso_from_us(event.time_us), **place})
        return {
            "began": iso_from_us(attempt.began_us),
            "taken": taken,
            "waited_for": list(attempt.waited_for),
            "ended": attempt.ended,
            "ended_at": None if attempt.ended_us is None else iso_from_us(attempt.ended_us),
            "reason": _readable(attempt.reason),
        }


def why_not(
    ruleset: RuleSet,
    paths: Sequence[str | Path],
    *,
    rule: str,
    key: str | None,
    at: str | None,
    lateness_us: int,
    now_us: int,
    clock_tolerance_us: int = CLOCK_TOLERANCE_US,
    stream: str | None = None,
) -> Report:
    """Follow ``rule`` over the events of ``key``; ``at`` (a time, or a span from the first event) selects an instant.

    Raises InvalidSettings for an unknown rule, and for a key that is missing or has no events, naming some that have.
    """
    chosen = next((each for each in ruleset.rules if each.name == rule), None)
    if chosen is None:
        names = ", ".join(each.name for each in ruleset.rules)
        raise InvalidSettings(f"no rule {rule!r}; the files have {names}")
    keys: dict[str | None, int] = {}
    run = _Run(ruleset, paths, lateness_us, clock_tolerance_us, stream)
    unsorted = _events(chosen, run, key, keys)
    events = sorted(unsorted, key=lambda each: (each.time_us, each.fields["stream"], each.event_id))
    if chosen.by is not None and (key is None or key not in keys):
        if not keys:
            raise InvalidLog(f"{', '.join(map(str, paths))}: no events of the rule's streams {sorted(chosen.streams)}")
        without = keys.pop(None, 0)
        if not keys:
            raise InvalidSettings(
                f"{without} events of its streams, all with {chosen.by} null, so they take part in nothing; write "
                "by: null or by: FIELD"
            )
        most = sorted(keys, key=lambda each: -keys[each])[:_MOST_KEYS]
        what = "--key is needed" if key is None else f"key {key!r} has no events"
        raise InvalidSettings(
            f"{what}: rule {rule!r} correlates by {chosen.by!r}; keys in the log: {', '.join(map(str, most))}"
        )
    at_us = None if at is None else _instant(at, events[0].time_us if events else 0, now_us)
    if chosen.kind != "all":
        return Report(key, at_us, follow(chosen, [event.fields for event in events], at_us=at_us), tuple(events))
    if at_us is not None and chosen.within is not None:
        reach = chosen.within.time + chosen.within.closed
        events = [event for event in events if abs(event.time_us - at_us) < reach]
    found = follow(chosen, [event.fields for event in events], at_us=at_us)
    return Report(key, at_us, _with_matches(found, chosen, events, run), tuple(events))


def _with_matches(found: WhyNot, rule: Rule, events: Sequence[Followed], run: _Run) -> WhyNot:
    """Mark the attempts of an ``all`` whose event is in a match: only the engine decides the pairing."""
    ids = {event.event_id for event in events}
    owner: dict[str, str] = {}
    for made in (made for output in run.outputs() for made in made_of(output) if made.rule == rule.name):
        owner |= {source: made.event_id for source in made.sources if source in ids}
    attempts = []
    for attempt in found.attempts:
        match = owner.get(events[attempt.taken[0][1]].event_id)
        if match is not None:
            attempt = replace(attempt, ended="matched", reason=f"it is in match {match}")
        attempts.append(attempt)
    return replace(found, attempts=tuple(attempts), matches=len(set(owner.values())))


def _events(rule: Rule, run: _Run, key: str | None, keys: dict[str | None, int]) -> Iterator[Followed]:
    """Events of the key in the log, and results of windows and rules; ``keys`` counts the events of every key."""
    made = {window.name for window in run.ruleset.windows} | {each.name for each in run.ruleset.rules}
    inputs = Inputs(run.ruleset, run.paths, stream=run.stream)
    for chunk in chunks_of(inputs.records(), on_bad="skip", decoders=inputs.decoders):
        if chunk.frame.stream in rule.streams:
            yield from _rows(chunk, rule, key, keys, placed=True)
    if made & set(rule.streams):
        for frame in (frame for output in run.outputs() for frame in output.frames):
            if frame.stream in rule.streams:
                yield from _rows(SourcedFrame(frame, "", 0, 0), rule, key, keys, placed=False)


def _rows(
    chunk: SourcedFrame, rule: Rule, key: str | None, keys: dict[str | None, int], *, placed: bool
) -> Iterator[Followed]:
    frame = chunk.frame
    values = (
        key_column(frame.column(rule.by)).to_pylist()
        if rule.by is not None and frame.has(rule.by)
        else [None] * frame.num_rows
    )
    for value in values:
        keys[value] = keys.get(value, 0) + 1
    wanted = [row for row, value in enumerate(values) if rule.by is None or (value is not None and value == key)]
    if not wanted:
        return
    rows, ids = frame.event_fields(), frame.id_strings()
    for row in wanted:
        fields = {"simulation_id": frame.run, **rows[row], "stream": frame.stream}
        if placed:
            yield Followed(fields, ids[row], chunk.topic, chunk.partition, chunk.offset_of(row))
        else:
            yield Followed(fields, ids[row], None, None, None)


def _instant(text: str, first_us: int, now_us: int) -> int:
    try:
        return first_us + parse_span_us(text)
    except InvalidSettings:
        return parse_time_us(text, now_us=now_us)


def _readable(reason: str) -> str:
    return re.sub(r"\b(\d{15,17}) us\b", lambda found: iso_from_us(int(found[1])), reason)


def render(report: Report, *, show: int = 20) -> str:
    """The report as readable text, with the last ``show`` attempts."""
    found = report.found
    key = "" if report.key is None else f", key {report.key}"
    lines = [f"rule {found.rule}{key}: {found.events} events of its streams, {found.matches} matches"]
    for step in found.steps:
        lines.append(f"step {step.step}: {step.fitted} of {step.seen} events fit")
        lines += [f"  {count} failed {part}" for part, count in step.failed.items()]
        if step.nearest:
            lines.append(f"  nearest: {step.nearest}")
    instant = "" if report.at_us is None else f" under way at {iso_from_us(report.at_us)}"
    attempts = found.attempts[-show:] if show else ()
    lines.append(
        f"{len(found.attempts)} attempts{instant}"
        + (f", the last {show}:" if len(attempts) < len(found.attempts) else "")
    )
    for attempt in attempts:
        lines.append(f"- began {iso_from_us(attempt.began_us)}: {_readable(attempt.reason)}")
        lines += [f"    {step}: {report.events[index].place()}" for step, index in attempt.taken]
    return "\n".join(lines) + "\n"

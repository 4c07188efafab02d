"""Why a rule did not match on a recorded log: the events of one key, followed through the steps of the rule."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import orjson

from astrocyte.agents.cep.explain.why_not import Attempt, WhyNot
from astrocyte.agents.cep.explain.why_not import why_not as follow
from astrocyte.agents.event_time.clock_guard import CLOCK_TOLERANCE_US
from astrocyte.agents.ingest.validate import Validators
from astrocyte.agents.ingest.validate_rows import validate_rows
from astrocyte.agents.rules.model import Rule, RuleSet
from astrocyte.pipeline.analysis.backtest import made_of
from astrocyte.pipeline.analysis.inputs import Inputs
from astrocyte.pipeline.analysis.offline import OfflineRun
from astrocyte.pipeline.console import counted
from astrocyte.pipeline.kafka.offsets import parse_span_us, parse_time_us
from astrocyte.pipeline.recording.dead_letters import RESULT_STAGES
from astrocyte.pipeline.recording.format import InvalidLog
from astrocyte.pipeline.recording.frames import chunks_of
from astrocyte.pipeline.topology.plan import ALL_KEYS
from astrocyte.schemas.errors import InvalidSettings
from astrocyte.schemas.frames import Frame
from astrocyte.schemas.json.reader import JsonRecord
from astrocyte.schemas.times import iso_from_us
from astrocyte.schemas.values.mixed import key_column

__all__ = ["Followed", "NotUsed", "Report", "render", "why_not"]

_MOST_KEYS = 8
_Place = tuple[str, int, int, int | None]
"""Topic, partition, offset, and row in the message."""


class _Run:
    """Rules over logs: what they put out that concerns one rule and key, and which events took no part.

    The outputs themselves are not kept: those of a long log may be larger than the log.
    """

    def __init__(
        self,
        ruleset: RuleSet,
        paths: Sequence[str | Path],
        rule: Rule,
        key: str | None,
        *,
        lateness_us: int,
        clock_tolerance_us: int,
        domains: int | None,
        stream: str | None,
    ) -> None:
        self.ruleset = ruleset
        self.inputs = Inputs(ruleset, paths, stream=stream, domains=domains)
        run = OfflineRun(
            ruleset, self.inputs, lateness_us=lateness_us, clock_tolerance_us=clock_tolerance_us, list_unused=True
        )
        self.topics = {
            (group.field, stream): topic for group in run.plan.groups for stream, topic in group.topics.items()
        }
        """Topic that the rules of a group read, by the group's field and the stream."""
        self.letters: dict[_Place, str] = {}
        """Stage of what was refused, by its place."""
        self.late: Counter[tuple[str, str]] = Counter()
        """Number of late events by the topic in which they were read, and id."""
        self.repeated: Counter[tuple[str, str]] = Counter()
        self.match_of: dict[str, str] = {}
        """Id of the last match of the rule and key by that of an event in it, of an ``all`` rule."""
        self.results: list[Followed] = []
        """Results of windows and rules that the rule reads, of the key."""
        self.keys_of_results: dict[str | None, int] = {}
        """Number of such results by key."""
        made_here = run.made & set(rule.streams)
        for output in run.run(self.inputs.records()):
            for made in made_of(output) if rule.kind == "all" else ():
                if made.rule == rule.name and (rule.by is None or made.key == key):
                    self.match_of |= dict.fromkeys(made.sources, made.event_id)
            for frame in output.frames:
                if frame.stream in made_here:
                    found = _followed(frame, rule, key, self.keys_of_results)
                    self.results += [event for _, event in found]
            for letter in output.dead_letters:
                if letter.stage not in RESULT_STAGES:
                    self.letters[letter.topic, letter.partition, letter.offset, letter.row] = letter.stage
            for record in output.late:
                headers = dict(record.headers)
                topic = headers.get("source_copy", headers["source_topic"]).decode()
                self.late[topic, _event_id_of(record)] += 1
            for each in output.unused:
                if each.cause == "duplicate":
                    self.repeated[each.read, _event_id_of(each.record)] += 1


def _event_id_of(record: JsonRecord) -> str:
    """Id of an event's JSON record, of either envelope."""
    body = orjson.loads(record.value) or {}
    return str(body.get("event_id", body.get("id")))


class NotUsed(NamedTuple):
    """One event of the rule's streams and key that took no part: why, and where it stands."""

    cause: str
    topic: str
    partition: int
    offset: int


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
    unused: tuple[NotUsed, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """The report as nested objects."""
        return {
            "rule": self.found.rule,
            "key": self.key,
            "at": None if self.at_us is None else iso_from_us(self.at_us),
            "events": self.found.events,
            "matches": self.found.matches,
            "unused": [each._asdict() for each in self.unused],
            "steps": [
                {
                    "step": step.step,
                    "seen": step.seen,
                    "fitted": step.fitted,
                    "failed": step.failed,
                    "unjudged": list(step.unjudged),
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
    domains: int | None = None,
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
    run = _Run(
        ruleset,
        paths,
        chosen,
        key,
        lateness_us=lateness_us,
        clock_tolerance_us=clock_tolerance_us,
        domains=domains,
        stream=stream,
    )
    unused: list[NotUsed] = []
    unsorted = _events(chosen, run, key, keys, unused)
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
        found = follow(chosen, [event.fields for event in events], at_us=at_us)
        return Report(key, at_us, found, tuple(events), tuple(unused))
    if at_us is not None and chosen.within is not None:
        reach = chosen.within.time + chosen.within.closed
        events = [event for event in events if abs(event.time_us - at_us) < reach]
    found = follow(chosen, [event.fields for event in events], at_us=at_us)
    return Report(key, at_us, _with_matches(found, events, run), tuple(events), tuple(unused))


def _with_matches(found: WhyNot, events: Sequence[Followed], run: _Run) -> WhyNot:
    """Mark the attempts of an ``all`` whose event is in a match: only the engine decides the pairing."""
    ids = {event.event_id for event in events}
    owner = {source: match for source, match in run.match_of.items() if source in ids}
    attempts = []
    for attempt in found.attempts:
        match = owner.get(events[attempt.taken[0][1]].event_id)
        if match is not None:
            attempt = replace(attempt, ended="matched", reason=f"it is in match {match}")
        attempts.append(attempt)
    return replace(found, attempts=tuple(attempts), matches=len(set(owner.values())))


def _events(
    rule: Rule, run: _Run, key: str | None, keys: dict[str | None, int], unused: list[NotUsed]
) -> Iterator[Followed]:
    """Events of the key in the log as validators left them, and results of windows and rules.

    ``keys`` counts the events of every key; those of ``key`` that took no part are added to ``unused``.
    """
    validators = Validators(run.ruleset.validators)
    candidates: list[tuple[str, tuple[str, int, int], Followed]] = []
    for chunk in chunks_of(run.inputs.records(), on_bad="skip", decoders=run.inputs.decoders):
        if chunk.frame.stream not in rule.streams:
            continue
        passed = validate_rows(validators, chunk.frame)
        refused = [row for row, _ in passed.refused]
        of_key = _rows_of(chunk.frame.take(np.array(refused, np.int64)), rule, key, keys)
        unused += [
            NotUsed("refused (validate)", chunk.topic, chunk.partition, chunk.offset_of(refused[row])) for row in of_key
        ]
        topic = run.topics.get((rule.by or ALL_KEYS, chunk.frame.stream), chunk.topic)
        for kept, event in _followed(passed.frame, rule, key, keys):
            row = int(passed.rows[kept])
            place = (chunk.topic, chunk.partition, chunk.offset_of(row))
            stage = run.letters.get((*place, chunk.row_of(row)))
            if stage is not None:
                unused.append(NotUsed(f"refused ({stage})", *place))
            else:
                candidates.append((topic, place, event))
    # Of several events with one id, the last ones are the repeated or late ones.
    used: list[Followed] = []
    for topic, place, event in reversed(candidates):
        named = (topic, event.event_id)
        for cause, counts in (("late", run.late), ("duplicate", run.repeated)):
            if counts[named] > 0:
                counts[named] -= 1
                unused.append(NotUsed(cause, *place))
                break
        else:
            used.append(Followed(event.fields, event.event_id, *place))
    yield from used
    for value, count in run.keys_of_results.items():
        keys[value] = keys.get(value, 0) + count
    yield from run.results


def _rows_of(frame: Frame, rule: Rule, key: str | None, keys: dict[str | None, int]) -> list[int]:
    """Rows of the key; ``keys`` counts the rows of every key."""
    values = (
        key_column(frame.column(rule.by)).to_pylist()
        if rule.by is not None and frame.has(rule.by)
        else [None] * frame.num_rows
    )
    for value in values:
        keys[value] = keys.get(value, 0) + 1
    return [row for row, value in enumerate(values) if rule.by is None or (value is not None and value == key)]


def _followed(frame: Frame, rule: Rule, key: str | None, keys: dict[str | None, int]) -> Iterator[tuple[int, Followed]]:
    """Rows of the key, and their events without a place."""
    wanted = _rows_of(frame, rule, key, keys)
    if not wanted:
        return
    rows, ids = frame.event_fields(), frame.id_strings()
    for row in wanted:
        fields = {"simulation_id": frame.run, **rows[row], "stream": frame.stream}
        yield row, Followed(fields, ids[row], None, None, None)


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
    causes: dict[str, list[NotUsed]] = {}
    for each in report.unused:
        causes.setdefault(each.cause, []).append(each)
    for cause, events in causes.items():
        first = min(events, key=lambda each: each.offset)
        place = f"{first.topic}[{first.partition}]@{first.offset}"
        lines.append(f"not among them: {len(events):,} {cause}, such as {place}")
    for step in found.steps:
        lines.append(step.line())
        lines += [f"  {count} failed {part}" for part, count in step.failed.items()]
        if step.nearest:
            lines.append(f"  nearest: {step.nearest}")
    instant = "" if report.at_us is None else f" under way at {iso_from_us(report.at_us)}"
    attempts = found.attempts[-show:] if show else ()
    lines.append(
        f"{counted(len(found.attempts), 'attempt')}{instant}"
        + (f", the last {show}:" if len(attempts) < len(found.attempts) else "")
    )
    for attempt in attempts:
        lines.append(f"- began {iso_from_us(attempt.began_us)}: {_readable(attempt.reason)}")
        lines += [f"    {step}: {report.events[index].place()}" for step, index in attempt.taken]
    return "\n".join(lines) + "\n"

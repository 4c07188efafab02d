"""Why a rule did not match: its partial matches, event by event, each with the reason why it ended.

The tracer walks the same compiled states as the kernel, in Python and for one key, and records reasons. Events are
plain mappings with ``stream``, ``timestamp`` (microseconds) and their fields, in processing order.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from astrocyte.agents.cep.compiler.flatten import FlatEdge, FlatState, Program, compile_rule
from astrocyte.agents.cep.compiler.formula import DYNAMIC, Term
from astrocyte.agents.cep.compiler.nfa import Kind
from astrocyte.agents.expressions.nodes import And, Node, walk
from astrocyte.agents.expressions.nodes import Field as FieldNode
from astrocyte.agents.expressions.scalar import compile_scalar
from astrocyte.agents.expressions.unparse import to_text
from astrocyte.agents.rules.model import Rule, Step, format_duration

__all__ = ["Attempt", "Ended", "StepReport", "WhyNot", "why_not"]

Event = Mapping[str, Any]
Ended = Literal["matched", "window", "wait", "negated", "contiguity", "open"]
MOST_ATTEMPTS = 10_000


@dataclass(frozen=True, slots=True)
class Attempt:
    """One partial match: the events it took (step, index of the event), what it waited for, and its end."""

    taken: tuple[tuple[str, int], ...]
    began_us: int
    waited_for: tuple[str, ...]
    ended: Ended
    ended_us: int | None
    reason: str


@dataclass(frozen=True, slots=True)
class StepReport:
    """Number of events in the step's streams, how many of them fit, and how often each part of its condition failed."""

    step: str
    seen: int
    fitted: int
    failed: dict[str, int]
    nearest: str
    """The event that failed the fewest parts, with its values; empty if an event fits or there is none."""
    unjudged: tuple[str, ...] = ()
    """Parts of the condition that read other events: ``fitted`` and ``failed`` are without them."""

    def line(self) -> str:
        """How many events fit, and what that leaves open."""
        if not self.unjudged:
            return f"step {self.step}: {self.fitted} of {self.seen} events fit"
        return (
            f"step {self.step}: {self.fitted} of {self.seen} events fit by themselves; the attempts show whether they "
            f"also fit the events before them: {' and '.join(self.unjudged)}"
        )


@dataclass(frozen=True, slots=True)
class WhyNot:
    """Partial matches in progress at the requested time (all if no time is given), and a report for each step."""

    rule: str
    events: int
    steps: tuple[StepReport, ...]
    attempts: tuple[Attempt, ...]
    matches: int

    def lines(self) -> list[str]:
        """The report as lines of text."""
        lines = [f"rule {self.rule}: {self.events} events of its streams and key, {self.matches} matches"]
        for step in self.steps:
            lines.append(f"  {step.line()}")
            lines += [f"    {count} failed {part}" for part, count in step.failed.items()]
            if step.nearest:
                lines.append(f"    nearest: {step.nearest}")
        for attempt in self.attempts:
            path = ", ".join(f"{step} (event {index})" for step, index in attempt.taken)
            lines.append(f"  began at {attempt.began_us} us: took {path}; {attempt.reason}")
        if not self.attempts:
            lines.append("  no partial match: no event fits the first step")
        return lines


@dataclass(slots=True)
class _Run:
    state: int
    taken: list[tuple[str, int]]
    prior: dict[str, list[Event]]
    start_us: int
    last_us: int
    missed: str = field(default="")


def why_not(rule: Rule, events: Sequence[Event], *, at_us: int | None = None) -> WhyNot:
    """Trace the rule over the events of one key; ``at_us`` keeps the attempts in progress at that instant.

    For an ``all`` rule, ``at_us`` limits the report to events less than ``within`` before or after that instant.
    """
    chosen = [event for event in events if event.get("stream") in rule.streams]
    if rule.kind == "all":
        return _conjunction(rule, chosen, at_us)
    tracer = _Tracer(compile_rule(rule))
    for index, event in enumerate(chosen):
        tracer.feed(index, event)
    tracer.finish(chosen[-1]["timestamp"] if chosen else 0)
    attempts = [
        attempt
        for attempt in tracer.attempts
        if at_us is None or (attempt.began_us <= at_us and (attempt.ended_us is None or attempt.ended_us >= at_us))
    ]
    matches = sum(attempt.ended == "matched" for attempt in tracer.attempts)
    return WhyNot(rule.name, len(chosen), _steps(rule, chosen), tuple(attempts), matches)


class _Tracer:
    def __init__(self, program: Program) -> None:
        self.program = program
        self.rule = program.rule
        self.static = [
            (atom.streams, None if atom.condition is None else compile_scalar(atom.condition)) for atom in program.atoms
        ]
        self.dynamic = [compile_scalar(node) for node in program.dynamic]
        self.runs: list[_Run] = []
        self.attempts: list[Attempt] = []

    def feed(self, index: int, event: Event) -> None:
        now = int(event["timestamp"])
        word = sum(
            1 << bit
            for bit, (streams, test) in enumerate(self.static)
            if event["stream"] in streams and (test is None or test(event, {}))
        )
        kept: list[_Run] = []
        for run in self.runs:
            if not self.expired(run, now):
                kept += self.step(run, index, event, word, now)
        start = _Run(self.program.start, [], {}, now, now)
        kept += self.step(start, index, event, word, now)
        self.runs = kept[-MOST_ATTEMPTS:]

    def expired(self, run: _Run, now: int) -> bool:
        state, within = self.program.states[run.state], self.rule.within
        over: list[tuple[int, Ended, int]] = []
        if state.deadline_us and now - run.last_us >= state.deadline_us:
            over.append((run.last_us + state.deadline_us, "wait", state.deadline_us))
        if within is not None and now - run.start_us >= within.time + within.closed:
            over.append((run.start_us + within.time, "window", within.time))
        if over:
            at, ended, length = min(over)
            self.end_in_time(run, state, at, ended, length)
        return bool(over)

    def end_in_time(self, run: _Run, state: FlatState, at: int, ended: Ended, length: int) -> None:
        if state.kind is Kind.PENDING:
            self.end(run, "matched", at, "matched: no forbidden event before the time limit")
            return
        bound = "within" if ended == "window" else "within_prev or gap"
        waited = ", ".join(self.awaited(state)) or "nothing"
        reason = f"{bound} of {format_duration(length)} expired at {at} us while waiting for {waited}"
        self.end(run, ended, at, reason + (f"; {run.missed}" if run.missed else ""))

    def step(self, run: _Run, index: int, event: Event, word: int, now: int) -> list[_Run]:
        state = self.program.states[run.state]
        begins = not run.taken
        fired = [
            edge
            for edge in state.edges
            if self.holds(edge.terms, word, event, run) and not (edge.wait_us and now - run.last_us >= edge.wait_us)
        ]
        children: list[_Run] = []
        stopped = next((edge for edge in fired if edge.kind is Kind.STOP), None)
        for edge in fired:
            completes = edge.kind is Kind.FINAL or self.holds(edge.final, word, event, run)
            if edge.kind is Kind.STOP or (stopped is not None and not completes):
                continue
            child = self.follow(run, edge, index, event, now)
            if completes:
                self.end(child, "matched", now, "matched")
            if edge.kind is not Kind.FINAL and stopped is None:
                children.append(child)
        if begins:
            return children
        if stopped is not None:
            label = self.program.states[stopped.target].label
            self.end(run, "negated", now, f"event {index} at {now} us is the forbidden {label}")
        elif not fired:
            reason = f"the next event, {index} at {now} us, does not fit: {self.miss(state, event, run)}"
            self.end(run, "contiguity", now, reason)
        elif children and all(not edge.take for edge in fired):
            missed = self.miss(state, event, run)
            for child in children:
                child.missed = missed and f"event {index} does not fit {missed}"
        return children

    def follow(self, run: _Run, edge: FlatEdge, index: int, event: Event, now: int) -> _Run:
        if not edge.take:
            return _Run(edge.target, run.taken, run.prior, run.start_us, run.last_us, run.missed)
        name = self.rule.positive[edge.step]
        prior = {**run.prior, name: [*run.prior.get(name, []), event]}
        start = run.start_us if run.taken else now
        return _Run(edge.target, [*run.taken, (name, index)], prior, start, now)

    def holds(self, terms: Sequence[Term], word: int, event: Event, run: _Run) -> bool:
        low = (1 << DYNAMIC) - 1
        return any(
            word & care & low == want & low
            and all(
                bool(self.dynamic[bit](event, run.prior)) == bool(want >> (DYNAMIC + bit) & 1)
                for bit in range(max(care.bit_length() - DYNAMIC, 0))
                if care >> (DYNAMIC + bit) & 1
            )
            for care, want in terms
        )

    def awaited(self, state: FlatState) -> list[str]:
        names = [self.rule.positive[edge.step] for edge in state.edges if edge.take and edge.kind is not Kind.STOP]
        return list(dict.fromkeys(names))

    def miss(self, state: FlatState, event: Event, run: _Run) -> str:
        """The awaited step and the parts of its condition that an event of its stream failed; empty if none."""
        for name in self.awaited(state):
            step = next(each for each in self.rule.steps if each.name == name)
            if event["stream"] in step.stream:
                failed = _failed(self.rule, step, event, run.prior)
                if failed:
                    return f"{name}: {_described(failed, event, run.prior)}"
        return ""

    def end(self, run: _Run, ended: Ended, at: int | None, reason: str) -> None:
        waited = tuple(self.awaited(self.program.states[run.state]))
        self.attempts.append(Attempt(tuple(run.taken), run.start_us, waited, ended, at, reason))

    def finish(self, last_us: int) -> None:
        for run in self.runs:
            waited = self.awaited(self.program.states[run.state])
            text = f"still waiting for {' or '.join(waited) or 'its time limit'} at the last event, {last_us} us"
            self.end(run, "open", None, text + (f"; {run.missed}" if run.missed else ""))
        self.runs = []


def _parts(node: Node | None) -> list[Node]:
    if node is None:
        return []
    return [each for part in node.parts for each in _parts(part)] if isinstance(node, And) else [node]


def _failed(rule: Rule, step: Step, event: Event, prior: Mapping[str, Sequence[Event]]) -> list[Node]:
    return [part for part in _parts(rule.condition(step)) if not compile_scalar(part)(event, prior)]


def _described(failed: Sequence[Node], event: Event, prior: Mapping[str, Sequence[Event]]) -> str:
    strings = []
    for part in failed:
        fields = {to_text(node): node for node in walk(part) if isinstance(node, FieldNode)}
        values = ", ".join(f"{name} = {compile_scalar(node)(event, prior)!r}" for name, node in fields.items())
        strings.append(f"{to_text(part)}" + (f" ({values})" if values else ""))
    return " and ".join(strings)


def _steps(rule: Rule, events: Sequence[Event]) -> tuple[StepReport, ...]:
    """Report for each step, by the parts of its condition that read one event alone."""
    reports = []
    for step in rule.steps:
        parts = _parts(rule.condition(step))
        alone = [part for part in parts if not any(getattr(node, "step", None) for node in walk(part))]
        unjudged = tuple(to_text(part) for part in parts if part not in alone)
        failed: dict[str, int] = {}
        nearest: tuple[int, str] | None = None
        seen = fitted = 0
        for event in events:
            if event["stream"] not in step.stream:
                continue
            seen += 1
            wrong = [part for part in alone if not compile_scalar(part)(event, {})]
            fitted += not wrong
            for part in wrong:
                failed[to_text(part)] = failed.get(to_text(part), 0) + 1
            if wrong and (nearest is None or len(wrong) < nearest[0]):
                nearest = (len(wrong), f"at {event['timestamp']} us, {_described(wrong, event, {})}")
        closest = nearest[1] if nearest and not fitted else ""
        reports.append(StepReport(str(step.name), seen, fitted, failed, closest, unjudged))
    return tuple(reports)


def _conjunction(rule: Rule, events: Sequence[Event], at_us: int | None) -> WhyNot:
    assert rule.within is not None
    if at_us is not None:
        events = [event for event in events if abs(event["timestamp"] - at_us) < rule.within.time + rule.within.closed]
    attempts = []
    for index, event in enumerate(events):
        now = int(event["timestamp"])
        end = now + rule.within.time + rule.within.closed
        fits = [step for step in rule.steps if not step.negated and _fits(rule, step, event)]
        if not fits:
            continue
        window = [other for other in events[index:] if other["timestamp"] < end]
        missing = [
            str(step.name)
            for step in rule.steps
            if not step.negated and step not in fits and not any(_fits(rule, step, each) for each in window)
        ]
        forbidden = [str(s.name) for s in rule.steps if s.negated and any(_fits(rule, s, each) for each in window)]
        if missing:
            reason = f"within {format_duration(rule.within.time)} after it no event fits {', '.join(missing)}"
        elif forbidden:
            reason = f"the forbidden {', '.join(forbidden)} occurred in its window"
        else:
            reason = "every step has an event in its window; pairing or conditions between steps decide"
        ended: Ended = "window" if missing else "negated" if forbidden else "open"
        taken = ((str(fits[0].name), index),)
        attempts.append(Attempt(taken, now, tuple(missing), ended, now + rule.within.time, reason))
    return WhyNot(rule.name, len(events), _steps(rule, events), tuple(attempts), 0)


def _fits(rule: Rule, step: Step, event: Event) -> bool:
    if event["stream"] not in step.stream:
        return False
    parts = [part for part in _parts(rule.condition(step)) if not any(getattr(n, "step", None) for n in walk(part))]
    return all(compile_scalar(part)(event, {}) for part in parts)

"""Test tools for rules, validators and controllers: events in, matches out, virtual time, no broker."""

from __future__ import annotations

import contextlib
import copy
import math
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, Literal

from astrocyte.agents.controllers.base import Controller, check_made, dumped, function_controller, name_of, stepped
from astrocyte.agents.engine.engine import Engine
from astrocyte.agents.engine.entrance import RefusedEvent
from astrocyte.agents.engine.output import EngineOutput
from astrocyte.agents.ingest.dicts import frame_of, time_of
from astrocyte.agents.ingest.validate import Validators
from astrocyte.agents.matches.grouped import GroupedAlert
from astrocyte.agents.matches.table import Match
from astrocyte.agents.rules.model import Rule, RuleSet
from astrocyte.agents.rules.steps import parse_duration
from astrocyte.agents.rules.validator_functions import ValidatorFunction
from astrocyte.agents.rules.validators import Validator
from astrocyte.schemas.errors import PluginError
from astrocyte.schemas.events import ControlEvent
from astrocyte.schemas.frames import Frame

__all__ = ["START_US", "RuleTester", "check_controller", "check_validator"]

START_US: Final = 1_735_689_600_000_000
"""2025-01-01T00:00:00Z, the start of a tester's virtual time."""


class RuleTester:
    """Runs rules on an engine with a virtual clock.

    `send` advances event time to the event (less ``lateness``), `advance` by a duration, `finish` to the end of the
    input. Matches, window results, late and refused events are kept until they are read; each is returned once.
    """

    def __init__(
        self,
        rules: RuleSet | Rule | Sequence[Rule],
        *,
        consistency: Literal["strong", "eventual"] = "strong",
        lateness: str = "0s",
    ) -> None:
        self.engine = Engine(rules, consistency=consistency)
        self.now_us = START_US
        """The virtual time in microseconds since 1970."""
        self._lateness_us = 0 if lateness in ("0", "0s") else parse_duration(lateness)
        self._matches: deque[Match] = deque()
        self._results: dict[str, list[dict[str, Any]]] = {}
        self._late: list[dict[str, Any]] = []
        self._refused: list[RefusedEvent] = []
        self._grouped: list[GroupedAlert] = []

    def send(self, stream: str, *, at: Any = None, key: str | None = "key", **fields: Any) -> None:
        """Send one event, ``at`` a time since the start such as ``"1.5s"``, or a timestamp; default: `now_us`.

        An event may be older than the ones before it by up to the lateness. Raises InvalidEvent.
        """
        time_us = self._time_us(at)
        event = {"stream": stream, "timestamp": time_us, "key": key, **fields}
        self._matches += self.engine.push_event(event)
        self.now_us = max(self.now_us, time_us)
        self._take(self.engine.advance(self.now_us - self._lateness_us))

    def advance(self, duration: str) -> None:
        """Advance time without events: windows close, absences are decided, partial matches time out."""
        self.now_us += parse_duration(duration)
        self._take(self.engine.advance(self.now_us - self._lateness_us))

    def finish(self) -> None:
        """End the input: windows and matches close, and the virtual time restarts."""
        self._take(self.engine.flush())
        self.now_us = START_US

    def matches(self, rule: str | None = None) -> list[Match]:
        """Matches so far, in order (of one rule, if it is named). Each is returned once."""
        found = [match for match in self._matches if rule in (None, match.rule)]
        self._matches = deque(match for match in self._matches if rule not in (None, match.rule))
        return found

    def grouped(self) -> list[GroupedAlert]:
        """Alerts of rules with ``group`` so far. Each is returned once."""
        found, self._grouped = self._grouped, []
        return found

    def results(self, window: str) -> list[dict[str, Any]]:
        """Results of a window so far, as rows. Each is returned once."""
        return self._results.pop(window, [])

    def late(self) -> list[dict[str, Any]]:
        """Late events, which rules did not see, and only windows with ``late: revise``."""
        found, self._late = self._late, []
        return found

    def refused(self) -> list[RefusedEvent]:
        """Events that validators refused, with their reasons."""
        found, self._refused = self._refused, []
        return found

    def expect(self, *wanted: str | Mapping[str, Any]) -> list[Match]:
        """Check that the matches so far are these, in this order, and return them; without arguments: no matches.

        Each argument is a rule's name, or a mapping with any of ``rule``, ``key``, ``emit`` (a subset of the emitted
        values), ``severity``, ``message``, ``timed_out``, ``status``, and ``events`` (number of events by step).
        Raises AssertionError.
        """
        found = self.matches()
        fits = len(found) == len(wanted) and all(
            not _differences(match, {"rule": each} if isinstance(each, str) else each)
            for match, each in zip(found, wanted, strict=True)
        )
        if not fits:
            got = "\n  ".join(map(_shown, found)) or "none"
            refused = "".join(f"\nrefused: {event.stream} {event.fields}: {event.reason}" for event in self._refused)
            expected = "\n  ".join(map(str, wanted)) or "none"
            raise AssertionError(f"expected these matches:\n  {expected}\ngot:\n  {got}{refused}")
        return found

    def _time_us(self, at: Any) -> int:
        if at is None:
            return self.now_us
        if isinstance(at, str) and at[:1].isdigit() and not at[-1:].isdigit() and "-" not in at:
            return START_US + (0 if at in ("0s", "0ms") else parse_duration(at))
        return time_of(at)

    def _take(self, output: EngineOutput) -> None:
        self._matches += output.matches.matches()
        for frame in output.frames:
            self._results.setdefault(frame.stream, []).extend(frame.rows())
        for frame in output.late:
            self._late += [{"stream": frame.stream, **row} for row in frame.rows()]
        self._refused += output.refused
        self._grouped += output.grouped


def _differences(match: Match, wanted: Mapping[str, Any]) -> list[str]:
    found: dict[str, Any] = {
        "rule": match.rule,
        "key": match.key,
        "timed_out": match.timed_out,
        "status": match.status,
        "severity": None if match.alert is None else match.alert.severity,
        "message": None if match.alert is None else match.alert.message,
        "emit": {name: match.emit.get(name) for name in wanted.get("emit", ())},
        "events": {step: len(events) for step, events in match.events.items() if step in wanted.get("events", ())},
    }
    if odd := sorted(wanted.keys() - found.keys()):
        raise AssertionError(f"expect() cannot compare {odd[0]!r}; it compares {', '.join(found)}")
    return [name for name, value in wanted.items() if found[name] != value]


def _shown(match: Match) -> str:
    text = f"{match.rule} key={match.key} emit={dict(match.emit)}"
    text += f" {match.alert.severity}: {match.alert.message}" if match.alert is not None else ""
    return text + (" timed out" if match.timed_out else "") + ("" if match.status == "final" else f" {match.status}")


def check_validator(validator: Validator | Callable[..., Any], events: Iterable[Mapping[str, Any]]) -> list[str | None]:
    """Check that a validator keeps its contract; returns for each event the reason of its refusal, or None.

    ``validator`` may also be the function, of an event or registered with ``per="frame"``. The result for an event must
    not depend on other events or on earlier calls, and neither the events nor the frame may be changed. Raises
    AssertionError.
    """
    if not isinstance(validator, Validator):
        validator = Validator(stream="events", use=validator)
    rows = [{"timestamp": START_US + index, "key": "key", **event} for index, event in enumerate(events)]
    if not rows:
        return []
    frame = frame_of(validator.stream[0], rows)
    before, options = frame.rows(), copy.deepcopy(validator.options)
    whole = _verdicts(validator, frame)
    if whole != _verdicts(validator, frame):
        raise AssertionError("the validator returned a different result for the same events; it must keep no state")
    if _comparable(frame.rows()) != _comparable(before):
        raise AssertionError("the validator changed its input frame; it must return a changed copy")
    for row in reversed(range(frame.num_rows)):  # in another order than before, which what counts events notices
        alone = _verdicts(validator, frame.slice(row, row + 1))[0]
        if alone != whole[row]:
            raise AssertionError(
                f"event {row} alone gave {alone}, with other events {whole[row]}; expected the same result"
            )
    if validator.function is not None and validator.function.per == "event":
        _check_event_kept(validator.function, frame, validator.options)
    if validator.options != options:
        raise AssertionError(f"the validator changed its arguments from {options!r} to {validator.options!r}")
    return [reason for reason, _ in whole]


def _check_event_kept(function: ValidatorFunction, frame: Frame, options: Mapping[str, Any]) -> None:
    """Raise AssertionError for a function that changes the event that it is given."""
    names = ["timestamp", "key", "type", *frame.fields]
    for values in zip(*(frame.values(name) for name in names), strict=True):
        given = dict(zip(names, values, strict=True))
        before = copy.deepcopy(given)
        with contextlib.suppress(Exception):  # what it raises refuses the event, and is compared below
            function.definition(given, **options)
        if _comparable(given) != _comparable(before):
            odd = next(
                name for name in {**before, **given} if _comparable(given.get(name)) != _comparable(before.get(name))
            )
            raise AssertionError(
                f"the validator changed {odd!r} of its event from {before.get(odd)!r} to {given.get(odd)!r}; it must "
                "return the fields to set and leave the event as it is"
            )


def _verdicts(validator: Validator, frame: Frame) -> list[tuple[str | None, dict[str, Any] | None]]:
    passed = Validators([validator]).apply(frame, typed=False)
    found: list[tuple[str | None, dict[str, Any] | None]] = [(None, None)] * frame.num_rows
    for row, values in zip(passed.rows.tolist(), passed.frame.rows(), strict=True):
        values.pop("seq", None)
        # A field that is set on other rows is null here, and none where this row is alone; both read as null.
        found[row] = (None, {name: _comparable(value) for name, value in values.items() if value is not None})
    for row, reason in passed.refused:
        found[row] = (reason, None)
    return found


def _comparable(value: Any) -> Any:
    """The value such that equal results compare as equal: NaN is not equal to itself."""
    if isinstance(value, list):
        return [_comparable(each) for each in value]
    if isinstance(value, dict):
        return {name: _comparable(each) for name, each in value.items()}
    return "NaN" if isinstance(value, float) and math.isnan(value) else value


def check_controller(
    controller: Controller | type[Controller] | Callable[[Frame], Any], frames: Sequence[Frame]
) -> list[ControlEvent]:
    """Check that a controller keeps its contract on these frames; returns its commands.

    ``controller`` may be a class, or a function of a frame as `register_controller` takes it. The same frame and state
    must give the same result and stay as they are, what a step returns must be a state and commands, and a state must
    be equal after `dump` and `load`. The values of commands are finite numbers, text, truth values or None; only the
    scenario knows which of them it takes (it refuses and records others). Raises AssertionError.
    """
    name = name_of(controller)
    if isinstance(controller, type):
        controller = controller()
    if not isinstance(controller, Controller):
        controller = function_controller(controller, frames[0].stream if frames else "frames")
    try:
        check_made(name, controller)
        return _commands(name, controller, frames)
    except PluginError as error:
        raise AssertionError(str(error)) from error


def _commands(name: str, controller: Controller, frames: Sequence[Frame]) -> list[ControlEvent]:
    state, commands = controller.initial(), list[ControlEvent]()
    for frame in frames:
        before, rows = copy.deepcopy(state), _comparable(frame.rows())
        given = copy.deepcopy(stepped(name, controller, state, frame))
        if state != before:
            raise AssertionError(
                f"the controller changed its state in place, from {before!r} to {state!r}; it must return a new one"
            )
        if _comparable(frame.rows()) != rows:
            raise AssertionError("the controller changed its input frame; it must leave it as it is")
        for command in given[1]:
            if any(isinstance(value, float) and not math.isfinite(value) for value in command.values.values()):
                raise AssertionError(
                    f"a command has the values {command.values!r}; expected finite numbers, text, truth values or None"
                )
        if given != stepped(name, controller, state, frame):
            raise AssertionError("the controller gave a different result for the same state and frame; it must be pure")
        after, more = given
        stored = controller.load(dumped(name, controller, after))
        if stored != after:
            raise AssertionError(f"the state {after!r} became {stored!r} when it was stored; check dump and load")
        state, commands = stored, [*commands, *more]
    return commands

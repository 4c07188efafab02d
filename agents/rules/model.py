"""Rules, written as YAML or as these objects, and validated before anything runs.

::

    rules:
      - name: fever_after_stress
        by: key
        within: 2s                       # half-open; {time: 2s, closed: true} includes the bound
        seq:                             # or all (any order), any (one of them); groups nest inside seq
          - {as: stress, stream: axon_1, where: "value > 3"}
          - not: {as: relief, stream: axon_2}
          - {as: heat, stream: axon_1, where: "value > 2 * stress.value", min: 2}
        emit: {rise: "last(heat.value) - stress.value"}
        alert: {severity: warning, message: "rose by {last(heat.value) - stress.value:.1f}"}

`Rule(...)` and `load_rules(...)` raise InvalidRule, whose ``problems`` say file, rule, field and position.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from functools import cached_property
from itertools import pairwise
from typing import Annotated, Any, ClassVar, Final, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from astrocyte.agents.expressions.nodes import ExpressionError
from astrocyte.agents.expressions.parser import Node, parse_template
from astrocyte.agents.rules.alerts import Alert, AlertGroup, OnTimeout, group_of, on_timeout_of
from astrocyte.agents.rules.conditions import parsed, refuse_never
from astrocyte.agents.rules.contradictions import implies, reads_step
from astrocyte.agents.rules.insight import AnyStatisticSpec
from astrocyte.agents.rules.junctions import Junction
from astrocyte.agents.rules.problems import InvalidRules, OfField, RuleProblem, in_expression
from astrocyte.agents.rules.steps import (
    Contiguity,
    Duration,
    Element,
    Group,
    Model,
    Step,
    Until,
    Whole,
    check_members,
    format_duration,
    last_steps,
    leaves,
    named_parts,
    parse_duration,
    walk_parts,
)
from astrocyte.agents.rules.streams import Overload, Stream
from astrocyte.agents.rules.validators import Validator
from astrocyte.agents.rules.windows import Window
from astrocyte.schemas.errors import InvalidRule

__all__ = [
    "Alert",
    "AlertGroup",
    "Consistency",
    "Contiguity",
    "Element",
    "Group",
    "InvalidRules",
    "Junction",
    "MaxPartials",
    "OnTimeout",
    "Overload",
    "Rule",
    "RuleProblem",
    "RuleSet",
    "Skip",
    "Step",
    "Stream",
    "Until",
    "Validator",
    "Window",
    "Within",
    "as_rule_set",
    "format_duration",
    "parse_duration",
]

DEFAULT_MAX_PARTIALS: Final = 10_000
MAX_ALL_STEPS: Final = 8
_NOT_CONTENT: Final = {"description", "version", "consistency"}

Consistency = Literal["strong", "eventual"]
"""``strong``: matches come out when their order is certain; ``eventual``: on arrival, confirmed or retracted later."""


class Within(Model):
    """Maximum time from the first event of a match to its last; ``closed`` includes the bound itself."""

    time: Duration
    closed: bool = False


class MaxPartials(Model):
    """Limit on the partial matches of one key; partial matches that are dropped are counted.

    ``drop_oldest`` ends the partial match that started first, ``drop_newest`` starts no new ones.
    """

    limit: Whole = Field(default=DEFAULT_MAX_PARTIALS, ge=1, le=2**30)
    policy: Literal["drop_oldest", "drop_newest"] = "drop_oldest"


class Skip(Model):
    """Effect of an emitted match on other matches, partial and complete (see docs/rules.md)."""

    kind: Literal["none", "past_last", "to_next", "to_first", "to_last"] = "none"
    step: str | None = None
    on_missing: Literal["ignore", "error"] = "ignore"
    """For to_first and to_last: whether a match without that step (or starting with it) is an error."""
    shorthands: ClassVar[tuple[str, ...]] = ("to_first", "to_last")


def _within(value: Any) -> Any:
    return value if isinstance(value, dict | Within) or value is None else {"time": value}


def _limit(value: Any) -> Any:
    return {"limit": value} if isinstance(value, int) else value


def _skip(value: Any) -> Any:
    if isinstance(value, str):
        return {"kind": value}
    if isinstance(value, dict) and (named := value.keys() & {"to_first", "to_last"}) and len(named) == 1:
        kind = named.pop()
        return {"kind": kind, "step": value[kind], **{key: value[key] for key in value.keys() - {kind}}}
    return value


def _by(value: Any) -> Any:
    if isinstance(value, str) and not value.strip():
        raise ValueError("is empty; name a field, or write null to match events of all keys together")
    return value


class Rule(Model):
    """One rule: a pattern over events with the same value of ``by``, and the output for each match."""

    name: str = Field(pattern=r"^[A-Za-z_][\w.-]*$", max_length=120)
    description: str = ""
    by: Annotated[str | None, BeforeValidator(_by)] = "key"
    """Field that all events of a match share; None: events of all keys match together."""
    within: Annotated[Within | None, BeforeValidator(_within)] = None
    seq: tuple[Element, ...] | None = Field(default=None, min_length=1)
    all: tuple[Element, ...] | None = Field(default=None, min_length=1)
    any: tuple[Element, ...] | None = Field(default=None, min_length=1)
    pairing: Literal["once", "each", "latest"] = "once"
    skip: Annotated[Skip, BeforeValidator(_skip)] = Skip()
    emit_mode: Literal["final", "eager"] = "final"
    """``final``: a match waits until no partial match that started earlier is left (relevant with ``skip`` only)."""
    max_partials: Annotated[MaxPartials, BeforeValidator(_limit)] = MaxPartials()
    max_matches: Whole | None = Field(default=None, ge=1, le=2**30)
    """Matches that one event may complete for one key, where all combinations match; None: limit of max_partials."""
    emit: dict[str, str] = Field(default_factory=dict)
    confidence: str | None = None
    alert: Alert | None = None
    on_timeout: Annotated[OnTimeout | None, BeforeValidator(on_timeout_of)] = None
    cool_down: Duration | None = None
    """Event time after an alert in which the rule raises no other for the same key."""
    group: Annotated[AlertGroup | None, BeforeValidator(group_of)] = None
    consistency: Consistency | None = None
    """When matches come out: see docs/rules.md; None: as the engine's. No part of the version, as ids do not change."""
    at_end: Literal["decide", "ignore"] = "decide"
    """``ignore``: what only the end of the input decides, such as an absence whose time is not over, is no match."""
    version: str | None = Field(default=None, max_length=40)
    """Part of the id of every match; by default a hash of the rule's content (`content_version`)."""

    @model_validator(mode="before")
    @classmethod
    def _read_emit_mode(cls, value: Any) -> Any:
        if isinstance(value, dict) and isinstance(value.get("emit"), str):
            mode = value["emit"]
            return {**{key: value[key] for key in value.keys() - {"emit"}}, "emit_mode": mode}
        return value

    @model_validator(mode="after")
    def _check_rule(self) -> Self:
        if sum(part is not None for part in (self.seq, self.all, self.any)) != 1:
            raise ValueError("a rule needs exactly one of seq (in order), all (any order) and any (one of them)")
        check_members(self.kind, self.members)
        names = [step.name for step in self.steps]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise ValueError(f"step {twice!r} appears twice; step names label the match, rename one of them")
        if self.kind == "all":
            self._check_all()
        elif "pairing" in self.model_fields_set and self.pairing != "once":
            raise ValueError("pairing applies to all only; use contiguity and skip for seq and any")
        self._check_time()
        self._check_skip()
        self._check_alerts()
        self._check_expressions()
        return self

    def _check_all(self) -> None:
        if self.within is None:
            raise ValueError("all needs a time limit, otherwise events would wait indefinitely; add within, such as 2s")
        if self.skip.kind != "none":
            raise ValueError("skip applies to seq and any only; use pairing for all")
        if len(self.positive) > MAX_ALL_STEPS:
            raise ValueError(f"all: expected at most {MAX_ALL_STEPS} steps, got {len(self.positive)}")

    def _check_time(self) -> None:
        last = self.members[-1]
        absent = self.kind == "seq" and isinstance(last, Step) and last.negated and last.contiguity != "next"
        if absent and self.within is None and last.within_prev is None:
            raise ValueError("the last step is negated and needs a time limit for the absence; add within")
        for part in walk_parts(self.members):
            if self.within is not None and part.within_prev is not None and part.within_prev > self.within.time:
                raise ValueError(
                    f"within_prev of {format_duration(part.within_prev)} is longer than the rule's within of "
                    f"{format_duration(self.within.time)}; make it shorter or leave it out"
                )

    def _check_skip(self) -> None:
        if self.skip.kind in ("to_first", "to_last"):
            if self.skip.step is None:
                raise ValueError(f"skip {self.skip.kind} needs the name of a step: skip: {{{self.skip.kind}: a}}")
            if self.skip.step not in self.positive:
                raise ValueError(f"skip names the unknown step {self.skip.step!r}; steps: {', '.join(self.positive)}")
        elif self.skip.step is not None:
            raise ValueError(f"skip {self.skip.kind} takes no step; leave step out")

    def _check_alerts(self) -> None:
        """Refuse ``cool_down`` and ``group`` where alerts would not be decided in the order of event time."""
        option = "cool_down" if self.cool_down is not None else "group" if self.group is not None else None
        if option is None:
            return
        if self.alert is None and (self.on_timeout is None or self.on_timeout.alert is None):
            raise ValueError(f"{option} applies to alerts, and the rule has none; add alert, or leave it out")
        if self.holds_matches and self.within is None:
            raise ValueError(
                f"{option} with skip {self.skip.kind} needs a time bound, since a match may wait for earlier ones; "
                "add within, or write emit: eager"
            )
        if self.holds_matches and self.group is None and self.skip.kind != "past_last":
            raise ValueError(
                f"cool_down with skip {self.skip.kind}: a match may be emitted after later ones; "
                "write emit: eager, or skip: past_last, or add group"
            )
        values = {*self.emit, *(self.on_timeout.emit if self.on_timeout else ())}
        if self.group is not None and self.group.by not in (None, "key", *values):
            raise ValueError(
                f"group.by: expected key, null or a value that the rule emits ({', '.join(sorted(values)) or 'none'}), "
                f"got {self.group.by!r}"
            )

    def _check_expressions(self) -> None:
        for index, step in enumerate(self.steps):
            with in_expression("steps", index, "where"):
                nothing = " and excludes nothing" if step.negated else ""
                refuse_never(f"{step.name}.where", self.condition(step), f"step {step.name!r} never matches{nothing}")
            with in_expression("steps", index, "until"):
                refuse_never(f"{step.name}.until", self.until(step), f"it never ends step {step.name!r}")
        for index, group in enumerate(self.groups):
            with in_expression("groups", index, "until"):
                refuse_never("group.until", self.until(group), "it never ends the group")
        if self.kind == "seq":
            self._check_order()
        for _ in (self.emit_nodes, self.timeout_emit_nodes, self.confidence_node, self.message, self.timeout_message):
            pass

    def _check_order(self) -> None:
        """Refuse what no order of events can fulfil: events that are read too early, and loops that end themselves."""
        named = named_parts(self.members)
        for index, step in enumerate(named):
            if not isinstance(step, Step):
                continue
            later = {str(each.name) for each in leaves(named[index + 1 :])}
            early = reads_step(self.condition(step), later)
            if early is not None:
                with in_expression("steps", self.steps.index(step), "where"):
                    raise OfField(
                        f"{step.name}.where",
                        f"{early} is always null here, since step {early.partition('.')[0]!r} comes later, so the "
                        "condition is never true; move it to that step",
                    )
        for part in (self, *walk_parts(self.members)):
            if isinstance(part, Rule | Group) and part.kind == "seq":
                for loop, after in pairwise(part.members):
                    self._check_loop_before_not(loop, after)

    def _check_loop_before_not(self, loop: Step | Group, after: Step | Group) -> None:
        """A ``not`` after a loop is in force between the loop's events as well, as in Flink."""
        if not (isinstance(loop, Step) and isinstance(after, Step) and after.negated and after.contiguity != "next"):
            return
        if loop.at_least < 2 or not set(loop.stream) <= set(after.stream) or loop.until is not None:
            return
        if implies(self.condition(loop), self.condition(after)):
            raise ValueError(
                f"step {loop.name!r} can never be complete: the negated step after a loop forbids its events between "
                f"the events of the loop too, and every event of {loop.name!r} is one of them; write "
                f"{loop.at_least} separate steps instead of the loop"
            )

    @property
    def kind(self) -> Literal["seq", "all", "any"]:
        """The top operator."""
        return "seq" if self.seq is not None else "all" if self.all is not None else "any"

    @property
    def paces_alerts(self) -> bool:
        """Whether some matches raise no alert of their own: ``cool_down`` or ``group`` decides."""
        return self.cool_down is not None or self.group is not None

    @property
    def holds_matches(self) -> bool:
        """Whether a complete match may wait for one that began earlier, and come after later ones."""
        return self.kind != "all" and self.skip.kind != "none" and self.emit_mode == "final"

    @property
    def ends_by_absence(self) -> bool:
        """Whether a match may be complete at a time at which none of its events is: its last step is negated."""
        return any(element.negated for element in last_steps(self.seq or ()))

    @property
    def members(self) -> tuple[Element, ...]:
        """Steps and groups of the top operator."""
        return self.seq or self.all or self.any or ()

    @cached_property
    def steps(self) -> tuple[Step, ...]:
        """All steps in the order of the rule, including negated ones (unnamed steps get a name)."""
        return tuple(leaves(named_parts(self.members)))

    @cached_property
    def groups(self) -> tuple[Group, ...]:
        """All groups, each before those inside it."""
        return tuple(part for part in walk_parts(self.members) if isinstance(part, Group))

    @cached_property
    def positive(self) -> tuple[str, ...]:
        """Names of the steps that label events of a match, in order: a match's step number indexes this."""
        return tuple(str(step.name) for step in self.steps if not step.negated)

    @cached_property
    def streams(self) -> tuple[str, ...]:
        """All streams that the rule reads, sorted."""
        named = {stream for step in self.steps for stream in step.stream}
        for part in walk_parts(self.members):
            if part.until is not None and part.until.stream is not None:
                named.update([part.until.stream] if isinstance(part.until.stream, str) else part.until.stream)
        return tuple(sorted(named))

    def condition(self, step: Step) -> Node | None:
        """The step's ``where``, parsed."""
        if step.where is None:
            return None
        return parsed(f"{step.name}.where", step.where, steps=self.positive, own=step.name)

    def until(self, part: Step | Group) -> Node | None:
        """The part's ``until``, parsed; bare fields are those of the candidate event."""
        if part.until is None:
            return None
        name = part.name if isinstance(part, Step) else None
        return parsed(f"{name or 'group'}.until", part.until.where, steps=self.positive, own=name)

    @cached_property
    def emit_nodes(self) -> Mapping[str, Node]:
        """Parsed ``emit``."""
        return self._outputs("emit", self.emit)

    @cached_property
    def timeout_emit_nodes(self) -> Mapping[str, Node]:
        """Parsed ``on_timeout.emit``."""
        return self._outputs("on_timeout.emit", self.on_timeout.emit if self.on_timeout else {})

    @cached_property
    def confidence_node(self) -> Node | None:
        """Parsed ``confidence`` (or the emit value of that name)."""
        text = self.confidence if self.confidence is not None else self.emit.get("confidence")
        with in_expression("confidence"):
            return None if text is None else parsed("confidence", text, steps=self.positive, bare_fields=False)

    @cached_property
    def message(self) -> tuple[tuple[str, Node | None, str], ...] | None:
        """Parsed message of the alert."""
        with in_expression("alert", "message"):
            return None if self.alert is None else _template("alert.message", self.alert.message, self.positive)

    @cached_property
    def timeout_message(self) -> tuple[tuple[str, Node | None, str], ...] | None:
        """Parsed message of the timeout's alert."""
        if self.on_timeout is None or self.on_timeout.alert is None:
            return None
        with in_expression("on_timeout", "alert", "message"):
            return _template("on_timeout.alert.message", self.on_timeout.alert.message, self.positive)

    def _outputs(self, where: str, strings: Mapping[str, str]) -> Mapping[str, Node]:
        nodes = {}
        for name, text in strings.items():
            with in_expression(*where.split("."), name):
                nodes[name] = parsed(f"{where}.{name}", text, steps=self.positive, bare_fields=False)
        return nodes

    @cached_property
    def content_version(self) -> str:
        """``version``, or eight hexadecimal digits that change with the rule's content except its description."""
        if self.version is not None:
            return self.version
        content = self.model_dump(mode="json", by_alias=True, exclude=_NOT_CONTENT, exclude_defaults=True)
        return hashlib.blake2b(json.dumps(content, sort_keys=True).encode(), digest_size=4).hexdigest()

    @property
    def bounded(self) -> bool:
        """Whether a time limit, the pattern, or an explicit ``max_partials`` bounds the number of partial matches."""
        parts = list(walk_parts(self.members))
        single = self.kind != "all" and not any(part.loops for part in parts)
        single = single and (len(parts) == 1 or (self.kind == "any" and all(isinstance(part, Step) for part in parts)))
        return self.within is not None or single or "max_partials" in self.model_fields_set


class RuleSet(Model):
    """Rules, windows, statistics and junctions that run together, and their streams' validators; no two of one name."""

    rules: tuple[Rule, ...] = ()
    windows: tuple[Window, ...] = ()
    insight: tuple[AnyStatisticSpec, ...] = ()
    junctions: tuple[Junction, ...] = ()
    streams: tuple[Stream, ...] = ()
    validators: tuple[Validator, ...] = ()

    @model_validator(mode="after")
    def _check_names(self) -> Self:
        names = [each.name for each in (*self.rules, *self.windows, *self.insight, *self.junctions)]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise ValueError(
                f"the name {twice!r} is given to two rules, windows, statistics or junctions; rename one of them"
            )
        streams = [stream.name for stream in self.streams]
        again = next((name for name in streams if streams.count(name) > 1), None)
        if again is not None:
            places = " and ".join(f"streams[{index}]" for index, name in enumerate(streams) if name == again)
            raise ValueError(f"stream {again!r} is declared twice, as {places}; keep one declaration")
        made_here = self.made
        for rule in (each for each in self.rules if each.consistency == "eventual"):
            made = next((stream for stream in rule.streams if stream in made_here), None)
            if made is not None:
                raise ValueError(
                    f"rule {rule.name!r}: consistency eventual matches events when they arrive, and {made!r} is made "
                    "by this rule set when its input is certain; leave consistency out"
                )
        return self

    @property
    def made(self) -> frozenset[str]:
        """Streams that its rules, windows, statistics and junctions make."""
        return frozenset(each.name for each in (*self.rules, *self.windows, *self.insight, *self.junctions))

    @property
    def read(self) -> frozenset[str]:
        """Streams that its rules, windows and statistics read, also those that it makes.

        With the streams by which it is decided when the junctions that they read form.
        """
        makers = (*self.rules, *self.windows, *self.insight)
        read = {stream for each in makers for stream in each.streams}
        forming = (each.forms for each in self.junctions if each.name in read)
        return frozenset(read.union(*(forms.streams for forms in forming if forms is not None)))


def as_rule_set(rules: RuleSet | Rule | Sequence[Rule]) -> RuleSet:
    """The rule set of one or several rules. Raises InvalidRule."""
    if isinstance(rules, RuleSet):
        return rules
    # A string is a sequence too: without this check the error would name its first character.
    several = isinstance(rules, Sequence) and not isinstance(rules, str | bytes)
    given: Sequence[Any] = rules if several else [rules]  # type: ignore[assignment]
    for odd in given:
        if not isinstance(odd, Rule):
            shown = repr(odd) if len(repr(odd)) <= 60 else repr(odd)[:57] + "..."
            raise InvalidRule(
                f"expected a Rule, a sequence of Rules or a RuleSet, got {type(odd).__name__} {shown}; "
                "load_rules(...) makes a RuleSet from a path, YAML text or a mapping"
            )
    return RuleSet(rules=tuple(given))


def _template(where: str, text: str, steps: Collection[str]) -> tuple[tuple[str, Node | None, str], ...]:
    try:
        return parse_template(text, steps=steps)
    except ExpressionError as error:
        raise OfField(where, str(error)) from error

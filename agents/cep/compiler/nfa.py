"""Builds the graph of an NFA from a rule's pattern.

The graph is built from its end: each part of the pattern is given the state that follows it (its ``sink``) and returns
its first state. Edges TAKE an event, IGNORE it, or PROCEED without consuming it, each under a formula;
`agents.cep.compiler.flatten` eliminates PROCEED edges. The contiguity of a step is the condition of its IGNORE edge:
none for ``next``, "does not fit" for ``followed_by``, always for ``followed_by_any``.

Sequences, loops, negation and groups have the semantics of Flink CEP (its published language and tests). A time limit
between two events is on the TAKE edge here, so that it applies equally to every pair of events.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from enum import IntEnum
from typing import Final

from astrocyte.agents.cep.compiler.formula import FALSE, TRUE, Atoms, Formula, both, either, negation
from astrocyte.agents.rules.model import Group, Rule, Step
from astrocyte.agents.rules.problems import about
from astrocyte.schemas.errors import InvalidRule

__all__ = ["Action", "Edge", "Graph", "Kind", "State", "build_graph"]

Member = Step | Group
MAX_STATES: Final = 20_000


class Action(IntEnum):
    """What an edge does with the event."""

    IGNORE = 0
    TAKE = 1
    PROCEED = 2


class Kind(IntEnum):
    """NORMAL states wait, FINAL completes, STOP ends without a match, PENDING completes when its time has passed."""

    NORMAL = 0
    FINAL = 1
    STOP = 2
    PENDING = 3


@dataclass(slots=True, eq=False)
class Edge:
    """``step`` (TAKE only) labels the event; ``wait_us`` bounds the time since the previously taken event (0: none).

    ``yields`` are events that a preceding greedy loop would take. ``confirms`` is False if PROCEED needs one more
    event: along that edge the match cannot be complete with the event that led to the state.
    """

    action: Action
    target: State
    condition: Formula
    step: int = -1
    wait_us: int = 0
    yields: Formula = FALSE
    confirms: bool = True

    @property
    def effective(self) -> Formula:
        """Condition under which an event takes the edge."""
        return self.condition if self.yields == FALSE else both(self.condition, negation(self.yields))


@dataclass(slots=True, eq=False)
class State:
    """``label`` is for display; ``wait_us`` is the time after which a PENDING state completes (0: the window's)."""

    label: str
    kind: Kind = Kind.NORMAL
    edges: list[Edge] = field(default_factory=list)
    wait_us: int = 0

    def take(self, target: State, condition: Formula, step: int, wait_us: int = 0) -> None:
        """Add a TAKE edge."""
        self.edges.append(Edge(Action.TAKE, target, condition, step, wait_us))

    def ignore(self, target: State, condition: Formula) -> None:
        """Add an IGNORE edge."""
        self.edges.append(Edge(Action.IGNORE, target, condition))

    def proceed(self, target: State, condition: Formula, *, confirms: bool = True) -> None:
        """Add a PROCEED edge."""
        self.edges.append(Edge(Action.PROCEED, target, condition, confirms=confirms))


@dataclass(frozen=True, slots=True)
class Graph:
    """States in order of creation; ``start`` is where every partial match begins."""

    start: State
    states: tuple[State, ...]
    atoms: Atoms


@dataclass(frozen=True, slots=True)
class _Position:
    """Position of a part in the pattern; the first part of a group has the position of the group."""

    before: tuple[Member, ...] = ()
    after: Member | None = None
    lead: str = "next"
    """Contiguity between the part's first event and the event before it."""
    wait_us: int = 0
    """Bound on the time between these two (0: none)."""
    until: Formula = FALSE
    """Condition that ends the enclosing loops."""
    skippable: bool = False
    """Whether the part's first state can be bypassed; waiting then needs a state of its own."""
    rivals: Formula | None = None
    """If the part is one of several alternatives: condition that an event fits the beginning of one of them."""
    barred: tuple[Step, ...] = ()
    """Negated steps in force besides those in ``before``: inside a loop, those that must not follow it."""


def build_graph(rule: Rule) -> Graph:
    """Graph of a rule whose top operator is ``seq`` or ``any``. Raises InvalidRule if it gets too large."""
    builder = _Builder(rule)
    members = (Group(any=rule.members),) if rule.kind == "any" else rule.members
    start = builder.sequence(members, builder.final, _Position())
    return Graph(start, tuple(builder.states), builder.atoms)


class _Builder:
    def __init__(self, rule: Rule) -> None:
        self.rule = rule
        self.atoms = Atoms()
        self.states: list[State] = []
        self.final = self.state("match", Kind.FINAL)
        self.stops: dict[str, State] = {}
        self.unyielded: dict[State, State] = {}
        self.number = {name: index for index, name in enumerate(rule.positive)}
        self.names = {id(step): str(named.name) for step, named in zip(_steps(*rule.members), rule.steps, strict=True)}

    # -- states and conditions ---------------------------------------------------------------------------------------

    def state(self, label: str, kind: Kind = Kind.NORMAL) -> State:
        state = State(label, kind)
        self.states.append(state)
        if len(self.states) > MAX_STATES:
            raise InvalidRule(f"the rule needs more than {MAX_STATES} states; use smaller counts")
        return state

    def copy(self, state: State) -> State:
        copy = self.state(state.label, state.kind)
        copy.wait_us = state.wait_us
        copy.edges = [replace(edge, target=copy if edge.target is state else edge.target) for edge in state.edges]
        return copy

    def where(self, step: Step) -> Formula:
        with about(field=f"{self.names[id(step)]}.where"):
            return self.atoms.formula(self.rule.condition(step), step.stream)

    def until_of(self, part: Member) -> Formula:
        """The part's own ``until``; FALSE if it has none."""
        if part.until is None:
            return FALSE
        streams = part.until.stream or tuple({stream for step in _steps(part) for stream in step.stream})
        with about(field=f"{self.names.get(id(part)) or _label(part)}.until"):
            return self.atoms.formula(self.rule.until(part), (streams,) if isinstance(streams, str) else streams)

    def fits(self, part: Member) -> Formula:
        """Whether an event can be the first of the part."""
        if isinstance(part, Step):
            return self.where(part)
        result = FALSE
        for member in part.members:
            if not (isinstance(member, Step) and member.negated):
                result = either(result, self.fits(member))
                if part.kind == "seq" and not member.may_be_absent:
                    break
        return result

    def passes(self, fits: Formula, contiguity: str) -> Formula | None:
        """Condition under which a part that waits for an event that ``fits`` ignores an event; None: never."""
        return {"next": None, "followed_by": negation(fits), "followed_by_any": TRUE}[contiguity]

    # -- sequences and negation --------------------------------------------------------------------------------------

    def sequence(self, members: Sequence[Member], sink: State, place: _Position) -> State:
        """First state of the members in order."""
        after = place.after
        for index in range(len(members) - 1, -1, -1):
            member = members[index]
            if index == 0:
                here = replace(place, after=after, wait_us=_least(place.wait_us, member.within_prev))
            else:
                here = _Position(
                    before=tuple(members[:index]),
                    after=after,
                    lead=member.contiguity or "followed_by",
                    wait_us=member.within_prev or 0,
                    until=place.until,
                )
            if isinstance(member, Step) and member.negated:
                sink = self.negated(member, sink, here)
            else:
                sink = self.part(member, sink, here)
            after = member
        return sink

    def forbidden(self, step: Step, place: _Position) -> Formula:
        return _unless(place.until, self.where(step))

    def negated(self, step: Step, sink: State, place: _Position) -> State:
        forbidden = self.forbidden(step, place)
        if step.contiguity == "next":
            state = self.state(f"no {self.names[id(step)]} next")
            if self.can_end(sink):
                state.ignore(self.final, negation(forbidden))  # requires one more event that is not the forbidden one
            if sink.kind is not Kind.FINAL:
                state.proceed(sink, negation(forbidden), confirms=False)
            state.proceed(self.stop(step, forbidden), forbidden)  # also ends a preceding loop
            return state
        if sink.kind is not Kind.FINAL:
            return sink  # in force on the states of what follows: see `forbid`
        state = self.state(f"no {self.names[id(step)]}", Kind.PENDING)
        state.wait_us = step.within_prev or 0
        state.proceed(self.stop(step, forbidden), forbidden)
        state.ignore(state, negation(forbidden))
        return state

    @staticmethod
    def can_end(state: State) -> bool:
        """Whether the match can be complete at the state, without a further event."""
        seen: list[State] = []
        stack = [state]
        while stack:
            state = stack.pop()
            if state.kind is Kind.FINAL:
                return True
            if state not in seen:
                seen.append(state)
                stack += [edge.target for edge in state.edges if edge.action is Action.PROCEED and edge.confirms]
        return False

    def stop(self, step: Step, forbidden: Formula) -> State:
        name = self.names[id(step)]
        if name not in self.stops:
            state = self.stops[name] = self.state(name, Kind.STOP)
            state.take(state, forbidden, -1)
        return self.stops[name]

    @staticmethod
    def in_force(place: _Position) -> list[Step]:
        """Negated steps directly before the part, or before optional parts before it."""
        found = []
        for member in reversed(place.before):
            if isinstance(member, Step) and member.negated and member.contiguity != "next":
                found.append(member)
            elif not member.may_be_absent:
                break
        return found

    def forbid(self, state: State, place: _Position) -> None:
        for step in (*self.in_force(place), *place.barred):
            forbidden = self.forbidden(step, place)
            state.proceed(self.stop(step, forbidden), forbidden)

    @staticmethod
    def again(part: Member, place: _Position) -> _Position:
        """Position of a further occurrence of the part. What must not follow a loop must not occur inside it either."""
        after = place.after
        barred = isinstance(after, Step) and after.negated and after.contiguity != "next"
        return _Position(
            after=after,
            lead=_inner(part),
            wait_us=part.gap or 0,
            until=place.until,
            barred=(after,) if barred and isinstance(after, Step) else (),
        )

    def lifted(self, part: Member, sink: State, place: _Position, done: dict[State, State] | None = None) -> State:
        """The sink after an optional part was taken: the negations before the part no longer apply."""
        names = {self.names[id(step)] for step in self.in_force(place)}
        if not names or not part.may_be_absent:
            return sink
        done = {} if done is None else done
        if sink in done:
            return done[sink]
        copy = done[sink] = self.state(sink.label, sink.kind)
        copy.wait_us = sink.wait_us
        if sink in self.unyielded:
            self.unyielded[copy] = self.lifted(part, self.unyielded[sink], place, done)
        for edge in sink.edges:
            target = copy if edge.target is sink else edge.target
            if edge.action is Action.PROCEED:
                if target.kind is Kind.STOP and target.label in names:
                    continue
                if target.kind is not Kind.STOP:
                    target = self.lifted(part, target, place, done)
            copy.edges.append(replace(edge, target=target))
        return copy

    # -- one part with its quantifier --------------------------------------------------------------------------------

    def part(self, part: Member, sink: State, place: _Position) -> State:
        """First state of a part: its minimum number of occurrences in sequence, then the optional ones or the loop."""
        if part.greedy and part.at_most != part.at_least:
            plain, sink = sink, self.yielding(sink, _unless(place.until, self.fits(part)), {})
            self.unyielded[sink] = plain
        following = sink
        if part.at_most is None:
            following = self.loop(part, self.lifted(part, sink, place), place)
        most = part.at_least if part.at_most is None else part.at_most
        again = self.again(part, place)
        for count in range(most - 1):
            absent = sink if count < most - part.at_least else None
            following = self.once(part, following, absent, again, between=True)
        return self.once(part, following, sink if part.may_be_absent else None, place)

    def loop(self, part: Member, sink: State, place: _Position) -> State:
        """Any number of further occurrences of a part that has occurred."""
        own = self.until_of(part)
        if isinstance(part, Group) and not _is_choice(part):
            back = self.state(f"{_label(part)} again")
            inside = replace(self.again(part, place), until=either(place.until, own), skippable=True)
            first = self.group(part, back, inside)
            first.proceed(sink, _unless(place.until, TRUE))
            back.proceed(first, _unless(place.until, TRUE))
            return first
        looping = self.state(f"{_label(part)} again")
        self.go_around(part, looping, sink, place)
        ends = either(place.until, own)
        self.takes(looping, part, looping, ends, part.gap or 0)
        self.forbid(looping, self.again(part, place))
        passes = self.passes(self.fits(part), _inner(part))
        if passes is not None:
            waiting = self.state(f"{_label(part)} again")
            self.takes(waiting, part, looping, ends, part.gap or 0)
            waiting.ignore(waiting, _unless(ends, passes))
            looping.ignore(waiting, _unless(ends, passes))
            self.forbid(waiting, self.again(part, place))
        return looping

    def go_around(self, part: Member, state: State, sink: State, place: _Position) -> None:
        """Add the edge from a state of the part to what follows; a loop ended by ``until`` is no longer greedy."""
        own, always = self.until_of(part), _unless(place.until, TRUE)
        if part.greedy and own != FALSE and sink in self.unyielded:
            state.proceed(self.unyielded[sink], both(always, own))
            always = both(always, negation(own))
        state.proceed(sink, always)

    def yielding(self, state: State, taken: Formula, done: dict[State, State]) -> State:
        """Copy of the state after a greedy loop that neither takes nor ignores events that the loop would take.

        It is a copy, since the state may also be reached along edges without a greedy loop.
        """
        if state in done or state.kind in (Kind.FINAL, Kind.STOP) or not state.edges:
            return done.get(state, state)
        copy = done[state] = self.state(state.label, state.kind)
        copy.wait_us = state.wait_us
        for edge in state.edges:
            if edge.action is Action.PROCEED:
                copy.edges.append(replace(edge, target=self.yielding(edge.target, taken, done)))
            else:
                waits = edge.action is Action.IGNORE
                target = self.yielding(edge.target, taken, done) if waits else edge.target
                copy.edges.append(replace(edge, target=target, yields=either(edge.yields, taken)))
        return copy

    # -- one occurrence ----------------------------------------------------------------------------------------------

    def once(
        self, part: Member, sink: State, absent: State | None, place: _Position, *, between: bool = False
    ) -> State:
        """One occurrence; ``absent`` is the next state if it does not occur, ``between`` is True inside a loop."""
        own = self.until_of(part)
        sink = self.lifted(part, sink, place)
        if isinstance(part, Group) and not _is_choice(part):
            inside = replace(place, until=either(place.until, own), skippable=place.skippable or absent is not None)
            state = self.group(part, sink, inside)
            if absent is not None:
                state.proceed(absent, _unless(place.until, TRUE))
            return state
        state = self.state(_label(part))
        ends = either(place.until, own)
        self.takes(state, part, sink, ends, place.wait_us)
        if absent is not None:
            self.go_around(part, state, absent, place)
        passes = self.passes(self.fits(part) if place.rivals is None else place.rivals, place.lead)
        if passes is not None:
            passes = _unless(ends if between else place.until, passes)
            waiting = state
            if absent is not None or place.skippable:
                waiting = self.state(_label(part))
                self.takes(waiting, part, sink, ends, place.wait_us)
                waiting.ignore(waiting, passes)
                self.forbid(waiting, place)
            state.ignore(waiting, passes)
        self.forbid(state, place)
        return state

    def takes(self, state: State, part: Member, sink: State, until: Formula, wait_us: int) -> None:
        """TAKE edges of a step, or of alternative steps; the first alternative that fits takes the event."""
        earlier = FALSE
        for step in _steps(part):
            fits = self.where(step)
            first = fits if earlier == FALSE else both(fits, negation(earlier))
            state.take(sink, _unless(until, first), self.number[str(step.name)], wait_us)
            earlier = either(earlier, fits)

    def group(self, group: Group, sink: State, place: _Position) -> State:
        """First state of one occurrence of a group; the ``until`` of ``place`` includes the group's own."""
        if group.kind == "seq":
            return self.sequence(group.members, sink, place)
        if group.kind == "all":
            return self.lattice(group, sink, place)
        fork = self.state(_label(group))
        rivals = self.fits(group)
        for member in group.members:
            branch = replace(place, rivals=rivals, skippable=False, wait_us=_least(place.wait_us, member.within_prev))
            fork.proceed(self.part(member, sink, branch), TRUE)
        return fork

    def lattice(self, group: Group, sink: State, place: _Position) -> State:
        """``all`` inside a sequence: one state for every set of steps that have occurred."""
        steps = [step for step in _steps(group) if not step.negated]
        nots = [step for step in _steps(group) if step.negated]
        full = (1 << len(steps)) - 1
        states = [self.state(f"{_label(group)} {done:0{len(steps)}b}") for done in range(full)] + [sink]
        for done, state in enumerate(states[:full]):
            missing = [index for index in range(len(steps)) if not done >> index & 1]
            fits = FALSE
            for index in missing:
                where = self.where(steps[index])
                wait = place.wait_us if done == 0 else 0
                target = states[done | 1 << index]
                state.take(target, _unless(place.until, where), self.number[str(steps[index].name)], wait)
                fits = either(fits, where)
            passes = self.passes(fits, "followed_by" if done else place.lead)
            if done:
                for step in nots:
                    state.proceed(self.stop(step, self.forbidden(step, place)), self.forbidden(step, place))
            else:
                self.forbid(state, place)
            if passes is not None:
                passes = _unless(place.until, passes)
                waiting = state
                if done == 0 and place.skippable:
                    waiting = self.copy(state)
                    waiting.ignore(waiting, passes)
                state.ignore(waiting, passes)
        return states[0]


def _unless(until: Formula, condition: Formula) -> Formula:
    return condition if until == FALSE else both(negation(until), condition)


def _least(a: int, b: int | None) -> int:
    limits = [limit for limit in (a, b) if limit]
    return min(limits, default=0)


def _steps(*parts: Member) -> list[Step]:
    found: list[Step] = []
    for part in parts:
        found += [part] if isinstance(part, Step) else _steps(*part.members)
    return found


def _is_choice(part: Group) -> bool:
    return part.kind == "any" and all(isinstance(each, Step) for each in part.members)


def _label(part: Member) -> str:
    if isinstance(part, Step):
        return str(part.name)
    joint = {"seq": " ", "any": " | ", "all": " & "}[part.kind]
    return f"({joint.join(_label(member) for member in part.members)})"


def _inner(part: Member) -> str:
    """Contiguity between the elements of a loop: relaxed by default, independent of the contiguity before the loop."""
    if part.consecutive:
        return "next"
    return "followed_by_any" if part.combinations else "followed_by"

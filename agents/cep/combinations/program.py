"""Which rules the combinations operator runs, and their programs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from astrocyte.agents.cep.combinations.layout import MOST_PLACES
from astrocyte.agents.cep.compiler.formula import reads_one_event
from astrocyte.agents.cep.operator import Atom, OperatorName
from astrocyte.agents.rules.model import Rule, Step

__all__ = ["CombinationProgram", "compile_combinations", "why_not_combinations"]


@dataclass(frozen=True, slots=True, eq=False)
class CombinationProgram:
    """A ``seq`` whose later events are all ``followed_by_any``. Immutable.

    A match has an event for each place; a step has a place, or as many as it has repetitions.
    """

    operator: ClassVar[OperatorName] = "combinations"
    rule: Rule
    atoms: tuple[Atom, ...]
    """For each place: whether an event fits it."""
    steps: tuple[int, ...]
    """For each place: its step, as an index into ``rule.positive``."""
    captures: tuple[str, ...] = ()

    @property
    def most_matches(self) -> int:
        """Matches that one event may complete for one key."""
        return self.rule.max_partials.limit if self.rule.max_matches is None else self.rule.max_matches

    @property
    def skip_place(self) -> int:
        """Place of the event before which the rule's skip strategy drops what began; -1: it names no step."""
        return _skip_place(self.rule, self.steps)


def compile_combinations(rule: Rule) -> CombinationProgram:
    """Program of a rule for which `why_not_combinations` has no reason."""
    steps = tuple(index for index, step in enumerate(rule.steps) for _ in range(step.at_least))
    of_steps = [Atom(tuple(sorted(step.stream)), rule.condition(step)) for step in rule.steps]
    return CombinationProgram(rule, tuple(of_steps[step] for step in steps), steps)


def why_not_combinations(rule: Rule) -> str | None:
    """Why the operator cannot run the rule, as a clause; None if it can."""
    if rule.kind != "seq":
        return f"it is an {rule.kind}"
    if rule.within is None:
        return "it has no within"
    if rule.on_timeout is not None:
        return "on_timeout emits each partial match whose time has run out"
    steps: list[int] = []
    for index, member in enumerate(rule.members):
        if not isinstance(member, Step):
            return "it has a group"
        found = _why_not_step(rule, member, first=index == 0)
        if found is not None:
            return found
        steps += [index] * member.at_least
    if len(steps) == 1:
        return "it has one step"
    if len(steps) > MOST_PLACES:
        return f"a match has more than {MOST_PLACES} events"
    if _skip_place(rule, steps) == 0:
        return "skip names its first event, so that a match waits for those that began earlier"
    return None


def _why_not_step(rule: Rule, step: Step, *, first: bool) -> str | None:
    if step.negated:
        return f"{step.name or 'a step'} is negated"
    if step.may_be_absent:
        return f"{step.name} is optional"
    if step.at_most != step.at_least:
        return f"{step.name} is a loop of no fixed length"
    if step.loops and not step.combinations:
        return f"{step.name} is a loop without combinations"
    if step.gap is not None or step.within_prev is not None:
        return f"{step.name} has {'gap' if step.gap is not None else 'within_prev'}"
    if not first and step.contiguity != "followed_by_any":
        return f"{step.name} is {step.contiguity or 'followed_by'}"
    where = rule.condition(step)
    if where is not None and not reads_one_event(where):
        return f"the condition of {step.name} reads earlier events"
    return None


def _skip_place(rule: Rule, steps: Sequence[int]) -> int:
    if rule.skip.step is None:
        return -1
    places = [place for place, step in enumerate(steps) if rule.positive[step] == rule.skip.step]
    return places[0] if rule.skip.kind == "to_first" else places[-1]

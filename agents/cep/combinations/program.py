"""Which rules the combinations operator runs, and their programs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from astrocyte.agents.cep.combinations.layout import MOST_STEPS
from astrocyte.agents.cep.compiler.formula import reads_one_event
from astrocyte.agents.cep.operator import Atom, OperatorName
from astrocyte.agents.rules.model import Rule, Step

__all__ = ["CombinationProgram", "compile_combinations", "why_not_combinations"]


@dataclass(frozen=True, slots=True, eq=False)
class CombinationProgram:
    """A ``seq`` whose later steps are all ``followed_by_any``: atom i says whether an event fits step i. Immutable."""

    operator: ClassVar[OperatorName] = "combinations"
    rule: Rule
    atoms: tuple[Atom, ...]
    captures: tuple[str, ...] = ()

    @property
    def most_matches(self) -> int:
        """Matches that one event may complete for one key."""
        return self.rule.max_partials.limit if self.rule.max_matches is None else self.rule.max_matches


def compile_combinations(rule: Rule) -> CombinationProgram:
    """Program of a rule for which `why_not_combinations` has no reason."""
    return CombinationProgram(
        rule, tuple(Atom(tuple(sorted(step.stream)), rule.condition(step)) for step in rule.steps)
    )


def why_not_combinations(rule: Rule) -> str | None:
    """Why the operator cannot run the rule, as a clause; None if it can."""
    if rule.kind != "seq":
        return f"it is an {rule.kind}"
    if rule.within is None:
        return "it has no within"
    if rule.on_timeout is not None:
        return "on_timeout emits each partial match whose time has run out"
    if rule.skip.step is not None and rule.skip.step == rule.positive[0]:
        return "skip names its first step, so that a match waits for those that began earlier"
    if len(rule.members) == 1:
        return "it has one step"
    if len(rule.members) > MOST_STEPS:
        return f"it has more than {MOST_STEPS} steps"
    for index, member in enumerate(rule.members):
        if not isinstance(member, Step):
            return "it has a group"
        found = _why_not_step(rule, member, first=index == 0)
        if found is not None:
            return found
    return None


def _why_not_step(rule: Rule, step: Step, *, first: bool) -> str | None:
    if step.negated:
        return f"{step.name or 'a step'} is negated"
    if step.loops:
        return f"{step.name} is a loop"
    if step.may_be_absent:
        return f"{step.name} is optional"
    if step.within_prev is not None:
        return f"{step.name} has within_prev"
    if not first and step.contiguity != "followed_by_any":
        return f"{step.name} is {step.contiguity or 'followed_by'}"
    where = rule.condition(step)
    if where is not None and not reads_one_event(where):
        return f"the condition of {step.name} reads earlier events"
    return None

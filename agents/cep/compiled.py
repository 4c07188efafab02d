"""The program of a rule, whatever its operator."""

from __future__ import annotations

from astrocyte.agents.cep.combinations.program import (
    CombinationProgram,
    compile_combinations,
    why_not_combinations,
)
from astrocyte.agents.cep.compiler.flatten import Program, compile_rule
from astrocyte.agents.cep.conjunction.program import ConjunctionProgram, compile_conjunction
from astrocyte.agents.rules.model import Rule
from astrocyte.agents.rules.problems import about
from astrocyte.schemas.errors import InvalidRule

__all__ = ["compiled"]


def compiled(rule: Rule, *, combinations: bool = True) -> Program | CombinationProgram | ConjunctionProgram:
    """The tables of a rule. Raises InvalidRules, with the rule and the field, for what no engine takes.

    ``combinations``: use the operator of that name for the rules that it can run.
    """
    with about(rule=rule.name, field=rule.kind):
        why_not = why_not_combinations(rule)
        if why_not is not None and rule.max_matches is not None:
            with about(field="max_matches"):
                raise InvalidRule(
                    f"max_matches bounds the matches of rules of which every combination is a match, and here "
                    f"{why_not}; leave it out, max_partials bounds this rule"
                )
        if why_not is None and combinations:
            return compile_combinations(rule)
        return compile_conjunction(rule) if rule.kind == "all" else compile_rule(rule)

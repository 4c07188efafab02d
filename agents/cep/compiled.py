"""The program of a rule, whatever its operator."""

from __future__ import annotations

from astrocyte.agents.cep.compiler.flatten import Program, compile_rule
from astrocyte.agents.cep.conjunction.program import ConjunctionProgram, compile_conjunction
from astrocyte.agents.rules.model import Rule
from astrocyte.agents.rules.problems import about

__all__ = ["compiled"]


def compiled(rule: Rule) -> Program | ConjunctionProgram:
    """The tables of a rule. Raises InvalidRules, with the rule and the field, for what no engine takes."""
    with about(rule=rule.name, field=rule.kind):
        return compile_conjunction(rule) if rule.kind == "all" else compile_rule(rule)

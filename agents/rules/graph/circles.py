"""Rules, windows, statistics and junctions that feed one another in a circle, so that no result could be the first."""

from __future__ import annotations

from graphlib import CycleError, TopologicalSorter

from astrocyte.agents.rules.graph.links import sources_of
from astrocyte.agents.rules.model import RuleSet
from astrocyte.agents.rules.problems import InvalidRules, RuleProblem

__all__ = ["refuse_circles"]


def refuse_circles(ruleset: RuleSet) -> None:
    """Raise InvalidRules for a circle, also one across different ``by``; the problem names the first rule in it.

    Not for one through a junction with a bound (`agents.rules.graph.links` says what that needs).
    """
    groups = {window.name: window.by for window in ruleset.windows}
    groups |= {rule.name: rule.by or "null" for rule in ruleset.rules}
    groups |= {statistic.name: "run" for statistic in ruleset.insight}
    junctions = {junction.name: junction.key for junction in ruleset.junctions}
    groups |= junctions
    windows = {window.name for window in ruleset.windows}
    bounded = {each.name for each in ruleset.junctions if each.is_bounded}
    sources = {name: read for name, read in sources_of(ruleset).items() if name not in bounded}
    try:
        TopologicalSorter(sources).prepare()
    except CycleError as error:
        names = error.args[1][::-1]  # each one reads the next
        start = names.index(next(name for name in sources if name in names))
        members = [*names[start:-1], *names[:start]]
        circle = " -> ".join([*members, members[0]])
        fields = ", ".join(f"{name} by {groups[name]}" for name in members)
        message = f"rules and windows that read one another in a circle: {circle} ({fields}); break it at one place"
        first = next((name for name in members if name in junctions), members[0])
        if first in junctions:
            message = (
                f"the junction leads back to rules from which it comes: {circle} ({fields}); break it at one place, or "
                "bound it: give it max_hops, and a damping below 1"
            )
            problem = RuleProblem(message, rule=first, field="from", kind="junction")
        elif first in windows:
            problem = RuleProblem(message, rule=first, field="from", kind="window")
        elif first not in {rule.name for rule in ruleset.rules}:
            problem = RuleProblem(message, rule=first, kind="statistic")
        else:
            rule = next(each for each in ruleset.rules if each.name == first)
            step = next(each for each in rule.steps if members[1 % len(members)] in each.stream)
            problem = RuleProblem(message, rule=first, field=f"{step.name}.stream")
        raise InvalidRules([problem]) from None

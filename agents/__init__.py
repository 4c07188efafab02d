"""Correlation of events, with no broker: rules in, events in, matches out.

::

    from agents import Rule, match

    rule = Rule(name="pair", within="2s",
                all=[{"as": "a", "stream": "axon_1"}, {"as": "b", "stream": "axon_2"}])
    for found in match(rule, events):
        print(found.key, found.time_us, found.events["a"][0].fields)

`match` takes all events at once; an `Engine` takes them as they come. Importing this package opens nothing and loads no
heavy library: what needs one is imported when it is first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from agents.engine import Engine, EngineOutput
    from agents.matches import Match, MatchAlert, MatchedEvent, MatchTable
    from agents.matching import match
    from agents.rules import InvalidRules, Rule, RuleProblem, RuleSet, load_rules

__all__ = [
    "Engine",
    "EngineOutput",
    "InvalidRules",
    "Match",
    "MatchAlert",
    "MatchTable",
    "MatchedEvent",
    "Rule",
    "RuleProblem",
    "RuleSet",
    "load_rules",
    "match",
]

_HOME = {
    "Engine": "agents.engine",
    "EngineOutput": "agents.engine",
    "InvalidRules": "agents.rules",
    "Match": "agents.matches",
    "MatchAlert": "agents.matches",
    "MatchTable": "agents.matches",
    "MatchedEvent": "agents.matches",
    "Rule": "agents.rules",
    "RuleProblem": "agents.rules",
    "RuleSet": "agents.rules",
    "load_rules": "agents.rules",
    "match": "agents.matching",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)

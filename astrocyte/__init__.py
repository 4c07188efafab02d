"""Stream processing in Python: rules over event streams, simulated worlds, Kafka, SQL and InfluxDB.

::

    from astrocyte import Rule, match

    rule = Rule(name="pair", within="2s",
                all=[{"as": "a", "stream": "axon_1"}, {"as": "b", "stream": "axon_2"}])
    for found in match(rule, events):
        print(found.key, found.time_us, found.events["a"][0].fields)

`match` takes all events at once; an `Engine` takes them as they come. The names in ``__all__`` are the public surface,
together with `astrocyte.testing` and `pipeline.app`; everything else may change between versions. Importing
this package opens nothing and loads no heavy library: what needs one is imported when it is first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from astrocyte.agents.engine.engine import Engine
    from astrocyte.agents.engine.matching import match
    from astrocyte.agents.engine.output import EngineOutput
    from astrocyte.agents.matches.table import Match, MatchAlert, MatchedEvent, MatchTable
    from astrocyte.agents.rules.model import InvalidRules, Rule, RuleProblem, RuleSet
    from astrocyte.agents.rules.yaml import load_rules
    from astrocyte.schemas.catalog import CATALOG, Catalog, EventType
    from astrocyte.schemas.errors import AstrocyteError
    from astrocyte.schemas.frames import Frame, decode_frame, encode_frame
    from astrocyte.simulator.config import ScenarioConfig, configure
    from astrocyte.simulator.emission.emitter import CallableSink, FrameSink, MemorySink
    from astrocyte.simulator.event_spec import Column, EventSpec, HostRow
    from astrocyte.simulator.run import RunSummary, simulate
    from astrocyte.simulator.scenario import Scenario, load_scenario, scenario_names

_HOME = {
    "CATALOG": "schemas.catalog",
    "AstrocyteError": "schemas.errors",
    "CallableSink": "simulator.emission.emitter",
    "Catalog": "schemas.catalog",
    "Column": "simulator.event_spec",
    "Engine": "agents.engine.engine",
    "EngineOutput": "agents.engine.output",
    "EventSpec": "simulator.event_spec",
    "EventType": "schemas.catalog",
    "Frame": "schemas.frames",
    "FrameSink": "simulator.emission.emitter",
    "HostRow": "simulator.event_spec",
    "InvalidRules": "agents.rules.model",
    "Match": "agents.matches.table",
    "MatchAlert": "agents.matches.table",
    "MatchTable": "agents.matches.table",
    "MatchedEvent": "agents.matches.table",
    "MemorySink": "simulator.emission.emitter",
    "Rule": "agents.rules.model",
    "RuleProblem": "agents.rules.model",
    "RuleSet": "agents.rules.model",
    "RunSummary": "simulator.run",
    "Scenario": "simulator.scenario",
    "ScenarioConfig": "simulator.config",
    "configure": "simulator.config",
    "decode_frame": "schemas.frames",
    "encode_frame": "schemas.frames",
    "load_rules": "agents.rules.yaml",
    "load_scenario": "simulator.scenario",
    "match": "agents.engine.matching",
    "scenario_names": "simulator.scenario",
    "simulate": "simulator.run",
}

__all__ = [
    "CATALOG",
    "AstrocyteError",
    "CallableSink",
    "Catalog",
    "Column",
    "Engine",
    "EngineOutput",
    "EventSpec",
    "EventType",
    "Frame",
    "FrameSink",
    "HostRow",
    "InvalidRules",
    "Match",
    "MatchAlert",
    "MatchTable",
    "MatchedEvent",
    "MemorySink",
    "Rule",
    "RuleProblem",
    "RuleSet",
    "RunSummary",
    "Scenario",
    "ScenarioConfig",
    "configure",
    "decode_frame",
    "encode_frame",
    "load_rules",
    "load_scenario",
    "match",
    "scenario_names",
    "simulate",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(f"astrocyte.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)

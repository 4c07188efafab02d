"""Stream processing in Python: rules over event streams, simulated worlds, Kafka, SQL and InfluxDB.

::

    from astrocyte import Rule, match

    rule = Rule(name="pair", within="2s",
                all=[{"as": "a", "stream": "axon_1"}, {"as": "b", "stream": "axon_2"}])
    for found in match(rule, events):
        print(found.key, found.time_us, found.events["a"][0].fields)

`match` takes all events at once; an `Engine` takes them as they arrive; `connect` publishes a program's own events. The
public names are those in ``__all__`` here, in `astrocyte.scenario` (for authors of scenarios), `astrocyte.sink` (for
authors of sinks), `astrocyte.insight` and `astrocyte.analysis` (about evolution) and `astrocyte.testing`,
`astrocyte.pipeline.app` for Faust, and `astrocyte.schemas.tables` for queries; everything else may change between
versions. Importing this package opens no connection and loads no large library: names that need one are imported at
their first use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from astrocyte._lazy import lazy

if TYPE_CHECKING:
    from astrocyte.agents.controllers.base import Controller, register_controller
    from astrocyte.agents.controllers.difficulty import DifficultyController
    from astrocyte.agents.controllers.genetic import GeneticController
    from astrocyte.agents.engine.engine import Engine
    from astrocyte.agents.engine.entrance import RefusedEvent
    from astrocyte.agents.engine.matching import match
    from astrocyte.agents.engine.output import EngineOutput
    from astrocyte.agents.ingest.decoders import register_decoder
    from astrocyte.agents.loading import load_rules
    from astrocyte.agents.matches.table import Match, MatchedEvent, MatchTable
    from astrocyte.agents.rules.junctions import Forms, Junction
    from astrocyte.agents.rules.model import Rule, RuleSet, Stream
    from astrocyte.agents.rules.problems import InvalidRules
    from astrocyte.agents.rules.steps import Group, Step
    from astrocyte.agents.rules.validator_functions import register_validator
    from astrocyte.agents.rules.validators import Validator
    from astrocyte.agents.rules.windows import Window
    from astrocyte.agents.sinks.base import Sink
    from astrocyte.agents.sinks.registry import register_sink
    from astrocyte.agents.stores.experiment import ExperimentDatabase
    from astrocyte.pipeline.analysis.phylogeny import Phylogeny, phylogeny
    from astrocyte.pipeline.embed.consumer import Consumer, ConsumerCounts
    from astrocyte.pipeline.embed.handlers import Event
    from astrocyte.pipeline.embed.karma import KarmaQueue
    from astrocyte.pipeline.embed.outbox import PublisherCounts
    from astrocyte.pipeline.embed.publisher import Publisher, connect
    from astrocyte.pipeline.experiments.runner import ExperimentRunner
    from astrocyte.pipeline.experiments.sweep import Sweep
    from astrocyte.pipeline.role_registry import register_role
    from astrocyte.schemas.catalog import CATALOG, Catalog, EventType
    from astrocyte.schemas.errors import AstrocyteError
    from astrocyte.schemas.frames import Frame, decode_frame, encode_frame
    from astrocyte.simulator.run import simulate
    from astrocyte.simulator.scenario import Scenario, register_scenario

_HOME = {
    "CATALOG": "schemas.catalog",
    "AstrocyteError": "schemas.errors",
    "Catalog": "schemas.catalog",
    "Consumer": "pipeline.embed.consumer",
    "ConsumerCounts": "pipeline.embed.consumer",
    "Controller": "agents.controllers.base",
    "DifficultyController": "agents.controllers.difficulty",
    "Engine": "agents.engine.engine",
    "EngineOutput": "agents.engine.output",
    "Event": "pipeline.embed.handlers",
    "EventType": "schemas.catalog",
    "ExperimentDatabase": "agents.stores.experiment",
    "ExperimentRunner": "pipeline.experiments.runner",
    "Forms": "agents.rules.junctions",
    "Frame": "schemas.frames",
    "GeneticController": "agents.controllers.genetic",
    "Group": "agents.rules.steps",
    "InvalidRules": "agents.rules.problems",
    "Junction": "agents.rules.junctions",
    "KarmaQueue": "pipeline.embed.karma",
    "Match": "agents.matches.table",
    "MatchTable": "agents.matches.table",
    "MatchedEvent": "agents.matches.table",
    "Phylogeny": "pipeline.analysis.phylogeny",
    "Publisher": "pipeline.embed.publisher",
    "PublisherCounts": "pipeline.embed.outbox",
    "RefusedEvent": "agents.engine.entrance",
    "Rule": "agents.rules.model",
    "RuleSet": "agents.rules.model",
    "Scenario": "simulator.scenario",
    "Sink": "agents.sinks.base",
    "Step": "agents.rules.steps",
    "Stream": "agents.rules.model",
    "Sweep": "pipeline.experiments.sweep",
    "Validator": "agents.rules.validators",
    "Window": "agents.rules.windows",
    "connect": "pipeline.embed.publisher",
    "decode_frame": "schemas.frames",
    "encode_frame": "schemas.frames",
    "load_rules": "agents.loading",
    "match": "agents.engine.matching",
    "phylogeny": "pipeline.analysis.phylogeny",
    "register_controller": "agents.controllers.base",
    "register_decoder": "agents.ingest.decoders",
    "register_role": "pipeline.role_registry",
    "register_scenario": "simulator.scenario",
    "register_sink": "agents.sinks.registry",
    "register_validator": "agents.rules.validator_functions",
    "simulate": "simulator.run",
}

__all__ = [
    "CATALOG",
    "AstrocyteError",
    "Catalog",
    "Consumer",
    "ConsumerCounts",
    "Controller",
    "DifficultyController",
    "Engine",
    "EngineOutput",
    "Event",
    "EventType",
    "ExperimentDatabase",
    "ExperimentRunner",
    "Forms",
    "Frame",
    "GeneticController",
    "Group",
    "InvalidRules",
    "Junction",
    "KarmaQueue",
    "Match",
    "MatchTable",
    "MatchedEvent",
    "Phylogeny",
    "Publisher",
    "PublisherCounts",
    "RefusedEvent",
    "Rule",
    "RuleSet",
    "Scenario",
    "Sink",
    "Step",
    "Stream",
    "Sweep",
    "Validator",
    "Window",
    "connect",
    "decode_frame",
    "encode_frame",
    "load_rules",
    "match",
    "phylogeny",
    "register_controller",
    "register_decoder",
    "register_role",
    "register_scenario",
    "register_sink",
    "register_validator",
    "simulate",
]


def __getattr__(name: str) -> Any:
    return lazy(__name__, _HOME, name, globals())


def __dir__() -> list[str]:
    return sorted(__all__)

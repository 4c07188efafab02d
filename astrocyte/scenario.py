"""The interface for authors of scenarios: the contract, events, settings, and functions to run one.

JAX is loaded when a scenario is run, not on import. docs/simulator.md explains the contract;
`astrocyte.testing.check_scenario` checks it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from astrocyte._lazy import lazy

if TYPE_CHECKING:
    from astrocyte.simulator.anomalies import Plant, PlantKind, plant_params
    from astrocyte.simulator.config import ScenarioConfig, configure
    from astrocyte.simulator.context import Context
    from astrocyte.simulator.emission.emitter import CallableSink, FrameSink, MemorySink
    from astrocyte.simulator.event_spec import Column, EventSpec, HostRow
    from astrocyte.simulator.run import RunSummary, simulate
    from astrocyte.simulator.scenario import (
        Interval,
        InvalidControl,
        Scenario,
        load_scenario,
        register_scenario,
        scenario_names,
    )

_HOME = {
    "CallableSink": "simulator.emission.emitter",
    "Column": "simulator.event_spec",
    "Context": "simulator.context",
    "EventSpec": "simulator.event_spec",
    "FrameSink": "simulator.emission.emitter",
    "HostRow": "simulator.event_spec",
    "Interval": "simulator.scenario",
    "InvalidControl": "simulator.scenario",
    "MemorySink": "simulator.emission.emitter",
    "Plant": "simulator.anomalies",
    "PlantKind": "simulator.anomalies",
    "RunSummary": "simulator.run",
    "Scenario": "simulator.scenario",
    "ScenarioConfig": "simulator.config",
    "configure": "simulator.config",
    "load_scenario": "simulator.scenario",
    "plant_params": "simulator.anomalies",
    "register_scenario": "simulator.scenario",
    "scenario_names": "simulator.scenario",
    "simulate": "simulator.run",
}

__all__ = [
    "CallableSink",
    "Column",
    "Context",
    "EventSpec",
    "FrameSink",
    "HostRow",
    "Interval",
    "InvalidControl",
    "MemorySink",
    "Plant",
    "PlantKind",
    "RunSummary",
    "Scenario",
    "ScenarioConfig",
    "configure",
    "load_scenario",
    "plant_params",
    "register_scenario",
    "scenario_names",
    "simulate",
]


def __getattr__(name: str) -> Any:
    return lazy(__name__, _HOME, name, globals())


def __dir__() -> list[str]:
    return sorted(__all__)

"""The simulator: worlds of cells and agents in JAX that emit events as frames.

``import simulator`` costs nothing: JAX is loaded when a scenario is, and no connection is opened here.

    from simulator import MemorySink, simulate
    sink = MemorySink()
    simulate("axons", {"domains": 64}, seed=7, ticks=1000, sink=sink)
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from simulator.config import ScenarioConfig, configure
    from simulator.emission import CallableSink, FrameSink, MemorySink
    from simulator.events import Column, EventSpec, HostRow
    from simulator.run import RunSummary, simulate
    from simulator.scenario import Scenario, load_scenario, scenario_names

__all__ = [
    "CallableSink",
    "Column",
    "EventSpec",
    "FrameSink",
    "HostRow",
    "MemorySink",
    "RunSummary",
    "Scenario",
    "ScenarioConfig",
    "configure",
    "load_scenario",
    "scenario_names",
    "simulate",
]

_HOME = {
    "CallableSink": "simulator.emission",
    "Column": "simulator.events",
    "EventSpec": "simulator.events",
    "FrameSink": "simulator.emission",
    "HostRow": "simulator.events",
    "MemorySink": "simulator.emission",
    "RunSummary": "simulator.run",
    "Scenario": "simulator.scenario",
    "ScenarioConfig": "simulator.config",
    "configure": "simulator.config",
    "load_scenario": "simulator.scenario",
    "scenario_names": "simulator.scenario",
    "simulate": "simulator.run",
}


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module 'simulator' has no attribute {name!r}")

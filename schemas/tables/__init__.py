"""The tables, as SQLAlchemy models: one declaration for SQLite and PostgreSQL (and MySQL's DDL).

docs/data.md describes the tables and columns; every data table carries ``simulation_id``. Importing the models opens no
connection: engines and connections are in `agents.sinks`.
"""

from __future__ import annotations

from astrocyte.schemas.tables.axons import Spike
from astrocyte.schemas.tables.base import Base, TextArray, Vector
from astrocyte.schemas.tables.cells import Cell, CellGenome, EvolutionaryEvent, PopulationMetrics, ProblemResult
from astrocyte.schemas.tables.dna import DnaMutation, DnaSnapshot, KarmaScore
from astrocyte.schemas.tables.ecology import (
    ActionModel,
    AgentModel,
    AgentStateModel,
    HealthIncident,
    LearningExperienceModel,
    ResourceModel,
    SimulationStepModel,
    resource_state_id,
)
from astrocyte.schemas.tables.experiments import ExperimentModel, Simulation, SimulationConfig
from astrocyte.schemas.tables.kernels import BASIN_SIZE, KernelGeometry, KernelHistory, WarHistory
from astrocyte.schemas.tables.outputs import (
    AlertRow,
    AuditEntryRow,
    DeadLetterRow,
    MultiEventRow,
    MultiEventSource,
    SinkPosition,
    WindowResult,
)

__all__ = [
    "BASIN_SIZE",
    "ActionModel",
    "AgentModel",
    "AgentStateModel",
    "AlertRow",
    "AuditEntryRow",
    "Base",
    "Cell",
    "CellGenome",
    "DeadLetterRow",
    "DnaMutation",
    "DnaSnapshot",
    "EvolutionaryEvent",
    "ExperimentModel",
    "HealthIncident",
    "KarmaScore",
    "KernelGeometry",
    "KernelHistory",
    "LearningExperienceModel",
    "MultiEventRow",
    "MultiEventSource",
    "PopulationMetrics",
    "ProblemResult",
    "ResourceModel",
    "Simulation",
    "SimulationConfig",
    "SimulationStepModel",
    "SinkPosition",
    "Spike",
    "TextArray",
    "Vector",
    "WarHistory",
    "WindowResult",
    "resource_state_id",
]

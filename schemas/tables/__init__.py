"""The tables, as SQLAlchemy models: one declaration for SQLite and PostgreSQL (and MySQL's DDL).

Names and columns are those of seeds 001 and 002; every data table carries ``simulation_id``. Declaring opens nothing:
engines and connections live in `agents.sinks`.
"""

from __future__ import annotations

from astrocyte.schemas.tables.base import Base, TextArray, Vector
from astrocyte.schemas.tables.cells import Cell, CellGenome, EvolutionaryEvent, ProblemResult
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
from astrocyte.schemas.tables.kernels import BASIN_SIZE, KernelGeometry, WarHistory
from astrocyte.schemas.tables.outputs import (
    AlertRow,
    AuditEntryRow,
    DeadLetterRow,
    MultiEventRow,
    MultiEventSource,
    SinkPosition,
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
    "LearningExperienceModel",
    "MultiEventRow",
    "MultiEventSource",
    "ProblemResult",
    "ResourceModel",
    "Simulation",
    "SimulationConfig",
    "SimulationStepModel",
    "SinkPosition",
    "TextArray",
    "Vector",
    "WarHistory",
    "resource_state_id",
]

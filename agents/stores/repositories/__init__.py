"""Queries over the stores, with typed results; long results are streamed."""

from __future__ import annotations

from astrocyte.agents.stores.repositories.agents import Agent, AgentRepository, Descent, Incident, LineageRepository
from astrocyte.agents.stores.repositories.behaviour import (
    Action,
    ActionRepository,
    ActionSummary,
    Experience,
    LearningProgress,
    LearningRepository,
)
from astrocyte.agents.stores.repositories.cells import (
    Cell,
    CellDescent,
    CellRepository,
    Evolution,
    GenerationSummary,
    Genome,
    PopulationSnapshot,
    Problem,
    ProblemSummary,
    TraitMeans,
)
from astrocyte.agents.stores.repositories.dna import DnaRepository, Mutation, Score, Snapshot
from astrocyte.agents.stores.repositories.experiments import ExperimentRecord, ExperimentRepository, SimulationRecord
from astrocyte.agents.stores.repositories.kernels import Kernel, KernelRepository, KernelState, SimilarKernel, War
from astrocyte.agents.stores.repositories.outputs import (
    Letter,
    OutputRepository,
    Source,
    StoredAlert,
    StoredMultiEvent,
    WindowValue,
)
from astrocyte.agents.stores.repositories.populations import DataRetriever, PopulationRepository, Step
from astrocyte.agents.stores.repositories.states import AgentState, ResourceState, StateMeans, StateRepository

__all__ = [
    "Action",
    "ActionRepository",
    "ActionSummary",
    "Agent",
    "AgentRepository",
    "AgentState",
    "Cell",
    "CellDescent",
    "CellRepository",
    "DataRetriever",
    "Descent",
    "DnaRepository",
    "Evolution",
    "Experience",
    "ExperimentRecord",
    "ExperimentRepository",
    "GenerationSummary",
    "Genome",
    "Incident",
    "Kernel",
    "KernelRepository",
    "KernelState",
    "LearningProgress",
    "LearningRepository",
    "Letter",
    "LineageRepository",
    "Mutation",
    "OutputRepository",
    "PopulationRepository",
    "PopulationSnapshot",
    "Problem",
    "ProblemSummary",
    "ResourceState",
    "Score",
    "SimilarKernel",
    "SimulationRecord",
    "Snapshot",
    "Source",
    "StateMeans",
    "StateRepository",
    "Step",
    "StoredAlert",
    "StoredMultiEvent",
    "TraitMeans",
    "War",
    "WindowValue",
]

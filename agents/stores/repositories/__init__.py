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
from astrocyte.agents.stores.repositories.experiments import ExperimentRecord, ExperimentRepository, SimulationRecord
from astrocyte.agents.stores.repositories.kernels import Kernel, KernelRepository, SimilarKernel, War
from astrocyte.agents.stores.repositories.populations import DataRetriever, PopulationRepository, Step
from astrocyte.agents.stores.repositories.states import AgentState, ResourceState, StateMeans, StateRepository

__all__ = [
    "Action",
    "ActionRepository",
    "ActionSummary",
    "Agent",
    "AgentRepository",
    "AgentState",
    "DataRetriever",
    "Descent",
    "Experience",
    "ExperimentRecord",
    "ExperimentRepository",
    "Incident",
    "Kernel",
    "KernelRepository",
    "LearningProgress",
    "LearningRepository",
    "LineageRepository",
    "PopulationRepository",
    "ResourceState",
    "SimilarKernel",
    "SimulationRecord",
    "StateMeans",
    "StateRepository",
    "Step",
    "War",
]

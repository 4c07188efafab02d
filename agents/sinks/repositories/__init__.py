"""Queries over the stores, with typed results; those that may be long are streamed."""

from __future__ import annotations

from agents.sinks.repositories.agents import Agent, AgentRepository, Descent, Incident, LineageRepository
from agents.sinks.repositories.behaviour import (
    Action,
    ActionRepository,
    ActionSummary,
    Experience,
    LearningProgress,
    LearningRepository,
)
from agents.sinks.repositories.experiments import ExperimentRecord, ExperimentRepository, SimulationRecord
from agents.sinks.repositories.kernels import Kernel, KernelRepository, SimilarKernel, War
from agents.sinks.repositories.populations import DataRetriever, PopulationRepository, Step
from agents.sinks.repositories.states import AgentState, ResourceState, StateMeans, StateRepository

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

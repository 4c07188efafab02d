"""The interface for authors of sinks: the contract, the types of input and output, registration, and retries.

`astrocyte.testing.check_sink` checks the contract.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from astrocyte._lazy import lazy

if TYPE_CHECKING:
    from astrocyte.agents.sinks.base import Rejected, Sink, SinkError, SinkStopped, SourcedFrame, SourcedRecords
    from astrocyte.agents.sinks.memory import MemorySink
    from astrocyte.agents.sinks.registry import SinkContext, SinkType, register_sink
    from astrocyte.agents.sinks.retry import RetryPolicy
    from astrocyte.agents.sinks.sql.targets import register_table

_HOME = {
    "MemorySink": "agents.sinks.memory",
    "RetryPolicy": "agents.sinks.retry",
    "Rejected": "agents.sinks.base",
    "Sink": "agents.sinks.base",
    "SinkContext": "agents.sinks.registry",
    "SinkError": "agents.sinks.base",
    "SinkStopped": "agents.sinks.base",
    "SinkType": "agents.sinks.registry",
    "SourcedFrame": "agents.sinks.base",
    "SourcedRecords": "agents.sinks.base",
    "register_sink": "agents.sinks.registry",
    "register_table": "agents.sinks.sql.targets",
}

__all__ = [
    "MemorySink",
    "Rejected",
    "RetryPolicy",
    "Sink",
    "SinkContext",
    "SinkError",
    "SinkStopped",
    "SinkType",
    "SourcedFrame",
    "SourcedRecords",
    "register_sink",
    "register_table",
]


def __getattr__(name: str) -> Any:
    return lazy(__name__, _HOME, name, globals())


def __dir__() -> list[str]:
    return sorted(__all__)

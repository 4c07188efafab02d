"""Statistics of evolution over frames, by run and window of event time, for programs of your own (docs/insight.md)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from astrocyte._lazy import lazy

if TYPE_CHECKING:
    from astrocyte.agents.insight import (
        Diversity,
        EarlyWarning,
        Forecast,
        InsightOperator,
        Mutations,
        Price,
        Selection,
        Target,
        Trends,
        Windows,
    )

__all__ = [
    "Diversity",
    "EarlyWarning",
    "Forecast",
    "InsightOperator",
    "Mutations",
    "Price",
    "Selection",
    "Target",
    "Trends",
    "Windows",
]

_HOME = dict.fromkeys(__all__, "agents.insight")


def __getattr__(name: str) -> Any:
    return lazy(__name__, _HOME, name, globals())


def __dir__() -> list[str]:
    return sorted(__all__)

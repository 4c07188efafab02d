"""Statistics of evolution over frames, by run and window of event time (docs/insight.md)."""

from __future__ import annotations

from astrocyte.agents.insight.distributions import wilson_interval
from astrocyte.agents.insight.operator import InsightOperator
from astrocyte.agents.insight.statistic import Windows
from astrocyte.agents.insight.statistics.diversity import Diversity
from astrocyte.agents.insight.statistics.early_warning import EarlyWarning
from astrocyte.agents.insight.statistics.forecast import Forecast, Target
from astrocyte.agents.insight.statistics.mutations import Mutations
from astrocyte.agents.insight.statistics.price import Price
from astrocyte.agents.insight.statistics.selection import Selection
from astrocyte.agents.insight.statistics.trends import Trends

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
    "wilson_interval",
]

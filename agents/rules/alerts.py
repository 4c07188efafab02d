"""Alerts of a rule: severity and message, those of its timeouts, and which are raised as one."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from astrocyte.agents.rules.steps import Duration, Model
from astrocyte.schemas.events import Severity

__all__ = ["Alert", "AlertGroup", "OnTimeout", "group_of", "on_timeout_of"]


class Alert(Model):
    """Makes the multi event an alert; ``message`` may hold expressions in braces."""

    severity: Severity = "warning"
    message: str


class OnTimeout(Model):
    """Partial matches that time out become an output of their own."""

    emit: dict[str, str] = Field(default_factory=dict)
    alert: Alert | None = None


class AlertGroup(Model):
    """Alerts of one rule within a time of the first become one, raised when that time is over.

    ``by``: ``key``, the matches of one key; None, those of all keys of a partition; else a value that the rule emits.
    """

    within: Duration
    by: str | None = "key"


def group_of(value: Any) -> Any:
    """``group: 10s`` is short for ``group: {within: 10s}``."""
    return value if isinstance(value, dict | AlertGroup) or value is None else {"within": value}


def on_timeout_of(value: Any) -> Any:
    """``on_timeout: true`` is an output without values."""
    return {} if value is True else None if value is False else value

"""All targets by name."""

from __future__ import annotations

from tests.fuzz import broker, documents, files, messages, state
from tests.fuzz.target import Target

__all__ = ["TARGETS"]

TARGETS: dict[str, Target] = {
    target.name: target for module in (messages, documents, files, state, broker) for target in module.TARGETS
}

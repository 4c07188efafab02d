"""The start of what a worker delivers over OTLP, of which only processes with the setting load anything."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Protocol

from astrocyte.schemas.errors import InvalidSettings

__all__ = ["Delivers", "started"]


class Delivers(Protocol):
    """Delivers traces and metrics until it is stopped."""

    def stop(self) -> None:
        """Deliver what is left, within a few seconds."""


def started(url: str, group: str, role: str, families: Callable[[], Iterable[Any]]) -> Delivers:
    """Deliver the spans of this process, and its metrics (``families``), to a collector. Raises InvalidSettings."""
    try:
        from astrocyte.pipeline.telemetry.otlp import Telemetry
    except ModuleNotFoundError as error:
        raise InvalidSettings(
            f"ASTROCYTE_OTLP_URL is set, and {error.name} is not installed: pip install 'astrocyte[otlp]'"
        ) from None
    return Telemetry(url.rstrip("/"), group, role, families)

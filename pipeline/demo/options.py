"""Options of a demo."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

__all__ = ["DemoOptions"]


@dataclass(frozen=True, slots=True)
class DemoOptions:
    """Options of the command line."""

    scenario: str = "axons"
    seconds: float = 20.0
    data: Path = Path("demo-data")
    seed: int = 7
    size: int | None = None
    partitions: int = 4
    shuffle: bool = False
    rules: tuple[str, ...] = ()
    database: str | None = None
    """SQLAlchemy URL; an SQLite file among the data by default."""

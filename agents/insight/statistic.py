"""What a statistic is: the streams that it reads, its windows, and a step from rows and state to results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from astrocyte.agents.insight.rows import Rows, Source
from astrocyte.schemas.catalog import EventType
from astrocyte.schemas.errors import InvalidSettings

__all__ = ["State", "Statistic", "Window", "Windows", "check_level"]

State = Mapping[str, NDArray[Any]]
"""What a statistic carries from window to window of one run: arrays by name. Never changed in place."""


@dataclass(frozen=True, slots=True)
class Windows:
    """Windows ``[end - size, end)`` of event time, whose ends are ``offset`` and multiples of ``step`` apart from 0.

    Times in microseconds. Without ``step_us`` the windows do not overlap. Raises InvalidSettings.
    """

    size_us: int
    step_us: int = 0
    offset_us: int = 0

    def __post_init__(self) -> None:
        """Sizes and steps that make sense."""
        if self.step_us == 0:
            object.__setattr__(self, "step_us", self.size_us)
        if self.size_us <= 0 or self.step_us <= 0 or self.step_us > self.size_us:
            raise InvalidSettings(
                f"windows of a statistic: size {self.size_us} us and step {self.step_us} us; expected a size above 0 "
                "and a step from 1 us to the size"
            )

    @property
    def overlap(self) -> bool:
        """Whether a row belongs to several windows."""
        return self.step_us < self.size_us

    def last_end_us(self, watermark_us: int) -> int:
        """End of the last window that ends at or before the watermark."""
        return (watermark_us - self.offset_us) // self.step_us * self.step_us + self.offset_us

    def ends_us(self, t: NDArray[np.int64]) -> NDArray[np.int64]:
        """End of the first window that holds each time."""
        return (t - self.offset_us) // self.step_us * self.step_us + self.offset_us + self.step_us


class Window(NamedTuple):
    """One window of one run."""

    run: str
    start_us: int
    end_us: int


class Statistic(Protocol):
    """A statistic of one run and window. Immutable: what changes is the state, which the step takes and returns."""

    @property
    def result(self) -> EventType:
        """Stream and fields of the results."""

    @property
    def identity(self) -> tuple[str, ...]:
        """Fields that tell the results of one window apart; ids are made of them."""

    @property
    def sources(self) -> tuple[Source, ...]:
        """Streams that are read."""

    @property
    def windows(self) -> Windows:
        """Windows; a statistic that carries state has none that overlap."""

    @property
    def carries_state(self) -> bool:
        """Whether `step` needs every window of a run, in order."""

    def step(self, window: Window, rows: Sequence[Rows], state: State) -> tuple[State, list[dict[str, Any]]]:
        """The state after the window and the window's results, one mapping of fields for each row.

        ``rows`` are those of the window for each source, ordered by time. ``state`` is empty at the first window.
        Results differ in their fields `identity`.
        """


def check_level(level: float, where: str) -> None:
    """Raise InvalidSettings unless ``level`` is a probability between 0 and 1."""
    if not 0.0 < level < 1.0:
        raise InvalidSettings(f"{where}: level {level}; expected a probability above 0 and below 1, such as 0.05")

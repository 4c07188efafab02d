"""Colours of figures: for a picture, and for a page that is light or dark as its reader prefers."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Final

__all__ = ["DARK", "DOT", "LIGHT", "MARKED", "Palette", "variables"]


@dataclass(frozen=True, slots=True)
class Palette:
    """Colours by use. The six of the series keep apart for colour-blind readers as well."""

    ink: str
    muted: str
    grid: str
    paper: str
    blue: str
    orange: str
    green: str
    purple: str
    red: str
    gold: str

    @property
    def series(self) -> tuple[str, ...]:
        """Colours of the lines of a figure, in order."""
        return (self.blue, self.orange, self.green, self.purple, self.gold, self.red)


LIGHT: Final = Palette(
    ink="#1f2937", muted="#5b6472", grid="#d9dde3", paper="#ffffff", blue="#2b6cb0", orange="#c05621", green="#2f855a",
    purple="#6b46c1", red="#c53030", gold="#975a16",
)  # fmt: skip
DARK: Final = Palette(
    ink="#e5e7eb", muted="#a3acb9", grid="#374151", paper="#12161d", blue="#74b0ee", orange="#f6a06a", green="#6fcf97",
    purple="#b79cf0", red="#f58b8b", gold="#e3bd6b",
)  # fmt: skip
MARKED: Final = Palette(
    ink="#010101", muted="#010102", grid="#010103", paper="#010104", blue="#010105", orange="#010106", green="#010107",
    purple="#010108", red="#010109", gold="#01010a",
)  # fmt: skip
"""Stand-ins, each of which `variables` maps to a variable of the page's style sheet."""
DOT: Final[dict[str, Any]] = {
    "markersize": 4, "color": "#111111", "markeredgecolor": "#ffffff", "markeredgewidth": 0.7,
}  # fmt: skip
"""A dot that is seen on every colour of a map."""


def variables(svg: str) -> str:
    """An SVG drawn in `MARKED` with the colours as variables of the page."""
    for name, colour in asdict(MARKED).items():
        svg = svg.replace(colour, f"var(--{name})")
    return svg

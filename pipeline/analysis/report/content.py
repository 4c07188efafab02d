"""What a report consists of, before it is a page: sections with text, figures, tables, and what they found."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from astrocyte.pipeline.analysis.report.palette import Palette

__all__ = ["Draw", "Figure", "Report", "Section", "Table"]

Draw = Callable[[Any, Palette], None]
"""Draws on the axes of a figure (matplotlib's ``Axes``) in the palette's colours."""


@dataclass(frozen=True, slots=True, eq=False)
class Figure:
    """One figure of one pair of axes."""

    name: str
    """Part of the name of its file: letters, digits and underscores, once in a report."""
    title: str
    caption: str
    """What the marks and colours mean; also read out where the figure cannot be seen."""
    draw: Draw
    tall: bool = False


@dataclass(frozen=True, slots=True)
class Table:
    """A table of text; numbers are written before."""

    title: str
    head: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    left: int = 1
    """Number of columns, from the left, that hold words."""


@dataclass(slots=True)
class Section:
    """One part of a report. ``findings`` are sentences of the paragraph at its top."""

    name: str
    title: str
    text: list[str] = field(default_factory=list)
    figures: list[Figure] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    findings: list[str] = field(default_factory=list)
    made_by: list[str] = field(default_factory=list)
    """The statistics with their settings, as Python, by which each number can be had again."""
    missing: list[str] = field(default_factory=list)
    """What could not be made, and why."""


@dataclass(frozen=True, slots=True)
class Report:
    """A whole report."""

    title: str
    about: Sequence[tuple[str, str]]
    """What was read: name and value."""
    command: str
    sections: Sequence[Section]
    notes: Sequence[str] = ()

    @property
    def findings(self) -> list[str]:
        """The sentences of all sections."""
        return [each for section in self.sections for each in section.findings]

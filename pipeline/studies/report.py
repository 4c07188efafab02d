"""The report of a study: question, answer, method, results, limits and the command; as Markdown, and HTML from it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from astrocyte.schemas.errors import InvalidSettings

__all__ = ["Report", "Table", "bar", "fall_text", "html_page", "interval_text", "markdown", "number"]

_STYLE = (
    "body{max-width:52rem;margin:2rem auto;padding:0 1rem;font:16px/1.5 system-ui,sans-serif}"
    "table{border-collapse:collapse;display:block;overflow-x:auto}"
    "th,td{padding:.2rem .7rem;border-bottom:1px solid #bbb;text-align:left;white-space:nowrap}"
    "pre,code{background:#8882;overflow-x:auto}pre{padding:.6rem}:root{color-scheme:light dark}"
)

_QUICK = (
    "**This is the quick version and decides nothing.** It has few worlds, short runs and few settings, and shows that "
    "the study works. Leave `--quick` out for an answer."
)


@dataclass(frozen=True, slots=True)
class Table:
    """A table with a caption; every row has one cell for each column. Raises InvalidSettings for one that has not."""

    caption: str
    head: Sequence[str]
    rows: Sequence[Sequence[str | int | float]]

    def __post_init__(self) -> None:
        """Rows as wide as the head."""
        wrong = next((row for row in self.rows if len(row) != len(self.head)), None)
        if wrong is not None:
            raise InvalidSettings(
                f"table {self.caption!r}: a row has {len(wrong)} cells, the head has {len(self.head)}: {list(wrong)}"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What a study found. Strings are Markdown; ``results`` and ``calibration`` are paragraphs and tables in order.

    The same arguments of the study give an equal report: it holds no time and no duration.
    """

    title: str
    question: str
    answer: str
    method: Sequence[str]
    results: Sequence[str | Table]
    calibration: Sequence[str | Table]
    """How far the estimates can be trusted: what the same estimators give where the answer is known."""
    limits: Sequence[str]
    quick: bool = False
    """Whether it is of a small version; `run_study` says so of every study."""

    @property
    def heading(self) -> str:
        """The title, and that it is of a small version."""
        return f"{self.title} (quick version)" if self.quick else self.title


def markdown(report: Report, command: str) -> str:
    """The report as Markdown; ``command`` is what reproduces it."""
    parts = [
        f"# {report.heading}",
        *([_QUICK] if report.quick else []),
        f"**Question.** {report.question}",
        f"**Answer.** {report.answer}",
        "## Method", *report.method,
        "## Results", *map(_part, report.results),
        "## Calibration", *map(_part, report.calibration),
        "## Limits", "\n".join(f"- {limit}" for limit in report.limits),
        "## Reproduce", f"```\n{command}\n```",
    ]  # fmt: skip
    return "\n\n".join(parts) + "\n"


def html_page(title: str, text: str) -> str:
    """Markdown as one page that loads nothing."""
    from markdown_it import MarkdownIt

    # What a text has of HTML is shown, not interpreted: names in it may come from settings.
    body = MarkdownIt("commonmark", {"html": False}).enable("table").render(text)
    safe = title.replace("&", "&amp;").replace("<", "&lt;")
    return (
        '<!doctype html>\n<html lang="en"><meta charset="utf-8">'
        f'<meta name="viewport" content="width=device-width"><title>{safe}</title>\n<style>{_STYLE}</style>\n'
        f"{body}</html>\n"
    )


def _part(part: str | Table) -> str:
    if isinstance(part, str):
        return part
    rows = [part.head, ["---"] * len(part.head), *part.rows]
    lines = ["| " + " | ".join(str(cell).replace("|", "\\|") for cell in row) + " |" for row in rows]
    return f"*{part.caption}*\n\n" + "\n".join(lines)


def number(value: float, digits: int = 3) -> str:
    """A number with that many significant digits, without an exponent where it is of ordinary size."""
    if math.isnan(value):
        return "-"
    text = f"{value:.{digits}g}"
    return f"{value:.0f}" if "e" in text and 1 <= abs(value) < 1e9 else text


def interval_text(value: float, low: float, high: float, digits: int = 3) -> str:
    """``value (low to high)``."""
    return f"{number(value, digits)} ({number(low, digits)} to {number(high, digits)})"


def fall_text(value: float, low: float, high: float, unit: str = "%") -> str:
    """``fell by 13 (9 to 18) %``, or ``rose by`` for a fall below 0."""
    if value < 0:
        return f"rose by {interval_text(-value, -high, -low)} {unit}"
    return f"fell by {interval_text(value, low, high)} {unit}"


def bar(value: float, low: float, high: float, width: int = 20) -> str:
    """A bar of text from ``low`` (empty) to ``high`` (``width`` characters): the figure in a table's column."""
    share = 0.0 if not high > low else min(max((value - low) / (high - low), 0.0), 1.0)
    return "█" * round(share * width) or "·"

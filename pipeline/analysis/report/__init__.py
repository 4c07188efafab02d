"""Reports about the evolution of a run: a page of HTML, or Markdown with PNG files (docs/analysis.md)."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from astrocyte.pipeline.analysis.report.build import make_report
from astrocyte.pipeline.analysis.report.content import Report
from astrocyte.pipeline.analysis.report.html import html_page
from astrocyte.pipeline.analysis.report.markdown import markdown_text
from astrocyte.pipeline.analysis.report.plotting import as_png, require_matplotlib
from astrocyte.schemas.errors import InvalidSettings

__all__ = ["Report", "check_target", "figures_folder", "make_report", "write_report"]

_FORMS = (".html", ".md")


def check_target(path: Path) -> None:
    """Raise InvalidSettings unless a report can be written under this name, by its suffix and what is installed."""
    if path.suffix.lower() not in _FORMS:
        raise InvalidSettings(f"{path}: expected a name that ends with {' or '.join(_FORMS)}, got {path.suffix!r}")
    require_matplotlib()


def figures_folder(path: Path) -> Path:
    """The folder of a Markdown report's figures: ``report_figures`` beside ``report.md``."""
    return path.with_name(f"{path.stem}_figures")


def write_report(report: Report, path: Path) -> None:
    """Write a report as its name's suffix says; the same report gives the same bytes. Raises InvalidSettings."""
    check_target(path)
    try:
        if path.suffix.lower() == ".html":
            _replace(path, html_page(report).encode())
            return
        folder = figures_folder(path)
        folder.mkdir(exist_ok=True)
        for section in report.sections:
            for figure in section.figures:
                _replace(folder / f"{figure.name}.png", as_png(figure))
        _replace(path, markdown_text(report, folder.name).encode())
    except OSError as error:
        raise InvalidSettings(f"{path} cannot be written: {error.strerror}") from error


def _replace(path: Path, content: bytes) -> None:
    partial = path.with_name(path.name + ".partial")
    try:
        partial.write_bytes(content)
        partial.replace(path)
    finally:
        with suppress(OSError):
            partial.unlink()

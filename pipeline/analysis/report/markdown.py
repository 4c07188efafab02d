"""A report as Markdown with its figures as PNG files beside it."""

from __future__ import annotations

from collections.abc import Iterator

from astrocyte.pipeline.analysis.report.content import Report, Section, Table

__all__ = ["markdown_text"]


def markdown_text(report: Report, folder: str) -> str:
    """The report as Markdown, whose figures lie in ``folder`` as ``<name>.png``."""
    return "\n".join(_lines(report, folder)) + "\n"


def _lines(report: Report, folder: str) -> Iterator[str]:
    yield f"# {_plain(report.title)}\n"
    yield from (
        f"**{_plain(each.title)}.** {_plain(' '.join(each.findings))}\n" for each in report.sections if each.findings
    )
    yield from (f"- {name}: {_plain(value)}" for name, value in report.about)
    yield f"\nMade by\n\n```\n{report.command}\n```\n"
    yield from (f"Note: {_plain(note)}.\n" for note in report.notes)
    for section in report.sections:
        yield from _section(section, folder)


def _section(section: Section, folder: str) -> Iterator[str]:
    yield f"## {section.title}\n"
    yield from (f"{_plain(each)}\n" for each in section.text)
    yield from (f"Not made: {_plain(each)}.\n" for each in section.missing)
    for figure in section.figures:
        yield f"![{_plain(figure.title)}]({folder}/{figure.name}.png)\n"
        yield f"*{_plain(figure.title)}.* {_plain(figure.caption)}\n"
    for table in section.tables:
        yield from _table(table)
    if section.made_by:
        yield "```python\n" + "\n".join(section.made_by) + "\n```\n"


def _table(table: Table) -> Iterator[str]:
    yield f"{_plain(table.title)}:\n"
    yield "| " + " | ".join(_plain(each) for each in table.head) + " |"
    yield "|" + "".join("---|" if place < table.left else "---:|" for place in range(len(table.head)))
    yield from ("| " + " | ".join(_plain(each) for each in row) + " |" for row in table.rows)
    yield ""


def _plain(text: str) -> str:
    """Text without what Markdown would take for a form; one line."""
    for sign in "\\`*_|<>[]":
        text = text.replace(sign, f"\\{sign}")
    return " ".join(text.split())

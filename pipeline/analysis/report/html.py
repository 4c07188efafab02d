"""A report as one page that needs nothing else: no network, no script, readable on a phone, light or dark."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from html import escape
from typing import Final

from astrocyte.pipeline.analysis.report.content import Figure, Report, Section, Table
from astrocyte.pipeline.analysis.report.palette import DARK, LIGHT, Palette
from astrocyte.pipeline.analysis.report.plotting import as_svg

__all__ = ["html_page"]

_STYLE: Final = """
:root { color-scheme: light dark; %(light)s }
@media (prefers-color-scheme: dark) { :root { %(dark)s } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1rem; max-width: 74rem; background: var(--paper); color: var(--ink);
  font: 16px/1.5 system-ui, "DejaVu Sans", sans-serif; overflow-wrap: anywhere; }
h1 { font-size: 1.6rem; margin: .4rem 0 .8rem; } h2 { font-size: 1.25rem; margin: 2.2rem 0 .5rem; }
h3 { font-size: 1rem; margin: 0 0 .2rem; } p { margin: .4rem 0; max-width: 48rem; }
nav a { margin-right: .9rem; white-space: nowrap; } a { color: var(--blue); }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .1rem .9rem; margin: .6rem 0; }
dt { color: var(--muted); } dd { margin: 0; }
.findings { border-left: 4px solid var(--blue); padding: .1rem 0 .1rem .9rem; max-width: 52rem; }
.figures { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%%, 21rem), 1fr)); gap: 1.2rem;
  margin: .8rem 0; }
figure { margin: 0; min-width: 0; } figure svg { display: block; width: 100%%; height: auto; overflow: visible; }
svg text { fill: currentColor; font-family: "DejaVu Sans", Verdana, sans-serif; }
figcaption, .small, details, summary { color: var(--muted); font-size: .85rem; line-height: 1.4; }
.table { overflow-x: auto; margin: .9rem 0; } table { border-collapse: collapse; font-size: .85rem; }
caption { text-align: left; font-weight: 600; padding-bottom: .2rem; white-space: nowrap; }
th, td { text-align: right; padding: .18rem .9rem .18rem 0; border-bottom: 1px solid var(--grid);
  white-space: nowrap; overflow-wrap: normal; font-variant-numeric: tabular-nums; vertical-align: top; }
th { color: var(--muted); font-weight: 600; } .left { text-align: left; }
td.words { white-space: normal; min-width: 9rem; }
code, pre { font: .85rem/1.4 ui-monospace, "DejaVu Sans Mono", monospace; }
pre { white-space: pre-wrap; margin: .4rem 0; }
.missing { color: var(--orange); }
@media print { .figures { grid-template-columns: 1fr 1fr; } }
"""


def html_page(report: Report) -> str:
    """The page, as HTML text. Raises InvalidSettings without matplotlib."""
    return "\n".join(_page(report)) + "\n"


def _page(report: Report) -> Iterator[str]:
    yield "<!doctype html>"
    yield '<html lang="en"><head><meta charset="utf-8">'
    yield '<meta name="viewport" content="width=device-width, initial-scale=1">'
    yield f"<title>{escape(report.title)}</title>"
    yield f"<style>{_STYLE % {'light': _variables(LIGHT), 'dark': _variables(DARK)}}</style></head><body>"
    yield f"<h1>{escape(report.title)}</h1>"
    yield '<div class="findings">'
    yield from (f"<p><b>{_text(each.title)}.</b> {_text(' '.join(each.findings))}</p>"
                for each in report.sections if each.findings)  # fmt: skip
    yield "</div>"
    yield "<dl>" + "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in report.about) + "</dl>"
    yield f"<p>Made by</p><pre><code>{escape(report.command)}</code></pre>"
    for note in report.notes:
        yield f'<p class="small">Note: {escape(note)}.</p>'
    links = "".join(f'<a href="#{each.name}">{escape(each.title)}</a> ' for each in report.sections)
    yield f"<nav>{links}</nav>"
    for section in report.sections:
        yield from _section(section)
    yield "</body></html>"


def _text(text: str) -> str:
    """Text with numbers kept on one line with their sign of percent."""
    return escape(text).replace(" %", "&nbsp;%")


def _section(section: Section) -> Iterator[str]:
    yield f'<section id="{section.name}"><h2>{escape(section.title)}</h2>'
    yield from (f'<p class="small">{_text(each)}</p>' for each in section.text)
    yield from (f'<p class="missing">Not made: {_text(each)}.</p>' for each in section.missing)
    if section.figures:
        yield '<div class="figures">'
        yield from (_figure(each) for each in section.figures)
        yield "</div>"
    yield from (_table(each) for each in section.tables)
    if section.made_by:
        made_by = "\n".join(escape(each) for each in section.made_by)
        yield f"<details><summary>How the numbers were made</summary><pre><code>{made_by}</code></pre></details>"
    yield "</section>"


def _figure(figure: Figure) -> str:
    caption = f"<figcaption>{_text(figure.caption)}</figcaption>"
    return f"<figure><h3>{escape(figure.title)}</h3>{as_svg(figure)}{caption}</figure>"


def _table(table: Table) -> str:
    def cell(tag: str, text: str, place: int) -> str:
        words = " words" if place < table.left and len(text) > 30 else ""
        kind = f' class="left{words}"' if place < table.left else ""
        return f"<{tag}{kind}>{_text(text)}</{tag}>"

    def line(tag: str, row: tuple[str, ...]) -> str:
        return "<tr>" + "".join(cell(tag, text, place) for place, text in enumerate(row)) + "</tr>"

    head = f"<thead>{line('th', table.head)}</thead>" if any(table.head) else ""
    body = "".join(line("td", row) for row in table.rows)
    caption = f"<caption>{_text(table.title)}</caption>"
    return f'<div class="table"><table>{caption}{head}<tbody>{body}</tbody></table></div>'


def _variables(palette: Palette) -> str:
    return " ".join(f"--{name}: {colour};" for name, colour in asdict(palette).items())

"""The drawings of the docs, and the list of SQL tables in docs/data.md: ``python docs/drawings.py``."""  # noqa: INP001  a script

from __future__ import annotations

from collections.abc import Callable, Iterator
from html import escape
from pathlib import Path
from typing import NamedTuple

from sqlalchemy import Column, Table

from astrocyte.schemas.tables.base import Base

DOCS = Path(__file__).parent
BEGIN, END = "<!-- tables -->\n", "<!-- end of tables -->\n"
PLAIN = {"BigInteger": "bigint", "LargeBinary": "bytes", "TextArray": "array of strings", "DateTime": "timestamp"}
INK, FAINT, LINE = "#1f2937", "#4b5563", "#6b7280"


class Band(NamedTuple):
    """One process, or what lies between two: a title, a colour, and boxes of a name, a remark and a folder."""

    title: str
    colour: str
    boxes: tuple[tuple[str, str, str], ...]


BANDS = (
    Band("process: astrocyte simulate", "#dbeafe", (
        ("scenario", "one JAX call steps a chunk of ticks", "simulator/runtime"),
        ("emission", "rows sorted, numbered, cut into frames", "simulator/emission"),
        ("publisher", "split by partition, encoded, confirmed", "pipeline/simulation"),
    )),
    Band("Kafka, or the embedded broker", "#f3f4f6", (
        ("mono.<stream>", "frames and JSON records, mixed", "schemas"),
    )),
    Band("process: worker, role correlate", "#dcfce7", (
        ("transport", "one chunk for each fetch and partition", "pipeline/transport"),
        ("decode", "each chunk becomes frames; errors: dead letters", "agents/ingest"),
        ("validators", "check, change, sample; refused: dead letters", "agents/ingest"),
        ("watermarks", "each row is on time, late or rejected", "agents/event_time"),
        ("engine", "rows in order through rules and windows", "agents/engine"),
        ("output records", "topic, partition, id, headers; confirmed", "pipeline/roles"),
        ("snapshot", "state and offsets stored, then acknowledged", "pipeline/state"),
    )),
    Band("Kafka, or the embedded broker", "#f3f4f6", (
        ("multi.events, alerts", "what the rules found, with its lineage", "schemas"),
        ("late, dead_letters", "what took no part, and why", "schemas"),
        ("metrics.<window>", "results of windows, as frames", "schemas"),
    )),
    Band("process: worker, role sql, influx or audit", "#fef3c7", (
        ("sink runner", "decode, batch; acknowledge at the end", "pipeline/roles"),
        ("sink", "write, and wait until the store confirms", "agents/sinks"),
    )),
    Band("stores", "#f3f4f6", (
        ("SQL, InfluxDB, files", "the same id twice is one row", "schemas/tables"),
    )),
)  # fmt: skip
WIDTH, LEFT, RIGHT, ROW, HEAD, GAP = 600, 46, 548, 50, 26, 22


def _text(x: float, y: float, text: str, *, size: int = 14, colour: str = INK, style: str = "") -> str:
    return f'<text x="{x}" y="{y}" font-size="{size}" fill="{colour}" {style}>{escape(text)}</text>'


def _svg(width: int, height: int, label: str, parts: list[str]) -> str:
    arrow = f'<marker id="tip" markerWidth="9" markerHeight="8" refX="8" refY="4" orient="auto"><path d="M0,0 L9,4 L0,8 z" fill="{LINE}"/></marker>'  # noqa: E501  one element
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        f'role="img" aria-label="{escape(label)}" font-family="Helvetica, Arial, sans-serif">'
    )
    sheet = f'<rect width="{width}" height="{height}" fill="#fff"/>'
    return "\n".join([head, f"<defs>{arrow}</defs>", sheet, *parts, "</svg>"]) + "\n"


def _path(points: list[tuple[float, float]], *, dashed: bool = False, tip: bool = True) -> str:
    way = " L".join(f"{x},{y}" for x, y in points)
    extra = ' stroke-dasharray="5 4"' if dashed else ""
    end = ' marker-end="url(#tip)"' if tip else ""
    return f'<path d="M{way}" fill="none" stroke="{LINE}" stroke-width="1.6"{extra}{end}/>'


def event_path() -> str:
    """The way of one event through processes (bands) and folders (in italics), from top to bottom."""
    parts: list[str] = []
    middles: list[float] = []
    y = 10.0
    for number, band in enumerate(BANDS):
        height = HEAD + ROW * len(band.boxes) + 8
        if number:
            parts.append(_path([(WIDTH / 2, y - GAP), (WIDTH / 2, y)]))
        parts.append(f'<rect x="{LEFT}" y="{y}" width="{RIGHT - LEFT}" height="{height}" rx="8" fill="{band.colour}"/>')
        parts.append(_text(LEFT + 12, y + 18, band.title, size=13, style='font-weight="bold"'))
        for row, (name, remark, folder) in enumerate(band.boxes):
            top = y + HEAD + row * ROW
            parts.append(
                f'<rect x="{LEFT + 10}" y="{top}" width="{RIGHT - LEFT - 20}" height="{ROW - 8}" rx="5" fill="#fff" '
                f'stroke="{LINE}"/>'
            )
            parts.append(_text(LEFT + 20, top + 18, name, size=15, style='font-weight="bold"'))
            end = 'text-anchor="end" font-style="italic"'
            parts.append(_text(RIGHT - 20, top + 18, folder, size=13, colour=FAINT, style=end))
            parts.append(_text(LEFT + 20, top + 35, remark, size=13, colour=FAINT))
        middles.append(y + height / 2)
        y += height + GAP
    parts.append(_path([(LEFT, middles[1]), (22, middles[1]), (22, middles[4]), (LEFT, middles[4])]))
    turned = f'transform="rotate(-90 16 {middles[2]})" text-anchor="middle"'
    parts.append(_text(16, middles[2], "the stores read the events, too", size=13, colour=FAINT, style=turned))
    start = middles[3] + ROW + 9  # the box of window results
    back = [(RIGHT, start), (572, start), (572, middles[0]), (RIGHT, middles[0])]
    parts.append(_path(back, dashed=True))
    turned = f'transform="rotate(90 580 {middles[2]})" text-anchor="middle"'
    parts.append(_text(580, middles[2], "role control: control.<name>", size=13, colour=FAINT, style=turned))
    return _svg(WIDTH, round(y - GAP + 10), "The way of one event from the simulator to the stores", parts)


def _parents(table: Table) -> list[str]:
    """Tables that this one refers to, the nearest last."""
    order = {each.name: place for place, each in enumerate(Base.metadata.sorted_tables)}
    found = {constraint.referred_table.name for constraint in table.foreign_key_constraints} - {table.name}
    return sorted(found, key=order.__getitem__)


def tables() -> str:
    """Which table refers to which: each under the nearest one that it refers to, others named beside it."""
    children: dict[str, list[Table]] = {}
    for table in Base.metadata.sorted_tables:
        children.setdefault((_parents(table) or [""])[-1], []).append(table)
    rows: list[tuple[Table, int, int]] = []

    def walk(name: str, depth: int, above: int) -> None:
        for table in sorted(children.get(name, []), key=lambda each: (each.name not in children, each.name)):
            rows.append((table, depth, above))
            walk(table.name, depth + 1, len(rows) - 1)

    walk("", 0, -1)
    parts: list[str] = []
    for number, (table, depth, above) in enumerate(rows):
        x, y = 10 + 44 * depth, 10 + 32 * number
        if above >= 0:
            trunk = 10 + 44 * (depth - 1) + 18
            parts.append(_path([(trunk, 10 + 32 * above + 26), (trunk, y + 13), (x, y + 13)]))
        parts.append(f'<rect x="{x}" y="{y}" width="190" height="26" rx="5" fill="#eef2ff" stroke="{LINE}"/>')
        parts.append(_text(x + 10, y + 18, table.name, style='font-weight="bold"'))
        others = _parents(table)[:-1]
        if others:
            parts.append(_text(x + 200, y + 18, "and " + ", ".join(others), size=13, colour=FAINT))
    return _svg(500, 32 * len(rows) + 16, "Tables of the SQL database and what they refer to", parts)


def _column(column: Column[object]) -> str:
    name = type(column.type).__name__
    name = PLAIN.get(name, name.lower())
    length = getattr(column.type, "length", None) or getattr(column.type, "size", None)
    kind = f"{name}({length})" if isinstance(length, int) else name
    shown = f"**{column.name}**" if column.primary_key else column.name
    return f"{shown} {kind}"


def table_list() -> Iterator[str]:
    """Every table with its columns as rows of a Markdown table."""
    yield "| table | columns (primary key in bold) |"
    yield "|---|---|"
    for table in sorted(Base.metadata.tables.values(), key=lambda each: each.name):
        yield f"| `{table.name}` | {', '.join(map(_column, table.columns))} |"


def with_tables(page: str) -> str:
    """The page with today's list of tables in the place of the one that it has."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return before + BEGIN + "\n".join(table_list()) + "\n" + END + after


DRAWINGS: dict[str, Callable[[], str]] = {"event_path.svg": event_path, "tables.svg": tables}

if __name__ == "__main__":
    for name, draw in DRAWINGS.items():
        (DOCS / "img" / name).write_text(draw())
    data = DOCS / "data.md"
    data.write_text(with_tables(data.read_text()))

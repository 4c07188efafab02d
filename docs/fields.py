"""The page docs/fields.md, from catalog, tables, measurements and windows: ``python docs/fields.py``."""  # noqa: INP001  a script

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from astrocyte.pipeline.topology.rule_files import read_rule_files, shipped_rules
from astrocyte.schemas.catalog import CATALOG, Field
from astrocyte.schemas.event_types import axons, cells, controls, dna, ecology, kernels
from astrocyte.schemas.event_types.insight import RESULTS
from astrocyte.schemas.measurements import MEASUREMENTS, number_field
from astrocyte.schemas.tables.base import Base
from astrocyte.schemas.tables.columns import STREAM_OF, columns_of

PAGE = Path(__file__).parent / "fields.md"
SCENARIOS = {
    module.__name__.rpartition(".")[2]: tuple(each.stream for each in module.EVENT_TYPES)
    for module in (axons, cells, ecology, kernels, dna, controls)
}
HEAD = """# Fields

Every field of every stream, table, measurement and shipped window, with its definition, unit and range. This page is
generated from the definitions in `schemas/event_types/` and `schemas/tables/columns.py` by `python docs/fields.py`.
Tests hold the five worlds to it: values lie in range, vary unless a reason is given here, and are the same in the
stream, in SQL and in InfluxDB.

Times are event times, that is simulated time, unless the unit says *wall time*. A range without one end is open there.
The column *null* says when an event lacks the field.
"""


def cell(text: str) -> str:
    """Text for a cell of a table."""
    return text.replace("|", "\\|")


def span(field: Field) -> str:
    """The range of a field."""
    if field.values:
        return ", ".join(field.values)
    if field.low is None and field.high is None:
        return ""
    low = "" if field.low is None else f"{field.low:.12g}"
    high = "" if field.high is None else f"{field.high:.12g}"
    return f"{low} to {high}" if low and high else f"{low} or more" if low else f"{high} or less"


def about(field: Field) -> str:
    """The definition of a field, with the reason for which it may not vary."""
    return cell(field.doc + (f" (constant: {field.constant})" if field.constant else ""))


def streams() -> Iterator[str]:
    """The fields of the streams, by scenario."""
    for scenario, names in SCENARIOS.items():
        yield f"\n## Streams of {'every world with controls' if scenario == 'controls' else scenario}\n"
        for name in names:
            event_type = CATALOG[name]
            kinds = ", ".join(f"`{each}`" for each in event_type.types)
            yield f"\n### `{name}`\n\n{event_type.doc} Key: {event_type.key}. Types: {kinds}.\n"
            yield "\n| field | type | definition | unit | range | null |\n|---|---|---|---|---|---|\n"
            for field_name, field in event_type.about.items():
                described = f"{about(field)} | {field.unit} | {span(field)} | {field.null or 'never'}"
                yield f"| `{field_name}` | {cell(field.type)} | {described} |\n"


def tables() -> Iterator[str]:
    """The columns of the tables that are no fields of the table's stream; the others refer to it."""
    yield "\n## SQL tables\n\nA column with the name of a field of the table's stream is defined there.\n"
    for name in sorted(Base.metadata.tables):
        stream = STREAM_OF.get(name)
        fields = CATALOG[stream].about if stream is not None else {}
        columns = columns_of(name)
        same = [each for each, field in columns.items() if each in fields and field is fields[each]]
        yield f"\n### Table `{name}`\n"
        if same:
            listed = ", ".join(f"`{each}`" for each in same)
            yield f"\nFrom [`{stream}`](#{anchor(str(stream))}): {listed}.\n"
        own = {each: field for each, field in columns.items() if each not in same}
        if own:
            yield "\n| column | definition | unit | range | null |\n|---|---|---|---|---|\n"
        for each, field in own.items():
            assert field is not None, f"{name}.{each} has no definition"
            yield f"| `{each}` | {about(field)} | {field.unit} | {span(field)} | {field.null or 'never'} |\n"


def anchor(heading: str) -> str:
    """The anchor of a heading of code."""
    return re.sub(r"[^\w-]", "", heading.lower())


def measurements() -> Iterator[str]:
    """What is particular to InfluxDB."""
    names = ", ".join(f"`{name}`" for name in MEASUREMENTS)
    entities = sorted({entity for each in MEASUREMENTS.values() for entity in each.entities})
    ids = ", ".join(f"`{number_field(entity)}`" for entity in entities)
    yield (
        "\n## InfluxDB\n\nTags and fields of a measurement have the definitions of the stream of the same name "
        f"({names}, and every other stream of the catalog); fields of a window those below. Some points also "
        "have:\n\n"
        "| field | definition | unit | range |\n|---|---|---|---|\n"
        "| `weight` | of sampled streams: events for which the point stands, 1 / share of the sample; their sum "
        "estimates a count | events | 1 or more |\n"
        f"| {ids} | an id that is [no tag](data.md#cardinality-why-cell_id-is-a-tag-only-below-a-limit) | id | "
        "`ASTROCYTE_INFLUX_CELL_TAGS` or more |\n"
    )


def windows() -> Iterator[str]:
    """The fields of the shipped windows."""
    yield (
        "\n## Windows\n\nResults of the shipped windows: topics `metrics.<window>`, the table `window_results` and "
        "measurements of InfluxDB. Counts and sums weigh a sampled event by the number of events for which it stands.\n"
    )
    for file in shipped_rules():
        for window in read_rule_files([file]).windows:
            stream = CATALOG.find(window.source)
            known = {} if stream is None else stream.about
            yield f"\n### Window `{window.name}`\n\nFrom `{window.source}` by {window.by}, rules `{file}`.\n"
            yield "\n| field | definition | unit |\n|---|---|---|\n"
            for name, expression in window.select.items():
                yield f"| `{name}` | `{cell(str(expression))}` | {unit_of(str(expression), known)} |\n"


def statistics() -> Iterator[str]:
    """The fields of the results of statistics."""
    yield (
        "\n## Statistics\n\nResults of [statistics](insight.md): topics `metrics.<name>`, table `window_results` and "
        "measurements of InfluxDB, where `name` is that of the rule file, by default the statistic.\n"
    )
    for name, event_type in RESULTS.items():
        yield f"\n### Statistic `{name}`\n\n{event_type.doc}\n"
        yield "\n| field | type | definition | unit | range | null |\n|---|---|---|---|---|---|\n"
        for field_name, field in event_type.about.items():
            described = f"{about(field)} | {field.unit} | {span(field)} | {field.null or 'never'}"
            yield f"| `{field_name}` | {cell(field.type)} | {described} |\n"


def unit_of(expression: str, known: Mapping[str, Field]) -> str:
    """Unit of an aggregate of one field; empty for a ratio."""
    single = re.fullmatch(r"(\w+)\(([^()]*)\)", expression)
    if single is None:
        return _common_unit(expression, known)
    function, inside = single.groups()
    if function in ("count", "count_if"):
        return "events"
    if function == "count_distinct":
        return "distinct values"
    if function == "entropy":
        return "nats"
    name = inside.split(",")[0].strip()
    unit = known[name].unit if name in known else _common_unit(inside, known)
    return f"{unit} per second" if function == "slope" else unit


def _common_unit(expression: str, known: Mapping[str, Field]) -> str:
    units = {known[name].unit for name in re.findall(r"\w+", expression) if name in known}
    return units.pop() if len(units) == 1 and "/" not in expression else ""


def page() -> str:
    """The whole page."""
    return HEAD + "".join((*streams(), *tables(), *measurements(), *windows(), *statistics()))


if __name__ == "__main__":
    PAGE.write_text(page())

"""The page "Fields" is that of today's definitions, and they are complete."""

import importlib.util
from pathlib import Path

import pytest

from astrocyte.agents.sinks.sql.targets import STREAM_TARGETS
from astrocyte.pipeline.topology.rule_files import read_rule_files, shipped_rules
from astrocyte.schemas.catalog import CATALOG
from astrocyte.schemas.tables.base import Base
from astrocyte.schemas.tables.columns import STREAM_OF, columns_of

DOCS = Path(__file__).parents[2] / "docs"
SPEC = importlib.util.spec_from_file_location("fields", DOCS / "fields.py")
assert SPEC is not None
assert SPEC.loader is not None
fields = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(fields)


def test_the_page_is_the_output_of_its_script():
    assert (DOCS / "fields.md").read_text() == fields.page(), "the definitions have changed; run: python docs/fields.py"


def test_every_shipped_stream_and_window_is_on_the_page():
    page = fields.page()
    shipped = {name for names in fields.SCENARIOS.values() for name in names}
    assert {each.stream for each in CATALOG if each.about} == shipped
    for name in shipped:
        assert f"### `{name}`\n" in page
    for file in shipped_rules():
        for window in read_rule_files([file]).windows:
            assert f"### Window `{window.name}`\n" in page


@pytest.mark.parametrize("table", sorted(Base.metadata.tables))
def test_every_column_of_a_table_is_defined(table):
    undefined = [name for name, field in columns_of(table).items() if field is None]
    assert undefined == []
    assert table not in STREAM_OF or STREAM_OF[table] in CATALOG


@pytest.mark.parametrize("stream", STREAM_TARGETS)
def test_the_stream_of_a_table_is_the_one_that_the_sink_writes_into_it(stream):
    written = STREAM_OF[STREAM_TARGETS[stream].table.name]
    assert written == ("axon_1" if stream.startswith("axon_") else stream)


@pytest.mark.parametrize(
    ("expression", "unit"),
    [
        ("mean(energy)", "energy"),
        ("count()", "events"),
        ("count_if(alive)", "events"),
        ("slope(energy)", "energy per second"),
        ("entropy(energy)", "nats"),
        ("max(energy) - min(energy)", "energy"),
        ("sum(energy) / count()", ""),
    ],
)
def test_the_unit_of_an_aggregate_follows_from_its_field(expression, unit):
    assert fields.unit_of(expression, CATALOG["cell_vitals"].about) == unit

"""Drawings and generated tables of the docs are those of today's code."""

import importlib.util
from pathlib import Path

import pytest

from astrocyte.schemas.tables.base import Base

DOCS = Path(__file__).parents[2] / "docs"
SPEC = importlib.util.spec_from_file_location("drawings", DOCS / "drawings.py")
assert SPEC is not None
assert SPEC.loader is not None
drawings = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(drawings)


@pytest.mark.parametrize("name", sorted(drawings.DRAWINGS))
def test_a_drawing_is_the_output_of_its_script(name):
    assert (DOCS / "img" / name).read_text() == drawings.DRAWINGS[name](), "run: python docs/drawings.py"


def test_the_list_of_tables_is_that_of_the_models():
    page = (DOCS / "data.md").read_text()
    assert drawings.with_tables(page) == page, "the models have changed; run: python docs/drawings.py"
    assert all(f"| `{name}` | " in page for name in Base.metadata.tables)


def test_the_drawing_of_tables_shows_each_once():
    drawn = drawings.tables()
    assert all(drawn.count(f">{name}</text>") == 1 for name in Base.metadata.tables)


def test_folders_named_in_the_drawing_of_the_event_path_exist():
    for band in drawings.BANDS:
        for _, _, folder in band.boxes:
            assert (DOCS.parent / folder).is_dir(), folder

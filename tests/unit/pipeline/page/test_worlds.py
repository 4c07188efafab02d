"""The charts of the shipped worlds."""

import pytest

from astrocyte.pipeline.page.content.run import is_drawn
from astrocyte.pipeline.page.content.worlds import CHARTS
from astrocyte.schemas.catalog import CATALOG

MEASURES = sorted({(measure, chart.title) for chart in CHARTS for measure in chart.measures}, key=str)


@pytest.mark.parametrize(("measure", "title"), MEASURES, ids=lambda each: getattr(each, "name", None))
def test_every_chart_is_drawn_from_fields_that_its_stream_has(measure, title):
    event_type = CATALOG[measure.stream]
    assert is_drawn(measure.stream)
    assert measure.field is None or event_type.about[measure.field].is_quantity
    assert measure.field is None or event_type.fields[measure.field].startswith(("int", "float"))
    if measure.inside:
        assert event_type.fields[measure.by] == "json"
    elif measure.by is not None:
        assert measure.by == "type" or event_type.fields[measure.by] == "string"
        assert len(measure.groups) > 1


def test_names_of_measures_tell_them_apart():
    names = {measure.name for measure, _ in MEASURES}
    assert len(names) == len({measure for measure, _ in MEASURES})


def test_a_chart_has_no_more_lines_than_there_are_colours():
    assert max(len(chart.lines) for chart in CHARTS) <= 6

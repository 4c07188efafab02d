"""Reports: what is in them, how numbers are written, that figures are the same each time, and what is missing."""

import re
from dataclasses import replace
from xml.etree import ElementTree as ET

import numpy as np
import pyarrow as pa
import pytest

from astrocyte.pipeline.analysis.evolution import RunAnalysis, read_run
from astrocyte.pipeline.analysis.evolution.alerts import with_alerts_of
from astrocyte.pipeline.analysis.report import check_target, make_report, markdown_text
from astrocyte.pipeline.analysis.report.content import Figure, Report, Section, Table
from astrocyte.pipeline.analysis.report.html import html_page
from astrocyte.pipeline.analysis.report.palette import DARK, LIGHT, MARKED, variables
from astrocyte.pipeline.analysis.report.plotting import as_png, as_svg
from astrocyte.pipeline.analysis.report.sections.lineages import sampled
from astrocyte.pipeline.analysis.report.text import (
    as_python,
    interval,
    number,
    p_text,
    plus_minus,
    share,
    span,
)
from astrocyte.pipeline.console import counted
from astrocyte.pipeline.topology.rule_files import read_rule_files
from astrocyte.schemas.errors import InvalidSettings
from tests.support.evolving import analysis_of, evolving_frames, evolving_log

ALERT = """
  - name: {}
    by: simulation_id
    within: 1s
    seq:
      - {{as: now, stream: population_metrics, where: total_population > 9999}}
    alert: {{severity: warning, message: too many}}
"""
PARTS = ["population", "traits", "selection", "landscape", "lineages", "coevolution", "forecasts", "alerts"]


@pytest.fixture(scope="module")
def run():
    return analysis_of(evolving_frames(slopes={"metabolism": -0.6}, collapse_at=40))


@pytest.fixture(scope="module")
def report(run):
    return make_report(run, "astrocyte analyze run.jsonl.zst --report report.html")


def section(report, name):
    return next(each for each in report.sections if each.name == name)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1080, "1,080"), (1080.0, "1,080"), (12345.6, "12,346"), (0.43719, "0.437"), (-0.0073, "−0.00730"),
        (0.0, "0"), (3.0, "3.00"), (2.5e-7, "2.50e−7"), (None, "–"), (float("nan"), "–"), (float("inf"), "–"),
    ],
)  # fmt: skip
def test_numbers_have_three_digits_and_whole_ones_all(value, text):
    assert number(value) == text.replace("e−7", "e−07")


@pytest.mark.parametrize(
    ("value", "se", "text"), [(0.34912, 0.0326, "0.349 ± 0.064"), (-12.3, 5.0, "−12.3 ± 9.8"), (1.0, None, "–")]
)
def test_a_value_is_written_to_the_second_digit_of_its_interval(value, se, text):
    assert plus_minus(value, se) == text


def test_shares_probabilities_intervals_and_spans():
    assert [share(each) for each in (0.8, 0.0432, 1.94, None)] == ["80 %", "4.3 %", "194 %", "–"]
    assert [p_text(each, least=True) for each in (0.005, 0.0004, None)] == ["≤0.005", "<0.001", "–"]
    assert [counted(each, "cell") for each in (0, 1, 1200)] == ["0 cells", "1 cell", "1,200 cells"]
    assert [p_text(each) for each in (0.0004, 0.0123, 0.4, 1.0, None)] == ["<0.001", "0.012", "0.40", "1.00", "–"]
    assert interval(0.001, 0.002) == "0.00100 to 0.00200"
    assert [span(each) for each in (1_300_000, 50_000, 150_000_000, 9_000_000_000)] == [
        "1.3 s", "50ms", "2.5 min", "2.5 h",
    ]  # fmt: skip


def test_every_part_has_figures_a_finding_and_says_how_its_numbers_are_made(report):
    assert [each.name for each in report.sections] == PARTS
    for name in PARTS[:-1]:
        each = section(report, name)
        assert each.figures, name
        assert each.findings, name
        assert each.made_by, name
    names = [figure.name for each in report.sections for figure in each.figures]
    assert len(names) == len(set(names)), "their files have these names"


def test_findings_state_what_was_planted_with_its_uncertainty(report):
    said = " ".join(report.findings)
    assert re.search(r"smaller metabolism \(beta −0\.\d+ ± 0\.\d+, p <0\.001\)", said)
    assert "the population fell by 80 %, from 300 to 60 (p <0.001 by ordinary changes)" in said
    assert re.search(r"Of \d+ earlier forecasts of the population \d+ held what came in their 95 % interval", said)
    assert re.search(
        r"Falling over the run: .*metabolism \(−0\.\d+ a second, p ≤0\.025 with the autocorrelation; were ", said
    )


def test_a_number_can_be_had_again_by_the_statistic_that_is_printed(run, report):
    made_by = section(report, "selection").made_by[0]
    assert len(made_by) < 200, "settings that are as usual are not printed"
    row = run.history.results(eval(made_by, vars(insight_names()))).to_pylist()[0]
    assert section(report, "selection").tables[0].rows[0][4] == plus_minus(row["beta"], row["beta_se"])


def insight_names():
    import astrocyte.insight

    for name in astrocyte.insight.__all__:
        getattr(astrocyte.insight, name)  # loads it
    return astrocyte.insight


@pytest.mark.parametrize("ticks", [60, 53, 130, 251])
def test_every_statistic_that_is_printed_has_results_as_it_is_printed(ticks):
    run = analysis_of(evolving_frames(ticks=ticks, size=120))
    printed = [text for each in make_report(run, "astrocyte analyze x").sections for text in each.made_by]
    statistics = [text for text in printed if not text.startswith("run.")]
    assert len(statistics) >= 8
    for text in statistics:
        statistic = eval(text, vars(insight_names()))
        assert as_python(statistic) == text
        assert run.history.results(statistic).num_rows, text


def test_trends_as_they_are_printed_give_the_numbers_of_the_table(run, report):
    part = section(report, "coevolution")
    rows = run.history.results(eval(part.made_by[0], vars(insight_names()))).to_pylist()
    own = [row for row in rows if row["other"] is None]
    assert [number(row["slope"]) for row in own] == [row[1] for row in part.tables[0].rows]


@pytest.mark.parametrize(
    ("rules", "said"),
    [
        ("[]", "No alert: the rules that were given are none that raise one."),
        (ALERT.format("never"), "No alert: the rule never ran over the log and raised none."),
        (
            ALERT.format("never") + ALERT.format("again"),
            "No alert: the rules never and again ran over the log and raised none.",
        ),
    ],
)
def test_rules_that_raised_no_alert_are_named_and_not_asked_for_again(tmp_path, rules, said):
    log = evolving_log(tmp_path / "run.jsonl.zst", evolving_frames(ticks=6, size=40))
    (tmp_path / "own.yaml").write_text(f"rules: {rules}")
    history = with_alerts_of(read_run(log).history, read_rule_files([tmp_path / "own.yaml"]), log, lateness_us=0)
    part = section(make_report(RunAnalysis(history), "astrocyte analyze x"), "alerts")
    assert said in part.findings
    assert "--rules" not in " ".join([*part.text, *part.findings])
    without = section(make_report(read_run(log), "astrocyte analyze x"), "alerts")
    assert "they are found by --rules" in " ".join(without.text)


def test_a_run_that_lacks_something_has_a_report_that_says_what():
    frames = evolving_frames(ticks=12, size=40)
    found = make_report(analysis_of({"population_metrics": frames["population_metrics"]}), "astrocyte analyze x")
    missing = {each.name: each.missing for each in found.sections}
    assert missing["selection"] == [
        "run 'run-1' has no events of genome_data, evolutionary_events; it has population_metrics 12"
    ]
    assert section(found, "population").figures
    assert section(found, "forecasts").figures
    assert "at 30 times or more" in missing["population"][0]
    assert "early warnings: they need 40 snapshots, and the run has 12" in missing["alerts"]
    assert "Not made: run &#x27;run-1&#x27; has no events of genome_data" in html_page(
        Report("t", (), "c", [section(found, "selection")])
    )


def plain_figure(axes, palette):
    axes.plot([0.0, 1.0], [0.001234, 0.005678], color=palette.blue, label="a < b")
    axes.pcolormesh(np.arange(4.0).reshape(2, 2), rasterized=True)
    axes.legend()


def test_trends_say_what_their_intervals_and_p_take_for_granted_and_which_accuracy_is_meant(run, report):
    found = run.analyze_evolutionary_trends()
    for name in (*found.rising, *found.falling):
        row = next(each for each in found.series if each.series == name)
        assert row.holm_p <= 0.05
    for part in (section(report, "coevolution"), section(report, "population")):
        table = next(each for each in part.tables if each.title.startswith("Trends"))
        assert "95 % if independent" in table.head
        assert "the same, Holm" in table.head
        for sentence in part.findings:
            if " a second" in sentence:
                assert "were values independent, 95 % interval" in sentence
    said = " ".join([*report.findings, *section(report, "coevolution").text])
    assert "corrected for the 5 series (Holm)" in said
    assert "(p corrected for 4 series)" in said
    names = [row[0] for each in report.sections for table in each.tables if table.title.startswith("Trends")
             for row in table.rows if "accuracy" in row[0]]  # fmt: skip
    assert names == ["mean accuracy of the population", "accuracy of attempts"]


def test_effective_sizes_name_their_generation(run, report):
    (sentence,) = [each for each in section(report, "lineages").findings if "effective population size" in each]
    fine = run.history.results(eval(section(report, "lineages").made_by[0], vars(insight_names()))).to_pylist()[0]
    assert (
        f"for a generation of {span(fine['window_end'] - fine['window_start'])} (each window taken as one)" in sentence
    )
    assert "no count of cells" in sentence
    (title,) = [each.title for each in section(report, "population").tables if each.title.startswith("Bottlenecks")]
    assert f"for a generation of {span(fine['window_end'] - fine['window_start'])}" in title


@pytest.mark.parametrize(("ticks", "said"), [(300, r"1 of \d+ founders has"), (30, r"[2-9] of \d+ founders have")])
def test_sentences_about_lineages_agree_with_their_numbers(ticks, said):
    frames = evolving_frames(ticks=ticks, size=10)
    found = section(make_report(analysis_of(frames), "astrocyte analyze x"), "lineages")
    assert re.match(f"{said} living descendants, who are [0-9]+ after", found.findings[0])


@pytest.mark.parametrize(
    ("living", "said"),
    [
        ([300] * 60, "its last 10 snapshots, the last of them 300, do not vary"),
        ([300 + at % 7 for at in range(59)] + [0], "no one was alive at 1 snapshot of the last 10"),
        ([300 + at % 7 for at in range(53)] + [None] * 7, "its last window has 3 snapshots, and 10 are needed"),
    ],
)
def test_why_there_is_no_forecast_of_the_population_is_said(living, said):
    frames = evolving_frames(ticks=60, size=60)
    metrics = frames["population_metrics"]
    place = metrics.batch.schema.get_field_index("total_population")
    batch = metrics.batch.set_column(place, "total_population", pa.array(living, pa.int64()))
    frames["population_metrics"] = replace(metrics, batch=batch)
    found = section(make_report(analysis_of(frames), "astrocyte analyze x"), "forecasts")
    assert f"No forecast of the population: {said}" in found.findings[0]


FIGURE = Figure("plain", "Title <1>", "Caption", plain_figure)


def test_a_figure_is_the_same_each_time_and_its_colours_are_variables_of_the_page():
    svg = as_svg(FIGURE)
    assert svg == as_svg(FIGURE)
    assert as_png(FIGURE) == as_png(FIGURE)
    assert "var(--blue)" in svg
    assert "#0101" not in svg
    assert "a &lt; b" in svg, "text remains text"
    root = ET.fromstring(svg.replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" '))
    ids = [each.get("id") for each in root.iter() if each.get("id")]
    assert ids
    assert all(each.startswith("plain-") for each in ids), "two figures in a page have no id in common"
    for used in re.findall(r'(?:url\(#|href="#)([^)"]+)', svg):
        assert used in ids


def test_numbers_at_an_axis_keep_their_digits():
    small = Figure("small", "Small", "", lambda axes, palette: axes.plot([0.0, 1.0], [0.001, 0.006]))
    assert re.search(r">0\.00[1-6]\d*<", as_svg(small)), "only places are rounded"


def test_every_colour_has_a_value_in_light_and_dark_that_can_be_read_on_its_paper():
    for palette in (LIGHT, DARK):
        for name in ("ink", "muted", *("blue", "orange", "green", "purple", "red", "gold")):
            contrast = _contrast(getattr(palette, name), palette.paper)
            assert contrast > 4.5, f"{name} has a contrast of {contrast:.1f} (WCAG AA wants 4.5)"
    assert variables(MARKED.red) == "var(--red)"


def _contrast(one, other):
    def luminance(colour):
        parts = np.array([int(colour[at : at + 2], 16) for at in (1, 3, 5)]) / 255
        linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
        return float(linear @ [0.2126, 0.7152, 0.0722])

    low, high = sorted([luminance(one), luminance(other)])
    return (high + 0.05) / (low + 0.05)


def small_report():
    table = Table("T|1", ("name", "value"), [("a<b", "1"), ("pipe|", "2")])
    part = Section("part", "Part", ["Text."], [FIGURE], [table], ["Found 5 %."], ["Selection()"], ["no births"])
    return Report("Run <x>", [("source", "a&b")], "astrocyte analyze 'a b'", [part], ["a note"])


def test_the_page_escapes_what_it_shows_and_loads_nothing():
    page = html_page(small_report())
    assert page.startswith("<!doctype html>")
    for text in ("Run &lt;x&gt;", "a&amp;b", "a&lt;b", "Found 5&nbsp;%.", "Not made: no births.", "<code>Selection()"):
        assert text in page
    links = re.findall(r'(?:src|href)="([^"]*)"|url\(([^)]*)\)', page)
    assert links
    assert all((one or other).startswith(("#", "data:image/png")) for one, other in links)
    assert "<script" not in page
    assert "@import" not in page


def test_markdown_has_the_same_and_names_its_pictures():
    text = markdown_text(small_report(), "report_figures")
    assert "# Run \\<x\\>" in text
    assert "![Title \\<1\\>](report_figures/plain.png)" in text
    assert "| pipe\\| | 2 |" in text
    assert "```\nastrocyte analyze 'a b'\n```" in text


def test_a_report_is_written_as_html_or_markdown_alone(tmp_path):
    with pytest.raises(InvalidSettings, match=r"expected a name that ends with \.html or \.md, got '\.pdf'"):
        check_target(tmp_path / "report.pdf")


def test_the_tree_that_is_drawn_has_some_of_the_living_and_all_their_ancestors(run):
    tree = run.phylogeny().tree
    found = sampled(tree, 25)
    assert found.living.sum() == 25
    known = {int(cell): int(tree.ids[tree.first[row]]) if tree.first[row] >= 0 else None
             for row, cell in enumerate(tree.ids)}  # fmt: skip
    for row, cell in enumerate(found.ids):
        mother = int(found.ids[found.first[row]]) if found.first[row] >= 0 else None
        assert mother == known[int(cell)]
    assert sampled(tree, 10**6).living.sum() == tree.living.sum()

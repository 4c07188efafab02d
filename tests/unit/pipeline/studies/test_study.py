from dataclasses import replace

import pytest

from astrocyte.pipeline.studies.report import (
    Report,
    Table,
    bar,
    fall_text,
    html_page,
    interval_text,
    markdown,
    number,
)
from astrocyte.pipeline.studies.study import STUDIES, StudyRun, register_study, run_study, study_command
from astrocyte.schemas.errors import InvalidSettings, PluginError

REPORT = Report(
    title="Coins & dice",
    question="Are they fair?",
    answer="Yes.",
    method=("They were thrown.",),
    results=("Heads came half of the time.", Table("Throws", ("side", "share"), (("heads", 0.5), ("a|b", 0.5)))),
    calibration=("A coin with two heads was found.",),
    limits=("One coin.", "One hand."),
)


@pytest.fixture
def registered(monkeypatch):
    monkeypatch.setattr(STUDIES, "_registered", {})
    monkeypatch.setattr(STUDIES, "_loaded", {})


def test_a_report_has_its_parts_in_order():
    text = markdown(REPORT, "astrocyte study coins")
    parts = ["# Coins & dice", "**Question.**", "**Answer.**", "## Method", "## Results", "## Calibration", "## Limits",
             "## Reproduce", "astrocyte study coins"]  # fmt: skip
    places = [text.index(part) for part in parts]
    assert places == sorted(places)
    assert "| heads | 0.5 |\n| a\\|b | 0.5 |" in text
    assert "- One coin.\n- One hand." in text


def test_html_comes_from_the_same_markdown_and_loads_nothing():
    page = html_page("Coins & <dice>", markdown(replace(REPORT, answer="<script>no</script>"), "astrocyte study coins"))
    assert "<title>Coins &amp; &lt;dice></title>" in page
    assert "<td>heads</td>" in page
    assert "<script" not in page
    assert "http" not in page


def test_a_row_of_another_width_is_refused():
    with pytest.raises(InvalidSettings, match="table 'Throws': a row has 1 cells, the head has 2"):
        Table("Throws", ("side", "share"), (("heads",),))


@pytest.mark.parametrize(
    ("value", "text"), [(0.01234, "0.0123"), (12345.6, "12346"), (float("nan"), "-"), (0.0, "0"), (1e-7, "1e-07")]
)
def test_numbers_have_three_digits(value, text):
    assert number(value) == text


def test_intervals_and_bars():
    assert interval_text(0.5, 0.25, 0.75) == "0.5 (0.25 to 0.75)"
    assert [len(bar(value, 0.0, 1.0, 10)) for value in (0.5, 1.0, 7.0)] == [5, 10, 10]
    assert bar(0.0, 0.0, 1.0) == bar(1.0, 1.0, 1.0) == "·"


def test_a_fall_below_0_is_a_rise():
    assert fall_text(13.0, 9.0, 18.0) == "fell by 13 (9 to 18) %"
    assert fall_text(-2.95, -13.5, 7.57) == "rose by 2.95 (-7.57 to 13.5) %"


def test_a_report_of_a_quick_run_says_so_before_its_answer(registered):
    register_study("coins")(lambda run: REPORT)
    quick, whole = (run_study(StudyRun("coins", quick=each)) for each in (True, False))
    text = markdown(quick, "astrocyte study coins --quick")
    assert text.startswith("# Coins & dice (quick version)\n\n**This is the quick version and decides nothing.**")
    assert text.index("decides nothing") < text.index("**Answer.**")
    assert "quick" not in markdown(whole, "astrocyte study coins")


def test_a_registered_study_is_run(registered):
    @register_study("coins")
    def coins(run):
        return replace(REPORT, answer=f"{run.seeds_or(8, 2)} {run.quick}")

    assert run_study(StudyRun("coins", quick=True)).answer == "(0, 1) True"
    assert run_study(StudyRun("coins", seeds=(3, 4))).answer == "(3, 4) False"
    assert "coins" in STUDIES.names()


def test_studies_that_are_none_are_refused(registered):
    with pytest.raises(InvalidSettings, match=r"there is no study 'mutation-rates'.*did you mean 'mutation-rate'"):
        run_study(StudyRun("mutation-rates"))
    with pytest.raises(InvalidSettings, match="study 'two': expected a function of a StudyRun"):
        register_study("two")(lambda run, other: REPORT)
    register_study("none")(lambda run: None)
    with pytest.raises(PluginError, match=r"study 'none' returned None.*expected a Report"):
        run_study(StudyRun("none"))
    register_study("bare")(lambda run: replace(REPORT, calibration=()))
    with pytest.raises(PluginError, match="its report has no calibration"):
        run_study(StudyRun("bare"))


def test_settings_of_the_user_go_before_those_of_the_study_and_not_before_what_it_varies():
    run = StudyRun("coins", settings={"hazard": 0.5})
    assert run.config("cells", {"hazard": 0.1, "size": 64}).hazard == 0.5
    with pytest.raises(InvalidSettings, match="study 'coins' varies hazard itself; leave --set hazard out"):
        run.config("cells", {}, {"hazard": 0.1})
    with pytest.raises(InvalidSettings, match=r"hazard: expected float from 0.0 to 1.0, got 2"):
        StudyRun("coins", settings={"hazard": 2}).config("cells", {})


@pytest.mark.parametrize(
    ("run", "command"),
    [
        (StudyRun("capacity"), "astrocyte study capacity"),
        (StudyRun("capacity", seeds=(0, 1, 2), quick=True), "astrocyte study capacity --seeds 3 --quick"),
        (StudyRun("capacity", seeds=(5, 6, 7)), "astrocyte study capacity --seeds 3 --seed 5"),
        (
            StudyRun("capacity", settings={"size": 512, "evolves": ["ai"]}),
            "astrocyte study capacity --set size=512 --set 'evolves=[\"ai\"]'",
        ),
    ],
)
def test_the_command_repeats_the_run(run, command):
    assert study_command(run) == command


def test_random_numbers_are_a_function_of_study_and_parts():
    draws = [
        StudyRun(name).random(*parts).random() for name, *parts in (("a", "x"), ("a", "x"), ("a", "y"), ("b", "x"))
    ]
    assert draws[0] == draws[1]
    assert len(set(draws)) == 3

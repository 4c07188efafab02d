"""What the summary of a demo says of the statistics in its database."""

import sqlite3

import pytest

from astrocyte.pipeline.demo.stores import read_database

BEGIN, LENGTH = 1_735_689_600_000_000, 10_000_000
STILL = dict.fromkeys(("metabolism", "tpu_cores"), "none")


@pytest.fixture
def lines(tmp_path):
    """Lines on results, given as (name, number of the window, key, fields)."""

    def read(*results):
        path = tmp_path / "demo.db"
        with sqlite3.connect(path) as connection:
            connection.execute(
                "CREATE TABLE window_results (window_name, event_key, field, window_start BIGINT, window_end BIGINT, "
                "value FLOAT, text TEXT)"
            )
            for name, number, key, fields in results:
                start = BEGIN + number * LENGTH
                for field, value in fields.items():
                    values = (None, value) if isinstance(value, str) else (value, None)
                    row = (name, key, field, start, start + LENGTH, *values)
                    connection.execute("INSERT INTO window_results VALUES (?, ?, ?, ?, ?, ?, ?)", row)
        connection.close()
        return read_database(f"sqlite:///{path}").statistics

    return read


def selection(number, **signs):
    return [
        ("selection", number, trait, {"sign": sign, "beta": -0.21, "beta_se": 0.05})
        for trait, sign in (STILL | signs).items()
    ]


def test_selection_is_summed_up_over_all_windows_and_the_last_one_is_named(lines):
    (line,) = lines(
        *selection(0, metabolism="negative"), *selection(1, metabolism="negative", tpu_cores="positive"), *selection(2)
    )
    assert line == (
        "selection in 3 windows of 10 s: negative on metabolism in 2, positive on tpu_cores in 1, each at the level of "
        "5 %; in the last, from 20 s after the first began: on no trait"
    )


def test_selection_in_the_last_window_has_its_gradient(lines):
    (line,) = lines(*selection(0, metabolism="negative"))
    assert line.startswith("selection in 1 window of 10 s: negative on metabolism in 1,")
    assert line.endswith("negative on metabolism (-0.21 ± 0.05)")


def forecast(number, **fields):
    known = {"value": 512.0, "median": 530.4, "low_95": 0.2, "high_95": 1_203.0, "limit_probability": 0.25}
    return ("forecast", number, "total_population/120000000", known | fields)


def test_the_newest_forecast_is_printed(lines):
    assert lines(forecast(0, median=1.0), forecast(1)) == (
        "forecast: population in 120 s 530, 95 % between 0 and 1,203; it dies out by then with probability 0.250",
    )


def test_a_forecast_without_a_bound_is_no_row_of_digits(lines):
    (line,) = lines(forecast(0, high_95=75_829_983_687_877_936.0))
    assert "95 % between 0 and more than 100 times as many as now;" in line


def test_a_database_without_results_says_nothing(lines):
    assert lines() == ()

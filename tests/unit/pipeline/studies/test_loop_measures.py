"""Error, overshoot and settling time, of series for which they are known."""

from __future__ import annotations

import numpy as np
import pytest

from astrocyte.pipeline.studies.loop_measures import measure_loop, smoothed

TARGET, BAND = 0.6, 0.05


def decay(size: float, time: float, seconds: int = 80) -> np.ndarray:
    """A disturbance at second 20 that decays with this time constant."""
    after = np.arange(seconds - 20)
    return TARGET + np.concatenate([np.zeros(20), size * np.exp(-after / time)])


def measured(*series: np.ndarray):
    return measure_loop(np.stack(series), target=TARGET, band=BAND, at=20, last=20, width=1)


def test_an_exponential_settles_when_theory_says():
    held = measured(decay(-0.2, 10.0), decay(0.4, 5.0))
    assert held.settling_s == pytest.approx([np.ceil(10 * np.log(4)), np.ceil(5 * np.log(8))])
    assert held.overshoot.tolist() == [0.0, 0.0]
    assert held.bias == pytest.approx([-0.2 * np.exp(-np.arange(40, 60) / 10).mean(), 0.0], abs=1e-3)
    assert held.error == pytest.approx(np.abs(held.bias))


def test_what_stays_outside_never_settles_and_what_stays_inside_does_at_once():
    held = measured(decay(-0.2, 1e9), decay(0.04, 1e9))
    assert np.isnan(held.settling_s[0])
    assert held.settling_s[1] == 0.0
    assert held.bias == pytest.approx([-0.2, 0.04])


def test_overshoot_is_on_the_other_side_than_the_disturbance():
    swing = decay(-0.2, 5.0)
    swing[40:45] += 0.1
    held = measured(swing, 2 * TARGET - swing)
    assert held.overshoot == pytest.approx([0.1, 0.1], abs=0.01)
    assert held.settling_s == pytest.approx([25.0, 25.0])


def test_smoothing_keeps_a_constant_and_averages_over_its_width():
    series = np.zeros((2, 9))
    series[1] = 1.0
    series[0, 4] = 5.0
    assert smoothed(series, 5)[0].tolist() == [0, 0, 1, 1, 1, 1, 1, 0, 0]
    assert smoothed(series, 5)[1] == pytest.approx(np.ones(9))

"""How well a loop holds a value: error, overshoot and settling time of series that follow a disturbance."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Held", "measure_loop", "smoothed"]

Numbers = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Held:
    """Of each series: arrays [series]."""

    bias: Numbers
    """Mean of value - target over the last part."""
    error: Numbers
    """Mean distance of the smoothed value from the target over the last part."""
    overshoot: Numbers
    """Furthest that the smoothed value goes beyond the target, on the other side than the disturbance took it."""
    settling_s: Numbers
    """From the disturbance until the smoothed value stays within the band; NaN where it does not."""


def smoothed(series: Numbers, width: int) -> Numbers:
    """Centred moving means [series, seconds] of an odd width; at the ends over what there is of it."""
    kernel = np.ones(width)
    count = np.convolve(np.ones(series.shape[1]), kernel, "same")
    return np.stack([np.convolve(each, kernel, "same") for each in series]) / count


def measure_loop(
    series: Numbers, *, target: float, band: float, at: int, last: int, width: int = 5, step_s: float = 1.0
) -> Held:
    """Measures of series [series, samples], one sample every ``step_s`` seconds, disturbed at sample ``at``.

    Errors are those of the last ``last`` samples. Means over ``width`` samples are judged, since single ones are noisy;
    they begin at the disturbance, so that nothing of before is in them.
    """
    after = smoothed(series[:, at:], width) - target
    end = after[:, -last:]
    outside = np.abs(after) > band
    # The first sample after the last one outside.
    settled = after.shape[1] - np.argmax(outside[:, ::-1], axis=1)
    settled = np.where(outside.any(axis=1), settled, 0)
    side = np.sign(after[:, :width].mean(axis=1, keepdims=True))
    return Held(
        bias=(series[:, -last:] - target).mean(axis=1),
        error=np.abs(end).mean(axis=1),
        overshoot=np.maximum((-side * after).max(axis=1), 0.0),
        settling_s=np.where(settled < after.shape[1], settled * step_s, np.nan),
    )

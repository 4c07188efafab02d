"""Numbers, times and intervals as the text of a report."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import MISSING, fields, is_dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from astrocyte.agents.rules.steps import format_duration

__all__ = [
    "NONE",
    "as_python",
    "clock",
    "interval",
    "joined",
    "number",
    "p_text",
    "plus_minus",
    "share",
    "span",
    "trait_name",
]

NONE = "–"
"""Stands for a value that cannot be had."""


def number(value: float | None, digits: int = 3) -> str:
    """A number with so many significant digits, a whole one with all; thousands apart. `NONE` where there is none."""
    if value is None or not math.isfinite(value):
        return NONE
    if isinstance(value, int) or (value == int(value) and abs(value) >= 10 ** (digits - 1) and abs(value) < 1e15):
        return f"{int(value):,}".replace("-", "\N{MINUS SIGN}")
    if value == 0:
        return "0"
    size = math.floor(math.log10(abs(value)))
    if size >= 15 or size < -4:
        return f"{value:.{digits - 1}e}".replace("-", "\N{MINUS SIGN}")
    text = f"{value:,.{max(digits - 1 - size, 0)}f}"
    return text.replace("-", "\N{MINUS SIGN}")


def share(value: float | None) -> str:
    """A share as a percentage."""
    return NONE if value is None else f"{100 * value:.0f} %" if abs(value) >= 0.0995 else f"{100 * value:.1f} %"


def interval(low: float | None, high: float | None, digits: int = 3) -> str:
    """An interval as ``low to high``."""
    return NONE if low is None or high is None else f"{number(low, digits)} to {number(high, digits)}"


def plus_minus(value: float | None, se: float | None) -> str:
    """A value with its 95 % interval's half width: 1.96 standard errors, to the digit of the half width's second."""
    if value is None or se is None:
        return NONE
    half = 1.959964 * se
    if half <= 0:
        return number(value)
    places = max(1 - math.floor(math.log10(half)), 0)
    if places > 6:
        return f"{number(value)} ± {number(half, 2)}"
    return f"{value:.{places}f} ± {half:.{places}f}".replace("-", "\N{MINUS SIGN}")


def p_text(p: float | None, *, least: bool = False) -> str:
    """A probability of an error of the first kind; ``least``: the smallest that could be found, so it is at most that.

    By resampling it is 1 / (resamples + 1), where none of them is as extreme.
    """
    if p is None:
        return NONE
    text = "<0.001" if p < 0.001 else f"{p:.3f}" if p < 0.1 else f"{p:.2f}"
    return text if not least or p < 0.001 else f"\N{LESS-THAN OR EQUAL TO}{text}"


def span(span_us: float) -> str:
    """A span of time: 2 s, 4.5 s, 3.2 min."""
    seconds = span_us / 1e6
    for unit, size in (("d", 86_400.0), ("h", 3_600.0), ("min", 60.0)):
        if seconds >= 2 * size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds:.3g} s" if seconds >= 0.1 else format_duration(round(span_us))


def clock(times_us: NDArray[np.int64] | Sequence[int], begin_us: int, end_us: int) -> tuple[NDArray[np.float64], str]:
    """Times since the begin of the run, in the unit of time in which its length is a handy number, and that unit."""
    length_s = (end_us - begin_us) / 1e6
    for unit, size in (("d", 86_400.0), ("h", 3_600.0), ("min", 60.0)):
        if length_s >= 4 * size:
            return (np.asarray(times_us, np.float64) - begin_us) / 1e6 / size, unit
    return (np.asarray(times_us, np.float64) - begin_us) / 1e6, "s"


def joined(names: Sequence[str]) -> str:
    """Names as a list in a sentence: ``a, b and c``."""
    return " and ".join([", ".join(names[:-1]), names[-1]]) if len(names) > 1 else "".join(names)


def trait_name(name: str) -> str:
    """A field's name for a reader: ``tpu_cores`` is ``TPU cores``."""
    words = name.split("_")
    return " ".join("TPU" if word == "tpu" else word for word in words)


def as_python(statistic: Any) -> str:
    """A statistic as the Python that makes it: its settings, without those that are as they would be anyway."""
    if not is_dataclass(statistic) or isinstance(statistic, type):
        return repr(statistic)
    own = [each for each in fields(statistic) if each.init]
    needed = {
        each.name: getattr(statistic, each.name)
        for each in own
        if each.default is MISSING and each.default_factory is MISSING
    }
    usual = type(statistic)(**needed)
    given = needed | {
        each.name: getattr(statistic, each.name)
        for each in own
        if getattr(statistic, each.name) != getattr(usual, each.name)
    }
    arguments = ", ".join(f"{name}={as_python(value)}" for name, value in given.items())
    return f"{type(statistic).__name__}({arguments})"

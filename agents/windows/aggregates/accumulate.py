"""Loops over rows that add to the state of groups, and over pairs of groups that merge them.

A group's rows are always added one by one in the given order, never pairwise or in blocks, so that a float result is
bit-identical for any division of the rows into calls. ``slots[i]`` is the group of row i; ``w`` holds the rows'
weights, or a single 1.0 with ``step`` 0. Merging adds the newer group ``other[j]`` to ``into[j]``.
"""
# ruff: noqa: D103, PLR0917  kernels take arrays one by one, for numba; the module's docstring describes them

from __future__ import annotations

from typing import Any

from astrocyte.agents.expressions.sums import accumulate
from astrocyte.agents.jit import loop

__all__ = [
    "add_count",
    "add_ewma",
    "add_first",
    "add_histogram",
    "add_last",
    "add_max",
    "add_min",
    "add_slope",
    "add_std",
    "add_sum",
    "merge_ewma",
    "merge_first",
    "merge_last",
    "merge_max",
    "merge_min",
    "merge_slope",
    "merge_std",
    "merge_sum",
]


@loop
def add_count(slots: Any, w: Any, step: int, n: Any) -> None:
    for i in range(len(slots)):
        n[slots[i]] += w[i * step]


@loop
def add_sum(slots: Any, x: Any, low: Any, low_step: int, w: Any, step: int, n: Any, total: Any, rest: Any) -> None:
    for i in range(len(slots)):
        s = slots[i]
        n[s] += w[i * step]
        total[s], rest[s] = accumulate(total[s], rest[s], x[i] * w[i * step], low[i * low_step] * w[i * step])


@loop
def merge_sum(into: Any, other: Any, n: Any, total: Any, rest: Any) -> None:
    for j in range(len(into)):
        a, b = into[j], other[j]
        n[a] += n[b]
        total[a], rest[a] = accumulate(total[a], rest[a], total[b], rest[b])


@loop
def add_std(slots: Any, x: Any, w: Any, step: int, n: Any, mean: Any, m2: Any) -> None:
    # Welford (1962), with frequency weights.
    for i in range(len(slots)):
        s = slots[i]
        n[s] += w[i * step]
        delta = x[i] - mean[s]
        mean[s] += delta * w[i * step] / n[s]
        m2[s] += w[i * step] * delta * (x[i] - mean[s])


@loop
def merge_std(into: Any, other: Any, n: Any, mean: Any, m2: Any) -> None:
    # Chan, Golub and LeVeque (1979).
    for j in range(len(into)):
        a, b = into[j], other[j]
        if n[b] == 0.0:
            continue
        total = n[a] + n[b]
        delta = mean[b] - mean[a]
        m2[a] += m2[b] + delta * delta * n[a] * n[b] / total
        mean[a] += delta * n[b] / total
        n[a] = total


@loop
def add_min(slots: Any, x: Any, low: Any, step: int, n: Any, least: Any, rest: Any) -> None:
    for i in range(len(slots)):
        s = slots[i]
        if n[s] == 0.0 or x[i] < least[s] or (x[i] == least[s] and low[i * step] < rest[s]):
            least[s] = x[i]
            rest[s] = low[i * step]
        n[s] += 1.0


@loop
def merge_min(into: Any, other: Any, n: Any, least: Any, rest: Any) -> None:
    for j in range(len(into)):
        a, b = into[j], other[j]
        if n[b] > 0.0 and (n[a] == 0.0 or least[b] < least[a] or (least[b] == least[a] and rest[b] < rest[a])):
            least[a] = least[b]
            rest[a] = rest[b]
        n[a] += n[b]


@loop
def add_max(slots: Any, x: Any, low: Any, step: int, n: Any, most: Any, rest: Any) -> None:
    for i in range(len(slots)):
        s = slots[i]
        if n[s] == 0.0 or x[i] > most[s] or (x[i] == most[s] and low[i * step] > rest[s]):
            most[s] = x[i]
            rest[s] = low[i * step]
        n[s] += 1.0


@loop
def merge_max(into: Any, other: Any, n: Any, most: Any, rest: Any) -> None:
    for j in range(len(into)):
        a, b = into[j], other[j]
        if n[b] > 0.0 and (n[a] == 0.0 or most[b] > most[a] or (most[b] == most[a] and rest[b] > rest[a])):
            most[a] = most[b]
            rest[a] = rest[b]
        n[a] += n[b]


@loop
def add_first(slots: Any, t: Any, n: Any, time: Any, winner: Any) -> None:
    """Set ``winner[slot]`` to the row whose value the group takes; the caller initialises it to -1."""
    for i in range(len(slots)):
        s = slots[i]
        if n[s] == 0.0 or t[i] < time[s]:
            time[s] = t[i]
            winner[s] = i
        n[s] += 1.0


@loop
def add_last(slots: Any, t: Any, n: Any, time: Any, winner: Any) -> None:
    """`add_first` for the last value; of rows with equal times the last one wins."""
    for i in range(len(slots)):
        s = slots[i]
        if n[s] == 0.0 or t[i] >= time[s]:
            time[s] = t[i]
            winner[s] = i
        n[s] += 1.0


@loop
def merge_first(into: Any, other: Any, n: Any, time: Any, source: Any) -> None:
    """Set ``source[j]`` to the group from which ``into[j]`` takes its value, or -1."""
    for j in range(len(into)):
        a, b = into[j], other[j]
        source[j] = -1
        if n[b] > 0.0 and (n[a] == 0.0 or time[b] < time[a]):
            time[a] = time[b]
            source[j] = b
        n[a] += n[b]


@loop
def merge_last(into: Any, other: Any, n: Any, time: Any, source: Any) -> None:
    for j in range(len(into)):
        a, b = into[j], other[j]
        source[j] = -1
        if n[b] > 0.0 and (n[a] == 0.0 or time[b] >= time[a]):
            time[a] = time[b]
            source[j] = b
        n[a] += n[b]


@loop
def add_slope(slots: Any, t: Any, x: Any, n: Any, origin: Any, mean_t: Any, mean_x: Any, ctt: Any, ctx: Any) -> None:
    # Running covariance; times are seconds since the group's first row, since float64 is precise near 0.
    for i in range(len(slots)):
        s = slots[i]
        if n[s] == 0.0:
            origin[s] = t[i]
        seconds = (t[i] - origin[s]) * 1e-6
        n[s] += 1.0
        dt = seconds - mean_t[s]
        mean_t[s] += dt / n[s]
        mean_x[s] += (x[i] - mean_x[s]) / n[s]
        ctt[s] += dt * (seconds - mean_t[s])
        ctx[s] += dt * (x[i] - mean_x[s])


@loop
def merge_slope(into: Any, other: Any, n: Any, origin: Any, mean_t: Any, mean_x: Any, ctt: Any, ctx: Any) -> None:
    for j in range(len(into)):
        a, b = into[j], other[j]
        if n[b] == 0.0:
            continue
        if n[a] == 0.0:
            origin[a] = origin[b]
        total = n[a] + n[b]
        dt = mean_t[b] + (origin[b] - origin[a]) * 1e-6 - mean_t[a]
        dx = mean_x[b] - mean_x[a]
        share = n[a] * n[b] / total
        ctt[a] += ctt[b] + dt * dt * share
        ctx[a] += ctx[b] + dt * dx * share
        mean_t[a] += dt * n[b] / total
        mean_x[a] += dx * n[b] / total
        n[a] = total


@loop
def add_ewma(slots: Any, x: Any, alpha: float, n: Any, first: Any, value: Any) -> None:
    for i in range(len(slots)):
        s = slots[i]
        if n[s] == 0.0:
            first[s] = x[i]
            value[s] = x[i]
        else:
            value[s] += alpha * (x[i] - value[s])
        n[s] += 1.0


@loop
def merge_ewma(into: Any, other: Any, alpha: float, n: Any, first: Any, value: Any) -> None:
    # The newer group started with weight 1 on its first row; this computes its value as if it followed the older one.
    for j in range(len(into)):
        a, b = into[j], other[j]
        if n[b] == 0.0:
            continue
        if n[a] == 0.0:
            first[a] = first[b]
            value[a] = value[b]
        else:
            value[a] = value[b] + (1.0 - alpha) ** n[b] * (value[a] - first[b])
        n[a] += n[b]


@loop
def add_histogram(slots: Any, x: Any, w: Any, step: int, low: float, high: float, counts: Any) -> None:
    bins = counts.shape[1]
    for i in range(len(slots)):
        place = int((min(max(x[i], low), high) - low) / (high - low) * bins)
        counts[slots[i], min(place, bins - 1)] += w[i * step]

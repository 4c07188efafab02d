"""The plots of docs/simulator.md, each from a short run: ``python docs/plots.py [scenario ...]``."""

# ruff: noqa: INP001 - a script, not a package
from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

from astrocyte.scenario import MemorySink, simulate

Rows = dict[str, list[dict[str, Any]]]
FOLDER = Path(__file__).parent / "img"
COLOURS = ("#3b6fb6", "#d1603d", "#4f9d69", "#8a63a8")


def run(scenario: str, ticks: int, **settings: Any) -> Rows:
    """Rows of every stream of a run; times become ``t``, seconds since its begin."""
    sink = MemorySink()
    simulate(scenario, settings, seed=7, ticks=ticks, sink=sink)
    rows: Rows = {}
    for frame in sink.frames:
        for row in frame.rows():
            rows.setdefault(frame.stream, []).append({**row, "t": row["timestamp"] / 1e6 - 1_735_689_600})
    return rows


def column(rows: list[dict[str, Any]], name: str) -> np.ndarray:
    """Values of one field."""
    return np.array([row[name] for row in rows])


def mark(axes: Any, rows: Rows) -> None:
    """Grey bands where something was planted."""
    for row in rows.get("truth", []):
        until = row["until"] / 1e6 - 1_735_689_600
        axes.axvspan(row["t"], max(until, row["t"] + 0.05), color="0.85", zorder=0)
        axes.annotate(row["kind"], (row["t"], 1.0), xycoords=("data", "axes fraction"), va="bottom", fontsize=8)


def axons(axes: tuple[Any, Any]) -> None:
    """Spikes of eight domains, and the pairs planted among them."""
    rows = run("axons", 1000, domains=8, rate_hz=(2, 2, 2), branching=(0, 0.3, 0.6), plant_hz=0.05)
    for number in (1, 2, 3):
        spikes = rows[f"axon_{number}"]
        domain = np.array([int(key[1:]) for key in column(spikes, "key")])
        axes[0].plot(column(spikes, "t"), domain + 0.25 * (number - 2), "|", color=COLOURS[number - 1], ms=5,
                     label=f"axon {number}")  # fmt: skip
        counts, edges = np.histogram(column(spikes, "t"), bins=50, range=(0, 10))
        axes[1].step(edges[:-1], counts / 0.2 / 8, where="post", color=COLOURS[number - 1])
    for row in rows.get("truth", []):
        axes[0].plot([row["t"], row["until"] / 1e6 - 1_735_689_600], [int(row["key"][1:])] * 2, color="k", lw=2)
    axes[0].set(ylabel="domain", title="spikes; black: planted coincidences")
    axes[1].set(ylabel="spikes a second", xlabel="s")
    axes[0].legend(fontsize=8, loc="upper right")


def cells(axes: tuple[Any, Any]) -> None:
    """Population and accuracy through a collapse."""
    plants = [{"kind": "collapse", "at_tick": 400, "strength": 0.7}]
    rows = run("cells", 800, size=4096, plants=plants)
    metrics = rows["population_metrics"]
    axes[0].plot(column(metrics, "t"), column(metrics, "total_population"), color=COLOURS[0])
    axes[1].plot(column(metrics, "t"), column(metrics, "avg_accuracy"), color=COLOURS[1])
    axes[0].set(ylabel="living cells")
    axes[1].set(ylabel="mean accuracy", xlabel="s")
    mark(axes[0], rows)


def ecology(axes: tuple[Any, Any]) -> None:
    """Agents by type and the resource of the map through a depletion."""
    plants = [{"kind": "depletion", "at_tick": 400, "ticks": 40, "strength": 0.9}]
    rows = run("ecology", 800, size=1024, plants=plants)
    steps = rows["simulation_steps"]
    for kind, colour in zip(("system", "independent", "control"), COLOURS, strict=False):
        axes[0].plot(column(steps, "t"), column(steps, f"{kind}_agents"), color=colour, label=kind)
    axes[1].plot(column(steps, "t"), column(steps, "total_resources"), color=COLOURS[3])
    axes[0].set(ylabel="agents")
    axes[0].legend(fontsize=8, loc="upper right")
    axes[1].set(ylabel="resource of the map", xlabel="s")
    mark(axes[0], rows)


def kernels(axes: tuple[Any, Any]) -> None:
    """Phi and coupling of kernels after each change, by regime."""
    plants = [{"kind": "breakdown", "at_tick": 300, "strength": 0.4}]
    rows = run("kernels", 600, size=128, plants=plants)
    geometry = rows["kernel_geometry"]
    time, regime = column(geometry, "t"), column(geometry, "regime")
    for name, colour in zip(("linear", "geometric", "breakdown"), COLOURS, strict=False):
        own = regime == name
        axes[0].plot(time[own], column(geometry, "phi")[own], ".", ms=3, color=colour, label=name)
        axes[1].plot(time[own], column(geometry, "kappa")[own], ".", ms=3, color=colour)
    axes[0].set(ylabel="phi")
    axes[0].legend(fontsize=8, loc="lower right")
    axes[1].set(ylabel="kappa", xlabel="s")
    mark(axes[0], rows)


def dna(axes: tuple[Any, Any]) -> None:
    """Karma of snapshots, and the share of scores that are elite."""
    rows = run("dna", 300)
    scores = rows["dna.karma_updated"]
    time, karma = column(scores, "t"), column(scores, "karma_score")
    axes[0].plot(time, karma, ".", ms=3, color=COLOURS[0])
    axes[0].axhline(0.85, color="0.5", lw=1, ls="--")
    axes[0].set(ylabel="karma", title="scores; dashed: the elite pool begins")
    kinds = [(name, rows[f"dna.{name}"]) for name in ("mutation_applied", "snapshot_created")]
    for (name, events), colour in zip(kinds, COLOURS[1:], strict=False):
        axes[1].hist(column(events, "t"), bins=60, range=(0, 30), histtype="step", color=colour, label=name)
    axes[1].set(ylabel="events in 0.5 s", xlabel="s")
    axes[1].legend(fontsize=8)


PLOTS: tuple[Callable[[tuple[Any, Any]], None], ...] = (axons, cells, ecology, kernels, dna)


def main(names: list[str]) -> None:
    """Draw the named plots, or all."""
    FOLDER.mkdir(exist_ok=True)
    for plot in PLOTS:
        if names and plot.__name__ not in names:
            continue
        figure, axes = plt.subplots(2, 1, figsize=(7, 4.2), sharex=True, layout="constrained")
        plot(axes)
        for each in axes:
            each.spines[["top", "right"]].set_visible(False)
        figure.savefig(FOLDER / f"simulator_{plot.__name__}.png", dpi=100)
        plt.close(figure)


if __name__ == "__main__":
    main(sys.argv[1:])

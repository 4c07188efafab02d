"""What a batch of cells' worlds is observed by, and founders whose traits are given (`simulator.batch`)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
from jax import Array

from astrocyte.simulator.scenarios.cells.config import ENERGY_UNIT, INPUTS, PROBLEMS, ROW, TRAITS

__all__ = ["cells_founders", "cells_observed"]


def cells_founders(state: dict[str, Any], values: Mapping[str, Array]) -> dict[str, Any]:
    """Founders that all have the given value of a trait; NaN leaves the trait as it was drawn.

    ``values`` names every trait of `TRAITS`. A founder keeps its share of the mass at which it divides.
    """
    cells = state["cells"]
    genome = cells["genome"]
    share = cells["mass"] / genome[ROW["division_size"]]
    for trait, row in ROW.items():
        genome = genome.at[row].set(jnp.where(jnp.isnan(values[trait]), genome[row], values[trait]))
    return {**state, "cells": {**cells, "genome": genome, "mass": share * genome[ROW["division_size"]]}}


def cells_observed(params: Mapping[str, Any], state: dict[str, Any], totals: Mapping[str, Array]) -> dict[str, Array]:
    """Population, rates and means over the living; means are 0 where none lives.

    ``accuracy`` is the mean of all attempts of the interval; ``births`` and ``deaths`` are counts in it. ``log_trait``
    and ``log_variance`` are mean and variance of the traits' natural logarithms, [traits] in the order of `TRAITS`;
    ``weights`` the mean weights; ``error`` the root mean square distance of the mean cell's weights from those that
    solve each problem exactly, [problems]; ``own_error`` that of the single cells, averaged; ``power`` is efficiency
    times the root of cores and memory.
    """
    cells = state["cells"]
    alive, genome = cells["alive"], cells["genome"]
    population = jnp.sum(alive, dtype=jnp.int32)
    living = jnp.maximum(population, 1).astype(jnp.float32)

    def mean(values: Array) -> Array:
        return jnp.sum(jnp.where(alive, values, 0.0), axis=-1) / living

    logs = jnp.log(genome[: len(TRAITS)])
    log_trait = mean(logs)
    weights = mean(genome[len(TRAITS) :])
    target = params["targets"]
    off = genome[len(TRAITS) :].reshape(len(PROBLEMS), INPUTS, -1) - target[:, :, None]
    power = genome[ROW["tpu_efficiency"]] * jnp.sqrt(genome[ROW["tpu_cores"]] * genome[ROW["tpu_memory"]])
    return {
        "population": population,
        "births": totals["births"],
        "deaths": totals["deaths"],
        "accuracy": totals["accuracy"] / (65_536.0 * jnp.maximum(totals["attempts"], 1.0)),
        "energy": mean(cells["energy"].astype(jnp.float32)) / ENERGY_UNIT,
        "generation": mean(cells["generation"].astype(jnp.float32)),
        "log_trait": log_trait,
        "log_variance": mean((logs - log_trait[:, None]) ** 2),
        "weights": weights,
        "error": jnp.sqrt(jnp.mean((weights.reshape(target.shape) - target) ** 2, axis=1)),
        "own_error": jnp.mean(jnp.sqrt(mean(jnp.mean(off * off, axis=1)))),
        "power": mean(power),
    }

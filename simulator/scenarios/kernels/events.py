"""Events of kernels: the geometry of a kernel after each change, and wars."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import jax.numpy as jnp
import orjson
from jax import Array

from astrocyte.simulator.context import Context
from astrocyte.simulator.event_spec import Column, EventSpec, born_in
from astrocyte.simulator.population import Population
from astrocyte.simulator.scenarios.kernels.config import (
    BASIN,
    DOMAINS,
    ELEMENTS,
    GODS,
    MODES,
    NICHES,
    OUTCOMES,
    REGIMES,
    TARGETS,
    KernelsStatic,
)

__all__ = ["geometry", "kernel_events", "regime_of"]

_KINDS = ("spawned", "bred", "updated", "merged", "retired")
"""In the order of a kernel's events of one tick in the stream."""


def _parents(values: Mapping[str, Any]) -> list[str]:
    pairs = zip(values["mother"].tolist(), values["father"].tolist(), strict=True)
    return [orjson.dumps([str(parent) for parent in pair if parent >= 0]).decode() for pair in pairs]


def _spawned_at(tick_us: int, values: Mapping[str, Any]) -> Any:
    return values["timestamp"] - (values["tick"] - born_in(values["kernel_id"])) * tick_us


def kernel_events(static: KernelsStatic) -> tuple[EventSpec, ...]:
    """Kinds of events of kernels; none is sampled."""
    whole = (
        Column("kernel_id", "id"),
        Column("mother", "id"),
        Column("father", "id"),
        Column("god_name", "enum", GODS),
        Column("domain", "enum", DOMAINS),
        Column("primitive_root", dtype="int32"),
        Column("basin_coordinates", "list", width=BASIN),
        Column("parent_kernels", "derived", derive=_parents),
        Column("phi"),
        Column("kappa"),
        Column("regime", "enum", REGIMES),
        *(Column(name, dtype="int32") for name in ("generation", "success_count", "failure_count", "training_steps")),
        Column("element_group", "enum", ELEMENTS),
        Column("ecological_niche", "enum", NICHES),
        Column("target_function", "enum", TARGETS),
        Column("valence", dtype="int32"),
        Column("breeding_target", "enum", ELEMENTS),
        Column("spawned_at", "derived", derive=partial(_spawned_at, static.tick_us)),
    )
    war = (
        Column("war_id", "id"),
        Column("mode", "enum", MODES),
        Column("attacker_id", "id"),
        Column("defender_id", "id"),
        Column("winner_id", "id"),
        Column("attacker_phi"),
        Column("defender_phi"),
        Column("phi_delta"),
        Column("rounds", dtype="int32"),
        Column("outcome", "enum", OUTCOMES),
    )
    few = static.few
    rows = {"spawned": static.slots, "updated": max(static.slots // 4 // 32 * 32, few)}
    return (
        *(EventSpec(kind, "kernel_geometry", whole, kind, key="run", capacity=rows.get(kind, few)) for kind in _KINDS),
        EventSpec("war", "war_history", war, "war", key="run", capacity=few),
    )


def regime_of(kappa: Array) -> Array:
    """Number of the regime of a coupling; int32."""
    return (kappa >= 40.0).astype(jnp.int32) + (kappa >= 80.0).astype(jnp.int32)


def geometry(
    ctx: Context, params: Mapping[str, Any], kernels: Population, slots: Array | None = None
) -> dict[str, Any]:
    """Columns of kernel_geometry from rows of kernels."""
    root = kernels["root"]
    return {
        "kernel_id": (kernels["birth_tick"], ctx.place(slots)),
        "mother": (kernels["mother_tick"], kernels["mother"]),
        "father": (kernels["father_tick"], kernels["father"]),
        "god_name": root % len(GODS),
        "domain": root // len(GODS) % len(DOMAINS),
        "primitive_root": root,
        "basin_coordinates": kernels["basin"],
        "phi": kernels["phi"],
        "kappa": kernels["kappa"],
        "regime": regime_of(kernels["kappa"]),
        "generation": kernels["generation"],
        "success_count": kernels["success"],
        "failure_count": kernels["failure"],
        "training_steps": kernels["trained"],
        "element_group": params["element"][root],
        "ecological_niche": (kernels["success"] - kernels["failure"]) % len(NICHES),
        "target_function": params["target"][root],
        "valence": 1 + params["element"][root] % 4,
        "breeding_target": kernels["wanted"],
    }

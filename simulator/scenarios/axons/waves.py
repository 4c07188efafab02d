"""Waves: coincidences of one strength that pass from domain to domain, as no rule over one domain can see.

A wave reaches ``wave_domains`` neighbouring domains, each ``wave_delay_us`` after the one before. In each it is a spike
of type A on axon 1 and, up to a millisecond later, one of type B on axon 2, both of the wave's strength: a whole number
from 100 to 999. As often a single such coincidence comes that goes no further, as a decoy. The truth has the waves, by
their strength, from the first coincidence to the last.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final, Protocol

import jax.numpy as jnp
import numpy as np
from jax import Array

from astrocyte.schemas.event_types.axons import AXON_TYPES
from astrocyte.schemas.topics import TRUTH
from astrocyte.simulator.context import Context
from astrocyte.simulator.event_spec import Column, EventSpec, HostRow
from astrocyte.simulator.scenario import Interval

__all__ = ["WaveSettings", "wave_events", "wave_params", "wave_start", "wave_step", "wave_truth"]

_IDLE: Final = -1
_LEAST, _STRENGTHS = 100, 900
_KINDS: Final = ("wave_1", "wave_2")


class WaveSettings(Protocol):
    """What of the settings of the world concerns waves."""

    tick_us: int
    epoch_us: int
    wave_hz: float
    wave_domains: int
    wave_delay_us: int


def wave_params(config: WaveSettings) -> Mapping[str, Any]:
    """The chance of a start in a domain and tick, of waves and decoys together, and how far and fast waves go."""
    return {
        "wave": np.float32(-np.expm1(-2.0 * config.wave_hz * config.tick_us * 1e-6)),
        "wave_domains": np.int32(config.wave_domains),
        "wave_delay": np.int32(config.wave_delay_us),
    }


def wave_events(capacity: int) -> tuple[EventSpec, ...]:
    """A kind for each of the two axons."""
    columns = (
        Column("value"),
        Column("domain", "hidden", dtype="int32"),
        Column("first", "hidden", dtype="bool"),
        Column("spike_type", "enum", AXON_TYPES),
    )
    return tuple(
        EventSpec(kind, f"axon_{number}", columns, "spike_type", "domain", "d{:05d}", capacity, timed=True)
        for number, kind in enumerate(_KINDS, 1)
    )


def wave_start(domains: int) -> dict[str, Array]:
    """No wave anywhere. ``wave_left`` counts the domains that a wave that is due still reaches, itself included."""
    return {
        "wave_due_us": jnp.full(domains, _IDLE, jnp.int32),
        "wave_left": jnp.zeros(domains, jnp.int32),
        "wave_first": jnp.zeros(domains, bool),
        "wave_value": jnp.zeros(domains, jnp.float32),
    }


def wave_step(params: Mapping[str, Array], state: Mapping[str, Array], ctx: Context, domain: Array, last: Array,
              tick_us: int) -> tuple[dict[str, Array], Array]:  # fmt: skip
    """One tick: start waves and decoys, emit the coincidences that are due and pass waves on.

    ``domain`` numbers the domains of the island, of which each is below ``last``. Returns the state of waves and the
    number of spikes.
    """
    luck, time = ctx.uniforms("wave")
    strength, kind = ctx.uniforms("wave strength")
    gap = ctx.uniforms("wave gap")[0]
    reach = jnp.where(kind < 0.5, params["wave_domains"], 1)
    free = state["wave_due_us"] < 0
    starts = free & (luck < params["wave"]) & (domain < last) & (_fits(domain, reach, last))
    due_us = jnp.where(starts, (time * tick_us).astype(jnp.int32), state["wave_due_us"])
    left = jnp.where(starts, reach, state["wave_left"])
    first = jnp.where(starts, reach > 1, state["wave_first"])
    value = jnp.where(starts, _LEAST + jnp.floor(strength * _STRENGTHS), state["wave_value"])
    due = (due_us >= 0) & (due_us < tick_us)
    answer_us = jnp.minimum(due_us + 1 + (gap * 1000.0).astype(jnp.int32), tick_us - 1)
    for number, (name, at) in enumerate(zip(_KINDS, (due_us, answer_us), strict=True)):
        ctx.emit(name, due, at=at, value=value, domain=domain, first=first, spike_type=jnp.full_like(domain, number))
    goes_on = due & (left > 1)
    comes = jnp.roll(goes_on, 1)
    moved = {
        "wave_due_us": jnp.roll(due_us + params["wave_delay"], 1) - tick_us,
        "wave_left": jnp.roll(left - 1, 1),
        "wave_first": jnp.zeros_like(first),
        "wave_value": jnp.roll(value, 1),
    }
    stays = {
        "wave_due_us": jnp.where(due | (due_us < 0), _IDLE, due_us - tick_us),
        "wave_left": left,
        "wave_first": first,
        "wave_value": value,
    }
    return {name: jnp.where(comes, moved[name], stays[name]) for name in stays}, 2 * jnp.sum(due, dtype=jnp.int32)


def _fits(domain: Array, reach: Array, last: Array) -> Array:
    """Whether a wave that starts in a domain ends within the island."""
    island = domain - domain[0]
    return (island + reach <= domain.shape[0]) & (domain + reach <= last)


def wave_truth(config: WaveSettings, interval: Interval) -> Iterator[HostRow]:
    """A row for each wave whose first coincidence is in the interval, up to the time of the last one."""
    rows = interval.rows[_KINDS[0]]
    length_us = (config.wave_domains - 1) * config.wave_delay_us
    for row in np.flatnonzero(rows.columns["first"]).tolist():
        time_us = int(rows.timestamps[row])
        values = {"kind": "wave", "rule": "wave_over_domains", "until": time_us + length_us, "members": None}
        tick = (time_us - config.epoch_us) // config.tick_us
        key = str(int(rows.columns["value"][row]))
        yield HostRow(TRUTH, tick, "planted", values, key=key, timestamp_us=time_us)

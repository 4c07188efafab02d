"""Axons: spike trains of types A, B, C on three axons that reach many domains, with planted coincidences.

Each (axon, domain) is a Hawkes process with an exponential kernel, of which Poisson is the case without excitation::

    rate(t) = base + x(t),   x(t + dt) = x(t) * exp(-decay dt) + jump * spikes in [t, t + dt)

The rate is constant within a tick and spikes have their own microsecond in it: arrivals at rate r are sums of gaps
-ln(u)/r. ``jump`` is chosen so that a spike causes ``branching`` others on average in discrete time too, so that the
mean rate is base / (1 - branching) exactly (Hawkes 1971).

A planted coincidence is a spike of type A on axon 1 and one of type B on axon 2 in one domain, in either order, less
than ``plant_within_us`` apart, of high and nearly equal values. The ``truth`` stream says which rows they are. Waves
over several domains (``wave_hz``) are in `simulator.scenarios.axons.waves`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array
from pydantic import Field, model_validator

from astrocyte.schemas.event_types.axons import AXON_TYPES
from astrocyte.schemas.topics import TRUTH
from astrocyte.simulator.config import ScenarioConfig
from astrocyte.simulator.context import Context
from astrocyte.simulator.event_spec import Column, EventSpec, HostRow
from astrocyte.simulator.population import compact
from astrocyte.simulator.scenario import Interval, Scenario
from astrocyte.simulator.scenarios.axons.waves import wave_events, wave_params, wave_start, wave_step, wave_truth

__all__ = ["AXONS", "Axons", "AxonsConfig", "AxonsStatic"]

AXON_COUNT = 3
ISLAND_DOMAINS = 8192
_IDLE = -1

Triple = tuple[float, float, float]


class AxonsConfig(ScenarioConfig):
    """Settings of the axons scenario; triples are for axons 1, 2 and 3."""

    domains: int = Field(default=256, ge=1, le=4_000_000, description="domains, the keys of the events")
    rate_hz: Triple = Field(default=(0.4, 0.4, 0.4), description="base rate of spikes per domain, 0 to 10,000 each")
    branching: Triple = Field(
        default=(0.0, 0.3, 0.5), description="mean spikes caused by one; 0 is Poisson; at most 0.95"
    )
    decay_hz: Triple = Field(default=(5.0, 5.0, 5.0), description="decay rate of the excitation, 0.001 to 10,000 each")
    own_type: float = Field(default=0.9, ge=0.0, le=1.0, description="share of an axon's spikes that have its own type")
    plant_hz: float = Field(default=0.01, ge=0.0, le=100.0, description="rate of planted coincidences per domain")
    plant_within_us: int = Field(default=1_500_000, ge=1, le=1_000_000_000, description="largest gap of planted pairs")

    wave_hz: float = Field(default=0.0, ge=0.0, le=100.0, description="rate of waves that start in a domain")
    wave_domains: int = Field(default=4, ge=2, le=64, description="domains that a wave reaches, one after the other")
    wave_delay_us: int = Field(default=300_000, ge=1, le=1_000_000_000, description="time of a wave to the next domain")

    @model_validator(mode="after")
    def _in_range(self) -> AxonsConfig:
        for name, low, high in (("rate_hz", 0.0, 1e4), ("branching", 0.0, 0.95), ("decay_hz", 1e-3, 1e4)):
            for number, value in enumerate(getattr(self, name), 1):
                if not low <= value <= high:
                    raise ValueError(
                        f"{name} of axon {number}: expected a number from {low:g} to {high:g}, got {value}"
                    )
        if self.wave_hz and self.wave_delay_us < self.tick_us:
            raise ValueError(f"wave_delay_us: expected at least a tick, {self.tick_us}, got {self.wave_delay_us}")
        return self


@dataclass(frozen=True)
class AxonsStatic:
    """Shapes: domains of one island, and of all."""

    island_domains: int
    domains: int
    tick_us: int
    waves: bool = False


class Axons(Scenario):
    """Spike trains on three axons, keyed by domain."""

    name: ClassVar[str] = "axons"
    Config: ClassVar[type[ScenarioConfig]] = AxonsConfig
    size_setting: ClassVar[str | None] = "domains"
    sample: ClassVar[Mapping[str, Any]] = {"domains": 96, "plant_hz": 0.5, "rate_hz": (5.0, 5.0, 5.0)}
    int_metrics: ClassVar[tuple[str, ...]] = ("spikes", "planted")
    quiet: ClassVar[Mapping[str, Any]] = {"plant_hz": 0.0}

    def static(self, config: AxonsConfig) -> AxonsStatic:
        """Islands are equal blocks of domains; the last may be partly empty."""
        block = -(-config.domains // self.islands(config))
        return AxonsStatic(-(-block // 32) * 32, config.domains, config.tick_us, config.wave_hz > 0)

    def islands(self, config: AxonsConfig) -> int:
        """One for every 8,192 domains."""
        return -(-config.domains // ISLAND_DOMAINS)

    def slots(self, static: AxonsStatic) -> int:
        """A slot is a domain."""
        return static.island_domains

    def params(self, config: AxonsConfig) -> Mapping[str, Any]:
        """Rates per microsecond; ``keep`` is the share of excitation after a tick, ``jump`` its gain per spike."""
        dt_s = config.tick_us * 1e-6
        keep = np.exp(-np.array(config.decay_hz) * dt_s)
        jump_hz = np.array(config.branching) * (1.0 - keep) / dt_s
        waves = wave_params(config) if config.wave_hz else {}
        return {
            **waves,
            "base": np.float32(np.array(config.rate_hz) * 1e-6),
            "jump": np.float32(jump_hz * 1e-6),
            "keep": np.float32(keep),
            "own_type": np.float32(config.own_type),
            "plant": np.float32(-np.expm1(-config.plant_hz * dt_s)),
            "plant_within": np.float32(config.plant_within_us),
        }

    def capacities(self, static: AxonsStatic) -> Mapping[str, int]:
        """``layers``: spikes of one (axon, domain) in a tick; ``active``: number of (axon, domain) with spikes."""
        return {"layers": 4, "active": max(static.island_domains // 8, 64)}

    def largest(self, static: AxonsStatic) -> Mapping[str, int]:
        """All (axon, domain) active, each with several times the usual number of spikes."""
        most = AXON_COUNT * static.island_domains
        found = {"layers": 16, "active": most} | {f"axon_{number}": most for number in range(1, AXON_COUNT + 1)}
        return found | {spec.kind: static.island_domains for spec in self.events(static)[AXON_COUNT:]}

    def events(self, static: AxonsStatic) -> tuple[EventSpec, ...]:
        """One kind per axon."""
        columns = (
            Column("value"),
            Column("domain", "hidden", dtype="int32"),
            Column("planted", "hidden", dtype="bool"),
            Column("spike_type", "enum", AXON_TYPES),
        )
        return tuple(
            EventSpec(
                kind=f"axon_{number}",
                stream=f"axon_{number}",
                columns=columns,
                type="spike_type",
                key="domain",
                key_format="d{:05d}",
                capacity=max(static.island_domains // 8, 64),
                timed=True,
            )
            for number in range(1, AXON_COUNT + 1)
        ) + (wave_events(64) if static.waves else ())

    def init(self, static: AxonsStatic, params: Mapping[str, Array], ctx: Context) -> dict[str, Any]:
        """No excitation, nothing planted. Rows of ``excitation`` are axons."""
        n = static.island_domains
        return {
            "excitation": jnp.zeros((AXON_COUNT, n), jnp.float32),
            "due_us": jnp.full(n, _IDLE, jnp.int32),
            "due_axon": jnp.zeros(n, jnp.int32),
            "due_value": jnp.zeros(n, jnp.float32),
            **(wave_start(n) if static.waves else {}),
        }

    def step(
        self, static: AxonsStatic, params: Mapping[str, Array], state: dict[str, Any], ctx: Context
    ) -> dict[str, Any]:
        """One tick: plant, draw spikes, excite."""
        domain = ctx.place().astype(jnp.int32)
        exists = domain < static.domains
        state, planted = _plant(static, params, state, ctx, exists)
        rate = jnp.where(exists, params["base"][:, None] + state["excitation"], 0.0)
        spikes = _arrivals(static, ctx, rate.ravel())
        value, code = _marks(params, ctx, spikes)
        excitation = state["excitation"] * params["keep"][:, None] + params["jump"][:, None] * spikes.counts
        layers, rows = spikes.fired.shape
        for axon in range(AXON_COUNT):
            own = planted[axon]
            of_axon = spikes.fired & (spikes.lane // static.island_domains == axon)
            tail = len(own) * static.island_domains
            ctx.emit(
                f"axon_{axon + 1}",
                jnp.concatenate([of_axon.ravel(), *(mask for mask, _, _ in own)]),
                at=jnp.concatenate([spikes.at.ravel(), *(time for _, time, _ in own)]),
                value=jnp.concatenate([value.ravel(), *(value for _, _, value in own)]),
                domain=jnp.concatenate(
                    [jnp.tile(domain[spikes.lane % static.island_domains], layers), jnp.tile(domain, len(own))]
                ),
                planted=jnp.arange(layers * rows + tail) >= layers * rows,
                spike_type=jnp.concatenate([code.ravel(), jnp.full(tail, axon, jnp.int32)]),
            )
        extra = sum(jnp.sum(mask, dtype=jnp.int32) for own in planted for mask, _, _ in own)
        if static.waves:
            waves, spread = wave_step(params, state, ctx, domain, jnp.int32(static.domains), static.tick_us)
            state, extra = {**state, **waves}, extra + spread
        ctx.metric("spikes", jnp.sum(spikes.fired, dtype=jnp.int32) + extra)
        return {**state, "excitation": excitation}

    def report_streams(self, config: AxonsConfig) -> tuple[str, ...]:
        """Planted coincidences go to the truth stream."""
        return (TRUTH,)

    def report(self, config: AxonsConfig, interval: Interval, memory: dict[str, Any]) -> Iterator[HostRow]:
        """The truth: each planted pair, with the time of its second spike, and each wave, in order."""
        found = []
        for number in range(1, AXON_COUNT + 1):
            rows = interval.rows[f"axon_{number}"]
            chosen = np.flatnonzero(rows.columns["planted"])
            for row in chosen.tolist():
                domain = int(rows.columns["domain"][row])
                found.append((int(rows.timestamps[row]), domain, f"axon_{number}", int(rows.sequences[row])))
        pending: dict[str, Any] = memory.setdefault("pending", {})
        rows_of_truth: list[HostRow] = []
        for time_us, domain, stream, sequence in sorted(found):
            key = f"d{domain:05d}"
            first = pending.pop(key, None)
            if first is None:
                pending[key] = [stream, sequence]
                continue
            values = {
                "kind": "coincidence",
                "rule": "strong_A_and_B_within_2s",
                "until": time_us,
                "members": json.dumps([first, [stream, sequence]]),
            }
            tick = (time_us - config.epoch_us) // config.tick_us
            rows_of_truth.append(HostRow(TRUTH, tick, "planted", values, key=key, timestamp_us=time_us))
        if config.wave_hz:
            rows_of_truth += wave_truth(config, interval)
        yield from sorted(rows_of_truth, key=lambda row: row.timestamp_us or 0)

    def violations(self, config: AxonsConfig, state: Any, interval: Interval) -> Iterator[str]:
        """Excitation is never negative and a planted spike is never overdue."""
        for axon, excitation in enumerate(state["excitation"], 1):
            if not (np.isfinite(excitation).all() and (excitation >= 0).all()):
                yield f"axon {axon} has an excitation that is negative or not finite"
        if (state["due_us"] < _IDLE).any():
            yield "a planted spike is overdue"
        if interval.metrics["spikes"].sum() != sum(len(rows.ticks) for rows in interval.rows.values()):
            yield "emitted rows and counted spikes differ"


Extra = list[tuple[Array, Array, Array]]


class Spikes(NamedTuple):
    """Background spikes of a tick: one row per (axon, domain) that has any; layers are its first, second, ... spike."""

    fired: Array
    """bool[layers, rows]"""
    at: Array
    """Time within the tick in microseconds; int32[layers, rows]."""
    lane: Array
    """axon * domains + domain of each row; int32[rows]."""
    counts: Array
    """Spikes of each axon and domain; float32[axons, domains]."""


def _arrivals(static: AxonsStatic, ctx: Context, rate: Array) -> Spikes:
    """Arrivals within the tick at a rate per microsecond and lane: sums of exponential gaps that are below its length.

    Most lanes have none, so the first gap is drawn for all lanes, the others only for rows with an arrival.
    """
    layers, rows = ctx.capacity("layers"), ctx.capacity("active")
    lanes = jnp.arange(rate.shape[0], dtype=jnp.uint32)
    words = ctx.uniforms("gap", lanes)
    first = -jnp.log(words[0]) / jnp.maximum(rate, 1e-30)
    lane, active = ctx.stored(lambda mask: compact(mask, rows), first < static.tick_us)
    ctx.need("active", active)
    draws = jnp.arange(1, layers // 2 + 1, dtype=jnp.uint32)[:, None]
    more = jnp.stack(ctx.uniforms("gap", lanes[lane], draws), axis=1).reshape(-1, rows)
    gaps = -jnp.log(jnp.concatenate([words[1][lane][None], more])) / jnp.maximum(rate[lane], 1e-30)
    elapsed = [jnp.where(jnp.arange(rows) < active, first[lane], jnp.float32(jnp.inf))]
    for layer in range(layers - 1):
        elapsed.append(elapsed[-1] + gaps[layer])
    times = jnp.stack(elapsed)
    fired = times < static.tick_us
    # If the last layer is used, there might be another spike: request more layers, and the chunk is run again.
    used = jnp.sum(jnp.any(fired, axis=1), dtype=jnp.int32)
    ctx.need("layers", used + (used == layers))
    target = jnp.where(jnp.arange(rows) < active, lane, rate.shape[0])
    counts = jnp.zeros_like(rate).at[target].set(jnp.sum(fired, axis=0, dtype=jnp.float32), mode="drop")
    at = jnp.minimum(times, static.tick_us - 1).astype(jnp.int32)
    return Spikes(fired, at, lane, counts.reshape(AXON_COUNT, -1))


def _marks(params: Mapping[str, Array], ctx: Context, spikes: Spikes) -> tuple[Array, Array]:
    """Value (whole numbers 1 to 20, small ones more often) and type of each background spike."""
    layers = spikes.fired.shape[0]
    draws = jnp.arange(layers, dtype=jnp.uint32)[:, None]
    first, second = ctx.uniforms("mark", spikes.lane.astype(jnp.uint32), draws)
    value = 1.0 + jnp.floor(20.0 * first * first)
    other = (second - params["own_type"]) / jnp.maximum(1.0 - params["own_type"], 1e-6)
    shift = jnp.where(second < params["own_type"], 0, jnp.where(other < 0.5, 1, 2))
    axon = spikes.lane // spikes.counts.shape[1]
    return value, (axon + shift) % AXON_COUNT


def _plant(
    static: AxonsStatic, params: Mapping[str, Array], state: dict[str, Any], ctx: Context, exists: Array
) -> tuple[dict[str, Any], tuple[Extra, Extra, Extra]]:
    """Start coincidences and emit the spikes that are due; returns the state and the planted spikes of each axon."""
    first, second = ctx.uniforms("plant", ctx.lanes(), jnp.arange(3, dtype=jnp.uint32)[:, None])
    start_luck, gap_luck, value_luck = first
    time_luck, order_luck, partner_luck = second
    starts = exists & (state["due_us"] < 0) & (start_luck < params["plant"])
    first_us = (time_luck * static.tick_us).astype(jnp.int32)
    gap_us = (gap_luck * params["plant_within"]).astype(jnp.int32)
    first_axon = (order_luck < 0.5).astype(jnp.int32)
    value = 22.0 + jnp.floor(9.0 * value_luck)
    due_us = jnp.where(starts, first_us + gap_us, state["due_us"])
    due_axon = jnp.where(starts, 1 - first_axon, state["due_axon"])
    due_value = jnp.where(starts, value + jnp.floor(3.0 * partner_luck) - 1.0, state["due_value"])
    due = (due_us >= 0) & (due_us < static.tick_us)
    ctx.metric("planted", jnp.sum(starts, dtype=jnp.int32))
    planted: tuple[Extra, Extra, Extra] = ([], [], [])
    for axon in (0, 1):
        planted[axon].append((starts & (first_axon == axon), first_us, value))
        planted[axon].append((due & (due_axon == axon), due_us, due_value))
    left_us = jnp.where(due_us < 0, _IDLE, jnp.where(due, _IDLE, due_us - static.tick_us))
    return {**state, "due_us": left_us, "due_axon": due_axon, "due_value": due_value}, planted


AXONS = Axons()

"""The map of the ecology: tiles with a growing resource, occupants of tiles, and the order of predator and prey."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import jax.numpy as jnp
from jax import Array

from astrocyte.simulator.population import winners

__all__ = ["grow", "neighbours", "occupant", "partners", "prey_first", "take_from"]

Prey = TypeVar("Prey")
Predators = TypeVar("Predators")


def prey_first(
    prey: Prey,
    predators: Predators,
    *,
    grow: Callable[[Prey], Prey],
    catch: Callable[[Prey, Predators], tuple[Prey, Any]],
    live: Callable[[Predators, Any], Predators],
) -> tuple[Prey, Predators]:
    """One step of predator and prey: the prey grows and is caught, then the predators live on their catch.

    Each substep uses the result of the one before; predators die after eating. Then Lotka-Volterra cycles keep their
    amplitude; with all rates taken from the old numbers, every cycle would be larger than the one before.
    """
    prey = grow(prey)
    prey, caught = catch(prey, predators)
    return prey, live(predators, caught)


def grow(amount: Array, growth: Array, regrowth: Array, capacity: Array) -> Array:
    """Logistic growth in fixed point: ``(growth * amount + regrowth * capacity) * (1 - amount / capacity)``; int32."""
    free = 1.0 - amount.astype(jnp.float32) / capacity
    gain = jnp.floor((growth * amount + regrowth * capacity) * jnp.maximum(free, 0.0) + 0.5)
    return jnp.minimum(amount + gain.astype(jnp.int32), jnp.maximum(amount, capacity))


def take_from(amount: Array, tile: Array, winner: Array, most: Array) -> tuple[Array, Array]:
    """What each slot gets from its tile, and the new amounts; ``winner`` is the slot that takes from each tile, or -1.

    Indexed by tile, so that the amounts are updated without a scatter.
    """
    eaten = jnp.where(winner >= 0, jnp.minimum(amount, most), 0)
    takes = winner[tile] == jnp.arange(tile.shape[0], dtype=jnp.int32)
    return jnp.where(takes, eaten[tile], 0), amount - eaten


def partners(tile: Array, luck: Array, alive: Array, social: Array, tiles: int) -> Array:
    """Pairs of agents: on each tile one ``social`` agent and another living agent, drawn uniformly. int32[slots].

    Holds the slot of the partner for both of them, -1 for all others: a matching, so that effects of one on the other
    need no scatter. ``luck`` is a random word per slot.
    """
    group = jnp.where(social, tiles, 0)
    table = winners(tile + group, luck, alive, 2 * tiles)
    wins = table[tile + group] == jnp.arange(tile.shape[0], dtype=jnp.int32)
    return jnp.where(wins & alive, table[tile + tiles - group], -1)


def occupant(tile: Array, chosen: Array, tiles: int) -> Array:
    """The slot of the ``chosen`` agent on each tile (at most one), -1 where there is none; int32[tiles]."""
    slots = jnp.arange(tile.shape[0], dtype=jnp.int32)
    return jnp.full(tiles, -1, jnp.int32).at[jnp.where(chosen, tile, tiles)].set(slots, mode="drop")


def neighbours(tile: Array, side: int) -> tuple[Array, Array, Array, Array]:
    """The tiles to the east, west, south and north; the map's edges are joined."""
    x, y = tile % side, tile // side
    return (
        y * side + jnp.where(x == side - 1, 0, x + 1),
        y * side + jnp.where(x == 0, side - 1, x - 1),
        jnp.where(y == side - 1, 0, y + 1) * side + x,
        jnp.where(y == 0, side - 1, y - 1) * side + x,
    )

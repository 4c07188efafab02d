"""The map of the ecology: tiles with a growing resource, who is where, and the order of eater and eaten."""

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
    """One step of eater and eaten: the prey grows and is caught, then the predators live on what they caught.

    Each acts on what the one before left, deaths of predators among those who have eaten. Then the cycles of Lotka and
    Volterra keep their amplitude; were all rates taken from the old numbers, every cycle would exceed the one before.
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
    """What each slot gets from its tile, and the tiles after; ``winner`` is the slot that takes from each tile, or -1.

    The tiles are changed without a scatter: each knows whether somebody takes from it.
    """
    eaten = jnp.where(winner >= 0, jnp.minimum(amount, most), 0)
    takes = winner[tile] == jnp.arange(tile.shape[0], dtype=jnp.int32)
    return jnp.where(takes, eaten[tile], 0), amount - eaten


def partners(tile: Array, luck: Array, alive: Array, social: Array, tiles: int) -> Array:
    """Who meets whom: on each tile one who is ``social`` and one living other, each drawn fairly. int32[slots].

    Slot of the other one for both of them, -1 for all the rest: a matching, so what one does to the other needs no
    scatter. ``luck`` is a random word a slot.
    """
    group = jnp.where(social, tiles, 0)
    table = winners(tile + group, luck, alive, 2 * tiles)
    wins = table[tile + group] == jnp.arange(tile.shape[0], dtype=jnp.int32)
    return jnp.where(wins & alive, table[tile + tiles - group], -1)


def occupant(tile: Array, chosen: Array, tiles: int) -> Array:
    """The slot of the one ``chosen`` on each tile, -1 where there is none; int32[tiles]."""
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

"""``ctx``: random numbers, events, births and metrics for a scenario's step, inside the JAX trace."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from copy import copy
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from astrocyte.schemas.errors import PluginError
from astrocyte.schemas.registry import did_you_mean
from astrocyte.simulator.event_spec import EventSpec
from astrocyte.simulator.population import Population, Sum, claim, compact, exact_sum, put, take
from astrocyte.simulator.rng import byte_normal, purpose_word, threefry2x32, tick_key, unit

__all__ = ["NO_PLACE", "Births", "Context", "Outputs"]

NO_PLACE = 0xFFFFFFFF
"""Place that means "no individual": an id with this place is null on the host."""

# Per-tick scalars are padded to rows of 64: a small store in a loop costs O(buffer) in jaxlib 0.11.1 on CPU.
METRIC_LANES = 64

Emitted = dict[str, Array]
Child = Callable[[Population, "Births"], tuple[Mapping[str, Array], Mapping[str, Array], Emitted]]


class Births(NamedTuple):
    """The births of one tick as rows; rows from ``count`` on are undefined."""

    count: Array
    """How many; int32."""
    parent: Array
    """Slot of each parent; int32[rows]."""
    slot: Array
    """Slot of each child; int32[rows]. No two rows share one."""
    lanes: Array
    """Lane of each row for random numbers (its slot as uint32): children never share noise."""
    valid: Array
    """Which rows are defined; bool[rows]."""
    alive: Array
    """Number of living individuals after these births; int32."""


class Selected(NamedTuple):
    """Lanes that a mask selected: `Context.select`."""

    index: Array
    """Lane of each row; int32[rows]. Rows from ``count`` on are undefined."""
    count: Array
    """How many were selected; int32."""


class Outputs(NamedTuple):
    """Results of one tick of one island, read by the host."""

    events: dict[str, Array]
    """One uint32 matrix [columns, rows] per kind, written by `_packed`."""
    counts: dict[str, Array]
    needs: dict[str, Array]
    ints: Array
    floats: Array


class Context:
    """Random numbers, events, births, claims and metrics of one tick of one island.

    Random functions take a ``purpose`` (a string; different purposes never share numbers), ``over`` (a uint32 array of
    lanes, one number per lane; by default one lane per slot) and ``draw`` (a number below 65,536, for several draws of
    one purpose in a lane).
    """

    def __init__(
        self,
        *,
        seed: Array,
        tick: tuple[Array, Array],
        island: Array,
        slots: int,
        specs: tuple[EventSpec, ...],
        capacities: Mapping[str, int],
        int_metrics: Mapping[str, int] | None = None,
        float_metrics: tuple[str, ...] = (),
        plant_kinds: tuple[str, ...] = (),
        platform: str = "cpu",
    ) -> None:
        self.tick = tick[0]
        """Number of this tick, modulo 2**32."""
        self.island = island
        """Number of this island; uint32."""
        self.slots = slots
        self._platform = platform
        self._tick_high = tick[1]
        self._key = tick_key(seed, tick[0], tick[1])
        self._specs = {spec.kind: spec for spec in specs}
        self._capacities = capacities
        self._int_metrics, self._float_metrics = int_metrics or {}, float_metrics
        self._plant_kinds = plant_kinds
        self._events: dict[str, Array] = {}
        self._counts: dict[str, Array] = {}
        self._needs: dict[str, Array] = {}
        self._metrics: dict[str, Array] = {}

    # Random numbers

    def lanes(self, count: int | None = None) -> Array:
        """Lanes 0, 1, ...: one per slot, or ``count`` of them; uint32."""
        return jnp.arange(self.slots if count is None else count, dtype=jnp.uint32)

    def bits(self, purpose: str, over: Array | None = None, draw: int | Array = 0) -> tuple[Array, Array]:
        """Two independent random uint32 words per lane. They cost one call of Threefry: use both where possible."""
        lanes = self.lanes() if over is None else over
        counter = (self.island << 16) | jnp.asarray(draw, jnp.uint32)
        key = self._key[0] ^ jnp.uint32(purpose_word(purpose))
        # Without `stored`, XLA repeats the twenty rounds in every loop that reads the words.
        words: tuple[Array, Array] = self.stored(threefry2x32, key, self._key[1], lanes, counter)
        return words

    def uniform(self, purpose: str, over: Array | None = None, draw: int | Array = 0) -> Array:
        """float32 uniform in (0, 1), one per lane."""
        return unit(self.bits(purpose, over, draw)[0])

    def uniforms(self, purpose: str, over: Array | None = None, draw: int | Array = 0) -> tuple[Array, Array]:
        """Two independent uniforms per lane, at the cost of one."""
        first, second = self.bits(purpose, over, draw)
        return unit(first), unit(second)

    def normals(self, purpose: str, over: Array | None = None, draw: int | Array = 0) -> tuple[Array, Array]:
        """Two independent standard normals per lane (Box-Muller)."""
        first, second = self.uniforms(purpose, over, draw)
        radius = jnp.sqrt(-2.0 * jnp.log(first))
        angle = jnp.float32(2.0 * jnp.pi) * second
        return radius * jnp.cos(angle), radius * jnp.sin(angle)

    def noise(self, purpose: str, count: int, over: Array | None = None) -> Array:
        """``count`` independent, cheap approximate normals per lane, [count, lanes]: mean 0, variance 1, within +-3.45.

        See `rng.byte_normal`.
        """
        draws = jnp.arange(-(-count // 2), dtype=jnp.uint32)[:, None]
        words = jnp.concatenate(self.bits(purpose, over, draws))
        return byte_normal(words[:count])

    def stored(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """``function(*arguments)``, computed once and stored: XLA does not fuse it with the code that uses it.

        For costly values that are used in several places, and to separate arithmetic from shapes that may grow: fusion
        decides where multiply-add instructions are used, and a chunk run again with larger buffers must give the same
        bits. XLA for CPUs removes optimisation barriers before it fuses loops, but keeps the branches of a conditional.
        On GPUs a conditional costs a kernel launch, and barriers are respected.
        """
        if self._platform != "cpu":
            return lax.optimization_barrier(function(*arguments))
        shapes = jax.eval_shape(function, *arguments)

        def never(*_: Any) -> Any:
            return jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)

        return lax.cond(self._tick_high < jnp.uint32(1 << 31), function, never, *arguments)

    # Buffers and events

    def capacity(self, name: str) -> int:
        """Size of the growable buffer of a kind, or of one that `Scenario.capacities` declares (a Python int: a shape).

        Raises PluginError for a name that neither declares.
        """
        if name not in self._capacities:
            known = ", ".join(self._capacities) or "none"
            raise PluginError(
                f"the step names the kind or buffer {name!r}, which neither events() nor capacities() declares; "
                f"declared: {known}{did_you_mean(name, self._capacities)}"
            )
        return self._capacities[name]

    def need(self, name: str, count: Array) -> None:
        """Report how many entries of a growable buffer this tick needs. If there are fewer, the chunk is run again."""
        known = self._needs.get(name)
        count = count.astype(jnp.int32)
        self._needs[name] = count if known is None else jnp.maximum(known, count)

    def select(self, name: str, mask: Array) -> Selected:
        """The lanes of ``mask`` in order, in the growable buffer ``name`` (a kind, or one of `Scenario.capacities`)."""
        index, count = self.stored(partial(compact, capacity=self.capacity(name)), mask)
        self.need(name, count)
        return Selected(index, count)

    def emit(self, kind: str, mask: Array, *, at: Array | None = None, **columns: Any) -> None:
        """Emit one event of ``kind`` for every lane of ``mask``; at most one call per kind and tick.

        ``columns`` are arrays as long as the mask (or scalars), tuples of two for ids, [width, lanes] for lists. ``at``
        is the time within the tick in microseconds (int32; 0 by default). Rows keep the order of the lanes.
        """
        self._spec(kind)  # before a buffer is taken for it
        chosen = self.select(kind, mask)
        self._record(kind, chosen.count, at, columns, lambda value: value[..., chosen.index] if value.ndim else value)

    def emit_rows(self, kind: str, count: Array, *, at: Array | None = None, **columns: Any) -> None:
        """Emit the first ``count`` rows of columns that are compacted already, for example those of `Births`."""
        self._record(kind, count, at, columns, lambda value: value)

    def _spec(self, kind: str) -> EventSpec:
        if kind not in self._specs:
            known = ", ".join(self._specs) or "none"
            raise PluginError(
                f"the step emits the kind {kind!r}, which events() does not declare; declared: {known}"
                f"{did_you_mean(kind, self._specs)}"
            )
        return self._specs[kind]

    def _record(
        self, kind: str, count: Array, at: Array | None, columns: Mapping[str, Any], pick: Callable[[Array], Array]
    ) -> None:
        spec = self._spec(kind)
        if kind in self._events:
            raise PluginError(f"kind {kind!r} is emitted twice in one step; declare two kinds on the same stream")
        expected = {column.name for column in spec.columns if column.kind not in ("tick", "derived")}
        if set(columns) != expected:
            raise PluginError(
                f"kind {kind!r}: expected columns {sorted(expected)} (its EventSpec), got {sorted(columns)}"
            )
        parts = []
        for column in spec.columns:
            if column.kind not in ("tick", "derived"):
                value = columns[column.name]
                parts += [pick(jnp.asarray(part)) for part in (value if isinstance(value, tuple) else (value,))]
        if at is not None:
            parts.append(pick(at))
        self._events[kind] = _packed(parts)
        self._counts[kind] = count.astype(jnp.int32)

    def when(self, predicate: Array, body: Callable[[Context], None]) -> None:
        """Call ``body`` in the ticks for which ``predicate`` (a scalar) holds; other ticks emit nothing.

        ``body`` gets its own context, with which it emits events and records metrics. Other ticks cost nothing as long
        as the predicate is the same for all islands (a function of ``ctx.tick``).
        """

        def recorded(inner: Context) -> tuple[Any, ...]:
            return inner._events, inner._counts, inner._needs, inner._metrics

        def run() -> tuple[Any, ...]:
            inner = copy(self)
            inner._events, inner._counts, inner._needs, inner._metrics = {}, {}, {}, {}
            body(inner)
            return recorded(inner)

        shapes = jax.eval_shape(run)
        found = lax.cond(predicate, run, lambda: jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes))
        for mine, theirs in zip(recorded(self), found, strict=True):
            mine.update(theirs)

    def metric(self, name: str, value: Array | Sum) -> None:
        """Record a scalar of this tick and island, an exact `Sum`, or a short vector."""
        self._metrics[name] = jnp.stack(value) if isinstance(value, Sum) else jnp.atleast_1d(value)

    def metric_sum(self, name: str, values: Array, mask: Array | None = None) -> None:
        """Record the exact sum of int32 values over the island (see `exact_sum`)."""
        self.metric(name, exact_sum(values, mask))

    # Individuals

    def place(self, slot: Array | None = None) -> Array:
        """Place of each slot in the whole simulation (island * slots + slot); half of an id. uint32."""
        own = self.lanes() if slot is None else slot.astype(jnp.uint32)
        return self.island * jnp.uint32(self.slots) + own

    def id_of(self, slot: Array, birth_tick: Array) -> tuple[Array, Array]:
        """Ids of the individuals in the given slots, null for -1; ``birth_tick`` holds the birth tick of every slot."""
        known = jnp.maximum(slot, 0)
        return birth_tick[known], jnp.where(slot >= 0, self.place(known), jnp.uint32(NO_PLACE))

    def remove(
        self,
        population: Population,
        dead: Array,
        kind: str,
        tell: Callable[[Population, Array], Mapping[str, Any]],
        *,
        zero: tuple[str, ...] = (),
        also: Mapping[str, Callable[[Population, Array], tuple[Array, Mapping[str, Any]]]] | None = None,
    ) -> Population:
        """Deaths: the population without the slots of ``dead``, and one event of ``kind`` for each.

        ``tell(rows, slots)`` gets the rows of the dead and their slots, and returns the event's columns. Traits named
        in ``zero`` become 0 in the slots of the dead. ``also`` gives further kinds of events about some of the dead: a
        function of the same arguments that returns a mask over the rows, and the columns.
        """

        def run(population: Population) -> Any:
            index, count = self.stored(lambda mask: compact(mask, self.capacity(kind)), dead)
            rows = {name: take(values, index) for name, values in population.items()}
            further = {name: make(rows, index) for name, make in (also or {}).items()}
            cleared = {name: jnp.where(dead, 0, population[name]) for name in zero}
            return count, dict(tell(rows, index)), further, {**cleared, "alive": population["alive"] & ~dead}

        # One stored block, so that slots are freed only after the dead were read: otherwise XLA copies what `tell`
        # reads.
        count, emitted, further, changed = self.stored(run, population)
        self.need(kind, count)
        self._record(kind, count, None, emitted, lambda value: value)
        for name, (mask, columns) in further.items():
            self.emit(name, mask & (jnp.arange(mask.shape[0]) < count), **columns)
        return {**population, **changed}

    def claim(self, tile: Array, want: Array, tiles: int, *, luck: Array | None = None) -> Array:
        """Which slots get the tile they want: one winner per tile, each candidate equally likely. bool[slots]."""
        return claim(tile, self.bits("claim")[0] if luck is None else luck, want, tiles)

    def spawn(
        self,
        population: Population,
        want: Array,
        child: Child,
        *,
        name: str = "births",
        luck: Array | None = None,
        limit: Array | None = None,
    ) -> tuple[Population, Births, Emitted]:
        """Births: individuals that ``want`` a child get one while there are free slots, each with the same probability.

        ``child(parents, births)`` gets the parents' rows and returns three mappings of names to rows: what children do
        not inherit, what changes in the parents, and further columns to emit (returned unchanged). Children inherit all
        other traits. ``birth_tick``, if the population has it, becomes the tick after this one, the first in which the
        child acts (founders have 0, so no two individuals share tick and place). ``luck`` is a random word per slot
        that nothing else uses (drawn if absent). ``limit`` caps the births of this tick. The buffer is the growable
        capacity ``name``, which `Scenario.capacities` must list.

        With more candidates than room, candidates are thinned at random to slightly too many; of these, the ones with
        the highest random words are left out. Never "the first by slot": that gave all births to a quarter of the
        slots. The draw is equal among those that want a child, whatever made them want it: where wanting is a draw by
        fitness and few compete for little room, the fitter get more than their share in proportion to fitness (a mutant
        of fitness 1.5 among 8 fixes with probability 0.347, and 0.310 in proportion).
        """
        alive = population["alive"]
        rows = self.capacity(name)
        slot, free = self.stored(partial(compact, capacity=rows), ~alive)
        room = free if limit is None else jnp.minimum(free, limit)
        wanted = jnp.sum(want, dtype=jnp.int32)
        enough = room + 3.0 * jnp.sqrt(room.astype(jnp.float32)) + 2.0
        share = jnp.minimum(enough / jnp.maximum(wanted, 1), 1.0)
        word = self.bits(f"spawn.{name}")[0] if luck is None else luck
        chosen = want & ((word >> 8) < (share * 2.0**24).astype(jnp.uint32))
        parent, candidates = self.stored(partial(compact, capacity=rows), chosen)
        self.need(name, candidates)
        candidates = jnp.minimum(candidates, rows)
        parent = lax.cond(candidates > room, _luckiest_first, lambda parent, *_: parent, parent, word, candidates)
        count = jnp.minimum(candidates, room)
        births = Births(
            count, parent, slot, slot.astype(jnp.uint32), jnp.arange(rows) < count, alive.shape[0] - free + count
        )

        def rows_of(population: Population) -> tuple[Any, ...]:
            parents = {key: take(values, births.parent) for key, values in population.items()}
            return parents, *child(parents, births)

        parents, own, changed, emitted = self.stored(rows_of, population)
        return self._place(population, births, (parents, own, changed)), births, emitted

    def _place(
        self, population: Population, births: Births, rows: tuple[Population, Mapping[str, Array], Mapping[str, Array]]
    ) -> Population:
        parents, own, changed = rows
        result: Population = {}
        for key, values in population.items():
            if key in changed:
                values = put(values, births.parent, changed[key], births.valid)
            if key == "alive":
                row = jnp.ones_like(births.valid)
            elif key == "birth_tick" and key not in own:
                row = jnp.full(births.valid.shape, self.tick + 1)
            else:
                row = jnp.asarray(own.get(key, parents[key]))
            result[key] = put(values, births.slot, row, births.valid)
        return result

    # Planted anomalies

    def planted(self, plants: Mapping[str, Array], kind: int) -> tuple[Array, Array]:
        """Strength of the planted anomaly ``kind`` (its number in ``plant_kinds``) now, and whether it starts now.

        ``plants`` is the result of `anomalies.plant_params`. Strength is 0.0 while none is active; plants start before
        tick 2**31. Raises PluginError for a number that is none of the scenario's kinds.
        """
        if not isinstance(kind, int | np.integer) or not 0 <= kind < len(self._plant_kinds):
            known = ", ".join(f"{number} ({name})" for number, name in enumerate(self._plant_kinds)) or "none"
            raise PluginError(
                f"planted() of kind {kind!r}; expected the number of a kind of plant_kinds, the scenario has: {known}"
            )
        since = self.tick - plants["start"]
        holds = (plants["kind"] == kind) & (since < plants["ticks"]) & (self._tick_high == 0)
        strength = jnp.max(jnp.where(holds, plants["strength"], 0.0))
        return strength, jnp.any(holds & (since == 0))

    def unrecorded(self) -> list[str]:
        """Metrics that the scenario declares and this step has not recorded."""
        return [name for name in (*self._int_metrics, *self._float_metrics) if name not in self._metrics]

    def outputs(self) -> Outputs:
        """Everything recorded in this tick. The world calls it after `step`."""
        silent = set(self._specs) - set(self._events)
        if silent:
            raise PluginError(f"the step emitted nothing of kind {min(silent)!r}, which events() declares")
        known = {**self._int_metrics, **dict.fromkeys(self._float_metrics, 1)}
        unknown = set(self._metrics) - set(known)
        if unknown:
            raise PluginError(f"metric {min(unknown)!r} is not among the metrics that the scenario declares")
        for name, value in self._metrics.items():
            if value.shape[0] != known[name]:
                raise PluginError(f"metric {name!r} has {value.shape[0]} values; the scenario declares {known[name]}")
        ints = [self._metrics.get(name, jnp.zeros(width)) for name, width in self._int_metrics.items()]
        floats = [self._metrics.get(name, jnp.zeros(1)) for name in self._float_metrics]
        return Outputs(self._events, self._counts, self._needs, _lanes(ints, jnp.int32), _lanes(floats, jnp.float32))


def _luckiest_first(parent: Array, word: Array, count: Array) -> Array:
    key = jnp.where(jnp.arange(parent.shape[0]) < count, word[parent], jnp.uint32(0xFFFFFFFF))
    ordered: Array = lax.sort((key, parent), num_keys=1)[1]
    return ordered


def _lanes(values: list[Array], dtype: Any) -> Array:
    used = sum(value.shape[0] for value in values)
    rest = jnp.zeros(-used % METRIC_LANES if used else METRIC_LANES, dtype)
    return jnp.concatenate([*(value.astype(dtype) for value in values), rest])


def _packed(parts: list[Array]) -> Array:
    """Columns as one uint32 matrix [columns, rows], bit for bit: each array that a scan stacks has a cost."""
    rows = max((part.shape[-1] for part in parts if part.ndim), default=1)
    words = []
    for part in parts:
        if part.dtype == jnp.bool_ or part.dtype.itemsize < 4:
            part = part.astype(jnp.int32)
        word = part if part.dtype == jnp.uint32 else lax.bitcast_convert_type(part, jnp.uint32)
        words.append(jnp.broadcast_to(word, (part.shape[0] if part.ndim == 2 else 1, rows)))
    return jnp.concatenate(words)

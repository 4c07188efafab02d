"""Planted anomalies: known disturbances at known times, against which alert rules are scored."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

__all__ = ["Plant", "PlantKind", "plant_params", "planting"]

_PADDING = 8


@dataclass(frozen=True, slots=True)
class PlantKind:
    """One kind of anomaly of a scenario, with a default strength and length that its rules find.

    ``demo`` and ``score --seeds`` plant all kinds in turn, see `planting`.
    """

    rules: tuple[str, ...] = ()
    """Alert rules that should find it; the truth stream has an event of type ``planted`` for each."""
    may_follow: tuple[str, ...] = ()
    """Alert rules of what it brings about in some worlds only, also later than what `rules` find. Their alerts during
    it and its `rest` are right, and none has to come: they count for precision, not for recall. The truth stream has an
    event of type ``possible`` for each."""
    strength: float = 0.5
    ticks: int = 1
    rest: int | None = None
    """Ticks after it until the world is as before, and its alerts are raised: room for the next anomaly. None where
    that is not known: the anomaly then has an eighth of the run for itself."""
    once: bool = False
    """It changes the world for good, so that a second one would be none."""
    after: int = 0
    """Ticks of a run before the first one: its rules compare with what was before for so long."""

    def room(self, run_ticks: int) -> int:
        """Ticks from its start until the next anomaly may begin, in a run of ``run_ticks`` ticks."""
        return max(self.ticks, run_ticks // 8) if self.rest is None else self.ticks + self.rest


class Plant(BaseModel):
    """One anomaly: ``kind`` is active from ``at_tick`` for ``ticks`` ticks; ``strength`` depends on the kind.

    In the settings of a scenario both default to those of the kind (`PlantKind`).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: str
    at_tick: int = Field(ge=0, lt=2**31)
    ticks: int = Field(default=1, ge=1, lt=2**31)
    strength: float = Field(default=0.5, ge=0.0, le=100.0)


def planting(
    kinds: Mapping[str, PlantKind], first: int, end: int, *, seed: int | None = None, spread: int = 0
) -> list[dict[str, Any]]:
    """Plants of all kinds in turn, each after the rest of the one before, from tick ``first`` to before ``end``.

    ``seed`` decides the turn, and by how many ticks, up to ``spread``, each begins later than it could: rules over
    windows must find an anomaly wherever it lies in them, and after whichever other. Without it the turn is that of
    ``kinds``, with no delays. Kinds that need more room than there is are left out, and one whose rules have
    not seen enough of the run yet waits for its next turn.
    """
    plants: list[dict[str, Any]] = []
    at, turn = first, 0
    names = list(kinds)
    random = None if seed is None else np.random.default_rng(seed)
    if random is not None:
        random.shuffle(names)
    while names:
        at += 0 if random is None else int(random.integers(spread + 1))
        fits = [name for name in names if max(at, kinds[name].after) + kinds[name].room(end - first) <= end]
        if not fits:
            break
        at = max(at, min(kinds[name].after for name in fits))
        while (name := names[turn % len(names)]) not in fits or kinds[name].after > at:
            turn += 1
        plants.append({"kind": name, "at_tick": at})
        at += kinds[name].room(end - first)
        turn = (turn + 1) % len(names)
        if kinds[name].once:
            names.remove(name)
            turn = max(turn - 1, 0)
    return plants


def plant_params(plants: Sequence[Plant], kinds: Iterable[str]) -> Mapping[str, Any]:
    """The plants as arrays for ``params``; ``ctx.planted(params["plants"], kind)`` reads them.

    Padded to a multiple of eight, so that a sweep over few plants does not recompile.
    """
    length = max(-(-len(plants) // _PADDING), 1) * _PADDING
    arrays = {
        "kind": np.full(length, -1, np.int32),
        "start": np.zeros(length, np.uint32),
        "ticks": np.zeros(length, np.uint32),
        "strength": np.zeros(length, np.float32),
    }
    for row, plant in enumerate(plants):
        arrays["kind"][row] = list(kinds).index(plant.kind)
        arrays["start"][row] = plant.at_tick
        arrays["ticks"][row] = plant.ticks
        arrays["strength"][row] = plant.strength
    return arrays

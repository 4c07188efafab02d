"""Which type of genome dominates a population, and what fitness each type has over the others."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from astrocyte.agents.insight import Selection
from astrocyte.agents.stores.analysis import Dominance, dominance_of
from astrocyte.pipeline.analysis.evolution.history import EVENTS, GENOMES, History
from astrocyte.pipeline.analysis.evolution.records import table_of

__all__ = ["TypeAdvantage", "TypeDominance", "type_advantage", "type_dominance"]


@dataclass(frozen=True, slots=True)
class TypeShare:
    """Share of one type of genome among the individuals observed in one window."""

    window_end: int
    genome_type: str
    individuals: int
    share: float


@dataclass(frozen=True, slots=True)
class TypeDominance:
    """Shares of the types by window, and which was dominant for how many of them."""

    shares: tuple[TypeShare, ...]
    overall: Dominance
    """Its steps are windows."""

    def table(self) -> pa.Table:
        """A row for each window and type."""
        return table_of(TypeShare, self.shares)


@dataclass(frozen=True, slots=True)
class TypeAdvantage:
    """Fitness of one type of genome beside all others, over the whole run.

    ``advantage`` is the difference of mean relative fitness (offspring and survival while followed, divided by the
    population's mean) between the type and the rest; None where either is too small.
    """

    genome_type: str
    individuals: int
    """Individuals of all types that were followed."""
    share: float
    advantage: float | None
    advantage_se: float | None
    p: float | None

    @staticmethod
    def table(rows: tuple[TypeAdvantage, ...]) -> pa.Table:
        """Advantages as a table."""
        return table_of(TypeAdvantage, rows)


def type_dominance(history: History, time_window: str | int = "1s") -> TypeDominance:
    """Dominance of types of genomes by window; each individual counts as it was observed last. Raises NotEnoughData."""
    history.require(GENOMES)
    names = _types(history)
    shares: list[TypeShare] = []

    def by_window() -> Iterator[dict[str, float]]:
        for end_us, counts in _counts(history, history.windows(time_window).size_us, len(names)):
            total = int(counts.sum())
            found = {name: count / total if total else 0.0 for name, count in zip(names, counts.tolist(), strict=True)}
            shares.extend(
                TypeShare(end_us, name, int(count), found[name]) for name, count in zip(names, counts, strict=True)
            )
            yield found

    overall = dominance_of(by_window(), names)
    return TypeDominance(tuple(shares), overall)


def type_advantage(history: History) -> tuple[TypeAdvantage, ...]:
    """Advantage of each type of genome over the whole run, by type.

    It is the gradient of `astrocyte.insight.Selection` on belonging to the type, in units of the difference itself: the
    slope on an indicator is the difference of the two means. Raises NotEnoughData.
    """
    history.require(GENOMES, EVENTS)
    names = _types(history)
    of = history.frames[GENOMES].column("genome_type").cast(pa.utf8())
    found = []
    for name in names:
        frame = history.frames[GENOMES]
        flagged = replace(frame, batch=frame.batch.append_column("is_of_type", pc.equal(of, name)))
        alone = replace(history, frames={**history.frames, GENOMES: flagged})
        whole = history.windows(history.end_us - history.begin_us)
        (row,) = alone.results(Selection(windows=whole, traits=("is_of_type",))).to_pylist()
        sd, beta = row["sd"], row["beta"]
        known = beta is not None and bool(sd)
        found.append(
            TypeAdvantage(
                name,
                row["individuals"],
                row["mean"] if row["mean"] is not None else math.nan,
                beta / sd if known else None,
                row["beta_se"] / sd if known else None,
                row["beta_p"] if known else None,
            )
        )
    return tuple(found)


def _types(history: History) -> list[str]:
    values = history.frames[GENOMES].column("genome_type").cast(pa.utf8()).unique().to_pylist()
    return sorted(each for each in values if each is not None)


def _counts(history: History, size_us: int, kinds: int) -> Iterator[tuple[int, np.ndarray]]:
    """End of each window and the individuals of each type that were observed last in it, shape [types]."""
    frame = history.frames[GENOMES]
    names = _types(history)
    of = pc.index_in(frame.column("genome_type").cast(pa.utf8()), value_set=pa.array(names, pa.utf8()))
    code = of.fill_null(-1).to_numpy(zero_copy_only=False)
    ids = frame.column("cell_id").cast(pa.int64()).to_numpy(zero_copy_only=False)
    times = frame.timestamps()
    first = history.end_us - (history.end_us - history.begin_us) // size_us * size_us
    window = (times - first) // size_us
    order = np.lexsort((times, ids, window))
    keep = order[np.r_[(np.diff(window[order]) != 0) | (np.diff(ids[order]) != 0), True]]
    keep = keep[(code[keep] >= 0) & (times[keep] >= first)]
    for number in range((history.end_us - first) // size_us):
        chosen = code[keep][window[keep] == number]
        yield first + (number + 1) * size_us, np.bincount(chosen, minlength=kinds)

"""Selection on traits: differentials, gradients and coefficients (Lande and Arnold 1983), with standard errors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from astrocyte.agents.insight.distributions import holm, t_p
from astrocyte.agents.insight.rows import NO_ID, Rows, Source
from astrocyte.agents.insight.statistic import State, Window, Windows, check_level, result_type
from astrocyte.schemas.catalog import EventType, Field
from astrocyte.schemas.errors import InvalidSettings

__all__ = ["CELL_TRAITS", "Gradients", "Selection", "followed_fitness", "gradients"]

CELL_TRAITS: Final = ("metabolism", "growth_rate", "division_size", "mutation_rate", "tpu_cores", "tpu_memory",
                      "tpu_efficiency")  # fmt: skip
_SIGNS: Final = ("positive", "negative", "none")
_FEW: Final = "with too few individuals, or without variation"

RESULT: Final = result_type(
    "selection",
    "Selection on one trait in one window: differential, gradients and coefficient, with standard errors.",
    {
        "trait": Field("string", "the trait"),
        "individuals": Field("int64", "individuals that were observed and followed", "individuals", low=0),
        "mean_fitness": Field("float64", "mean absolute fitness: offspring, and 1 for survival", "individuals", low=0),
        "mean": Field("float64", "mean of the trait", "unit of the trait", null="without individuals"),
        "sd": Field("float64", "standard deviation of the trait", "unit of the trait", low=0, null=_FEW),
        "differential": Field("float64", "S, covariance of relative fitness and trait", "unit of the trait", null=_FEW),
        "differential_se": Field("float64", "standard error of S", "unit of the trait", low=0, null=_FEW),
        "beta": Field("float64", "linear gradient, other traits held still", "1/sd", null=_FEW),
        "beta_se": Field("float64", "standard error of beta", "1/sd", low=0, null=_FEW),
        "beta_p": Field("float64", "p of beta, corrected for the number of traits", "probability", 0, 1, null=_FEW),
        "gamma": Field("float64", "quadratic gradient", "1/sd^2", null=_FEW),
        "gamma_se": Field("float64", "standard error of gamma", "1/sd^2", low=0, null=_FEW),
        "gamma_p": Field("float64", "p of gamma, corrected for the number of traits", "probability", 0, 1, null=_FEW),
        "coefficient": Field(
            "float64", "fitness of those above the median divided by that of the others, less 1", "share", null=_FEW
        ),
        "coefficient_se": Field("float64", "standard error of coefficient", "share", low=0, null=_FEW),
        "sign": Field("string", "sign of beta at the stated level", values=_SIGNS),
        "curvature": Field(
            "string", "sign of gamma at the stated level: negative where the middle is favoured", values=_SIGNS
        ),
    },
)


@dataclass(frozen=True, slots=True)
class Gradients:
    """Estimates of each trait, arrays of shape [traits]; NaN where they cannot be had."""

    mean: NDArray[np.float64]
    sd: NDArray[np.float64]
    differential: NDArray[np.float64]
    differential_se: NDArray[np.float64]
    beta: NDArray[np.float64]
    beta_se: NDArray[np.float64]
    beta_p: NDArray[np.float64]
    gamma: NDArray[np.float64]
    gamma_se: NDArray[np.float64]
    gamma_p: NDArray[np.float64]
    coefficient: NDArray[np.float64]
    coefficient_se: NDArray[np.float64]


def gradients(fitness: NDArray[np.float64], traits: NDArray[np.float64]) -> Gradients:
    """Selection gradients from the absolute fitness [n] and the traits [n, k] of individuals.

    With relative fitness ``w = W / mean(W)`` and standardised traits ``x`` (Lande and Arnold 1983, Evolution 37:1210):

    - S, the differential, is ``cov(w, z)`` in the trait's unit (Robertson 1966, Price 1970).
    - beta are the slopes of the least-squares regression of w on all x.
    - gamma is twice the coefficient of x^2 in the regression on x, x^2 and all products (the factor 2: Stinchcombe et
      al. 2008, Evolution 62:2435).
    - The coefficient is ``W(above the median) / W(the others) - 1``, the s of two classes (Crow and Kimura 1970).

    Standard errors are those of HC3 (MacKinnon and White 1985), with the parts that come from dividing by the estimated
    mean fitness and standard deviation (delta method): without these they are wrong by some 10 % where beta is 0.3. p
    is two-sided, by Student's t with n less the number of coefficients as degrees of freedom. ``sd`` is with n - 1.
    """
    n, k = traits.shape
    nan = np.full(k, np.nan)
    mean = traits.mean(axis=0) if n else nan
    sd = traits.std(axis=0, ddof=1) if n > 1 else nan
    total = fitness.sum()
    if n < k + 3 or total <= 0:
        return Gradients(mean, sd, *(nan.copy() for _ in range(10)))
    w = fitness / (total / n)
    x = np.where(sd > 0, (traits - mean) / np.where(sd > 0, sd, 1.0), np.nan)
    ok = np.flatnonzero(sd > 0)
    differential = sd * np.where(sd > 0, (x * (w - 1.0)[:, None]).sum(axis=0) / (n - 1), np.nan)
    centred = traits - mean
    influence = centred * (w - 1.0)[:, None] - differential * w[:, None]
    differential_se = np.where(sd > 0, np.sqrt((influence**2).sum(axis=0) / (n * (n - 1.0))), np.nan)
    beta, beta_se, beta_p = _slopes(w, x, ok, squares=False)
    gamma, gamma_se, gamma_p = _slopes(w, x, ok, squares=True)
    coefficient, coefficient_se = _classes(fitness, traits)
    return Gradients(mean, sd, differential, differential_se, beta, beta_se, beta_p, gamma, gamma_se, gamma_p,
                     coefficient, coefficient_se)  # fmt: skip


def _slopes(
    w: NDArray[np.float64], x: NDArray[np.float64], ok: NDArray[np.int64], *, squares: bool
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Estimate, standard error and p of the linear (or quadratic) gradients of the traits ``ok``; others NaN."""
    n, k = x.shape
    estimate, se, p = (np.full(k, np.nan) for _ in range(3))
    z, order = x[:, ok], 2 if squares else 1
    columns = [np.ones((n, 1)), z]
    if squares:
        first, second = np.triu_indices(len(ok), 1)
        columns += [z * z, z[:, first] * z[:, second]]
    design = np.concatenate(columns, axis=1)
    df = n - design.shape[1]
    if df < 2 or not len(ok):
        return estimate, se, p
    at = np.arange(len(ok)) + 1 + (len(ok) if squares else 0)
    # Traits are standardised, so the normal equations are well conditioned; QR of the design costs ten times as much.
    values, vectors = np.linalg.eigh(design.T @ design)
    if values.min() <= 1e-9 * values.max():
        return estimate, se, p  # traits that are functions of each other have no gradients of their own
    scores = design @ ((vectors / values) @ vectors.T)
    coefficients = w @ scores
    leverage = np.minimum((scores * design).sum(axis=1), 1.0 - 1e-9)
    residual = (w - design @ coefficients) / (1.0 - leverage)
    pull = scores[:, at] * residual[:, None]
    value = coefficients[at] * order
    # Influence of each individual on the estimate, with that on the mean fitness and on the standard deviation.
    pull = pull * order + value * (order * (z * z - 1.0) / 2.0 - (w - 1.0)[:, None]) / n
    error = np.sqrt((pull * pull).sum(axis=0))
    estimate[ok], se[ok] = value, error
    ratio = np.divide(value, error, out=np.zeros_like(value), where=error > 0)
    p[ok] = [t_p(each, df) for each in ratio.tolist()]
    return estimate, se, p


def _classes(
    fitness: NDArray[np.float64], traits: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Selection coefficient of the upper class of each trait and its standard error (delta method)."""
    k = traits.shape[1]
    s, se = np.full(k, np.nan), np.full(k, np.nan)
    upper = traits > np.median(traits, axis=0)
    for trait in range(k):
        above, below = fitness[upper[:, trait]], fitness[~upper[:, trait]]
        if len(above) < 2 or len(below) < 2 or not above.sum() or not below.sum():
            continue
        ratio = above.mean() / below.mean()
        spread = sum(each.var(ddof=1) / len(each) / each.mean() ** 2 for each in (above, below))
        s[trait], se[trait] = ratio - 1.0, ratio * np.sqrt(spread)
    return s, se


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """Selection on traits, by run and window.

    The cohort of a window are the individuals of ``stream`` first observed in its part before ``follow_us``. Each is
    followed for ``follow_us`` after that: its fitness is the number of its births (rows of ``lineage`` of type
    ``birth`` whose ``parent`` it is), plus 1 if it did not die. A sample may be taken at random; births and deaths must
    be complete. Signs are stated at ``level`` after Holm's correction for the number of traits.

    Cost: sorting, O(n log n) in the rows of a window, and a regression of O(individuals * traits^4).
    """

    windows: Windows
    follow_us: int = 0
    """Half a window by default."""
    traits: tuple[str, ...] = CELL_TRAITS
    stream: str = "genome_data"
    individual: str = "cell_id"
    lineage: str = "evolutionary_events"
    child: str = "cell_id"
    parent: str = "parent_id"
    birth: str = "birth"
    death: str = "death"
    level: float = 0.05
    sources: tuple[Source, ...] = field(init=False)
    result: EventType = RESULT
    identity: tuple[str, ...] = ("trait",)
    carries_state: bool = False

    def __post_init__(self) -> None:
        """Settings that make sense. Raises InvalidSettings."""
        check_level(self.level, "selection")
        if self.follow_us == 0:
            object.__setattr__(self, "follow_us", self.windows.size_us // 2)
        if not 0 < self.follow_us < self.windows.size_us:
            raise InvalidSettings(
                f"selection: follow_us {self.follow_us}; expected more than 0 and less than the window, "
                f"{self.windows.size_us} us, whose first part the observations come from"
            )
        if not self.traits or len(set(self.traits)) < len(self.traits):
            raise InvalidSettings(f"selection: traits {self.traits}; expected one or more names, each once")
        observed = Source(self.stream, (self.individual,), self.traits)
        fates = Source(self.lineage, (self.child, self.parent), (), (self.birth, self.death))
        object.__setattr__(self, "sources", (observed, fates))

    def step(self, window: Window, rows: Sequence[Rows], state: State) -> tuple[State, list[dict[str, Any]]]:
        """See `Statistic.step`: one result for each trait."""
        fitness, traits = self.cohort(window, rows)
        found = gradients(fitness, traits)
        adjusted = {"beta_p": holm(found.beta_p), "gamma_p": holm(found.gamma_p)}
        results = []
        for number, trait in enumerate(self.traits):
            values = {name: getattr(found, name)[number] for name in Gradients.__slots__}
            values |= {name: p[number] for name, p in adjusted.items()}
            results.append(
                {
                    "trait": trait,
                    "individuals": len(fitness),
                    "mean_fitness": float(fitness.mean()) if len(fitness) else 0.0,
                    **{name: None if np.isnan(value) else float(value) for name, value in values.items()},
                    "sign": self._sign(values["beta"], values["beta_p"]),
                    "curvature": self._sign(values["gamma"], values["gamma_p"]),
                }
            )
        return state, results

    def cohort(self, window: Window, rows: Sequence[Rows]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Absolute fitness [n] and traits [n, k] of the individuals that are followed, ordered by id."""
        observed, fates = rows
        ids, t = observed[self.individual], observed.t
        traits = np.stack([observed[name] for name in self.traits], axis=1)
        usable = (t < window.end_us - self.follow_us) & (ids != NO_ID) & np.isfinite(traits).all(axis=1)
        ids, t, traits = ids[usable], t[usable], traits[usable]
        order = np.argsort(ids, kind="stable")  # rows are ordered by time: the first of each id is its first one
        order = order[np.r_[True, ids[order][1:] != ids[order][:-1]]] if len(order) else order
        ids, t, traits = ids[order], t[order], traits[order]
        return followed_fitness(ids, t, fates, child=self.child, parent=self.parent, follow_us=self.follow_us), traits

    def _sign(self, value: float, p: float) -> str:
        if not p < self.level:
            return "none"
        return "positive" if value > 0 else "negative"


def followed_fitness(
    ids: NDArray[np.int64], since_us: NDArray[np.int64], fates: Rows, *, child: str, parent: str, follow_us: int
) -> NDArray[np.float64]:
    """Fitness [n] of individuals, ascending ``ids``, followed for ``follow_us`` after ``since_us``.

    The number of births (rows of kind 0 in ``fates`` whose ``parent`` it is), plus 1 without death (kind 1, ``child``).
    """

    def counted(kind: int, field: str) -> NDArray[np.float64]:
        if not len(ids):
            return np.zeros(0)
        t, whose = fates.t[fates.kind == kind], fates[field][fates.kind == kind]
        place = np.minimum(np.searchsorted(ids, whose), len(ids) - 1)
        own = (ids[place] == whose) & (t > since_us[place]) & (t <= since_us[place] + follow_us)
        return np.bincount(place[own], minlength=len(ids)).astype(np.float64)

    fitness: NDArray[np.float64] = counted(0, parent) + (counted(1, child) == 0)
    return fitness

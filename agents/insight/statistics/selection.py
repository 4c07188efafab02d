"""Selection on traits: differentials, gradients and coefficients (Lande and Arnold 1983), with standard errors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from astrocyte.agents.insight.distributions import holm, t_p
from astrocyte.agents.insight.followed import Followed
from astrocyte.agents.insight.rows import NO_ID, Rows, Source, one_of_each
from astrocyte.agents.insight.statistic import State, Window
from astrocyte.schemas.catalog import EventType
from astrocyte.schemas.errors import InvalidSettings
from astrocyte.schemas.event_types.insight import RESULT_IDENTITY, RESULTS

__all__ = ["Gradients", "Selection", "gradients"]


RESULT: Final = RESULTS["selection"]


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
class Selection(Followed):
    """Selection on traits, by run and window.

    The cohort of a window are the individuals of ``stream`` first observed in its part before ``follow_us``. Each is
    followed for ``follow_us`` after that: its fitness is the number of its births (rows of ``lineage`` of type
    ``birth`` whose ``parent`` it is), plus 1 if it did not die. A sample may be taken at random; births and deaths must
    be complete. Signs are stated at ``level`` after Holm's correction for the number of traits.

    Cost: sorting, O(n log n) in the rows of a window, and a regression of O(individuals * traits^4).
    """

    sources: tuple[Source, ...] = field(init=False)
    result: EventType = RESULT
    identity: tuple[str, ...] = RESULT_IDENTITY["selection"]
    carries_state: bool = False

    def __post_init__(self) -> None:
        """Settings that make sense. Raises InvalidSettings."""
        self.check("selection")
        if not self.traits:
            raise InvalidSettings("selection: no traits; expected one or more names")
        object.__setattr__(self, "sources", (self.observed(), self.fates()))

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
        first = one_of_each(ids)
        return self.fitness(ids[first], t[first], fates), traits[first]

    def _sign(self, value: float, p: float) -> str:
        if not p < self.level:
            return "none"
        return "positive" if value > 0 else "negative"

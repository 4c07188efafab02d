"""Results of the statistics of evolution (docs/insight.md): the fields of the streams that they make.

They are no entries of the catalog, since such a stream has the name that a rule file gives it. The type of its events
is the name of the statistic.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from astrocyte.schemas.catalog import EventType, Field
from astrocyte.schemas.frames import Frame

__all__ = ["LINEAGE", "RESULTS", "RESULT_IDENTITY", "result_identity", "result_type"]

LINEAGE: Final = "lineage"
"""Subject of a result of ``diversity`` about lineages; the subjects of the others are traits."""
_SIGNS: Final = ("positive", "negative", "none")
_QUANTILES: Final = {"q05": 0.05, "q25": 0.25, "q50": 0.5, "q75": 0.75, "q95": 0.95}
_FEW: Final = "with too few individuals, or without variation"
_NO_ONE: Final = "where no one lives at the start or at the end"
_EMPTY: Final = "where there is no individual"
_LINEAGE_ONLY: Final = "in results about a trait"
_NO_MUTATION: Final = "without mutations"
_UNKNOWN: Final = "without mutations, and for a trait"
_FEWER: Final = "with fewer than two mutations"
_FOLLOWED: Final = "with too few that were followed, or without variation"
_SHORT: Final = "with fewer samples than min_samples, or without variation"
_FIT: Final = "with fewer samples than min_samples, or values outside the scale"
_ONE: Final = f"in results about two series; {_SHORT}"
_TWO: Final = f"in results about one series; {_SHORT}"


def result_type(stream: str, doc: str, about: Mapping[str, Field]) -> EventType:
    """Type of a stream of results: the statistic's own fields, then run and window, keyed by run."""
    window = {
        "simulation_id": Field("string", "the run", constant="one run"),
        "window_start": Field("int64", "start of the window", "us since 1970"),
        "window_end": Field("int64", "end of the window, which is the result's time", "us since 1970"),
    }
    return EventType(stream=stream, key="simulation_id", about={**about, **window}, types=(stream,), doc=doc)


def _p(what: str, null: str) -> Field:
    return Field("float64", f"p of {what}, for the false-discovery rate among the window's tests", "probability", 0, 1,
                 null=null)  # fmt: skip


_SELECTION = result_type(
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
            "float64",
            "fitness of those above the median divided by that of the others, less 1",
            "share",
            null=_FEW,
        ),
        "coefficient_se": Field("float64", "standard error of coefficient", "share", low=0, null=_FEW),
        "sign": Field("string", "sign of beta at the stated level", values=_SIGNS),
        "curvature": Field(
            "string", "sign of gamma at the stated level: negative where the middle is favoured", values=_SIGNS
        ),
    },
)

_PRICE = result_type(
    "price",
    "Change of the mean of one inherited trait in one window, as selection and transmission (Price 1970).",
    {
        "trait": Field("string", "the field of a birth whose sum since the founder is the trait"),
        "before": Field("int64", "living at the start of the window, as far as known", "individuals", low=0),
        "after": Field("int64", "living at its end", "individuals", low=0),
        "founders": Field("int64", "of these at the start: not known before the window", "individuals", low=0),
        "refused": Field("int64", "births left out: no parent, known already, or in a circle", "births", low=0),
        "mean_before": Field("float64", "mean of the trait at the start", "unit of the trait", null=_NO_ONE),
        "mean_after": Field("float64", "mean of the trait at the end", "unit of the trait", null=_NO_ONE),
        "change": Field("float64", "mean_after less mean_before", "unit of the trait", null=_NO_ONE),
        "selection": Field("float64", "cov(w, z) / mean(w)", "unit of the trait", null=_NO_ONE),
        "transmission": Field("float64", "mean(w * dz) / mean(w)", "unit of the trait", null=_NO_ONE),
        "mean_fitness": Field("float64", "living descendants of one of the start", "individuals", low=0, null=_NO_ONE),
    },
)

_DIVERSITY = result_type(
    "diversity",
    "Diversity of the lineages of the living, or of a trait, at the end of one window.",
    {
        "subject": Field("string", f"'{LINEAGE}', or the trait"),
        "individuals": Field("int64", "individuals that are counted: all known, or those of a sample", "individuals"),
        "hill_0": Field("float64", "classes that are there: Hill number of order 0", "classes", 0, null=_EMPTY),
        "hill_1": Field("float64", "exp(shannon): Hill number of order 1", "classes", 1, null=_EMPTY),
        "hill_2": Field("float64", "1 / sum of squared shares: Hill number of order 2", "classes", 1, null=_EMPTY),
        "shannon": Field("float64", "Shannon entropy of the classes' shares", "nats", 0, null=_EMPTY),
        "effective_size": Field(
            "float64", "size of an ideal population whose pairs share an ancestor as often", "individuals", 0,
            null=f"{_LINEAGE_ONLY}; where no two of the living have the same ancestor",
        ),
        "coalescence_us": Field(
            "int64", "time since the lines of all living began to part", "us", 0,
            null=f"{_LINEAGE_ONLY}; where they share no ancestor, or fewer than two live",
        ),
    },
)  # fmt: skip

_MUTATIONS = result_type(
    "mutations",
    "Effects of the mutations of one window, by field or trait.",
    {
        "effect": Field("string", "the field of a birth that holds the effect, or the trait that changes"),
        "births": Field("int64", "births, with or without mutation", "births", low=0),
        "mutations": Field("int64", "births with a mutation whose effect is known", "mutations", low=0),
        "mean": Field("float64", "mean effect", "unit of the effect", null=_NO_MUTATION),
        "mean_se": Field("float64", "standard error of mean", "unit of the effect", 0, null=_FEWER),
        "mean_p": _p("mean, against 0", _FEWER),
        "sd": Field("float64", "standard deviation of the effects", "unit of the effect", 0, null=_FEWER),
        **{name: Field("float64", f"quantile {share} of the effects", "unit of the effect", null=_NO_MUTATION)
           for name, share in _QUANTILES.items()},
        "beneficial": Field("float64", "share of the mutations whose effect is above 0", "share", 0, 1, null=_UNKNOWN),
        "beneficial_low": Field("float64", "lower end of the interval of beneficial", "share", 0, 1, null=_UNKNOWN),
        "beneficial_high": Field("float64", "upper end of the interval of beneficial", "share", 0, 1, null=_UNKNOWN),
        "beta": Field("float64", "slope of relative fitness on the effect, among mutants", "1/sd", null=_FOLLOWED),
        "beta_se": Field("float64", "standard error of beta", "1/sd", 0, null=_FOLLOWED),
        "beta_p": _p("beta", _FOLLOWED),
        "cost": Field("float64", "fitness of mutants divided by that of other newborns, less 1", "share",
                      null=_FOLLOWED),
        "cost_se": Field("float64", "standard error of cost", "share", 0, null=_FOLLOWED),
        "cost_p": _p("cost", _FOLLOWED),
    },
)  # fmt: skip

_EARLY_WARNING = result_type(
    "early_warning",
    "Early-warning signals of one series: variance and autocorrelation, and whether they rise within the window.",
    {
        "indicator": Field("string", "the field whose series it is"),
        "samples": Field("int64", "values in the window", "samples", 0),
        "variance": Field("float64", "variance of the detrended series, last part of the window", "unit^2", 0,
                          null=_SHORT),
        "autocorrelation": Field("float64", "lag-1 autocorrelation of it, last part", "", -1, 1, null=_SHORT),
        "variance_tau": Field("float64", "Kendall's tau of the rolling variance with time", "", -1, 1, null=_SHORT),
        "variance_p": Field("float64", "one-sided p of variance_tau", "probability", 0, 1, null=_SHORT),
        "autocorrelation_tau": Field("float64", "Kendall's tau of the rolling autocorrelation", "", -1, 1, null=_SHORT),
        "autocorrelation_p": Field("float64", "one-sided p of autocorrelation_tau", "probability", 0, 1, null=_SHORT),
        "warning": Field("bool", "both rise together, at the stated level of false alarms"),
        "p": Field("float64", "p of the smaller of both taus, on which the warning is based", "probability", 0, 1,
                   null=_SHORT),
    },
)  # fmt: skip

_FORECAST = result_type(
    "forecast",
    "A value ahead of the window with intervals, and whether and when it falls to its limit.",
    {
        "target": Field("string", "the field that is forecast"),
        "horizon_us": Field("int64", "how far ahead of the last sample", "us", 0),
        "samples": Field("int64", "values in the window", "samples", 0),
        "value": Field("float64", "the last value", "unit of the target", null="without samples"),
        "median": Field("float64", "median of the forecast", "unit of the target", null=_FIT),
        **{
            f"{side}_{level}": Field("float64", f"{end} end of the {level} % interval", "unit of the target", null=_FIT)
            for level in (50, 80, 95)
            for side, end in (("low", "lower"), ("high", "upper"))
        },
        "drift": Field("float64", "drift on the target's scale", "1/s", null=_FIT),
        "drift_se": Field("float64", "standard error of drift", "1/s", 0, null=_FIT),
        "volatility": Field("float64", "standard deviation of the change in one second", "1/sqrt(s)", 0, null=_FIT),
        "theta": Field("float64", "moving average of the changes of neighbouring steps: below 0 noise of measurement, "
                       "above 0 changes that go on", "", -0.95, 0.95, null=_FIT),
        "limit_probability": Field(
            "float64", "probability of falling to the limit within the horizon: extinction, depletion", "probability",
            0, 1, null=f"for a target without a limit; {_FIT}",
        ),
        "limit_us": Field(
            "int64", "expected time to the limit", "us", 0,
            null=f"for a target without a limit; where the drift is not below 0, or would take 285,000 years; {_FIT}",
        ),
        "limit_low_us": Field(
            "int64", "lower end of the 95 % interval of limit_us", "us", 0, null="where limit_us is"
        ),
        "limit_high_us": Field(
            "int64", "upper end of it", "us", 0,
            null="where limit_us is, or a drift of 0, or nearly 0, is within the interval",
        ),
    },
)  # fmt: skip

_TRENDS = result_type(
    "trends",
    "Trend of one series in one window, or whether one series leads another.",
    {
        "series": Field("string", "the field whose trend it is, or that leads"),
        "other": Field("string", "the field that follows", null="in results about one series"),
        "samples": Field("int64", "intervals in which all series concerned have values", "samples", 0),
        "slope": Field("float64", "median of the slopes of all pairs (Theil and Sen)", "unit/s", null=_ONE),
        "slope_low": Field("float64", "lower end of the interval of slope", "unit/s", null=_ONE),
        "slope_high": Field("float64", "upper end of it", "unit/s", null=_ONE),
        "tau": Field("float64", "Kendall's tau with time", "", -1, 1, null=_ONE),
        "mann_kendall_p": Field("float64", "p of no trend, of independent values", "probability", 0, 1, null=_ONE),
        "trend_p": Field("float64", "p of no trend, with the autocorrelation", "probability", 0, 1, null=_ONE),
        "lag": Field("int64", "lag at which the correlation is strongest", "samples", 0, null=_TWO),
        "correlation": Field("float64", "correlation at that lag", "", -1, 1, null=_TWO),
        "correlation_p": Field("float64", "p of the strongest correlation, for the false-discovery rate",
                               "probability", 0, 1, null=_TWO),
        "transfer_entropy": Field("float64", "transfer entropy less its mean without relation", "nats", null=_TWO),
        "transfer_entropy_p": Field("float64", "p of it, for the false-discovery rate", "probability", 0, 1,
                                    null=_TWO),
    },
)  # fmt: skip

RESULTS: Final[Mapping[str, EventType]] = {
    each.stream: each for each in (_SELECTION, _PRICE, _DIVERSITY, _MUTATIONS, _EARLY_WARNING, _FORECAST, _TRENDS)
}
"""Type of the results of each statistic, by its name."""
RESULT_IDENTITY: Final[Mapping[str, tuple[str, ...]]] = {
    "selection": ("trait",),
    "price": ("trait",),
    "diversity": ("subject",),
    "mutations": ("effect",),
    "early_warning": ("indicator",),
    "forecast": ("target", "horizon_us"),
    "trends": ("series", "other"),
}
"""Fields that tell the results of one run and window apart."""


def result_identity(frame: Frame) -> tuple[str, ...]:
    """`RESULT_IDENTITY` of a frame of a statistic's results; empty for those of a window, and without rows.

    A window may have the name, and its results the type, of a statistic; they have no such fields.
    """
    kind = frame.column("type")[0].as_py() if frame.num_rows else ""
    known = RESULTS.get(kind)
    return () if known is None or not known.fields.keys() <= {*frame.fields} else RESULT_IDENTITY[known.stream]

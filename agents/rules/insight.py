"""The entries of ``insight`` in a rule file: statistics of evolution over windows, whose results are a stream again.

::

    insight:
      - {statistic: selection, size: 60s, traits: [metabolism, growth_rate]}
      - {name: outlook, statistic: forecast, size: 60s, every: 10s, horizons: [30s, 60s]}

An entry is checked by making the statistic of `agents.insight`, whose defaults hold for what it leaves out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import cached_property
from typing import Annotated, Any, ClassVar, Final, Literal, Self

from pydantic import Field, model_validator

from astrocyte.agents.insight import (
    Diversity,
    EarlyWarning,
    Forecast,
    InsightOperator,
    Mutations,
    Price,
    Selection,
    Target,
    Trends,
    Windows,
)
from astrocyte.agents.insight.descent import LineageEvents
from astrocyte.agents.insight.statistic import Statistic
from astrocyte.agents.rules.steps import Duration, Model, Whole
from astrocyte.schemas.errors import InvalidSettings
from astrocyte.schemas.event_types.insight import RESULTS

__all__ = ["STATISTIC_SPECS", "AnyStatisticSpec", "StatisticSpec"]

Names = Annotated[tuple[str, ...] | None, Field(min_length=1)]
Level = Annotated[float | None, Field(gt=0, lt=1)]

_WORDS: Final = {"follow_us": "follow", "every_us": "interval", "horizons_us": "horizons"}
"""Settings of statistics that have another name in rule files."""


class StatisticSpec(Model):
    """One statistic, by run and window of ``size``; ``every`` is the time from one window to the next (none: the size).

    Its results are the stream ``name``, by default that of the statistic.
    """

    statistic: str
    name: str = Field(pattern=r"^[A-Za-z_][\w.-]*$", max_length=120)
    size: Duration
    every: Duration | None = None
    offset: Duration | None = None

    make: ClassVar[Any]
    """Class of the statistic."""
    renamed: ClassVar[Mapping[str, str]] = {}
    """Names of the statistic's settings, where they differ."""

    @model_validator(mode="before")
    @classmethod
    def _named(cls, value: Any) -> Any:
        if isinstance(value, dict) and "name" not in value and isinstance(value.get("statistic"), str):
            return {**value, "name": value["statistic"]}
        return value

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.every is not None and self.every > self.size:
            raise ValueError("every is longer than size, so that events between windows would be lost; increase size")
        try:
            InsightOperator(self.built)
        except InvalidSettings as error:
            message = str(error)
            for theirs, ours in _WORDS.items():
                message = message.replace(theirs, ours)
            raise ValueError(message) from None
        return self

    @cached_property
    def built(self) -> Statistic:
        """The statistic. Raises InvalidSettings."""
        windows = Windows(self.size, self.every or 0, self.offset or 0)
        result = replace(RESULTS[self.statistic], stream=self.name)
        made: Statistic = self.make(windows=windows, result=result, **self.settings())
        return made

    def settings(self) -> dict[str, Any]:
        """Settings of the statistic that the entry gives, beside its windows."""
        common = StatisticSpec.model_fields
        given = {name: getattr(self, name) for name in type(self).model_fields if name not in common}
        return {self.renamed.get(name, name): value for name, value in given.items() if value is not None}

    @property
    def streams(self) -> tuple[str, ...]:
        """Streams that are read."""
        return tuple(dict.fromkeys(source.stream for source in self.built.sources))

    @property
    def fields(self) -> tuple[str, ...]:
        """Fields of a result."""
        return tuple(RESULTS[self.statistic].fields)

    def reads(self) -> Iterator[tuple[str, str, bool]]:
        """Stream and name of each field that is read, and whether it has to be a whole number."""
        for source in self.built.sources:
            yield from ((source.stream, name, True) for name in source.ids)
            yield from ((source.stream, name, False) for name in source.numbers)

    def key_of(self, name: str) -> str:
        """The key of the entry that names a field or stream; empty where that is a default."""
        given = self.model_dump(exclude_none=True)
        return next((key for key, value in given.items() if _holds(value, name)), "")


def _holds(value: Any, name: str) -> bool:
    if isinstance(value, dict):
        return any(_holds(each, name) for each in (*value, *value.values()))
    return any(_holds(each, name) for each in value) if isinstance(value, list | tuple) else value == name


class _WithLineage(StatisticSpec):
    """Where births and deaths are."""

    lineage: str | None = None
    child: str | None = None
    parent: str | None = None
    birth: str | None = None
    death: str | None = None


class _WithSample(StatisticSpec):
    """Where the traits of individuals are."""

    traits: Names = None
    stream: str | None = None
    individual: str | None = None


class _OfFollowed(_WithLineage, _WithSample):
    """Individuals are followed for ``follow``, by default half a window."""

    follow: Duration | None = None
    level: Level = None
    renamed: ClassVar[Mapping[str, str]] = {"follow": "follow_us", "magnitude": "size"}


class SelectionSpec(_OfFollowed):
    """Selection on traits."""

    statistic: Literal["selection"]
    make: ClassVar[Any] = Selection


class MutationsSpec(_OfFollowed):
    """Effects of mutations; a birth has one if its field ``magnitude`` is above 0."""

    statistic: Literal["mutations"]
    effects: Names = None
    magnitude: str | None = None
    make: ClassVar[Any] = Mutations


class _OfLineage(_WithLineage):
    def settings(self) -> dict[str, Any]:
        """See `StatisticSpec.settings`; what is about births and deaths is one setting of the statistic."""
        given = super().settings()
        about = {name: given.pop(name) for name in (*_WithLineage.__annotations__, "changes") if name in given}
        if "lineage" in about:
            about["stream"] = about.pop("lineage")
        return given | ({"events": LineageEvents(**about)} if about else {})


class PriceSpec(_OfLineage):
    """The Price equation of the traits that the ``changes`` of births add up to."""

    statistic: Literal["price"]
    changes: Names = None
    make: ClassVar[Any] = Price


class DiversitySpec(_OfLineage, _WithSample):
    """Diversity of lineages and traits; ``bounds`` are those of traits of which the catalog has none."""

    statistic: Literal["diversity"]
    bins: Whole | None = None
    bounds: dict[str, tuple[float, float]] | None = None
    make: ClassVar[Any] = Diversity


class EarlyWarningSpec(StatisticSpec):
    """Early warnings of a transition in the series of some fields."""

    statistic: Literal["early_warning"]
    series: Names = None
    stream: str | None = None
    bandwidth: float | None = None
    part: float | None = None
    resamples: Whole | None = None
    min_samples: Whole | None = None
    level: Level = None
    make: ClassVar[Any] = EarlyWarning
    renamed: ClassVar[Mapping[str, str]] = {"series": "fields"}


class TargetSpec(Model):
    """A field to forecast, its scale, and an end that it may reach."""

    field: str
    scale: Literal["log", "logit", "linear"] = "log"
    limit: float | None = None


class ForecastSpec(StatisticSpec):
    """Forecasts of ``targets``, ``horizons`` ahead."""

    statistic: Literal["forecast"]
    horizons: tuple[Duration, ...] = Field(min_length=1)
    targets: tuple[TargetSpec, ...] | None = Field(default=None, min_length=1)
    stream: str | None = None
    min_samples: Whole | None = None
    make: ClassVar[Any] = Forecast
    renamed: ClassVar[Mapping[str, str]] = {"horizons": "horizons_us"}

    def settings(self) -> dict[str, Any]:
        """See `StatisticSpec.settings`."""
        given = super().settings()
        if self.targets is not None:
            given["targets"] = tuple(Target(each.field, each.scale, each.limit) for each in self.targets)
        return given


class SeriesSpec(Model):
    """A field of a stream, whose mean in each interval is the series."""

    stream: str
    field: str


class TrendsSpec(StatisticSpec):
    """Trends of series, of values every ``interval``, and what leads what."""

    statistic: Literal["trends"]
    interval: Duration
    series: tuple[SeriesSpec, ...] | None = Field(default=None, min_length=1)
    most_lag: Whole | None = None
    classes: Whole | None = None
    resamples: Whole | None = None
    min_samples: Whole | None = None
    level: Level = None
    make: ClassVar[Any] = Trends
    renamed: ClassVar[Mapping[str, str]] = {"interval": "every_us"}

    def settings(self) -> dict[str, Any]:
        """See `StatisticSpec.settings`."""
        given = super().settings()
        if self.series is not None:
            given["series"] = tuple((each.stream, each.field) for each in self.series)
        return given


AnyStatisticSpec = Annotated[
    SelectionSpec | PriceSpec | DiversitySpec | MutationsSpec | EarlyWarningSpec | ForecastSpec | TrendsSpec,
    Field(discriminator="statistic"),
]
STATISTIC_SPECS: Final[Mapping[str, type[StatisticSpec]]] = {
    "selection": SelectionSpec,
    "price": PriceSpec,
    "diversity": DiversitySpec,
    "mutations": MutationsSpec,
    "early_warning": EarlyWarningSpec,
    "forecast": ForecastSpec,
    "trends": TrendsSpec,
}
"""What an entry may say, by its statistic."""

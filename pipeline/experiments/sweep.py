"""A sweep: the simulations of an experiment, one for each combination of settings and each seed."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from itertools import product
from pathlib import Path
from typing import Any, Final, Self

import orjson
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from astrocyte.agents.rules.reading.documents import read_document
from astrocyte.pipeline.experiments.measures import Measure, parse_measure
from astrocyte.schemas.errors import InvalidSettings

__all__ = ["Run", "Sweep", "load_sweep"]

_MOST_RUNS: Final = 10_000
_MOST_ID: Final = 64


class Run(BaseModel):
    """One simulation of a sweep: the settings that vary, all settings, and the seed."""

    model_config = ConfigDict(frozen=True)

    simulation_id: str
    varied: dict[str, Any]
    settings: dict[str, Any]
    seed: int


class Sweep(BaseModel):
    """Settings x seeds. ``settings`` hold in every run; ``vary`` gives the values of those that differ.

    ``scenario``, ``ticks``, ``measures`` and ``logs`` are for runs of a scenario; a function of your own ignores them.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    experiment: str = Field(pattern=r"^[A-Za-z0-9._-]{1,40}$", description="id of the experiment")
    seeds: tuple[int, ...] = Field(description="seeds, or how many: 3 means 0, 1, 2")
    settings: dict[str, Any] = Field(default_factory=dict, description="settings of every run")
    vary: dict[str, tuple[Any, ...]] = Field(default_factory=dict, description="values of each setting that varies")
    scenario: str | None = Field(default=None, description="scenario of the simulator")
    ticks: int | None = Field(default=None, ge=1, description="ticks of each run of a scenario")
    measures: dict[str, str] = Field(
        default_factory=dict, description="results by name, such as mean(population_metrics.total_population)"
    )
    logs: Path | None = Field(default=None, description="folder for the recorded log of each run")
    hypothesis: str | None = None
    description: str | None = None

    @field_validator("seeds", mode="before")
    @classmethod
    def _count(cls, value: Any) -> Any:
        if isinstance(value, int) and not isinstance(value, bool):
            if not 1 <= value <= _MOST_RUNS:
                raise ValueError(f"expected 1 to {_MOST_RUNS:,} seeds, or a list of seeds, got {value}")
            return tuple(range(value))
        return value

    @field_validator("vary", mode="before")
    @classmethod
    def _lists(cls, value: Any) -> Any:
        if isinstance(value, Mapping):
            for name, values in value.items():
                if not isinstance(values, list | tuple) or not values:
                    raise ValueError(f"{name}: expected a list of values, got {values!r}")
        return value

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not self.seeds or len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds: expected at least one, each once, got {list(self.seeds)}")
        both = self.settings.keys() & self.vary.keys()
        if both:
            raise ValueError(f"{min(both)!r} is in settings and in vary; leave one of them out")
        for name, values in self.vary.items():
            held = [orjson.dumps(each) for each in values]
            if len(set(held)) < len(held):
                raise ValueError(f"vary: {name} has a value twice")
        if self.count > _MOST_RUNS:
            raise ValueError(f"the sweep has {self.count:,} runs; expected at most {_MOST_RUNS:,}")
        try:
            self.measured()
        except InvalidSettings as error:
            raise ValueError(str(error)) from None
        return self

    @property
    def count(self) -> int:
        """Number of runs."""
        count = len(self.seeds)
        for values in self.vary.values():
            count *= len(values)
        return count

    def runs(self) -> Iterator[Run]:
        """All runs, the last setting and then the seed varying fastest; an id is a function of settings and seed."""
        for values in product(*self.vary.values()):
            varied = dict(zip(self.vary, values, strict=True))
            settings = {**self.settings, **varied}
            text = orjson.dumps([self.scenario, self.ticks, settings], option=orjson.OPT_SORT_KEYS)
            digest = hashlib.blake2b(text, digest_size=4).hexdigest()
            for seed in self.seeds:
                simulation_id = f"{self.experiment}-{digest}-{seed}"
                if len(simulation_id) > _MOST_ID:
                    raise InvalidSettings(f"simulation id {simulation_id!r} is too long; give a smaller seed")
                yield Run(simulation_id=simulation_id, varied=varied, settings=settings, seed=seed)

    def measured(self) -> list[Measure]:
        """The measures."""
        return [parse_measure(name, text) for name, text in self.measures.items()]


def load_sweep(path: str | Path) -> Sweep:
    """A sweep from a YAML file. Raises InvalidSettings, naming file and member."""
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidSettings(f"{path}: cannot be read: {error}") from None
    data = read_document(text, str(path)).data
    if not isinstance(data, Mapping):
        raise InvalidSettings(f"{path}: expected a mapping with experiment and seeds, got {type(data).__name__}")
    try:
        return Sweep(**data)
    except ValidationError as error:
        known = ", ".join(Sweep.model_fields)
        lines = []
        for item in error.errors(include_url=False, include_input=False):
            name = ".".join(map(str, item["loc"]))
            unknown = f"; known: {known}" if item["type"] == "extra_forbidden" else ""
            lines.append(
                ": ".join(part for part in (name, item["msg"].removeprefix("Value error, ") + unknown) if part)
            )
        raise InvalidSettings(f"{path}: {'; '.join(lines)}") from None

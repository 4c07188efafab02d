"""Configuration of scenarios: frozen pydantic models, and errors that name the field and its range."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any, ClassVar, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator
from pydantic_core import ErrorDetails

from astrocyte.schemas.errors import InvalidSettings
from astrocyte.simulator.anomalies import Plant, PlantKind

__all__ = ["EPOCH_US", "ScenarioConfig", "configure", "fingerprint"]

EPOCH_US = 1_735_689_600_000_000
"""2025-01-01T00:00:00Z in microseconds: the default start of event time, fixed so that runs repeat exactly."""


class ScenarioConfig(BaseModel):
    """Settings that all scenarios share. Subclasses add their own fields, each with its range."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    plant_kinds: ClassVar[Mapping[str, PlantKind]] = {}
    """Kinds of anomalies that the scenario can plant, in the order of their numbers."""

    tick_us: int = Field(default=10_000, ge=1, le=3_600_000_000, description="simulated time of one tick")
    epoch_us: int = Field(default=EPOCH_US, ge=0, le=4_102_444_800_000_000, description="event time of tick 0")
    plants: tuple[Plant, ...] = Field(default=(), description="anomalies to plant, each written to the truth stream")

    @field_validator("plants", mode="before")
    @classmethod
    def _with_defaults(cls, value: Any) -> Any:
        return tuple(map(cls._with_default, value)) if isinstance(value, list | tuple) else value

    @classmethod
    def _with_default(cls, plant: Any) -> Any:
        """A plant with the strength and length of its kind where it has none of its own."""
        given = plant.model_dump(exclude_unset=True) if isinstance(plant, Plant) else plant
        kind = cls.plant_kinds.get(str(given.get("kind"))) if isinstance(given, dict) else None
        return plant if kind is None else {"strength": kind.strength, "ticks": kind.ticks, **given}

    @model_validator(mode="after")
    def _known_plants(self) -> ScenarioConfig:
        for plant in self.plants:
            if plant.kind not in self.plant_kinds:
                known = ", ".join(self.plant_kinds) or "none"
                raise ValueError(f"plants: expected a kind that this scenario can plant ({known}), got {plant.kind!r}")
        return self

    def tick_time_us(self, tick: int) -> int:
        """Event time at the start of ``tick``."""
        return self.epoch_us + tick * self.tick_us


C = TypeVar("C", bound=ScenarioConfig)


def configure(model: type[C], values: Mapping[str, Any] | None = None, *, scenario: str = "scenario") -> C:
    """Validated config. Raises InvalidSettings with one line per wrong field: the expected range and the value."""
    try:
        return model.model_validate(dict(values or {}))
    except ValidationError as error:
        lines = [_explain(model, scenario, detail) for detail in error.errors()]
        raise InvalidSettings("\n".join(lines)) from None


def fingerprint(config: ScenarioConfig) -> str:
    """Eight hex digits of the config's content; part of a run's name, so that other settings give other event ids."""
    text = json.dumps(config.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))
    return hashlib.blake2b(text.encode(), digest_size=4).hexdigest()


def _explain(model: type[ScenarioConfig], scenario: str, detail: ErrorDetails) -> str:
    path = ".".join(str(part) for part in detail["loc"])
    if detail["type"] == "extra_forbidden":
        known = ", ".join(sorted(model.model_fields))
        return f"{scenario}: there is no setting {path!r}; known settings: {known}"
    if not path:
        return f"{scenario}: {detail['msg'].removeprefix('Value error, ')}"
    bounds = _range_of(model, str(detail["loc"][0])) if len(detail["loc"]) == 1 else ""
    reason = f"expected {bounds}" if bounds else detail["msg"].removeprefix("Value error, ")
    return f"{scenario}: {path}: {reason}, got {detail['input']!r}"


def _range_of(model: type[ScenarioConfig], name: str) -> str:
    info = model.model_fields.get(name)
    if info is None:
        return ""
    kind = getattr(info.annotation, "__name__", str(info.annotation))
    bounds = ("ge", "gt", "le", "lt")
    limits = {key: getattr(part, key) for part in info.metadata for key in bounds if hasattr(part, key)}
    low = f"from {limits['ge']}" if "ge" in limits else f"above {limits['gt']}" if "gt" in limits else ""
    high = f"to {limits['le']}" if "le" in limits else f"below {limits['lt']}" if "lt" in limits else ""
    return f"{kind} {low} {high}".strip() if low or high else ""

"""The scenario contract and the registry of scenarios.

A scenario is one object. Its `step` is pure and runs inside a JAX trace, once per tick and island::

    state = step(static, params, state, ctx)

- ``static``: hashable; shapes and switches. A different ``static`` compiles again.
- ``params``: a pytree of numbers. A sweep over params does not compile again.
- ``state``: a pytree of arrays of one island (65,536 slots at most). Islands do not see each other within a tick.
- ``ctx``: `simulator.context.Context`: random numbers by purpose, ``emit``, ``spawn``, ``claim``, ``metric``.

Everything else is on the host: `events` declares what is emitted, `report` adds aggregates, `control` applies messages.
Your own scenario is one class. Register its name with `register_scenario` (in a module of ``ASTROCYTE_PLUGINS``) or
with an entry point of the group ``astrocyte.scenarios``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING, Any, ClassVar, Final

import numpy as np
from numpy.typing import NDArray

from astrocyte.schemas.errors import InvalidSettings
from astrocyte.schemas.registry import Registry, import_object
from astrocyte.simulator.config import ScenarioConfig
from astrocyte.simulator.event_spec import EventSpec, HostRow

if TYPE_CHECKING:
    from astrocyte.simulator.context import Context

__all__ = [
    "SCENARIOS",
    "Interval",
    "InvalidControl",
    "Rows",
    "Scenario",
    "load_scenario",
    "register_scenario",
    "require_scenario",
    "scenario_names",
]


class InvalidControl(InvalidSettings):
    """A control message that the scenario cannot apply; the run continues without it."""


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows of one kind of event in an interval, in the order of the stream."""

    ticks: NDArray[np.int64]
    islands: NDArray[np.int64]
    timestamps: NDArray[np.int64]
    sequences: NDArray[np.int64]
    """Sequence number of each row in (run, stream)."""
    columns: Mapping[str, Any]
    """Host values by column name, hidden columns included; ids are int64, enums their codes."""


@dataclass(frozen=True, slots=True)
class Interval:
    """Rows and metrics of the ticks [first_tick, end_tick) over all islands: the input of `Scenario.report`."""

    run: str
    first_tick: int
    end_tick: int
    metrics: Mapping[str, NDArray[Any]]
    """Metrics that the step recorded, shape [ticks, islands] (vectors have a third axis): int64, or float64 for
    floats."""
    rows: Mapping[str, Rows] = field(default_factory=dict)
    """Emitted rows by kind."""


class Scenario(ABC):
    """One simulated world. Instances are immutable and hashable by identity."""

    name: ClassVar[str]
    Config: ClassVar[type[ScenarioConfig]]
    sample: ClassVar[Mapping[str, Any]] = {}
    """Settings of a small world, for tests and examples."""
    int_metrics: ClassVar[tuple[str, ...]] = ()
    """Names that `step` may pass to ``ctx.metric`` with whole numbers. `check_scenario` uses alive, births, deaths."""
    float_metrics: ClassVar[tuple[str, ...]] = ()
    sum_metrics: ClassVar[tuple[str, ...]] = ()
    """Names that `step` may pass to ``ctx.metric_sum``: exact sums, int64 on the host."""
    size_setting: ClassVar[str | None] = None
    """The field of the config that sets the size of the world."""
    vector_metrics: ClassVar[Mapping[str, int]] = {}
    """Names and lengths of whole-number vectors (histograms) that `step` may pass to ``ctx.metric``."""
    controls: ClassVar[tuple[str, ...]] = ()
    """Names of the controls that `control` accepts."""
    quiet: ClassVar[Mapping[str, Any]] = {}
    """Settings besides ``plants`` of a world in which nothing is planted."""

    @abstractmethod
    def static(self, config: Any) -> Hashable:
        """The hashable part of the config: shapes, capacities, switches."""

    @abstractmethod
    def params(self, config: Any) -> Any:
        """The numeric part of the config, a pytree of NumPy arrays or scalars (never Python floats in ``static``)."""

    @abstractmethod
    def islands(self, config: Any) -> int:
        """Number of islands; each is stepped on its own, on any device, in any order."""

    @abstractmethod
    def slots(self, static: Any) -> int:
        """Slots of one island. Place of a slot in ids = island * slots + slot."""

    @abstractmethod
    def events(self, static: Any) -> tuple[EventSpec, ...]:
        """Kinds of events that `step` emits. Their streams get watermarks also in intervals without rows."""

    @abstractmethod
    def init(self, static: Any, params: Any, ctx: Context) -> Any:
        """State of one island (``ctx.island``) before tick 0; traced like `step`."""

    @abstractmethod
    def step(self, static: Any, params: Any, state: Any, ctx: Context) -> Any:
        """State after one tick. Pure: events and metrics go through ``ctx``."""

    def capacities(self, static: Any) -> Mapping[str, int]:
        """Initial sizes of growable buffers other than events': ``ctx.capacity(name)`` and ``ctx.need(name, count)``.

        The result of a run does not depend on them: a chunk that would overflow is run again with larger ones.
        """
        del static
        return {}

    def largest(self, static: Any) -> Mapping[str, int]:
        """Rows of each buffer that hold what any tick can need, kinds of events included; by default a row per slot.

        A tick that needs more than its buffer holds is run again with these. One that needs even more is run again
        with a program that is compiled first, which takes seconds.
        """
        del static
        return {}

    def report(self, config: Any, interval: Interval, memory: dict[str, Any]) -> Iterable[HostRow]:
        """Rows that the host adds for an interval. ``memory`` lasts over the run (JSON values only; checkpointed)."""
        del config, interval, memory
        return ()

    def report_streams(self, config: Any) -> tuple[str, ...]:
        """Streams that `report` may add rows to."""
        del config
        return ()

    def lanes(self) -> Mapping[str, int]:
        """Whole-number metrics in the order in which they are recorded, with their lengths; sums take two words."""
        singles = dict.fromkeys(self.int_metrics, 1)
        return {**singles, **dict.fromkeys(self.sum_metrics, 2), **self.vector_metrics}

    def control(self, config: Any, params: Any, name: str, message: Mapping[str, Any]) -> Any:
        """Params after a message of ``control.<name>``. Raises InvalidControl, which says what was expected."""
        del config, params, message
        raise InvalidControl(f"scenario {self.name!r} has no control {name!r}")

    def violations(self, config: Any, state: Any, interval: Interval) -> Iterable[str]:
        """Errors in the state of one island (NumPy arrays) after an interval; empty if the state is valid."""
        del config, state, interval
        return ()


def _check(name: str, made: Scenario) -> None:
    if not isinstance(getattr(made, "name", None), str):
        raise InvalidSettings(f"scenario {name!r}: {type(made).__name__} has no name; set the attribute name, a text")


SCENARIOS: Final[Registry[Scenario]] = Registry(
    "scenario",
    group="astrocyte.scenarios",
    shipped={
        name: f"astrocyte.simulator.scenarios.{name}.scenario:{name.upper()}"
        for name in ("axons", "cells", "dna", "ecology", "kernels")
    },
    of=Scenario,
    check=_check,
)
"""Scenarios by name; each is loaded on first use."""


def register_scenario(scenario: Scenario | type[Scenario]) -> Any:
    """Register a scenario under its ``name``; as a decorator it returns the class. Raises InvalidSettings."""
    name = getattr(scenario, "name", None)
    if name is None:
        what = scenario.__name__ if isinstance(scenario, type) else type(scenario).__name__
        raise InvalidSettings(f"register_scenario: {what} has no name; expected a Scenario or its class, with a name")
    SCENARIOS.register(name, scenario)
    return scenario


def scenario_names() -> tuple[str, ...]:
    """Names of all scenarios, shipped, registered and installed, without loading any."""
    return tuple(sorted(SCENARIOS.names()))


def require_scenario(scenario: str) -> None:
    """Raise InvalidSettings for a name that no scenario has, and where JAX is missing, which runs them."""
    if ":" not in scenario and scenario not in SCENARIOS:
        raise InvalidSettings(SCENARIOS.unknown(scenario))
    try:
        import_module("jax")
    except ModuleNotFoundError as error:
        raise InvalidSettings(
            f"scenario {scenario!r} needs JAX, which is not installed: pip install 'astrocyte[simulator]'"
        ) from error


def load_scenario(scenario: str | Scenario) -> Scenario:
    """The scenario of that name (a `Scenario` is returned unchanged). Raises InvalidSettings with the known names.

    A name may also be ``module:object``, for a scenario that is not registered.
    """
    if isinstance(scenario, Scenario):
        return scenario
    if ":" in scenario:
        return SCENARIOS.converted(scenario, import_object(scenario, f"scenario {scenario!r}"))
    return SCENARIOS.get(scenario)

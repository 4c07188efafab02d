"""What a study is, the registry of studies, and `run_study`.

::

    @register_study("wealth")
    def wealth(run):
        config = run.config("cells", {"size": 256})
        worlds = [BatchWorld(config, seed) for seed in run.seeds]
        found = run.worlds("cells", worlds, ticks=500, observe=observed)
        return Report(...)

Your own is registered like this in a module of ``ASTROCYTE_PLUGINS``, or by an entry point of ``astrocyte.studies``.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from astrocyte.pipeline.studies.report import Report
from astrocyte.schemas.errors import InvalidSettings, PluginError, wrong_return
from astrocyte.schemas.ids import hash_id
from astrocyte.schemas.registry import Registry, described, takes

if TYPE_CHECKING:
    from astrocyte.simulator.batch import BatchWorld, Founders, Observe, Steer

__all__ = ["STUDIES", "Study", "StudyRun", "register_study", "run_study", "study_command"]

Move = Callable[[int, int | None], None]


@dataclass(slots=True)
class StudyRun:
    """What a study is given: seeds, settings, and the means to run worlds."""

    name: str
    seeds: tuple[int, ...] = ()
    """Seeds of the worlds; empty: the study takes as many as it needs."""
    quick: bool = False
    """Whether a small version is wanted, which shows that it works and decides nothing."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Settings of the scenario that the user gave, in place of the study's."""
    progress: Callable[[str, int, int], None] | None = None

    def seeds_or(self, usual: int, quick: int) -> tuple[int, ...]:
        """The seeds that were asked for, else the first ``usual``, or ``quick`` of a small version."""
        return self.seeds or tuple(range(quick if self.quick else usual))

    def config(self, scenario: str, base: Mapping[str, Any], varied: Mapping[str, Any] | None = None) -> Any:
        """Config of a scenario: the study's ``base``, the user's settings, and what the study varies.

        Raises InvalidSettings for a setting that is wrong, and for a user's one that the study varies itself.
        """
        from astrocyte.simulator.config import configure
        from astrocyte.simulator.scenario import load_scenario

        both = self.settings.keys() & (varied or {}).keys()
        if both:
            raise InvalidSettings(f"study {self.name!r} varies {min(both)} itself; leave --set {min(both)} out")
        values = {**base, **self.settings, **(varied or {})}
        return configure(load_scenario(scenario).Config, values, scenario=scenario)

    def worlds(
        self,
        scenario: str,
        worlds: Sequence[BatchWorld],
        *,
        ticks: int,
        observe: Observe,
        every: int = 10,
        founders: Founders | None = None,
        steer: Steer | None = None,
        what: str = "worlds",
    ) -> dict[str, NDArray[Any]]:
        """See `run_batch`; progress goes to the user under the name ``what``."""
        from astrocyte.simulator.batch import run_batch

        def moved(done: int, total: int) -> None:
            if self.progress is not None:
                self.progress(what, done, total)

        return run_batch(
            scenario, worlds, ticks=ticks, every=every, observe=observe, founders=founders, steer=steer, progress=moved
        )

    def random(self, *parts: str) -> np.random.Generator:
        """Random numbers for resampling: a function of the study's name and ``parts``."""
        return np.random.Generator(np.random.PCG64(hash_id("study", self.name, *parts).int))


Study = Callable[[StudyRun], Report]


def _convert(name: str, found: Any) -> Study:
    if not takes(found, 1):
        raise InvalidSettings(f"study {name!r}: expected a function of a StudyRun, got {described(found)}")
    return found  # type: ignore[no-any-return]


STUDIES: Final[Registry[Study]] = Registry(
    "study",
    group="astrocyte.studies",
    shipped={
        name: f"astrocyte.pipeline.studies.shipped.{name.replace('-', '_')}:study"
        for name in (
            "architectures", "capacity", "co-evolution", "control", "critical-transition", "mutation-rate",
            "punctuated-equilibrium",
        )
    },
    convert=_convert,
)  # fmt: skip
"""Studies by name; each is loaded on first use."""


def register_study(name: str) -> Callable[[Study], Study]:
    """A decorator that registers a function of a `StudyRun`, which returns a `Report`. Raises InvalidSettings."""

    def add(given: Study) -> Study:
        STUDIES.register(name, given)
        return given

    return add


def run_study(run: StudyRun) -> Report:
    """The report of the study ``run.name``.

    Raises InvalidSettings for an unknown name and wrong settings, and PluginError for a study that returns no report.
    """
    if run.name not in STUDIES:
        raise InvalidSettings(STUDIES.unknown(run.name))
    report = STUDIES.get(run.name)(run)
    if not isinstance(report, Report):
        raise wrong_return(f"study {run.name!r}", report, "a Report")
    if not report.calibration or not report.limits:
        raise PluginError(
            f"study {run.name!r}: its report has no {'limits' if report.calibration else 'calibration'}; say how far "
            "its estimates can be trusted"
        )
    return replace(report, quick=run.quick)


def study_command(run: StudyRun) -> str:
    """The command that repeats a run."""
    words = ["astrocyte", "study", run.name]
    if run.seeds:
        words += ["--seeds", str(len(run.seeds))]
        words += ["--seed", str(run.seeds[0])] if run.seeds[0] else []
    words += ["--quick"] if run.quick else []
    for name, value in run.settings.items():
        words += ["--set", f"{name}={value if isinstance(value, str) else json.dumps(value)}"]
    return shlex.join(words)

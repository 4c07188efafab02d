"""The runner of experiments: every run of a sweep is a simulation of one experiment in one database."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from astrocyte.agents.stores.experiment import ExperimentDatabase, SimulationContext
from astrocyte.agents.stores.logger import FlushFailed
from astrocyte.pipeline.experiments.comparison import Comparison, RunResult, compare
from astrocyte.pipeline.experiments.measures import Measured, stream_measures
from astrocyte.pipeline.experiments.sweep import Run, Sweep
from astrocyte.schemas.errors import AstrocyteError, InvalidSettings
from astrocyte.schemas.frames import Frame
from astrocyte.schemas.topics import TRUTH

__all__ = ["ExperimentRunner", "RunFunction", "results_of"]

RunFunction = Callable[[SimulationContext, Mapping[str, Any], int], Mapping[str, Any] | None]
"""One run: (context, settings, seed) to its results, a mapping of JSON values. The context's logger writes rows."""

_RESULTS: Final = "results"


class ExperimentRunner:
    """Runs the simulations of a sweep one after another, and stores settings, status and results of each.

    ``run`` is a function of (context, settings, seed) that returns the results of a run; without one, runs are those of
    the sweep's scenario. ``address`` is that of the database, as for `ExperimentDatabase`. A run that is completed is
    not run again, so an interrupted sweep is continued by running it again; one that failed is repeated.
    """

    def __init__(self, address: str | Path, sweep: Sweep, run: RunFunction | None = None) -> None:
        if run is None and (sweep.scenario is None or sweep.ticks is None):
            raise InvalidSettings(
                f"experiment {sweep.experiment!r} has no scenario and ticks; give both, or a function run(context, "
                "settings, seed)"
            )
        self.sweep = sweep
        self._address = address
        self._run = run or _scenario_runs(sweep)
        self._runs = list(sweep.runs())

    def run(
        self,
        *,
        progress: Callable[[int, int, RunResult], None] | None = None,
        stop: Callable[[], bool] = lambda: False,
    ) -> list[RunResult]:
        """Run what is not completed, and return the results of all runs in the order of the sweep.

        ``progress`` is called after each run with the number done and their total. Between two runs ``stop`` ends the
        sweep; the runs that remain are left out. The exception of a run makes it failed, and the next one follows.
        """
        sweep = self.sweep
        details = {"hypothesis": sweep.hypothesis, "description": sweep.description}
        variables = {"settings": sweep.settings, "vary": {name: list(each) for name, each in sweep.vary.items()}}
        results: list[RunResult] = []
        with ExperimentDatabase(self._address, sweep.experiment) as database:
            given = {name: value for name, value in details.items() if value is not None}
            database.update_experiment(status="running", variables=variables, **given)
            known = {result.simulation_id: result for result in results_of(database)}
            for run in self._runs:
                if stop():
                    break
                before = known.get(run.simulation_id)
                if before is not None and before.status == "completed":
                    result = RunResult(
                        run.simulation_id, run.varied, run.seed, "completed", before.results, skipped=True
                    )
                else:
                    result = self._one(database, run, resume=before is not None)
                results.append(result)
                if progress is not None:
                    progress(len(results), len(self._runs), result)
            finished = len(results) == len(self._runs)
            failed = sum(result.status == "failed" for result in results)
            status = "failed" if failed else "completed" if finished else "stopped"
            summary = {
                "runs": len(self._runs), "completed": len(results) - failed, "failed": failed,
                "comparison": compare(results).as_dict()["rows"],
            }  # fmt: skip
            database.update_experiment(status=status, results_summary=summary)
        return results

    def compare(self) -> Comparison:
        """The stored results of all runs; reads the database and writes nothing."""
        with ExperimentDatabase(self._address, self.sweep.experiment) as database:
            return compare(results_of(database))

    def _one(self, database: ExperimentDatabase, run: Run, *, resume: bool) -> RunResult:
        parameters = {
            "scenario": self.sweep.scenario, "seed": run.seed, "varied": run.varied, "settings": run.settings
        }  # fmt: skip
        context = database.create_simulation_context(run.simulation_id, parameters=parameters, resume=resume)
        try:
            results = dict(self._run(context, run.settings, run.seed) or {})
            context.finish("completed", {_RESULTS: results})
        except Exception as error:  # noqa: BLE001  the sweep goes on, and the run says what it was
            reason = str(error) if isinstance(error, AstrocyteError) else f"{type(error).__name__}: {error}"
            with suppress(FlushFailed):
                context.finish("failed", {"error": reason})
            return RunResult(run.simulation_id, run.varied, run.seed, "failed", {}, reason)
        except BaseException:  # Ctrl-C: the run has not ended, and is repeated by the next call
            with suppress(FlushFailed):
                context.finish("failed", {"error": "interrupted"})
            raise
        return RunResult(run.simulation_id, run.varied, run.seed, "completed", results)


def results_of(database: ExperimentDatabase) -> list[RunResult]:
    """The runs of an experiment as they are stored, in the order in which they were started."""
    if database.experiment_id not in {each.experiment_id for each in database.experiments()}:
        return []
    found = []
    for each in sorted(database.simulations(), key=lambda each: (str(each.start_time), each.simulation_id)):
        parameters = each.parameters if isinstance(each.parameters, dict) else {}
        summary = each.results_summary if isinstance(each.results_summary, dict) else {}
        found.append(
            RunResult(
                each.simulation_id,
                parameters.get("varied") or {},
                int(parameters.get("seed") or 0),
                each.status or "unknown",
                summary.get(_RESULTS, {}),
                summary.get("error"),
            )
        )
    return found


def _scenario_runs(sweep: Sweep) -> RunFunction:
    first = sweep.seeds[0]
    for run in sweep.runs():  # a wrong setting is found before the first run, and not after hours
        if run.seed == first:
            _config_of(sweep, run.settings)

    def run_one(context: SimulationContext, settings: Mapping[str, Any], seed: int) -> Mapping[str, Any]:
        return _run_scenario(sweep, settings, seed, context.simulation_id)

    return run_one


def _config_of(sweep: Sweep, settings: Mapping[str, Any]) -> Any:
    from astrocyte.pipeline.simulation.run import scenario_config

    assert sweep.scenario is not None
    given = dict(settings)
    return scenario_config(sweep.scenario, given, given.pop("size", None))


def _run_scenario(sweep: Sweep, settings: Mapping[str, Any], seed: int, run: str) -> Mapping[str, Any]:
    """One run of the sweep's scenario: its measures, else those of `stream_measures`.

    A scenario without rows about its whole world has its metrics of the last tick besides.
    """
    from astrocyte.pipeline.settings import load_settings
    from astrocyte.pipeline.simulation.log_sink import LogSink
    from astrocyte.simulator.emission.emitter import CallableSink
    from astrocyte.simulator.run import simulate
    from astrocyte.simulator.scenario import load_scenario

    assert sweep.scenario is not None
    world, config = load_scenario(sweep.scenario), _config_of(sweep, settings)
    whole = tuple(name for name in world.report_streams(config) if name != TRUTH)
    emitted = dict.fromkeys((*(spec.stream for spec in world.events(world.static(config))), *whole))
    measured = Measured(sweep.measured() or stream_measures(emitted, whole))
    log = None
    if sweep.logs is not None:
        sweep.logs.mkdir(parents=True, exist_ok=True)
        path = sweep.logs / f"{run}.jsonl.zst"
        log = LogSink(path, partitions=load_settings().partitions, overwrite=True, source=f"experiment {run}")

    def write(frame: Frame) -> None:
        measured.add(frame)
        if log is not None:
            log.write(frame)

    try:
        summary = simulate(
            world,
            config,
            seed=seed,
            ticks=sweep.ticks,
            sink=CallableSink(write),
            run=run,
        )
    finally:
        if log is not None:
            log.close()
    if sweep.measures or whole:
        return measured.results()
    return measured.results() | {f"last.{name}": value for name, value in summary.metrics.items()}

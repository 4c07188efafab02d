"""Commands that run something: demo, broker, simulate, worker, health, bench."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from astrocyte.pipeline.cli.options import (
    AsJson,
    Broker,
    benchmark_names,
    pairs,
    rule_names,
    scenario_names,
    simulated,
    worker_roles,
)
from astrocyte.pipeline.console import print_json, printable, say
from astrocyte.pipeline.stopping import ends_on_signal
from astrocyte.schemas.errors import AstrocyteError

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add the commands to ``app``."""
    app.command("demo")(demo_command)
    app.command("broker")(broker_command)
    app.command("simulate")(simulate_command)
    app.command("worker", context_settings={"allow_extra_args": True, "ignore_unknown_options": True})(worker_command)
    app.command("health")(health_command)
    app.command("bench")(bench_command)


def demo_command(
    *,
    seconds: Annotated[
        float, typer.Option(min=1, max=86_400, help="Simulated seconds; the demo takes about as long.")
    ] = 20.0,
    scenario: Annotated[
        str,
        typer.Option(help="axons, cells, ecology, kernels, dna, or your own scenario.", autocompletion=scenario_names),
    ] = "axons",
    data: Annotated[Path, typer.Option(metavar="DIR", help="Folder for the data of the demo.")] = Path("demo-data"),
    seed: Annotated[int, typer.Option(min=0, help="Seed of the run; the same seed gives the same events.")] = 7,
    size: Annotated[int | None, typer.Option(min=1, help="Size of the world: domains, cells or agents.")] = None,
    partitions: Annotated[int, typer.Option(min=1, max=64, help="Partitions of every topic.")] = 4,
    shuffle: Annotated[bool, typer.Option(help="Send rows out of order, within the allowed lateness.")] = False,
    rules: Annotated[
        list[Path] | None, typer.Option(help="Rule files instead of the scenario's own.", autocompletion=rule_names)
    ] = None,
    database: Annotated[
        str | None,
        typer.Option("--db", metavar="URL", help="SQL database to use instead of an SQLite file in the folder."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Run the whole pipeline on this machine: broker, simulator, workers and stores, with live progress."""
    with ends_on_signal() as stop:
        if not as_json:
            say(
                f"demo of the world {scenario}: broker, workers, stores and a page on this machine, for {seconds:g} s "
                f"of events; data in {data}. Ctrl-C ends it"
            )
            say(f"{scenario}: loading the simulator ...")
        simulated(scenario)
        from astrocyte.pipeline.demo.demo import Demo
        from astrocyte.pipeline.demo.options import DemoOptions
        from astrocyte.pipeline.simulation.compilations import keep_compilations

        keep_compilations()
        options = DemoOptions(
            scenario=scenario, seconds=seconds, data=data, seed=seed, size=size, partitions=partitions,
            shuffle=shuffle, rules=tuple(str(path) for path in rules or ()), database=database,
        )  # fmt: skip
        summary = Demo(options).run(quiet=as_json, stop=stop)
        if as_json:
            print_json(summary.as_json())
        else:
            summary.show()


def broker_command(
    *,
    data: Annotated[Path | None, typer.Option(metavar="DIR", help="Folder for the records.")] = None,
    port: Annotated[int, typer.Option(min=0, max=65_535, help="Port on 127.0.0.1; 0 chooses a free one.")] = 9092,
    partitions: Annotated[int | None, typer.Option(min=1, help="Default number of partitions of a topic.")] = None,
    sync: Annotated[
        Literal["always", "interval"],
        typer.Option(
            help="When records are on disk: before they are acknowledged, or within a second after; a power failure "
            "may lose those."
        ),
    ] = "always",
) -> None:
    """Run the embedded broker alone; any Kafka client can connect. Ctrl-C stops it."""
    from astrocyte.pipeline.broker import BrokerSettings, serve
    from astrocyte.pipeline.logging import configure_logging
    from astrocyte.pipeline.settings import load_settings

    settings = load_settings(partitions=partitions)
    configure_logging(settings.log_level, json=settings.log_json)
    folder = data or settings.data_dir
    serve(
        BrokerSettings(data_dir=folder, port=port, default_partitions=settings.partitions, sync=sync),
        on_ready=lambda address: say(f"broker ready at {address}, records in {folder}; Ctrl-C stops it"),
    )


def simulate_command(
    scenario: Annotated[
        str,
        typer.Argument(
            help="axons, cells, ecology, kernels, dna, or your own scenario.", autocompletion=scenario_names
        ),
    ],
    *,
    ticks: Annotated[int | None, typer.Option(min=1, help="Ticks to simulate.")] = None,
    seconds: Annotated[float | None, typer.Option(min=0.001, help="Simulated seconds instead of ticks.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed; the same seed gives the same events.")] = 0,
    size: Annotated[int | None, typer.Option(min=1, help="Size of the world: domains, cells or agents.")] = None,
    rate: Annotated[float | None, typer.Option(min=0.001, help="Maximum number of events in each second.")] = None,
    realtime: Annotated[bool, typer.Option(help="Run at the speed of real time.")] = False,
    setting: Annotated[
        list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="A setting of the scenario; repeatable.")
    ] = None,
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="Write to a recorded log instead of Kafka.")] = None,
    form: Annotated[str, typer.Option("--format", help="frames, or json for one record in each message.")] = "frames",
    partitions: Annotated[int | None, typer.Option(min=1, help="Partitions of the topics.")] = None,
    checkpoint: Annotated[Path | None, typer.Option(metavar="FILE", help="Save the state to this file.")] = None,
    checkpoint_ticks: Annotated[int | None, typer.Option(min=1, help="Ticks between checkpoints.")] = None,
    resume: Annotated[bool, typer.Option(help="Continue from the checkpoint if it exists.")] = False,
    force: Annotated[bool, typer.Option(help="Replace the file of --out.")] = False,
    run: Annotated[str | None, typer.Option(help="Name of the run; part of every event's id.")] = None,
    broker: Broker = None,
    as_json: AsJson = False,
) -> None:
    """Run a scenario: its events go to Kafka, or to a recorded log with --out."""
    with ends_on_signal() as stop:
        simulated(scenario)
        from astrocyte.pipeline.simulation.compilations import keep_compilations
        from astrocyte.pipeline.simulation.run import SimulationOptions, run_simulation

        keep_compilations()
        if ticks is None and seconds is None:
            seconds = 10.0
        options = SimulationOptions(
            scenario=scenario, ticks=ticks, seconds=seconds, seed=seed, size=size, rate=rate, realtime=realtime,
            settings=pairs(setting or ()), out=out, form=form, partitions=partitions, checkpoint=checkpoint,
            checkpoint_ticks=checkpoint_ticks, resume=resume, overwrite=force, run=run, broker=broker,
        )  # fmt: skip
        summary = run_simulation(options, quiet=as_json, stop=stop)
        if as_json:
            print_json(summary)
        if not as_json or stop.number is not None:
            events = ", ".join(f"{stream} {count:,}" for stream, count in summary["events"].items())
            stopped = "astrocyte: stopped, " if stop.number is not None else ""
            where = "" if summary["experiment"] is None else f" of experiment {summary['experiment']}"
            took = f"{summary['end_tick']:,} ticks in {summary['wall_s']:.1f} s"
            say(f"{stopped}run {summary['run']}{where}: {took}; {events}")
        if stop.number is not None:
            stop.end()


def worker_command(
    context: typer.Context,
    *,
    rules: Annotated[
        list[Path] | None,
        typer.Option(
            help="Rule file, or name of a shipped one; repeatable, or with commas.", autocompletion=rule_names
        ),
    ] = None,
    role: Annotated[
        list[str] | None,
        typer.Option(
            help="Role: correlate, repartition, insight, control, sql, influx, audit, file, webhook, alertmanager, or "
            "your own; repeatable, or with commas.",
            autocompletion=worker_roles,
        ),
    ] = None,
    stream: Annotated[list[str] | None, typer.Option(help="Stream to read in addition to those of the rules.")] = None,
    broker: Broker = None,
) -> None:
    """Run a Faust worker: one process for one role, or one child process for each. Faust's own options go after --."""
    from astrocyte.pipeline.roles.worker import run_roles
    from astrocyte.pipeline.settings import load_settings

    settings = load_settings(
        broker=broker,
        rules=tuple(Path(each) for each in _split(map(str, rules))) if rules else None,
        roles=_split(role) if role else None,
        streams=_split(stream) if stream else None,
    )
    run_roles(settings, context.args)


def _split(values: Iterable[str]) -> tuple[str, ...]:
    """Values of a repeatable option, each of which may also be a list with commas, as in the settings."""
    return tuple(part.strip() for value in values for part in value.split(",") if part.strip())


def health_command(*, broker: Broker = None, as_json: AsJson = False) -> None:
    """Show whether every role of the settings has a live worker and event time goes on, and what to do if not.

    With ASTROCYTE_METRICS_PORT also what the worker there says of itself. Exit status 1 if something has to be done.
    """
    from astrocyte.pipeline.roles.health import group_health
    from astrocyte.pipeline.settings import load_settings
    from astrocyte.pipeline.watch.ask import WorkerUnreachable, roles_of_worker

    settings = load_settings(broker=broker)
    states = asyncio.run(group_health(settings))
    unreachable = ""
    if settings.metrics_port:
        try:
            for role, found in roles_of_worker(settings).items():
                states.setdefault(role, {})["process"] = found
        except WorkerUnreachable as error:
            unreachable = str(error)
    if as_json:
        print_json(states)
    else:
        for role, state in states.items():
            _show_role(role, state)
    if unreachable:
        # Workers of other machines may be well.
        say(f"astrocyte: {unreachable}")
    if any(state.get("members") == 0 for state in states.values()):
        raise AstrocyteError("a role has no live worker; see the lines above")
    if not all(state["process"]["ready"] for state in states.values() if "process" in state):
        raise AstrocyteError("a role of the worker is not ready; the lines above say what it waits for")
    if any(not stall["passes"] for state in states.values() for stall in state.get("stalls", ())):
        raise AstrocyteError("event time stands still; the lines above say what it waits for")


def _show_role(role: str, state: Mapping[str, Any]) -> None:
    if "members" in state:
        lag = "nothing read yet" if state["lag"] is None else f"lag {state['lag']:,}"
        waiting = f", {state['waiting']:,} events wait" if state.get("waiting") else ""
        members = f"{state['members']} member{'' if state['members'] == 1 else 's'}"
        sys.stdout.write(f"{role}: {members}, {state['state']}, {lag}{waiting}\n")
    else:
        sys.stdout.write(f"{role}: no consumer group yet\n")
    names = ("do", "rules", "unstored", "waits", "copies", "lines", "absent")
    lines = [line for name in names for line in state.get(name, ())]
    if state.get("lines"):
        lines.append(f"the newest of these counts are of {state['reported']}")
    process = state.get("process")
    if process is not None:
        what = "is ready" if process["ready"] else "is not ready"
        lines.append(f"the worker here {what}{''.join(f'; {each}' for each in process['waits'])}")
        lines += [f"{each['line']}; {each['remedy']}" for each in process.get("standstills", ())]
        lines += [f"{number} restarts: {cause}" for cause, number in process.get("restarts", {}).items()]
    for line in lines:
        sys.stdout.write(f"  {printable(line)}\n")


def bench_command(
    names: Annotated[
        list[str] | None,
        typer.Argument(help="Benchmarks to run; all but worlds by default.", autocompletion=benchmark_names),
    ] = None,
    *,
    quick: Annotated[bool, typer.Option(help="Smaller runs, to check that they work.")] = False,
    as_json: AsJson = False,
) -> None:
    """Run benchmarks on this machine."""
    from astrocyte.pipeline.bench import run_benchmarks

    run_benchmarks(names or (), quick=quick, as_json=as_json)

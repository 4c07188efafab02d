"""``astrocyte demo``: the whole pipeline on one machine, from the broker to the stores, ending by itself."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Final

from astrocyte.agents.accounting import OUTCOMES, accounted
from astrocyte.agents.warm import warm
from astrocyte.pipeline.analysis.backtest import recorded_outputs
from astrocyte.pipeline.analysis.score import Score, planted_in, score_outputs
from astrocyte.pipeline.broker import BrokerProcess
from astrocyte.pipeline.console import say
from astrocyte.pipeline.demo.options import DemoOptions
from astrocyte.pipeline.demo.simulation import Simulation
from astrocyte.pipeline.demo.view import DemoView, Summary
from astrocyte.pipeline.demo.world import idle_processors, usual_world
from astrocyte.pipeline.page.link import PageLink
from astrocyte.pipeline.roles.health import group_lag
from astrocyte.pipeline.roles.worker import RoleProcesses, environment_of, needed_roles
from astrocyte.pipeline.settings import Settings, load_settings
from astrocyte.pipeline.simulation.run import scenario_config, world_settings
from astrocyte.pipeline.stopping import Stop
from astrocyte.pipeline.topology.rule_files import read_rule_files, shipped_rules
from astrocyte.pipeline.topology.topics import make_topics, mono_topics
from astrocyte.schemas.errors import AstrocyteError, InvalidSettings
from astrocyte.schemas.topics import (
    ALERTS,
    CLOCK,
    DEAD_LETTERS,
    LATE,
    METRICS_PREFIX,
    MULTI_EVENTS,
    SAMPLING,
    SIMULATIONS,
    STATS,
    TOPOLOGY,
)

__all__ = ["Demo"]

_MARK: Final = "astrocyte-demo.json"
_LEFT: Final = ("broker", "influx", "logs", "astrocyte.db", "astrocyte.db-wal", "astrocyte.db-shm", "events.jsonl.zst")
_GRACE_S: Final = 120.0
"""Time without progress, once all events are emitted, after which unprocessed events count as lost."""
_SLACK_US: Final = 10_000_000
"""Time after a planted anomaly in which an alert still belongs to it, besides that of its rule."""
_START_S: Final = 60.0
"""Time after which events are sent although a worker that correlates them is not ready: it reads them later."""
_FIRST: Final = ("repartition", "insight", "correlate")
_STOP_S: Final = 20.0
"""Time that the simulation has for ending its chunk."""
_COUNTED: Final = (*OUTCOMES, "matches", "alerts")


class Demo:
    """One demo: `run` executes it and leaves its data in the folder of the options."""

    def __init__(self, options: DemoOptions) -> None:
        from astrocyte.simulator.emission.assembly import Assembler
        from astrocyte.simulator.scenario import load_scenario

        self._options = options
        self._kept = f"what the demo has stored so far is in {options.data}"
        self._simulation: Simulation | None = None
        self._roles: RoleProcesses | None = None
        self._broker: BrokerProcess | None = None
        self._page: PageLink | None = None
        settings = world_settings(options.scenario, options.seconds)
        self._note: str | None = None
        if options.size is None:
            usual, self._note = usual_world(options.scenario, idle_processors())
            settings |= usual
        self._config = scenario_config(options.scenario, settings, options.size)
        world = load_scenario(options.scenario)
        self._streams = Assembler(world, self._config, "").streams
        self._controls = bool(world.controls)
        rules = options.rules or ((options.scenario,) if options.scenario in shipped_rules() else ("axons",))
        self._rules = tuple(Path(name) for name in rules)
        self._database = options.database or f"sqlite:///{options.data.resolve() / 'astrocyte.db'}"

    def run(self, *, quiet: bool = False, stop: Stop | None = None) -> Summary:
        """Run the pipeline, wait until every event is processed and stored, and count the results.

        A stop ends all its processes; what they had stored stays in the folder.
        """
        began_s = time.monotonic()
        if stop is not None:
            stop.guard(self._rescue, finishes=False, otherwise=self._kept)
        with DemoView(self._options.scenario, self._options.seconds, quiet=quiet) as view:
            if self._note is not None:
                view.note(self._note)
            simulation, counts, sent_s = self._run(view)
            data = self._options.data
            view.stage("comparing the alerts with what was planted")
            scores = _scores(self._rules, data / "events.jsonl.zst")
            view.stage("counting what was stored")
            return Summary.gather(
                data=data,
                database=self._options.database or f"sqlite:///{data / 'astrocyte.db'}",
                emitted=simulation.emitted,
                counts=counts,
                seconds=time.monotonic() - began_s,
                sent_s=sent_s,
                run=simulation.run_name,
                rules=self._rules,
                world=simulation.world.course if simulation.world is not None else {},
                scores=scores,
            )

    def _run(self, view: DemoView) -> tuple[Simulation, Mapping[str, int], float]:
        """The simulation that has ended, the counts, and the seconds from the first event until all were stored."""
        # The world is compiled while broker and workers start.
        self._simulation = simulation = Simulation(self._options, self._config)
        simulation.start()
        try:
            return self._run_beside(simulation, view)
        finally:
            simulation.stop()
            simulation.join(_STOP_S)

    def _run_beside(self, simulation: Simulation, view: DemoView) -> tuple[Simulation, Mapping[str, int], float]:
        data = self._options.data
        view.stage("loading the rules")
        warm(read_rule_files(self._rules))  # here, where the user sees the notice, and before other processes run
        _clear(data)
        (data / "logs").mkdir(parents=True)
        mark = {"scenario": self._options.scenario, "seed": self._options.seed, "rules": list(map(str, self._rules))}
        (data / _MARK).write_text(json.dumps(mark))
        view.stage("starting the broker")
        self._broker = BrokerProcess(data / "broker", default_partitions=self._options.partitions)
        with (
            self._broker as broker,
            (data / "logs" / "worker.log").open("w") as log,
            (data / "logs" / "page.log").open("w") as page_log,
        ):
            settings = self._settings(broker.address)
            asyncio.run(make_topics(settings, [*mono_topics(self._streams), MULTI_EVENTS, ALERTS, LATE, DEAD_LETTERS]))
            self._page = page = PageLink(settings, environment_of(settings), output=page_log, demo=data)
            with page, self._workers(settings, log) as workers:
                view.note(f"look at the worlds, the findings and the pipeline while this runs: {page.address}")
                counts = asyncio.run(self._watch(settings, simulation, workers, view))
                sent_s = time.monotonic() - simulation.first_s if simulation.first_s is not None else 0.0
            view.stage("recording the topics")
            asyncio.run(_record(settings.broker, data / "events.jsonl.zst"))
        return simulation, counts, sent_s

    def _rescue(self) -> str:
        """End the processes, called on another thread when the demo is stopped; together they get a second.

        Workers and broker are safe against being killed: what was confirmed is stored.
        """
        if self._simulation is not None:
            self._simulation.stop()
            self._simulation.join(0.2)
        if self._roles is not None:
            self._roles.stop(0.6)
        if self._page is not None:
            self._page.stop(0.1)
        if self._broker is not None:
            self._broker.stop(0.3)
        return self._kept

    def _look_after_page(self) -> None:
        if self._page is not None:
            self._page.check()

    def _settings(self, address: str) -> Settings:
        data = self._options.data.resolve()
        settings = load_settings(
            broker=address,
            partitions=self._options.partitions,
            rules=self._rules,
            streams=self._streams,
            roles=("correlate", "sql", "influx", *(("control",) if self._controls else ())),
            sql_url=self._database,
            influx_dir=data / "influx",
            data_dir=data / "broker",
            experiment="demo",
        )
        return settings.model_copy(update={"roles": needed_roles(settings)})

    @contextlib.contextmanager
    def _workers(self, settings: Settings, log: IO[str]) -> Iterator[RoleProcesses]:
        # The stores start once events flow: what they miss is in the topics, and two processors start half as much.
        first = tuple(role for role in settings.roles if role in (*_FIRST, "control"))
        self._roles = workers = RoleProcesses(settings, first, output=log)
        workers.start()
        try:
            yield workers
        finally:
            workers.stop()

    async def _watch(
        self, settings: Settings, simulation: Simulation, workers: RoleProcesses, view: DemoView
    ) -> Mapping[str, int]:
        stats = _Stats(settings.broker)
        reading = asyncio.create_task(stats.follow())
        waits_until_s = time.monotonic() + _START_S
        try:
            while simulation.is_alive():
                workers.check(time.monotonic())
                self._look_after_page()
                starting = [role for role in workers.starting if role in _FIRST]
                if not starting or time.monotonic() > waits_until_s:
                    simulation.begin(settings)
                if simulation.first_s is None:
                    workers_wait = [f"starting the workers ({', '.join(starting)})"] if starting else []
                    view.stage("; ".join([*workers_wait, *simulation.preparing]) or "sending the first events")
                else:
                    workers.add(settings.roles)
                    view.update(simulation.simulated_s, stats.totals(), simulation.world_now, sent=simulation.sent)
                await asyncio.sleep(0.25)
            if simulation.failure is not None:
                raise AstrocyteError(f"the simulation failed: {simulation.failure}") from simulation.failure
            await self._drain(settings, simulation, stats, workers, view)
        finally:
            simulation.stop()
            await asyncio.to_thread(simulation.join, _STOP_S)
            reading.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await reading
        return stats.totals()

    async def _drain(
        self, settings: Settings, simulation: Simulation, stats: _Stats, workers: RoleProcesses, view: DemoView
    ) -> None:
        """Wait until every event is accounted for and stored; ends after `_GRACE_S` without progress."""
        seen: object = None
        moved_s = time.monotonic()
        workers.add(settings.roles)
        while time.monotonic() - moved_s < _GRACE_S:
            workers.check(time.monotonic())
            self._look_after_page()
            totals = stats.totals()
            view.update(self._options.seconds, totals, simulation.world_now, sent=simulation.emitted, draining=True)
            # In the order in which roles read one another: output is in Kafka before the lag of its readers is read.
            roles = sorted(settings.roles, key=lambda role: _FIRST.index(role) if role in _FIRST else len(_FIRST))
            lags: list[int | None] = []
            if accounted(totals) >= simulation.emitted:  # before that the answer is known, and asking takes time
                lags = [await group_lag(settings.broker, f"{settings.group}-{role}") for role in roles]
                if not any(lag != 0 for lag in lags):
                    return
            if (totals, lags) != seen:
                seen, moved_s = (totals, lags), time.monotonic()
            await asyncio.sleep(0.2)
        say(f"astrocyte: no progress for {_GRACE_S:.0f} s; events that were not processed count as lost")


class _Stats:
    """Counters of all domains, read from the stats topic."""

    def __init__(self, broker: str) -> None:
        self._broker = broker
        self._newest: dict[bytes, dict[str, int]] = {}

    def totals(self) -> dict[str, int]:
        """Sum of each counter over all domains."""
        return {name: sum(each.get(name, 0) for each in self._newest.values()) for name in _COUNTED}

    async def follow(self) -> None:
        """Read until cancelled."""
        from aiokafka import TopicPartition

        from astrocyte.pipeline.kafka.client import consumer_client

        async with consumer_client(self._broker) as consumer:
            place = TopicPartition(STATS, 0)
            consumer.assign([place])
            await consumer.seek_to_beginning(place)
            while True:
                for messages in (await consumer.getmany(timeout_ms=200)).values():
                    for message in messages:
                        if message.key is not None and message.value is not None:
                            self._newest[message.key] = json.loads(message.value)


def _scores(rules: tuple[Path, ...], log: Path) -> list[Score]:
    """Scores of the recorded alerts, of the rules for which something was planted."""
    made, raised = recorded_outputs(log)
    scores = score_outputs(read_rule_files(rules), planted_in(log), made, raised, slack_us=_SLACK_US)
    return [score for score in scores if score.planted and not score.absent]


def _clear(data: Path) -> None:
    """Remove the data of an earlier demo. Raises InvalidSettings for a folder with other files."""
    if not data.exists() or not any(data.iterdir()):
        return
    if not (data / _MARK).exists():
        raise InvalidSettings(f"{data} contains files that no demo created; choose an empty folder with --data")
    for name in (*_LEFT, _MARK):
        path = data / name
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


async def _record(broker: str, path: Path) -> None:
    from astrocyte.pipeline.kafka.client import topic_partitions
    from astrocyte.pipeline.recording.record import record

    there = await topic_partitions(broker)
    # Rules without windows have no topics of metrics, and a pattern that matches none is an error.
    windows = [topic for topic in there if topic.startswith(METRICS_PREFIX)]
    # What workers decided by clock and lag: a replay finds what they found only with it.
    decided = [topic for topic in (CLOCK, SAMPLING, TOPOLOGY) if topic in there]
    topics = ["mono.*", SIMULATIONS, *decided, *windows, MULTI_EVENTS, ALERTS, LATE, DEAD_LETTERS]
    await record(broker, topics, path, overwrite=True)

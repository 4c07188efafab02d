"""Real workers over five simulated worlds, and the comparison of what they make with `match` over the recorded log.

A case says when workers start, with which timeouts, how many partitions and workers there are, and how events travel.
Multi events, alerts, results of windows, late events, dead letters and the rows of the SQL store must be those that the
offline run makes of the log that was recorded from the broker.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any, Literal

import orjson

from astrocyte.agents.rules.model import RuleSet
from astrocyte.pipeline.analysis.offline import run_rules
from astrocyte.pipeline.kafka.client import consumer_client, scan, topic_partitions
from astrocyte.pipeline.kafka.record import ConsumedRecord
from astrocyte.pipeline.recording.record import record
from astrocyte.pipeline.roles.health import group_lag
from astrocyte.pipeline.roles.worker import needed_roles
from astrocyte.pipeline.settings import Settings, load_settings
from astrocyte.pipeline.simulation.publish import Form, KafkaSink
from astrocyte.pipeline.topology.rule_files import read_rule_files
from astrocyte.pipeline.topology.topics import make_topics, mono_topics
from astrocyte.schemas.frames import Frame, decode_frame
from astrocyte.schemas.times import NEVER_US
from astrocyte.schemas.topics import ALERTS, CLOCK, DEAD_LETTERS, LATE, MULTI_EVENTS, metrics_topic
from astrocyte.simulator.emission.emitter import MemorySink
from astrocyte.simulator.run import simulate
from tests.support.expected import Rows, expected_rows, messages_for_sinks, rows_of, without_places
from tests.support.role_worker import Worker, stopping
from tests.support.small_worlds import SMALL_WORLDS
from tests.support.waiting import wait_until

__all__ = ["MOMENTS", "SHIPPED", "TIMEOUTS", "Case", "check_case", "covering", "world_frames"]

Moment = Literal["before", "after", "middle", "restarted"]
MOMENTS: tuple[Moment, ...] = ("before", "after", "middle", "restarted")
TIMEOUTS: dict[str, dict[str, str]] = {
    "default": {},
    "short": {"idle_timeout": "300ms", "producer_timeout": "3s", "snapshot_interval": "200ms", "session_timeout": "3s"},
    "long": {"idle_timeout": "20s", "producer_timeout": "1h", "snapshot_interval": "3s", "session_timeout": "4s"},
}
LIMIT_S = 240.0
"""Longest wait for one step; on an idle machine each takes seconds."""
SHIPPED = ("axons", "cells", "dna", "ecology", "kernels")


@dataclass(frozen=True)
class Case:
    """How the workers of one experiment run, and how events reach them."""

    moment: Moment = "before"
    timeouts: str = "default"
    partitions: int = 2
    form: Form = "frames"
    workers: int = 1
    broker: str = "embedded"
    scenarios: tuple[str, ...] = SHIPPED
    roles: tuple[str, ...] = ("correlate", "sql")

    def __str__(self) -> str:
        worlds = "all" if self.scenarios == SHIPPED else "+".join(self.scenarios)
        return f"{worlds}-{self.moment}-{self.timeouts}-{self.partitions}p-{self.form}-{self.workers}w-{self.broker}"


def covering(
    factors: Mapping[str, Sequence[Any]], allowed: Callable[[Mapping[str, Any]], bool] = lambda _each: True
) -> list[dict[str, Any]]:
    """Combinations in which every pair of values of two factors occurs that is allowed, always the same ones."""
    names = list(factors)

    def pairs(chosen: Mapping[str, Any]) -> set[tuple[str, Any, str, Any]]:
        return {(a, chosen[a], b, chosen[b]) for i, a in enumerate(names) for b in names[i + 1 :]}

    everything = [dict(zip(names, values, strict=True)) for values in product(*factors.values())]
    everything = [each for each in everything if allowed(each)]
    missing = set[tuple[str, Any, str, Any]]().union(*map(pairs, everything))
    found = []
    while missing:
        best = max(everything, key=lambda each: len(pairs(each) & missing))
        found.append(best)
        missing -= pairs(best)
    return found


@cache
def world_frames(scenario: str) -> tuple[Frame, ...]:
    """Frames of a small world in which everything happens that the scenario can emit, in the order of emission."""
    ticks, settings = SMALL_WORLDS[scenario]
    kept = MemorySink()
    simulate(scenario, settings, seed=5, ticks=ticks, sink=kept, chunk_ticks=ticks)
    return tuple(kept.frames)


def _together(scenarios: Sequence[str]) -> list[Frame]:
    """Frames of several worlds by event time, as they come where these run at the same time."""
    placed = []
    for scenario in scenarios:
        reached_us = NEVER_US
        for number, frame in enumerate(world_frames(scenario)):
            newest_us = int(frame.timestamps().max()) if frame.num_rows else NEVER_US
            reached_us = max(reached_us, newest_us, frame.watermark_us or NEVER_US)
            placed.append(((reached_us, scenario, number), frame))
    return [frame for _, frame in sorted(placed, key=lambda item: item[0])]


Outputs = dict[str, list[Any]]


@dataclass(slots=True)
class _Run:
    case: Case
    settings: Settings
    ruleset: RuleSet
    folder: Path
    workers: list[Worker] = field(default_factory=list)

    # -- workers

    def start(self) -> None:
        """Start the workers, and return when all have joined their groups."""
        roles = needed_roles(self.settings)
        for role in roles:
            for number in range(self.case.workers if role in ("correlate", "repartition") else 1):
                log = self.folder / f"{role}-{number}.log"
                self.workers.append(Worker(self.settings, role, log, {}))
        self._wait_for(dict.fromkeys(self.workers, 0))

    def _wait_for(self, joined: Mapping[Worker, int]) -> None:
        """Until each worker has joined its group once more than it had."""
        for worker, before in joined.items():
            wait_until(
                lambda worker=worker, before=before: _joined(worker) > before,
                LIMIT_S,
                lambda worker=worker: f"{worker.role}: {worker.log.read_text(errors='replace')[-2000:]}",
            )

    @contextmanager
    def away(self, *, kill: bool) -> Iterator[None]:
        """The workers that correlate end, and start again after the block."""
        gone = [worker for worker in self.workers if worker.role in ("correlate", "repartition")]
        for worker in gone:
            if kill:
                worker.kill()
            else:
                worker.stop()
        joined = {worker: _joined(worker) for worker in gone}
        yield
        for worker in gone:
            worker.start()
        self._wait_for(joined)

    # -- what the workers made

    def read(self, topics: Iterable[str]) -> list[ConsumedRecord]:
        async def all_of_them() -> list[ConsumedRecord]:
            known = await topic_partitions(self.settings.broker)
            async with consumer_client(self.settings.broker) as client:
                chosen = {topic: known[topic] for topic in topics if topic in known}
                return [each async for batch in scan(client, chosen) for each in batch]

        return asyncio.run(all_of_them())

    def live(self) -> Outputs:
        windows = [metrics_topic(window.name) for window in self.ruleset.windows]
        found: dict[str, list[bytes]] = {}
        for each in self.read((MULTI_EVENTS, ALERTS, LATE, DEAD_LETTERS, *windows)):
            found.setdefault(each.topic, []).append(each.value or b"")
        return {
            "multi": _by_id(map(orjson.loads, found.get(MULTI_EVENTS, ())), "event_id"),
            "alerts": _by_id(map(orjson.loads, found.get(ALERTS, ())), "alert_id"),
            "windows": _rows(decode_frame(value) for topic in windows for value in found.get(topic, ())),
            "late": _late(map(orjson.loads, found.get(LATE, ()))),
            "dead": _by_id(map(orjson.loads, found.get(DEAD_LETTERS, ())), "letter_id"),
        }

    def drained(self) -> bool:
        """Whether every role has processed all that was in Kafka, in the order in which they follow one another."""
        roles = [role for role in ("repartition", "correlate") if any(each.role == role for each in self.workers)]
        return all(asyncio.run(group_lag(self.settings.broker, f"{self.settings.group}-{role}")) == 0 for role in roles)

    # -- what the recorded log makes

    def offline(self, log: Path) -> tuple[Outputs, Rows]:
        """Outputs of ``match``, and the rows of a store that holds them and the events."""
        _, outputs = run_rules(
            self.ruleset, [log], lateness_us=self.settings.lateness, clock_tolerance_us=self.settings.clock_tolerance
        )
        made = list(outputs)
        wanted: Outputs = {
            "multi": _by_id((orjson.loads(each.value) for out in made for each in out.multi_events), "event_id"),
            "alerts": _by_id((orjson.loads(each.value) for out in made for each in out.alerts), "alert_id"),
            "windows": _rows(frame for out in made for frame in out.frames),
            "late": _late(orjson.loads(each.value) for out in made for each in out.late),
            "dead": _by_id((orjson.loads(each.model_dump_json()) for out in made for each in out.dead_letters),
                           "letter_id"),
        }  # fmt: skip
        messages = messages_for_sinks(log, made, self.settings.partitions)
        return wanted, expected_rows(self.settings, self.ruleset, messages, self.folder / "expected.db")


def _joined(worker: Worker) -> int:
    return worker.log.read_bytes().count(f"role {worker.role} is ready and reads".encode())


def _by_id(bodies: Iterable[dict[str, Any]], name: str) -> list[dict[str, Any]]:
    """Records by their id, each once: a worker that was killed writes some again, and then the same."""
    found: dict[str, dict[str, Any]] = {}
    for body in bodies:
        body = without_places(body)
        if name == "letter_id":
            body.pop("timestamp", None)  # when it was written
        known = found.setdefault(body[name], body)
        assert known == body, "one id, two contents"
    return [found[each] for each in sorted(found)]


def _late(bodies: Iterable[dict[str, Any]]) -> list[str]:
    return sorted({str(body.get("event_id", body)) for body in bodies})


def _rows(frames: Iterable[Frame]) -> list[str]:
    """Results of windows, each with its window's name, each once."""
    return sorted({repr({"stream": frame.stream, **row}) for frame in frames for row in frame.batch.to_pylist()})


def _counts(found: Outputs) -> dict[str, int]:
    return {name: len(items) for name, items in found.items()}


def _first_difference(live: Outputs, wanted: Outputs) -> str:
    lines = [f"live {_counts(live)}, offline {_counts(wanted)}"]
    for name in wanted:
        one, other = [repr(each) for each in live[name]], [repr(each) for each in wanted[name]]
        for title, some, rest in (("live only", one, set(other)), ("offline only", other, set(one))):
            only = [each for each in some if each not in rest]
            lines += [f"{name}, {title} ({len(only)}): {each[:600]}" for each in only[:2]]
    return "\n".join(lines)


def _difference_of_rows(table: str, live: Mapping[Any, Any], wanted: Mapping[Any, Any]) -> str:
    if live == wanted:
        return ""
    only_live = [row for key, row in live.items() if wanted.get(key) != row]
    only_offline = [row for key, row in wanted.items() if live.get(key) != row]
    return f"{table}: {len(live)} rows, not {len(wanted)}; live only {only_live[:2]}, offline only {only_offline[:2]}"


def _end(sink_of: Settings, streams: Iterable[str]) -> None:
    """Producers of JSON records say that they have ended, so that windows close without waiting for the clock."""
    with KafkaSink(sink_of.broker, partitions=sink_of.partitions) as sink:
        for stream in sorted(streams):
            sink.write(Frame.from_columns(stream, "", {"timestamp": [], "key": []}, origin="", end=True))


def check_case(case: Case, address: str, folder: Path, rules: Sequence[Path] = ()) -> dict[str, Any]:
    """Run a case on an empty broker; returns what came out. Fails where live and offline differ."""
    rules = tuple(rules) or tuple(Path(name) for name in case.scenarios)
    settings = load_settings(
        broker=address, group=f"case-{folder.name}"[:60], rules=rules, partitions=case.partitions, roles=case.roles,
        sql_url=f"sqlite:///{folder}/rows.db", influx_dir=folder / "influx", **TIMEOUTS[case.timeouts],
    )  # fmt: skip
    ruleset = read_rule_files(rules)
    frames = _together(case.scenarios)
    streams = {frame.stream for frame in frames}
    run = _Run(case, settings, ruleset, folder)
    asyncio.run(make_topics(settings, mono_topics(sorted(streams))))
    first, rest = frames[: len(frames) // 2], frames[len(frames) // 2 :]

    def publish(some: Sequence[Frame]) -> None:
        with KafkaSink(address, partitions=case.partitions, form=case.form) as sink:
            for frame in some:
                sink.write(frame)
        if some is rest and case.form == "json":
            _end(settings, streams)

    with stopping(run.workers):
        if case.moment == "before":
            run.start()
            publish(first)
            publish(rest)
        elif case.moment == "after":
            publish(first)
            publish(rest)
            run.start()
        elif case.moment == "middle":
            publish(first)
            run.start()
            publish(rest)
        else:
            run.start()
            publish(first)
            with run.away(kill=case.timeouts != "default"):
                publish(rest)
        return _compare(run, address)


def _compare(run: _Run, address: str) -> dict[str, Any]:
    wait_until(run.drained, LIMIT_S, lambda: f"live {_counts(run.live())}")
    log = run.folder / "recorded.jsonl.zst"
    asyncio.run(record(address, ["mono.*", CLOCK], log))
    wanted, expected = run.offline(log)
    live: Outputs = {}

    def done() -> bool:
        live.update(run.live())
        return _counts(live) == _counts(wanted)

    wait_until(done, LIMIT_S, lambda: _first_difference(live, wanted))
    assert live == wanted, _first_difference(live, wanted)
    wait_until(
        lambda: asyncio.run(group_lag(address, f"{run.settings.group}-sql")) == 0, LIMIT_S, "the sql role to finish"
    )
    stored = rows_of(f"sqlite:///{run.folder}/rows.db")
    different = [_difference_of_rows(table, stored[table], rows) for table, rows in expected.items()]
    assert not any(different), "\n".join(filter(None, different))
    return _counts(live) | {"rows": sum(map(len, stored.values()))}

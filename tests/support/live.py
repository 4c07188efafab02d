"""Real workers while a producer sends: the harness of all fault tests.

`running` starts a broker's workers, and stores where the roles write to some; `Live.outcome` compares what came of the
events with a run over the recorded log that nothing disturbed (`tests.support.outcome`).
"""

from __future__ import annotations

import asyncio
import json
import random
import struct
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import orjson

from astrocyte.pipeline.bench.servers.postgres import PostgresServer
from astrocyte.pipeline.kafka.client import ensure_topics, topic_partitions
from astrocyte.pipeline.roles.health import group_lag
from astrocyte.pipeline.settings import Settings, load_settings
from astrocyte.pipeline.simulation.publish import Form
from astrocyte.pipeline.topology.topics import make_topics, mono_topics
from astrocyte.schemas.topics import ALERTS, CLOCK, DEAD_LETTERS, LATE, MULTI_EVENTS, STATS, mono_topic
from tests.support.brokers import read_all
from tests.support.fault_hooks import RARE
from tests.support.influx_stub import TOKEN, InfluxStub, influx_thread
from tests.support.kafka import Kafka
from tests.support.outcome import Outcome, find_outcome
from tests.support.role_worker import SUPERVISOR, Memory, Worker, stopping
from tests.support.sending import FORMS, Sending

__all__ = ["FORMS", "NEIGHBOUR", "Live", "running"]

PAIR = ("quiet_a", "quiet_b")
NEIGHBOUR = "neighbour"
STORED = ("axon_1", "axon_2")
"""Streams of the catalog: the sinks write their events as well."""
SLOW, HOOKS = "tests.support.slow_validator", "tests.support.fault_hooks"
PARTITIONS = 2
DATABASE = "out.db"
CLOCK_FILE = "clock"
OUTPUTS = (MULTI_EVENTS, ALERTS, LATE, DEAD_LETTERS, CLOCK)


def rules_text(
    by: str,
    streams: Sequence[str],
    slow: Sequence[str],
    *,
    rare: bool = False,
    overload: Mapping[str, Mapping[str, Any]] | None = None,
) -> str:
    """A rule for each stream with the next one and one that raises alerts; some streams have a slow validator.

    ``rare``: of some hundred events, one is matched. ``overload``: policies, by stream.
    """
    declared = [{"name": stream, "overload": dict(policy)} for stream, policy in (overload or {}).items()]
    both = {"where": "a.value + value > 1.9"} if rare else {}
    rules: list[dict[str, Any]] = [
        {
            "name": f"{first}_{second}",
            "by": by,
            "within": "100ms",
            "all": [{"as": "a", "stream": first}, {"as": "b", "stream": second} | both],
            "emit": {"integrated_value": "a.value + b.value"},
        }
        for first, second in pairwise(streams)
    ]
    high = {"as": "high", "stream": streams[0], "where": f"value > low.value + {0.97 if rare else 0.8}"}
    rules.append(
        {
            "name": "rising",
            "by": by,
            "within": "200ms",
            "seq": [{"as": "low", "stream": streams[0]}, high],
            "skip": "past_last",
            "alert": {"severity": "warning", "message": "rose by {high.value - low.value:.3f}"},
        }
    )
    validators = [{"stream": each, "use": "slow"} for each in slow]
    return json.dumps({"streams": declared, "rules": rules, "validators": validators})


@dataclass(slots=True)
class Live:
    """A broker, the workers, the stores and the producer of one experiment."""

    broker: Any
    settings: Settings
    sending: Sending
    folder: Path
    environment: Mapping[str, str]
    dice: random.Random
    """Of the schedule of faults: the same numbers for the same seed."""
    static: bool = False
    """Workers keep their partitions while they start again, as with ``ASTROCYTE_INSTANCE``."""
    influx: InfluxStub | None = None
    postgres: PostgresServer | None = None
    workers: list[Worker] = field(default_factory=list)
    memory: Memory = field(init=False)

    def __post_init__(self) -> None:
        self.memory = Memory(self.workers)

    @property
    def worker(self) -> Worker:
        """The first worker, which correlates."""
        return self.workers[0]

    @property
    def roles(self) -> tuple[str, ...]:
        """Roles that workers have had."""
        return tuple(dict.fromkeys(role for worker in self.workers for role in worker.role.split(",")))

    @property
    def database(self) -> Path:
        """The SQLite file, unless there is a PostgreSQL."""
        return self.folder / DATABASE

    def of(self, role: str) -> Worker:
        """The first worker of a role."""
        return next(worker for worker in self.workers if worker.role == role)

    def add(self, role: str, *, steps: Sequence[str] = (), supervised: bool = False) -> Worker:
        """Start one more worker. ``steps``: where its lives end, one after the other (`fault_hooks`)."""
        kills = [(step, 1 if step in RARE else self.dice.randint(1, 8)) for step in steps]
        number = len(self.workers)
        name = self.folder / f"worker{number}-{role.replace(',', '+')}"
        environment = {
            **self.environment,
            **({"ASTROCYTE_INSTANCE": f"w{number}"} if self.static else {}),
            "FAULT_READ": str(self.folder / "read.txt"),
        }
        command = SUPERVISOR if supervised else None
        self.workers.append(Worker(self.settings, role, name.with_suffix(".log"), environment, command, kills))
        return self.workers[-1]

    def move_clock(self, seconds: float) -> None:
        """Put the wall clock of all workers so many seconds ahead of the time of now, or behind it."""
        with (self.folder / CLOCK_FILE).open("r+b") as file:  # workers have mapped it
            file.write(struct.pack("<q", int(seconds * 1e9)))

    # -- what came of the events

    def records(self, topic: str) -> list[Any]:
        """All records of a topic; none where it does not exist."""
        if topic not in asyncio.run(topic_partitions(self.settings.broker)):
            return []
        return [each for part in read_all(self.settings.broker, topic).values() for each in part]

    def counters(self) -> dict[str, int]:
        """The newest counters of the domains, summed."""
        newest: dict[bytes, dict[str, Any]] = {}
        for each in self.records(STATS):
            if each.key.startswith(b"correlate/"):
                newest[each.key] = orjson.loads(each.value)
        names = ("received", "processed", "late", "dead", "duplicate", "sampled", "skipped", "matches")
        return {name: sum(stats[name] for stats in newest.values()) for name in names}

    def lag(self, role: str) -> int | None:
        """Messages that the group of a role has not committed; None before its first commit."""
        return asyncio.run(group_lag(self.settings.broker, f"{self.settings.group}-{role}"))

    def outcome(self, *, timeout_s: float = 300, may_be_late: bool = False) -> Outcome:
        """What came of the events, when the fault is over: the producer ends, and everything is waited for."""
        ended_s = time.monotonic()
        self.sending.stop()
        found = find_outcome(self, ended_s, timeout_s, may_be_late=may_be_late)
        print(found.line())  # also where a worker then does not end well
        return found

    @property
    def broker_kind(self) -> str:
        """The word of the table."""
        return "Kafka" if isinstance(self.broker, Kafka) else "embedded"


@contextmanager
def running(
    broker: Any,
    folder: Path,
    *,
    form: Form = "json",
    by: Literal["key", "place", "type"] = "key",
    sinks: Sequence[str] = (),
    postgres: PostgresServer | None = None,
    steps: Mapping[str, Sequence[str]] | None = None,
    supervised: bool = False,
    static: bool = False,
    slow: Mapping[str, float] | None = None,
    rare: bool = False,
    overload: Mapping[str, Mapping[str, Any]] | None = None,
    backlog_s: tuple[float, float] | None = None,
    uneven: Mapping[str, int] | None = None,
    topic_config: Mapping[str, str] | None = None,
    sends: bool = True,
    client: Sequence[str] = (),
    seed: int = 0,
    name: str = "",
    **wishes: object,
) -> Iterator[Live]:
    """Workers of the roles that the rules need and of ``sinks``, and a producer that begins once they read.

    ``steps``: where workers of a role die, one life after the other. ``supervised``: one ``astrocyte worker`` with all
    roles. ``static``: workers keep their partitions while they start again.
    ``slow``: seconds for which a validator is busy with an event, by stream. ``rare``: few events are matched.
    ``overload``: what may be left out of streams, as rule files declare it.
    ``backlog_s``: before the workers start,
    events of so many seconds are in the topics, in ticks of so many seconds, and no others follow. ``uneven``: streams
    whose topics have another number of partitions. ``topic_config`` is that of the topics of events; with ``sends``
    false nobody sends but the fault. ``client``: what clients of the workers report (`fault_hooks.CLIENT`). ``seed``
    and ``name`` determine the schedule. The workers must end well.
    """
    slow, uneven, steps = slow or {}, uneven or {}, steps or {}
    rules = folder / "rules.yaml"
    streams = STORED if sinks else (*PAIR, NEIGHBOUR) if NEIGHBOUR in slow else PAIR
    rules.write_text(rules_text(by, streams, tuple(slow), rare=rare, overload=overload))
    correlating = ("correlate",) if by == "key" and not uneven else ("correlate", "repartition")
    with ExitStack() as stack:
        influx = stack.enter_context(influx_thread()) if "influx" in sinks else None
        if influx is not None:
            wishes |= {"influx_url": influx.url, "influx_token": TOKEN}
        address = postgres.url if postgres else f"sqlite:///{folder}/{DATABASE}"
        settings = load_settings(
            broker=broker.address, group=f"live-{folder.name}"[:60], rules=(rules,), partitions=PARTITIONS,
            streams=streams, roles=("correlate", *sinks), sql_url=address,
            plugins=(HOOKS, SLOW) if slow else (HOOKS,), **{"snapshot_interval": "500ms"} | wishes,
        )  # fmt: skip
        counts = {mono_topic(stream): count for stream, count in uneven.items()}
        if topic_config is not None:
            counts |= {mono_topic(stream): PARTITIONS for stream in streams}
        asyncio.run(ensure_topics(settings.broker, counts, config=dict.fromkeys(counts, topic_config or {})))
        asyncio.run(make_topics(settings, [*mono_topics(streams), *OUTPUTS]))
        sending = Sending(settings, form, "type" if sinks else "place", seed + 7)
        clock = folder / CLOCK_FILE
        clock.write_bytes(bytes(8))
        environment = {
            "SLOW_VALIDATOR_S": str(max(slow.values(), default=0.0)),
            "FAULT_CLIENT": json.dumps(list(client)),
            "FAULT_CLOCK": str(clock),
        }
        live = Live(
            broker, settings, sending, folder, environment, random.Random(f"{seed} {name}"), static, influx, postgres
        )
        stack.callback(lambda: live.postgres and live.postgres.close())  # the one that a fault has put in its place
        stack.callback(live.memory.stop)
        stack.enter_context(stopping(live.workers))
        stack.callback(sending.stop)
        if backlog_s is not None:
            sending.history(*backlog_s)
        if supervised:
            live.add(",".join((*correlating, *sinks)), supervised=True)
        else:
            for role in (*correlating, *sinks):
                live.add(role, steps=steps.get(role, ()))
        if backlog_s is None:
            for worker in live.workers:
                if not steps:
                    worker.ready()
            if sends:
                sending.start()
        yield live

"""What processes, brokers and stores suffer loses no event, doubles none and changes none, in topics, SQL and InfluxDB.

`make test` runs the short lines; ``make faults`` runs all, on both brokers and with both forms, and prints a table.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pytest

from tests.support.brokers import BOTH
from tests.support.fault_acts import (
    Fault,
    broker_full_for,
    broker_full_while_killed,
    broker_killed,
    broker_stopped_for,
    clock_steps,
    compacted,
    dies_at_steps,
    joins_and_leaves,
    killed_at_random,
    supervisor_killed,
    terminated,
    topic_recreated,
    transactions,
    zombie,
)
from tests.support.fault_hooks import STEPS
from tests.support.influx_stub import Answer
from tests.support.live import FORMS, running
from tests.support.store_faults import (
    influx_answers,
    influx_is_slow,
    influx_takes,
    influx_token_changed,
    postgres_connections_cut,
    postgres_promoted,
    postgres_restarted,
    role_full_for,
    sqlite_deleted,
    sqlite_locked_for,
)

HASTY: Mapping[str, Any] = {
    "lateness": "200ms",
    "idle_timeout": "3s",
    "session_timeout": "4s",
    "snapshot_interval": "200ms",
    "sinks": ("sql", "influx"),
    "static": True,
}
"""Short times, and stores. Sources are idle after longer than a producer pauses on a machine that is overloaded: its
events would be late, as test_idleness.py and the lines that say ``may_be_late`` show."""
EVERY = ("correlate", "sql", "influx")
REPARTITIONED = {**HASTY, "by": "type"}
MOVING = {**HASTY, "static": False}
"""Partitions go to other workers."""


def at(act: Any, options: Mapping[str, Any] = HASTY, **steps: tuple[str, ...]) -> Fault:
    """A fault that makes workers emit twice, with the steps at which roles die."""
    return Fault(act, {**options, "steps": steps} if steps else options, repeats=True)


def steps_of(role: str) -> tuple[str, ...]:
    """All steps of a role but those of a revocation, so that each life reaches its own."""
    order = [step for step in STEPS[role] if "revocation" not in step]
    # A state is there to be restored once the first was acknowledged.
    return tuple(sorted(order, key=lambda step: step == "during restore"))


@dataclass(frozen=True)
class Line:
    """A fault with the brokers and forms on which it is injected; ``short``: those of ``make test``."""

    fault: Fault
    short: tuple[tuple[str, str], ...] = ()
    brokers: tuple[str, ...] = ("embedded", "kafka")
    forms: tuple[str, ...] = FORMS
    postgres: bool = False


def store(act: Any, options: Mapping[str, Any] = HASTY, *, form: str = "json", **more: Any) -> Line:
    """A line about a store, which one broker and form show."""
    return Line(Fault(act, options), brokers=("embedded",), forms=(form,), **more)


SQUEEZED = {
    **REPARTITIONED,
    "topic_config": {"cleanup.policy": "compact", "segment.ms": "1", "min.cleanable.dirty.ratio": "0"},
    "sends": False,
}
UNAVAILABLE = (Answer(status=503), Answer(status=429, headers={"Retry-After": "0.2"}), Answer("cut", applied=True))
IN_TURN = dies_at_steps()

LINES = {
    # -- processes
    "kill -9 at random": Line(at(killed_at_random(3, roles=EVERY)), short=(("embedded", "json"),)),
    "kill -9 at random, nine times": Line(at(killed_at_random(9, roles=EVERY))),
    "kill -9 at random, three in a row": Line(at(killed_at_random(3, roles=EVERY, in_a_row=3))),
    "kill -9 at random, repartitioned": Line(at(killed_at_random(4, roles=("repartition", *EVERY)), REPARTITIONED)),
    "kill -9 at steps of three roles": Line(
        at(
            IN_TURN,
            correlate=("after produce", "before ack"),
            sql=("in the transaction", "after SQL write"),
            influx=("after Influx write",),
        ),
    ),
    "kill -9 at each step of correlate": Line(at(IN_TURN, correlate=steps_of("correlate"))),
    "kill -9 at each step of sql": Line(at(IN_TURN, sql=steps_of("sql"))),
    "kill -9 at each step of influx": Line(at(IN_TURN, influx=steps_of("influx"))),
    "kill -9 at each step of repartition": Line(at(IN_TURN, REPARTITIONED, repartition=steps_of("repartition"))),
    **{
        f"kill -9 {step} of {role}": Line(at(dies_at_steps(role), options, **{role: (step,)}))
        for role, options in (("correlate", MOVING), ("sql", MOVING), ("repartition", {**MOVING, "by": "type"}))
        for step in ("during revocation", "after revocation")
    },
    "SIGTERM under load": Line(Fault(terminated(*EVERY), HASTY)),
    "SIGTERM under load, repartitioned": Line(Fault(terminated("repartition", *EVERY), REPARTITIONED, repeats=True)),
    "SIGTERM while it works off a backlog": Line(
        Fault(terminated("correlate", "correlate", "correlate", sending=False), HASTY | {"backlog_s": (600.0, 1.0)})
    ),
    "correlate stopped beyond its session": Line(at(zombie("correlate"), MOVING)),
    "sql stopped beyond its session": Line(at(zombie("sql"), MOVING)),
    "influx stopped beyond its session": Line(at(zombie("influx"), MOVING)),
    "repartition stopped beyond its session": Line(at(zombie("repartition"), {**MOVING, "by": "type"})),
    "workers join and leave": Line(at(joins_and_leaves("correlate", 5, every_s=3), MOVING)),
    "sinks join and leave": Line(at(joins_and_leaves("sql", 5, every_s=3), MOVING)),
    "the supervisor is killed": Line(
        at(supervisor_killed(1), {**MOVING, "supervised": True}), short=(("embedded", "frames"),)
    ),
    "the supervisor is killed, sources idle after 1 s": Line(
        Fault(
            supervisor_killed(1),
            {**MOVING, "supervised": True, "idle_timeout": "1s"},
            repeats=True,
            may_be_late=True,
        )
    ),
    "the supervisor is killed three times": Line(at(supervisor_killed(3), {**MOVING, "supervised": True})),
    "the clock of the workers steps by hours": Line(Fault(clock_steps(7200, -7200), HASTY)),
    "the clock of the workers steps by seconds": Line(Fault(clock_steps(5, -5, 0.3, -0.3), HASTY)),
    # -- brokers
    "commits are rejected": Line(
        at(killed_at_random(3, roles=EVERY), {**HASTY, "client": ("commits are rejected",)}),
    ),
    "outcomes of produce requests are unknown": Line(
        at(killed_at_random(3, roles=EVERY), {**HASTY, "client": ("outcomes are unknown",)}),
    ),
    "outcomes of produce requests are unknown, repartitioned": Line(
        at(
            killed_at_random(2, roles=("repartition", "correlate")),
            {**REPARTITIONED, "client": ("outcomes are unknown",)},
        )
    ),
    "offsets with holes by compaction": Line(at(compacted, SQUEEZED)),
    "broker killed, away for 60 s": Line(Fault(broker_killed(1, for_s=60, between_s=1), HASTY)),
    "broker killed five times": Line(Fault(broker_killed(5, for_s=1, between_s=2), HASTY)),
    "broker hangs for 20 s": Line(Fault(broker_stopped_for(20), HASTY)),
    "disk of the broker full for 20 s": Line(Fault(broker_full_for(20), HASTY)),
    "disk of the broker full, correlate killed": Line(at(broker_full_while_killed("correlate", times=2))),
    "a transactional producer": Line(Fault(transactions(60), HASTY), brokers=("kafka",)),
    # -- stores
    "stores away": Line(
        Fault(lambda live: (influx_answers(*UNAVAILABLE)(live), sqlite_locked_for(3)(live)), HASTY),
        short=(("embedded", "json"),),
        brokers=("embedded",),
    ),
    "SQLite locked for 30 s": store(sqlite_locked_for(30)),
    "SQLite deleted": store(sqlite_deleted),
    "disk of SQLite full for 10 s": store(role_full_for("sql", 10), form="frames"),
    "InfluxDB answers 503, 429, hangs up": store(influx_answers(*UNAVAILABLE, requests=8), form="frames"),
    "InfluxDB answers after 30 s, having written": store(influx_answers(Answer("hang", applied=True), requests=2)),
    "InfluxDB takes little at once (413)": store(influx_takes(4_000, for_s=10), form="frames"),
    "InfluxDB refuses the token (401)": store(influx_token_changed),
    "InfluxDB is slow": store(influx_is_slow),
    "PostgreSQL crashes three times": store(postgres_restarted(3, for_s=3), postgres=True),
    "PostgreSQL restarted": store(postgres_restarted(2, for_s=5, mode="fast"), form="frames", postgres=True),
    "PostgreSQL cuts connections": store(postgres_connections_cut(20), postgres=True),
    "a standby of PostgreSQL is promoted": store(postgres_promoted, postgres=True),
    "kill -9 at each step of sql, PostgreSQL": Line(
        at(IN_TURN, sql=steps_of("sql")), brokers=("embedded",), postgres=True
    ),
}


def cases() -> Iterator[Any]:
    """Every line on every broker in every form, marked."""
    for name, line in LINES.items():
        for broker in line.brokers:
            for form in line.forms:
                soak = [] if (broker, form) in line.short else [pytest.mark.soak]
                kafka = [pytest.mark.kafka] if broker == "kafka" else []
                yield pytest.param(broker, name, form, marks=[*soak, *kafka], id=f"{name}-{broker}-{form}")


@pytest.mark.parametrize(("own_broker", "name", "form"), [*cases()], indirect=["own_broker"])
def test_no_event_is_lost_doubled_or_changed(own_broker, check, name, form, request):
    line = LINES[name]
    options = {"postgres": request.getfixturevalue("own_postgres")} if line.postgres else {}
    check(own_broker, name, line.fault, form=form, **options)


@pytest.mark.parametrize("own_broker", BOTH, indirect=True)
def test_a_topic_that_is_made_anew_stops_the_role_that_has_a_state(own_broker, tmp_path):
    with running(own_broker, tmp_path, lateness="200ms", idle_timeout="3s", snapshot_interval="200ms") as live:
        live.sending.wait(2)
        topic_recreated(live)

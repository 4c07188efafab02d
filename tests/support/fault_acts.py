"""What fault tests do to workers and brokers while events flow; schedules follow the experiment's seed."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from confluent_kafka import KafkaError, KafkaException, Producer
from confluent_kafka.admin import AdminClient, NewTopic

from astrocyte.pipeline.roles.refusals import STOPPED_STATUS
from astrocyte.schemas.topics import mono_topic
from tests.support.broker import full_disk
from tests.support.brokers import pause, resume
from tests.support.kafka import Kafka
from tests.support.live import Live, running
from tests.support.outcome import Outcome
from tests.support.processes import descendants, is_running, workers_of
from tests.support.role_worker import Worker
from tests.support.sending import REPLACED
from tests.support.waiting import wait_until

LIMIT_S = 300.0
"""Longest wait for one step of a fault."""
Act = Callable[[Live], None]


@dataclass(frozen=True)
class Fault:
    """What happens to the workers, the broker or a store, between two quiet times, and settings under which it does."""

    act: Act
    options: Mapping[str, Any] = field(default_factory=dict)
    repeats: bool = False
    """A worker dies, so that it may emit matches twice."""
    timeout_s: float = 300
    may_be_late: bool = False
    """Events may rightly be late, and then are in a replay as well."""


def inject(broker: Any, folder: Any, fault: Fault, **options: Any) -> tuple[Outcome, str]:
    """Run an experiment with the fault; returns what came of the events, and the kind of the broker."""
    with running(broker, folder, **fault.options, **options) as live:
        if live.sending.runs:
            live.sending.wait(2)
        fault.act(live)
        if live.sending.runs:
            live.sending.wait(2)
        return live.outcome(timeout_s=fault.timeout_s, may_be_late=fault.may_be_late), live.broker_kind


def nothing(_live: Live) -> None:
    """No fault."""


def sends_for(seconds: float) -> Act:
    """No fault but that of the options."""
    return lambda live: live.sending.wait(seconds)


def stopped_for(seconds: float, *, times: int = 1) -> Act:
    """SIGSTOP and SIGCONT of the worker that correlates."""

    def act(live: Live) -> None:
        for _ in range(times):
            live.worker.signal(signal.SIGSTOP)
            live.sending.wait(seconds)
            live.worker.signal(signal.SIGCONT)
            live.sending.wait(0.1)

    return act


def workers_killed(times: int, *, after_s: float) -> Act:
    """kill -9 of every worker in turn."""

    def act(live: Live) -> None:
        for _ in range(times):
            for worker in live.workers:
                live.sending.wait(after_s)
                worker.kill()
                worker.start()

    return act


def killed_at_random(times: int, *, roles: Sequence[str], in_a_row: int = 1) -> Act:
    """kill -9 at random moments of one role after another, each of which has come to read since its last start.

    A worker that is never allowed to start would prove nothing. ``in_a_row``: kills of one role without that wait.
    """

    def act(live: Live) -> None:
        for number in range(times):
            worker = live.of(roles[number % len(roles)])
            worker.ready()
            for _ in range(in_a_row):
                live.sending.wait(live.dice.uniform(0.05, 1.5))
                worker.kill()
                worker.start()

    return act


def broker_killed(times: int, *, for_s: float, between_s: float) -> Act:
    """kill -9 of the broker, which is away for some time."""

    def act(live: Live) -> None:
        for _ in range(times):
            live.broker.kill()
            live.sending.wait(for_s)
            live.broker.start()
            live.sending.wait(between_s)

    return act


def broker_full_for(seconds: float) -> Act:
    """No file of the broker can grow. A Kafka whose only folder fails ends, and is started again when there is room."""

    def act(live: Live) -> None:
        with full_disk(live.broker.pid):
            live.sending.wait(seconds)
        if isinstance(live.broker, Kafka):
            live.broker.kill()
            live.broker.start()

    return act


def broker_full_while_killed(role: str, *, times: int) -> Act:
    """No file of the broker can grow, so no snapshot is stored, while a worker is killed and started again."""

    def act(live: Live) -> None:
        worker = live.of(role)
        with full_disk(live.broker.pid):
            for _ in range(times):
                live.sending.wait(3)
                worker.kill()
                worker.start()
        if isinstance(live.broker, Kafka):
            live.broker.kill()
            live.broker.start()
        worker.ready()

    return act


def clock_steps(*seconds: float) -> Act:
    """The wall clock of the workers is put so many seconds ahead of the time of now, or behind it, and right again."""

    def act(live: Live) -> None:
        for each in (*seconds, 0):
            live.move_clock(each)
            live.sending.wait(3)

    return act


def compacted(live: Live) -> None:
    """Topics with holes are read from their beginning, and again from a committed offset at a hole."""
    for _ in range(2):
        for worker in live.workers:
            worker.kill()
        live.sending.with_holes(5)
        for stream in live.settings.streams:
            topic = mono_topic(stream)
            wait_until(
                lambda topic=topic: all(each.value != REPLACED for each in live.records(topic)), LIMIT_S, "compaction"
            )
        for worker in live.workers:
            worker.start()
        wait_until(lambda: all(live.lag(role) == 0 for role in live.roles), LIMIT_S, "the workers to read")


def dies_at_steps(second: str = "") -> Act:
    """Workers die at the steps of the options, and are started again each time. A second worker of a role may join."""

    def act(live: Live) -> None:
        if second:
            live.of(second).ready()
            live.add(second)

        def done() -> bool:
            for worker in live.workers:
                if worker.ended == -signal.SIGKILL:
                    worker.start()
            return all(worker.starts > len(worker.kills) for worker in live.workers)

        wait_until(
            done,
            3 * LIMIT_S,
            lambda: ", ".join(f"{each.role}: {each.starts} starts, {each.kills}" for each in live.workers),
        )

    return act


def terminated(*roles: str, sending: bool = True) -> Act:
    """SIGTERM under load: what was read is written and committed, the status is 0 within the time of grace.

    Without ``sending`` the workers work off what was sent before they started.
    """

    def act(live: Live) -> None:
        for role in roles:
            worker = live.of(role)
            worker.ready()
            began_s = time.monotonic()
            worker.stop()
            print(f"{role} ended {time.monotonic() - began_s:.1f} s after SIGTERM")
            if sending:
                live.sending.wait(0.5)
            worker.start()

    return act


def zombie(role: str) -> Act:
    """A worker is stopped for longer than its session; a second one takes its partitions before it continues."""

    def act(live: Live) -> None:
        other = live.add(role)
        other.ready()
        first, reads = live.of(role), f"role {role} is ready and reads (topic and partitions)"
        live.sending.wait(1)
        before = other.said.count(reads)
        first.signal(signal.SIGSTOP)
        wait_until(lambda: other.said.count(reads) > before, LIMIT_S, "the second worker to take over")
        live.sending.wait(2)
        first.signal(signal.SIGCONT)
        live.sending.wait(4)

    return act


def joins_and_leaves(role: str, times: int = 1, *, every_s: float, killed: bool = False) -> Act:
    """One more worker joins the group, and leaves it or dies, each time."""

    def act(live: Live) -> None:
        for _ in range(times):
            other = live.add(role)
            other.ready()
            live.sending.wait(every_s)
            if killed:
                other.kill()
            else:
                other.stop()
            live.sending.wait(every_s)

    return act


def supervisor_killed(times: int) -> Act:
    """kill -9 of ``astrocyte worker``: its roles end by themselves, and after a new start each role runs once."""

    def act(live: Live) -> None:
        supervisor = live.worker
        for _ in range(times):
            orphans = descendants(supervisor.process.pid)
            assert orphans
            supervisor.kill()
            supervisor.start()
            live.sending.wait(1)
            wait_until(lambda orphans=orphans: not any(map(is_running, orphans)), LIMIT_S, "orphans to end")
            supervisor.ready()
            live.sending.wait(2)
        found = workers_of(live.settings.group, live.settings.broker)
        assert sorted(found.values()) == sorted(supervisor.role.split(",")), f"each role runs once, found {found}"

    return act


def broker_stopped_for(seconds: float) -> Act:
    """The broker hangs: connections stay open and nothing is answered."""

    def act(live: Live) -> None:
        pause(live.broker)
        live.sending.wait(seconds)
        resume(live.broker)

    return act


def transactions(times: int) -> Act:
    """A transactional producer commits every second transaction: offsets have holes, and aborted events are none."""

    def act(live: Live) -> None:
        live.sending.stop()
        options = {"bootstrap.servers": live.settings.broker, "transactional.id": live.settings.group}
        producer = Producer(options | {"transaction.timeout.ms": 60_000, "log_level": 0})
        producer.init_transactions(60)
        for number in range(2 * times):
            producer.begin_transaction()
            for message in live.sending.messages(number % 2 == 0):
                producer.produce(
                    message.topic, message.value, message.key, message.partition, headers=list(message.headers)
                )
            if number % 2 == 0:
                producer.commit_transaction(60)
            else:
                assert producer.flush(60) == 0  # the broker has them
                producer.abort_transaction(60)

    return act


def topic_recreated(live: Live) -> None:
    """A topic that the rules read is deleted and made anew under way: the role that correlates stops and says why."""
    topic = mono_topic(live.settings.streams[0])
    # A topic that is longer than before when the worker looks cannot be distinguished from the old one.
    live.sending.stop()
    admin = AdminClient({"bootstrap.servers": live.settings.broker})
    for future in admin.delete_topics([topic]).values():
        future.result(60)

    def made() -> bool:
        """Whether it is there anew: made here, or by what the producer goes on to send."""
        (future,) = admin.create_topics([NewTopic(topic, live.settings.partitions)]).values()
        try:
            future.result(60)
        except KafkaException as error:
            if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                raise
        return topic in admin.list_topics(timeout=60).topics

    wait_until(made, LIMIT_S, "the topic to be made anew")
    stops(live.worker, "its topic was deleted and made anew")


def stops(worker: Worker, why: str) -> None:
    """The role ends by itself, with the status of one that has stopped for good and a line that says why."""
    wait_until(lambda: worker.ended is not None, LIMIT_S, f"{worker.role} to stop")
    assert worker.ended == STOPPED_STATUS, worker.said[-3000:]
    assert why in worker.said, worker.said[-3000:]

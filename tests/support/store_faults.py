"""What fault tests do to stores while events flow (`tests.support.fault_acts` does it to workers and brokers)."""

from __future__ import annotations

import sqlite3
from contextlib import closing

import psycopg
from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient

from tests.support.broker import full_disk
from tests.support.fault_acts import LIMIT_S, Act, stops
from tests.support.influx_stub import TOKEN, Answer
from tests.support.live import Live
from tests.support.postgres import Standby
from tests.support.waiting import wait_until


def sqlite_locked_for(seconds: float) -> Act:
    """Another program holds the write lock of the database."""

    def act(live: Live) -> None:
        with closing(sqlite3.connect(live.database, timeout=LIMIT_S, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            live.sending.wait(seconds)
            assert live.lag("sql") != 0, "the lock kept nobody from writing"
            other.execute("ROLLBACK")

    return act


def sqlite_deleted(live: Live) -> None:
    """The role stops with the message of the docs; without its consumer group it writes everything again."""
    worker = live.of("sql")
    for path in live.database.parent.glob(f"{live.database.name}*"):
        path.unlink()
    stops(worker, "was deleted or replaced while it was written")
    admin = AdminClient({"bootstrap.servers": live.settings.broker, "log_level": 0})

    def deleted() -> bool:
        futures = admin.delete_consumer_groups([f"{live.settings.group}-sql"]).values()
        try:
            return all(future.result(60) is None for future in futures)
        except KafkaException as error:
            # The member that ended without a word is one until its session ends.
            if error.args[0].code() != KafkaError.NON_EMPTY_GROUP:
                raise
            return False

    wait_until(deleted, LIMIT_S, "the end of the group's session")
    worker.start()


def role_full_for(role: str, seconds: float) -> Act:
    """No file of the role's process can grow."""

    def act(live: Live) -> None:
        with full_disk(live.of(role).process.pid):
            live.sending.wait(seconds)
            assert live.lag(role) != 0, f"{role} needed no room"

    return act


def influx_answers(*answers: Answer, requests: int = 5) -> Act:
    """Each answer in turn is given to so many requests."""

    def act(live: Live) -> None:
        for answer in answers:
            before = live.influx.refusals
            live.influx.fault = answer
            wait_until(lambda before=before: live.influx.refusals >= before + requests, LIMIT_S, "requests")
            live.influx.fault = None
            live.sending.wait(1)

    return act


def influx_takes(most_bytes: int, *, for_s: float) -> Act:
    """Larger requests are refused with 413."""

    def act(live: Live) -> None:
        refused = live.influx.refusals
        before, live.influx.most_bytes = live.influx.most_bytes, most_bytes
        live.sending.wait(for_s)
        live.influx.most_bytes = before
        assert live.influx.refusals > refused, "no request was too large"

    return act


def influx_token_changed(live: Live) -> None:
    """The role stops, and goes on once the token is right."""
    live.influx.token = "another"
    stops(live.of("influx"), "401")
    live.influx.token = TOKEN
    live.of("influx").start()


def influx_is_slow(live: Live) -> None:
    """The sink beside it is not slowed: it has no lag while the slow one has some."""
    live.influx.delay_s = 5
    live.sending.wait(5)
    live.sending.stop()
    lags: list[int | None] = []

    def fast() -> bool:
        lags.append(live.lag("influx"))
        return live.lag("sql") == 0 and live.lag("correlate") == 0

    wait_until(fast, LIMIT_S, "the fast sink")
    assert lags[-1] != 0, "the slow sink was as fast"
    live.influx.delay_s = 0


def postgres_restarted(times: int, *, for_s: float, mode: str = "immediate") -> Act:
    """The server ends, as in a crash, and is started again after some time."""

    def act(live: Live) -> None:
        for _ in range(times):
            live.postgres.stop(mode)
            live.sending.wait(for_s)
            live.postgres.start()
            live.sending.wait(1)

    return act


def postgres_connections_cut(times: int) -> Act:
    """``pg_terminate_backend`` of every other connection, at random moments."""

    def act(live: Live) -> None:
        with psycopg.connect(live.postgres.url, autocommit=True) as admin:
            for _ in range(times):
                live.sending.wait(live.dice.uniform(0.1, 1.0))
                admin.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                    "WHERE pid <> pg_backend_pid() AND backend_type = 'client backend'"
                )

    return act


def postgres_promoted(live: Live) -> None:
    """The server is lost. Its synchronous standby answers at its address, at first read-only, and is then promoted."""
    standby = Standby(live.postgres)
    live.sending.wait(2)
    live.postgres.stop("immediate")
    standby.take_over()
    live.postgres = standby
    live.sending.wait(3)
    standby.promote()

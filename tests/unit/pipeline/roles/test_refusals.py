"""The limit on dead letters, log lines at a bounded rate, and rows on which a sink, a controller or a copy raises."""

import asyncio
from base64 import b64decode
from socket import socket
from types import SimpleNamespace
from typing import Any

import numpy as np
import orjson
import pytest

from astrocyte import Controller, Frame, decode_frame, encode_frame
from astrocyte.agents.ingest.unused.counts import IDLE, Unused
from astrocyte.agents.sinks.base import SinkError
from astrocyte.agents.sinks.testing import multi_event
from astrocyte.pipeline.roles import worker
from astrocyte.pipeline.roles.control import ControlRunner
from astrocyte.pipeline.roles.output_records import copy_records
from astrocyte.pipeline.roles.refusals import STOPPED_STATUS, LetterLimit, TooManyDeadLetters, UnusedReporter, stopping
from astrocyte.pipeline.roles.sink.runner import SinkRunner
from astrocyte.pipeline.roles.worker import RESTART_STATUS, RoleProcesses
from astrocyte.pipeline.settings import Settings, load_settings
from astrocyte.pipeline.state.lost import InputReset, SnapshotsLost
from astrocyte.pipeline.topology import repartition
from astrocyte.pipeline.topology.plan import Repartition
from astrocyte.pipeline.topology.repartition import Repartitioner
from astrocyte.schemas.errors import AstrocyteError, TransientError
from astrocyte.schemas.events import ControlEvent
from astrocyte.schemas.json.reader import RawRecord


def frame_of(values, stream: str = "A") -> Frame:
    count = len(values)
    times = 1_772_359_200_000_000 + np.arange(count)
    columns = {"timestamp": times, "key": ["k"] * count, "value": np.array(values, np.float64), "place": ["p"] * count}
    return Frame.from_columns(stream, "run", columns)


# -- the limit -------------------------------------------------------------------------------------------------------


def test_a_role_stops_when_more_than_the_share_of_a_thousand_records_are_dead_letters():
    limit = LetterLimit("correlate", 0.5)
    limit.count(999, 999)
    with pytest.raises(
        TooManyDeadLetters, match=r"1,000 of the last 1,000 records became dead letters \(100%; the limit"
    ):
        limit.count(1, 1, "mono.A[0]@7: not JSON")


def test_the_share_is_measured_anew_so_that_a_late_fault_is_found():
    limit = LetterLimit("correlate", 0.5)
    for _ in range(50):
        limit.count(1000, 500)
    with pytest.raises(TooManyDeadLetters, match=r"such as mono\.A"):
        limit.count(1000, 501, "mono.A[0]@7: not JSON")


def test_a_limit_of_one_stops_nothing():
    limit = LetterLimit("correlate", 1.0)
    limit.count(100_000, 100_000)


class Ended:
    """A child process that has ended."""

    stdin = None

    def __init__(self, status):
        self.status = status

    def poll(self):
        return self.status


def test_a_role_that_stopped_itself_is_not_started_again(monkeypatch):
    started = []
    monkeypatch.setattr(worker.subprocess, "Popen", lambda *_args, **_more: started.append(1) or Ended(STOPPED_STATUS))
    processes = RoleProcesses(load_settings(), ("correlate",))
    processes.start()
    with pytest.raises(AstrocyteError, match="role 'correlate' has stopped; its last log line says why"):
        processes.check(0.0)
    assert len(started) == 1
    close_links(processes)


def close_links(processes):
    """What `stop` does besides ending processes, of which there are none here."""
    for link in processes._links.values():
        link.close()


def test_roles_that_are_needed_after_a_restart_are_started_once_the_broker_says_so(monkeypatch):
    statuses = iter([RESTART_STATUS, None, None])
    monkeypatch.setattr(worker.subprocess, "Popen", lambda *_args, **_more: Ended(next(statuses)))
    answers = iter([TransientError("the broker is away"), ("correlate", "repartition")])

    def needed():
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    processes = RoleProcesses(load_settings(), ("correlate",), needed=needed)
    processes.start()
    processes.check(0.0)
    assert list(processes._children) == ["correlate"]
    processes.check(0.2)
    assert list(processes._children) == ["correlate", "repartition"]
    close_links(processes)


def test_further_roles_are_started_once(monkeypatch):
    started = []
    monkeypatch.setattr(
        worker.subprocess, "Popen", lambda *_args, env, **_more: started.append(env["ASTROCYTE_ROLES"]) or Ended(None)
    )
    processes = RoleProcesses(load_settings(), ("correlate",))
    processes.start()
    processes.add(("correlate", "sql"))
    processes.add(("correlate", "sql"))
    assert started == ["correlate", "sql"]
    close_links(processes)


def test_a_supervisor_does_not_wait_for_a_broker_that_is_away():
    with socket() as free:
        free.bind(("127.0.0.1", 0))
        settings = Settings(broker=f"127.0.0.1:{free.getsockname()[1]}", roles=("correlate",))
        with pytest.raises(TransientError):
            asyncio.run(asyncio.wait_for(worker._roles_now(settings), 30))


# -- log lines -------------------------------------------------------------------------------------------------------


class Log:
    """A reporter in virtual time."""

    def __init__(self, absent=()):
        self.now_s = 0.0
        self.unused = Unused()
        self.lines: list[str] = []
        self.reporter = UnusedReporter(
            lambda: [self.unused], lambda: absent, monotonic=lambda: self.now_s, say=self.lines.append
        )

    async def after(self, seconds: float) -> list[str]:
        """Lines of the time that passes."""
        self.lines.clear()
        end_s = self.now_s + seconds
        while self.now_s < end_s:
            self.now_s += 0.5
            await self.reporter.tick()
        return list(self.lines)


async def test_the_line_on_late_events_names_an_idle_source_where_that_is_the_cause():
    log = Log()
    log.unused.add("late", "web.logins", "web.logins[0]@8 of 2025-09-28T10:32:00Z", detail=IDLE, count=8)
    (line,) = await log.after(1)
    assert line.startswith("8 late events of web.logins, such as web.logins[0]@8 of 2025-09-28T10:32:00Z, since event")
    assert "ASTROCYTE_IDLE_TIMEOUT" in line
    assert "ASTROCYTE_LATENESS" not in line
    log.unused.add("late", "web.logins", "web.logins[0]@9 of 2025-09-28T10:32:00Z")
    (line,) = await log.after(70)
    assert "ASTROCYTE_LATENESS" in line
    assert "IDLE" not in line


async def test_each_cause_has_at_most_one_line_a_minute_with_the_events_since_the_last():
    log = Log()
    assert await log.after(10) == []
    log.unused.add("duplicate", "mono.A", "mono.A[0]@5", count=3)
    twice = "events of mono.A had the id of an event that came before, such as mono.A[0]@5"
    assert await log.after(2) == [f"3 {twice}"]
    log.unused.add("duplicate", "mono.A", "mono.A[0]@6", count=2)
    log.unused.add("duplicate", "mono.B", "mono.B[0]@6", count=1)
    assert await log.after(50) == []
    assert await log.after(20) == [f"2 {twice}; 1 more of 1 other kinds"]
    assert await log.after(300) == []


async def test_the_line_on_late_events_says_what_to_do_also_about_a_replayed_log():
    log = Log()
    log.unused.add("late", "mono.A", "mono.A[0]@5", count=3)
    (line,) = await log.after(2)
    assert line.startswith("3 late events of mono.A, such as mono.A[0]@5; ASTROCYTE_LATENESS says how late")
    assert "'astrocyte replay --shift'" in line


async def test_what_never_came_is_said_once_after_a_minute():
    log = Log(absent=["field 'x' of A, which rule 'r' reads, never came"])
    assert await log.after(30) == []
    assert await log.after(90) == ["field 'x' of A, which rule 'r' reads, never came"]
    assert await log.after(300) == []


# -- roles -----------------------------------------------------------------------------------------------------------


class BuggyStore:
    """A sink that raises where a row holds the value 13, and refuses the value 14."""

    name = "sql"

    def __init__(self):
        self.rows: set[float] = set()

    async def write(self, batch):
        rejected = []
        for item in batch:
            if hasattr(item, "records"):
                values = [record.get("integrated_value") for record in item.records]
            else:
                values = item.frame.column("value").to_pylist()
            for row, value in enumerate(values):
                if value == 13:
                    raise KeyError("a bug")
                if value == 14:
                    rejected.append(item.rejected(row, "no"))
                else:
                    self.rows.add(value)
        return rejected


async def stored(topic: str, *values: bytes) -> tuple[BuggyStore, list[dict], list[str], SinkRunner]:
    letters, acked, store = [], [], BuggyStore()

    async def deliver(records):
        letters.extend(orjson.loads(record.value) for record in records)

    runner = SinkRunner(store, deliver, partitions=4)
    records = [RawRecord(5 + number, 0, b"k", value) for number, value in enumerate(values)]
    delivery = SimpleNamespace(ack_through=lambda: acked.append(topic))
    await runner.handle(SimpleNamespace(topic=topic, partition=0), delivery, records)
    await runner.finish()
    return store, letters, acked, runner


async def test_a_row_of_a_frame_on_which_a_sink_raises_is_one_dead_letter():
    values = [float(value) for value in range(20)]
    store, letters, acked, runner = await stored("mono.A", encode_frame(frame_of(values)))
    assert store.rows == set(values) - {13, 14}
    assert [(each["stage"], each["offset"], each["row"]) for each in letters] == [("sql", 5, 13), ("sql", 5, 14)]
    assert letters[0]["reason"] == "writing a row by sql failed: KeyError: 'a bug'"
    assert orjson.loads(b64decode(letters[0]["payload_b64"]))["value"] == 13
    assert acked == ["mono.A"]
    assert (runner.written, runner.rejected, runner.unused.count("dead")) == (18, 2, 2)


async def test_a_multi_event_on_which_a_sink_raises_is_one_dead_letter():
    events = [multi_event(number) | {"integrated_value": 10 + number} for number in range(4)]
    store, letters, _, _ = await stored("multi.events", *(orjson.dumps(event) for event in events))
    assert store.rows == {10, 11, 12}
    assert [(each["stage"], each["topic"], each["offset"], each["row"]) for each in letters] == [
        ("sql", "multi.events", 8, None)
    ]


async def test_a_record_that_a_sink_cannot_read_is_counted():
    _, letters, acked, runner = await stored("mono.A", b"no json")
    assert (letters, acked) == ([], ["mono.A"])
    assert [(cause, of, detail) for cause, of, detail, _ in runner.unused] == [("dead", "mono.A", "decode")]


async def test_a_row_that_cannot_be_keyed_is_a_dead_letter_and_the_others_are_copied(monkeypatch):
    def broken(frame, field):
        if 13 in frame.column("value").to_pylist():
            raise ValueError("a bug")
        return keyed(frame, field)

    keyed = repartition.partition_keys
    monkeypatch.setattr(repartition, "partition_keys", broken)
    repartitioner = Repartitioner(Repartition("A", "mono.A", "place", "keyed.place.A"), 4, lateness_us=0)
    record = RawRecord(7, 1_772_359_200_000, None, encode_frame(frame_of([1, 13, 2])))
    (copy,), (letter,) = repartitioner.step(0, [record])
    frame = copy.frame
    assert frame.column("value").to_pylist() == [1, 2]
    assert frame.column("place").to_pylist() == ["p", "p"]
    assert (letter.stage, letter.topic, letter.offset, letter.row) == ("repartition", "mono.A", 7, 1)


async def test_rows_without_the_field_of_a_copy_go_on_in_the_first_partition():
    plan = Repartition("A", "mono.A", "nowhere", "keyed.nowhere.A")
    repartitioner = Repartitioner(plan, 4, lateness_us=0)
    (copy,), letters = repartitioner.step(0, [RawRecord(7, 1_772_359_200_000, None, encode_frame(frame_of([1, 2])))])
    assert letters == []
    parts = {each.partition: decode_frame(each.value).num_rows for each in copy_records(plan, copy, 4)}
    assert parts == {0: 2, 1: 0, 2: 0, 3: 0}


class Summing(Controller):
    """Adds up values, and raises on 13."""

    stream = "w"

    def initial(self) -> Any:
        return {"sum": 0.0}

    def step(self, state: Any, frame: Frame) -> tuple[Any, list[ControlEvent]]:
        values = frame.column("value").to_pylist()
        if 13 in values:
            raise ZeroDivisionError("a bug")
        state = {"sum": state["sum"] + sum(values)}
        return state, [ControlEvent(control="summing", timestamp="1970-01-01T00:00:01Z", values=state)]


def test_a_row_on_which_a_controller_raises_is_a_dead_letter_and_changes_no_state():
    runner = ControlRunner("state", {"summing": Summing()})
    records = runner.step("metrics.w", 0, [RawRecord(3, 0, None, encode_frame(frame_of([1, 2, 13, 4], "w")))])
    by_topic = {record.topic: orjson.loads(record.value) for record in records}
    assert by_topic["state"] == {"sum": 7.0}
    letter = by_topic["dead_letters"]
    assert (letter["stage"], letter["topic"], letter["offset"], letter["row"]) == ("control", "metrics.w", 3, 2)
    assert runner.unused.count("dead") == 1


def test_a_controller_whose_state_cannot_be_read_begins_anew():
    runner = ControlRunner("state", {"summing": Summing()})
    runner.remember(b"summing/0", b"no json")
    records = runner.step("metrics.w", 0, [RawRecord(3, 0, None, encode_frame(frame_of([1, 2], "w")))])
    assert orjson.loads(records[-1].value) == {"sum": 3.0}


@pytest.mark.parametrize(
    "error",
    [SinkError("the file was deleted"), SnapshotsLost("no state goes with them"), InputReset("the topic begins anew")],
)
def test_a_store_or_a_state_that_is_lost_ends_the_role_for_good_with_one_line(error, monkeypatch, caplog):
    ended = []
    monkeypatch.setattr("os._exit", ended.append)
    with stopping():
        raise error
    assert ended == [STOPPED_STATUS]
    assert [record.getMessage() for record in caplog.records] == [str(error)]

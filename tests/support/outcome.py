"""The oracle of fault tests: what topics and stores hold, against a run over the recorded log that nothing disturbed.

The expected multi events are found twice: by an engine that is given the frames that were sent, and by ``match`` over
the log that was recorded from the broker. The second also gives the alerts, the rows of SQL and the points of InfluxDB,
each with its values.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import orjson
import pytest

from astrocyte import Engine, load_rules
from astrocyte.agents.domain import DomainOutput
from astrocyte.pipeline.analysis.offline import OfflineRun, run_rules
from astrocyte.pipeline.analysis.verify.bodies import forget_places
from astrocyte.pipeline.recording.reader import read_log
from astrocyte.pipeline.recording.record import record
from astrocyte.pipeline.topology.topics import mono_topics
from astrocyte.schemas.frames import CONTENT_TYPE, decode_frame
from astrocyte.schemas.topics import ALERTS, CLOCK, DEAD_LETTERS, LATE, MULTI_EVENTS, SAMPLING
from tests.support.expected import expected_points, expected_rows, messages_for_sinks, rows_of
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from tests.support.live import Live

__all__ = ["Outcome", "bodies_of", "find_outcome", "replayed"]


@dataclass(slots=True)
class Outcome:
    """What came of the events of one experiment."""

    events: int
    matches: int = 0
    lost: int = 0
    """Records, rows and points that are missing, over all places."""
    twice_sql: int = 0
    """Rows of multi events and alerts beyond one for each match."""
    twice_influx: int = 0
    wrong: int = 0
    """Records, rows and points with other values, or that should not be there."""
    late: int = 0
    may_be_late: bool = False
    """Producers return with old timestamps: the live run and the replay must agree on which events are late."""
    lag_0_s: float = 0.0
    """Seconds from the end of the fault until every role has committed everything and nothing is missing."""
    read_again: int = 0
    """Events and outputs that a role has read more than once."""
    peak_mb: dict[str, int] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    repeated: int = 0
    """Records in ``multi.events`` and ``alerts`` beyond one for each id."""

    def line(self) -> dict[str, object]:
        """The columns of the table."""
        return {
            "events": self.events,
            "matches": self.matches,
            "lost": self.lost,
            "twice in SQL": self.twice_sql,
            "twice in InfluxDB": self.twice_influx,
            "wrong": self.wrong,
            "late": self.late,
            "s to lag 0": f"{self.lag_0_s:.1f}",
            "read again": self.read_again,
            "peak MB": " ".join(f"{role} {size}" for role, size in sorted(self.peak_mb.items())),
        }

    def check(self, *, repeats: bool) -> None:
        """Nothing was lost, doubled, wrong or late. ``repeats``: topics may hold records twice."""
        counted = ("lost", "twice_sql", "twice_influx", "wrong", *(() if self.may_be_late else ("late",)))
        assert {name: getattr(self, name) for name in counted} == dict.fromkeys(counted, 0), self._text()
        assert not self.problems, self._text()
        assert repeats or not self.repeated, f"{self.repeated} records were emitted twice"

    def _text(self) -> str:
        return f"{self.line()}\n" + "\n".join(self.problems)

    def compare(self, place: str, found: Mapping[Any, Any], wanted: Mapping[Any, Any]) -> None:
        """Count what is missing and what is wrong, with examples."""
        lost = [key for key in wanted if key not in found]
        wrong = [key for key in found if key not in wanted or found[key] != wanted[key]]
        self.lost += len(lost)
        self.wrong += len(wrong)
        if lost:
            self.problems.append(f"{place}: {len(lost)} of {len(wanted)} are lost, such as {wanted[lost[0]]}")
        if wrong:
            example = f"{found[wrong[0]]}, expected {wanted.get(wrong[0])}"
            self.problems.append(f"{place}: {len(wrong)} of {len(found)} are wrong, such as {example}")


def find_outcome(
    live: Live,
    ended_s: float,
    timeout_s: float,
    *,
    may_be_late: bool = False,
    repeatable: bool = True,
    fewest: int = 300,
) -> Outcome:
    """Wait until everything has come, and compare. What does not come in time is lost.

    With ``may_be_late``, the expected matches are those of a replay that repeats which events were late. Where it can't
    be ``repeatable``, by rules over repartitioned streams, what is compared is that every event is accounted for, late
    or not, and that nothing is twice. ``fewest``: matches below which an experiment proves too little.
    """
    if may_be_late and not repeatable:
        return _accounted_for(live, ended_s, timeout_s)
    if may_be_late:
        wait_until(lambda: _received(live), timeout_s, lambda: _state(live))
        wanted = _ids(each for output in replayed(live)[1] for each in output.multi_events)
    else:
        engine = Engine(load_rules(live.settings.rules[0]))
        for frame in live.sending.right:
            engine.push(frame)
        wanted = {match.id for match in engine.flush().matches}
    assert len(wanted) > fewest, f"{len(wanted)} matches of {live.sending.events} events prove too little"
    outcome = Outcome(live.sending.events, len(wanted), may_be_late=may_be_late)
    try:
        wait_until(lambda: _done(live, wanted, may_be_late=may_be_late), timeout_s, lambda: _state(live))
    except pytest.fail.Exception as error:
        outcome.problems.append(str(error))
        for worker in live.workers:
            worker.show_waits()
            outcome.problems.append(f"{worker.role}: {worker.said[-3000:]}")
    outcome.lag_0_s = time.monotonic() - ended_s

    run, made = replayed(live)
    _compare_topics(outcome, live, made, wanted)
    _compare_counters(outcome, live, run.counters.as_dict())
    _compare_stores(outcome, live, made)
    outcome.read_again = _read_again(live)
    outcome.peak_mb = {role: size >> 20 for role, size in live.memory.peak_bytes.items()}
    return outcome


def _accounted_for(live: Live, ended_s: float, timeout_s: float) -> Outcome:
    """The outcome of events of which nobody can say how many are late."""
    outcome = Outcome(live.sending.events, may_be_late=True)
    try:
        wait_until(lambda: _done(live, set(), may_be_late=True), timeout_s, lambda: _state(live))
    except pytest.fail.Exception as error:
        outcome.problems.append(str(error))
    outcome.lag_0_s = time.monotonic() - ended_s
    counters = live.counters()
    outcome.late = counters["late"]
    outcome.matches = len(_ids(live.records(MULTI_EVENTS)))
    accounted = sum(counters[name] for name in ("processed", "late", "dead"))
    outcome.compare("accounted for", {"events": accounted}, {"events": outcome.events})
    if "sql" in live.roles:
        outcome.twice_sql = _twice_in_sql(rows_of(live.settings.sql_url.get_secret_value()))
    return outcome


def replayed(live: Live) -> tuple[OfflineRun, list[DomainOutput]]:
    """Record the events and what workers decided by their clocks and lags, and match them."""
    log = live.folder / "recorded.jsonl.zst"
    topics = [*mono_topics(live.settings.streams), CLOCK, SAMPLING]
    asyncio.run(record(live.settings.broker, topics, log, overwrite=True))
    rules = load_rules(live.settings.rules[0])
    run, outputs = run_rules(
        rules, [log], lateness_us=live.settings.lateness, clock_tolerance_us=live.settings.clock_tolerance
    )
    return run, list(outputs)


def _received(live: Live) -> bool:
    """Whether domains have counted everything that was sent, in the snapshots that they stored last."""
    for worker in live.workers:
        assert worker.ended is None, f"{worker.role} ended with status {worker.ended}: {worker.said[-3000:]}"
    # Lags last: the sinks read what the domains have made.
    if any(live.lag(role) != 0 for role in live.roles if role in ("correlate", "repartition")):
        return False
    return live.counters()["received"] >= live.sending.events


def _done(live: Live, wanted: set[str], *, may_be_late: bool) -> bool:
    if not _received(live):
        return False
    if live.records(LATE) and not may_be_late:
        return True
    if len(_ids(live.records(MULTI_EVENTS))) < len(wanted):
        return False
    return all(live.lag(role) == 0 for role in live.roles)


def _state(live: Live) -> str:
    return f"lags { ({role: live.lag(role) for role in live.roles}) }, counters {live.counters()}"


def bodies_of(records: Iterable[Any]) -> list[dict[str, Any]]:
    """Bodies without the places in internal topics."""
    found = [orjson.loads(each.value) for each in records]
    for body in found:
        forget_places(body)
    return found


def _ids(multi_events: Iterable[Any]) -> set[str]:
    return {orjson.loads(each.value)["event_id"] for each in multi_events}


def _compare_topics(outcome: Outcome, live: Live, made: Iterable[DomainOutput], wanted: set[str]) -> None:
    for topic, name in ((MULTI_EVENTS, "event_id"), (ALERTS, "alert_id")):
        bodies = bodies_of(live.records(topic))
        found: dict[str, dict[str, Any]] = {}
        for body in bodies:
            if found.setdefault(body[name], body) != body:
                outcome.wrong += 1
                outcome.problems.append(f"{topic}: one id, two contents: {body}, {found[body[name]]}")
        outcome.repeated += len(bodies) - len(found)
        records = [each for out in made for each in (out.multi_events if topic == MULTI_EVENTS else out.alerts)]
        outcome.compare(topic, found, {body[name]: body for body in bodies_of(records)})
        if topic == MULTI_EVENTS:
            outcome.compare("multi.events, by an engine", dict.fromkeys(found), dict.fromkeys(wanted))


def _compare_counters(outcome: Outcome, live: Live, offline: Mapping[str, int]) -> None:
    """Every event is accounted for, live and offline; only those of a wrong clock are refused."""
    refused, counters = live.sending.refused, live.counters()
    outcome.late = max(len(live.records(LATE)), counters["late"])
    late = offline["late"] if outcome.may_be_late else 0
    processed = outcome.events - refused - late
    accounted = {"received": outcome.events, "processed": processed, "dead": refused, "late": late}
    outcome.compare("counters", {name: counters[name] for name in accounted}, accounted)
    outcome.compare("counters of match", {name: offline[name] for name in accounted}, accounted)
    letters = [orjson.loads(each.value) for each in live.records(DEAD_LETTERS)]
    stages = Counter({each["letter_id"]: each["stage"] for each in letters}.values())
    outcome.compare("dead letters", stages, Counter({"clock": refused} if refused else {}))


def _compare_stores(outcome: Outcome, live: Live, made: Iterable[DomainOutput]) -> None:
    rules, log = load_rules(live.settings.rules[0]), live.folder / "recorded.jsonl.zst"
    messages = messages_for_sinks(log, made, live.settings.partitions)
    if "sql" in live.roles:
        wanted = expected_rows(live.settings, rules, messages, live.folder / "expected.db")
        found = rows_of(live.settings.sql_url.get_secret_value())
        for table, rows in wanted.items():
            outcome.compare(f"SQL, {table}", found[table], rows)
        outcome.twice_sql = _twice_in_sql(found)
    if live.influx is not None:
        points = dict(live.influx.points)
        outcome.compare("InfluxDB", points, expected_points(live.settings, rules, messages))
        ids = [
            (measurement, fields["event_id" if measurement == "multi_events" else "alert_id"])
            for (measurement, _, _), fields in points.items()
            if measurement in ("multi_events", "alerts")
        ]
        outcome.twice_influx = _beyond_one(ids)
        outcome.wrong += live.influx.replaced


def _twice_in_sql(found: Mapping[str, Mapping[Any, Any]]) -> int:
    """Rows of multi events and alerts beyond one for each match, whatever their ids are."""
    sources: dict[str, list[tuple[int, str]]] = {}
    for row in found["multi_event_sources"].values():
        sources.setdefault(row["event_id"], []).append((row["position"], row["source_event_id"]))
    events = [
        (row["correlation_rule"], tuple(sorted(sources.get(row["event_id"], ()))))
        for row in found["multi_events"].values()
    ]
    alerts = [(row["rule"], row["multi_event_id"]) for row in found["alerts"].values()]
    return _beyond_one(events) + _beyond_one(alerts)


def _beyond_one(items: Iterable[Any]) -> int:
    return sum(count - 1 for count in Counter(items).values())


def _read_again(live: Live) -> int:
    path = live.folder / "read.txt"
    if not path.exists():
        return 0
    events: dict[tuple[str, int, int], int] = {}
    for each in read_log(live.folder / "recorded.jsonl.zst"):
        framed = dict(each.headers).get("content-type") == CONTENT_TYPE.encode()
        events[each.topic, each.partition, each.offset] = decode_frame(each.value).num_rows if framed else 1
    reads: Counter[tuple[str, str, int, int]] = Counter()
    for line in path.read_text().splitlines():
        role, topic, partition, first, following = line.split()
        reads.update((role, topic, int(partition), offset) for offset in range(int(first), int(following)))
    return sum(
        (count - 1) * events.get((topic, partition, offset), 0 if topic.startswith("mono.") else 1)
        for (_, topic, partition, offset), count in reads.items()
    )

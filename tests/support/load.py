"""Workers under load: the highest rate that they sustain, what they hold and owe while it lasts, and overload.

A run is long and its events are many, so what came of them is compared by their ids, and no log is recorded: `Engine`
is given the frames that were sent, and the topic, SQL and the counters of the domains must say the same.
"""

from __future__ import annotations

import asyncio
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from scipy.stats import theilslopes
from sqlalchemy import create_engine, text

from astrocyte import Engine, load_rules
from astrocyte.agents.accounting import OUTCOMES
from astrocyte.pipeline.broker import BrokerProcess
from astrocyte.pipeline.roles.health import correlate_health
from astrocyte.schemas.topics import DEAD_LETTERS, LATE, MULTI_EVENTS, STATS
from tests.support.live import PARTITIONS, Live
from tests.support.outcome import bodies_of, replayed
from tests.support.processes import descriptors, memory_bytes
from tests.support.role_worker import Worker
from tests.support.sending import ROWS, TICK_S
from tests.support.waiting import wait_until

__all__ = ["Load", "Samples", "Trend", "little_time", "sustained_rows", "trend"]

BEHIND_S = 4.0
"""Seconds of events that a worker may owe and still count as one that keeps up: snapshots say how far it is."""
STEP_S = 10.0
"""Seconds for which a rate is tried."""
LOOKS = 5
SAMPLE_S = 2.0
BLOCKS = 30
"""Samples are averaged to so many values before a slope is fitted: neighbouring ones are not independent."""
SHARE = 0.8
"""The part of the highest rate kept up with for some seconds that is sent for long: the rest is for snapshots, garbage
and other work of the machine."""
PERIOD_S = 0.2


@dataclass(frozen=True)
class Trend:
    """The level of a measure, and its change in an hour with a 95 % interval."""

    level: float
    hourly: float
    low: float
    high: float

    def rises(self, share: float) -> bool:
        """Whether it rises by more than a share of its level in an hour, beyond doubt."""
        return self.low > share * self.level

    def __str__(self) -> str:
        return f"{self.level:.1f} ({self.hourly:+.1f} an hour, {self.low:+.1f} to {self.high:+.1f})"


def trend(seconds: Sequence[float], values: Sequence[float]) -> Trend:
    """Median, and Theil and Sen's slope (Sen 1968) with its interval, of the last three quarters of a run.

    The first quarter is left out: buffers and caches fill.
    """
    kept = len(seconds) // 4
    blocks = min(BLOCKS, len(seconds) - kept)
    at = np.array([block.mean() for block in np.array_split(np.asarray(seconds[kept:], float), blocks)])
    mean = np.array([block.mean() for block in np.array_split(np.asarray(values[kept:], float), blocks)])
    slope = theilslopes(mean, at / 3600)
    return Trend(float(np.median(mean)), float(slope.slope), float(slope.low_slope), float(slope.high_slope))


@dataclass
class Samples:
    """What processes hold, and what is owed, every two seconds."""

    at_s: list[float] = field(default_factory=list)
    values: dict[str, list[float]] = field(default_factory=dict)

    def trends(self) -> dict[str, Trend]:
        """The trend of each measure."""
        return {name: trend(self.at_s, each) for name, each in self.values.items()}

    def add(self, at_s: float, found: Mapping[str, float]) -> None:
        """One more row."""
        self.at_s.append(at_s)
        for name, value in found.items():
            self.values.setdefault(name, []).append(value)


def _messages_s(live: Live) -> float:
    """Messages that are sent in a second, at the rate of now."""
    streams = len(live.settings.streams)
    each = live.sending.rows if live.sending.form == "json" else PARTITIONS
    return streams * each / TICK_S


def _behind_s(live: Live) -> float:
    """Seconds of events that the last of the roles owes."""
    events_s = len(live.settings.streams) * live.sending.rows / TICK_S
    owed = [(live.sending.events - live.counters()["received"]) / events_s]
    owed += [(live.lag(role) or 0) / _messages_s(live) for role in live.roles if role != "correlate"]
    return max(owed)


def _caught_up(live: Live, limit_s: float = 300.0) -> None:
    """Send little, and return when the workers owe nothing that counts."""
    live.sending.rows = ROWS
    wait_until(lambda: _behind_s(live) < BEHIND_S, limit_s, lambda: f"the workers, {_behind_s(live):.0f} s behind")


def sustained_rows(live: Live) -> int:
    """Events of each stream in a tick that the workers keep up with; found by trying more and more.

    The producer is a thread of this process and has a limit as well.
    """

    def keeps_up(rows: int) -> bool:
        live.sending.rows = rows
        began, before = time.monotonic(), live.sending.events
        live.sending.wait(STEP_S)
        reached = (live.sending.events - before) / (time.monotonic() - began)
        # One look may come in the midst of a snapshot, or of other work of the machine.
        behind = min(_behind_s(live) for _ in range(LOOKS))
        kept = behind < BEHIND_S and reached > 0.7 * len(live.settings.streams) * rows / TICK_S
        if not kept:
            _caught_up(live)
        return kept

    rows = ROWS
    while keeps_up(2 * rows):
        rows *= 2
    if keeps_up(rows * 3 // 2):
        rows = rows * 3 // 2
    return max(int(SHARE * rows), ROWS)


@contextmanager
def little_time(worker: Worker, share: float) -> Iterator[None]:
    """A worker runs for a share of the time only, as where the machine has other work: its capacity is that share."""
    done = threading.Event()

    def stop_and_go() -> None:
        while not done.wait(share * PERIOD_S):
            worker.signal(signal.SIGSTOP)
            done.wait((1 - share) * PERIOD_S)
            worker.signal(signal.SIGCONT)

    thread = threading.Thread(target=stop_and_go)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


class Load:
    """The measures of one run, and what must be right at its end."""

    def __init__(self, live: Live) -> None:
        self.live = live
        self.samples = Samples()

    def run(self, rows: int, seconds: float) -> None:
        """Send ``rows`` events of each stream in a tick, for so many seconds, and sample."""
        live = self.live
        live.sending.rows = rows
        began = time.monotonic()
        while time.monotonic() - began < seconds:
            live.sending.wait(SAMPLE_S)
            self.samples.add(time.monotonic() - began, self._measures())

    def _measures(self) -> dict[str, float]:
        live = self.live
        pids = {worker.role: worker.process.pid for worker in live.workers} | {"broker": live.broker.pid}
        found = {f"{name}, MB": memory_bytes(pid) / 2**20 for name, pid in pids.items()}
        found |= {f"{name}, descriptors": float(descriptors(pid)) for name, pid in pids.items()}
        found["behind, s"] = _behind_s(live)
        if isinstance(live.broker, BrokerProcess):
            found["state on disk, MB"] = _state_bytes(Path(live.broker.data_dir)) / 2**20
        return found

    def caught_up(self) -> float:
        """Seconds until the workers owe nothing."""
        began = time.monotonic()
        _caught_up(self.live, 1800)
        return time.monotonic() - began

    def check(self) -> dict[str, Any]:
        """End the sending; every event is accounted for and every match is there once. Returns what was counted."""
        live = self.live
        live.sending.stop()
        wait_until(
            lambda: (
                live.counters()["received"] >= live.sending.events and all(live.lag(role) == 0 for role in live.roles)
            ),
            1800,
            lambda: f"the rest: {live.counters()} of {live.sending.events}",
        )
        engine = Engine(load_rules(live.settings.rules[0]))
        wanted: set[str] = set()
        for number, frame in enumerate(live.sending.frames):
            engine.push(frame)
            if number % 100 == 0:  # so that it need not hold them all
                wanted.update(match.id for match in engine.advance(int(frame.timestamps().min()) - 1_000_000).matches)
        wanted.update(match.id for match in engine.flush().matches)
        assert len(wanted) > 100, f"{len(wanted)} matches of {live.sending.events} events prove too little"
        wait_until(lambda: len(_topic_ids(live)) >= len(wanted), 600, "the last matches")
        found = _topic_ids(live)
        assert found.keys() == wanted, f"{len(wanted - found.keys())} lost, {len(found.keys() - wanted)} wrong"
        assert set(found.values()) == {1}, "no worker died, so none is there twice"
        counters = live.counters()
        assert counters["received"] == counters["processed"] == live.sending.events, counters
        assert (live.records(LATE), live.records(DEAD_LETTERS)) == ([], [])
        if "sql" in live.roles:
            self._check_sql(wanted)
        return {"events": live.sending.events, "matches": len(wanted), "lost": 0, "twice": 0, "late": 0}

    def check_left_out(self) -> dict[str, Any]:
        """End the sending; every event is processed or left out and counted, and a replay finds the same rows."""
        live = self.live
        live.sending.stop()
        began_s = time.monotonic()
        wait_until(
            lambda: live.counters()["received"] >= live.sending.events and live.lag("correlate") == 0,
            1800,
            lambda: f"the rest: {live.counters()} of {live.sending.events}",
        )
        took_s = time.monotonic() - began_s
        run, made = replayed(live)
        wanted = {body["event_id"]: body for body in bodies_of(each for out in made for each in out.multi_events)}
        wait_until(lambda: len(_topic_ids(live)) >= len(wanted), 600, "the last matches")
        found = {body["event_id"]: body for body in bodies_of(live.records(MULTI_EVENTS))}
        assert found == wanted, f"{len(wanted.keys() - found.keys())} lost, {len(found.keys() - wanted.keys())} wrong"
        counters, replay = live.counters(), run.counters.as_dict()
        assert counters["received"] == counters["processed"] + counters["sampled"] == live.sending.events, counters
        assert {name: replay[name] for name in OUTCOMES} == {name: counters[name] for name in OUTCOMES}
        left_out = asyncio.run(correlate_health(live.settings.broker))["left_out"]
        assert left_out == {stream: dict(counts) for stream, counts in run.left_out.items()}
        assert sum(sum(counts.values()) for counts in left_out.values()) == counters["sampled"]
        counted = {"events": live.sending.events, "matches": len(wanted), "left out": left_out}
        return counted | {"s to catch up": round(took_s, 1)}

    def _check_sql(self, wanted: set[str]) -> None:
        live = self.live
        wait_until(lambda: live.lag("sql") == 0, 600, "the rest of the sink")
        engine = create_engine(live.settings.sql_url.get_secret_value())
        with engine.connect() as connection:
            ids = [row[0] for row in connection.execute(text("select event_id from multi_events"))]
            events = connection.execute(text("select count(*) from spikes")).scalar_one()
        engine.dispose()
        assert (len(ids), set(ids)) == (len(wanted), wanted)
        assert events == live.sending.events


def _topic_ids(live: Live) -> Counter[str]:
    return Counter(orjson.loads(each.value)["event_id"] for each in live.records(MULTI_EVENTS))


def _state_bytes(folder: Path) -> int:
    """Size of what is compacted: snapshots, counters, committed offsets."""
    parts = ("state.", STATS, "__consumer_offsets")
    return sum(
        file.stat().st_size
        for each in folder.rglob("*")
        if each.is_dir() and each.name.startswith(parts)
        for file in each.rglob("*")
        if file.is_file()
    )

"""Load: a worker at the highest rate that it sustains holds no more after an hour, and overload only delays.

Where a stream declares what may be left out, the delay is bounded as well, and what was left out is counted.

`make faults ARGS="-k load"` runs it for ten minutes on both brokers and prints a table; `LOAD_MINUTES=60` for an hour.
"""

from __future__ import annotations

import os
import time

import numpy as np
import pytest

from astrocyte.pipeline.analysis.verify.run import verify
from tests.support.live import FORMS, running
from tests.support.load import Load, little_time, sustained_rows, trend
from tests.support.sending import ROWS, TICK_S

MINUTES = float(os.environ.get("LOAD_MINUTES", "10"))
QUIET = {"lateness": "500ms", "idle_timeout": "5s", "rare": True}
HOURLY_SHARE = 0.1
"""What may be added in an hour to what a process holds, as a share of it; a leak of some bytes an event is far more."""
OVERLOAD_S = 30.0
OVERLOAD_MB = 600
"""Memory beyond that of a worker that keeps up: what was fetched and waits, bounded whatever waits on the broker."""


def test_a_leak_is_a_trend_and_noise_is_none():
    seconds = np.arange(0, 600, 2.0)
    noise = np.random.default_rng(1).normal(300, 3, seconds.size)
    assert not trend(seconds, noise).rises(HOURLY_SHARE)
    assert trend(seconds, noise + seconds * 0.05).rises(HOURLY_SHARE), "180 MB in an hour"


@pytest.mark.soak
@pytest.mark.parametrize("sinks", [(), ("sql",)], ids=["correlate", "correlate and sql"])
@pytest.mark.parametrize("form", FORMS)
def test_nothing_grows_at_the_highest_rate_that_a_worker_sustains(own_broker, tmp_path, record_property, form, sinks):
    with running(own_broker, tmp_path, form=form, sinks=sinks, **QUIET) as live:
        load = Load(live)
        rows = sustained_rows(live)
        load.run(rows, 60 * MINUTES)
        counted = load.check()
        measured = load.samples.trends()
        line = {"load": " and ".join(live.roles), "form": form, "broker": live.broker_kind, "minutes": MINUTES}
        line |= {"events/s": round(len(live.settings.streams) * rows / TICK_S)} | counted
        line["level (change in an hour, 95 % interval)"] = "; ".join(
            f"{name}: {each}" for name, each in measured.items()
        )
        record_property("experiment", line)
        print(line)
        assert not {name: str(each) for name, each in measured.items() if each.rises(HOURLY_SHARE) and each.level > 5}


@pytest.mark.soak
@pytest.mark.parametrize("factor", [3, 10])
@pytest.mark.parametrize("form", FORMS)
def test_overload_delays_and_loses_nothing(own_broker, tmp_path, record_property, form, factor):
    with running(own_broker, tmp_path, form=form, **QUIET) as live:
        load = Load(live)
        rows = sustained_rows(live)
        load.run(rows, OVERLOAD_S)
        before = max(load.samples.values["correlate, MB"])
        with little_time(live.worker, 1 / factor):
            load.run(rows, OVERLOAD_S)
        behind, took_s = load.samples.values["behind, s"][-1], load.caught_up()
        peak = live.memory.peak_bytes["correlate"] / 2**20
        line = {"overload": f"{factor} times for {OVERLOAD_S:.0f} s", "form": form, "broker": live.broker_kind}
        line |= {"events/s": round(len(live.settings.streams) * rows / TICK_S)} | load.check()
        line |= {"s behind": f"{behind:.1f}", "s to catch up": f"{took_s:.1f}"}
        line |= {"MB before": f"{before:.0f}", "peak MB": f"{peak:.0f}"}
        record_property("experiment", line)
        print(line)
        assert peak < before + OVERLOAD_MB


BUSY_S = 0.01
"""Time that an event of the slow stream takes: a worker processes a hundred of them in a second, on any machine."""
POLICIES: dict[str, dict[str, object]] = {
    "block": {"policy": "block"},
    "sample": {"policy": "sample", "share": 0.05},
    "latest": {"policy": "latest"},
    "drop_oldest": {"policy": "drop_oldest"},
}
MOST_BEHIND_S = 30.0
"""Of a stream that declares a policy; a blocked one is behind by all that the machine cannot do."""


def overloaded(broker, folder, policy: str, factor: int, seconds: float) -> dict[str, object]:
    """A stream comes ``factor`` times as fast as it can be processed, and one beside it does not; what came of both."""
    # A frame of each tick in each of two partitions: 20 of them are events of a second.
    thresholds = {} if policy == "block" else {"above": 20, "below": 5}
    declared, slow = {"quiet_a": POLICIES[policy] | thresholds}, {"quiet_a": BUSY_S}
    with running(broker, folder, form="frames", slow=slow, overload=declared, **QUIET | {"rare": False}) as live:
        load = Load(live)
        before = live.memory.peak_bytes["correlate"]
        live.sending.rows = round(factor * TICK_S / BUSY_S)
        behind_s = [0.0]
        ends_s = time.monotonic() + seconds
        while time.monotonic() < ends_s:
            live.sending.wait(1.0)
            places = live.settings.partitions * len(live.settings.streams)
            behind_s.append((live.lag("correlate") or 0) * TICK_S / places)
        counted, peak = load.check_left_out(), live.memory.peak_bytes["correlate"]
        line = {"overload": f"{factor} times for {seconds:.0f} s", "policy": policy, "broker": live.broker_kind}
        line |= counted | {"most s behind": round(max(behind_s), 1)}
        line |= {"MB before": before >> 20, "peak MB": peak >> 20}
        print(line)
        assert peak < before + (OVERLOAD_MB << 20)
        return line


def check_bounded(line: dict, policy: str) -> None:
    if policy == "block":
        assert line["left out"] == {}, "nothing is lost"
        return
    assert line["left out"].keys() == {"quiet_a"}, "the stream beside it declares nothing"
    assert line["left out"]["quiet_a"].keys() == {policy}
    assert line["most s behind"] < MOST_BEHIND_S


@pytest.mark.parametrize(("policy", "factor"), [("sample", 10), ("drop_oldest", 3)])
def test_overload_leaves_out_what_is_declared_and_counts_it(own_embedded, tmp_path, record_property, policy, factor):
    line = overloaded(own_embedded, tmp_path, policy, factor, 6.0)
    record_property("experiment", line)
    check_bounded(line, policy)


@pytest.mark.soak
@pytest.mark.parametrize("factor", [3, 10])
@pytest.mark.parametrize("policy", POLICIES)
def test_overload_for_long_is_bounded_by_what_is_declared(own_broker, tmp_path, record_property, policy, factor):
    # What is blocked takes as many times as long to be processed.
    seconds = 60 * MINUTES / (factor if policy == "block" else 1)
    line = overloaded(own_broker, tmp_path, policy, factor, seconds)
    record_property("experiment", line)
    check_bounded(line, policy)


@pytest.mark.soak
def test_a_worker_that_is_killed_while_it_leaves_events_out_repeats_that(own_embedded, tmp_path):
    sampled = {"policy": "sample", "share": 0.3, "above": 100, "below": 20}
    declared, slow = {"quiet_a": sampled, "quiet_b": {"policy": "latest", "above": 200}}, {"quiet_a": BUSY_S / 5}
    with running(
        own_embedded, tmp_path, form="json", static=True, slow=slow, overload=declared, **QUIET | {"rare": False}
    ) as live:
        live.sending.rows = 5 * ROWS
        for seconds in (3.0, 1.5, 2.0):  # in the midst of something each time, as nothing waits for anything
            live.sending.wait(seconds)
            live.worker.kill()
            live.worker.start()
        live.sending.wait(1.0)
        counted = Load(live).check_left_out()
        print(counted)
        assert counted["left out"]["quiet_a"]["sample"] > 100
        found = verify(live.settings, where=("topics",), now_us=0)
        assert found.holds, [str(each) for each in found.differences]
        assert found.events["sampled"] == live.counters()["sampled"]

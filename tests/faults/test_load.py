"""Load: a worker at the highest rate that it sustains holds no more after an hour, and overload only delays.

`make faults ARGS="-k load"` runs it for ten minutes on both brokers and prints a table; `LOAD_MINUTES=60` for an hour.
"""

from __future__ import annotations

import os

import numpy as np
import pytest

from tests.support.live import FORMS, running
from tests.support.load import Load, little_time, sustained_rows, trend
from tests.support.sending import TICK_S

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

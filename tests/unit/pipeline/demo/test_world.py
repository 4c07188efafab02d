"""The simulation's own metrics beside the counts of a demo."""

import os
import subprocess
import sys

import numpy as np

from astrocyte.pipeline.demo.world import WorldSink, idle_processors, sparkline, usual_world
from astrocyte.scenario import MemorySink
from astrocyte.schemas.frames import Frame


def populations(*values: int) -> Frame:
    count = len(values)
    return Frame.from_columns(
        "population_metrics",
        "run",
        {
            "timestamp": np.arange(count, dtype=np.int64),
            "key": ["run"] * count,
            "type": ["snapshot"] * count,
            "total_population": np.array(values),
            "avg_accuracy": np.array(values) / 100,
        },
    )


def test_the_history_of_the_world_is_kept_and_every_frame_passed_on():
    behind = MemorySink()
    sink = WorldSink(behind, "cells", clock=lambda: 5.0)
    other = Frame.from_columns("cell_vitals", "run", {"timestamp": np.array([0]), "key": ["1"], "type": ["vitals"]})
    for frame in (populations(10, 20), other, populations(), populations(15)):
        sink.write(frame)
    assert sink.course == {"population": [10, 20, 15], "accuracy": [0.1, 0.2, 0.15]}
    assert sink.now == {"population": 15, "accuracy": 0.15}
    assert len(behind.frames) == 4
    assert sink.events == sum(frame.num_rows for frame in behind.frames) == 4


def test_the_time_of_the_first_frame_is_kept():
    now_s = iter((3.0, 4.0))
    sink = WorldSink(MemorySink(), "axons", clock=lambda: next(now_s))
    assert sink.first_s is None
    sink.write(populations(1))
    sink.write(populations(2))
    assert sink.first_s == 3.0


def test_a_world_without_metrics_has_no_history():
    sink = WorldSink(MemorySink(), "axons", clock=lambda: 5.0)
    sink.write(populations(1))
    assert sink.course == sink.now == {}


def test_a_sparkline_goes_from_the_lowest_to_the_highest_bar():
    assert sparkline([0, 1, 2, 3, 4, 5, 6, 7]) == "▁▂▃▄▅▆▇█"
    assert sparkline([3, 3, 3]) == "▁▁▁"
    assert len(sparkline(list(range(1_000)))) == 40


def test_a_demo_beside_other_work_has_a_smaller_world_and_says_so():
    usual, silence = usual_world("axons", 1.9)
    small, note = usual_world("axons", 0.2)
    assert small["domains"] < usual["domains"]
    assert silence is None
    assert f"{small['domains']:,} domains (--size {usual['domains']} for the usual world)" in note


def test_other_worlds_have_one_size_for_a_demo():
    assert usual_world("cells", 0.0) == usual_world("cells", 8.0) == ({}, None)


def test_processors_that_other_work_uses_are_not_idle():
    usable = len(os.sched_getaffinity(0))
    busy = [
        subprocess.Popen([sys.executable, "-Sc", "print(flush=True)\nwhile True: pass"], stdout=-1)
        for _ in range(usable)
    ]
    try:
        for process in busy:
            process.stdout.readline()
        assert idle_processors() < 1
    finally:
        for process in busy:
            process.kill()
            process.communicate()

"""The simulation's own metrics beside the counts of a demo."""

import numpy as np

from astrocyte.pipeline.demo.world import WorldSink, sparkline
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
    sink = WorldSink(behind, "cells")
    other = Frame.from_columns("cell_vitals", "run", {"timestamp": np.array([0]), "key": ["1"], "type": ["vitals"]})
    for frame in (populations(10, 20), other, populations(), populations(15)):
        sink.write(frame)
    assert sink.course == {"population": [10, 20, 15], "accuracy": [0.1, 0.2, 0.15]}
    assert sink.now == {"population": 15, "accuracy": 0.15}
    assert len(behind.frames) == 4


def test_a_world_without_metrics_has_no_history():
    sink = WorldSink(MemorySink(), "axons")
    sink.write(populations(1))
    assert sink.course == sink.now == {}


def test_a_sparkline_goes_from_the_lowest_to_the_highest_bar():
    assert sparkline([0, 1, 2, 3, 4, 5, 6, 7]) == "▁▂▃▄▅▆▇█"
    assert sparkline([3, 3, 3]) == "▁▁▁"
    assert len(sparkline(list(range(1_000)))) == 40

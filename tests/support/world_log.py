"""A recorded log of a small world of cells, made by hand: its population collapses, and a rule finds that."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import orjson

from astrocyte.agents.loading import load_rules
from astrocyte.pipeline.analysis.inputs import Inputs
from astrocyte.pipeline.analysis.offline import OfflineRun
from astrocyte.pipeline.bench.phylogeny import moran_frames
from astrocyte.pipeline.kafka.record import ConsumedRecord
from astrocyte.pipeline.roles.output_records import producer_records
from astrocyte.schemas.frames import Frame
from astrocyte.schemas.topics import DEAD_LETTERS, SIMULATIONS
from tests.support.logs import T0_US, frame_messages, write_log

RUN = "cells-1"
COLLAPSE_S = 6.0
SECONDS = 10.0
RULES = """
rules:
  - name: population_collapse
    description: The population falls below half of what it was at the snapshot before.
    by: simulation_id
    within: 10s
    seq:
      - {as: before, stream: population_metrics}
      - as: now
        stream: population_metrics
        contiguity: next
        where: "total_population < 0.5 * before.total_population"
    skip: past_last
    emit: {integrated_value: "now.total_population", confidence: "1.0"}
    alert: {severity: critical, message: "population fell to {now.total_population}"}
"""


@dataclass(frozen=True)
class WorldLog:
    """A log and the rules that it was made with."""

    log: Path
    rules: Path


def world_messages() -> list[ConsumedRecord]:
    """What the world itself sends, in the order of time: ten rows of the population a second, and samples of cells."""
    offsets: dict[tuple[str, int], int] = {}
    config = {"simulation_id": RUN, "experiment_id": "demo", "parameters": {"scenario": "cells", "seed": 1}}
    messages = [ConsumedRecord(SIMULATIONS, 0, 0, T0_US // 1000, RUN.encode(), orjson.dumps(config))]
    for frame in world_frames():
        messages += frame_messages(frame, 1, offsets)
    return messages


def world_frames() -> Iterator[Frame]:
    """Frames of the world, one of each stream for each tenth of a second."""
    for tick in range(int(SECONDS * 10)):
        at = T0_US + tick * 100_000
        population = 1000 + tick if tick < COLLAPSE_S * 10 else 300 + tick
        columns = {
            "tick": np.array([tick]), "total_population": np.array([population]), "avg_accuracy": np.array([0.5]),
            "genome_diversity": np.array([0.9]), "avg_generation": np.array([tick / 10]),
            "energy_efficiency": np.array([1.1]), "births": np.array([7]), "deaths": np.array([5]),
            "avg_energy": np.array([12.5]),
        }  # fmt: skip
        yield Frame.from_columns(
            "population_metrics", RUN,
            {"timestamp": np.array([at]), "key": [RUN], "type": ["snapshot"], **columns}, first_seq=tick,
        )  # fmt: skip
        cells = 8
        kinds = ["bio", "ai", "tpu"]
        traits = (
            "metabolism", "growth_rate", "division_size", "mutation_rate", "tpu_cores", "tpu_memory", "tpu_efficiency",
        )  # fmt: skip
        genome = {name: np.linspace(0.1, 0.9, cells, dtype=np.float32) for name in traits}
        yield Frame.from_columns(
            "genome_data", RUN,
            {"timestamp": np.full(cells, at), "key": ["0"] * cells, "type": ["genome"] * cells,
             "cell_id": np.arange(cells), "genome_type": [kinds[each % 3] for each in range(cells)], **genome},
            first_seq=tick * cells,
        )  # fmt: skip


def dead_letter() -> ConsumedRecord:
    """A message that was refused."""
    letter = {
        "letter_id": "letter-1", "reason": "expected JSON, got 3 other bytes", "stage": "decode", "topic": "mono.cells",
        "partition": 0, "offset": 7, "payload_b64": "PGI+",
    }  # fmt: skip
    return ConsumedRecord(DEAD_LETTERS, 0, 0, (T0_US + 5_000_000) // 1000, None, orjson.dumps(letter))


def world_log(folder: Path) -> WorldLog:
    """Write the log, with what the rule makes of it, and the rule file."""
    rules = folder / "rules.yaml"
    rules.write_text(RULES)
    messages = world_messages()
    bare = write_log(folder / "bare.jsonl.zst", messages, partitions=1)
    ruleset = load_rules(rules)
    inputs = Inputs(ruleset, [bare])
    made: dict[str, list[ConsumedRecord]] = {}
    for output in OfflineRun(ruleset, inputs, lateness_us=0).run(inputs.records()):
        for (topic, _), records in producer_records(output, 0, 1).items():
            own = made.setdefault(topic, [])
            for each in records:
                written_ms = (T0_US + int(SECONDS * 1e6)) // 1000
                own.append(ConsumedRecord(topic, 0, len(own), written_ms, each.key, each.value, tuple(each.headers)))
    records = [*messages, dead_letter(), *(record for own in made.values() for record in own)]
    return WorldLog(write_log(folder / "events.jsonl.zst", records, partitions=1), rules)


def births_log(folder: Path) -> Path:
    """The log of the world with births and deaths of 64 cells, from its beginning to its end."""
    offsets: dict[tuple[str, int], int] = {}
    messages = world_messages()
    frames = list(moran_frames(600, 64, name=RUN))
    every_us = int(SECONDS * 1e6) // len(frames)
    for number, frame in enumerate(frames):
        columns = {name: frame.column(name) for name in ("type", "cell_id", "parent_id", "generation")}
        times = {"timestamp": np.full(frame.num_rows, T0_US + number * every_us), "key": ["0"] * frame.num_rows}
        messages += frame_messages(Frame.from_columns(frame.stream, RUN, times | columns), 1, offsets)
    messages.sort(key=lambda each: each.timestamp_ms)
    return write_log(folder / "births.jsonl.zst", messages, partitions=1)

"""A small simulated world as a recorded log, with all that the rules of its scenario make of it."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import orjson

from astrocyte.agents.rules.model import RuleSet
from astrocyte.pipeline.recording.frames import chunks_of
from astrocyte.pipeline.recording.reader import read_log
from astrocyte.pipeline.topology.rule_files import read_rule_files
from astrocyte.scenario import configure, load_scenario
from astrocyte.schemas.times import us_from_iso
from astrocyte.schemas.topics import ALERTS, MULTI_EVENTS
from astrocyte.simulator.emission.assembly import Assembler
from astrocyte.simulator.runtime.world import World
from tests.support.logs import frame_messages, write_log
from tests.support.pair_log import with_outputs
from tests.support.small_worlds import SMALL_WORLDS

__all__ = ["RecordedWorld", "recorded_world"]

RUN = "run"
PARTITIONS = 2


@dataclass(frozen=True)
class RecordedWorld:
    """The log, and what its events and results say."""

    name: str
    log: Path
    rules: RuleSet

    @cached_property
    def rows(self) -> dict[str, list[dict[str, Any]]]:
        """Events, results of windows and statistics, multi events and alerts, by stream; with time and weight."""
        found: dict[str, list[dict[str, Any]]] = defaultdict(list)
        for item in chunks_of(self.log, derived=True):
            frame = item.frame
            found[frame.stream] += [
                {"simulation_id": frame.run, "weight": frame.weight, **row, "time_us": row["timestamp"]}
                for row in frame.rows()
            ]
        for stream, topic in (("multi_events", MULTI_EVENTS), ("alerts", ALERTS)):
            found[stream] = []  # as messages, and not as the events that rules would read
            for record in read_log(self.log):
                if record.topic == topic:
                    row = orjson.loads(record.value)
                    row |= {"time_us": us_from_iso(row["timestamp"]), "sources": len(row.get("source_events", ()))}
                    found[stream].append({"rule": row.get("correlation_rule"), **row})
        return found


def recorded_world(name: str, folder: Path) -> RecordedWorld:
    """Simulate the small world of a scenario, and record it with the outputs of its rules."""
    ticks, settings = SMALL_WORLDS[name]
    scenario = load_scenario(name)
    config = configure(scenario.Config, settings)
    assembler = Assembler(scenario, config, RUN, frame_ticks=ticks)
    params = scenario.params(config)
    offsets: dict[tuple[str, int], int] = {}
    messages = [
        message
        for done in World(scenario, config, 5).run(ticks, lambda _: params)
        for frame in assembler.add(done)
        for message in frame_messages(frame, PARTITIONS, offsets)
    ]
    rules = read_rule_files([name])
    bare = write_log(folder / f"{name}-bare.jsonl.zst", messages, partitions=PARTITIONS)
    return RecordedWorld(name, with_outputs(rules, bare, folder / f"{name}.jsonl.zst"), rules)

"""A recorded log in which A and B of eight keys meet, and the rule that finds them."""

from __future__ import annotations

import json
from collections import defaultdict
from itertools import count

import numpy as np
import orjson
import typer
from typer.testing import CliRunner

from astrocyte.agents.rules.model import RuleSet
from astrocyte.pipeline.analysis.offline import run_rules
from astrocyte.pipeline.cli import log as cli_log
from astrocyte.pipeline.cli.correlation import rules as cli_rules
from astrocyte.pipeline.kafka.record import ConsumedRecord
from astrocyte.pipeline.recording.reader import read_log
from astrocyte.pipeline.recording.replays.shift import repartition
from astrocyte.pipeline.roles.output_records import producer_records
from astrocyte.schemas.frames import Frame
from tests.support.logs import T0_US, axon_frame, frame_messages, json_messages, write_log

app = typer.Typer()
cli_rules.register(app)
cli_log.register(app)

PAIR = """
rules:
  - name: pair
    by: key
    within: 2s
    all:
      - {as: a, stream: axon_1, where: "type == 'A'"}
      - {as: b, stream: axon_2, where: "type == 'B'"}
    emit: {integrated_value: "a.value + b.value"}
    alert: {severity: warning, message: "{a.value} and {b.value}"}
"""
STRICT = PAIR.replace("\"type == 'A'\"", "\"type == 'A' and value > 10\"")
SECOND = 1_000_000
LATENESS = SECOND


def spikes(steps: int = 12) -> list[Frame]:
    """Frames of axon_1 (A) and axon_2 (B), a second apart; in each, eight keys meet within 10 ms."""
    keys = [f"d{i}" for i in range(8)]
    frames = []
    for step in range(steps):
        times = [step * 3 * SECOND + i for i in range(8)]
        ahead = T0_US + times[-1] - 8
        later = [time + 10_000 for time in times]
        meta = {"seq": step * 8, "watermark_us": ahead, "origin": "sim", "peers": ("axon_1", "axon_2")}
        frames.append(axon_frame("axon_1", keys, times, types="A", **meta))
        frames.append(axon_frame("axon_2", keys, later, types="B", **meta))
    return frames


def in_frames(frames: list[Frame], partitions: int = 2) -> list[ConsumedRecord]:
    offsets: dict[tuple[str, int], int] = {}
    return [message for frame in frames for message in frame_messages(frame, partitions, offsets)]


def in_json(frames: list[Frame], partitions: int = 2) -> list[ConsumedRecord]:
    offsets: dict[tuple[str, int], int] = {}
    messages = []
    for frame in frames:
        for message in json_messages(frame):
            (placed,) = repartition(message, 1, partitions)
            place = (placed.topic, placed.partition)
            messages.append(placed._replace(offset=offsets.get(place, 0)))
            offsets[place] = offsets.get(place, 0) + 1
    return messages


def matches(ruleset: RuleSet, path, lateness_us: int = LATENESS) -> list[dict]:
    _, outputs = run_rules(ruleset, [path], lateness_us=lateness_us)
    return [orjson.loads(record.value) for output in outputs for record in output.multi_events]


def with_outputs(ruleset: RuleSet, path, to):
    """The log with what the rules make of it, as a recording of a whole pipeline has it."""
    records = list(read_log(path))
    offsets: dict[tuple[str, int], count[int]] = defaultdict(count)
    _, outputs = run_rules(ruleset, [path], lateness_us=LATENESS)
    for output in outputs:
        for place, made in producer_records(output, 0, 2).items():
            records += [
                ConsumedRecord(*place, next(offsets[place]), T0_US // 1000, each.key, each.value, tuple(each.headers))
                for each in made
            ]
    return write_log(to, records)


def truth(rule: str, rows: list[tuple[str, int, int, list]]) -> ConsumedRecord:
    frame = Frame.from_columns(
        "truth",
        "run-1",
        {
            "timestamp": np.array([T0_US + start for _, start, _, _ in rows]),
            "key": [key for key, *_ in rows],
            "type": ["planted"] * len(rows),
            "kind": ["coincidence"] * len(rows),
            "rule": [rule] * len(rows),
            "until": np.array([T0_US + until for *_, until, _ in rows]),
            "members": [json.dumps(members) for *_, members in rows],
        },
    )
    return frame_messages(frame, 1, {})[0]


def run(*arguments: str):
    result = CliRunner().invoke(app, list(arguments))
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result

"""This engine: frames in, matches and window results out, as a worker runs it, without a broker."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import yaml
from hashing import hash_sum
from protocol import arguments, serve

from astrocyte.agents.engine.engine import Engine
from astrocyte.agents.engine.output import EngineOutput
from astrocyte.agents.loading import load_rules
from astrocyte.schemas.frames import Frame

RECORD = np.dtype([("t", "<i8"), ("key", "<i4"), ("type", "<i4"), ("value", "<f8")])
ROWS = 16_384
GIVEN = arguments()
WITHIN = f"{GIVEN['within']}us"


def step(name: str, kind: int, **more: Any) -> dict[str, Any]:
    return {"as": name, "stream": "s", "where": f"type == '{kind}'", **more}


def rules() -> dict[str, Any]:
    """The rule file of the workload."""
    pattern: dict[str, Any]
    match GIVEN["kind"]:
        case "pairs":
            pattern = {"all": [step("a", 0), step("b", 1)], "pairing": "each"}
        case "followed":
            pattern = {"seq": [step("a", 0), step("b", 1)]}
        case kind:
            raise ValueError(kind)
    return {"rules": [{"name": "peers", "by": "key", "within": WITHIN, **pattern}]}


RULES = load_rules(yaml.safe_dump(rules()))


def frames(data: bytes) -> list[Frame]:
    """Frames as a producer sends them: keys and types of one dictionary each."""
    events = np.frombuffer(data, RECORD)
    keys = pa.array([f"key-{number}" for number in range(int(events["key"].max()) + 1)])
    types = pa.array([str(number) for number in range(int(events["type"].max()) + 1)])
    made = []
    for first in range(0, len(events), ROWS):
        part = events[first : first + ROWS]
        columns = {
            "timestamp": part["t"].copy(),
            "key": pa.DictionaryArray.from_arrays(pa.array(part["key"].copy()), keys),
            "type": pa.DictionaryArray.from_arrays(pa.array(part["type"].copy()), types),
            "value": part["value"].copy(),
        }
        made.append(Frame.from_columns("s", "peers", columns, first_seq=first))
    return made


def found(output: EngineOutput) -> tuple[int, int]:
    """Number of matches and their hash."""
    table = output.matches
    ids = np.empty(len(table.events), np.int64)
    for block, positions, rows in table.events.parts():
        ids[positions] = block.frame.sequences()[rows]
    return len(table), hash_sum(ids, table.offsets)


def run(given: list[Frame]) -> tuple[int, int]:
    engine = Engine(RULES)
    count = total = 0
    for frame in given:
        engine.push(frame)
        some, part = found(engine.advance(int(frame.timestamps()[-1])))
        count, total = count + some, total + part
    some, part = found(engine.flush())
    return count + some, total + part


if __name__ == "__main__":
    Engine(RULES)
    serve(frames, run)

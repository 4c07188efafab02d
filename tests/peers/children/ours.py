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


def pattern() -> dict[str, Any]:
    """Pattern of the workload's one rule."""
    match GIVEN["kind"]:
        case "pairs":
            return {"all": [step("a", 0), step("b", 1)], "pairing": "each"}
        case "followed":
            return {"seq": [step("a", 0), step("b", 1)]}
        case "strict_loop":
            loop = step("b", 1, min=1, contiguity="next", consecutive=True)
            return {"seq": [step("a", 0), loop, step("c", 2, contiguity="next")]}
        case "relaxed_loop":
            return {"seq": [step("a", 0), step("b", 1, min=1), step("c", 2)]}
        case "absence":
            return {"seq": [step("a", 0), {"not": step("b", 1)}]}
        case "combinations":
            types = [*range(int(GIVEN["steps"]) - int(GIVEN["open"])), *([-1] * int(GIVEN["open"]))]
            later = {"contiguity": "followed_by_any"}
            limits = {"max_partials": 10_000_000, "max_matches": 10_000_000}
            return {"seq": [step(f"e{at}", kind, **(later if at else {})) for at, kind in enumerate(types)], **limits}
        case "adjacent":
            ranges = [each.split(":") for each in GIVEN["ranges"].split(",")]
            steps: list[dict[str, Any]] = [
                {"as": f"s{at}", "stream": "s", "where": f"value >= {low} and value < {high}", "contiguity": "next"}
                for at, (low, high) in enumerate(ranges)
            ]
            del steps[0]["contiguity"]
            return {"seq": steps, "skip": "past_last"} | ({} if GIVEN["keyed"] == "1" else {"by": None})
        case kind:
            raise ValueError(kind)


def rules() -> dict[str, Any]:
    """The rule file of the workload."""
    if GIVEN["kind"] == "windows":
        select = {"n": "count()", "total": "sum(value)", "top": "max(value)"}
        return {"windows": [{"name": "w", "from": "s", "by": "key", "every": WITHIN, "select": select}]}
    if GIVEN["kind"] == "rules":
        return {
            "rules": [
                {"name": f"r{at}", "within": WITHIN, "seq": [step("a", 2 * at), step("b", 2 * at + 1)]}
                for at in range(int(GIVEN["rules"]))
            ]
        }
    return {"rules": [{"name": "peers", "by": "key", "within": WITHIN, **pattern()}]}


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
    """Number of matches, or of results of windows, and their hash."""
    if GIVEN["kind"] == "windows":
        results = [windows(frame) for frame in output.frames]
        return sum(count for count, _ in results), sum(total for _, total in results)
    table = output.matches
    ids = np.empty(len(table.events), np.int64)
    for block, positions, rows in table.events.parts():
        ids[positions] = block.frame.sequences()[rows]
    first, after = table.offsets[:-1], table.offsets[1:]
    if GIVEN["kind"] in {"strict_loop", "relaxed_loop"}:
        return len(table), columns([ids[first], ids[first + 1], ids[after - 2], ids[after - 1]])
    if GIVEN["kind"] == "rules":
        numbers = np.array([int(rule.name[1:]) for rule in table.rules], np.int64)
        return len(table), columns([numbers[table.rule], ids[first], ids[after - 1]])
    return len(table), hash_sum(ids, table.offsets)


def columns(numbers: list[Any]) -> int:
    """Hash of matches whose numbers are columns."""
    made = np.stack(numbers, axis=1)
    return hash_sum(made.reshape(-1), np.arange(len(made) + 1) * made.shape[1])


def windows(frame: Frame) -> tuple[int, int]:
    key, total, top = (frame.batch.column(name) for name in ("key", "total", "top"))
    names = np.array([int(name.removeprefix("key-")) for name in key.dictionary.to_pylist()], np.int64)
    start, n = (frame.batch.column(name).cast(pa.int64()).to_numpy() for name in ("window_start", "n"))
    keys = names[key.indices.to_numpy()] if len(names) else np.empty(0, np.int64)
    exact = [(values.to_numpy() * 1024).astype(np.int64) for values in (total, top)]
    return frame.num_rows, columns([keys, start, n, *exact])


def run(engine: Engine, given: list[Frame]) -> tuple[int, int]:
    count = total = 0
    for frame in given:
        engine.push(frame)
        some, part = found(engine.advance(int(frame.timestamps()[-1])))
        count, total = count + some, total + part
    some, part = found(engine.flush())
    return count + some, total + part


if __name__ == "__main__":
    Engine(RULES)
    serve(frames, run, lambda: Engine(RULES))

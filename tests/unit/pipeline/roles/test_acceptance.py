"""An event that a validator refuses is refused for every role: sinks, and controllers."""

from types import SimpleNamespace

import numpy as np
import orjson
import pyarrow as pa
import pytest

from astrocyte import Frame
from astrocyte.agents.rules.model import RuleSet
from astrocyte.agents.rules.validators import Validator
from astrocyte.agents.sinks.base import SourcedFrame
from astrocyte.pipeline.roles.acceptance import Acceptance
from astrocyte.pipeline.roles.control import ControlRunner
from astrocyte.pipeline.roles.sink.runner import SinkRunner
from astrocyte.pipeline.topology.rule_files import read_rule_files
from astrocyte.schemas.frames import encode_frame
from astrocyte.schemas.json.reader import RawRecord

SCORES = (0.4, 1.87, 0.9)


def score(number, karma):
    payload = {"snapshot_id": number, "agent_id": "a1", "version": number, "karma_score": karma,
               "previous_score": 0.1, "score_delta": karma - 0.1, "updated_at": 1735689600.0 + number}  # fmt: skip
    return orjson.dumps(
        {"event": "dna.karma_updated", "payload": payload, "meta": {"agent_id": "a1", "timestamp": 1735689600 + number}}
    )


def as_records():
    return [RawRecord(5 + number, 0, b"a1", score(number, karma)) for number, karma in enumerate(SCORES)]


def as_frame():
    rows = len(SCORES)
    frame = Frame.from_columns(
        "dna.karma_updated",
        "run",
        {
            "timestamp": 1_735_689_600_000_000 + np.arange(rows, dtype=np.int64),
            "key": ["a1"] * rows,
            "type": ["dna.karma_updated"] * rows,
            "snapshot_id": np.arange(rows, dtype=np.int64),
            "agent_id": ["a1"] * rows,
            "version": np.arange(rows, dtype=np.int64),
            "karma_score": np.array(SCORES),
            "previous_score": np.full(rows, 0.1),
            "score_delta": np.array(SCORES) - 0.1,
            "updated_at": 1735689600.0 + np.arange(rows),
        },
    )
    return [RawRecord(5, 0, None, encode_frame(frame))]


class Store:
    name = "sql"

    def __init__(self):
        self.items = []

    async def write(self, batch):
        self.items += batch
        return []


@pytest.mark.parametrize("made", [as_records, as_frame])
async def test_a_sink_never_sees_what_the_validators_refuse(made):
    store, letters, acked = Store(), [], []

    async def deliver(records):
        letters.extend(records)

    runner = SinkRunner(store, deliver, partitions=4, acceptance=Acceptance(read_rule_files(["dna"])))
    delivery = SimpleNamespace(ack_through=lambda: acked.append(True))
    await runner.handle(SimpleNamespace(topic="mono.dna.karma_updated", partition=0), delivery, made())
    await runner.finish()
    stored = [row["karma_score"] for item in store.items for row in item.frame.rows()]
    assert stored == [0.4, 0.9]
    assert [item.row_of(1) if made is as_frame else item.offset_of(1) for item in store.items] == [
        2 if made is as_frame else 7
    ]
    # The role correlate reads this stream, and writes the dead letter.
    assert letters == []
    assert acked == [True]
    assert [count for _, _, _, count in runner.unused if count.count] != []


async def test_a_sink_writes_the_dead_letter_where_no_rule_reads_the_stream():
    store, letters = Store(), []

    async def deliver(records):
        letters.extend(orjson.loads(record.value) for record in records)

    ruleset = RuleSet(validators=(Validator(stream="dna.karma_updated", where="karma_score <= 1"),))
    runner = SinkRunner(store, deliver, partitions=4, acceptance=Acceptance(ruleset))
    delivery = SimpleNamespace(ack_through=lambda: None)
    await runner.handle(SimpleNamespace(topic="mono.dna.karma_updated", partition=0), delivery, as_records())
    await runner.finish()
    assert [(letter["offset"], letter["stage"]) for letter in letters] == [(6, "validate")]
    assert "karma_score is 1.87" in letters[0]["reason"]
    assert [row["karma_score"] for item in store.items for row in item.frame.rows()] == [0.4, 0.9]


@pytest.mark.parametrize("made", [as_records, as_frame])
def test_a_refused_score_causes_no_command(made):
    ruled = ControlRunner("state", acceptance=Acceptance(read_rule_files(["dna"])))
    free = ControlRunner("state")

    def crossovers(runner):
        records = runner.step("mono.dna.karma_updated", 0, made())
        bodies = [orjson.loads(record.value) for record in records if record.topic == "control.ga"]
        return [body for body in bodies if "1.87" in orjson.dumps(body).decode()], len(bodies)

    assert crossovers(free)[0] != []
    kept, commands = crossovers(ruled)
    assert kept == []
    assert commands > 0


def test_sampling_and_changes_of_validators_do_not_change_what_is_stored():
    spec = Validator(stream="axon_1", where="value < 5", set={"value": "value * 2"}, sample=0.5)
    acceptance = Acceptance(RuleSet(validators=(spec,)))
    values = np.arange(10.0)
    frame = Frame.from_columns(
        "axon_1", "run", {"timestamp": np.arange(10, dtype=np.int64), "key": ["k"] * 10, "type": ["A"] * 10,
                          "value": pa.array(values)},
    )  # fmt: skip
    (item,) = acceptance.accept([SourcedFrame(frame, "mono.axon_1", 0, 0)]).items
    assert item.frame.column("value").to_pylist() == [0.0, 1.0, 2.0, 3.0, 4.0]
    assert item.frame.weight == 1.0

"""Messages that are deep, huge or forged cost themselves only: one dead letter each, with its reason."""

import hashlib
import struct
import subprocess
import sys
import zlib
from base64 import b64decode

import numpy as np
import orjson
import pytest

from astrocyte.agents.domain import Domain, DomainGroup
from astrocyte.agents.engine.engine import Engine
from astrocyte.agents.ingest.copies import COPY_HEADER, Copied
from astrocyte.agents.ingest.decode import decode_chunk
from astrocyte.agents.ingest.letters import dead_letter
from astrocyte.agents.loading import load_rules
from astrocyte.pipeline.recording.dead_letters import message_of
from astrocyte.pipeline.roles.output_records import letter_record, producer_records
from astrocyte.pipeline.roles.sink.decode import decode_for_sink
from astrocyte.schemas.frames import Frame, encode_frame
from astrocyte.schemas.json.reader import CUT_HEADER, RawRecord
from astrocyte.schemas.topics import DEAD_LETTERS, MULTI_EVENTS
from astrocyte.simulator.runtime.controls import Plan
from astrocyte.simulator.scenarios.cells.config import CellsConfig
from astrocyte.simulator.scenarios.cells.scenario import CELLS

TIME_MS = 1_700_000_000_000
LISTS = (b"[", b"]")
OBJECTS = (b'{"a":', b"}")


def nested(depth: int, kind: tuple[bytes, bytes]) -> bytes:
    inner = b"1" if kind is OBJECTS else b""
    return kind[0] * depth + inner + kind[1] * depth


DEEP_READER = """
import sys
from astrocyte.agents.ingest.decode import decode_chunk
from astrocyte.schemas.json.reader import RawRecord
opening, closing, depth = sys.argv[1].encode(), sys.argv[2].encode(), int(sys.argv[3])
value = opening * depth + b"1" + closing * depth
for member in (b'"metadata":{"x":' + value + b"}", b'"metadata":{},"x":' + value, b'"metadata":' + value):
    body = b'{"event_id":"e","timestamp":"2026-01-01T00:00:00Z","source_stream":"stream:axon_1","type":"A","value":0.1,'
    frames, letters = decode_chunk("mono.axon_1", 0, [RawRecord(0, 0, b"k", body + member + b"}")])
    assert not frames
    assert "depth limit" in letters[0].reason or "nested" in letters[0].reason, letters[0].reason
print("read")
"""


@pytest.mark.parametrize("kind", [LISTS, OBJECTS])
def test_a_very_deep_event_of_a_listed_stream_does_not_end_the_process(kind):
    command = [sys.executable, "-c", DEEP_READER, kind[0].decode(), kind[1].decode(), "300000"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "read\n"), done.stderr[-2000:]


@pytest.mark.parametrize("kind", [LISTS, OBJECTS])
@pytest.mark.parametrize("member", ["x", "key", "type", "metadata", "timestamp", "event_id"])
def test_a_deep_event_is_refused_alone(member, kind):
    good = RawRecord(0, TIME_MS, b"k", b'{"x":1}')
    deep = RawRecord(1, TIME_MS, b"k", b'{"%s":%s}' % (member.encode(), nested(900, kind)))
    frames, letters = decode_chunk("mono.A", 0, [good, deep, good._replace(offset=2)])
    assert sum(each.frame.num_rows for each in frames) == 2
    (letter,) = letters
    assert letter.offset == 1
    assert len(letter.reason) < 2100


@pytest.mark.parametrize("kind", [LISTS, OBJECTS])
def test_a_deep_multi_event_is_refused_by_a_sink_and_the_others_are_stored(kind):
    good = b'{"event_id":"a"}'
    values = [good, b'{"event_id":"b","details":%s}' % nested(900, kind), b"[]", b"{", good]
    records = [RawRecord(offset, 0, b"k", value) for offset, value in enumerate(values)]
    found = decode_for_sink(MULTI_EVENTS, 0, records)
    assert [len(item.records) for item in found.items] == [2]
    assert [(letter.offset, letter.reason[:20]) for letter in found.letters] == [
        (1, "nested too deeply; e"), (2, "expected a JSON obje"), (3, "not JSON: unexpected"),
    ]  # fmt: skip
    orjson.dumps(found.items[0].records)


def test_a_control_message_on_which_a_scenario_raises_is_refused_and_the_run_goes_on(monkeypatch):
    deep = orjson.loads(nested(900, OBJECTS))
    refused = []
    monkeypatch.setattr(type(CELLS), "control", lambda *_args: 1 // 0)
    config = CellsConfig(size=1024)
    plan = Plan(CELLS, config, source=lambda: [("difficulty", deep)], on_refused=refused.append)
    plan.params(0)
    assert [control.error for control in refused] == [
        "control.difficulty at tick 0 refused: ZeroDivisionError: integer division or modulo by zero"
    ]


def test_a_letter_of_a_huge_message_holds_its_begin_size_and_hash():
    value, key = bytes(range(256)) * (40 << 12), b"k" * 100_000
    headers = [("a", b"1"), ("b", b"x" * 70_000), ("c", b"2")]
    letter = dead_letter(RawRecord(7, TIME_MS, key, value, headers), "mono.A", 3, reason="no event", stage="decode")
    digest = hashlib.sha256(value).hexdigest()
    assert letter.place == "mono.A[3]@7"
    assert f"the value has {len(value):,}, SHA-256 {digest}" in letter.reason
    assert value.startswith(b64decode(letter.payload_b64))
    assert len(b64decode(letter.payload_b64)) == len(b64decode(letter.key_b64)) == 65536
    assert [(name, b64decode(given)) for name, given in letter.headers] == [
        (CUT_HEADER, f"{len(value)} sha256:{digest}".encode()), ("a", b"1"),
    ]  # fmt: skip
    assert len(letter_record(letter, 0).value) < 300_000
    assert message_of(letter) == "it holds only the begin of a message that is too large for a dead letter"


def test_a_letter_of_a_large_message_is_whole_and_fits_its_topic():
    value = b"x" * ((16 << 20) - 100)
    letter = dead_letter(RawRecord(0, TIME_MS, b"k", value), "mono.A", 0, reason="no event", stage="decode")
    assert b64decode(letter.payload_b64) == value
    assert len(letter_record(letter, 0).value) < 31 << 20
    assert message_of(letter).value == value


def copy(*positions: int) -> tuple[bytes, bytes]:
    rows = len(positions)
    columns = {"timestamp": np.full(rows, TIME_MS * 1000), "key": ["k"] * rows}
    frame = Frame.from_columns("A", "run", columns, first_seq=positions[0])
    return encode_frame(frame), Copied(0, positions[-1], np.array(positions, np.int64)).pack()


def forged() -> dict[str, tuple[bytes, bytes]]:
    value, header = copy(1, 2, 3)
    head = struct.Struct("<iqI")
    return {
        "no header": (value, b""),
        "half a header": (value, header[:-5]),
        "random bytes": (value, bytes(range(100))),
        "a bomb": (value, head.pack(0, 9, 0) + zlib.compress(bytes(80 << 20), 1)),
        "more open ones than there are": (value, head.pack(0, 9, 2**31) + zlib.compress(bytes(80))),
        "a negative partition": (value, head.pack(-5, 9, 0) + zlib.compress(bytes(24))),
        "other rows": (copy(5, 6)[0], copy(5, 6, 7, 8)[1]),
        "no frame": (b"{}x", copy(10, 11)[1]),
    }


def test_forged_copies_are_refused_and_the_others_are_matched():
    rules = load_rules("rules: [{name: r, seq: [{as: a, stream: A}]}]")
    group = DomainGroup("key", Engine(rules, validated=True), {"A": "keyed.key.A"})
    domain = Domain(0, [group], topics=["keyed.key.A"], internal={"keyed.key.A"}, copies={"keyed.key.A": "mono.A"})
    cases = forged()
    records = [
        RawRecord(offset, TIME_MS, None, value, [(COPY_HEADER, header)])
        for offset, (value, header) in enumerate([*cases.values(), copy(20, 21)])
    ]
    output = domain.feed("keyed.key.A", records)
    output.extend(domain.flush())
    refused = {list(cases)[letter.offset]: letter.reason for letter in output.dead_letters}
    assert set(refused) == set(cases), refused
    assert len(output.multi_events) == 2


def test_a_result_that_is_too_large_for_its_topic_is_a_letter():
    rules = load_rules("rules: [{name: r, seq: [{as: a, stream: A}], emit: {v: a.v}}]")
    group = DomainGroup("key", Engine(rules, validated=True), {"A": "mono.A"})
    domain = Domain(0, [group], topics=["mono.A"])
    values = ["x" * (33 << 20), "small"]
    records = [
        RawRecord(offset, TIME_MS, b"k", orjson.dumps({"timestamp": TIME_MS, "v": value}))
        for offset, value in enumerate(values)
    ]
    output = domain.feed("mono.A", records)
    output.extend(domain.flush())
    made = producer_records(output, 0, 1)
    assert [len(batch) for (topic, _), batch in made.items() if topic == MULTI_EVENTS] == [1]
    (letter,) = [orjson.loads(record.value) for record in made[DEAD_LETTERS, 0]]
    assert letter["stage"] == "emit"
    assert "the record for 'multi.events' has 34," in letter["reason"]
    assert max(len(record.value) for batch in made.values() for record in batch) < 200_000

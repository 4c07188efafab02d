"""What is linked at an instant, and its picture."""

import random

import orjson
import pytest

from astrocyte import load_rules
from astrocyte.pipeline.analysis.topology.decisions import JoinedPair, decisions_of_files, states_at
from astrocyte.pipeline.analysis.topology.picture import Topology
from astrocyte.pipeline.analysis.topology.workers import MemberOfRole
from astrocyte.pipeline.kafka.record import ConsumedRecord
from astrocyte.pipeline.topology.plan import make_plan
from astrocyte.schemas.times import us_from_iso
from tests.support.logs import write_log

RULES = """
rules:
  - {name: spike, seq: [{as: a, stream: axon_1}], emit: {next: "a.value"}}
  - {name: arrival, within: 1s, seq: [{as: w, stream: wave}, {as: b, stream: axon_2}]}
  - {name: heard, seq: [{as: s, stream: always}]}
junctions:
  - {name: wave, from: spike, key: next, forms: {with: axon_2, over: 5s, above: 1, below: 1}}
  - {name: always, from: spike}
"""


def decision(second: int, kind: str, receiver: str) -> dict[str, object]:
    return {
        "decision_id": f"{second} {kind} {receiver}", "timestamp": f"2025-01-01T00:00:{second:02d}Z", "kind": kind,
        "junction": "wave", "by": "key", "from": "x", "to": receiver, "co_activity": 2 if kind == "formed" else 0,
    }  # fmt: skip


DECISIONS = [
    decision(2, "formed", "y"), decision(4, "formed", "z"), decision(9, "dissolved", "y"), decision(12, "formed", "y"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("second", "joined"), [(1, []), (2, ["y"]), (8, ["y", "z"]), (9, ["z"]), (11, ["z"]), (None, ["y", "z"])]
)
def test_the_state_is_that_of_the_instant_in_any_order_and_with_repeated_records(second, joined):
    moved = {"decision_id": "m", "timestamp": "2025-01-01T00:00:00Z", "kind": "moved", "partition": 1}
    made = [*DECISIONS, *DECISIONS[:2], moved]
    random.Random(3).shuffle(made)
    at_us = None if second is None else us_from_iso(f"2025-01-01T00:00:{second:02d}Z")
    state = states_at(made, at_us).get("wave")
    assert [each.receiver for each in state.joined] == joined if state is not None else joined == []


def test_a_link_that_forms_again_is_there_since_then():
    assert states_at(DECISIONS, None)["wave"].joined[0] == JoinedPair("x", "y", "2025-01-01T00:00:12Z", 2)


def picture(at_s: int | None = None, workers: list[MemberOfRole] | None = None) -> Topology:
    at_us = None if at_s is None else us_from_iso(f"2025-01-01T00:00:{at_s:02d}Z")
    return Topology(make_plan(load_rules(RULES)), states_at(DECISIONS, at_us), at_us, workers)


def test_junctions_that_join_nothing_are_dotted_and_workers_have_domains():
    text = picture(8, [MemberOfRole("correlate", "w-1", "/127.0.0.1", (0, 2))]).mermaid()
    assert text.startswith("%% topology at 2025-01-01T00:00:08Z\nflowchart LR\n")
    assert '-- "wave<br/>x to y since 2025-01-01T00:00:02Z, 2<br/>x to z since 2025-01-01T00:00:04Z, 2" -->' in text
    assert '-- "always" -->' in text
    assert 'w0[["w-1<br/>correlate, partitions 0, 2"]]' in text
    assert '-. "wave: joins nothing" .->' in picture(1).mermaid()


def test_as_json_it_has_all_pairs():
    found = picture().as_json()
    (always, wave) = sorted(found["junctions"], key=lambda each: str(each["name"]))
    assert [each["to"] for each in wave["joined"]] == ["y", "z"]
    assert (wave["formed"], wave["dissolved"], always["forms"], "joined" in always) == (3, 1, False, False)
    assert found["workers"] is None
    assert next(each["reads"] for each in found["domains"]) == ["mono.axon_1"]


def test_a_recorded_log_gives_the_decisions_that_it_holds(tmp_path):
    records = [
        ConsumedRecord("topology", 0, number, 1, b"wave", orjson.dumps(each), ())
        for number, each in enumerate(DECISIONS)
    ]
    path = write_log(tmp_path / "log.jsonl.zst", records, partitions=1)
    found = decisions_of_files(load_rules(RULES), [path], lateness_us=0, clock_tolerance_us=1_000_000, domains=None)
    assert list(found) == DECISIONS

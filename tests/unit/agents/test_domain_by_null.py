"""A domain with rules over all keys: they read a copy, beside which the original is counted."""

from astrocyte.agents.domain import Domain, DomainGroup
from astrocyte.agents.engine.engine import Engine
from astrocyte.agents.loading import load_rules
from astrocyte.schemas.events import MultiEvent
from astrocyte.schemas.frames import Frame, encode_frame
from astrocyte.schemas.json.reader import RawRecord

START_US = 1_750_000_000_000_000
RULES = load_rules("rules: [{name: r, by: null, within: 1s, seq: [{as: a, stream: A}, {as: b, stream: A}]}]")


def new_domain() -> Domain:
    group = DomainGroup("", Engine(RULES, validated=True), {"A": "keyed..A"})
    return Domain(0, [group], topics=["keyed..A", "mono.A"], internal=["keyed..A"])


def messages(numbers, first_offset: int = 0) -> list[RawRecord]:
    made = []
    for offset, number in enumerate(numbers, first_offset):
        columns = {"timestamp": [START_US + number * 1000], "key": ["k"]}
        value = encode_frame(Frame.from_columns("A", "run", columns, first_seq=number))
        made.append(RawRecord(offset, 1000, None, value))
    return made


def test_rules_by_null_go_on_from_a_snapshot():
    first, second = new_domain(), new_domain()
    for topic in ("mono.A", "keyed..A"):
        first.feed(topic, messages([0, 1]))
    second.restore(first.snapshot())
    assert second.watermark_us == first.watermark_us
    found = []
    for domain in (first, second):
        outputs = [domain.feed(topic, messages([2, 5000], 2)) for topic in ("mono.A", "keyed..A")]
        outputs += [domain.mark_all_idle(), domain.flush()]
        found.append(
            [MultiEvent.model_validate_json(each.value).event_id for out in outputs for each in out.multi_events]
        )
    assert found[0] == found[1]
    assert found[0]

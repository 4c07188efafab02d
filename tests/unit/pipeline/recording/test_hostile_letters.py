"""The topic of dead letters is one that others may write to: what is no letter is counted, and the rest is read."""

import pytest

from astrocyte.agents.ingest.letters import dead_letter
from astrocyte.pipeline.kafka.record import ConsumedRecord
from astrocyte.pipeline.recording.dead_letters import letters_of, retried_messages
from astrocyte.schemas.json.reader import RawRecord
from astrocyte.schemas.topics import DEAD_LETTERS


def letter(**changed):
    record = RawRecord(3, 0, b"k", b"not json", [("a", b"b")])
    return dead_letter(record, "mono.A", 0, reason="r", stage="decode").model_copy(update=changed)


def read(*letters):
    values = [each.model_dump_json().encode() for each in letters]
    return letters_of(ConsumedRecord(DEAD_LETTERS, 0, n, 0, None, value) for n, value in enumerate(values))


@pytest.mark.parametrize(
    "changed",
    [{"key_b64": "a"}, {"payload_b64": "eA="}, {"headers": (("a", "\u00e9"),)}, {"payload_b64": "QVJST1cx!!!"}],
)
def test_a_letter_whose_base64_is_none_is_counted_and_the_others_are_read(changed):
    found = read(letter(letter_id="bad", **changed), letter(letter_id="good"))
    assert found.unreadable == 1
    messages, refused = retried_messages([each.letter for each in found.found])
    assert [each.value for each in messages] == [b"not json"]
    assert not refused

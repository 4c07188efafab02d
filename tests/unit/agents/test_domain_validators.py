"""Validators of a running domain."""

import numpy as np

from astrocyte import Engine, Frame, encode_frame, load_rules
from astrocyte.agents.domain import Domain, DomainGroup
from astrocyte.agents.ingest.validate import Validators
from astrocyte.schemas.json.reader import RawRecord

TEXT = "rules: [{name: any, seq: [{as: a, stream: s}]}]\nvalidators: [{stream: s, where: 'value < LIMIT'}]"


def message(offset: int, value: float) -> RawRecord:
    columns = {"timestamp": np.array([1_750_000_000_000_000 + offset]), "key": ["k"], "value": [value]}
    return RawRecord(offset, 0, None, encode_frame(Frame.from_columns("s", "run", columns, first_seq=offset)))


def test_changed_validators_apply_from_the_next_chunk_on():
    first, second = (load_rules(TEXT.replace("LIMIT", limit)) for limit in ("10", "5"))
    domain = Domain(
        0, [DomainGroup("key", Engine(first, validated=True), {"s": "mono.s"})], topics=["mono.s"],
        validators=Validators(first.validators),
    )  # fmt: skip
    assert domain.feed("mono.s", [message(0, 7.0)]).dead_letters == []
    domain.update({"key": second}, Validators(second.validators))
    (letter,) = domain.feed("mono.s", [message(1, 7.0)]).dead_letters
    assert letter.reason == "value < 5 does not hold (value is 7.0)"

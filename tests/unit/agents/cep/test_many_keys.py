"""Thousands of keys at once give the matches of each key alone: prefetching changes no result."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from astrocyte.agents.cep.matcher import Matcher
from astrocyte.agents.rules.model import Rule, Step
from astrocyte.schemas.frames import Frame

KEYS = 12_000
ROWS = 6_000
PARTS = 16


def kind(name, condition="", **options):
    return Step(name=name, stream="s", where=f"type == '{name.upper()}'{condition}", **options)


RULES = {
    "followed_by": {"seq": [kind("a"), kind("b")], "skip": "past_last"},
    "loop": {"seq": [kind("a"), kind("b", " and value > last(a.value)", min=1), kind("c")]},
    "combinations": {
        "seq": [kind("a"), kind("b", contiguity="followed_by_any"), kind("c", contiguity="followed_by_any")]
    },
    "absence": {"seq": [kind("a"), kind("b", negated=True)], "on_timeout": {}},
    "bounded": {"seq": [kind("a"), kind("b", within_prev="3s")], "on_timeout": {}},
    "all": {"all": [kind("a"), kind("b")]},
    "three": {"all": [kind("a"), kind("b"), kind("c")], "pairing": "latest"},
}


def frames():
    rng, found = np.random.default_rng(3), []
    strings, kinds = pa.array([f"domain-{key}" for key in range(KEYS)]), pa.array(["A", "B", "C", "D"])
    t = np.cumsum(rng.exponential(1e6 / KEYS, 10 * ROWS)).astype(np.int64)
    for first in range(0, 10 * ROWS, ROWS):
        codes = rng.integers(0, KEYS, ROWS)
        columns = {
            "timestamp": t[first : first + ROWS],
            "key": pa.DictionaryArray.from_arrays(pa.array(codes.astype(np.int32)), strings),
            "type": pa.DictionaryArray.from_arrays(pa.array(rng.integers(0, 4, ROWS).astype(np.int32)), kinds),
            "value": rng.random(ROWS),
        }
        found.append((codes, Frame.from_columns("s", "run", columns)))
    return found


def matches(rule, chosen):
    """Kind, time, steps and events of every output; of the rows that ``chosen`` selects, all kept at their handles."""
    matcher, found = Matcher([rule]), []
    for number, (codes, frame) in enumerate(frames()):
        rows = matcher.prepare(frame, number * ROWS)
        rows = rows.take(chosen(codes)[rows.ref - number * ROWS])
        for batch in (matcher.process(rows), matcher.advance(int(frame.timestamps()[-1]))):
            found += [
                (int(batch.kind[i]), int(batch.time_us[i]), *zip(
                    batch.step[batch.offsets[i] : batch.offsets[i + 1]].tolist(),
                    batch.ref[batch.offsets[i] : batch.offsets[i + 1]].tolist(), strict=True,
                ))
                for i in range(len(batch))
            ]  # fmt: skip
    assert len(matcher.flush()) >= 0
    assert not len(matcher.live_refs())
    return sorted(found)


@pytest.mark.parametrize("name", RULES)
def test_many_keys_at_once_give_the_matches_of_a_few_at_a_time(name):
    rule = Rule(name=name, within="4s", **RULES[name])
    whole = matches(rule, lambda codes: codes >= 0)
    assert len(whole) > 100
    parts = [matches(rule, lambda codes, part=part: codes % PARTS == part) for part in range(PARTS)]
    assert sorted(each for part in parts for each in part) == whole

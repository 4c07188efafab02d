"""Reasons of refusals by kind: those that differ in values only are one, and each kind has its count."""

from __future__ import annotations

import numpy as np
import orjson
import pytest

from astrocyte.agents.domain import Domain
from astrocyte.agents.event_time.clock_guard import ClockGuard, Waiting
from astrocyte.agents.ingest.unused.counts import OTHERS, Unused
from astrocyte.agents.ingest.unused.reasons import reason_kind
from astrocyte.agents.ingest.validate import Validators
from astrocyte.agents.loading import load_rules
from astrocyte.agents.rules.model import RuleSet
from astrocyte.schemas.json.reader import RawRecord

ONE = [
    [
        ClockGuard()._reason(Waiting(key, time_us, kafka_us, None, (other, other_us)))
        for key, time_us, kafka_us, other, other_us in [
            ("d", 1_759_055_400_000_000, 1_759_000_000_000_000, "d2", 1_759_000_000_500_000),
            ("it's", 1_759_055_400_250_000, 1_759_000_000_123_000, 'two "words"', 1_759_000_000_000_000),
            ("7", 4_000_000_000_000_000, 1_759_000_000_000_001, "pump 7", 0),
        ]
    ],
    ["timestamp '28/Sep' is out of range", "timestamp 17.5 is out of range", "timestamp -3 is out of range"],
    ["the key 0x00ff is not UTF-8", "the key 0x1a2b is not UTF-8"],
    ["expected one, got members 'a'; declare", "expected one, got members 'a', 'b', 'c'; declare"],
    [f"field 'x' is {value}; expected float64" for value in ("'n/a'", '"it\'s"', 12, "true", 1e300, b"\0", None)],
    ["celsius < 80 does not hold (celsius is 99)", "celsius < 80 does not hold (celsius is 'hot (very)')"],
    [f"not JSON in UTF-8: unexpected end: line {line} column 2 (char {line * 35})" for line in (1, 3)],
]
SEVERAL = [
    "field 'x' is 'n/a'; expected float64",
    "field 'y' is 'n/a'; expected float64",
    "field 'x' is 'n/a'; expected int64",
    "field 'x' is 'n/a'; expected int32",
    "celsius < 80 does not hold (celsius is 99)",
    "celsius < 50 does not hold (celsius is 99)",
    "state == 'ok' does not hold (state is 'fault')",
    "state == 'up' does not hold (state is 'fault')",
    "validator 'a' failed: ValueError: 5",
    "validator 'b' failed: ValueError: 5",
    "the declared time is missing or null",
]


@pytest.mark.parametrize("reasons", ONE, ids=lambda reasons: reasons[0][:30])
def test_reasons_that_differ_in_values_are_of_one_kind(reasons):
    assert len({reason_kind(reason) for reason in reasons}) == 1, [reason_kind(reason) for reason in reasons]


def test_reasons_about_other_things_are_of_several_kinds():
    assert len({reason_kind(reason) for reason in SEVERAL}) == len(SEVERAL)


def counted(ruleset: RuleSet, rows: list[dict[str, object]]) -> Unused:
    domain = Domain(0, (), topics=["mono.readings"], validators=Validators(ruleset.validators))
    times = 1_759_055_400_000 + np.arange(len(rows)) * 1000
    values = [orjson.dumps({"ts": int(time), **row}) for time, row in zip(times, rows, strict=True)]
    domain.feed("mono.readings", [RawRecord(n, int(times[n]), b"k", value) for n, value in enumerate(values)])
    return domain.unused


def test_each_kind_of_reason_has_its_count_and_example_in_the_counts_and_after_a_report_of_them():
    ruleset = load_rules(
        "validators:\n"
        "  - {stream: readings, where: celsius < 80}\n"
        "  - {stream: readings, where: \"state != 'fault'\"}\n"
        "rules: [{name: r, by: key, seq: [{stream: readings, as: a}]}]"
    )
    rows = [{"celsius": 20 + 10 * (n % 9), "state": "ok" if n % 5 else "fault"} for n in range(90)]
    unused = counted(ruleset, rows)
    hot = sum(row["celsius"] >= 80 for row in rows)
    faults = sum(row["celsius"] < 80 and row["state"] == "fault" for row in rows)
    assert unused.count("dead") == hot + faults
    by_count = {
        faults: "mono.readings[0]@0: state != 'fault' does not hold (state is 'fault')",
        hot: "mono.readings[0]@6: celsius < 80 does not hold (celsius is 80)",
    }
    line = "{} events of mono.readings refused (validate), such as {}"
    assert sorted(unused.lines()) == sorted(line.format(*each) for each in by_count.items())
    read = Unused.from_json(orjson.loads(orjson.dumps(unused.as_json())))
    read.merge(unused)
    assert sorted(read.lines()) == sorted(line.format(2 * count, example) for count, example in by_count.items())
    assert unused.totals() == {("dead", "mono.readings", "validate"): hot + faults}


def test_many_kinds_of_reasons_are_counted_without_a_line_for_each():
    unused = Unused()
    for number in range(1000):
        word = "".join(chr(ord("a") + int(digit)) for digit in str(number))
        unused.add("dead", "mono.x", f"bad {word}", detail="validate", kind=reason_kind(f"bad {word}"))
    kinds = [found for *_, found in unused]
    assert len(kinds) < 20
    assert sum(found.count for found in kinds) == 1000
    assert kinds[-1].kind == OTHERS
    assert "refused (validate, other reasons), such as bad " in unused.lines()[-1]

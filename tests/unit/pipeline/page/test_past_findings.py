"""Findings of every moment of a run: the same in any portions, bounded, and those up to an instant."""

from hypothesis import given, settings
from hypothesis import strategies as st

from astrocyte.pipeline.kafka.record import ConsumedRecord
from astrocyte.pipeline.page.aggregates.axis import BUCKETS, EMPTY
from astrocyte.pipeline.page.content.findings import Finding
from astrocyte.pipeline.page.content.past_findings import MOST_OF_BUCKET, PastFindings
from tests.support.logs import T0_US


def finding(number, at_s, is_alert=True):
    record = ConsumedRecord("alerts", 0, number, 0, None, b"{}")
    return Finding(record, is_alert, f"a{number}", "rule", "run-1", T0_US + round(at_s * 1e6), "info")


def taken(findings, portion):
    past, axis = PastFindings(), EMPTY
    for first in range(0, len(findings), portion):
        part = findings[first : first + portion]
        times = [each.time_us for each in part]
        axis = axis.covering(min(times), max(times))
        past.take(part, axis.width_us)
    return past, axis


TIMES = st.lists(st.tuples(st.integers(0, 400), st.booleans()), min_size=1, max_size=120)


@settings(derandomize=True, deadline=None, max_examples=60)
@given(TIMES, st.integers(1, 30), st.integers(0, 400))
def test_the_last_of_each_moment_are_kept_in_whatever_portions_they_came(times, portion, at_s):
    findings = [finding(number, at, is_alert) for number, (at, is_alert) in enumerate(times)]
    past, axis = taken(findings, portion)
    expected = []
    for bucket in {each.time_us // axis.width_us for each in findings}:
        for is_alert in (False, True):
            own = [each for each in findings if each.time_us // axis.width_us == bucket and each.is_alert == is_alert]
            expected += own[-MOST_OF_BUCKET:]
    at_us = T0_US + at_s * 1_000_000
    expected = [each for each in expected if each.time_us <= at_us]
    found = past.until(at_us, 10_000)
    assert sorted(each.record.offset for each in found) == sorted(each.record.offset for each in expected)
    assert [each.time_us for each in found] == sorted(each.time_us for each in found)
    few = past.until(at_us, 3)
    for is_alert in (False, True):
        own = [each for each in found if each.is_alert == is_alert]
        assert [each for each in few if each.is_alert == is_alert] == own[-3:]


def test_what_is_kept_of_a_long_run_is_bounded_and_its_beginning_is_there():
    findings = [finding(number, number / 10) for number in range(20_000)]
    past, _ = taken(findings, 500)
    assert sum(map(len, past._kept.values())) <= BUCKETS * MOST_OF_BUCKET
    assert past.until(T0_US + 20_000_000, 500)
    assert past.until(T0_US - 1, 500) == []

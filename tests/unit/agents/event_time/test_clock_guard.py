"""One wrong clock costs only its own events: random logs of several devices, cut and restarted anywhere."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import orjson
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from astrocyte.agents.domain import Domain, DomainGroup, DomainOutput
from astrocyte.agents.engine.engine import Engine
from astrocyte.agents.event_time.clock_guard import MOST_WAITING, NO_KAFKA_TIME_US, ClockGuard
from astrocyte.agents.event_time.sources import Source
from astrocyte.agents.loading import load_rules
from astrocyte.schemas.arrow.columns import TEXT
from astrocyte.schemas.frames import Frame, encode_frame
from astrocyte.schemas.json.reader import RawRecord
from astrocyte.schemas.times import iso_from_us, time_us
from tests.support.search import examples

TEN = time_us("2026-03-01T10:00:00Z")
SECOND, HOUR, YEAR = 1_000_000, 3_600_000_000, 366 * 86_400_000_000
RULES = load_rules("""
rules:
  - {name: any, by: null, seq: [{as: a, stream: A}], emit: {n: a.n}}
  - {name: pair, within: 30s, seq: [{as: a, stream: A}, {as: b, stream: A}], emit: {n: a.n, m: b.n}}
""")
KINDS = ["ahead", "behind", "jumps", "1970", "2036", "9999", "drifts"]
SOURCE = Source("mono.A", 0)


@dataclass(frozen=True, slots=True)
class Sent:
    """One event as a device sent it: ``n`` is its number in the whole log."""

    n: int
    device: str
    time_us: int
    kafka_ms: int


@st.composite
def logs(draw: st.DrawFn) -> tuple[list[Sent], int]:
    """A log of three to five devices, of which ``bad`` has a wrong clock, and the allowed lateness."""
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    devices, count = draw(st.integers(3, 5)), draw(st.integers(1, 60))
    kind, stamps = draw(st.sampled_from(KINDS)), draw(st.sampled_from(["now", "before", "after", "none", "own"]))
    lateness = draw(st.sampled_from([0, 5 * SECOND]))
    gap_at, gap = draw(st.integers(0, count)), draw(st.sampled_from([0, 2 * HOUR, 7 * YEAR]))
    # More than the tolerance: within it a clock that is ahead counts as ordinary disorder.
    offset = draw(st.sampled_from([HOUR + 10 * SECOND, 3 * HOUR, 40 * 24 * HOUR, 3 * YEAR]))
    now, log = TEN - 5 * YEAR, []
    # At the end every device speaks once more: a log may not end while it is one word against another.
    for n in range(count + devices):
        now += int(random.integers(0, 20 * SECOND)) + (gap if n == gap_at else 0)
        # A Kafka timestamp that agrees with the first event of a source is believed.
        device = int(random.integers(0 if n or stamps in ("now", "before", "none") else 1, devices))
        device = device if n < count else n - count
        own = now - int(random.integers(0, lateness + 1))
        if device == 0:
            own = {
                "ahead": own + offset,
                "behind": own - offset,
                "jumps": own + int(random.choice([-offset, offset, 5 * YEAR, 0 - YEAR])),
                "1970": n * SECOND,
                "2036": time_us("2036-02-07T06:28:16Z") + n * SECOND,
                "9999": time_us("9999-12-31T00:00:00Z") + n,
                "drifts": own + offset + n * HOUR,
            }[kind]
        stamp = {"now": now, "before": TEN - 9 * YEAR, "after": TEN, "none": -1000, "own": now if device else own}[
            stamps
        ]
        log.append(Sent(n, "bad" if device == 0 else f"d{device}", own, stamp // 1000))
    return log, lateness


def new_domain(lateness: int) -> Domain:
    engine = Engine(RULES, validated=True)
    return Domain(0, [DomainGroup("key", engine, {"A": "mono.A"})], topics=["mono.A"], lateness_us=lateness)


def as_json(log: Sequence[Sent]) -> list[RawRecord]:
    bodies = ({"timestamp": iso_from_us(each.time_us), "n": each.n} for each in log)
    return [
        RawRecord(each.n, each.kafka_ms, each.device.encode(), orjson.dumps(body))
        for each, body in zip(log, bodies, strict=True)
    ]


def as_frames(log: Sequence[Sent]) -> list[RawRecord]:
    def value(each: Sent) -> bytes:
        columns = {"timestamp": [each.time_us], "key": [each.device], "n": [each.n]}
        return encode_frame(Frame.from_columns("A", "run", columns, first_seq=each.n))

    return [RawRecord(each.n, each.kafka_ms, None, value(each)) for each in log]


def run(
    records: Sequence[RawRecord], lateness: int, cuts: Sequence[int] = (), *, restart: bool = False
) -> DomainOutput:
    """Everything that comes of a log; with ``restart`` the domain is made anew from its snapshot at each cut."""
    domain, output = new_domain(lateness), DomainOutput()
    bounds = sorted({0, len(records), *(cut for cut in cuts if cut < len(records))})
    for first, last in pairwise(bounds):
        output.extend(domain.feed("mono.A", records[first:last]))
        counts = domain.counters
        assert counts.received == counts.processed + counts.late + counts.dead
        assert counts.received + domain.waiting == last
        if restart:
            copy = new_domain(lateness)
            copy.restore(domain.snapshot())
            domain = copy
    output.extend(domain.mark_all_idle())
    output.extend(domain.flush())
    assert (domain.counters.received, domain.waiting) == (len(records), 0)
    return output


def matches(output: DomainOutput, without: frozenset[int] = frozenset()) -> list[list[int]]:
    found = [orjson.loads(record.value)["metadata"] for record in output.multi_events]
    pairs = sorted([int(value) for value in each.values()] for each in found)
    return [pair for pair in pairs if not without.intersection(pair)]


FORMS = {"json": as_json, "frames": as_frames}


@pytest.mark.parametrize("form", list(FORMS))
@examples(15, search=50)
@given(drawn=logs(), cuts=st.lists(st.integers(1, 59), max_size=4))
def test_one_wrong_clock_changes_no_match_of_the_other_devices(form, drawn, cuts):
    log, lateness = drawn
    bad = frozenset(each.n for each in log if each.device == "bad")
    sane = [each for each in log if each.device != "bad"]
    records = FORMS[form](log)
    output = run(records, lateness, cuts)
    alone = run(FORMS[form](sane), lateness)
    assert matches(output, bad) == matches(alone, bad)
    decided = [orjson.loads(record.value) for record in output.late]
    assert len(decided) + len(output.dead_letters) + sum(len(pair) == 1 for pair in matches(output)) == len(log)
    assert all("clock of key 'bad'" in each.reason or "timestamp" in each.reason for each in output.dead_letters)
    assert {each.offset for each in output.dead_letters} <= bad


@examples(15, search=50)
@given(drawn=logs(), cuts=st.lists(st.integers(1, 59), max_size=6), restart=st.booleans())
def test_chunks_and_restarts_change_nothing(drawn, cuts, restart):
    log, lateness = drawn
    whole, cut = run(as_json(log), lateness), run(as_json(log), lateness, cuts, restart=restart)
    assert sorted(cut.multi_events, key=str) == sorted(whole.multi_events, key=str)
    assert sorted(record.value for record in cut.late) == sorted(record.value for record in whole.late)
    assert sorted(cut.dead_letters, key=str) == sorted(whole.dead_letters, key=str)


def guard(*events: tuple[str, int, int], tolerance: int = 10) -> tuple[list[tuple[int, str | None]], ClockGuard[int]]:
    """Decisions (row, reason) in order, of events (key, time, Kafka time); and the guard."""
    made: ClockGuard[int] = ClockGuard(tolerance_us=tolerance)
    decided: list[tuple[int, str | None]] = []
    base = TEN
    for number, (key, at, stamp) in enumerate(events):
        keys = pa.array([key], pa.utf8()).dictionary_encode().cast(TEXT)
        stamps = np.array([NO_KAFKA_TIME_US if stamp < 0 else base + stamp], np.int64)
        steps = made.admit(SOURCE, np.array([base + at], np.int64), keys, stamps, lambda _row, number=number: number)
        for step in [] if steps is None else steps:
            if step.waited is not None:
                decided.append((step.waited.item, step.reason))
            elif step.rows:
                decided.append((number, None))
        if steps is None:
            decided.append((number, None))
    return decided, made


def rows(decided: Sequence[tuple[int, str | None]]) -> list[int]:
    return [number if reason is None else -number for number, reason in decided]


def test_an_event_that_is_ahead_waits_until_another_key_reaches_its_time():
    decided, made = guard(("a", 0, 0), ("b", 1, 0), ("a", 50, 2), ("b", 45, 3), ("b", 50, 4))
    assert rows(decided) == [0, 1, 3, 2, 4]
    assert made.waiting == 0


def test_an_event_that_is_ahead_is_refused_when_its_own_key_falls_back():
    decided, _ = guard(("a", 0, 0), ("b", 1, 0), ("a", 5000, 2), ("b", 2, 3), ("a", 5001, 4), ("a", 3, 5))
    assert rows(decided) == [0, 1, 3, -2, -4, 5]
    assert "the clock of key 'a' is wrong (ASTROCYTE_CLOCK_TOLERANCE)" in str(decided[3][1])


def test_an_event_that_is_ahead_is_refused_when_two_others_stay_behind():
    decided, made = guard(("a", 0, 0), ("b", 1, 0), ("a", 5000, 2), ("b", 2, 3), ("b", 3, 4))
    assert (rows(decided), made.waiting) == ([0, 1, 3, 4], 1)
    decided, made = guard(("a", 0, 0), ("b", 1, 0), ("a", 5000, 2), ("b", 2, 3), ("c", 3, 4))
    assert (rows(decided), made.waiting) == ([0, 1, 3, -2, 4], 0)


def test_an_event_that_was_contradicted_is_refused_at_the_end_and_another_one_accepted():
    _, made = guard(("a", 0, 0), ("b", 1, 0), ("a", 5000, 2), ("b", 2, 3), ("a", 6000, 4))
    assert [(step.waited.item, step.reason is None) for step in made.trust() if step.waited] == [(2, False), (4, True)]


def test_events_are_never_ahead_of_their_kafka_timestamps_by_a_silence():
    decided, _ = guard(("a", 0, 0), ("b", 1, 1), ("a", 9, 9), ("a", 18, 18), ("a", 27, 27), ("a", 36, 36))
    assert rows(decided) == [0, 1, 2, 3, 4, 5]


def test_the_only_device_that_is_left_is_believed_after_a_while_and_goes_on():
    events = [("a", 0, -1), ("b", 1, -1), *(("b", 5000 + number, -1) for number in range(MOST_WAITING + 5))]
    decided, made = guard(*events)
    assert rows(decided) == list(range(len(events)))
    assert made.waiting == 0


def test_a_clock_far_from_kafkas_time_is_not_believed_however_often_it_repeats():
    events = [("a", 0, 0), ("b", 1, 1), *(("b", 5000 + number, 2) for number in range(MOST_WAITING))]
    decided, made = guard(*events)
    assert rows(decided) == [0, 1, *(-number for number in range(2, MOST_WAITING + 2))]
    assert f"{MOST_WAITING} such events waited" in str(decided[2][1])
    assert made.waiting == 0


def test_a_caller_that_knows_the_time_releases_what_kafkas_time_explains():
    decided, made = guard(("a", 0, 0), ("b", 1, 1), ("a", 100, 100), ("a", 5000, 200), ("a", 300, 300))
    assert rows(decided) == [0, 1, -3]
    assert [step.waited.item for step in made.trust(TEN + 95) if step.waited is not None] == [2]
    assert made.waiting == 1


def test_a_caller_that_knows_the_time_releases_all_of_its_past_in_an_idle_place():
    _, made = guard(("a", 0, 0), ("b", 1, 0), ("a", 100, 0), ("a", 5000, 0))
    assert made.trust(TEN + 95) == []
    assert [step.waited.item for step in made.trust(TEN + 95, idle={SOURCE.place}) if step.waited is not None] == [2]


def test_an_event_without_a_key_confirms_no_other():
    ahead = [("a", 0, -1), ("b", 1, -1), ("a", 5000, -1), (None, 5001, -1)]
    decided, made = guard(*ahead, ("b", 2, -1), ("c", 3, -1))
    assert (rows(decided), made.waiting) == ([0, 1, 4, -2, -3, 5], 0)
    decided, made = guard(("a", 0, -1), ("b", 1, -1), (None, 5000, -1), ("a", 5001, -1), ("b", 2, -1), ("c", 3, -1))
    assert (rows(decided), made.waiting) == ([0, 1, 4, -2, -3, 5], 0)


def test_an_event_without_a_key_waits_until_keys_that_are_accepted_reach_its_time():
    decided, made = guard(("a", 0, -1), ("b", 1, -1), (None, 5000, -1), ("a", 5001, -1), ("b", 5002, -1))
    assert (rows(decided), made.waiting) == ([0, 1, 3, 2, 4], 0)


def test_the_first_event_of_a_source_without_kafka_time_is_compared_with_those_that_follow():
    decided, made = guard(("a", 5000, -1), ("b", 1, -1), ("a", 5001, -1), ("c", 2, -1), ("b", 3, -1))
    assert ([number for number, reason in decided if reason is None], made.waiting) == ([1, 3, 4], 0)


@pytest.mark.parametrize("keys", ["a", None, "abcde", "one other"], ids=str)
@pytest.mark.parametrize(
    "wrong", [-10 * YEAR, -2 * HOUR, 2 * HOUR, YEAR], ids=["years old", "old", "ahead", "a year ahead"]
)
@given(count=st.integers(4, 40), data=st.data())
@settings(max_examples=30)
def test_one_wrong_time_among_the_first_of_a_file_costs_no_other_event(keys, wrong, count, data):
    at = data.draw(st.integers(0, count - 1))
    events = [(keys and keys[number % len(keys)], number * SECOND, -1) for number in range(count)]
    if keys == "one other":
        events = [("a", number * SECOND, -1) for number in range(count)]
    events[at] = ("z" if keys == "one other" else events[at][0], events[at][1] + wrong, -1)
    decided, made = guard(*events, tolerance=HOUR)
    decided += [(step.waited.item, step.reason) for step in made.trust() if step.waited is not None]
    assert sorted(number for number, _ in decided) == list(range(count))
    assert {number for number, reason in decided if reason is not None} <= {at}


@pytest.mark.parametrize("keys", ["a", None, "abcde"], ids=str)
def test_a_file_with_the_newest_event_first_has_no_wrong_clock(keys):
    events = [(keys and keys[number % len(keys)], -number * SECOND, -1) for number in range(1_200)]
    decided, made = guard(*events, tolerance=60 * SECOND)
    decided += [(step.waited.item, step.reason) for step in made.trust() if step.waited is not None]
    assert sorted(number for number, _ in decided) == list(range(1_200))
    assert all(reason is None for _, reason in decided)


class RowByRow(ClockGuard[int]):
    """Judges every row by itself, also where a whole frame could be accepted at once."""

    def _is_plain(self, *_frame: object) -> bool:
        return False


def judged(made: ClockGuard[int], events: list[tuple[str | None, int, int]], ends: list[int]) -> list[object]:
    """What becomes of events (key, time, Kafka time) in frames that end at ``ends``, in order."""
    decided: list[object] = []
    for first, last in pairwise(ends):
        if first == last:
            continue
        part = events[first:last]
        keys = pa.array([key for key, _, _ in part], pa.utf8()).dictionary_encode().cast(TEXT)
        times = np.array([TEN + at for _, at, _ in part], np.int64)
        stamps = np.array([NO_KAFKA_TIME_US if stamp < 0 else TEN + stamp for _, _, stamp in part], np.int64)
        steps = made.admit(SOURCE, times, keys, stamps, lambda row, first=first: first + row)
        for step in [] if steps is None else steps:
            accepted = [first + row for row in step.rows]
            decided += accepted if step.waited is None else [(step.waited.item, step.reason)]
        decided += range(first, last) if steps is None else ()
    return decided


@settings(max_examples=300)
@given(
    events=st.lists(
        st.tuples(st.sampled_from(["a", "a", "b", None]), st.integers(0, 60), st.integers(-1, 60)), min_size=1
    ),
    one_key=st.booleans(),
    cuts=st.lists(st.integers(0, 50), max_size=4),
)
def test_a_frame_that_is_accepted_at_once_is_judged_as_its_rows_are(events, one_key, cuts):
    events = [("a", at, stamp) for _, at, stamp in events] if one_key else events
    ends = [0, *sorted(min(cut, len(events)) for cut in cuts), len(events)]
    made, slow = ClockGuard(tolerance_us=10), RowByRow(tolerance_us=10)
    assert judged(made, events, ends) == judged(slow, events, ends)
    assert made.snapshot(int) == slow.snapshot(int)

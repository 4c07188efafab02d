"""What is left out of a domain's input: by place and id alone, counted, and with weights that make counts unbiased."""

import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from astrocyte import load_rules
from astrocyte.agents.domain import Domain, DomainGroup
from astrocyte.agents.engine.engine import Engine
from astrocyte.agents.ingest.overload import Interval, Schedule, is_kept, left_out_lines
from astrocyte.agents.ingest.validate import Validators
from astrocyte.schemas.errors import InvalidRule
from astrocyte.schemas.frames import Frame, encode_frame
from astrocyte.schemas.ids import event_ids, mixed
from astrocyte.schemas.json.reader import RawRecord, frame_to_records

START_US = 1_750_000_000_000_000
RULES = load_rules(
    """
    rules:
      - {name: each, by: key, any: [{as: a, stream: S}], emit: {n: "a.n"}}
    windows:
      - {name: sums, from: S, by: key, every: 1h, select: {n: "count()", total: "sum(n)"}}
    """
)
KEYS = "abcde"
POLICIES = ("block", "sample", "latest", "drop_oldest")


def event(number: int) -> dict:
    return {"timestamp": START_US + number * 1000, "key": KEYS[number * number % len(KEYS)], "n": number}


def frame_of(numbers) -> Frame:
    rows = [event(number) for number in numbers]
    columns = {name: [row[name] for row in rows] for name in rows[0]}
    return Frame.from_columns("S", "run", columns | {"timestamp": np.array(columns["timestamp"])}, first_seq=numbers[0])


def messages(sizes: list[int], form: str) -> list[RawRecord]:
    """Messages of so many events each; JSON records hold one."""
    found, number = [], 0
    for size in sizes:
        if form == "frames":
            value = encode_frame(frame_of(range(number, number + size)))
            found.append(RawRecord(len(found), START_US // 1000, None, value))
        else:
            for each in frame_to_records(frame_of(range(number, number + size))):
                found.append(RawRecord(len(found), START_US // 1000, each.key, each.value, each.headers))
        number += size
    return found


def numbers_of(record: RawRecord, sizes: list[int], form: str) -> list[int]:
    """Numbers of the events of a message."""
    if form == "json":
        return [record.offset]
    first = sum(sizes[: record.offset])
    return list(range(first, first + sizes[record.offset]))


def domain_of(intervals: list[Interval] = (), rules=RULES) -> Domain:
    domain = Domain(
        0,
        [DomainGroup("key", Engine(rules, validated=True), {"S": "mono.S"})],
        topics=["mono.S"],
        validators=Validators(rules.validators),
    )
    for interval in intervals:
        domain.leaving_out.schedule("mono.S").add(interval)
    return domain


def found_by(domain: Domain, chunks: list[list[RawRecord]], restarts: bool = False, rules=RULES):
    """Numbers that a rule over one event saw, and results of the window, by key."""
    seen: list[int] = []
    sums: dict[str, tuple] = {}

    def take(output) -> None:
        seen.extend(int(orjson.loads(each.value)["metadata"]["n"]) for each in output.multi_events)
        for made in output.frames:
            sums.update({row["key"]: (row["n"], row["total"]) for row in made.rows()})

    for number, chunk in enumerate(chunks):
        take(domain.feed("mono.S", chunk))
        if restarts and number % 2:
            restored = domain_of(rules=rules)
            restored.restore(domain.snapshot())
            begin = restored.positions.get("mono.S", 0)
            if begin < chunk[-1].offset + 1:
                restored.feed(
                    "mono.S", [each for part in chunks[: number + 1] for each in part if each.offset >= begin]
                )
            domain = restored
    take(domain.flush())
    return sorted(seen), sums, domain


@st.composite
def schedules(draw, length: int):
    """Consecutive intervals over some offsets, with gaps."""
    found, at = [], draw(st.integers(0, 3))
    while at < length:
        end = at + draw(st.integers(1, 8))
        policy = draw(st.sampled_from(POLICIES))
        # An interval of `latest` is what was read at once: it never ends behind the log.
        end = min(end, length) if policy == "latest" else end
        found.append(Interval(at, end, policy, draw(st.sampled_from([0.25, 0.5, 0.75])) if policy == "sample" else 1.0))
        at = end + draw(st.sampled_from([0, 0, 0, 2]))
    return found


def expected(records, sizes, form, intervals) -> dict[int, float]:
    """Weight of each event that is kept, by a plain loop over the events."""
    kept: dict[int, float] = {}
    places = {record.offset: numbers_of(record, sizes, form) for record in records}
    for offset, numbers in places.items():
        found = next((each for each in intervals if each.first <= offset < each.end), None)
        for number in numbers:
            if found is None or found.policy == "block":
                kept[number] = 1.0
            elif found.policy == "sample" and in_sample(number, found.share):
                kept[number] = 1.0 / found.share
            elif found.policy == "latest":
                later = [
                    other
                    for place, others in places.items()
                    if found.first <= place < found.end
                    for other in others
                    if other > number and event(other)["key"] == event(number)["key"]
                ]
                if not later:
                    kept[number] = 1.0
    return kept


def in_sample(number: int, share: float) -> bool:
    return bool(is_kept(event_ids("run", "S", np.array([number])), share)[0])


@given(data=st.data(), form=st.sampled_from(["frames", "json"]), restarts=st.booleans())
@settings(derandomize=True, max_examples=60, deadline=None)
def test_what_is_left_out_depends_on_places_and_ids_and_not_on_chunks_and_restarts(data, form, restarts):
    sizes = data.draw(st.lists(st.integers(1, 4), min_size=1, max_size=12))
    records = messages(sizes, form)
    intervals = data.draw(schedules(len(records)))
    cuts = sorted(data.draw(st.sets(st.integers(1, len(records) - 1)) if len(records) > 1 else st.just(set())))
    chunks = [records[a:b] for a, b in zip([0, *cuts], [*cuts, len(records)], strict=True)]
    kept = expected(records, sizes, form, intervals)

    seen, sums, domain = found_by(domain_of(intervals), chunks, restarts)

    if not restarts:  # what a domain gave before its snapshot, it does not give again
        assert seen == sorted(kept)
    wanted: dict[str, tuple[float, float]] = {}
    for number, weight in kept.items():
        key = event(number)["key"]
        count, total = wanted.get(key, (0.0, 0.0))
        wanted[key] = count + weight, total + weight * number
    assert sums.keys() == wanted.keys()
    for key, (count, total) in wanted.items():  # counts are whole numbers, the nearest ones
        assert sums[key] == (pytest.approx(count, abs=0.5 + 1e-9), pytest.approx(total)), key
    counters, total = domain.counters, sum(sizes)
    assert (counters.received, counters.processed, counters.sampled) == (total, len(kept), total - len(kept))
    assert sum(counts.total() for counts in domain.leaving_out.counts.values()) == total - len(kept)


def test_the_first_decision_about_an_offset_counts():
    schedule = Schedule([Interval(0, 10, "block"), Interval(5, 20, "sample", 0.5), Interval(3, 8, "drop_oldest")])
    assert [each[:3] for each in schedule] == [(0, 10, "block"), (10, 20, "sample")]
    assert (schedule.at(9).policy, schedule.at(10).policy, schedule.at(20)) == ("block", "sample", None)
    schedule.forget(15)
    assert ([each[:3] for each in schedule], schedule.end) == ([(10, 20, "sample")], 20)
    schedule.forget(100)
    assert schedule.end == 20, "what was decided stays decided"


def test_events_of_latest_wait_until_the_last_of_their_interval_has_come():
    records = messages([1] * 6, "json")
    domain = domain_of([Interval(1, 5, "latest")])
    domain.feed("mono.S", records[:3])
    assert (domain.counters.received, domain.positions["mono.S"], domain.leaving_out.held("mono.S")) == (1, 1, 1)
    assert domain.snapshot()["positions"] == b'{"mono.S":1}', "what waits is read again after a restart"
    domain.feed("mono.S", records[3:])
    assert (domain.positions["mono.S"], domain.leaving_out.held("mono.S")) == (6, None)


def test_where_the_log_ends_within_an_interval_what_waits_is_used():
    records = messages([1] * 3, "json")
    seen, _, _ = found_by(domain_of([Interval(0, 5, "latest")]), [records])
    assert seen == sorted({event(number)["key"]: number for number in range(3)}.values())


def test_a_frame_of_which_everything_is_left_out_still_says_how_far_event_time_is():
    domain = domain_of([Interval(0, 1, "drop_oldest")])
    end_us = START_US + 10_000_000
    frame = Frame.from_columns(
        "S", "run", {"timestamp": np.array([START_US]), "key": ["a"], "n": [1]}, origin="p", watermark_us=end_us
    )
    domain.feed("mono.S", [RawRecord(0, 0, None, encode_frame(frame))])
    assert (domain.watermark_us, domain.counters.sampled) == (end_us, 1)


def test_the_sample_is_independent_of_that_of_a_validator():
    ids = event_ids("run", "S", np.arange(100_000))
    validator = mixed(ids).astype(np.float64) / 2.0**64 < 0.5
    both = validator & is_kept(ids, 0.5)
    assert abs(both.mean() - 0.25) < 0.006, "4.4 standard errors"
    assert (is_kept(ids, 0.2) <= is_kept(ids, 0.5)).all(), "a smaller share is a part of a larger one"


def test_weights_of_a_validator_and_of_overload_are_multiplied():
    rules = load_rules(
        """
        validators: [{stream: S, sample: 0.5}]
        windows: [{name: sums, from: S, by: key, every: 1h, select: {n: "count()", total: "sum(n)"}}]
        """
    )
    (record,) = messages([2000], "frames")
    _, sums, domain = found_by(domain_of([Interval(0, 1, "sample", 0.5)], rules), [[record]], rules=rules)
    assert sum(count for count, _ in sums.values()) == 4 * domain.counters.processed
    assert abs(domain.counters.processed - 500) < 100


def test_counts_sums_means_and_deviations_of_samples_are_unbiased():
    rules = load_rules(
        """
        windows:
          - {name: all, from: S, by: key, every: 1h,
             select: {n: "count()", total: "sum(x)", mean: "mean(x)", sd: "std(x)", high: "count_if(x > 12)"}}
        """
    )
    count, share, seeds = 400, 0.2, 300
    x = np.random.default_rng(0).gamma(4.0, 2.5, count)
    # Each key has the same values under other ids: another draw of the sample.
    columns = {"timestamp": np.tile(START_US + np.arange(count), seeds), "x": np.tile(x, seeds)}
    columns["key"] = np.repeat([f"seed {seed}" for seed in range(seeds)], count).tolist()
    domain = domain_of([Interval(0, 1, "sample", share)], rules)
    domain.feed("mono.S", [RawRecord(0, 0, None, encode_frame(Frame.from_columns("S", "run", columns)))])
    rows = [row for made in domain.flush().frames for row in made.rows()]
    assert len(rows) == seeds
    results = {name: np.array([row[name] for row in rows], float) for name in ("n", "total", "mean", "sd", "high")}
    truth = {"n": count, "total": x.sum(), "mean": x.mean(), "sd": x.std(ddof=1), "high": (x > 12).sum()}
    for name, values in results.items():
        error = values.std(ddof=1) / np.sqrt(seeds)
        assert abs(values.mean() - truth[name]) < 4 * error, (name, values.mean(), truth[name], error)
    # Without weights the count would be a fifth: hundreds of standard errors away.
    assert abs(results["n"].mean() * share - count) > 100 * results["n"].std() / np.sqrt(seeds)


@pytest.mark.parametrize(
    ("overload", "what"),
    [
        ("{policy: sample}", "add share"),
        ("{policy: latest, share: 0.5}", "share is of policy sample"),
        ("{policy: sample, share: 1}", "less than 1"),
        ("{policy: drop}", "expected 'block', 'sample', 'latest' or 'drop_oldest'"),
        ("{policy: latest, above: 10s, below: 5}", "both as records or as durations"),
        ("{policy: latest, above: 10, below: 10}", "below has to be less than above"),
        ("{policy: latest, above: 10 parsecs}", "expected a duration"),
        ("{policy: latest, above: true}", "expected a number of records"),
    ],
)
def test_a_wrong_policy_is_refused_at_its_place(overload, what):
    with pytest.raises(InvalidRule) as caught:
        load_rules(f"streams:\n  - name: S\n    overload: {overload}\n")
    assert what in str(caught.value)
    assert str(caught.value).startswith("3:"), caught.value


@pytest.mark.parametrize("stream", ["evolutionary_events", "population_metrics", "dna.mutation_applied", "truth"])
def test_critical_streams_are_never_touched(stream):
    with pytest.raises(InvalidRule, match=r"^3:15: .*which are critical; write block"):
        load_rules(f"streams:\n  - name: {stream}\n    overload: drop_oldest\n")
    assert load_rules(f"streams: [{{name: {stream}, overload: block}}]").streams[0].overload.policy == "block"


def test_thresholds_are_records_or_ages():
    def policy(text):
        return load_rules(f"streams: [{{name: S, overload: {text}}}]").streams[0].overload

    assert (policy("latest").begins_above, policy("latest").ends_below, policy("latest").by_age) == (
        10_000,
        5_000,
        False,
    )
    found = policy("{policy: drop_oldest, above: 30s, below: 250ms}")
    assert (found.begins_above, found.ends_below, found.by_age) == (30_000_000, 250_000, True)
    assert load_rules("streams: [{name: S}]").streams[0].overload is None


def test_sentences_name_stream_and_policy():
    assert left_out_lines({"S": {"sample": 1234, "latest": 5}}) == [
        "left out of stream 'S' while the worker was behind: 5 by latest, 1,234 by sample"
    ]

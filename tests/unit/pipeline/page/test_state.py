"""The state of the page: what it makes of messages, in whatever portions they come."""

import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from astrocyte.pipeline.kafka.record import ConsumedRecord
from astrocyte.pipeline.page.content.charts import charts_of_stream
from astrocyte.pipeline.page.content.document import encode, patch
from astrocyte.pipeline.page.content.state import PageState, is_read
from astrocyte.schemas.catalog import CATALOG, INSTANTS
from astrocyte.schemas.frames import Frame, encode_frame
from astrocyte.schemas.times import iso_from_us
from astrocyte.schemas.topics import ALERTS, MULTI_EVENTS, STATS
from tests.support.logs import T0_US
from tests.support.world_log import COLLAPSE_S, RUN, dead_letter, world_log, world_messages


@pytest.fixture(scope="module")
def messages(tmp_path_factory):
    from astrocyte.pipeline.recording.reader import read_log

    return list(read_log(world_log(tmp_path_factory.mktemp("world")).log))


def state_of(records, cuts=()):
    state = PageState()
    begin = 0
    for end in (*sorted(cuts), len(records)):
        if records[begin:end]:
            state.traffic.take(records[begin:end])
            state.take(records[begin:end])
        begin = end
    return state


def shown(state):
    return orjson.loads(encode(patch({}, state.document())))


def test_the_charts_of_a_world_are_those_of_its_streams(messages):
    document = shown(state_of(messages))
    (run,) = document["set"]["runs"]
    assert (run["name"], run["scenario"], run["outside"]) == (RUN, "cells", 0)
    titles = [chart["title"] for chart in document["set"][f"run/{RUN}/charts"]]
    assert {"Population", "Population by type", "Accuracy by generation", "Traits over time"} <= {*titles}
    assert "Accuracy by problem" not in titles


def test_a_line_of_the_whole_world_holds_the_last_value_of_each_bucket(messages):
    document = shown(state_of(messages))
    run = document["set"]["runs"][0]
    population = document["set"][f"run/{RUN}/population_metrics:total_population/0/last"]
    place = int(COLLAPSE_S * 1e6) // run["width"]
    assert max(each for each in population[: place - 2] if each is not None) > 1000
    assert max(each for each in population[place + 1 :] if each is not None) < 500


def match_of(number, status):
    """A multi event and its alert, ``number`` seconds from the start."""
    body = {"timestamp": iso_from_us(T0_US + number * 1_000_000), "source_events": []}
    headers = (("ce_simulationid", RUN.encode()), *([] if status == "final" else [("ce_status", status.encode())]))
    event = {**body, "event_id": f"m{number}", "correlation_rule": "collapse"}
    alert = {**body, "alert_id": f"a{number}", "rule": "collapse", "severity": "critical", "message": "less"}
    return [
        ConsumedRecord(topic, 0, 0, -1, None, orjson.dumps(each), headers)
        for topic, each in ((MULTI_EVENTS, event), (ALERTS, alert))
    ]


@settings(derandomize=True, deadline=None, max_examples=30)
@given(
    st.lists(st.sampled_from(["final", "confirmed", "retracted", "provisional"]), max_size=8),
    st.sets(st.integers(0, 7)),
    st.integers(1, 5),
)
def test_what_is_retracted_counts_no_more_and_what_is_confirmed_counts_once(ends, early, portion):
    begun = [
        each
        for number, end in enumerate(ends)
        if end != "final" or number in early
        for each in match_of(number, "provisional")
    ]
    ended = [each for number, end in enumerate(ends) if end != "provisional" for each in match_of(number, end)]
    records = [*begun, *ended, *ended[-2:]] if ends and ends[-1] == "retracted" else [*begun, *ended]
    document = shown(state_of(records, cuts=range(portion, len(records), portion)))["set"]
    stands = sum(end != "retracted" for end in ends)
    assert (document["counts"]["alerts"], document["counts"]["matches"]) == (stands, stands)
    assert sum(document["rules/matches"].values()) == sum(document["rules/alerts"].values()) == stands
    assert document["findings/statuses"] == {
        f"{kind}{number}": end for number, end in enumerate(ends) if end != "final" for kind in "am"
    }
    if ends:
        found = {name: sum(document[f"run/{RUN}/found/{name}"]) for name in ("matches", "critical")}
        assert found == {"matches": stands, "critical": stands}


def rows_of(stream, rows, run=RUN):
    """Messages with one row each, of (seconds from the start, value by field)."""
    found = []
    for number, (at_s, values) in enumerate(rows):
        columns = {"timestamp": np.array([T0_US + round(at_s * 1e6)]), "key": [run]}
        columns |= {name: each if isinstance(each, list) else np.array([each]) for name, each in values.items()}
        frame = encode_frame(Frame.from_columns(stream, run, columns, first_seq=number))
        topic = f"mono.{stream}" if stream == "population_metrics" else stream
        found.append(ConsumedRecord(topic, 0, number, (T0_US + round(at_s * 1e6)) // 1000, None, frame))
    return found


@settings(derandomize=True, deadline=None, max_examples=12)
@given(st.dictionaries(st.integers(0, 4_000), st.integers(0, 9_999_999), min_size=1, max_size=60), st.integers(1, 9))
def test_at_every_instant_that_can_be_shown_figures_are_those_of_the_last_row_until_then(rows, portion):
    rows = sorted((at / 100, {"total_population": value}) for at, value in rows.items())
    records = rows_of("population_metrics", rows)
    document = shown(state_of(records, cuts=range(portion, len(records), portion)))["set"]
    (run,), at = document["runs"], f"run/{RUN}"
    lasts, lows, highs = (
        document[f"{at}/population_metrics:total_population/0/last{end}"] for end in ("", "/low", "/high")
    )
    values = [(T0_US + round(at_s * 1e6), each["total_population"]) for at_s, each in rows]
    assert document[f"{at}/firsts"] == {"population_metrics:total_population/0/last": values[0][1]}
    held = 0
    for place, offset_us in enumerate(document[f"{at}/instants"]):
        begin_us = run["start"] + place * run["width"]
        own = [value for time_us, value in values if begin_us <= time_us < begin_us + run["width"]]
        held += len(own)
        if not own:
            assert (offset_us, lasts[place]) == (-1, None)
            continue
        instant_us = run["start"] + offset_us
        assert lasts[place] == [value for time_us, value in values if time_us <= instant_us][-1]
        assert max(time_us for time_us, _ in values if time_us < begin_us + run["width"]) == instant_us
        assert (lows[place], highs[place]) == (min(own), max(own))
    assert held == len(rows)


def test_the_newest_event_of_a_stream_counts_in_its_rate_and_one_event_is_no_more_than_one_in_a_second():
    at_s = [0, 9, 18, 30, 41, 55, 66, 80]
    records = rows_of("logins", [(each, {"tries": 1}) for each in at_s])
    for count in range(1, len(records) + 1):
        rates = shown(state_of(records[:count]))["set"][f"run/{RUN}/logins:events/0/rate"]
        assert 0 < rates[-1] <= 1.0
        assert sum(a == 0 and b > 0 for a, b in zip([0, *rates], rates, strict=False)) == count
        assert max(rates) <= 1.0


def test_the_rate_of_a_stream_that_ends_before_the_run_is_over_its_own_time():
    births = rows_of("population_metrics", [(each / 10, {"births": 7}) for each in range(51)])
    later = rows_of("logins", [(20.0, {"tries": 1})])
    document = shown(state_of([*births, *later]))["set"]
    values = [each for each in document[f"run/{RUN}/population_metrics:births/0/rate"] if each is not None]
    assert values == pytest.approx([70.0] * len(values))
    assert document[f"run/{RUN}/spans"]["population_metrics"] == [T0_US, T0_US + 5_000_000]


def test_a_rate_of_sums_is_what_comes_in_a_second(messages):
    births = shown(state_of(messages))["set"][f"run/{RUN}/population_metrics:births/0/rate"]
    assert {round(each) for each in births if each is not None} == {70}


def test_findings_are_listed_and_counted_by_rule(messages):
    document = shown(state_of(messages))
    (alert,), matches = (document["add"][f"findings/{kind}"]["items"] for kind in ("alerts", "matches"))
    assert (alert["kind"], {each["kind"] for each in matches}) == ("alert", {"match"})
    assert (alert["rule"], alert["severity"], alert["run"]) == ("population_collapse", "critical", RUN)
    assert alert["event"] == matches[0]["id"]
    assert document["set"]["rules/alerts"] == {"population_collapse": 1}
    assert sum(document["set"][f"run/{RUN}/found/critical"]) == 1


def test_dead_letters_are_listed_with_their_reason_and_place(messages):
    (letter,) = shown(state_of(messages))["add"]["letters"]["items"]
    assert (letter["stage"], letter["topic"], letter["offset"], letter["payload"]) == ("decode", "mono.cells", 7, "<b>")


@pytest.fixture(scope="module")
def whole(messages):
    return shown(state_of(messages))


@settings(max_examples=6)
@given(cuts=st.lists(st.integers(0, 203), max_size=4))
def test_the_page_shows_the_same_however_messages_are_cut(messages, whole, cuts):
    assert len(messages) == 204
    cut = shown(state_of(messages, cuts))
    assert whole.keys() == cut.keys()
    assert whole["add"] == cut["add"]
    for name, values in whole["set"].items():
        if name.startswith(f"run/{RUN}/") and isinstance(values, list) and values and isinstance(values[0], float):
            # Sums of floating-point numbers differ in their last digits by the order of adding.
            assert np.allclose([each or 0 for each in values], [each or 0 for each in cut["set"][name]], rtol=1e-4)
        else:
            assert cut["set"][name] == values, name


def test_the_size_does_not_depend_on_the_number_of_events():
    def frames(cells):
        times = np.full(cells, T0_US + 5)
        columns = {"timestamp": times, "key": ["0"] * cells, "metabolism": np.linspace(0.1, 0.9, cells)}
        return ConsumedRecord("mono.genome_data", 0, 0, T0_US // 1000, None, encode_frame(
            Frame.from_columns("genome_data", RUN, columns)))  # fmt: skip

    few, many = (len(encode(patch({}, state_of([frames(size)]).document()))) for size in (10, 100_000))
    assert many < few + 200


def test_an_event_with_a_wrong_clock_does_not_stretch_the_axis():
    ahead = {"timestamp": np.array([T0_US, T0_US + 10**15]), "key": ["a", "a"], "value": np.array([1.0, 2.0])}
    frame = encode_frame(Frame.from_columns("own", "run-1", ahead))
    document = shown(state_of([ConsumedRecord("own", 0, 0, T0_US // 1000, None, frame)]))
    (run,) = document["set"]["runs"]
    assert (run["outside"], run["used"]) == (1, 1)


def test_a_stream_of_the_users_own_has_its_rate_and_its_first_numbers():
    body = {"timestamp": "2025-01-01T00:00:00Z", "key": "ward 3", "temperature": 38.5, "room": "a"}
    written_ms = 1_735_689_600_000
    records = [ConsumedRecord("wards", 0, each, written_ms, b"ward 3", orjson.dumps(body)) for each in range(3)]
    document = shown(state_of(records))
    titles = [chart["title"] for chart in document["set"]["run//charts"]]
    assert titles == ["wards", "wards: temperature"]


IDS = {"id": "float64", "order_id": "int64", "heat": "float64"}


@pytest.mark.parametrize("stream", ["orders", *sorted(each.stream for each in CATALOG if each.about)])
def test_ids_codes_and_points_in_time_are_never_averaged(stream):
    event_type = CATALOG.find(stream)
    fields = event_type.fields if event_type is not None else IDS
    plain = {"timestamp": np.array([T0_US]), "key": ["a"], "type": ["a"]}
    made = {"int": np.array([1]), "float": np.array([1.0]), "bool": np.array([True])}
    columns = {name: next((value for kind, value in made.items() if each.startswith(kind)), ["[]"])
               for name, each in fields.items()}  # fmt: skip
    frame = Frame.from_columns(stream, "run", plain | columns)
    drawn = {measure.field for chart in charts_of_stream(frame) for measure in chart.measures} - {None}
    if event_type is None:
        assert drawn == {"heat"}
    assert all(event_type is None or event_type.about[name].unit not in ("", *INSTANTS) for name in drawn)
    assert not any(name.endswith("_id") or name in ("created_at", "updated_at", "spawned_at") for name in drawn)


def dna_messages():
    """Three mutations, one of them a crossover, in one bucket each, and a score."""
    mutations = [
        (0.0, ["temperature", "top_k"], {"speed": 0.5}, "Exploration phase"),
        (1.0, ["top_k"], {"speed": -0.1, "focus": 0.2}, "Crossover with agent-00001"),
        (2.0, [], {}, "by hand"),
    ]
    rows = [
        (at_s, {"snapshot_id": [number], "parent_snapshot_id": [number], "mutation_keys": [orjson.dumps(keys).decode()],
                "traits_delta": [orjson.dumps(traits).decode()], "reason": [reason], "version": [1]})
        for number, (at_s, keys, traits, reason) in enumerate(mutations)
    ]  # fmt: skip
    scores = [(at_s, {"karma_score": value, "snapshot_id": 3}) for at_s, value in ((0.0, 0.2), (0.0, 0.6), (2.0, 0.9))]
    return [*rows_of("dna.mutation_applied", rows), *rows_of("dna.karma_updated", scores)]


def test_mutations_of_dna_are_counted_by_the_keys_in_their_lists_and_traits_are_read_from_their_objects():
    document = shown(state_of(dna_messages(), cuts=(1, 2)))
    found = document["set"]
    charts = {chart["title"]: chart for chart in found[f"run/{RUN}/charts"]}
    assert not any("snapshot_id" in title or ":" in title for title in charts)
    (rows,) = charts["Mutations by key"]["classes"]
    assert rows["names"] == ["temperature", "top_k"]
    counts = np.array(found[f"run/{RUN}/{rows['data']}"]).reshape(-1, rows["rows"])
    assert counts[:, :2].sum(axis=0).tolist() == [1, 2]
    assert counts.sum() == 3
    assert counts[np.flatnonzero(counts[:, 0])[0]].tolist()[:2] == [1, 1]
    traits = {
        line["label"]: found[f"run/{RUN}/{line['data']}"] for line in charts["Change of traits by a mutation"]["lines"]
    }
    means = {name: [each for each in values if each is not None] for name, values in traits.items()}
    assert means == {"speed": [0.5, -0.1], "focus": [0.2]}
    kinds = charts["Mutations by kind"]["lines"]
    assert [line["label"] for line in kinds] == ["Crossover", "Exploration"]
    assert [sum(each > 0 for each in found[f"run/{RUN}/{line['data']}"] if each) > 0 for line in kinds] == [True, True]
    karma = charts["Karma"]["lines"][0]
    assert [each for each in found[f"run/{RUN}/{karma['data']}"] if each is not None] == pytest.approx([0.4, 0.9])
    assert karma["band"]
    assert [each for each in found[f"run/{RUN}/{karma['data']}/high"] if each is not None] == pytest.approx([0.6, 0.9])


def test_of_very_many_names_inside_a_field_the_first_have_rows_and_the_others_share_one():
    rows = [(at / 10, {"mutation_keys": [orjson.dumps([f"key-{at}", "same"]).decode()]}) for at in range(40)]
    found = shown(state_of(rows_of("dna.mutation_applied", rows), cuts=(7, 20)))["set"]
    (classes,) = next(each["classes"] for each in found[f"run/{RUN}/charts"] if each["title"] == "Mutations by key")
    assert classes["names"] == ["key-0", "same", *(f"key-{at}" for at in range(1, 14)), "others"]
    counts = np.array(found[f"run/{RUN}/{classes['data']}"]).reshape(-1, 16).sum(axis=0)
    assert counts.tolist() == [1, 40, *[1] * 13, 26]


@pytest.mark.parametrize("text", ["", "{", "null", "7", '{"a": "b"}', "[1, {}]"])
def test_json_of_another_shape_holds_no_names(text):
    found = shown(state_of(rows_of("dna.mutation_applied", [(0.0, {"mutation_keys": [text]})])))["set"]
    assert (
        next(each["classes"][0]["names"] for each in found[f"run/{RUN}/charts"] if each["title"] == "Mutations by key")
        == []
    )


def test_a_field_with_lists_and_objects_counts_the_strings_of_lists_or_reads_the_numbers_of_objects():
    values = ['["speed", "focus"]', '{"speed": 0.5, "on": true, "name": "a"}', '["speed", 7]', '{"focus": 2}']
    rows = [(at / 10, {"mutation_keys": [text], "traits_delta": [text]}) for at, text in enumerate(values)]
    found = shown(state_of(rows_of("dna.mutation_applied", rows), cuts=(3,)))["set"]
    charts = {chart["title"]: chart for chart in found[f"run/{RUN}/charts"]}
    (classes,) = charts["Mutations by key"]["classes"]
    assert classes["names"] == ["speed", "focus"]
    counts = np.array(found[f"run/{RUN}/{classes['data']}"]).reshape(-1, classes["rows"]).sum(axis=0)
    assert counts.tolist() == [2, 1, *[0] * 14]
    lines = {line["label"]: line["data"] for line in charts["Change of traits by a mutation"]["lines"]}
    means = {name: [each for each in found[f"run/{RUN}/{data}"] if each is not None] for name, data in lines.items()}
    assert means == {"speed": [0.5], "focus": [2.0]}


def test_runs_are_few_and_the_newest_stay():
    state = PageState()
    for number in range(7):
        columns = {"timestamp": np.array([T0_US]), "key": ["a"], "total_population": np.array([number])}
        frame = encode_frame(Frame.from_columns("population_metrics", f"run-{number}", columns))
        state.take([ConsumedRecord("mono.population_metrics", 0, number, T0_US // 1000, None, frame)])
    assert [run["name"] for run in shown(state)["set"]["runs"]] == ["run-6", "run-5", "run-4", "run-3"]


DAMAGED = [None, b"", b"[]", b"{", b'{"timestamp":"x"}', b"\xff\xff\xff\xff\x00", b"null"]


@pytest.mark.parametrize(
    "topic", [ALERTS, MULTI_EVENTS, "dead_letters", "simulations", STATS, "mono.population_metrics"]
)
def test_damaged_messages_are_no_more_than_themselves(topic):
    state = state_of(world_messages()[:9])
    before = shown(state)["set"]
    state.take([ConsumedRecord(topic, 0, 10_000 + at, T0_US // 1000, None, each) for at, each in enumerate(DAMAGED)])
    now = shown(state)["set"]
    assert {name: now[name] for name in before if name.startswith("run")} == {
        name: before[name] for name in before if name.startswith("run")
    }
    assert now["rules/alerts"] == now["rules/matches"] == {}


def test_streams_of_single_individuals_are_not_read():
    assert is_read("mono.population_metrics")
    assert is_read("wards")
    assert is_read("metrics.forecast")
    assert not is_read("mono.evolutionary_events")
    assert not is_read("metrics.population_second")
    assert not is_read("keyed.simulation_id.genome_data")


def test_watermarks_are_behind_the_newest_event():
    state = state_of(world_messages())
    body = {"processed": 5, "late": 1, "watermark_us": T0_US + 7_900_000, "stalls": [], "joined": {"wave": 3, "b": "?"}}
    state.take([ConsumedRecord(STATS, 0, 0, T0_US // 1000, b"correlate/0", orjson.dumps(body))])
    domain = shown(state)["set"]["domains"]["correlate/0"]
    assert domain["behind_s"] == pytest.approx(2.0)
    assert (domain["processed"], domain["late"], domain["dead"]) == (5, 1, 0)
    assert domain["joined"] == {"wave": 3}


def test_traffic_is_counted_by_messages_or_by_the_ends_of_topics():
    state = state_of([dead_letter()])
    assert state.traffic.messages == {"dead_letters": 1}
    live = PageState().traffic
    live.ended({"wards": 100}, T0_US)
    live.ended({"wards": 130}, T0_US + 1_000_000)
    assert live.messages == {"wards": 130}
    assert live.rates("wards").sum() * live.axis.width_us / 1e6 == pytest.approx(30)


def test_findings_of_the_beginning_of_a_long_run_are_still_there():
    times = [iso_from_us(T0_US + number * 10_000) for number in range(5_000)]
    about = {"rule": "fall", "severity": "info"}
    alerts = [about | {"timestamp": at, "alert_id": f"a-{number}"} for number, at in enumerate(times)]
    headers = (("ce_simulationid", RUN.encode()),)
    state = state_of(
        [
            ConsumedRecord(ALERTS, 0, number, T0_US // 1000 + number * 10, None, orjson.dumps(each), headers)
            for number, each in enumerate(alerts)
        ],
        cuts=(700, 1_500, 4_000),
    )
    newest = shown(state)["add"]["findings/alerts"]["items"]
    at_us = T0_US + 5_000_000
    assert min(each["t"] for each in newest) > at_us
    past = state.findings_until(RUN, at_us, 100)
    assert len(past) == 100
    assert all(each["t"] <= at_us for each in past)
    assert at_us - past[-1]["t"] < 500_000
    assert state.findings_until("another", at_us, 100) == []


def test_alerts_are_kept_however_many_multi_events_there_are():
    alerts = [
        {"timestamp": iso_from_us(T0_US + number * 100_000), "alert_id": f"a-{number}", "rule": "rare"}
        for number in range(20)
    ]
    matches = [
        {"timestamp": iso_from_us(T0_US + number * 500), "event_id": f"m-{number}", "correlation_rule": "often"}
        for number in range(5_000)
    ]
    headers = (("ce_simulationid", RUN.encode()),)
    bodies = [(ALERTS, each) for each in alerts] + [(MULTI_EVENTS, each) for each in matches]
    records = [
        ConsumedRecord(topic, 0, number, T0_US // 1000 + 3_000, None, orjson.dumps(body), headers)
        for number, (topic, body) in enumerate(bodies)
    ]
    state = state_of(records, cuts=(900, 3_000))
    document = shown(state)
    assert [each["id"] for each in document["add"]["findings/alerts"]["items"]] == [f"a-{each}" for each in range(20)]
    assert len(document["add"]["findings/matches"]["items"]) == 2_000
    assert (document["set"]["counts"]["alerts"], document["set"]["counts"]["matches"]) == (20, 5_000)
    past = [each["id"] for each in state.findings_until(RUN, T0_US + 1_000_000, 500)]
    assert [each for each in past if each.startswith("a-")] == [f"a-{each}" for each in range(11)]
    assert sum(each.startswith("m-") for each in past) == 500

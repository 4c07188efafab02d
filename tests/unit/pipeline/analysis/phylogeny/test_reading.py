"""Births, deaths and parents as sources tell of them, and what cannot be."""

import json
import shutil

import pytest

from astrocyte import AstrocyteError, phylogeny
from astrocyte.agents.sinks.sql.engines import engine_of
from astrocyte.agents.sinks.sql.migrate import upgrade
from astrocyte.pipeline.kafka.record import ConsumedRecord
from astrocyte.pipeline.recording.reader import read_log
from astrocyte.schemas.errors import InvalidSettings
from astrocyte.schemas.tables import EvolutionaryEvent, Simulation
from tests.support.lineages import birth, cells_log, death, division
from tests.support.logs import T0_US, write_log

SMALL = [
    division(1, 1, 0), birth(1, 2, 1, 1), birth(2, 3, 1, 1), birth(3, 4, 2, 2), birth(3.5, 5, 2, 2), death(4, 3, 1),
    death(5, 1, 0),
]  # fmt: skip


def rows(found):
    return {row["id"]: row for row in found.table().to_pylist()}


def test_the_table_says_who_was_born_when_and_of_whom(tmp_path):
    found = phylogeny(cells_log(tmp_path / "run.jsonl.zst", SMALL), prune=False)
    assert found.table().column_names[:5] == ["id", "ancestor_list", "origin_time", "destruction_time", "generation"]
    rows_found = {
        cell: (row["ancestor_list"], row["origin_time"] - T0_US, row["destruction_time"], row["generation"])
        for cell, row in rows(found).items()
    }
    assert rows_found == {
        1: ([], 1_000_000, T0_US + 5_000_000, 0),
        2: ([1], 1_000_000, None, 1),
        3: ([1], 2_000_000, T0_US + 4_000_000, 1),
        4: ([2], 3_000_000, None, 2),
        5: ([2], 3_500_000, None, 2),
    }
    assert found.summary() | {"from": 0, "at": 0, "mrca": 0, "tree": 0} == {
        "stream": "evolutionary_events", "run": "run-1", "from": 0, "at": 0, "births": 4, "founders": 1,
        "founders_without_birth": 0, "deaths": 2, "living": 3, "lineages": 1, "written": 5, "mrca": 0, "tree": 0,
        "notes": [],
    }  # fmt: skip


def test_frames_json_records_files_of_events_and_the_folder_of_a_demo_tell_the_same(tmp_path):
    expected = phylogeny(cells_log(tmp_path / "frames.jsonl.zst", SMALL)).table()
    records = cells_log(tmp_path / "records.jsonl.zst", SMALL, json=True)
    lines = tmp_path / "lines.jsonl"
    lines.write_text("".join(json.dumps(dict(event, simulation_id="run-1")) + "\n" for event in SMALL))
    folder = tmp_path / "demo"
    folder.mkdir()
    shutil.copy(records, folder / "events.jsonl.zst")
    for source in (records, lines, folder):
        assert phylogeny(source).table() == expected


def database(path, runs):
    url = f"sqlite:///{path}"
    upgrade(url)
    with engine_of(url).begin() as connection:
        for run, events in runs.items():
            connection.execute(Simulation.__table__.insert(), [{"simulation_id": run}])
            connection.execute(
                EvolutionaryEvent.__table__.insert(),
                [
                    {"parent_id": None}
                    | dict(event)
                    | {"id": number, "simulation_id": run, "event_type": event["type"]}
                    for number, event in enumerate(events)
                ],
            )
    return url


def test_a_database_and_its_file_tell_the_same_as_the_log(tmp_path):
    expected = phylogeny(cells_log(tmp_path / "run.jsonl.zst", SMALL)).table()
    url = database(tmp_path / "astrocyte.db", {"run-1": SMALL})
    for source in (url, tmp_path / "astrocyte.db", tmp_path):
        assert phylogeny(source).table() == expected


@pytest.mark.parametrize("form", ["frames", "json", "sql"])
def test_of_several_runs_one_is_chosen_and_those_that_there_are_are_named(tmp_path, form):
    runs = {"other": [birth(1, 7, None, 0)], "run-1": SMALL}
    if form == "sql":
        source = database(tmp_path / "runs.db", runs)
    else:
        source = cells_log(tmp_path / "runs.jsonl.zst", runs, json=form == "json")
    with pytest.raises(InvalidSettings, match="holds 2 runs; choose one with --run: 'other', 'run-1'"):
        phylogeny(source)
    with pytest.raises(InvalidSettings, match=r"has no run 'run-2'; did you mean 'run-1'\?; it holds 'other', 'run-1'"):
        phylogeny(source, run="run-2")
    assert rows(phylogeny(source, run="other")).keys() == {7}
    assert rows(phylogeny(source, run="run-1")).keys() == {1, 2, 4, 5}


def test_whose_birth_is_not_in_the_source_is_a_founder_and_counted(tmp_path):
    events = [birth(11, 30, 20, 4), birth(12, 31, 20, 4), division(12, 20, 3), death(13, 21)]
    summary = phylogeny(cells_log(tmp_path / "middle.jsonl.zst", events), prune=False).summary()
    assert (summary["births"], summary["founders"], summary["founders_without_birth"]) == (2, 2, 2)


def test_a_founder_without_birth_was_there_from_the_first_event_on(tmp_path):
    found = phylogeny(cells_log(tmp_path / "run.jsonl.zst", [death(1, 9), birth(5, 2, 1)]), prune=False)
    assert rows(found)[1]["origin_time"] == T0_US + 1_000_000


def test_a_birth_that_comes_twice_is_one_and_a_mutation_adds_its_traits(tmp_path):
    events = [
        birth(1, 2, 1, 1), birth(1, 2, 1, 1), birth(4, 2, 1, 1),
        {**birth(1, 2, 1, 1), "type": "mutation", "mutation_magnitude": 0.5},
    ]  # fmt: skip
    found = phylogeny(cells_log(tmp_path / "run.jsonl.zst", events))
    assert found.summary()["births"] == 1
    assert rows(found)[2]["origin_time"] == T0_US + 1_000_000
    assert rows(found)[2]["mutation_magnitude"] == 0.5


def test_the_mutation_of_one_whose_birth_is_missing_names_its_mother(tmp_path):
    events = [death(1, 9), birth(3, 7, 5, 2), {**birth(6, 5, 4, 1), "type": "mutation"}]
    found = phylogeny(cells_log(tmp_path / "run.jsonl.zst", events))
    assert rows(found)[5]["ancestor_list"] == [4]
    assert rows(found)[5]["origin_time"] == T0_US + 3_000_000, "when its daughter was born, it was there"
    assert found.summary()["births"] == 1


def test_a_division_that_names_the_mother_is_a_birth_as_in_programs_that_publish_cells(tmp_path):
    events = [{**birth(1, 2, 1, 1), "type": "division"}, {**birth(2, 2, 1), "type": "mutation.point"}]
    assert phylogeny(cells_log(tmp_path / "run.jsonl.zst", events, json=True)).summary()["births"] == 1


@pytest.mark.parametrize(
    ("events", "problem"),
    [
        (
            [birth(1, 2, 1), birth(1, 2, 3)],
            "cell 2 is born of 1 in one event and of 3 in another .1 such events.; expected",
        ),
        ([birth(1, 2, 4), birth(1, 3, 2), birth(1, 4, 3)], r"descends from itself: (\d+ -> ){3}\d+"),
        ([birth(1, 2, 2)], "cell 2 descends from itself: 2 -> 2"),
        (
            [birth(2, 2, 1), birth(1, 3, 2)],
            "cells that were born before their parent: 3 at .*21Z, its parent 2 at .*22Z",
        ),
        ([birth(2, 2, 1), death(1, 2)], "cells that died before they were born: 2 at"),
        ([birth(1, -5, 1)], "evolutionary_events.cell_id: expected a number from 0 on, got -5"),
    ],
)
def test_what_cannot_be_is_refused_with_the_ids(tmp_path, events, problem):
    with pytest.raises(AstrocyteError, match=problem):
        phylogeny(cells_log(tmp_path / "run.jsonl.zst", events))


def test_a_source_without_births_says_what_was_looked_for(tmp_path):
    with pytest.raises(AstrocyteError, match="holds no events of evolutionary_events or kernel_geometry"):
        phylogeny(cells_log(tmp_path / "run.jsonl.zst", SMALL, stream="cell_vitals"))
    with pytest.raises(InvalidSettings, match=r"stream 'evolution_events' names no parents; expected .*did you mean"):
        phylogeny(tmp_path / "run.jsonl.zst", stream="evolution_events")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InvalidSettings, match=r"holds neither events\.jsonl\.zst nor astrocyte\.db"):
        phylogeny(tmp_path / "empty")


def test_a_log_of_dna_says_how_its_snapshots_are_followed(tmp_path):
    events = [{"timestamp": T0_US, "type": "dna.mutation_applied", "snapshot_id": 2, "parent_snapshot_id": 1}]
    log = cells_log(tmp_path / "run.jsonl.zst", events, stream="dna.mutation_applied")
    with pytest.raises(AstrocyteError, match=r"parent_snapshot_id names .*simulation\.dna\.ancestors\(snapshot_id\)"):
        phylogeny(log)


def test_where_no_message_holds_an_event_the_first_is_named(tmp_path):
    noise = ConsumedRecord("mono.evolutionary_events", 0, 0, 0, None, b"no event", ())
    log = write_log(tmp_path / "noise.jsonl.zst", [noise])
    with pytest.raises(AstrocyteError, match=r"holds no events of .*1 messages .*_events\[0\]@0"):
        phylogeny(log)


def test_events_without_a_cell_and_messages_without_an_event_are_counted(tmp_path):
    records = [*read_log(cells_log(tmp_path / "run.jsonl.zst", [*SMALL, birth(3, None, 2, 2)], json=True))]
    noise = ConsumedRecord("mono.evolutionary_events", 0, len(records), 0, None, b"no event", ())
    found = phylogeny(write_log(tmp_path / "noise.jsonl.zst", [*records, noise]))
    assert len(found.notes) == 2
    assert "1 messages hold no event and were left out; the first is mono.evolutionary_events[0]@8" in found.notes[0]
    assert found.notes[1] == "1 events have no cell_id and were left out"

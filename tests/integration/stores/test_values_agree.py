"""One number, one value: in the stream, in SQL, in InfluxDB's lines, in windows, and in the simulator's own state."""

from __future__ import annotations

import asyncio
import json
import math
import re
import statistics
from collections import Counter, defaultdict
from datetime import UTC, datetime
from types import SimpleNamespace

import numpy as np
import pytest
from sqlalchemy import select

from astrocyte.agents.engine.engine import Engine
from astrocyte.agents.sinks.base import SourcedFrame
from astrocyte.agents.sinks.influx.points import PointRules, points_of
from astrocyte.agents.sinks.sql.engines import engine_of
from astrocyte.agents.sinks.sql.sink import SqlSink
from astrocyte.agents.stores.repositories import AgentRepository, CellRepository
from astrocyte.pipeline.topology.rule_files import read_rule_files
from astrocyte.scenario import configure, load_scenario
from astrocyte.schemas.catalog import CATALOG
from astrocyte.schemas.measurements import measurement_of, number_field
from astrocyte.schemas.tables import Base
from astrocyte.schemas.tables.columns import STREAM_OF
from astrocyte.simulator.emission.assembly import Assembler
from astrocyte.simulator.runtime.world import World
from tests.support import window_oracle
from tests.support.line_protocol import read_points
from tests.support.small_worlds import SMALL_WORLDS

NEWEST = {"cells": "cell_id", "cell_genomes": "cell_id", "kernel_geometry": "kernel_id", "agents": "agent_id",
          "dna_snapshots": "snapshot_id"}  # fmt: skip
"""Tables with one row for each of what the events are about, and its column."""
_VALUES = ("int64", "int32", "float64", "float32", "bool")


@pytest.fixture(scope="module", params=SMALL_WORLDS)
def world(request, tmp_path_factory):
    name, (ticks, settings) = request.param, SMALL_WORLDS[request.param]
    scenario = load_scenario(name)
    config = configure(scenario.Config, settings)
    simulated = World(scenario, config, 5)
    assembler = Assembler(scenario, config, "run", frame_ticks=ticks)
    params = scenario.params(config)
    frames = [frame for done in simulated.run(ticks, lambda _: params) for frame in assembler.add(done)]
    frames = [frame for frame in frames if frame.num_rows]
    engine = Engine(read_rule_files([name]), validated=True)
    for frame in frames:
        if frame.stream in engine.streams:
            engine.push(frame)
    output = engine.flush()
    results = output.frames
    items = [SourcedFrame(frame, f"mono.{frame.stream}", 0, number) for number, frame in enumerate(frames)]
    made = [SourcedFrame(frame, f"metrics.{frame.stream}", 0, number) for number, frame in enumerate(results)]
    database = f"sqlite:///{tmp_path_factory.mktemp(name)}/world.db"
    assert asyncio.run(_stored_in(database, [*items, *made])) == []
    points = [
        point
        for found in points_of([*items, *made], PointRules()).points
        for point in read_points(found.lines.payload())
    ]
    streams = defaultdict(list)
    for frame in frames:
        streams[frame.stream] += frame.rows()
    return SimpleNamespace(
        name=name, config=config, ticks=ticks, frames=frames, results=results, database=database, points=points,
        streams=streams, states=simulated.host_states(), interval=assembler.last,
        confidences=output.matches.values.confidence.tolist(),
    )  # fmt: skip


async def _stored_in(database, batch):
    sink = SqlSink(database, now_us=lambda: 1)
    await sink.open()
    rejected = await sink.write(batch)
    await sink.close()
    return rejected


def stored(world, table):
    with engine_of(world.database).connect() as connection:
        return [dict(row) for row in connection.execute(select(Base.metadata.tables[table])).mappings()]


def same(one, other):
    """Whether two values are the same number, up to the precision of a float32."""
    if isinstance(one, float) or isinstance(other, float):
        return one is not None and other is not None and math.isclose(one, other, rel_tol=1e-6, abs_tol=1e-9)
    return one == other


def plain(value):
    return None if value is None or (isinstance(value, float) and math.isnan(value)) else value


def normal(kind, value):
    """The value in a form that does not depend on where it is stored: ids as text, JSON parsed, lists as float32."""
    value = plain(value)
    if value is None or kind in ("string", "bool", "float32", "float64"):
        return value
    if kind == "json":
        parsed = json.loads(value) if isinstance(value, str) else value
        return json.dumps([str(each) for each in parsed] if isinstance(parsed, list) else parsed, sort_keys=True)
    if kind.startswith("list"):
        if isinstance(value, bytes):
            return tuple(np.frombuffer(value, "<f4").tolist())
        return tuple(np.asarray(json.loads(value) if isinstance(value, str) else value, np.float32).tolist())
    if isinstance(value, datetime):
        return str(round(value.replace(tzinfo=UTC).timestamp() * 1e6))
    return str(value)


def rows_of(rows, kinds, names):
    return Counter(tuple(normal(kinds[name], row.get(name)) for name in names) for row in rows)


def test_sql_holds_every_event_with_the_values_of_the_stream(world):
    checked = 0
    for table, stream in STREAM_OF.items():
        streams = [f"axon_{number}" for number in (1, 2, 3)] if table == "spikes" else [stream]
        events = [row for each in streams for row in world.streams.get(each, ())]
        if not events or table in NEWEST:
            continue
        kinds = {**CATALOG[stream].fields, "timestamp": "int64"}
        names = [name for name in kinds if name in Base.metadata.tables[table].c]
        assert rows_of(stored(world, table), kinds, names) == rows_of(events, kinds, names), table
        checked += 1
    assert checked > 0


def test_sql_holds_the_newest_values_of_what_changes(world):
    for table, identity in NEWEST.items():
        stream = STREAM_OF[table]
        events = world.streams.get(stream, ())
        if not events:
            continue
        kinds = CATALOG[stream].fields
        names = [name for name in kinds if name in Base.metadata.tables[table].c and name != "alive"]
        expected = {}
        for row in sorted(events, key=lambda row: row["timestamp"]):
            known = expected.setdefault(str(row[identity]), {})
            known.update({name: normal(kinds[name], row[name]) for name in names if row[name] is not None})
        rows = {str(row[identity]): row for row in stored(world, table)}
        assert set(expected) <= set(rows)
        for number, values in expected.items():
            found = {name: normal(kinds[name], rows[number][name]) for name in values}
            assert found == values, (table, number)


def test_what_sql_derives_from_the_type_of_an_event_is_that_of_the_event(world):
    for stream, table, column, of in (
        ("problem_solving", "problem_results", "solved", lambda row: row["type"] == "solved"),
        ("kernel_geometry", "kernel_history", "status", lambda row: row["type"]),
        ("axon_1", "spikes", "type", lambda row: row["type"]),
    ):
        if events := world.streams.get(stream):
            rows = [row for row in stored(world, table) if row.get("axon", stream) == stream]
            assert Counter(row[column] for row in rows) == Counter(map(of, events))
            assert len({row[column] for row in rows}) > 1


def test_every_point_has_the_values_of_its_event(world):
    for stream, events in world.streams.items():
        measurement = measurement_of(stream)
        if measurement is None:
            continue
        points = [point for point in world.points if point.measurement == measurement.name]
        if stream in {frame.stream for frame in world.results}:
            continue  # a window of the same name writes there too
        assert len(points) == len(events), stream
        kinds = {**CATALOG[stream].fields, "key": "string", "type": "string", "simulation_id": "string"}
        run = {"simulation_id": "run"}
        for name in {*measurement.fields, *measurement.tags} - {"weight"}:
            held = ({**point.fields, **dict(point.tags)} for point in points)
            found = [each.get(name, each.get(number_field(name))) for each in held]
            wanted = [{**run, **row}[name] for row in events]
            if kinds[name] in _VALUES and name not in measurement.tags:
                found = sorted(value for value in found if value is not None)
                wanted = sorted(value for value in map(plain, wanted) if value is not None)
                assert len(found) == len(wanted), (stream, name)
                assert all(same(one, other) for one, other in zip(found, wanted, strict=True)), (stream, name)
            else:
                strings = [Counter(normal(kinds[name], value) for value in values) for values in (found, wanted)]
                assert strings[0] == strings[1], (stream, name)
        weights = {frame.weight for frame in world.frames if frame.stream == stream}
        assert {point.fields.get("weight", 1.0) for point in points} <= weights | {1.0}, stream


def test_sql_and_influxdb_hold_the_results_of_the_windows(world):
    curves = {
        (row["window_name"], row["event_key"], row["field"], row["window_start"], row["window_end"]): row["value"]
        for row in stored(world, "window_results")
    }
    points = defaultdict(list)
    for point in world.points:
        points[point.measurement].append(point)
    checked = 0
    windows = {each.name for each in read_rule_files([world.name]).windows}
    for frame in world.results:
        if frame.stream not in windows:  # a statistic, whose values differ in kind from field to field
            continue
        by = next(each.by for each in read_rule_files([world.name]).windows if each.name == frame.stream)
        select_of = next(each.select for each in read_rule_files([world.name]).windows if each.name == frame.stream)
        for row in frame.rows():
            for name in select_of:
                value = plain(row[name])
                if name == by or isinstance(value, str):
                    continue
                place = (frame.stream, row["key"] or "", name, row["window_start"], row["window_end"])
                assert same(curves[place], None if value is None else float(value)) or value is None, place
                checked += value is not None
        values = sorted(float(row[name]) for row in frame.rows() for name in select_of if plain(row[name]) is not None)
        found = sorted(
            float(point.fields[name]) for point in points[frame.stream] for name in select_of if name in point.fields
        )
        if len([each for each in world.results if each.stream == frame.stream]) == 1:
            assert all(same(one, other) for one, other in zip(found, values, strict=True)), frame.stream
    assert checked > 3


AGGREGATES = {
    "count": lambda rows, values, weight: round(weight * len(values)),
    "sum": lambda rows, values, weight: weight * sum(values),
    "mean": lambda rows, values, weight: statistics.fmean(values),
    "min": lambda rows, values, weight: min(values),
    "max": lambda rows, values, weight: max(values),
    "count_distinct": lambda rows, values, weight: len(set(values)),
    "slope": lambda rows, values, weight: window_oracle.slope([row["timestamp"] for row in rows], values),
    "entropy": lambda rows, values, weight: window_oracle.entropy(
        list(Counter(values).values()) if isinstance(values[0], str) else window_oracle.binned(values, 32)
    ),
}


def test_windows_have_the_values_that_the_rows_of_their_stream_give(world):
    weights = {frame.stream: frame.weight for frame in world.frames}
    checked = set()
    for window in read_rule_files([world.name]).windows:
        results = [row for frame in world.results if frame.stream == window.name for row in frame.rows()]
        events = world.streams[window.source]
        weight = weights[window.source]
        for result in results:
            rows = [
                row for row in events
                if result["window_start"] <= row["timestamp"] < result["window_end"]
                and str({"simulation_id": "run", **row}[window.by]) == result["key"]
            ]  # fmt: skip
            for name, text in window.select.items():
                if counted := re.fullmatch(r"count_if\(type == '(\w+)'\)", text):
                    assert result[name] == round(weight * sum(row["type"] == counted[1] for row in rows)), window.name
                    checked.add(window.name)
                call = re.fullmatch(r"(\w+)\((\w*)\)", text)
                if call is None or call[1] not in AGGREGATES:
                    continue
                kept = [row for row in rows if not call[2] or plain(row[call[2]]) is not None]
                values = [row[call[2]] if call[2] else 1 for row in kept]
                expected = AGGREGATES[call[1]](kept, values, weight) if values else None
                found = plain(result[name])
                assert found is expected is None or math.isclose(found, expected, rel_tol=1e-5, abs_tol=1e-7), (
                    window.name, name, result["window_start"],
                )  # fmt: skip
                checked.add(window.name)
        assert results, window.name
    assert checked == {each.name for each in read_rule_files([world.name]).windows}


def test_the_confidence_of_every_match_is_a_share(world):
    assert world.confidences or world.name == "cells"  # whose small world matches no rule
    assert all(0.0 <= confidence <= 1.0 for confidence in world.confidences)


def test_the_streams_agree_with_the_state_of_the_world(world):
    CHECKS[world.name](world)


def _axons(world):
    spikes = sum(len(world.streams[f"axon_{number}"]) for number in (1, 2, 3))
    assert spikes == world.interval.metrics["spikes"].sum() == len(stored(world, "spikes"))


def _cells(world):
    (state,) = world.states
    cells, metrics = state["cells"], world.interval.metrics
    last = world.streams["population_metrics"][-1]
    until = last["tick"] + 1
    rest = slice(until, None)
    change = (metrics["births"] - metrics["deaths"])[rest].sum()
    assert last["total_population"] + change == cells["alive"].sum()
    born = sum(row["type"] == "birth" for row in world.streams["evolutionary_events"])
    died = sum(row["type"] == "death" for row in world.streams["evolutionary_events"])
    assert (born, died) == (metrics["births"].sum(), metrics["deaths"].sum())
    assert sum(row["births"] for row in world.streams["population_metrics"]) == metrics["births"][:until].sum()
    rows = {row["cell_id"]: row for row in stored(world, "cells")}
    living = {
        (int(tick) << 25) | place
        for place, (tick, alive) in enumerate(zip(cells["birth_tick"], cells["alive"], strict=True))
        if alive
    }
    assert {cell for cell, row in rows.items() if row["alive"]} <= living
    assert sum(not row["alive"] for row in rows.values()) == died
    deaths = {
        row["cell_id"]: row["timestamp"] for row in world.streams["evolutionary_events"] if row["type"] == "death"
    }
    assert {cell: row["died_at"] for cell, row in rows.items() if row["died_at"] is not None} == deaths

    # The births lead from every living cell to the founder of its lineage.
    repository = CellRepository(engine_of(world.database), "run")
    oldest = max(range(len(cells["alive"])), key=lambda slot: cells["alive"][slot] * cells["generation"][slot])
    found = repository.ancestors((int(cells["birth_tick"][oldest]) << 25) | oldest)
    assert [each.generation for each in found] == list(range(cells["generation"][oldest]))[::-1]
    assert found[-1].cell_id == cells["lineage"][oldest]
    assert repository.accuracy_by_generation()[0].generation == 0

    # Windows count what the sampled events stand for, and the weights of the points sum up to the same.
    rows = [row for frame in world.results if frame.stream == "population_stats" for row in frame.rows()]
    weights = [point.fields["weight"] for point in world.points if point.measurement == "problem_solving"]
    attempts = metrics["attempts"].sum(axis=1)[:: world.config.routine_every].sum()
    assert sum(row["count_cell_id"] for row in rows) == pytest.approx(sum(weights), abs=len(rows))
    assert sum(weights) == pytest.approx(attempts, rel=0.15)


def _ecology(world):
    (state,) = world.states
    last = world.streams["simulation_steps"][-1]
    metrics = world.interval.metrics
    rest = slice(last["step_number"] + 1, None)
    assert last["total_agents"] + (metrics["births"] - metrics["deaths"])[rest].sum() == state["agents"]["alive"].sum()
    flow = (metrics["grown"] - metrics["gathered"] - metrics["vanished"])[rest].sum()
    assert round(last["total_resources"] * 1024) + flow == state["amount"].sum()
    rows = stored(world, "agents")
    assert sum(row["death_time"] is None for row in rows) == state["agents"]["alive"].sum()
    kinds = Counter(
        row["agent_type"] for row in rows if row["death_time"] is None or row["death_time"] > last["step_number"]
    )
    assert last["total_agents"] == sum(last[f"{kind}_agents"] for kind in ("system", "independent", "control"))
    assert kinds.total() >= last["total_agents"]

    repository = AgentRepository(engine_of(world.database), "run")
    born = Counter(row["birth_time"] for row in rows if row["parent_id"] is not None)
    for step in world.streams["simulation_steps"]:
        living = Counter(agent.agent_type for agent in repository.alive_at(step["step_number"]))
        assert living.total() == step["total_agents"]
        assert [living[kind] for kind in ("system", "independent", "control")] == [
            step[f"{kind}_agents"] for kind in ("system", "independent", "control")
        ]
        assert born[step["step_number"]] == step["births"]


def _kernels(world):
    (state,) = world.states
    alive = np.flatnonzero(state["alive"])
    known = {row["kernel_id"]: row for row in stored(world, "kernel_geometry") if row["status"] != "retired"}
    ids = {str((int(state["birth_tick"][slot]) << 25) | int(slot)): slot for slot in alive}
    assert set(known) == set(ids)
    for number, slot in ids.items():
        assert known[number]["phi"] == pytest.approx(float(state["phi"][slot]), rel=1e-5)
        assert known[number]["kappa"] == pytest.approx(float(state["kappa"][slot]), rel=1e-5)
        assert known[number]["success_count"] == state["success"][slot]
    history = stored(world, "kernel_history")
    assert len(history) == len(world.streams["kernel_geometry"]) > len(known)
    for row in stored(world, "kernel_geometry"):
        assert row["kernel_id"] not in (row["parent_kernels"] or [])


def _dna(world):
    (state,) = world.states
    newest = {row["agent_id"]: row for row in world.streams["dna.karma_updated"]}
    for agent, row in newest.items():
        slot = int(agent.removeprefix("agent-"))
        assert row["karma_score"] == pytest.approx(float(state["karma"][slot]), rel=1e-6)
    versions = defaultdict(int)
    for row in stored(world, "dna_snapshots"):
        versions[row["agent_id"]] = max(versions[row["agent_id"]], row["version"])
        assert row["dna_size"] is not None
        assert row["traits_count"] is not None
    assert versions == {agent: state["version"][int(agent.removeprefix("agent-"))] for agent in versions}


CHECKS = {"axons": _axons, "cells": _cells, "ecology": _ecology, "kernels": _kernels, "dna": _dna}

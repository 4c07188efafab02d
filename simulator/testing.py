"""The contract test of scenarios: `check_scenario` runs one and lists its violations. Use it for your own scenarios."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

from astrocyte.schemas.catalog import CATALOG
from astrocyte.schemas.errors import AstrocyteError
from astrocyte.schemas.frames import Frame, conform, encode_frame
from astrocyte.simulator.config import configure
from astrocyte.simulator.emission.assembly import Assembler
from astrocyte.simulator.runtime.world import World
from astrocyte.simulator.scenario import Interval, Scenario, load_scenario

__all__ = ["check_frames", "check_scenario"]


def check_scenario(scenario: str | Scenario, *, ticks: int = 60, seed: int = 1, **settings: Any) -> list[str]:
    """Run the scenario's sample world (changed by ``settings``) and return its violations; an empty list means none.

    Checked: frames have the catalog's fields, are in order and numbered without gaps, and no row is older than a
    watermark before it; the population changes by births less deaths; `Scenario.violations` finds nothing; another
    chunk length gives the same bytes and the same state.
    """
    world_of = load_scenario(scenario)
    config = configure(world_of.Config, {**world_of.sample, **settings}, scenario=world_of.name)
    runs = [_run(world_of, config, seed, ticks, chunk_ticks) for chunk_ticks in (10, 7)]
    (frames, intervals, states), (again, _, states_again) = runs
    wrong = list(check_frames(frames))
    if [encode_frame(frame) for frame in frames] != [encode_frame(frame) for frame in again]:
        wrong.append("another chunk length gave other frames")
    if _bytes(states) != _bytes(states_again):
        wrong.append("another chunk length gave another state")
    wrong += _population(intervals)
    for number, state in enumerate(states):
        wrong += [f"island {number}: {text}" for text in world_of.violations(config, state, intervals[-1])]
    return wrong


def _run(
    scenario: Scenario, config: Any, seed: int, ticks: int, chunk_ticks: int
) -> tuple[list[Frame], list[Interval], list[Any]]:
    world = World(scenario, config, seed, chunk_ticks=chunk_ticks)
    assembler = Assembler(scenario, config, "check")
    params = scenario.params(config)
    frames: list[Frame] = []
    intervals: list[Interval] = []
    for done in world.run(ticks, lambda _: params):
        frames += assembler.add(done)
        if assembler.last is not None and (not intervals or intervals[-1] is not assembler.last):
            intervals.append(assembler.last)
    frames += assembler.finish()
    return frames, intervals, world.host_states()


def check_frames(frames: list[Frame]) -> Iterator[str]:
    """Violations in the frames of one run: fields, order, numbers, watermarks, ends."""
    numbers: dict[str, int] = {}
    marks: dict[str, int] = {}
    ended: set[str] = set()
    for frame in frames:
        stream, times = frame.stream, frame.timestamps()
        if stream in ended:
            yield f"{stream}: a frame came after the end"
        listed = CATALOG.find(stream)
        try:
            if listed is not None and conform(frame, listed) is not frame:
                yield f"{stream}: columns are not exactly the catalog's"
        except AstrocyteError as error:
            yield f"{stream}: {error}"
        if frame.first_seq != numbers.get(stream, 0):
            yield f"{stream}: sequence numbers jump to {frame.first_seq}"
        numbers[stream] = frame.first_seq + frame.num_rows
        if len(times) and (np.diff(times) < 0).any():
            yield f"{stream}: rows are not in order of time"
        if len(times) and times[0] < marks.get(stream, 0):
            yield f"{stream}: a row is older than the watermark before it"
        if frame.watermark_us is not None:
            if frame.watermark_us < marks.get(stream, 0):
                yield f"{stream}: the watermark went back"
            marks[stream] = frame.watermark_us
        if frame.end:
            ended.add(stream)
    if missing := set(numbers) - ended:
        yield f"{min(missing)}: no frame ended it"


def _population(intervals: list[Interval]) -> Iterator[str]:
    if not all({"alive", "births", "deaths"} <= set(interval.metrics) for interval in intervals):
        return
    alive, births, deaths = (
        np.concatenate([interval.metrics[name] for interval in intervals]) for name in ("alive", "births", "deaths")
    )
    if (np.diff(alive, axis=0) != (births - deaths)[1:]).any():
        yield "the population does not change by births less deaths"


def _bytes(states: list[Any]) -> list[bytes]:
    return [np.asarray(leaf).tobytes() for state in states for leaf in jax.tree.leaves(state)]

"""The contract test of scenarios: `check_scenario` runs one and lists its violations. Use it for your own scenarios."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any, Final

import jax
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from astrocyte.schemas.catalog import CATALOG, Field
from astrocyte.schemas.errors import AstrocyteError
from astrocyte.schemas.frames import Frame, conform, encode_frame
from astrocyte.simulator.config import configure
from astrocyte.simulator.emission.assembly import Assembler
from astrocyte.simulator.rng import seed_words
from astrocyte.simulator.runtime.programs import context_of
from astrocyte.simulator.runtime.world import World
from astrocyte.simulator.scenario import Interval, Scenario, load_scenario

__all__ = ["FrameOrder", "check_frames", "check_scenario", "check_values"]


def check_scenario(scenario: str | Scenario, *, ticks: int = 60, seed: int = 1, **settings: Any) -> list[str]:
    """Run the scenario's sample world (changed by ``settings``) and return its violations; an empty list means none.

    Checked: what the scenario declares and its functions return; frames have the catalog's fields, with values in the
    ranges that it defines (`check_values`), are in order and numbered without gaps, and no row is older than a
    watermark before it; the population changes by births less deaths; `Scenario.violations` finds nothing; another
    world of the same settings and seed, and another chunk length, give the same bytes and the same state.
    """
    world_of = load_scenario(scenario)
    config = configure(world_of.Config, {**world_of.sample, **settings}, scenario=world_of.name)
    try:
        frames, intervals, states = _run(world_of, config, seed, ticks, 10)
        again = _run(world_of, config, seed, ticks, 7)
        wrong = [*check_frames(frames), *check_values(frames)]
        if different := _difference((frames, states), (again[0], again[2])):
            same_chunks = _run(world_of, config, seed, ticks, 10)
            if pure := _difference((frames, states), (same_chunks[0], same_chunks[2])):
                wrong.append(f"a second world of the same settings and seed gave {pure}; {_PURE}")
            else:
                wrong.append(f"another chunk length gave {different}")
        wrong += _traced_twice(world_of, config, seed)
    except AstrocyteError as error:
        return [str(error)]
    wrong += _population(intervals)
    for number, state in enumerate(states):
        wrong += [f"island {number}: {text}" for text in world_of.violations(config, state, intervals[-1])]
    return wrong


def _difference(one: tuple[list[Frame], list[Any]], other: tuple[list[Frame], list[Any]]) -> str:
    """In what two runs differ; empty if they do not."""
    frames = [encode_frame(frame) for frame in one[0]] != [encode_frame(frame) for frame in other[0]]
    states = _bytes(one[1]) != _bytes(other[1])
    names = (("other frames", frames), ("another state", states))
    return " and ".join(name for name, differs in names if differs)


_PURE: Final = "take random numbers from ctx, read no clock, and keep nothing outside the state"


def _traced_twice(scenario: Scenario, config: Any, seed: int) -> Iterator[str]:
    """Differences between two traces of `init` and `step`, and metrics that the step does not record.

    The world traces both once, so a number that Python draws is a constant in it, and two runs are equal.
    """
    static, word = scenario.static(config), np.uint32(0)
    sizes = {spec.kind: spec.capacity for spec in scenario.events(static)} | dict(scenario.capacities(static))
    names: list[str] = []

    def program() -> tuple[str, list[bytes]]:
        def trace(params: Any, seed: Any) -> Any:
            before, ctx = (context_of(scenario, static, sizes, seed, (word, word), word, "cpu") for _ in range(2))
            after = scenario.step(static, params, scenario.init(static, params, before), ctx)
            names[:] = ctx.unrecorded()
            return after, ctx.outputs()

        traced = jax.make_jaxpr(trace)(scenario.params(config), np.array(seed_words(seed), np.uint32))
        # Functions inside are shown with their address.
        return re.sub(r"0x[0-9a-f]+", "", str(traced)), _bytes(traced.consts)

    if program() != program():
        yield f"init() or step(), traced twice, gave other programs; {_PURE}"
    for name in names:
        yield f"metric {name!r} is declared, and step records it nowhere; record it with ctx.metric, or leave it out"


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


class FrameOrder:
    """Violations in the frames of one run, one frame after the other: fields, order, numbers, watermarks, ends."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}
        self._marks: dict[str, int] = {}
        self._ended: set[str] = set()

    def add(self, frame: Frame) -> Iterator[str]:
        """Violations in the next frame."""
        stream, times, mark = frame.stream, frame.timestamps(), self._marks.get(frame.stream, 0)
        if stream in self._ended:
            yield f"{stream}: a frame came after the end"
        listed = CATALOG.find(stream)
        try:
            if listed is not None and conform(frame, listed) is not frame:
                yield f"{stream}: columns are not exactly the catalog's"
        except AstrocyteError as error:
            yield f"{stream}: {error}"
        if frame.first_seq != self._numbers.get(stream, 0):
            yield f"{stream}: sequence numbers jump to {frame.first_seq}"
        self._numbers[stream] = frame.first_seq + frame.num_rows
        if len(times) and (np.diff(times) < 0).any():
            yield f"{stream}: rows are not in order of time"
        if len(times) and times[0] < mark:
            yield f"{stream}: a row is older than the watermark before it"
        if frame.watermark_us is not None:
            if frame.watermark_us < mark:
                yield f"{stream}: the watermark went back"
            self._marks[stream] = frame.watermark_us
        if frame.end:
            self._ended.add(stream)

    def end(self) -> Iterator[str]:
        """Violations at the end of the run."""
        if missing := set(self._numbers) - self._ended:
            yield f"{min(missing)}: no frame ended it"


def check_frames(frames: Iterable[Frame]) -> Iterator[str]:
    """Violations in the frames of one run: fields, order, numbers, watermarks, ends."""
    order = FrameOrder()
    for frame in frames:
        yield from order.add(frame)
    yield from order.end()


def check_values(frames: list[Frame], *, varying: bool = False) -> Iterator[str]:
    """Values that the catalog's definitions of their fields exclude, of streams that have such definitions.

    That is a number out of its range or not finite, a text that is none of the field's, and a null in a field that
    always has a value. With ``varying`` also a field that has one value in all frames, and should have several.
    """
    columns: dict[tuple[str, str], list[pa.Array]] = {}
    for frame in frames:
        listed = CATALOG.find(frame.stream)
        for name in () if listed is None or not frame.num_rows else listed.about:
            if frame.has(name):
                column = frame.column(name)
                if pa.types.is_dictionary(column.type):
                    column = column.cast(column.type.value_type)
                columns.setdefault((frame.stream, name), []).append(column)
    for (stream, name), parts in columns.items():
        column = pa.chunked_array(parts)
        for problem in _excluded(CATALOG[stream].about[name], column):
            yield f"{stream}.{name}: {problem}"
        if varying and not CATALOG[stream].about[name].constant:
            values = column.to_pylist()
            if len(values) > 1 and all(value == values[0] for value in values):
                yield f"{stream}.{name}: all {len(values)} values are {values[0]!r}; expected several"


def _excluded(field: Field, column: pa.ChunkedArray) -> Iterator[str]:
    if column.null_count and not field.null:
        yield f"{column.null_count} of {len(column)} values are null; expected a value"
    if pa.types.is_list(column.type):
        column = pc.list_flatten(column)
    if field.values:
        others = sorted({value for value in column.to_pylist() if value is not None} - {*field.values})
        if others:
            yield f"got {others[0]!r}; expected one of {', '.join(field.values)}"
    if not (pa.types.is_integer(column.type) or pa.types.is_floating(column.type)) or len(column) == column.null_count:
        return
    if pa.types.is_floating(column.type) and not pc.all(pc.is_finite(column)).as_py():
        yield "a value is not finite"
    least, most = (float(value.as_py()) for value in pc.min_max(column).values())
    if field.low is not None and least < np.float32(field.low):
        yield f"got {least}; expected at least {field.low}"
    if field.high is not None and most > np.float32(field.high):
        yield f"got {most}; expected at most {field.high}"


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

"""The events that name one individual, looked up in its source when somebody asks."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from astrocyte.pipeline.page.sources.source import Source
from astrocyte.schemas.frames import Frame

__all__ = ["events_naming"]

_FIELDS: Final[Mapping[str, Mapping[str, tuple[str, ...]]]] = {
    "cell": {
        "evolutionary_events": ("cell_id", "parent_id"),
        "genome_data": ("cell_id",),
        "problem_solving": ("cell_id",),
        "cell_vitals": ("cell_id",),
    },
    "kernel": {"kernel_geometry": ("kernel_id",), "war_history": ("attacker_id", "defender_id")},
}
"""By kind of individual: the streams that name it, and the fields in which they do."""
_GENOMES: Final[Mapping[str, str]] = {"genome_data": "cell_id", "kernel_geometry": "kernel_id"}
_MOST_EVENTS: Final = 200
_LIMIT_S: Final = 30.0
_ABOUT: Final = ("timestamp", "type", "key")


async def events_naming(source: Source, run: str, kind: str, line: Sequence[int], at_us: int | None) -> dict[str, Any]:
    """The newest ``events`` that name an individual, their ``count``, and its newest ``genome``.

    ``line`` are the ids of the individual and of its ancestors, the nearest first: where samples of genomes hold none
    of its own, ``genome`` is that of the nearest ancestor, and ``genome_of`` its id. Only events up to ``at_us``
    count. ``note`` says what was not looked through. Raises AstrocyteError.
    """
    fields = _FIELDS[kind]
    frames = source.frames(run, tuple(fields))
    found: deque[dict[str, Any]] = deque(maxlen=_MOST_EVENTS)
    genomes: dict[int, dict[str, Any]] = {}
    count, note = 0, ""
    portions = frames.portions()
    try:
        async with asyncio.timeout(_LIMIT_S):
            async for portion in portions:
                named, sampled = await asyncio.to_thread(_naming, portion, fields, line, at_us)
                count += len(named)
                found.extend(named)
                genomes |= sampled
                if frames.live and not portion:
                    break
    except TimeoutError:
        note = f"only what could be read in {_LIMIT_S:.0f} s was looked through"
    finally:
        with contextlib.suppress(TimeoutError):
            await portions.aclose()
    newest = sorted(found, key=lambda event: int(event["t"]), reverse=True)
    owner = next((each for each in line if each in genomes), None)
    return {
        "events": newest, "count": count, "note": note, "genome": None if owner is None else genomes[owner],
        "genome_of": None if owner is None else str(owner),
    }  # fmt: skip


def _naming(
    frames: list[Frame], fields: Mapping[str, tuple[str, ...]], line: Sequence[int], at_us: int | None
) -> tuple[list[dict[str, Any]], dict[int, dict[str, Any]]]:
    """Events that name the first of a line, and the newest genome of each of the line."""
    found: list[dict[str, Any]] = []
    genomes: dict[int, dict[str, Any]] = {}
    for frame in frames:
        rows = np.zeros(frame.num_rows, np.bool_)
        before = np.ones(frame.num_rows, np.bool_) if at_us is None else frame.timestamps() <= at_us
        for name in fields[frame.stream]:
            if frame.has(name):
                rows |= _is_in(frame.column(name), line[:1]) & before
        if id_field := _GENOMES.get(frame.stream):
            sampled = np.flatnonzero(_is_in(frame.column(id_field), line) & before)
            for event in frame.take(sampled).event_fields() if len(sampled) else ():
                genomes[int(event[id_field])] = _shown(event)
        if rows.any():
            for event in frame.take(np.flatnonzero(rows)).event_fields():
                about = {"t": event["timestamp"], "type": event["type"], "stream": frame.stream}
                found.append(about | {"fields": _shown(event)})
    return found, genomes


def _is_in(column: pa.Array, ids: Sequence[int]) -> NDArray[np.bool_]:
    same = pc.is_in(pc.cast(column, pa.int64()), value_set=pa.array(ids, pa.int64()))
    found: NDArray[np.bool_] = same.to_numpy(zero_copy_only=False)
    return found


def _shown(event: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in event.items() if name not in _ABOUT and value is not None}

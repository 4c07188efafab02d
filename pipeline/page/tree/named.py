"""The events that name one individual, looked up in its source when somebody asks."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from astrocyte.pipeline.page.sources.source import Source
from astrocyte.schemas.errors import InvalidSettings
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
_GENOMES: Final = frozenset({"genome_data", "kernel_geometry"})
_MOST_EVENTS: Final = 200
_LIMIT_S: Final = 30.0
_ABOUT: Final = ("timestamp", "type", "key")


async def events_naming(source: Source, run: str, kind: str, number: int, at_us: int | None) -> dict[str, Any]:
    """The newest ``events`` that name an individual, their ``count``, and its newest ``genome``.

    Only events up to ``at_us`` count. ``note`` says what was not looked through. Raises AstrocyteError.
    """
    fields = _FIELDS.get(kind)
    if fields is None:
        raise InvalidSettings("the births of this run have not been read yet")
    frames = source.frames(run, tuple(fields))
    found: deque[dict[str, Any]] = deque(maxlen=_MOST_EVENTS)
    genome: dict[str, Any] | None = None
    count, note = 0, ""
    portions = frames.portions()
    try:
        async with asyncio.timeout(_LIMIT_S):
            async for portion in portions:
                for event in await asyncio.to_thread(_naming, portion, fields, number, at_us):
                    count += 1
                    found.append(event)
                    if event["stream"] in _GENOMES:
                        genome = event["fields"]
                if frames.live and not portion:
                    break
    except TimeoutError:
        note = f"only what could be read in {_LIMIT_S:.0f} s was looked through"
    finally:
        with contextlib.suppress(TimeoutError):
            await portions.aclose()
    newest = sorted(found, key=lambda event: int(event["t"]), reverse=True)
    return {"events": newest, "count": count, "genome": genome, "note": note}


def _naming(
    frames: list[Frame], fields: Mapping[str, tuple[str, ...]], number: int, at_us: int | None
) -> list[dict[str, Any]]:
    found = []
    for frame in frames:
        rows = np.zeros(frame.num_rows, np.bool_)
        for name in fields[frame.stream]:
            if frame.has(name):
                same = pc.fill_null(pc.equal(pc.cast(frame.column(name), pa.int64()), number), False)
                rows |= same.to_numpy(zero_copy_only=False)
        if at_us is not None:
            rows &= frame.timestamps() <= at_us
        if rows.any():
            for event in frame.take(np.flatnonzero(rows)).event_fields():
                shown = {name: value for name, value in event.items() if name not in _ABOUT and value is not None}
                found.append({"t": event["timestamp"], "type": event["type"], "stream": frame.stream, "fields": shown})
    return found

"""Births and deaths for tests of phylogenies: as events of a log, and a reader of Newick that is ten lines long."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from astrocyte.schemas.frames import Frame
from tests.support.logs import T0_US, frame_messages, json_messages, write_log

__all__ = ["birth", "cells_log", "death", "division", "read_newick"]

Event = Mapping[str, Any]
SECOND_US = 1_000_000


def birth(at_s: float, cell: int, parent: int | None, generation: int | None = None, **more: Any) -> Event:
    """A birth at a time in seconds after `T0_US`."""
    return _event("birth", at_s, cell, generation, parent_id=parent, **more)


def division(at_s: float, mother: int, generation: int | None = None) -> Event:
    """What a division says of the mother."""
    return _event("division", at_s, mother, generation)


def death(at_s: float, cell: int, generation: int | None = None) -> Event:
    """A death."""
    return _event("death", at_s, cell, generation)


def _event(kind: str, at_s: float, cell: int, generation: int | None, **more: Any) -> Event:
    at_us = T0_US + round(at_s * SECOND_US)
    return {"timestamp": at_us, "type": kind, "cell_id": cell, "generation": generation} | more


def cells_log(
    path: Path,
    events: Sequence[Event] | Mapping[str, Sequence[Event]],
    *,
    stream: str = "evolutionary_events",
    json: bool = False,
) -> Path:
    """A log of events, by run (default: ``run-1``), in frames or one JSON record a message."""
    runs = events if isinstance(events, Mapping) else {"run-1": events}
    offsets: dict[tuple[str, int], int] = {}
    messages = []
    for run, each in runs.items():
        names = {name: None for event in each for name in event}
        columns: dict[str, Any] = {"key": ["0"] * len(each)} | {
            name: [event.get(name) for event in each] for name in names
        }
        if "mutation_magnitude" in columns:
            columns["mutation_magnitude"] = pa.array(columns["mutation_magnitude"], pa.float32())
        if json:
            columns["simulation_id"] = [run] * len(each)
        frame = Frame.from_columns(stream, run, columns)
        messages += json_messages(frame, offset=len(messages)) if json else frame_messages(frame, 2, offsets)
    return write_log(path, messages)


def read_newick(text: str) -> dict[int, tuple[int | None, float | None]]:
    """Parent and branch length of each label, None for roots, in the order of the text."""
    found: dict[int, tuple[int | None, float | None]] = {}
    for tree in text.split(";\n")[:-1]:
        found |= _tree(re.findall(r"[(),]|[^(),]+", tree))
    return found


def _tree(tokens: Sequence[str]) -> dict[int, tuple[int | None, float | None]]:
    nodes: list[tuple[int, float | None, list[int]]] = []
    waiting: list[list[int]] = [[]]
    closed: list[int] = []
    for token in tokens:
        if token == "(":
            waiting.append([])
        elif token == ")":
            closed = waiting.pop()
        elif token != ",":
            label, _, length = token.partition(":")
            nodes.append((int(label), float(length) if length else None, closed))
            waiting[-1].append(int(label))
            closed = []
    assert len(waiting) == 1
    assert len(waiting[0]) == 1
    parent_of = dict(_parents(nodes))
    return {label: (parent_of.get(label), length) for label, length, _ in nodes}


def _parents(nodes: Sequence[tuple[int, float | None, list[int]]]) -> Iterator[tuple[int, int]]:
    return ((child, label) for label, _, children in nodes for child in children)

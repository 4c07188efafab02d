"""Validation of a frame by validators that may raise: only the rows on which they do are refused."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pyarrow as pa

from astrocyte.agents.ingest.faults import apart, reason_of
from astrocyte.agents.ingest.validate import Passed, Validators
from astrocyte.schemas.frames import Frame

__all__ = ["validate_rows"]


def validate_rows(validators: Validators, frame: Frame, *, typed: bool = True) -> Passed:
    """The rows that pass the validators; one on which they raise is refused, with what they raised.

    ``typed``: as in `Validators.apply`.
    """
    if not frame.num_rows:
        return Passed(frame, np.empty(0, np.int64), [])
    parts: list[Passed] = []

    def attempt(first: int, last: int) -> None:
        if last - first == frame.num_rows:
            parts.append(validators.apply(frame, typed=typed))
            return
        passed = validators.apply(frame.take(np.arange(first, last)), typed=typed)
        refused = [(first + row, reason) for row, reason in passed.refused]
        parts.append(Passed(passed.frame, first + passed.rows, refused, passed.sampled))

    def refuse(row: int, error: Exception) -> None:
        empty = Passed(frame.slice(0, 0), np.empty(0, np.int64), [(row, reason_of("validating an event", error))])
        parts.append(empty)

    apart(frame.num_rows, attempt, refuse)
    return parts[0] if len(parts) == 1 else _joined(frame, parts)


def _joined(frame: Frame, parts: Sequence[Passed]) -> Passed:
    """Results of the validators for parts of a frame, as one."""
    made = [part.frame for part in parts if part.frame.num_rows]
    refused = sorted(each for part in parts for each in part.refused)
    rows = np.concatenate([part.rows for part in parts])
    sampled = sum(part.sampled for part in parts)
    if not made:
        return Passed(parts[0].frame, rows, refused, sampled)
    try:
        batch = pa.Table.from_batches([frame.batch for frame in made]).combine_chunks().to_batches()[0]
    except (pa.ArrowException, ValueError) as error:
        # A validator gave the parts columns of different types.
        reason = reason_of("validating an event", error)
        return Passed(
            frame.slice(0, 0), rows[:0], sorted([*refused, *((row, reason) for row in rows.tolist())]), sampled
        )
    return Passed(replace(frame, batch=batch, weight=made[0].weight), rows, refused, sampled)

"""Accepted events of a sample as arrays: times, keys, Kafka timestamps, and which of them a worker would hold."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from astrocyte.schemas.frames import Frame
from astrocyte.schemas.values.mixed import concat_columns, key_column

__all__ = ["Rows", "Taken", "sources_of"]


class Taken(NamedTuple):
    """A frame of accepted events."""

    frame: Frame
    kafka_us: NDArray[np.int64]
    """Kafka timestamp of each row; `NO_KAFKA_TIME_US` where it has none that can be true."""
    is_held: bool = False
    """Whether a worker would hold them back: they are accepted only because the sample ends."""


@dataclass(frozen=True, slots=True)
class Rows:
    """Events of one source, in the order in which they came."""

    partition: int
    times: NDArray[np.int64]
    keys: NDArray[np.int32]
    """Numbers of their keys; -1 is none."""
    kafka_us: NDArray[np.int64]
    held: NDArray[np.bool_]

    def only(self, chosen: NDArray[np.bool_]) -> Rows:
        """Those that are chosen."""
        return Rows(self.partition, self.times[chosen], self.keys[chosen], self.kafka_us[chosen], self.held[chosen])


def sources_of(taken: Mapping[int, Iterable[Taken]]) -> tuple[list[Rows], list[str | None]]:
    """The events of each source, and the keys by number; ``taken`` by partition."""
    kept = [(number, each) for number, every in taken.items() for each in every if each.frame.num_rows]
    if not kept:
        return [], [None]
    encoded = concat_columns([key_column(each.frame.column("key")) for _, each in kept]).dictionary_encode()
    numbers = encoded.indices.fill_null(-1).to_numpy()
    parts: dict[tuple[int, str], list[Rows]] = {}
    first = 0
    for number, each in kept:
        rows = each.frame.num_rows
        held = np.full(rows, each.is_held)
        part = Rows(number, each.frame.timestamps(), numbers[first : first + rows], each.kafka_us, held)
        parts.setdefault((number, each.frame.origin), []).append(part)
        first += rows
    return [_joined(same) for same in parts.values()], [*encoded.dictionary.to_pylist(), None]


def _joined(parts: Sequence[Rows]) -> Rows:
    return Rows(
        parts[0].partition,
        np.concatenate([each.times for each in parts]),
        np.concatenate([each.keys for each in parts]),
        np.concatenate([each.kafka_us for each in parts]),
        np.concatenate([each.held for each in parts]),
    )

"""Output of the matcher: matches and timed-out partial matches of many rules, as columns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray

from astrocyte.agents.cep.rows import Outputs

__all__ = ["MATCH", "TIMEOUT", "MatchBatch"]

MATCH: Final = 0
TIMEOUT: Final = 1


@dataclass(frozen=True, slots=True, eq=False)
class MatchBatch:
    """Outputs grouped by rule, within a rule in the order in which they were emitted; ``len`` is their number.

    Events ``offsets[i]`` to ``offsets[i + 1]`` of ``step`` and ``ref`` belong to output i: for a seq in the order in
    which they were taken, for an all in step order.
    """

    rule: NDArray[np.int32]
    """Index into `Matcher.rules`."""
    key: NDArray[np.int32]
    """Number of the key (`Matcher.key_strings`)."""
    time_us: NDArray[np.int64]
    """Time of the last event; for an absence or a timeout, the instant at which it was decided."""
    kind: NDArray[np.int8]
    """MATCH or TIMEOUT."""
    offsets: NDArray[np.int64]
    step: NDArray[np.int16]
    """Index into the rule's ``positive`` step names."""
    ref: NDArray[np.int64]
    """The event's handle, as passed to `Matcher.prepare`."""

    def __len__(self) -> int:
        return len(self.rule)

    @classmethod
    def of(cls, outputs: Sequence[tuple[int, Outputs]]) -> Self:
        """Batch of (index of the rule, its outputs)."""
        if not outputs:
            return cls(
                np.empty(0, np.int32), np.empty(0, np.int32), np.empty(0, np.int64), np.empty(0, np.int8),
                np.zeros(1, np.int64), np.empty(0, np.int16), np.empty(0, np.int64),
            )  # fmt: skip
        rule = np.repeat(np.array([index for index, _ in outputs], np.int32), [len(each.key) for _, each in outputs])
        joined = outputs[0][1] if len(outputs) == 1 else Outputs.concat([each for _, each in outputs])
        return cls(rule, joined.key, joined.time_us, joined.kind, joined.offsets, joined.step, joined.ref)

    @classmethod
    def concat(cls, batches: Sequence[Self]) -> Self:
        """All batches, concatenated."""
        batches = [batch for batch in batches if len(batch)]
        if len(batches) == 1:
            return batches[0]
        outputs = [Outputs(b.key, b.time_us, b.kind, b.offsets, b.step, b.ref) for b in batches]
        joined = cls.of([(0, each) for each in outputs])
        rules = [batch.rule for batch in batches] or [np.empty(0, np.int32)]
        return cls(
            np.concatenate(rules), joined.key, joined.time_us, joined.kind, joined.offsets, joined.step, joined.ref
        )

    def take(self, order: NDArray[np.integer]) -> Self:
        """Outputs in the given order."""
        sizes = np.diff(self.offsets)[order]
        offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(sizes)])
        events = np.repeat(self.offsets[:-1][order] - offsets[:-1], sizes) + np.arange(offsets[-1])
        return type(self)(
            self.rule[order], self.key[order], self.time_us[order], self.kind[order], offsets,
            self.step[events], self.ref[events],
        )  # fmt: skip

    def by_time(self) -> Self:
        """Outputs in order of time; outputs of the same time keep their order."""
        if (self.time_us[1:] >= self.time_us[:-1]).all():
            return self
        return self.take(np.argsort(self.time_us, kind="stable"))

"""The reorder buffer against a list that is sorted, and what a step of it looks at."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from astrocyte.agents.event_time.reorder import Pending, Reorder
from astrocyte.schemas.frames import Frame


@dataclass
class Times:
    t: np.ndarray

    def __len__(self):
        return len(self.t)

    def take(self, order):
        return Times(self.t[order])

    @classmethod
    def concat(cls, parts):
        return cls(np.concatenate([part.t for part in parts]))


def part_of(times, ref=0, seq=0):
    frame = Frame.from_columns("s", "run", {"timestamp": times, "key": ["k"] * len(times)}, first_seq=seq)
    return Pending.of(frame, Times(np.array(times, np.int64)), np.arange(ref, ref + len(times)), 1)


steps = st.lists(st.tuples(st.lists(st.integers(0, 60), max_size=5), st.integers(0, 60)), max_size=12)


@given(steps)
def test_each_step_releases_what_is_older_frame_by_frame_in_the_order_in_which_they_came(given_steps):
    buffer, plain, ref = Reorder(), [], 0
    for times, before in given_steps:
        buffer.push(part_of(times, ref, ref))
        plain.append([(time, ref + row) for row, time in enumerate(times)])
        ref += len(times)
        released = [list(zip(part.rows.t.tolist(), part.refs.tolist(), strict=True)) for part in buffer.older(before)]
        older = [[each for each in part if each[0] < before] for part in plain]
        plain = [[each for each in part if each[0] >= before] for part in plain]
        assert released == [part for part in older if part]
        waiting = [each for part in plain for each in part]
        assert [number for refs in buffer.refs() for number in refs.tolist()] == [number for _, number in waiting]
        assert len(buffer) == len(waiting)
        assert buffer.oldest_us() == min((time for time, _ in waiting), default=None)


def test_a_step_looks_only_at_frames_that_have_something_for_it(monkeypatch: pytest.MonkeyPatch):
    looked_at = []
    split = Pending.split
    monkeypatch.setattr(Pending, "split", lambda self, before: (looked_at.append(self), split(self, before))[1])
    buffer = Reorder()
    for number in range(100):
        buffer.push(part_of([10 * number, 10 * number + 5], 2 * number, 2 * number))
        assert buffer.older(0) == []
    assert looked_at == []
    assert len(buffer.older(26)) == 3
    assert len(looked_at) == 3


def test_nothing_waits_after_clear():
    buffer = Reorder()
    buffer.push(part_of([1, 2]))
    buffer.clear()
    assert (len(buffer), buffer.oldest_us(), buffer.older(10), list(buffer.parts())) == (0, None, [], [])

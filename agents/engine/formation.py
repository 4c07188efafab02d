"""When a junction joins two domains: a state machine over event time, as `agents.rules.junctions` defines it.

::

    formation.active(times_us, receivers)               # events of the receiving domains
    open = formation.judge(times_us, senders, receivers)    # what came over the junction, in any order
    formation.reach(watermark_us)                       # nothing older follows: decisions up to here
    decisions = formation.take()

Only the buckets count in which something happened, so the result depends on the events and their times alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from heapq import heappop, heappush
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from astrocyte.agents.rules.junctions import Forms

__all__ = ["Decision", "Formation", "Pair"]

_NO_BOUNDARY: Final = -(2**62)


Ends = tuple[str, str]
"""A `Pair`, which is made of it where somebody else sees it: most events make no decision."""


class Pair(NamedTuple):
    """Keys of the sending and of the receiving domain; empty where the rules there correlate nothing."""

    sender: str
    receiver: str


class Decision(NamedTuple):
    """From ``at_us`` on the junction joins a pair, or does so no longer."""

    at_us: int
    pair: Pair
    formed: bool
    co_activity: int
    """Buckets of the window before ``at_us`` in which both were active."""


@dataclass(slots=True)
class _Link:
    buckets: list[int] = field(default_factory=list)
    """Buckets of the window in which both were active, in order."""
    since_us: int | None = None
    """From when on the junction joins the pair; None where it does not."""
    due: int = _NO_BOUNDARY
    """The boundary at which it dissolves, or at which nothing is known of it any more, if nothing follows."""


class Formation:
    """The pairs of domains that one junction joins, or may join soon."""

    def __init__(self, forms: Forms) -> None:
        self.forms = forms
        self._every_us, self._length = forms.every_us, forms.buckets
        self._links: dict[Ends, _Link] = {}
        self._due: list[tuple[int, Ends]] = []
        """A heap of boundaries; those that a link has no more are passed over."""
        self._came: dict[int, set[Ends]] = {}
        """By bucket that is not over: the pairs for which something came."""
        self._active: dict[int, set[str]] = {}
        """By bucket that is not over: the receiving domains that had an event."""
        self._decisions: list[Decision] = []

    @property
    def joined(self) -> int:
        """Number of pairs that are joined."""
        return sum(link.since_us is not None for link in self._links.values())

    def active(self, times_us: NDArray[np.int64], receivers: Sequence[str | None]) -> None:
        """Events of receiving domains, none older than what was reached; those without a key are of none."""
        for bucket, receiver in set(zip((times_us // self._every_us).tolist(), receivers, strict=True)):
            if receiver is not None:
                self._active.setdefault(bucket, set()).add(receiver)

    def judge(
        self, times_us: NDArray[np.int64], senders: Sequence[str | None], receivers: Sequence[str | None]
    ) -> NDArray[np.bool_]:
        """Which of the events that came are let through. Every older one has been judged before, or is among them."""
        groups: dict[int, dict[Ends, list[int]]] = {}
        for row, (bucket, sender, receiver) in enumerate(
            zip((times_us // self._every_us).tolist(), senders, receivers, strict=True)
        ):
            if receiver is not None:  # no rule takes it otherwise
                groups.setdefault(bucket, {}).setdefault((sender or "", receiver), []).append(row)
        passed = np.zeros(len(times_us), np.bool_)
        for bucket in sorted(groups):
            self._pass(bucket)
            for pair, rows in groups[bucket].items():
                link = self._links.get(pair)
                passed[rows] = link is not None and link.since_us is not None
            self._came.setdefault(bucket, set()).update(groups[bucket])
        return passed

    def reach(self, watermark_us: int) -> None:
        """Nothing older than ``watermark_us`` follows: decide what is decided by then."""
        self._pass(watermark_us // self._every_us)

    def end(self) -> None:
        """Nothing follows at all: what is joined dissolves when its time has come, and the state is empty."""
        if self._came:
            self._pass(max(self._came) + 1)
        while self._due:
            self._pass(self._due[0][0])
        self.clear()

    def clear(self) -> None:
        """Forget all pairs and events."""
        self._links.clear()
        self._due.clear()
        self._came.clear()
        self._active.clear()

    def take(self) -> list[Decision]:
        """The decisions since the last call, in order of time and pair."""
        decisions, self._decisions = sorted(self._decisions), []
        return decisions

    def _pass(self, boundary: int) -> None:
        """Decide at every boundary up to this one."""
        for bucket in sorted(each for each in self._came if each < boundary):
            self._dissolve(bucket)
            active = self._active.get(bucket, ())
            for pair in self._came.pop(bucket):
                if pair[1] in active:
                    self._coincidence(pair, bucket)
        self._dissolve(boundary)
        for bucket in [each for each in self._active if each < boundary]:
            del self._active[bucket]

    def _coincidence(self, pair: Ends, bucket: int) -> None:
        """Both domains of a pair were active in a bucket, which is over."""
        link = self._links.setdefault(pair, _Link())
        link.buckets.append(bucket)
        boundary = bucket + 1
        self._forget(link, boundary)
        if link.since_us is None and len(link.buckets) > self.forms.above:
            link.since_us = boundary * self._every_us
            self._decide(boundary, pair, link)
        self._await(pair, link)

    def _dissolve(self, boundary: int) -> None:
        """Decide what comes of the time that has passed alone, up to a boundary."""
        while self._due and self._due[0][0] <= boundary:
            at, pair = heappop(self._due)
            link = self._links.get(pair)
            if link is None or link.due != at:
                continue
            self._forget(link, at)
            if link.since_us is not None:
                link.since_us = None
                self._decide(at, pair, link)
            if link.buckets:
                self._await(pair, link)
            else:
                del self._links[pair]

    def _forget(self, link: _Link, boundary: int) -> None:
        oldest = boundary - self._length
        if link.buckets and link.buckets[0] < oldest:
            link.buckets = [each for each in link.buckets if each >= oldest]

    def _await(self, pair: Ends, link: _Link) -> None:
        """Note when a pair is to be looked at again: a bucket b is in no window after the boundary b + length."""
        last = link.buckets[-1 if link.since_us is None else -self.forms.below]
        link.due = last + self._length + 1
        heappush(self._due, (link.due, pair))

    def _decide(self, boundary: int, pair: Ends, link: _Link) -> None:
        formed = link.since_us is not None
        self._decisions.append(Decision(boundary * self._every_us, Pair(*pair), formed, len(link.buckets)))

    def snapshot(self) -> dict[str, Any]:
        """The state as JSON can hold it, without decisions: a step gives all that it made."""
        return {
            "forms": self.forms.model_dump(mode="json"),
            "links": [[*pair, link.since_us, link.buckets] for pair, link in self._links.items()],
            "came": [[bucket, *pair] for bucket, pairs in self._came.items() for pair in pairs],
            "active": [[bucket, each] for bucket, receivers in self._active.items() for each in receivers],
        }

    def restore(self, snapshot: Mapping[str, Any]) -> None:
        """Restore the state of `snapshot`, if it was made with the same bounds; else nothing is joined."""
        self.clear()
        if snapshot["forms"] != self.forms.model_dump(mode="json"):
            return
        for sender, receiver, since_us, buckets in snapshot["links"]:
            link = self._links[sender, receiver] = _Link(buckets, since_us)
            self._await((sender, receiver), link)
        for bucket, sender, receiver in snapshot["came"]:
            self._came.setdefault(bucket, set()).add((sender, receiver))
        for bucket, receiver in snapshot["active"]:
            self._active.setdefault(bucket, set()).add(receiver)

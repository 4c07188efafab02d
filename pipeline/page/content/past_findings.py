"""Some findings of every moment of a run: the newest alone would leave the past of a long run empty."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from astrocyte.pipeline.page.aggregates.axis import LEAST_US
from astrocyte.pipeline.page.content.findings import Finding

__all__ = ["MOST_OF_BUCKET", "PastFindings"]

MOST_OF_BUCKET: Final = 8
"""Alerts, and multi events, that are kept of each bucket of the axis of a run: those that came last."""


class PastFindings:
    """The findings of one run by bucket. Buckets are those of the run's axis, which grow by doubling."""

    def __init__(self) -> None:
        self._width_us = LEAST_US
        self._kept: dict[tuple[int, bool], list[tuple[int, Finding]]] = {}
        self._count = 0

    def take(self, findings: Sequence[Finding], width_us: int) -> None:
        """Take findings in the order in which they came; ``width_us`` is the present width of a bucket."""
        if width_us != self._width_us:
            self._width_us = width_us
            before, self._kept = self._kept, {}
            for own in before.values():
                for numbered in own:
                    self._put(numbered)
            for own in self._kept.values():
                own.sort(key=lambda each: each[0])
                del own[:-MOST_OF_BUCKET]
        for finding in findings:
            self._count += 1
            own = self._put((self._count, finding))
            del own[:-MOST_OF_BUCKET]

    def until(self, at_us: int, most: int) -> list[Finding]:
        """The newest alerts and multi events up to an instant, at most ``most`` of each, by their times."""
        found = [*self._of_kind(at_us, most, True), *self._of_kind(at_us, most, False)]
        return [finding for *_, finding in sorted(found, key=lambda each: each[:2])]

    def _of_kind(self, at_us: int, most: int, is_alert: bool) -> list[tuple[int, int, Finding]]:
        last = at_us // self._width_us
        found: list[tuple[int, int, Finding]] = []
        for bucket in sorted(
            (bucket for bucket, kind in self._kept if kind == is_alert and bucket <= last), reverse=True
        ):
            own = self._kept[(bucket, is_alert)]
            found += [(each.time_us, number, each) for number, each in own if each.time_us <= at_us]
            if len(found) >= most:
                break
        return sorted(found, key=lambda each: each[:2])[-most:]

    def _put(self, numbered: tuple[int, Finding]) -> list[tuple[int, Finding]]:
        finding = numbered[1]
        own = self._kept.setdefault((finding.time_us // self._width_us, finding.is_alert), [])
        own.append(numbered)
        return own

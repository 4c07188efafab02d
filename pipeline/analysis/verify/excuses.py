"""What cannot be compared, and why: each difference that has such a reason is counted under it, not as a difference."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from astrocyte.agents.ingest.decode import decode_chunk
from astrocyte.agents.ingest.decoders import Decoders
from astrocyte.agents.rules.model import RuleSet
from astrocyte.agents.sinks.retention import retention_days
from astrocyte.pipeline.analysis.verify.ledger import Entry
from astrocyte.pipeline.analysis.verify.outputs import Outputs
from astrocyte.pipeline.analysis.verify.retries import Retries
from astrocyte.pipeline.kafka.record import ConsumedRecord
from astrocyte.pipeline.recording.frames import raw_record
from astrocyte.schemas.measurements import ALERT
from astrocyte.schemas.topics import ALERTS, DEAD_LETTERS

__all__ = ["Excuses", "Gaps", "truncated_lines"]

_ALERT_POINT: Final = re.compile(rf"{ALERT.name},rule=([^, ]+)")
_DAY_US: Final = 86_400_000_000
_MERGED: Final = frozenset(
    {"agent_states", "agents", "cell_genomes", "cells", "dna_snapshots", "kernel_geometry", "simulations"}
)
"""Tables whose rows later events change."""
_EARLIER: Final = "older than what the input topics hold, with the time that rules and windows look back"
_CARRIED: Final = "of rules whose alerts follow from all earlier ones (cool_down, group), of which the input is gone"
_GONE: Final = "older than what the output topic holds"
_VERSION: Final = "of another version of their rule, or of its time"
_FOREIGN: Final = "of rules that are not in force here"
_PUBLISHED: Final = "of the time before their rule was published"
_OTHER_RUN: Final = "of runs that the input does not hold"
_RETENTION: Final = "older than the retention of the table"
_BUCKET: Final = "older than the retention of the bucket"
_RETRIED: Final = "that dead-letters retry sent again: of the rules and declarations of the time before"
_AHEAD: Final = "the store was written further than the log goes"


@dataclass(slots=True)
class Gaps:
    """Offsets of the input: where each partition begins, and what is missing inside."""

    next_offsets: dict[tuple[str, int], int] = field(default_factory=dict)
    missing: dict[tuple[str, int], int] = field(default_factory=dict)
    first_us: dict[tuple[str, int], int] = field(default_factory=dict)
    """Event time of the first event of each partition whose beginning is gone."""

    def note(self, record: ConsumedRecord, decoders: Decoders) -> None:
        """Look at the place of a message."""
        place = (record.topic, record.partition)
        expected = self.next_offsets.get(place)
        if expected is None:
            if record.offset > 0:
                self.first_us[place] = _first_time(record, decoders)
        elif record.offset > expected:
            self.missing[place] = self.missing.get(place, 0) + record.offset - expected
        self.next_offsets[place] = record.offset + 1

    def is_behind(self, positions: Mapping[tuple[str, int], int]) -> bool:
        """Whether a store was written beyond what the input holds."""
        return any(offset > self.next_offsets.get(place, offset) for place, offset in positions.items())


def _first_time(record: ConsumedRecord, decoders: Decoders) -> int:
    frames, _ = decode_chunk(record.topic, record.partition, [raw_record(record)], decoders=decoders)
    times = [int(each.frame.timestamps().min()) for each in frames if each.frame.num_rows]
    return min(times, default=record.timestamp_ms * 1_000)


class Excuses:
    """Reasons, asked for each record, row or point that is lost or not expected."""

    def __init__(
        self,
        ruleset: RuleSet,
        outputs: Outputs,
        gaps: Gaps,
        *,
        lateness_us: int,
        now_us: int,
        published: Mapping[str, int],
        retries: Retries,
    ) -> None:
        self._outputs = outputs
        self.retries = retries
        self._reach_us = reach_of(ruleset)
        firsts = gaps.first_us.values()
        self.horizon_us = max(firsts) + self._reach_us + lateness_us if firsts else None
        """Event time from which the input is complete; None: from the beginning."""
        self._now_us = now_us
        self._published = published
        self._days = retention_days()
        self._paced = {rule.name for rule in ruleset.rules if rule.paces_alerts}
        self.runs: set[str | None] = {None}
        """Runs that the input holds."""
        self.bucket_s: int | None = None
        self.ahead = False
        """Whether the store that is compared was written further than the input goes."""

    def record(self, entry: Entry, topic: str) -> str | None:
        """Of a record of an output topic."""
        body = entry.expected or entry.found or {}
        if entry.times and topic == DEAD_LETTERS and entry.identity in self.retries.letters:
            return _RETRIED
        why = self._early(entry.time_us, _alert_of(topic, body))
        if why is not None or (entry.times and entry.expected is not None):
            return why
        if (why := self._of_rule(body, entry.time_us, lost=entry.times == 0)) is not None:
            return why
        firsts = self._outputs.topics[topic].first_us.values()
        if entry.times == 0 and entry.time_us is not None and firsts and entry.time_us < max(firsts) + self._reach_us:
            return _GONE
        return None

    def lost_row(self, table: str, row: Mapping[str, Any], time_us: int | None) -> str | None:
        """Of a row that is not in the database."""
        if (why := self._early(time_us, _alert_of(table, row))) is not None:
            return why
        days, written_us = self._days.get(table), row.get("recorded_at")
        if days is not None and written_us and written_us < self._now_us - days * _DAY_US:
            return _RETENTION
        return self._of_rule(row, time_us, lost=True)

    def unexpected_row(self, table: str, row: Mapping[str, Any], time_us: int | None) -> str | None:
        """Of a row that is in the database."""
        if self._is_retried(table, row):
            return _RETRIED
        if row.get("simulation_id") not in self.runs:
            return _OTHER_RUN
        if (why := self._early(time_us, _alert_of(table, row))) is not None:
            return why
        return _AHEAD if self.ahead else self._of_rule(row, time_us, lost=False)

    def wrong_row(self, table: str, row: Mapping[str, Any], time_us: int | None) -> str | None:
        """Of a row with other values."""
        if self._is_retried(table, row):
            return _RETRIED
        if (why := self._early(time_us, _alert_of(table, row))) is not None:
            return why
        return _AHEAD if self.ahead and table in _MERGED else None

    def point(self, entry: Entry) -> str | None:
        """Of a point."""
        alert = _ALERT_POINT.match(entry.identity)
        if (why := self._early(entry.time_us, alert[1] if alert else None)) is not None:
            return why
        if entry.times == 0 and self.bucket_s is not None and entry.time_us is not None:
            return _BUCKET if entry.time_us < self._now_us - self.bucket_s * 1_000_000 else None
        return _AHEAD if self.ahead and entry.times and entry.expected is None else None

    def _is_retried(self, table: str, row: Mapping[str, Any]) -> bool:
        """Whether a row is a dead letter that was sent again."""
        return table == DEAD_LETTERS and row.get("letter_id") in self.retries.letters

    def _early(self, time_us: int | None, alert_of: str | None) -> str | None:
        """Of what may follow from input that is gone; ``alert_of``: the rule, of an alert."""
        if self.horizon_us is None:
            return None
        if time_us is None or time_us < self.horizon_us:
            return _EARLIER
        return _CARRIED if alert_of in self._paced else None

    def _of_rule(self, body: Mapping[str, Any], time_us: int | None, *, lost: bool) -> str | None:
        rule, version = body.get("correlation_rule") or body.get("rule"), body.get("rule_version")
        if rule is None:
            return None
        known = self._outputs.versions
        if not lost:
            if rule not in known:
                return _FOREIGN
            return _VERSION if version is not None and version != known[rule] else None
        others_us = self._outputs.other_versions.get(rule)
        if others_us is not None and time_us is not None and time_us <= others_us:
            return _VERSION
        since_us = self._published.get(rule)
        return _PUBLISHED if since_us is not None and time_us is not None and time_us < since_us else None


def _alert_of(place: str, body: Mapping[str, Any]) -> str | None:
    """The rule of an alert, in a topic or table; None of other things."""
    return body.get("rule") if place == ALERTS else None


def reach_of(ruleset: RuleSet) -> int:
    """How far rules, windows and statistics look back together, in us; rules without a time limit count as none."""
    limits = [rule.within.time for rule in ruleset.rules if rule.within is not None]
    windows = [window.size_us + (window.keep or 0) for window in ruleset.windows]
    windows += [statistic.size for statistic in ruleset.insight]
    return max(limits, default=0) + max(windows, default=0)


def truncated_lines(gaps: Gaps) -> Iterable[str]:
    """Sentences on the input that is gone or missing."""
    for (topic, partition), count in sorted(gaps.missing.items()):
        yield (
            f"{topic}[{partition}]: {count:,} offsets between its messages hold none (a log that was cut, compaction, "
            "or markers of transactions); events there are no part of what is expected"
        )

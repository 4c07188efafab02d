"""Which matches raise an alert: ``cool_down`` and ``group`` of rules, in the order of event time.

Matches of one rule and key come in the order of time, whatever the steps; where those of several keys do not, since a
match may wait for one that began earlier, the alerts of a group wait until no older match can come. So the alerts
depend on the matches alone: not on arrival, on steps, or on restarts from a `snapshot`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import astuple, dataclass, field
from typing import Any, Final

import numpy as np
import orjson
from numpy.typing import NDArray

from astrocyte.agents.engine.arrival.provisional import held_us
from astrocyte.agents.matches.grouped import MOST_KEYS, GroupedAlert, after_pause
from astrocyte.agents.matches.table import CONFIRMED, FINAL, MatchTable
from astrocyte.agents.rules.model import Rule, format_duration
from astrocyte.schemas.events import Severity
from astrocyte.schemas.ids import format_ids

__all__ = ["AlertPacing"]

FIRST_PURGE: Final = 4_096

_Name = tuple[str, str, bool, str | None]
"""Rule, version, whether the matches timed out, and key: what has a pause or a group of its own."""


@dataclass(slots=True)
class _Pause:
    """The time after an alert. Alerts suppressed in it are named by the next one before ``forget_us``."""

    until_us: int
    forget_us: int
    purge_us: int
    suppressed: int = 0


@dataclass(slots=True)
class _Waiting:
    """An alert of a rule with ``group``, until no older match can come."""

    rule: str
    version: str
    timed_out: bool
    group_key: str | None
    due_us: int
    time_us: int
    key: str | None
    match_id: str
    severity: Severity
    message: str
    run: str
    within_us: int
    cool_down_us: int
    slack_us: int

    @property
    def name(self) -> _Name:
        return self.rule, self.version, self.timed_out, self.group_key


@dataclass(slots=True)
class _Group:
    """The alerts of a rule and key since the first one."""

    first: _Waiting
    suppressed: int
    count: int = 1
    keys: dict[str, None] = field(default_factory=dict)

    @property
    def end_us(self) -> int:
        return self.first.time_us + self.first.within_us


class AlertPacing:
    """Pauses and groups of the alerts of one engine."""

    def __init__(self) -> None:
        self._pauses: dict[_Name, _Pause] = {}
        self._waiting: list[_Waiting] = []
        self._groups: dict[_Name, _Group] = {}
        self._raised: list[GroupedAlert] = []
        self._purge_at = FIRST_PURGE
        self._rules: tuple[Rule, ...] = ()
        self._paced = np.zeros(0, np.bool_)
        """Which of these rules have one of the options."""
        self.suppressed: dict[str, int] = {}
        """By rule: alerts that ``cool_down`` suppressed."""
        self.grouped: dict[str, int] = {}
        """By rule: alerts that were joined to an earlier one by ``group``."""

    def decide(self, table: MatchTable, watermark_us: int) -> tuple[MatchTable, list[GroupedAlert]]:
        """The matches, of which some raise no alert any more, and the groups whose time is over.

        ``table`` holds the next matches in order; a provisional match of a rule with these options raises no alert.
        """
        if table.rules is not self._rules:
            self._rules = table.rules
            self._paced = np.array([rule.paces_alerts for rule in table.rules], np.bool_)
        if len(table) and self._paced.any():
            rows = np.flatnonzero(self._paced[table.rule])
            if len(rows):
                table = table.with_suppressed(self._marks(table, rows))
        self._advance(watermark_us)
        raised, self._raised = sorted(self._raised, key=lambda alert: (alert.time_us, alert.rule, alert.key or "")), []
        return table, raised

    def _marks(self, table: MatchTable, paced: NDArray[np.int64]) -> NDArray[np.int32]:
        """For each match -1 where it raises no alert, else the number of those suppressed before its own."""
        marks = np.zeros(len(table), np.int32)
        marks[paced] = -1
        alerts = table.values.alert
        grouped: list[int] = []
        for row in paced[np.isin(table.status[paced], (FINAL, CONFIRMED))].tolist():
            if alerts[row] is None:
                continue
            rule = table.rules[table.rule[row]]
            if rule.group is not None:
                grouped.append(row)
                continue
            assert rule.cool_down is not None
            name = (rule.name, rule.content_version, bool(table.timed_out[row]), table.key[row])
            time_us = int(table.time_us[row])
            before = self._suppressed_before(name, time_us)
            if before is not None:
                marks[row] = before
                self._pause(name, time_us, rule.cool_down, held_us(rule))
        if grouped:
            self._wait(table, grouped)
        return marks

    def _wait(self, table: MatchTable, rows: list[int]) -> None:
        """Keep the alerts of rules with ``group``."""
        alerts, emit, runs = table.values.alert, table.values.emit, table.first_runs()
        for row, match_id in zip(rows, format_ids(table.ids[rows]), strict=True):
            rule, alert = table.rules[table.rule[row]], alerts[row]
            key, time_us = table.key[row], int(table.time_us[row])
            assert rule.group is not None
            assert alert is not None
            by, slack_us = rule.group.by, held_us(rule)
            group_key = key if by == "key" else None if by is None else _text(emit[row].get(by))
            self._waiting.append(
                _Waiting(
                    rule.name, rule.content_version, bool(table.timed_out[row]), group_key, time_us + slack_us, time_us,
                    key, match_id, *alert, runs[row], rule.group.within, rule.cool_down or 0, slack_us,
                )
            )  # fmt: skip

    def _suppressed_before(self, name: _Name, time_us: int) -> int | None:
        """Alerts suppressed before the one at ``time_us``; None, and counted, if it is suppressed itself."""
        pause = self._pauses.get(name)
        if pause is None or time_us >= pause.forget_us:
            return 0
        if time_us >= pause.until_us:
            return pause.suppressed
        pause.suppressed += 1
        self.suppressed[name[0]] = self.suppressed.get(name[0], 0) + 1
        return None

    def _pause(self, name: _Name, time_us: int, cool_down_us: int, slack_us: int) -> None:
        forget_us = time_us + 2 * cool_down_us
        self._pauses[name] = _Pause(time_us + cool_down_us, forget_us, forget_us + slack_us)

    def _advance(self, watermark_us: int) -> None:
        due = [each for each in self._waiting if each.due_us < watermark_us]
        if due:
            self._waiting = [each for each in self._waiting if each.due_us >= watermark_us]
            for each in sorted(due, key=lambda alert: (alert.time_us, alert.rule, alert.key or "")):
                self._join(each)
        for name, group in list(self._groups.items()):
            if group.end_us + group.first.slack_us < watermark_us:
                self._end(name)
        if len(self._pauses) > self._purge_at:
            self._purge(watermark_us)

    def _join(self, alert: _Waiting) -> None:
        name = alert.name
        group = self._groups.get(name)
        if group is not None and alert.time_us >= group.end_us:
            self._end(name)
            group = None
        if group is None:
            before = self._suppressed_before(name, alert.time_us) if alert.cool_down_us else 0
            if before is None:
                return
            group = self._groups[name] = _Group(alert, before)
        else:
            group.count += 1
            self.grouped[alert.rule] = self.grouped.get(alert.rule, 0) + 1
        if alert.key is not None and len(group.keys) < MOST_KEYS:
            group.keys[alert.key] = None

    def _end(self, name: _Name) -> None:
        group = self._groups.pop(name)
        first = group.first
        message = first.message
        if group.count > 1:
            message += f" (and {group.count - 1} more within {format_duration(first.within_us)})"
        self._raised.append(
            GroupedAlert(
                first.rule, first.version, group.end_us, first.severity, after_pause(message, group.suppressed),
                first.group_key, first.match_id, group.count, tuple(group.keys), group.suppressed, first.timed_out,
                first.run,
            )
        )  # fmt: skip
        if first.cool_down_us:
            self._pause(name, group.end_us, first.cool_down_us, first.slack_us)

    def _purge(self, watermark_us: int) -> None:
        self._pauses = {name: pause for name, pause in self._pauses.items() if pause.purge_us > watermark_us}
        self._purge_at = max(FIRST_PURGE, 2 * len(self._pauses))

    def counts(self, rule: str) -> dict[str, int]:
        """Counts of the alerts of a rule that were not raised on their own, since the start."""
        return {"suppressed": self.suppressed.get(rule, 0), "grouped": self.grouped.get(rule, 0)}

    def clear(self) -> None:
        """End of all input: event time may begin anew."""
        self._pauses.clear()
        self._purge_at = FIRST_PURGE

    def snapshot(self, watermark_us: int) -> bytes:
        """Pauses, groups and counts as JSON."""
        self._purge(watermark_us)
        return orjson.dumps(
            {
                "pauses": [[*name, *astuple(pause)] for name, pause in self._pauses.items()],
                "waiting": [astuple(each) for each in self._waiting],
                "groups": [
                    [astuple(group.first), group.suppressed, group.count, list(group.keys)]
                    for group in self._groups.values()
                ],
                "suppressed": self.suppressed,
                "grouped": self.grouped,
            }
        )

    def restore(self, snapshot: bytes) -> None:
        """Take over a snapshot."""
        state: Mapping[str, Any] = orjson.loads(snapshot)
        self._pauses = {(each[0], each[1], each[2], each[3]): _Pause(*each[4:]) for each in state["pauses"]}
        self._waiting = [_Waiting(*each) for each in state["waiting"]]
        groups = [
            _Group(_Waiting(*first), suppressed, count, dict.fromkeys(keys))
            for first, suppressed, count, keys in state["groups"]
        ]
        self._groups = {group.first.name: group for group in groups}
        self._raised = []
        self._purge_at = FIRST_PURGE
        self.suppressed, self.grouped = state["suppressed"], state["grouped"]


def _text(value: Any) -> str | None:
    return None if value is None else str(value)

"""Provisional matches: emitted before their order was certain, until the ordered pass confirms or retracts them.

A match has the same id in both passes, so confirming is a look-up. A provisional match is retracted once the ordered
pass can no longer make it: when the watermark is beyond its time, or, for rules that withhold a match while one that
began earlier may still complete (``skip`` with ``emit: final``), beyond the window that starts there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import orjson
from numpy.typing import NDArray

from astrocyte.agents.event_time.event_store import EventStore
from astrocyte.agents.matches.table import CONFIRMED, PROVISIONAL, RETRACTED, MatchTable, in_order
from astrocyte.agents.rules.model import Rule
from astrocyte.schemas.times import NEVER_US

__all__ = ["Provisional", "held_us", "own_time_us", "with_own_times"]

FOREVER_US: Final = 2**62
FIRST_PURGE: Final = 4_096


@dataclass(slots=True)
class _Note:
    """Matches emitted in one step; ``open`` ones are neither confirmed nor retracted."""

    make: Callable[[], MatchTable]
    """Their table, made when it is needed: most are confirmed and never need one."""
    names: list[bytes]
    refs: NDArray[np.int64]
    retract_us: NDArray[np.int64]
    open: NDArray[np.bool_]


class Provisional:
    """All provisional matches of an engine."""

    def __init__(self) -> None:
        self._notes: dict[int, _Note] = {}
        self._places: dict[bytes, tuple[int, int]] = {}
        self._decided: dict[bytes, int] = {}
        self._purge_at = FIRST_PURGE
        self._lag_us = 0
        self._next = 0
        self.corrections: dict[str, dict[str, int]] = {}
        """By rule: matches that were provisional, confirmed and retracted since the start."""

    def __len__(self) -> int:
        return len(self._places)

    def note(self, table: MatchTable) -> MatchTable:
        """Remember the matches; returns those that are new, as provisional ones."""
        names = _names(table)
        # What time decides may come later here than in the ordered pass, since rows out of order count as newer.
        fresh = [row for row, name in enumerate(names) if name not in self._places and name not in self._decided]
        if len(fresh) < len(names):
            table, names = table.take(np.array(fresh, np.int64)), [names[row] for row in fresh]
        if not names:
            return table
        table = table.with_status(PROVISIONAL)
        self._count(table, "provisional")
        held = np.array([held_us(rule) for rule in table.rules], np.int64)
        number, self._next = self._next, self._next + 1
        retract_us = table.time_us + held[table.rule]
        self._notes[number] = _Note(
            lambda: table, names, table.events.refs(), retract_us, np.ones(len(table), np.bool_)
        )
        self._places.update({name: (number, row) for row, name in enumerate(names)})
        return table

    def note_single(
        self, name: bytes, time_us: int, refs: NDArray[np.int64], make: Callable[[], MatchTable], rule: Rule
    ) -> bool:
        """Remember one match, whose table `make` makes when it is needed; False if it is known already."""
        if name in self._places or name in self._decided:
            return False
        self._counts(rule.name)["provisional"] += 1
        number, self._next = self._next, self._next + 1
        self._notes[number] = _Note(make, [name], refs, np.array([time_us + held_us(rule)]), np.ones(1, np.bool_))
        self._places[name] = (number, 0)
        return True

    def settle(self, table: MatchTable, mine: NDArray[np.bool_], watermark_us: int, newest_us: int) -> list[MatchTable]:
        """The ordered pass's matches, known ones marked as confirmed, then the retracted ones.

        ``mine`` says which matches are of rules of the eventual pass; ``newest_us`` is the newest time that it has
        matched.
        """
        if watermark_us > NEVER_US:
            self._lag_us = max(self._lag_us, newest_us - watermark_us)
        self._forget(table.rules, watermark_us)
        status = table.status.copy()
        rows = np.flatnonzero(mine)
        own = table if len(rows) == len(table) else table.take(rows)
        for row, name, time in zip(rows.tolist(), _names(own), own.time_us.tolist(), strict=True):
            self._decided[name] = time
            place = self._places.pop(name, None)
            if place is not None:
                status[row] = CONFIRMED
                self._notes[place[0]].open[place[1]] = False
        settled = [table.with_status(status)]
        self._count(table.take(np.flatnonzero(status == CONFIRMED)), "confirmed")
        for number, note in list(self._notes.items()):
            due = note.open & (note.retract_us < watermark_us)
            if due.any():
                rows = np.flatnonzero(due)
                settled.append(note.make().take(rows).with_status(RETRACTED))
                self._count(settled[-1], "retracted")
                note.open &= ~due
                for row in rows.tolist():
                    self._places.pop(note.names[row], None)
            if not note.open.any():
                del self._notes[number]
        return settled

    def _counts(self, rule: str) -> dict[str, int]:
        return self.corrections.setdefault(rule, dict.fromkeys(("provisional", "confirmed", "retracted"), 0))

    def _count(self, table: MatchTable, status: str) -> None:
        for index, number in zip(*np.unique(table.rule, return_counts=True), strict=True):
            self._counts(table.rules[index].name)[status] += int(number)

    def _forget(self, rules: tuple[Rule, ...], watermark_us: int) -> None:
        """Forget decided matches that the eventual pass can no longer make."""
        if len(self._decided) > self._purge_at:
            longest = max((rule.within.time for rule in rules if rule.within is not None), default=0)
            before = watermark_us - longest - 2 * self._lag_us
            self._decided = {name: time for name, time in self._decided.items() if time >= before}
            self._purge_at = max(FIRST_PURGE, 2 * len(self._decided))

    def clear(self) -> None:
        """Forget what was decided: event time begins anew. Nothing is open then."""
        self._decided.clear()
        self._lag_us = 0

    def refs(self) -> list[NDArray[np.int64]]:
        """Handles of the events of matches that are open."""
        return [note.refs for note in self._notes.values()]

    def snapshot(self) -> dict[str, Any]:
        """Open matches as arrays."""
        parts: dict[str, Any] = {
            "decided": {
                "names": b"".join(self._decided),
                "times": np.array(list(self._decided.values()), np.int64),
                "lag_us": np.array([self._lag_us], np.int64),
                "corrections": orjson.dumps(self.corrections),
            }
        }
        for number, note in enumerate(self._notes.values()):
            table = note.make().take(np.flatnonzero(note.open))
            names = [table.rules[index].name for index in table.rule.tolist()]
            parts[str(number)] = {
                "text": orjson.dumps({"rules": names, "keys": table.key.tolist()}),
                "time_us": table.time_us,
                "timed_out": table.timed_out,
                "offsets": table.offsets,
                "step": table.step,
                "refs": table.events.refs(),
            }
        return parts

    def restore(self, snapshot: Mapping[str, Any], rules: tuple[Rule, ...], store: EventStore) -> set[str]:
        """Take over a snapshot, with its events in the store; gives the names of the rules of its matches."""
        self.__init__()  # type: ignore[misc]
        index = {rule.name: number for number, rule in enumerate(rules)}
        restored: set[str] = set()
        decided = snapshot["decided"]
        names = bytes(decided["names"])
        self._lag_us = int(decided["lag_us"][0])
        for part in (part for name, part in snapshot.items() if name != "decided"):
            text = orjson.loads(bytes(part["text"]))
            keys = np.empty(len(text["keys"]), object)
            keys[:] = text["keys"]
            restored.update(text["rules"])
            rule = np.array([index[name] for name in text["rules"]], np.int32)
            status = np.full(len(rule), PROVISIONAL, np.int8)
            self.note(MatchTable(rules, rule, keys, part["time_us"], part["timed_out"], status, part["offsets"],
                                 part["step"], store.locate(part["refs"])))  # fmt: skip
        for place, time in enumerate(decided["times"].tolist()):
            self._decided[names[16 * place : 16 * place + 16]] = time
        self.corrections = orjson.loads(bytes(decided.get("corrections", b"{}")))
        return restored


def _names(table: MatchTable) -> list[bytes]:
    data = table.ids.tobytes()
    return [data[start : start + 16] for start in range(0, len(data), 16)]


def held_us(rule: Rule) -> int:
    """How much older than the watermark a new match may be: it may have waited for one that began earlier."""
    if not rule.holds_matches:
        return 0
    return rule.within.time if rule.within is not None else FOREVER_US


def own_time_us(rule: Rule, found_us: int, first_us: int, last_us: int, *, timed_out: bool) -> int:
    """Time of a provisional match by its own events, the first and the last of which have these times.

    ``found_us`` is the time at which the pass found it, to which events of other keys contribute. What time alone
    decides (an absence, a timeout) is dated by the end of the rule's window at the latest.
    """
    if not timed_out and not rule.ends_by_absence:
        return last_us
    return found_us if rule.within is None else min(found_us, first_us + rule.within.time)


def with_own_times(table: MatchTable) -> MatchTable:
    """The matches with the times of `own_time_us`, in output order."""
    times = table.events.timestamps()
    first, last = (least.reduceat(times, table.offsets[:-1]).tolist() for least in (np.minimum, np.maximum))
    own = [
        own_time_us(table.rules[index], found_us, first[row], last[row], timed_out=timed_out)
        for row, (index, found_us, timed_out) in enumerate(
            zip(table.rule.tolist(), table.time_us.tolist(), table.timed_out.tolist(), strict=True)
        )
    ]
    dated = replace(table, time_us=np.array(own, np.int64))
    return dated.take(in_order(dated))

"""The matcher: rules in, frames in time order in, matches out. No clock, no broker, no objects per event.

::

    matcher = Matcher(rules)
    rows = matcher.prepare(frame, first_ref=0)     # predicates over whole columns; keeps only rows that a rule may use
    batch = matcher.process(rows)                  # rows in processing order, times not decreasing
    batch = matcher.advance(watermark_us)          # also for keys without new events: absences, timeouts, expiry
    batch = matcher.flush()                        # end of all input; the state is empty afterwards

The output depends on the order of the rows alone, not on how they are divided into calls. The engine
(`agents.engine.engine`) does the reordering, handles late events and makes records of matches.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import reduce
from itertools import pairwise
from typing import Any, Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from astrocyte.agents.cep.combinations.operator import CombinationsOperator
from astrocyte.agents.cep.compiled import compiled
from astrocyte.agents.cep.compiler.rule_groups import PredicateGroups
from astrocyte.agents.cep.conjunction.operator import ConjunctionOperator
from astrocyte.agents.cep.keys import KeyTable, Selected
from astrocyte.agents.cep.match_columns import MatchBatch
from astrocyte.agents.cep.operator import COUNTERS, Operator, OperatorName, RuleProgram, Task
from astrocyte.agents.cep.predicates import captured
from astrocyte.agents.cep.rows import Outputs, Prepared, Rows, plain
from astrocyte.agents.cep.sequence.operator import FIRST_ROOM, SequenceOperator
from astrocyte.agents.cep.single_event import Single
from astrocyte.agents.cep.values import TextNumbers, mark
from astrocyte.agents.expressions.values import Columns
from astrocyte.agents.rules.model import Rule
from astrocyte.schemas.errors import InvalidRule
from astrocyte.schemas.frames import Frame

__all__ = ["Matcher"]

_FOREVER: Final = 2**62
_EVENTS_PER_CHECK: Final = 256
"""Single events between two looks at the tables, since a look costs a tenth of an event."""
_NOTHING: Final = MatchBatch.of([])
_SEQUENCES: Final[tuple[OperatorName, ...]] = ("automaton", "combinations")
_OPERATORS: Final[tuple[OperatorName, ...]] = (*_SEQUENCES, "conjunction")
_Fresh = dict[OperatorName, list[tuple[int, Any, tuple[int, ...]]]]
"""By operator, rules to add: slot, program and columns."""


class Matcher:
    """All rules of one domain with their partial matches. Not thread-safe.

    ``room`` is the initial capacity of the pools; ``clock`` returns nanoseconds and measures the ``microseconds`` of
    the counters (None: they stay 0). ``waiting`` gives all entries that were prepared and not processed yet: with it,
    keys and strings to which neither these nor the state refer are forgotten (None: they are kept for ever).
    ``combinations=False`` runs every ``seq`` as an automaton: the same matches, as a reference.
    """

    def __init__(
        self,
        rules: Sequence[Rule],
        *,
        room: int = FIRST_ROOM,
        clock: Callable[[], int] | None = None,
        waiting: Callable[[], Iterable[Prepared]] | None = None,
        combinations: bool = True,
    ) -> None:
        self._strings = TextNumbers()
        self._room = room
        self._combinations = combinations
        self._begin_empty()
        self._groups = PredicateGroups()
        self._keys: dict[str | None, KeyTable] = {}
        self._rules: tuple[Rule, ...] = ()
        self._slots: dict[tuple[str, str], int] = {}
        self._nanoseconds: dict[int, int] = {}
        self._clock = clock
        self._seq = 0
        self._now = -_FOREVER
        self._waiting = waiting
        self.update(rules)

    # -- rules -------------------------------------------------------------------------------------------------------

    @property
    def rules(self) -> tuple[Rule, ...]:
        """The rules in force; ``MatchBatch.rule`` indexes them."""
        return self._rules

    def update(self, rules: Sequence[Rule]) -> None:
        """Replace the rules in force. Unchanged rules (same name and version) keep their partial matches.

        A changed rule starts with empty state and sees the events prepared from now on. Raises InvalidRule; in that
        case nothing has changed.
        """
        twice = [name for name, number in Counter(rule.name for rule in rules).items() if number > 1]
        if twice:
            raise InvalidRule(f"two rules are named {twice[0]!r}; rule names must be unique, rename one")
        wanted = {(rule.name, rule.content_version): rule for rule in rules}
        programs: dict[tuple[str, str], RuleProgram] = {
            name: self._compiled(rule) for name, rule in wanted.items() if name not in self._slots
        }
        for name in self._slots.keys() - wanted.keys():
            slot = self._slots.pop(name)
            self._operator(slot).remove(slot)
            self._groups.remove(slot)
            self._nanoseconds.pop(slot, None)
        fresh: _Fresh = {}
        taken = set(self._slots.values())
        free = (slot for slot in range(len(taken) + len(programs)) if slot not in taken)
        for name, program in programs.items():
            slot = self._slots[name] = next(free)
            fresh.setdefault(program.operator, []).append((slot, program, self._groups.add(slot, program)))
            self._keys.setdefault(wanted[name].by, KeyTable())
        self._begin(fresh)
        self._rules = tuple(rules)
        self._lay_out()

    def _compiled(self, rule: Rule) -> RuleProgram:
        return compiled(rule, combinations=self._combinations)

    def _begin_empty(self) -> None:
        """No state; the operators beside the sequence operator are made when a rule needs them."""
        self._sequence = SequenceOperator(self._strings, room=self._room)
        self._named: dict[OperatorName, Operator] = {"automaton": self._sequence}

    def _begin(self, fresh: _Fresh) -> None:
        for name in _OPERATORS:
            if name not in fresh:
                continue
            if name == "combinations":
                self._named.setdefault(name, CombinationsOperator(room=self._room))
            elif name == "conjunction":
                self._named.setdefault(name, ConjunctionOperator(self._strings))
            self._named[name].add_all(fresh[name])

    def _lay_out(self) -> None:
        self._index = {self._slots[rule.name, rule.content_version]: i for i, rule in enumerate(self._rules)}
        self._plans = self._groups.plans()
        self._fields = list(self._groups.columns)
        self._single = Single(self._groups, self._keys, self._strings)

    def _operator(self, slot: int) -> Operator:
        return self._named[self._groups.places[slot].program.operator]

    @property
    def _operators(self) -> tuple[Operator, ...]:
        return tuple(self._named[name] for name in _OPERATORS if name in self._named)

    # -- events ------------------------------------------------------------------------------------------------------

    @property
    def streams(self) -> frozenset[str]:
        """Streams that some rule reads; other frames need not be prepared."""
        return frozenset(self._plans)

    def prepare(self, frame: Frame, first_ref: int = 0) -> Prepared:
        """Entries for the rows of the frame to which a rule may react; row i has the handle ``first_ref + i``.

        Rows whose correlation field is null are ignored by the rules that correlate by that field.
        """
        plan = self._plans.get(frame.stream)
        count = frame.num_rows
        if plan is None or count == 0:
            return Prepared.empty()
        self._recycle()
        columns = Columns.of(frame)
        t = frame.timestamps()
        parts = []
        for (rows, words), number in zip(plan.touched(columns), plan.groups, strict=True):
            if not len(rows):
                continue
            table, column = self._key_column(frame, self._groups.all[number].by)
            selected = table.select_rows(column, rows, words, t, first_ref)
            if len(selected.rows):
                parts.append((number, selected))
        if not parts:
            return Prepared.empty()
        return self._entries(columns, plan.captures, parts)

    def _key_column(self, frame: Frame, by: str | None) -> tuple[KeyTable, pa.Array]:
        table = self._keys[by]
        if by is None:
            return table, pa.DictionaryArray.from_arrays(pa.array(np.zeros(frame.num_rows, np.int32)), pa.array([""]))
        return table, frame.column(by) if frame.has(by) else pa.nulls(frame.num_rows, pa.utf8())

    def _entries(self, columns: Columns, captures: Sequence[int], parts: Sequence[tuple[int, Selected]]) -> Prepared:
        if len(parts) == 1:
            number, found = parts[0]
            group = np.full(len(found.rows), number, np.int32)
        else:
            order = np.argsort(np.concatenate([each.rows for _, each in parts]), kind="stable")
            sizes = [len(each.rows) for _, each in parts]
            group = np.repeat(np.array([number for number, _ in parts], np.int32), sizes)[order]
            found = Selected._make(
                np.concatenate(each)[order] for each in zip(*(part for _, part in parts), strict=True)
            )
        values, lows = np.empty((0, len(group))), np.empty((0, 0))
        if self._fields:
            values = np.full((len(self._fields), len(group)), np.nan)
        for column in captures:
            high, low = captured(columns[self._fields[column]], found.rows, self._strings)
            values[column] = high
            if low is not None:
                lows = lows if lows.size else np.zeros(values.shape)
                lows[column] = low
        return Prepared(found.t, found.ref, group, found.key, found.mask, values, lows)

    def process(self, rows: Prepared) -> MatchBatch:
        """Process entries in processing order: times must not decrease, within a call and from call to call."""
        if not len(rows):
            return MatchBatch.of([])
        started = self._clock() if self._clock else 0
        tasks = self._tasks(rows)
        self._now = max(self._now, int(rows.t[-1]))
        found = [each for name in _SEQUENCES if name in tasks for each in self._named[name].process(tasks[name])]
        found.sort(key=lambda each: each[0])  # in order of the rules, whichever operator runs them
        if "conjunction" in tasks:
            found += self._named["conjunction"].process(tasks["conjunction"])
        if self._clock:
            self._charge(self._clock() - started, [task.slot for each in tasks.values() for task in each])
        return self._batch(found)

    def process_event(self, stream: str, event: Mapping[str, Any], ref: int) -> MatchBatch:
        """Process one event: its fields, with ``timestamp`` (microseconds); times must not decrease.

        Equivalent to `prepare` and `process` of a frame of one row, in a few microseconds.
        """
        plan = self._plans.get(stream)
        if plan is None:
            return _NOTHING
        words = plan.word(event)
        if not any(words):
            return _NOTHING
        if self._seq % _EVENTS_PER_CHECK == 0:
            self._recycle()
        single = self._single
        t = int(event["timestamp"])
        wide = single.fill(event, plan.captures, t, ref)
        self._seq += 1
        self._now = max(self._now, t)
        found: list[tuple[int, Outputs]] = []
        for group, word in zip(plan.groups, words, strict=True):
            key = single.key(group, event) if word else -1
            if key < 0:
                continue
            single.place(self._seq - 1, key, word)
            operator = self._groups.all[group].operator
            if operator == "automaton":
                found += self._sequence.process_one(single.batch(group, wide))
            else:
                found += self._named[operator].process(single.tasks(group, wide))
        return self._batch(found) if found else _NOTHING

    def _tasks(self, rows: Prepared) -> dict[OperatorName, list[Task]]:
        """Work for each rule, by operator: the entries of its group."""
        seq = np.arange(self._seq, self._seq + len(rows), dtype=np.int64)
        self._seq += len(rows)
        tasks: dict[OperatorName, list[Task]] = {}
        order, bounds, groups = None, [0, len(rows)], [int(rows.group[0])]
        if len(self._groups.all) > 1 and (rows.group != rows.group[0]).any():
            order = np.argsort(rows.group, kind="stable")
            ordered = rows.group[order]
            cuts = np.flatnonzero(ordered[1:] != ordered[:-1]) + 1
            bounds = [0, *cuts.tolist(), len(rows)]
            groups = ordered[bounds[:-1]].tolist()
            rows, seq = rows.take(order), seq[order]
        for number, (first, last) in zip(groups, pairwise(bounds), strict=True):
            part = Rows(
                plain(rows.t[first:last]),
                seq[first:last],
                plain(rows.ref[first:last]),
                plain(rows.key[first:last]),
                plain(rows.mask[first:last]),
                plain(rows.columns[:, first:last]),
                plain(rows.lows[:, first:last]),
            )
            group = self._groups.all[number]
            own = tasks.setdefault(group.operator, [])
            own += [Task(slot, self._groups.places[slot].shift, part) for slot in group.slots]
        return tasks

    # -- time --------------------------------------------------------------------------------------------------------

    def advance(self, now_us: int) -> MatchBatch:
        """No event before ``now_us`` will follow: expire partial matches, decide absences, emit timeouts.

        This includes keys without new events.
        """
        self._now = max(self._now, now_us)
        return self._batch([each for operator in self._operators for each in operator.advance(now_us)])

    def flush(self) -> MatchBatch:
        """End of all input: every time limit expires; partial matches without one are dropped. Empties the state."""
        batch = self.advance(_FOREVER)
        last = [each for operator in self._operators for each in operator.finish()]
        return MatchBatch.concat([batch, self._batch(last)])

    def _batch(self, found: Sequence[tuple[int, Outputs]]) -> MatchBatch:
        return MatchBatch.of([(self._index[slot], outputs) for slot, outputs in found])

    # -- what the state holds ----------------------------------------------------------------------------------------

    @property
    def state_bytes(self) -> int:
        """Memory in bytes of the state of all rules, with the tables of keys and strings."""
        tables = self._strings.nbytes + sum(table.nbytes for table in self._keys.values())
        return tables + sum(operator.size()["bytes"] for operator in self._operators)

    def low_water_us(self) -> int | None:
        """Oldest time of an event that the state refers to; None if there is none."""
        found = [operator.low_water_us() for operator in self._operators]
        return min((each for each in found if each is not None), default=None)

    def live_refs(self) -> NDArray[np.int64]:
        """Handles of the events that the state refers to, sorted: future matches name only these and later events."""
        found = [operator.live_refs() for operator in self._operators]
        return reduce(np.union1d, found)

    def key_strings(self, batch: MatchBatch) -> pa.Array:
        """Key of each output as a string, empty for rules without a correlation key. Call before the next `prepare`."""
        fields = [rule.by for rule in self._rules]
        if len(set(fields)) == 1:
            return self._keys[fields[0]].strings(batch.key)
        strings = np.empty(len(batch), object)
        for by in set(fields):
            chosen = np.isin(batch.rule, [index for index, each in enumerate(fields) if each == by])
            strings[chosen] = self._keys[by].strings(batch.key[chosen]).to_pylist()
        return pa.array(strings, pa.utf8())

    def partials(self) -> int:
        """Number of partial matches, and of events that wait for the others of their match, of all rules and keys."""
        waiting = {"combinations": "events", "conjunction": "waiting"}
        sizes = [self._named[name].size()[what] for name, what in waiting.items() if name in self._named]
        return self._sequence.live_partials() + sum(sizes)

    def counters(self) -> list[dict[str, int]]:
        """Per rule: the totals of `COUNTERS` by name, and the ``microseconds`` spent on it."""
        found = []
        for rule in self._rules:
            slot = self._slots[rule.name, rule.content_version]
            totals = dict(zip(COUNTERS, self._operator(slot).counters(slot).tolist(), strict=True))
            found.append(totals | {"microseconds": self._nanoseconds.get(slot, 0) // 1000})
        return found

    def _charge(self, nanoseconds: int, slots: Sequence[int]) -> None:
        """Divide the time of a call among its rules in proportion to their work."""
        work = [max(int(self._operator(slot).counters(slot)[-1]), 1) for slot in slots]
        for slot, share in zip(slots, work, strict=True):
            self._nanoseconds[slot] = self._nanoseconds.get(slot, 0) + nanoseconds * share // sum(work)

    def _recycle(self) -> None:
        """Forget keys and strings that nothing refers to, if a table is due: memory follows the open windows."""
        if self._strings.due and (live := self._live_strings()) is not None:
            self._strings.recycle(live)
            self._single.forget()
        for by, table in self._keys.items():
            if table.due and (live := self._live_keys(by)) is not None:
                table.recycle(live)

    def _live_strings(self) -> NDArray[np.bool_] | None:
        """A flag for every number of a string: whether something refers to it. None if that is not known."""
        if self._waiting is None:
            return None
        live = self._strings.unmarked
        for operator in self._operators:
            operator.mark_strings(live)
        for rows in self._waiting():
            mark(rows.columns, live)
        return live

    def _live_keys(self, by: str | None) -> NDArray[np.bool_] | None:
        """A flag for every number of a key of the field: whether something refers to it. None if that is not known."""
        if self._waiting is None:
            return None
        live = np.zeros(self._keys[by].numbers, np.bool_)
        for slot, place in self._groups.places.items():
            if self._groups.all[place.group].by == by:
                self._operator(slot).mark_keys(slot, live)
        groups = [group.number for group in self._groups.all if group.by == by]
        for rows in self._waiting():
            live[rows.key if len(groups) == len(self._groups.all) else rows.key[np.isin(rows.group, groups)]] = True
        return live

    # -- snapshots ---------------------------------------------------------------------------------------------------

    def snapshot(self) -> dict[str, NDArray[Any]]:
        """The whole state as arrays; `restore` it in a matcher that has the same rules."""
        rules = [[*name, slot, *self._groups.places[slot].where] for name, slot in self._slots.items()]
        about = {"rules": rules, "fields": self._fields, "by": list(self._keys), "seq": self._seq, "now": self._now}
        arrays: dict[str, NDArray[Any]] = {"about": np.frombuffer(json.dumps(about).encode(), np.uint8)}
        parts = {prefix: part.snapshot() for prefix, part in self._states().items()}
        parts["strings"] = self._strings.snapshot(self._live_strings())
        parts |= {f"keys{i}": table.snapshot(self._live_keys(by)) for i, (by, table) in enumerate(self._keys.items())}
        for prefix, part in parts.items():
            arrays |= {f"{prefix}.{name}": array for name, array in part.items()}
        return arrays

    def restore(self, snapshot: Mapping[str, NDArray[Any]]) -> None:
        """Restore a snapshot; rows prepared before it was taken stay valid. Raises InvalidRule if the rules differ."""
        about = json.loads(np.asarray(snapshot["about"], np.uint8).tobytes())
        rules = {(rule.name, rule.content_version): rule for rule in self._rules}
        found = {(name, version): (slot, (group, shift)) for name, version, slot, group, shift in about["rules"]}
        if rules.keys() != found.keys():
            other = ", ".join(sorted({name for name, _ in rules.keys() ^ found.keys()}))
            raise InvalidRule(
                f"the snapshot was made with other rules or other versions of them ({other}); restore it with the "
                "rules it was made with, then update them"
            )
        self._strings.restore(_part(snapshot, "strings"))
        self._begin_empty()
        self._groups = PredicateGroups(about["fields"])
        self._keys = {by: KeyTable() for by in about["by"]}
        self._slots = {name: slot for name, (slot, _) in found.items()}
        fresh: _Fresh = {}
        for name, (slot, where) in sorted(found.items(), key=lambda each: each[1][1]):
            program = self._compiled(rules[name])
            columns = self._groups.add(slot, program, where=where)
            fresh.setdefault(program.operator, []).append((slot, program, columns))
        self._begin(fresh)
        self._lay_out()
        self._seq, self._now = about["seq"], about["now"]
        keys = {f"keys{index}": table for index, table in enumerate(self._keys.values())}
        restored: dict[str, Operator | KeyTable] = {**self._states(), **keys}
        for prefix, part in restored.items():
            part.restore(_part(snapshot, prefix))

    def _states(self) -> Mapping[str, Operator]:
        return {name: self._named[name] for name in _OPERATORS if name in self._named}


def _part(snapshot: Mapping[str, NDArray[Any]], prefix: str) -> dict[str, NDArray[Any]]:
    start = len(prefix) + 1
    return {name[start:]: array for name, array in snapshot.items() if name.startswith(f"{prefix}.")}

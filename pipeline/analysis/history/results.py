"""What rules find in the tapes of a history: matches as columns, and single ones with their events on demand."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import orjson
from numpy.typing import NDArray

from astrocyte.agents.engine.tape import Player
from astrocyte.agents.matches.grouped import GroupedAlert
from astrocyte.agents.matches.lineage import alert_ids, lineages, multi_event_records
from astrocyte.agents.matches.table import MatchTable
from astrocyte.agents.rules.graph.links import needed_for
from astrocyte.agents.rules.model import Rule, RuleSet
from astrocyte.pipeline.analysis.backtest import Made
from astrocyte.pipeline.analysis.explain import Explained, SourceEvent
from astrocyte.pipeline.analysis.history.tapes import Tapes
from astrocyte.pipeline.topology.plan import KeyGroup, key_groups
from astrocyte.schemas.ids import format_ids
from astrocyte.schemas.times import time_us

__all__ = ["RuleMatches", "TooManyMatches", "find_matches"]

_MIX: Final = np.array([0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F], np.uint64)


class TooManyMatches(MemoryError):
    """A rule has more matches than are kept."""


@dataclass(slots=True)
class RuleMatches:
    """All matches of one rule, in the order in which its domains made them."""

    rule: Rule
    tables: list[MatchTable] = field(default_factory=list)
    joined: list[GroupedAlert] = field(default_factory=list)
    """Alerts of rules with ``group``."""
    suppressed: int = 0
    grouped: int = 0

    @property
    def count(self) -> int:
        """Number of matches."""
        return sum(map(len, self.tables))

    @property
    def alerts(self) -> int:
        """Number of alerts."""
        return len(self.joined) + sum(alert is not None for table in self.tables for alert in table.values.alert)

    def times_us(self) -> NDArray[np.int64]:
        """Time of each match."""
        return np.concatenate([np.empty(0, np.int64), *(table.time_us for table in self.tables)])

    def keys(self) -> list[str | None]:
        """Key of each match."""
        return [key for table in self.tables for key in table.key.tolist()]

    def identities(self) -> NDArray[np.void]:
        """For each match what is equal for the same set of events, whatever rule took them in whatever order.

        128 bits: sums of mixed ids of the events, so that their order does not matter.
        """
        words = np.concatenate([np.empty((0, 2), np.uint64), *map(_identities, self.tables)])
        return np.ascontiguousarray(words).view([("", np.uint64)] * 2).ravel()

    def place(self, number: int) -> MatchTable:
        """The match of that number, alone."""
        for table in self.tables:
            if number < len(table):
                return table.take(np.array([number]))
            number -= len(table)
        raise IndexError(number)

    def made(self) -> list[Made]:
        """All matches as `pipeline.analysis.backtest` gives them."""
        return [each for table in self.tables for each in _made_of(table)]

    def raised(self) -> list[Made]:
        """All alerts as `pipeline.analysis.backtest` gives them."""
        found = []
        for table in self.tables:
            raising = np.array([i for i, alert in enumerate(table.values.alert) if alert is not None], np.int64)
            part = table.take(raising)
            ids = format_ids(alert_ids(part))
            found += [each._replace(event_id=name) for each, name in zip(_made_of(part), ids, strict=True)]
        if self.joined:
            sources = {each.event_id: each.sources for each in self.made()}
            found += [
                Made(each.alert_id, each.rule, each.time_us, each.key, sources.get(each.match_id, ()))
                for each in self.joined
            ]
        return found

    def explained(self, number: int) -> Explained:
        """One match with its events, and the fields that these have."""
        table = self.place(number)
        (made,), values = _made_of(table), table.values
        fields: list[dict[str, Any]] = [{}] * len(table.events)
        for block, positions, rows in table.events.parts():
            for position, row in zip(positions.tolist(), block.frame.take(rows).event_fields(), strict=True):
                fields[position] = row
        (lineage,) = lineages(table)
        entries = [
            (entry, stream)
            for stream, first in lineage.items()
            for entry in ({k: v for k, v in first.items() if k != "also"}, *first.get("also", ()))
        ]
        known = dict(zip(made.sources, fields, strict=True))
        order = {name: place for place, name in enumerate(made.sources)}
        sources = [
            SourceEvent(
                entry["event_id"], stream, entry["step"], time_us(entry["timestamp"]),
                entry.get("topic"), entry.get("partition"), entry.get("offset"), known[entry["event_id"]],
            )
            for entry, stream in sorted(entries, key=lambda each: order[each[0]["event_id"]])
        ]  # fmt: skip
        alert = values.alert[0]
        emitted = {
            name: value for name, value in values.emit[0].items() if name not in ("integrated_value", "confidence")
        }
        return Explained(
            made.event_id, self.rule.name, made.time_us, sources, self.rule.content_version, made.key,
            values.integrated[0], float(values.confidence[0]), emitted,
            [] if alert is None else [{"severity": alert[0], "message": alert[1]}],
        )  # fmt: skip


def find_matches(
    ruleset: RuleSet, tapes: Tapes, *, only: Collection[str], most_matches: int = 2**62
) -> dict[str, RuleMatches]:
    """Matches of the rules named by ``only``, by name; those without a match as well.

    ``tapes`` are those for this rule set, of whose rules and windows only what these need is run. Raises
    TooManyMatches, and OperatorFailed as a domain does.
    """
    found = {rule.name: RuleMatches(rule) for rule in ruleset.rules if rule.name in only}
    left = most_matches
    own_groups = {(group.role, group.name): group for group in key_groups(ruleset)}
    for each in tapes.groups:  # those of rules that take the same events, perhaps others
        group = own_groups[each.group.role, each.group.name]
        needed = _needed(group, found.keys())
        if not needed.rules:
            continue
        for tape in each.tapes:
            engine = Player(needed, carriers=each.group.carriers, newest=group.newest)
            for output in tape.replay(engine):
                for name, table in _by_rule(output.matches, found.keys()):
                    left -= len(table)
                    if left < 0:
                        raise TooManyMatches
                    _add(found[name], table)
                for alert in output.grouped:
                    if alert.rule in found:
                        found[alert.rule].joined.append(alert)
            for name, own in found.items():
                own.suppressed += engine.alerts.suppressed.get(name, 0)
                own.grouped += engine.alerts.grouped.get(name, 0)
    return found


def _needed(group: KeyGroup, names: Collection[str]) -> RuleSet:
    """The part of a group without which these rules cannot be run: they, and what of the group they read."""
    own = group.ruleset
    # Of junctions that come from other groups, all: their events are known by that.
    return needed_for(own, names).model_copy(update={"junctions": own.junctions})


def _by_rule(table: MatchTable, names: Collection[str]) -> Iterator[tuple[str, MatchTable]]:
    for index, chosen in table.by_rule():
        name = table.rules[index].name
        if name in names:
            yield name, (table if len(chosen) == len(table) else table.take(chosen))


def _add(found: RuleMatches, table: MatchTable) -> None:
    """Add what becomes a multi event: not matches whose values raise, or have no JSON."""
    if any(table.values.is_lost(i) for i in table.values.failed):
        table = table.take(np.array([i for i in range(len(table)) if not table.values.is_lost(i)], np.int64))
    values = table.values
    try:
        orjson.dumps([values.emit, values.integrated, values.alert], option=orjson.OPT_SERIALIZE_NUMPY)
    except TypeError:
        table = table.take(np.array([i for i in range(len(table)) if _has_record(table, i)], np.int64))
    if len(table):
        found.tables.append(table)


def _made_of(table: MatchTable) -> list[Made]:
    ids, sources, bounds = format_ids(table.ids), table.event_id_strings(), table.offsets.tolist()
    names = [rule.name for rule in table.rules]
    columns = zip(table.rule.tolist(), table.time_us.tolist(), table.key.tolist(), strict=True)
    return [
        Made(ids[i], names[rule], at, key, tuple(sources[bounds[i] : bounds[i + 1]]))
        for i, (rule, at, key) in enumerate(columns)
    ]


def _has_record(table: MatchTable, number: int) -> bool:
    part = table.take(np.array([number]))
    try:
        orjson.dumps(part.values.alert)
        return len(multi_event_records(part)) == 1
    except (TypeError, ValueError):
        return False


def _identities(table: MatchTable) -> NDArray[np.uint64]:
    ids = table.event_ids
    with np.errstate(over="ignore"):
        mixed = (ids ^ (ids >> np.uint64(29)) ^ ids[:, ::-1]) * _MIX
        mixed ^= mixed >> np.uint64(32)
        mixed *= _MIX[::-1]
    # No table is empty, and each match has an event at least: sums of neighbouring parts.
    return np.add.reduceat(mixed, table.offsets[:-1], axis=0)

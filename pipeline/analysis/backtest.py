"""Back-tests: results of rules over a recorded log, compared with those of other rules."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import orjson

from astrocyte.agents.accounting import Counters, DomainOutput
from astrocyte.agents.event_time.clock_guard import CLOCK_TOLERANCE_US
from astrocyte.agents.rules.model import RuleSet
from astrocyte.pipeline.analysis.offline import OfflineRun, run_rules
from astrocyte.pipeline.kafka.record import status_of
from astrocyte.pipeline.recording.reader import read_log
from astrocyte.schemas.times import iso_from_us, time_us
from astrocyte.schemas.topics import ALERTS, MULTI_EVENTS

if TYPE_CHECKING:
    from astrocyte.pipeline.analysis.unused_report import RejectsFile

__all__ = [
    "Backtest",
    "Difference",
    "Made",
    "RuleCount",
    "backtest",
    "compare",
    "made_of",
    "recorded_outputs",
]


class Made(NamedTuple):
    """The parts of a multi event that comparisons need."""

    event_id: str
    rule: str
    time_us: int
    key: str | None
    sources: tuple[str, ...]

    @property
    def identity(self) -> tuple[str, tuple[str, ...]]:
        """Rule name and events taken: equal for two versions of a rule, whose match ids differ."""
        return self.rule, tuple(sorted(self.sources))


@dataclass(slots=True)
class RuleCount:
    """Counts of one rule."""

    matches: int = 0
    alerts: int = 0
    suppressed: int = 0
    """Alerts that ``cool_down`` suppressed."""
    grouped: int = 0
    """Alerts that ``group`` joined to an earlier one."""
    first_us: int | None = None
    last_us: int | None = None
    keys: set[str | None] = field(default_factory=set)

    def as_json(self) -> dict[str, Any]:
        """Counts and the times of the first and last match."""
        return {
            "matches": self.matches,
            "alerts": self.alerts,
            "suppressed": self.suppressed,
            "grouped": self.grouped,
            "keys": len(self.keys),
            "first": None if self.first_us is None else iso_from_us(self.first_us),
            "last": None if self.last_us is None else iso_from_us(self.last_us),
        }


@dataclass(slots=True)
class Backtest:
    """Results of a rule set over a log."""

    run: OfflineRun
    """What the rules read, and what of it was not used."""
    rules: dict[str, RuleCount]
    made: list[Made] = field(default_factory=list)
    raised: list[Made] = field(default_factory=list)
    """The alerts, each with the events of its multi event, or of the first one of its group."""
    counters: Counters = field(default_factory=Counters)

    def as_json(self) -> dict[str, Any]:
        """Counts by rule and in total."""
        return {
            "rules": {name: count.as_json() for name, count in self.rules.items()},
            "events": self.counters.received,
            "late": self.counters.late,
            "dead_letters": self.counters.dead,
            "duplicates": self.counters.duplicate,
            "sampled": self.counters.sampled,
            "skipped": self.counters.skipped,
            "unused": self.run.unused.as_json(),
        }


@dataclass(frozen=True, slots=True)
class Difference:
    """Matches of one rule under two rule sets: by both, or by one of them only."""

    rule: str
    both: int
    only_a: tuple[Made, ...]
    only_b: tuple[Made, ...]

    def as_json(self, show: int) -> dict[str, Any]:
        """Counts, and up to ``show`` examples of each side."""
        return {
            "both": self.both,
            "only_a": len(self.only_a),
            "only_b": len(self.only_b),
            "examples_a": [_example(made) for made in self.only_a[:show]],
            "examples_b": [_example(made) for made in self.only_b[:show]],
        }


def backtest(
    ruleset: RuleSet,
    paths: Sequence[str | Path],
    *,
    lateness_us: int,
    clock_tolerance_us: int = CLOCK_TOLERANCE_US,
    domains: int | None = None,
    stream: str | None = None,
    rejects: RejectsFile | None = None,
) -> Backtest:
    """Run the rules over logs, or files of events of ``stream``. Rules without a match are listed with zeros.

    ``rejects`` gets every output, with all events that took no part.
    """
    run, outputs = run_rules(
        ruleset,
        paths,
        lateness_us=lateness_us,
        clock_tolerance_us=clock_tolerance_us,
        domains=domains,
        stream=stream,
        list_unused=rejects is not None,
    )
    result = Backtest(run, {rule.name: RuleCount() for rule in ruleset.rules})
    sources: dict[str, tuple[str, ...]] = {}
    for output in outputs:
        if rejects is not None:
            rejects.write(output, run.contracts)
        for made in made_of(output):
            count = result.rules.setdefault(made.rule, RuleCount())
            count.matches += 1
            count.keys.add(made.key)
            count.first_us = made.time_us if count.first_us is None else min(count.first_us, made.time_us)
            count.last_us = max(count.last_us or made.time_us, made.time_us)
            result.made.append(made)
            sources[made.event_id] = made.sources
        for alert in output.alerts:
            raised, of = _alert(alert.value)
            result.raised.append(raised._replace(sources=sources.get(of, ())))
            result.rules.setdefault(raised.rule, RuleCount()).alerts += 1
    result.counters = run.counters
    for name, counts in run.unraised.items():
        result.rules[name].suppressed, result.rules[name].grouped = counts["suppressed"], counts["grouped"]
    return result


def made_of(output: DomainOutput) -> Iterator[Made]:
    """Multi events of one step."""
    for record in output.multi_events:
        yield _made(record.key, record.value)


def _alert(value: bytes) -> tuple[Made, str]:
    """An alert, without the events of its match, and the id of its multi event."""
    body = orjson.loads(value)
    made = Made(body["alert_id"], body["rule"], time_us(body["timestamp"]), body["key"], ())
    return made, body["multi_event_id"]


def recorded_outputs(*paths: str | Path) -> tuple[list[Made], list[Made]]:
    """Multi events and alerts that logs hold, but those retracted; an alert has the events of its multi event."""
    made: dict[str, Made] = {}
    alerts: dict[str, tuple[Made, str]] = {}
    for record in (record for path in paths for record in read_log(path)):
        stands = status_of(record) != "retracted"
        if record.topic == MULTI_EVENTS and record.value is not None:
            each = _made(record.key, record.value)
            made.pop(each.event_id, None)
            if stands:
                made[each.event_id] = each
        elif record.topic == ALERTS and record.value is not None:
            alert, of = _alert(record.value)
            alerts.pop(alert.event_id, None)
            if stands:
                alerts[alert.event_id] = alert, of
    raised = [each._replace(sources=made[of].sources if of in made else ()) for each, of in alerts.values()]
    return list(made.values()), raised


def compare(a: Sequence[Made], b: Sequence[Made]) -> list[Difference]:
    """Difference of two runs rule by rule; matches are the same if a rule of that name took the same events."""
    names = dict.fromkeys(made.rule for made in (*a, *b))
    return [_compare_rule(name, a, b) for name in names]


def _compare_rule(name: str, a: Sequence[Made], b: Sequence[Made]) -> Difference:
    of_a = [made for made in a if made.rule == name]
    of_b = [made for made in b if made.rule == name]
    in_a, in_b = Counter(made.identity for made in of_a), Counter(made.identity for made in of_b)
    return Difference(name, (in_a & in_b).total(), _beyond(of_a, in_a & in_b), _beyond(of_b, in_a & in_b))


def _beyond(made: Iterable[Made], shared: Counter[tuple[str, tuple[str, ...]]]) -> tuple[Made, ...]:
    left = shared.copy()
    rest = []
    for each in made:
        if left[each.identity] > 0:
            left[each.identity] -= 1
        else:
            rest.append(each)
    return tuple(rest)


def _made(key: bytes | None, value: bytes) -> Made:
    body = orjson.loads(value)
    return Made(
        body["event_id"],
        body["correlation_rule"],
        time_us(body["timestamp"]),
        None if key is None else key.decode("utf-8", "replace"),
        tuple(body["source_events"]),
    )


def _example(made: Made) -> dict[str, Any]:
    return {"event_id": made.event_id, "timestamp": iso_from_us(made.time_us), "key": made.key, "sources": made.sources}

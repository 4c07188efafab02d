"""Scores of rules against planted anomalies: precision, recall and delay."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from astrocyte.agents.event_time.clock_guard import CLOCK_TOLERANCE_US
from astrocyte.agents.rules.model import Rule, RuleSet
from astrocyte.pipeline.analysis.backtest import Made, backtest
from astrocyte.pipeline.analysis.unused_report import refusal_lines
from astrocyte.pipeline.kafka.record import ConsumedRecord
from astrocyte.pipeline.recording.format import InvalidLog
from astrocyte.pipeline.recording.frames import chunks_of
from astrocyte.pipeline.recording.reader import read_log
from astrocyte.schemas.ids import event_ids, format_ids
from astrocyte.schemas.times import iso_from_us
from astrocyte.schemas.topics import TRUTH, mono_topic

__all__ = ["Planted", "Score", "planted_in", "planted_of", "score", "score_matches", "score_outputs", "slack_of"]


@dataclass(frozen=True, slots=True)
class Planted:
    """One planted anomaly: its kind, key and interval, and the rule that should, or may, find it."""

    kind: str
    rule: str
    key: str | None
    start_us: int
    until_us: int
    members: frozenset[str] = frozenset()
    """Ids of the planted events; empty if the whole interval is the anomaly."""
    required: bool = True
    """Whether the rule should find it. Of others its matches are right, and none has to come."""


@dataclass(slots=True)
class Score:
    """Score of one rule against the anomalies that were planted for it."""

    rule: str
    planted: int = 0
    """Anomalies that the rule should find."""
    possible: int = 0
    """Anomalies that it may find besides."""
    found: int = 0
    """Of those that it should find."""
    matches: int = 0
    true_matches: int = 0
    """Matches that belong to a planted anomaly."""
    exact: int = 0
    """Of them, those that took the planted events and no others."""
    delays_us: list[int] = field(default_factory=list)
    """Time from each anomaly that was found to its first match, see `score_matches`."""
    missed: list[Planted] = field(default_factory=list)
    absent: bool = False
    """The anomalies name this rule, and the rule files do not have it; so nothing was scored."""

    @property
    def precision(self) -> float | None:
        """Share of the matches that belong to a planted anomaly; None without matches or without anomalies."""
        return self.true_matches / self.matches if self.matches and (self.planted or self.possible) else None

    @property
    def recall(self) -> float | None:
        """Share of the planted anomalies that were found; None if none was planted."""
        return self.found / self.planted if self.planted else None

    def as_json(self, show: int = 0) -> dict[str, Any]:
        """The figures; delays in seconds, and up to ``show`` of the missed anomalies."""
        delays = np.asarray(self.delays_us or [0], np.float64) / 1e6
        quantile = {name: float(np.quantile(delays, q)) for name, q in (("p50", 0.5), ("p95", 0.95), ("max", 1.0))}
        return {
            "rule": self.rule,
            "absent": self.absent,
            "planted": self.planted,
            "possible": self.possible,
            "found": self.found,
            "matches": self.matches,
            "true_matches": self.true_matches,
            "exact": self.exact,
            "precision": self.precision,
            "recall": self.recall,
            "delay_s": quantile if self.delays_us else None,
            "missed": [
                {"kind": each.kind, "key": each.key, "timestamp": iso_from_us(each.start_us)}
                for each in self.missed[:show]
            ],
        }


def score(
    ruleset: RuleSet,
    paths: Sequence[str | Path],
    *,
    lateness_us: int,
    clock_tolerance_us: int = CLOCK_TOLERANCE_US,
    domains: int | None = None,
    slack_us: int,
    against_all: bool = False,
    on_refused: Callable[[list[str]], object] = lambda _lines: None,
) -> list[Score]:
    """Score of every rule against the anomalies that name it in the stream ``truth``, or against all of them.

    ``on_refused`` is given sentences on the events of the logs that were refused, if some were: no rule has seen them.
    Of a rule with an alert the alerts are scored, of others the matches. After these come the rules that anomalies name
    and the rule set does not have, as ``absent``. Raises InvalidLog for logs without that stream.
    """
    planted = [each for path in paths for each in planted_in(path)]
    if not planted:
        raise InvalidLog(
            f"{', '.join(map(str, paths))}: no planted events (topic {mono_topic(TRUTH)}) to score against; simulate a "
            "scenario that plants some, and record that topic too"
        )
    found = backtest(ruleset, paths, lateness_us=lateness_us, clock_tolerance_us=clock_tolerance_us, domains=domains)
    if refused := refusal_lines(found.run):
        on_refused(refused)
    return score_outputs(ruleset, planted, found.made, found.raised, slack_us=slack_us, against_all=against_all)


def score_outputs(
    ruleset: RuleSet,
    planted: Sequence[Planted],
    made: Sequence[Made],
    raised: Sequence[Made],
    *,
    slack_us: int,
    against_all: bool = False,
) -> list[Score]:
    """`score` of multi events ``made`` and alerts ``raised``."""
    names = [rule.name for rule in ruleset.rules]
    scores = [
        score_matches(
            rule.name,
            [each for each in planted if against_all or each.rule == rule.name],
            [each for each in (made if rule.alert is None else raised) if each.rule == rule.name],
            slack_us=slack_us + slack_of(rule),
        )
        for rule in ruleset.rules
    ]
    if not against_all:
        required = [each for each in planted if each.required]
        for name in sorted({each.rule for each in required}.difference(names)):
            missed = [each for each in required if each.rule == name]
            scores.append(Score(name, planted=len(missed), missed=missed, absent=True))
    return scores


def slack_of(rule: Rule) -> int:
    """How long after what it tells of a rule may speak at the latest: its time bound, and the time of its group."""
    within_us = rule.within.time if rule.within is not None else 0
    return within_us + (rule.group.within if rule.group is not None and rule.alert is not None else 0)


def planted_in(path: str | Path) -> list[Planted]:
    """Planted anomalies in the ``truth`` stream of a log, in time order."""
    topic = mono_topic(TRUTH)
    return planted_of(record for record in read_log(path) if record.topic == topic)


def planted_of(records: Iterable[ConsumedRecord]) -> list[Planted]:
    """Planted anomalies in the messages of the ``truth`` stream, in time order."""
    found = []
    for chunk in chunks_of(records, on_bad="skip"):
        for row in chunk.frame.rows():
            members = orjson.loads(row["members"] or "[]")
            found.append(
                Planted(
                    row["kind"] or "",
                    row["rule"] or "",
                    row["key"],
                    row["timestamp"],
                    row["until"] if row["until"] is not None else row["timestamp"],
                    frozenset(_ids(chunk.frame.run, members)) if chunk.frame.run else frozenset(),
                    required=row["type"] != "possible",
                )
            )
    return sorted(found, key=lambda each: each.start_us)


def score_matches(rule: str, planted: Sequence[Planted], made: Sequence[Made], *, slack_us: int) -> Score:
    """Score of one rule's matches.

    A match belongs to an anomaly if it took at least half of the planted events (a rule that pairs each event once may
    pair one of them with an unrelated event). If the truth names no events, the match must lie in the planted interval
    or up to ``slack_us`` after it, and have its key, unless no match has the key of an anomaly. The delay is from the
    last planted event, or from the start of the interval, to the first such match.
    """
    required = [each for each in planted if each.required]
    result = Score(rule, planted=len(required), possible=len(planted) - len(required), matches=len(made))
    owners: dict[str, list[Planted]] = {}
    for each in planted:
        for member in each.members:
            owners.setdefault(member, []).append(each)
    intervals = [each for each in planted if not each.members]
    keyed = {match.key for match in made} & {each.key for each in intervals}
    first: dict[int, int] = {}
    for match in sorted(made, key=lambda each: each.time_us):
        owner = _owner(match, owners) or _covering(match, intervals, slack_us, bool(keyed))
        if owner is not None:
            result.true_matches += 1
            result.exact += owner.members == frozenset(match.sources)
            if owner.required:
                begin_us = owner.until_us if owner.members else owner.start_us
                first.setdefault(id(owner), max(match.time_us - begin_us, 0))
    result.found = len(first)
    result.delays_us = list(first.values())
    result.missed = [each for each in required if id(each) not in first]
    return result


def _owner(match: Made, owners: Mapping[str, Sequence[Planted]]) -> Planted | None:
    taken = Counter(id(each) for source in match.sources for each in owners.get(source, ()))
    candidates = {id(each): each for source in match.sources for each in owners.get(source, ())}
    for number, count in taken.most_common():
        if 2 * count >= len(candidates[number].members):
            return candidates[number]
    return None


def _covering(match: Made, intervals: Iterable[Planted], slack_us: int, keyed: bool) -> Planted | None:
    """The newest anomaly that the match may belong to, first of those that the rule should find.

    The time after one may reach into the next.
    """
    fits = [
        each
        for each in intervals
        if (not keyed or each.key == match.key) and each.start_us <= match.time_us <= each.until_us + slack_us
    ]
    return max(fits, key=lambda each: (each.required, each.start_us), default=None)


def _ids(run: str, members: Sequence[Sequence[Any]]) -> list[str]:
    return [format_ids(event_ids(run, stream, np.array([sequence], np.int64)))[0] for stream, sequence in members]

"""Rules run over a sample, as `match` runs them over a log."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import orjson

from astrocyte.agents.ingest.decoders import Decoders
from astrocyte.agents.rules.model import RuleSet
from astrocyte.pipeline.analysis.inputs import Survey
from astrocyte.pipeline.analysis.inspect.sample import Sample
from astrocyte.pipeline.analysis.offline import OfflineRun
from astrocyte.pipeline.topology.plan import contracts_of, decoders_of

__all__ = ["Trial", "try_rules"]


@dataclass(slots=True)
class _SampleInputs:
    found: Survey
    decoders: Decoders


@dataclass(slots=True)
class Trial:
    """What rules give on a sample."""

    run: OfflineRun
    matches: Counter[str] = field(default_factory=Counter)
    """By rule."""
    keys: dict[str, set[str]] = field(default_factory=dict)
    refusals: list[str] = field(default_factory=list)
    """Reasons of dead letters."""
    example: dict[str, str] = field(default_factory=dict)
    """Alert message, or id, of the first match of each rule."""


def try_rules(ruleset: RuleSet, sample: Sample, *, lateness_us: int, clock_tolerance_us: int) -> Trial:
    """Run rules over a sample. Raises InvalidRule, InvalidSettings."""
    found = Survey(partitions=dict(sample.partitions))
    for place, records in sample.records.items():
        if records:
            found.places.add((place.topic, place.partition))
            found.topics[place.topic] = found.topics.get(place.topic, 0) + len(records)
            found.records += len(records)
    inputs = _SampleInputs(
        found, decoders_of(contracts_of(ruleset, existing=found.partitions), json_only=sample.is_file)
    )
    run = OfflineRun(ruleset, inputs, lateness_us=lateness_us, clock_tolerance_us=clock_tolerance_us)
    trial = Trial(run)
    for output in run.run(sample.merged()):
        for record in output.multi_events:
            body = orjson.loads(record.value)
            rule = str(body["correlation_rule"])
            trial.matches[rule] += 1
            trial.keys.setdefault(rule, set()).add("" if record.key is None else record.key.decode())
        for record in output.alerts:
            body = orjson.loads(record.value)
            trial.example.setdefault(body["rule"], body["message"])
        trial.refusals += [letter.reason for letter in output.dead_letters]
    return trial

"""Loading of rule files: what no engine and no worker would take is refused here, with its place in the file."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

from astrocyte.agents.cep.compiled import compiled
from astrocyte.agents.ingest.decoders import DECODERS
from astrocyte.agents.rules.graph.circles import refuse_circles
from astrocyte.agents.rules.graph.problems import junction_problems
from astrocyte.agents.rules.model import RuleSet
from astrocyte.agents.rules.problems import InvalidRules, RuleProblem
from astrocyte.agents.rules.reading.yaml import read_rules
from astrocyte.schemas.contract import shared_topics
from astrocyte.schemas.errors import InvalidSettings
from astrocyte.schemas.topics import mono_topic

__all__ = ["load_rules"]


def load_rules(source: Any, *, known_streams: Collection[str] | None = None) -> RuleSet:
    """Load rules from a file (a Path, or a string that ends in .yaml or .yml), YAML text, or a parsed mapping.

    ``known_streams`` are the streams that exist in addition to those that the file declares or produces (its windows
    and rules); None allows any name. A rule with unbounded partial matches (no ``within``, no ``max_partials``) is
    rejected, and so is one that no engine could compile. Raises InvalidRules with all problems found, each with file,
    line, rule and field.
    """
    return read_rules(source, known_streams=known_streams, check=_problems)


def _problems(ruleset: RuleSet) -> Iterator[RuleProblem]:
    """What makes a rule set impossible to run although each of its parts is valid."""
    try:
        refuse_circles(ruleset)
    except InvalidRules as error:
        yield from error.problems
    else:
        yield from junction_problems(ruleset)
    for rule in ruleset.rules:
        try:
            compiled(rule)
        except InvalidRules as error:
            yield from error.problems
    for stream in ruleset.streams:
        if stream.decoder is not None:
            try:
                DECODERS.get(stream.decoder.name)
            except InvalidSettings as error:
                yield RuleProblem(str(error), rule=stream.name, field="decoder", kind="stream")
    topics = {stream.name: stream.topic or mono_topic(stream.name) for stream in ruleset.streams}
    for name, reason in shared_topics(topics):
        yield RuleProblem(reason, rule=name, field="topic", kind="stream")

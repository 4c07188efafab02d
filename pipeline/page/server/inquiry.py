"""Answers about one finding: from which events it was made, by which conditions, and what nearly matched."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from astrocyte.agents.cep.explain.mermaid import mermaid
from astrocyte.agents.expressions.nodes import Aggregate, And, Node, walk
from astrocyte.agents.expressions.nodes import Field as FieldNode
from astrocyte.agents.expressions.scalar import compile_scalar
from astrocyte.agents.expressions.unparse import to_text
from astrocyte.agents.rules.model import Rule, RuleSet, format_duration
from astrocyte.pipeline.analysis.ancestry import Ancestry
from astrocyte.pipeline.analysis.explain import Explained, SourceEvent, explain, explain_sources, explained_of_json
from astrocyte.pipeline.page.near_misses import near_misses
from astrocyte.pipeline.page.rules.in_force import ruleset_of_text
from astrocyte.pipeline.page.sources.source import Source
from astrocyte.pipeline.settings import Settings
from astrocyte.pipeline.topology.rule_files import read_rule_files
from astrocyte.schemas.times import time_us

__all__ = ["Inquiry"]

_MOST_SOURCES: Final = 60
_LIMIT_S: Final = 120.0
_NO_LOG: Final = (
    "near misses are found by running the rule again over a recorded log: record the topics (astrocyte record), or "
    "wait for the end of the demo, then open the page of that log"
)


class Inquiry:
    """Looks up lineages where the source has them, with the rules of the given files.

    One question is answered at a time: each may read a whole log.
    """

    def __init__(self, source: Source, rule_files: Sequence[Path], settings: Settings) -> None:
        ruleset = read_rule_files(rule_files)
        self._rule_files = rule_files
        self._source = source
        self._ruleset = ruleset
        self._settings = settings
        self._rules = {rule.name: rule for rule in ruleset.rules}
        self._turn = asyncio.Lock()

    async def lineage(self, event_id: str) -> dict[str, Any]:
        """The sources of a multi event (or of an alert's), with the conditions of its rule. Raises AstrocyteError."""
        async with self._turn, asyncio.timeout(_LIMIT_S):
            return await asyncio.to_thread(self._lineage, event_id)

    async def near_misses(self, rule: str, key: str | None) -> dict[str, Any]:
        """How far partial matches of a rule and key got; ``unavailable`` says why not."""
        if not self._source.logs:
            return {"unavailable": _NO_LOG}
        if rule not in self._rules:
            return {"unavailable": f"the page does not know the rule {rule!r}; start it with --rules FILE"}
        async with self._turn:
            return await near_misses(
                self._rule_files,
                self._source.logs,
                rule=rule,
                key=key,
                lateness_us=self._settings.lateness,
                clock_tolerance_us=self._settings.clock_tolerance,
            )

    async def of_trial(self, found: Mapping[str, Any], text: str) -> dict[str, Any]:
        """`lineage` of a match that is nowhere recorded: as a trial of the rules in ``text`` gives it, as JSON."""
        ruleset = ruleset_of_text(text)
        async with self._turn, asyncio.timeout(_LIMIT_S):
            return await asyncio.to_thread(self._of_trial, explained_of_json(found), ruleset)

    def _of_trial(self, found: Explained, ruleset: RuleSet) -> dict[str, Any]:
        origins = self._source.origins()
        rules = self._rules | {rule.name: rule for rule in ruleset.rules}
        explain_sources(found, origins, Ancestry(ruleset, origins))
        return _shown(found, rules.get(found.rule))

    def _lineage(self, event_id: str) -> dict[str, Any]:
        origins = self._source.origins()
        found = explain(event_id, origins, Ancestry(self._ruleset, origins))
        return _shown(found, self._rules.get(found.rule))


def _shown(found: Explained, rule: Rule | None) -> dict[str, Any]:
    body = _shortened(found.as_json())
    if rule is None:
        return {"lineage": body, "rule": None}
    return {"lineage": body, "rule": _about(rule), "conditions": _conditions(rule, found)}


def _shortened(body: dict[str, Any]) -> dict[str, Any]:
    """The lineage with at most `_MOST_SOURCES` sources at each place; ``left_out`` counts the others."""
    sources = body["sources"]
    if len(sources) > _MOST_SOURCES:
        body["left_out"] = len(sources) - _MOST_SOURCES
        sources = [*sources[: _MOST_SOURCES - 1], sources[-1]]
    body["sources"] = [
        each if each["made_of"] is None else each | {"made_of": _shortened(each["made_of"])} for each in sources
    ]
    return body


def _about(rule: Rule) -> dict[str, Any]:
    within = rule.within
    return {
        "name": rule.name,
        "description": rule.description,
        "by": rule.by,
        "kind": rule.kind,
        "within": None if within is None else format_duration(within.time),
        "version": rule.content_version,
        "mermaid": mermaid(rule),
        "steps": [
            {
                "step": step.name,
                "streams": list(step.stream),
                "where": None if (condition := rule.condition(step)) is None else to_text(condition),
                "negated": step.negated,
            }
            for step in rule.steps
        ],
    }


def _conditions(rule: Rule, found: Explained) -> list[dict[str, Any]]:
    """Each part of the condition of each step, with the values that it had at the step's last event."""
    events: dict[str, list[dict[str, Any]]] = {}
    for source in found.sources:
        fields = _fields(source)
        if fields is not None and source.step is not None:
            events.setdefault(source.step, []).append(fields)
    rows: list[dict[str, Any]] = []
    for step in rule.steps:
        own = events.get(str(step.name), [])
        parts = _parts(rule.condition(step))
        rows += [{"step": step.name, "condition": to_text(part), **_judged(part, own, events)} for part in parts]
    return rows


def _judged(part: Node, own: Sequence[Mapping[str, Any]], events: Mapping[str, Sequence[Mapping[str, Any]]]) -> Any:
    """Values of the fields of one part, and whether it held; null where the events could not be read."""
    if not own:
        return {"values": {}, "held": None}
    event = own[-1]
    aggregates: list[Node] = [node for node in walk(part) if isinstance(node, Aggregate)]
    inside = {id(each) for node in aggregates for each in walk(node) if each is not node}
    plain: list[Node] = [node for node in walk(part) if isinstance(node, FieldNode) and id(node) not in inside]
    fields: dict[str, Node] = {to_text(node): node for node in (*plain, *aggregates)}
    values = {}
    for name, node in fields.items():
        try:
            values[name] = compile_scalar(node)(event, events)
        except (KeyError, TypeError, ValueError):
            values[name] = None
    try:
        held: Any = compile_scalar(part)(event, events)
    except (KeyError, TypeError, ValueError):
        held = None
    return {"values": values, "held": None if held is None else bool(held)}


def _fields(source: SourceEvent) -> dict[str, Any] | None:
    """The fields of a source as rules read them."""
    if source.fields is None:
        if source.made_of is not None and source.made_of.details:
            return {"stream": source.stream, "timestamp": source.time_us, **source.made_of.details}
        return None
    fields = dict(source.fields)
    for nested in ("metadata", "payload"):
        fields |= fields.pop(nested, None) or {}
    try:
        fields["timestamp"] = source.time_us if source.time_us is not None else time_us(fields.get("timestamp"))
    except ValueError:
        return None
    return fields | {"stream": source.stream}


def _parts(node: Node | None) -> list[Node]:
    """The parts of a condition that all must hold."""
    if node is None:
        return []
    return [each for part in node.parts for each in _parts(part)] if isinstance(node, And) else [node]

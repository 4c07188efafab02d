"""Checks a text of rules as `rules check` does, and says where in it what is."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final

from astrocyte.agents.cep.explain.automaton import automaton
from astrocyte.agents.rules.model import Rule
from astrocyte.agents.rules.problems import InvalidRules, RuleProblem
from astrocyte.agents.rules.reading.documents import read_document
from astrocyte.agents.rules.reading.yaml import KINDS
from astrocyte.pipeline.page.rules.in_force import InForce, file_label, ruleset_of_text
from astrocyte.pipeline.topology.overrides import overrides, published_label
from astrocyte.pipeline.topology.plan import checked_plan
from astrocyte.pipeline.topology.rule_files import misspelt_streams
from astrocyte.schemas.errors import AstrocyteError

__all__ = ["MOST_TEXT", "check_text", "outline"]

MOST_TEXT: Final = 200_000
"""Characters of a text that is edited."""
_MOST_SHOWN: Final = 40
"""States of an automaton that is drawn."""
_TOP: Final = re.compile(r"[^\s#\-]")


def check_text(in_force: InForce, name: str, text: str) -> dict[str, Any]:
    """Problems with their places, warnings, what the text holds and the automata of its rules.

    ``in_force`` are the rule files beside which it would run under that name.
    """
    problems: list[dict[str, Any]] = []
    warnings: list[str] = []
    rules: tuple[Rule, ...] = ()
    plan: list[str] = []
    try:
        ruleset = ruleset_of_text(text)
        rules = ruleset.rules
        plan = checked_plan(ruleset).describe()
        whole = in_force.with_text(name, text).checked(name)
        checked_plan(whole)
        warnings += misspelt_streams(whole, ())
        warnings += _about_origins(in_force, name, text, rules)
    except InvalidRules as error:
        problems += [_problem(each) for each in error.problems]
    except AstrocyteError as error:
        problems.append({"message": str(error), "text": str(error), "line": None, "column": None})
    return {
        "problems": problems,
        "warnings": warnings,
        "plan": plan,
        "outline": outline(text),
        "rules": [_about(rule) for rule in rules],
    }


def outline(text: str) -> list[dict[str, Any]]:
    """What the lists of the text hold: kind, name, and first and last line, as far as it is YAML."""
    try:
        document = read_document(text + "\n")
    except InvalidRules:
        return []
    data = document.data
    if not isinstance(data, dict):
        return []
    lines = text.split("\n")
    starts: list[tuple[int, str, str]] = []
    for section, kind in KINDS.items():
        items = data.get(section)
        for index, item in enumerate(items if isinstance(items, list) else ()):
            place = document.place((section, index))
            if place is not None and isinstance(item, dict):
                label = item.get("name") or item.get("statistic") or item.get("stream") or ""
                starts.append((place[0], kind, label if isinstance(label, str) else ", ".join(map(str, label))))
    starts.sort()
    tops = [number for number, line in enumerate(lines, 1) if _TOP.match(line)]
    found = []
    for line, kind, label in starts:
        after = [other for other, _, _ in starts if other > line] + [other for other in tops if other > line]
        last = min(after, default=len(lines) + 1) - 1
        while last > line and (not lines[last - 1].strip() or lines[last - 1].lstrip().startswith("#")):
            last -= 1
        found.append({"kind": kind, "name": label, "line": line, "last": last})
    return found


def _about_origins(in_force: InForce, name: str, text: str, rules: tuple[Rule, ...]) -> Iterator[str]:
    """Sentences on rules of other files that the text overrides, and on rules that it does not end."""
    before, changed = in_force.origins(), in_force.with_text(name, text)
    after, labels = changed.origins(), {file_label(name), published_label(name)}
    once = "once it is published, this text overrides it" if in_force.publishes else "this text overrides it"
    for each in overrides(after):
        others = [label for label in each.losers if label not in labels]
        if each.winner in labels and others:
            now = before[each.kind, each.name][-1]
            effect = f"which is in force now; {once}" if now in others else "which this one overrides"
            yield f"{each.kind} {each.name!r} is also in {now if now in others else ' and '.join(others)}, {effect}"
    gone = _names(in_force, name) - {rule.name for rule in rules}
    for rule in sorted(gone & {rule for kind, rule in after if kind == "rule"}):
        yield f"rule {rule!r} is not in the text any more and stays in force: {after['rule', rule][-1]} has it"


def _names(in_force: InForce, name: str) -> set[str]:
    """Rules of the text that counts now under that name; none where it is not valid."""
    text = in_force.text(name)
    try:
        return set() if text is None else {rule.name for rule in ruleset_of_text(text).rules}
    except AstrocyteError:
        return set()


def _problem(problem: RuleProblem) -> dict[str, Any]:
    place = {"line": problem.line, "column": problem.column}
    return place | {"message": problem.message, "text": str(problem), "rule": problem.rule, "field": problem.field}


def _about(rule: Rule) -> dict[str, Any]:
    graph = automaton(rule)
    drawn = len(graph.nodes) <= _MOST_SHOWN
    return {
        "name": rule.name,
        "version": rule.content_version,
        "severity": None if rule.alert is None else rule.alert.severity,
        "description": rule.description,
        "remarks": [*graph.remarks, *([graph.within] if graph.within else [])],
        "states": len(graph.nodes),
        "nodes": [{"name": each.name, "kind": each.kind, "lines": each.lines} for each in graph.nodes if drawn],
        "edges": [
            {"source": each.source, "target": each.target, "kind": each.kind, "text": each.text}
            for each in graph.edges
            if drawn
        ],
    }

"""Matches of events that were pushed one at a time, made without frames.

The values are those that `agents.matches.outputs` computes over columns; here the events are mappings, and expressions
are the closures of `agents.expressions.scalar`, built once a rule.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from astrocyte.agents.cep.match_columns import TIMEOUT, MatchBatch
from astrocyte.agents.cep.matcher import Matcher
from astrocyte.agents.engine.arrival.provisional import own_time_us
from astrocyte.agents.expressions.nodes import Node
from astrocyte.agents.expressions.numbers import is_number
from astrocyte.agents.expressions.scalar import Evaluate, compile_scalar
from astrocyte.agents.ingest.faults import reason_of
from astrocyte.agents.matches.table import Match, MatchAlert, MatchedEvent
from astrocyte.agents.rules.model import Rule
from astrocyte.schemas.ids import event_ids, format_ids, match_ids, parse_ids
from astrocyte.schemas.values.single import key_text

__all__ = ["Recent", "Singles", "single_matches"]

KEEP: Final = 65_536


@dataclass(frozen=True, slots=True)
class Recent:
    """One event that was pushed alone, with its own id, or its number among those of its stream."""

    stream: str
    event: Mapping[str, Any]
    number: int | str


class Singles:
    """Events pushed alone that a match may still name, by handle."""

    def __init__(self) -> None:
        self._events: dict[int, Recent] = {}
        self._purge_at = KEEP
        self._values: dict[tuple[str, str, bool], _Values] = {}

    def values(self, rule: Rule, *, timed_out: bool) -> _Values:
        """Closures of the rule."""
        name = (rule.name, rule.content_version, timed_out)
        found = self._values.get(name)
        if found is None:
            found = self._values[name] = _Values(rule, timed_out=timed_out)
        return found

    def add(self, ref: int, recent: Recent, matcher: Matcher) -> None:
        """Keep an event; events that the matcher no longer refers to are released from time to time."""
        self._events[ref] = recent
        if len(self._events) > self._purge_at:
            live = matcher.live_refs().tolist()
            self._events = {ref: self._events[ref] for ref in live if ref in self._events}
            self._purge_at = max(KEEP, 2 * len(self._events))

    def find(self, refs: Sequence[int]) -> list[Recent] | None:
        """Events with these handles; None where one came in a frame."""
        found = [self._events.get(ref) for ref in refs]
        return None if None in found else [each for each in found if each is not None]

    def clear(self) -> None:
        """Keep no event."""
        self._events.clear()


class _Values:
    """Closures of one rule for its matches, or for its timeouts."""

    def __init__(self, rule: Rule, *, timed_out: bool) -> None:
        nodes = rule.timeout_emit_nodes if timed_out else rule.emit_nodes
        self.emit = {name: compile_scalar(node) for name, node in nodes.items()}
        confidence = nodes.get("confidence") if timed_out else rule.confidence_node
        self.confidence = None if confidence is None else compile_scalar(confidence)
        alert = rule.alert if not timed_out else rule.on_timeout.alert if rule.on_timeout else None
        # Which alerts a rule with a cool-down or groups raises is decided in the ordered pass.
        self.alert = None if rule.paces_alerts else alert
        message = rule.timeout_message if timed_out else rule.message
        self.message = [(literal, _closure(node), spec) for literal, node, spec in message or ()]

    def match(self, prior: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[str, Any]:
        """The values that a `Match` takes."""
        emit = {name: value({}, prior) for name, value in self.emit.items()}
        confidence = 1.0 if self.confidence is None else self.confidence({}, prior)
        integrated = emit.get("integrated_value")
        alert = None
        if self.alert is not None:
            strings = [literal + ("" if value is None else _text(value({}, prior), spec)) for literal, value, spec in
                     self.message]  # fmt: skip
            alert = MatchAlert(self.alert.severity, "".join(strings))
        return {
            "emit": emit,
            "confidence": float(confidence) if isinstance(confidence, int | float) else 0.0,
            "integrated_value": integrated if is_number(integrated) else None,
            "alert": alert,
        }


def single_matches(
    matcher: Matcher, batch: MatchBatch, singles: Singles
) -> list[tuple[Match, bytes, list[int], list[int]]] | None:
    """Provisional matches with their binary ids, steps and handles; None where an event came in a frame."""
    made = []
    offsets, steps, refs = batch.offsets.tolist(), batch.step.tolist(), batch.ref.tolist()
    for i, index in enumerate(batch.rule.tolist()):
        rule, part = matcher.rules[index], slice(offsets[i], offsets[i + 1])
        events = singles.find(refs[part])
        if events is None:
            return None
        timed_out = bool(batch.kind[i] == TIMEOUT)
        ids = np.concatenate(
            [
                parse_ids([each.number])
                if isinstance(each.number, str)
                else event_ids("", each.stream, np.array([each.number]))
                for each in events
            ]
        )
        version = f"{rule.content_version}:timeout" if timed_out else rule.content_version
        own = match_ids(rule.name, version, ids, batch.step[part], np.array([0, len(events)]))
        strings = format_ids(np.concatenate([own, ids]))
        prior: dict[str, list[Mapping[str, Any]]] = {}
        by_step: dict[str, tuple[MatchedEvent, ...]] = {}
        for step, each, text in zip(steps[part], events, strings[1:], strict=True):
            name = rule.positive[step]
            prior.setdefault(name, []).append(each.event)
            fields = {field: value for field, value in each.event.items() if field != "timestamp"}
            event_id = each.number if isinstance(each.number, str) else text
            one = MatchedEvent(event_id, each.stream, each.event["timestamp"], fields)
            by_step[name] = (*by_step.get(name, ()), one)
        times = [each.event["timestamp"] for each in events]
        key = None if rule.by is None else events[0].event.get(rule.by)
        try:
            values = singles.values(rule, timed_out=timed_out).match(prior)
        except Exception as error:  # noqa: BLE001  an expression of the rule, evaluated on values of any kind
            values = {"failure": reason_of(f"emit or alert of rule {rule.name!r}", error)}
        found = Match(
            rule=rule.name, version=rule.content_version, id=strings[0], key=key_text(key),
            time_us=own_time_us(rule, int(batch.time_us[i]), min(times), max(times), timed_out=timed_out),
            events=by_step, timed_out=timed_out, status="provisional", **values,
        )  # fmt: skip
        made.append((found, own.tobytes(), steps[part], refs[part]))
    return made


def _closure(node: Node | None) -> Evaluate | None:
    return None if node is None else compile_scalar(node)


def _text(value: Any, spec: str) -> str:
    if value is None:
        return "null"
    return str(value) if isinstance(value, bool | str) else format(value, spec)

"""Adapter: cases in the format of tests/conformance/flink_cep_cases.json, run through the public rule model.

A case's pattern becomes a `Rule`, its expressions become expressions of the rule language, its events frames. Arrival
order, watermarks, late events and tie order are done here, as the format describes them; matching is the `Matcher`'s.
"""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from astrocyte import Engine, EngineOutput
from astrocyte.agents.cep.match_columns import TIMEOUT, MatchBatch
from astrocyte.agents.cep.matcher import Matcher
from astrocyte.agents.rules.model import Group, Rule, Step
from astrocyte.schemas.frames import Frame

STREAM = "cases"
END = 2**63 - 1
MILLISECOND = 1000

Case = Mapping[str, Any]
Match = tuple[tuple[str, tuple[int, ...]], ...]


# -- pattern to rule -----------------------------------------------------------------------------------------------


def rule_of(case: Case, *, timeouts: bool = True) -> Rule:
    """The rule of a case. Raises InvalidRule where the case's pattern is malformed.

    ``timeouts``: with its timeouts; without them it has a time limit in any case, beyond all times of the cases.
    """
    names = _Names(case["pattern"])
    skip: Any = case.get("skip", "no_skip")
    if isinstance(skip, dict):
        ((kind, stage),) = skip.items()
        skip = {kind: names.get(stage, stage)}
        if case.get("skip_throws_on_miss"):
            skip["on_missing"] = "error"
    else:
        skip = {"no_skip": "none"}.get(skip, skip.removeprefix("skip_"))
    within = case.get("within_ms")
    return Rule(
        name="case",
        by="key",
        within=f"{within}ms" if within else None if timeouts else "3650d",
        seq=_members(case["pattern"], names),
        skip=skip,
        on_timeout=True if timeouts else None,
    )


class _Names(dict[str, str]):
    """Stage names as step names of the rule language, which must be identifiers."""

    def __init__(self, pattern: Sequence[Mapping[str, Any]]) -> None:
        super().__init__()
        self._collect(pattern)

    def _collect(self, pattern: Sequence[Mapping[str, Any]]) -> None:
        for stage in pattern:
            if stage.get("group"):
                self._collect(stage["group"])
            else:
                self.setdefault(stage["name"], f"s{len(self)}")

    def back(self, name: str) -> str:
        return next(stage for stage, step in self.items() if step == name)


def _members(pattern: Sequence[Mapping[str, Any]], names: _Names) -> tuple[Step | Group, ...]:
    return tuple(_member(stage, names) for stage in pattern)


def _member(stage: Mapping[str, Any], names: _Names) -> Step | Group:
    quantifier = stage["quantifier"]
    options: dict[str, Any] = {}
    contiguity = stage["contiguity"]
    if contiguity == "not_next":
        options |= {"negated": True, "contiguity": "next"}
    elif contiguity == "not_followed_by":
        options["negated"] = True
    elif contiguity != "begin":
        options["contiguity"] = contiguity
    if (quantifier["min"], quantifier["max"]) != (1, 1):
        options |= {"min": quantifier["min"], "max": quantifier["max"]}
    options |= {name: True for name in ("optional", "greedy", "consecutive", "combinations") if quantifier.get(name)}
    if quantifier.get("loop_gap_ms"):
        options["gap"] = f"{quantifier['loop_gap_ms']}ms"
    if stage.get("within_prev_ms"):
        options["within_prev"] = f"{stage['within_prev_ms']}ms"
    if stage.get("until"):
        options["until"] = expression_of(stage["until"], names)
    if stage.get("group"):
        return Group(seq=_members(stage["group"], names), **options)
    where = stage.get("where")
    if where is not None:
        options["where"] = expression_of(where, names)
    return Step(name=names[stage["name"]], stream=STREAM, **options)


# -- expressions ---------------------------------------------------------------------------------------------------


class _Translate(ast.NodeTransformer):
    """``sum(x.price for x in prior('s'))``, ``len(prior('s'))``, ``prior('s')[0].price`` in the rule language."""

    def __init__(self, names: Mapping[str, str]) -> None:
        self.names = names

    def stage(self, node: ast.AST) -> str | None:
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "prior":
            argument = node.args[0]
            assert isinstance(argument, ast.Constant)
            return self.names[argument.value]
        return None

    def visit_Call(self, node: ast.Call) -> ast.AST:
        if isinstance(node.func, ast.Name) and len(node.args) == 1:
            argument = node.args[0]
            if node.func.id == "len" and (stage := self.stage(argument)) is not None:
                return _call("count", ast.Name(stage))
            if isinstance(argument, ast.GeneratorExp | ast.ListComp):
                (loop,) = argument.generators
                stage = self.stage(loop.iter)
                assert stage is not None
                assert not loop.ifs
                assert isinstance(argument.elt, ast.Attribute)
                return _call(node.func.id, ast.Attribute(ast.Name(stage), _field(argument.elt.attr)))
        return self.generic_visit(node)

    def visit_Attribute(self, node: ast.Attribute) -> ast.AST:
        if isinstance(node.value, ast.Subscript) and (stage := self.stage(node.value.value)) is not None:
            index = ast.literal_eval(node.value.slice)
            return _call({0: "first", -1: "last"}[index], ast.Attribute(ast.Name(stage), _field(node.attr)))
        return self.generic_visit(node)

    def visit_Name(self, node: ast.Name) -> ast.AST:
        return ast.Name(_field(node.id))


def _call(name: str, argument: ast.expr) -> ast.Call:
    return ast.Call(ast.Name(name), [argument], [])


def _field(name: str) -> str:
    return {"type": "kind"}.get(name, name)


def expression_of(text: str, names: Mapping[str, str]) -> str:
    """The case's expression in the rule language; the field ``type`` is called ``kind`` in the frames here."""
    return ast.unparse(ast.fix_missing_locations(_Translate(names).visit(ast.parse(text, mode="eval"))))


# -- events --------------------------------------------------------------------------------------------------------


def frame_of(events: Sequence[Mapping[str, Any]], key: str | None) -> Frame:
    """The events as one frame, with all fields that occur in any of them."""
    fields = list(dict.fromkeys(name for event in events for name in event))
    columns: dict[str, Any] = {
        "timestamp": np.array([event["t"] for event in events], np.int64) * MILLISECOND,
        "key": ["all" if key is None else str(event[key]) for event in events],
        "kind": [event.get("type", "Event") for event in events],
    }
    columns |= {name: [event.get(name) for event in events] for name in fields if name != "type"}
    return Frame.from_columns(STREAM, "run", columns)


class Run:
    """One run of a case: a matcher, its snapshots, and its outputs."""

    def __init__(
        self,
        case: Case,
        *,
        batch: int | None = None,
        room: int = 4,
        rule: Rule | None = None,
        combinations: bool = True,
    ) -> None:
        self.case = case
        self.names = _Names(case["pattern"])
        self.rule = rule or rule_of(case)
        self.room = room
        self.combinations = combinations
        self.batch = batch or max(len(case["events"]), 1)
        self.matcher = self._new()
        self.matches: list[Match] = []
        self.timeouts: list[tuple[Match, int]] = []
        self.late: list[int] = []

    def _new(self) -> Matcher:
        return Matcher([self.rule], room=self.room, combinations=self.combinations)

    def run(self) -> Run:
        """Feed everything; afterwards the state is consistent (`check_leaks`)."""
        if not self.case["events"]:
            return self
        self.frame = frame_of(self.case["events"], self.case.get("key"))
        if "stream" in self.case:
            self._run_stream(self.case["stream"])
        else:
            self._feed(range(len(self.case["events"])))
        if self.case.get("final_advance_to") is not None:
            self._collect(self.matcher.advance(self.case["final_advance_to"] * MILLISECOND))
        return self

    def _run_stream(self, stream: Iterable[Mapping[str, Any]]) -> None:
        events, tie = self.case["events"], self.case.get("tie_order")
        buffered: list[int] = []
        watermark = -(2**60)
        for item in stream:
            if "ev" in item:
                index = item["ev"]
                (self.late if events[index]["t"] <= watermark else buffered).append(index)
            elif "wm" in item:
                watermark = max(watermark, item["wm"])
                ready = [index for index in buffered if events[index]["t"] <= watermark]
                ready.sort(key=lambda index: (events[index]["t"], events[index][tie] if tie else 0))
                buffered = [index for index in buffered if events[index]["t"] > watermark]
                self._feed(ready)
                self._collect(self.matcher.advance(min(watermark, 2**52) * MILLISECOND))
            elif "snapshot" in item:
                snapshot = {name: array.copy() for name, array in self.matcher.snapshot().items()}
                self.matcher = self._new()
                self.matcher.restore(snapshot)
            else:
                raise AssertionError(f"unknown item of a stream: {item}")

    def _feed(self, order: Iterable[int]) -> None:
        rows = np.array(list(order), np.int64)
        for start in range(0, len(rows), self.batch):
            part = rows[start : start + self.batch]
            prepared = self.matcher.prepare(self.frame.take(part))
            prepared = type(prepared)(
                prepared.t, part[prepared.ref], prepared.group, prepared.key, prepared.mask, prepared.columns,
                prepared.lows,
            )  # fmt: skip
            self._collect(self.matcher.process(prepared))
            if len(part):
                self._collect(self.matcher.advance(self.case["events"][part[-1]]["t"] * MILLISECOND))

    def _collect(self, batch: MatchBatch) -> None:
        for index in range(len(batch)):
            found: dict[str, list[int]] = {}
            for row in range(batch.offsets[index], batch.offsets[index + 1]):
                name = self.names.back(self.rule.positive[batch.step[row]])
                found.setdefault(name, []).append(int(batch.ref[row]))
            match = tuple(sorted((name, tuple(refs)) for name, refs in found.items()))
            if batch.kind[index] == TIMEOUT:
                self.timeouts.append((match, int(batch.time_us[index]) // MILLISECOND))
            else:
                self.matches.append(match)

    def check_leaks(self) -> None:
        """Everything the pools count as live can be reached, and after the end of input nothing is left."""
        self.matcher.flush()
        size = self.matcher._sequence.size()
        assert (size["runs"], size["events"], size["timers"]) == (0, 0, 0), f"left in the state: {size}"
        assert self.matcher.partials() == 0
        assert self.matcher.low_water_us() is None
        assert len(self.matcher.live_refs()) == 0


class EngineRun(Run):
    """The same through the public `Engine`, which orders events, detects late ones and takes its own snapshots."""

    def __init__(self, case: Case, *, batch: int | None = None, rule: Rule | None = None) -> None:
        super().__init__(case, batch=batch, rule=rule)
        self.engine = Engine(self.rule)

    def run(self) -> Run:
        """Feed everything."""
        events = self.case["events"]
        if not events:
            return self
        # Events of one time are ordered by their sequence numbers: arrival, or the case's own order.
        tie = self.case.get("tie_order")
        order = sorted(range(len(events)), key=lambda index: events[index][tie]) if tie else range(len(events))
        numbers = np.empty(len(events), np.int64)
        numbers[list(order)] = np.arange(len(events))
        whole = frame_of(events, self.case.get("key"))
        columns = dict(zip(whole.batch.schema.names, whole.batch.columns, strict=True))
        columns |= {"seq": numbers, "case_index": np.arange(len(events))}
        self.frame = Frame.from_columns(STREAM, "run", columns)
        stream = self.case.get("stream") or [
            item for index, event in enumerate(events) for item in ({"ev": index}, {"before": event["t"]})
        ]
        self._run_stream(stream)
        if "stream" not in self.case:
            self._advance(events[-1]["t"])
        if self.case.get("final_advance_to") is not None:
            self._advance(self.case["final_advance_to"])
        return self

    def _run_stream(self, stream: Iterable[Mapping[str, Any]]) -> None:
        waiting: list[int] = []
        for item in stream:
            if "ev" in item:
                waiting.append(item["ev"])
                continue
            for start in range(0, len(waiting), self.batch):
                self.engine.push(self.frame.take(np.array(waiting[start : start + self.batch])))
            waiting = []
            if "wm" in item:
                self._advance(item["wm"])
            elif "before" in item:
                self._output(self.engine.advance(item["before"] * MILLISECOND))
            else:
                snapshot = self.engine.snapshot()
                self.engine = Engine(self.rule)
                self.engine.restore(snapshot)

    def _advance(self, watermark: int) -> None:
        """The cases' watermark includes its own instant, the engine's does not."""
        self._output(self.engine.advance(min(watermark, 2**50) * MILLISECOND + 1))

    def _output(self, output: EngineOutput) -> None:
        for frame in output.late:
            self.late += frame.column("case_index").to_pylist()
        for match in output.matches:
            found = tuple(
                sorted(
                    (self.names.back(step), tuple(event.fields["case_index"] for event in events))
                    for step, events in match.events.items()
                    if events
                )
            )
            if match.timed_out:
                self.timeouts.append((found, match.time_us // MILLISECOND))
            else:
                self.matches.append(found)


def expected_of(entries: Iterable[Mapping[str, Sequence[int]]]) -> Counter[Match]:
    """Expected matches in the form of `Run.matches`."""
    return Counter(tuple(sorted((name, tuple(refs)) for name, refs in entry.items() if refs)) for entry in entries)


def asserted_of(case: Case, matches: Iterable[Match]) -> Counter[tuple[int, ...]]:
    """Matches as multisets of event contents, the strictest reading of what the original test asserts."""
    first: dict[str, int] = {}
    contents = [repr(sorted((name, value) for name, value in event.items() if name != "t")) for event in case["events"]]
    canonical = [first.setdefault(content, index) for index, content in enumerate(contents)]
    return Counter(tuple(sorted(canonical[ref] for _, refs in match for ref in refs)) for match in matches)

"""The docs page "Rules" is true: every example is run and gives the documented matches, every option is on it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

from astrocyte import Engine, EngineOutput, InvalidRules, Match, MatchedEvent, RuleSet, load_rules, match
from astrocyte.agents.expressions.parser import MATCH_AGGREGATES
from astrocyte.agents.ingest.dicts import frames_of
from astrocyte.agents.matches.grouped import GroupedAlert
from astrocyte.agents.rules.junctions import Forms
from astrocyte.agents.rules.model import (
    Alert,
    AlertGroup,
    Group,
    Junction,
    MaxPartials,
    OnTimeout,
    Overload,
    Rule,
    Skip,
    Step,
    Stream,
    Window,
    Within,
)
from astrocyte.agents.rules.select import AGGREGATES
from astrocyte.agents.rules.validators import Validator
from astrocyte.schemas.frames import Frame

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "rules.md").read_text(encoding="utf-8")
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
EVENT = re.compile(r"(?P<name>(?P<stream>[A-Za-z_]+)\d+)@(?P<time>[\d.]+)(/(?P<key>\w+))?(\{(?P<fields>[^}]*)\})?")
WATERMARK = re.compile(r"\|(?P<time>[\d.]+)")
SECOND = 1_000_000


class Example(NamedTuple):
    """A rule block and one line of the block after it: events in, matches out."""

    line: int
    rules: str
    events: str
    matches: str


def examples() -> Iterator[Example]:
    blocks = list(BLOCK.finditer(PAGE))
    for block, after in pairwise(blocks):
        if block[1] == "yaml" and after[1] == "text":
            line = PAGE[: after.start()].count("\n") + 2
            cases = re.findall(r"(.*?)->(.*?)(?=^\S.*->|\Z)", after[2], re.DOTALL | re.MULTILINE)
            for events, matches in cases:
                yield Example(line, block[2], events, " ".join(matches.split()))


EXAMPLES = list(examples())


# -- from the page's notation ----------------------------------------------------------------------------------------


def rules_of(text: str) -> RuleSet:
    data = yaml.safe_load(text)
    return load_rules(data if data.keys() & {"rules", "windows"} else {"rules": [{"name": "example", **data}]})


def value_of(text: str) -> Any:
    try:
        return json.loads(text.replace("nan", "NaN"))
    except ValueError:
        return text


def steps_of(text: str) -> Iterator[dict[str, Any] | int]:
    """Events as mappings, watermarks as integers."""
    for token in text.split():
        if found := WATERMARK.fullmatch(token):
            yield round(float(found["time"]) * SECOND)
            continue
        found = EVENT.fullmatch(token)
        assert found, f"{token!r} is no event"
        fields = dict(pair.split("=") for pair in (found["fields"] or "").split(",") if pair)
        yield {
            "stream": found["stream"],
            "timestamp": round(float(found["time"]) * SECOND),
            "key": found["key"] or "k",
            "label": found["name"],
            **{name: value_of(value) for name, value in fields.items()},
        }


# -- to the page's notation ------------------------------------------------------------------------------------------


def seconds(time_us: int) -> str:
    return f"{time_us / SECOND:.6f}".rstrip("0").rstrip(".")


def values(found: dict[str, Any]) -> str:
    shown = (f"{name}={round(value, 6) if isinstance(value, float) else value}" for name, value in found.items())
    return "{" + ", ".join(shown).replace("None", "null") + "}" if found else ""


def window_name(stream: str, fields: Any) -> str:
    return f"{stream}[{seconds(fields['window_start'])},{seconds(fields['window_end'])})"


def label(event: MatchedEvent) -> str:
    if "window_start" in event.fields:
        return window_name(event.stream, event.fields)
    return str(event.fields.get("label") or event.stream)


def shown(found: Match, rules: RuleSet) -> str:
    rule = next(rule for rule in rules.rules if rule.name == found.rule)
    steps = (found.events.get(step, ()) for step in rule.positive)
    inside = ", ".join(" ".join(label(event) for event in events) or "-" for events in steps)
    text = f"{found.rule if len(rules.rules) > 1 else ''}({inside})"
    if found.timed_out:
        text = f"timeout{text}"
    if found.status != "final":
        text = f"{found.status}{text}"
    if found.time_us != max(event.timestamp_us for events in found.events.values() for event in events):
        text += f"@{seconds(found.time_us)}"
    text += values(dict(found.emit))
    if rule.confidence is not None:
        text += f" confidence={found.confidence:g}"
    if found.alert is not None:
        text += f' {found.alert.severity}: "{found.alert.message}"'
    return text


def shown_group(alert: GroupedAlert) -> str:
    return f'grouped@{seconds(alert.time_us)} {alert.severity}: "{alert.message}" of {", ".join(alert.keys)}'


def results_of(frame: Frame, window: Window) -> Iterator[str]:
    for row in frame.rows():
        name = window_name(window.name, row)
        name += f"/{row['key']}" if row["key"] != "k" else ""
        name += f"#{row['revision']}" if row["revision"] else ""
        name += "" if row["final"] else "~"
        yield name + values({field: row[field] for field in window.select})


def settle(engine: Engine, output: EngineOutput) -> Iterator[str]:
    yield from (shown(found, engine.ruleset) for found in output.matches.matches())
    yield from map(shown_group, output.grouped)
    windows = {window.name: window for window in engine.ruleset.windows}
    for frame in output.frames:
        yield from results_of(frame, windows[frame.stream])
    for frame in output.late:
        yield from (f"late:{row['label']}" for row in frame.rows())
    yield from (f'refused:{event.fields["label"]} "{event.reason}"' for event in output.refused)


def step_by_step(rules: RuleSet, events: list[dict[str, Any] | int], *, eventual: bool) -> Iterator[str]:
    engine = Engine(rules)
    for event in events:
        if isinstance(event, int):
            yield from settle(engine, engine.advance(event))
        elif eventual:
            yield from (shown(found, rules) for found in engine.push_event(event))
        else:
            for frame in frames_of([event], []):
                refused = engine.refused
                engine.push(frame)
                if engine.refused > refused:
                    yield from settle(engine, engine.advance(engine.watermark_us))
    yield from settle(engine, engine.flush())
    assert not any(engine.size().values())


def run(example: Example) -> str:
    try:
        rules = rules_of(example.rules)
    except InvalidRules as error:
        return "refused: " + "; ".join(str(replace(each, rule=None, line=None, column=None)) for each in error.problems)
    events = list(steps_of(example.events))
    eventual = any(rule.consistency == "eventual" for rule in rules.rules)
    if eventual or rules.windows or rules.validators or any(isinstance(event, int) for event in events):
        found = list(step_by_step(rules, events, eventual=eventual))
    else:
        matches = match(rules, [event for event in events if isinstance(event, dict)])
        found = [*(shown(each, rules) for each in matches), *map(shown_group, matches.grouped)]
    return " ".join(found) or "none"


# -- tests -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: f"line-{example.line}-{example.events.strip()[:40]}")
def test_an_example_gives_the_documented_matches(example):
    assert run(example) == example.matches


def test_every_rule_on_the_page_is_followed_by_its_matches():
    blocks = [block[1] for block in BLOCK.finditer(PAGE)]
    assert all(after == "text" for kind, after in zip(blocks, [*blocks[1:], ""], strict=True) if kind == "yaml")
    assert len(EXAMPLES) > 60


def test_the_programs_on_the_page_print_the_documented_output():
    blocks = list(BLOCK.finditer(PAGE))
    programs = [(block[2], after[2]) for block, after in pairwise(blocks) if block[1] == "python"]
    assert programs
    for program, printed in programs:
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, check=False)
        assert done.returncode == 0, done.stderr
        assert done.stdout == printed


def table_rows() -> list[tuple[dict[str, Any], str]]:
    """Rules and results of the table of pairings."""
    section = PAGE.split("<!-- pairings -->")[1].split("<!-- end -->")[0]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in section.strip().splitlines()]
    return [(yaml.safe_load("{" + row[0].strip("`") + "}"), row[1]) for row in rows if row[0].startswith("`")]


@pytest.mark.parametrize(("form", "expected"), table_rows(), ids=str)
def test_the_table_of_pairings_is_what_the_engine_gives(form, expected):
    ((kind, members),) = ((name, form[name]) for name in ("all", "seq") if name in form)
    steps = [{"as": each, "stream": each} if isinstance(each, str) else each for each in members]
    rules = rules_of(yaml.safe_dump({"within": "10s", **form, kind: steps}))
    events = [event for event in steps_of("A1@0 A2@1 B1@2 B2@3") if isinstance(event, dict)]
    found = [
        "".join(label(event) for events in each.events.values() for event in events) for each in match(rules, events)
    ]
    assert ", ".join(found) == expected


@pytest.mark.parametrize(
    "model",
    [
        Rule,
        Step,
        Group,
        Within,
        MaxPartials,
        Skip,
        Alert,
        AlertGroup,
        OnTimeout,
        Stream,
        Overload,
        Validator,
        Window,
        Junction,
        Forms,
    ],
)
def test_every_option_of_the_language_is_on_the_page(model):
    for name, info in model.model_fields.items():
        if (model, name) not in {(Step, "negated"), (Rule, "emit_mode"), (Skip, "kind"), (Skip, "step")}:
            assert f"`{info.serialization_alias or name}" in PAGE, f"{model.__name__}.{name}"


@pytest.mark.parametrize("function", sorted(MATCH_AGGREGATES | AGGREGATES))
def test_every_function_is_on_the_page(function):
    assert f"`{function}" in PAGE

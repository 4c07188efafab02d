"""Flink CEP's own tests as data (flink_cep_cases.json says where they are from), run through the rule model.

``CEP_CASES=FILE pytest tests/conformance`` runs another file of the same format.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from astrocyte.agents.cep.combinations.program import why_not_combinations
from astrocyte.agents.cep.sequence.operator import SkipError
from astrocyte.agents.rules.model import Rule
from astrocyte.schemas.errors import InvalidRule
from tests.support.cep_cases import EngineRun, Run, asserted_of, expected_of, rule_of

FILE = Path(os.environ.get("CEP_CASES", Path(__file__).parent / "flink_cep_cases.json"))
DATA: dict[str, Any] = json.loads(FILE.read_text())

DIFFERENT = {
    "loop_gap_ms": "the gap of a loop lies between its elements here, and nowhere else; Flink applies it to the wait "
    "before the first element too, and not to every wait between elements (docs: Rules, differences from Flink)",
}
"""Reasons of cases that are marked ``quirk`` and may differ here, by the start of the mark."""


def _ids(section: str) -> list[Any]:
    return [pytest.param(case, id=case["name"]) for case in DATA.get(section, [])]


@pytest.mark.parametrize(
    ("kind", "batch"), [(Run, 1), (Run, 3), (Run, None), (EngineRun, 2)], ids=["one", "three", "all", "engine"]
)
@pytest.mark.parametrize("case", _ids("cases"))
def test_case_gives_the_expected_matches(case: dict[str, Any], kind: type[Run], batch: int | None) -> None:
    run = kind(case, batch=batch).run()
    known = next((reason for mark, reason in DIFFERENT.items() if case.get("quirk", "").startswith(mark)), None)
    if known is not None and Counter(run.matches) != expected_of(case["expected"]):
        run.check_leaks()
        pytest.xfail(known)
    assert Counter(run.matches) == expected_of(case["expected"])
    if "asserted" in case:
        assert asserted_of(case, run.matches) == Counter(tuple(sorted(each)) for each in case["asserted"])
    if "timeouts" in case:
        wanted = Counter((next(iter(expected_of([each["match"]]))), each["t"]) for each in case["timeouts"])
        assert Counter(run.timeouts) == wanted
    if "late" in case:
        assert run.late == case["late"]
    if "asserted_live_partials" in case and kind is Run:
        assert run.matcher._sequence.live_partials() == case["asserted_live_partials"]
    run.check_leaks()


def _combining() -> list[Any]:
    """Cases of which every combination of events matches, which have an operator of their own without timeouts."""
    found = [(case, rule_of(case, timeouts=False)) for case in DATA.get("cases", [])]
    return [pytest.param(case, rule, id=case["name"]) for case, rule in found if why_not_combinations(rule) is None]


@pytest.mark.parametrize("batch", [1, 3, None], ids=["one", "three", "all"])
@pytest.mark.parametrize(("case", "rule"), _combining())
def test_combinations_are_those_of_the_case_and_of_the_automaton(
    case: dict[str, Any], rule: Rule, batch: int | None
) -> None:
    own = Run(case, batch=batch, rule=rule).run()
    automaton = Run(case, batch=batch, rule=rule, combinations=False).run()
    assert own.matches == automaton.matches
    for run in (own, automaton, EngineRun(case, batch=batch, rule=rule).run()):
        assert Counter(run.matches) == expected_of(case["expected"])
        run.check_leaks()


@pytest.mark.parametrize("case", _ids("state_cases"))
def test_case_leaves_the_asserted_partial_matches(case: dict[str, Any]) -> None:
    run = Run(case).run()
    assert run.matcher._sequence.live_partials() == case["asserted_live_partials"]
    run.check_leaks()


@pytest.mark.parametrize("case", _ids("error_cases"))
def test_case_is_refused(case: dict[str, Any]) -> None:
    if case["error"] == "malformed":
        with pytest.raises(InvalidRule):
            rule_of(case)
    else:
        with pytest.raises(SkipError):
            Run(case).run()

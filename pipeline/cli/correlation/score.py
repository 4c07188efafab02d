"""``astrocyte score``: rules against planted anomalies, in recorded logs or over several seeds of a scenario."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from astrocyte.pipeline.cli.options import (
    AsJson,
    Lateness,
    Rules,
    Show,
    event_time,
    read,
    refuse_swapped,
    scenario_names,
    simulated,
)
from astrocyte.pipeline.console import counted, print_json, printable, progress_bar
from astrocyte.schemas.errors import InvalidSettings

if TYPE_CHECKING:
    from astrocyte.pipeline.analysis.score import Score
    from astrocyte.pipeline.analysis.trials import Trials

__all__ = ["score_command", "score_lines"]

_HEAD = f"{'rule':<32} {'planted':>8} {'found':>8} {'recall':>7} {'made':>9} {'precision':>9}  delay: median, p95"
_TRIAL_HEAD = (
    f"{'rule':<26} {'planted':<32} {'plants':>6} {'found':>6} {'recall':>6} {'alerts':>6} {'precision':>9} "
    f"{'delay: median, longest':>22} {'false alarms an hour':>21}"
)


def score_command(
    *,
    rules: Rules,
    paths: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[FILE...]", help="Recorded logs; without any, with --seeds, the scenario of that name."
        ),
    ] = None,
    seeds: Annotated[
        int | None, typer.Option(min=1, help="Simulate the scenario with this many seeds, with anomalies and without.")
    ] = None,
    seconds: Annotated[float, typer.Option(min=1.0, help="With --seeds: simulated time of each world.")] = 120.0,
    first_seed: Annotated[int, typer.Option("--seed", min=0, help="With --seeds: the first one.")] = 0,
    size: Annotated[int | None, typer.Option(min=1, help="With --seeds: size of the worlds.")] = None,
    scenario: Annotated[
        str | None,
        typer.Option(
            help="With --seeds: scenario to simulate; default: the one named like the rules.",
            autocompletion=scenario_names,
        ),
    ] = None,
    steered: Annotated[
        bool,
        typer.Option("--controllers", help="With --seeds: controllers steer the worlds, as in a demo."),
    ] = False,
    as_markdown: Annotated[
        bool, typer.Option("--markdown", help="With --seeds: print the rows of a Markdown table.")
    ] = False,
    against_all: Annotated[
        bool, typer.Option("--any", help="Score every rule against all planted anomalies, not only those that name it.")
    ] = False,
    slack: Annotated[
        str, typer.Option(metavar="T", help="How long after a planted interval an alert still counts.")
    ] = "10s",
    lateness: Lateness = None,
    show: Show = 3,
    as_json: AsJson = False,
) -> None:
    """Show precision, recall and delay of rules, measured against planted anomalies (stream truth).

    With --seeds the worlds are simulated here, each a second time without anomalies, which gives the false alarms.
    """
    from astrocyte.pipeline.kafka.offsets import parse_span_us

    slack_us = parse_span_us(slack)
    if seeds is not None:
        if paths:
            raise InvalidSettings("--seeds simulates the worlds itself; give either --seeds or recorded logs")
        worlds = range(first_seed, first_seed + seeds)
        trials = _trials(
            rules, scenario or rules, worlds, seconds=seconds, size=size, steered=steered, slack_us=slack_us
        )
        if as_json:
            print_json(trials.as_json())
            return
        for line in _markdown(trials) if as_markdown else _trial_lines(trials, show):
            sys.stdout.write(printable(line) + "\n")
        return
    if not paths:
        raise InvalidSettings(
            f"give recorded logs to score, or simulate the scenario: astrocyte score {rules} --seeds 5"
        )
    from astrocyte.pipeline.analysis.score import score

    refuse_swapped(rules, paths)
    refused: list[str] = []
    scores = score(
        read(rules), paths, **event_time(lateness), slack_us=slack_us, against_all=against_all,
        on_refused=refused.extend,
    )  # fmt: skip
    if as_json:
        print_json({"rules": [each.as_json(show) for each in scores], "refused": refused})
        return
    for line in (*score_lines(scores, show), *refused):
        sys.stdout.write(printable(line) + "\n")


def score_lines(scores: list[Score], show: int) -> list[str]:
    """The table of scores, what was missed, and what could not be scored."""
    lines, unscored = [_HEAD], []
    for each in scores:
        figures = each.as_json(show)
        if each.absent:
            kinds = ", ".join(sorted({missed.kind for missed in each.missed}))
            named = f"rule {each.rule!r} is not in the rule files" if each.rule else "they name no rule"
            unscored.append(f"not scored: {each.planted:,} anomalies of kind {kinds}; {named}")
            continue
        if not each.planted:
            unscored.append(f"not scored: {each.rule} made {each.matches:,}; no planted anomaly names it")
            continue
        delay = figures["delay_s"]
        delay_text = "-" if delay is None else f"{delay['p50']:.3f} s, {delay['p95']:.3f} s"
        lines.append(
            f"{each.rule:<32} {each.planted:>8,} {each.found:>8,} {_share(each.recall):>7} {each.matches:>9,} "
            f"{_share(each.precision):>9}  {delay_text}"
        )
        lines += [f"  missed: {lost['kind']} at {lost['timestamp']}, key {lost['key']}" for lost in figures["missed"]]
    return lines + unscored


def _trials(
    rules: str, scenario: str, seeds: range, *, seconds: float, size: int | None, steered: bool, slack_us: int
) -> Trials:
    simulated(scenario)
    from astrocyte.pipeline.analysis.trials import run_trials
    from astrocyte.pipeline.simulation.compilations import keep_compilations

    keep_compilations()
    with progress_bar(f"scoring {scenario}") as move:
        return run_trials(
            scenario, read(rules), seeds=seeds, seconds=seconds, size=size, steered=steered, slack_us=slack_us,
            done=lambda count: move(count, len(seeds)),
        )  # fmt: skip


def _trial_lines(trials: Trials, show: int) -> list[str]:
    figures = trials.as_json()
    worlds = counted(trials.seeds, "world")
    lines = [
        f"{trials.scenario}: {worlds} of {trials.seconds:g} s with anomalies, and as many without"
        + (", steered by controllers" if trials.steered else ""),
        _TRIAL_HEAD,
    ]
    for each in figures["rules"]:
        median, most = each["median_delay_s"], each["max_delay_s"]
        delay = "-" if median is None else f"{median:.1f} s, {most:.1f} s"
        lines.append(
            f"{each['rule']:<26} {', '.join(each['kinds']) or '-':<32} {each['planted']:>6,} {each['found']:>6,} "
            f"{_share(each['recall']):>6} {each['alerts']:>6,} {_share(each['precision']):>9} {delay:>22} "
            f"{each['false_alarms_per_hour']:>21.1f}"
        )
        missed = [lost for lost in figures["missed"] if lost["rule"] == each["rule"]]
        lines += [f"  missed: {lost['kind']} at {lost['timestamp']}, seed {lost['seed']}" for lost in missed[:show]]
    return lines + _not_scored(trials)


def _markdown(trials: Trials) -> list[str]:
    """Rows of the table in docs/figures.md, and below it what was not scored."""
    figures = trials.as_json()
    world = trials.scenario + (f", size {trials.size:,}" if trials.size is not None else "")
    world += ", controllers" if trials.steered else ""
    lines = []
    for each in figures["rules"]:
        median, most = each["median_delay_s"], each["max_delay_s"]
        found = f"{each['found']:,} of {each['planted']:,}" if each["planted"] else "-"
        precision = "-" if each["precision"] is None else f"{each['precision']:.3g}"
        delay = "-" if median is None else f"{median:.2g} s, {most:.2g} s"
        lines.append(
            f"| {world} | {each['rule']} | {found} | {precision} | {delay} | {each['false_alarms_per_hour']:.3g} |"
        )
    return lines + _not_scored(trials)


def _not_scored(trials: Trials) -> list[str]:
    refused = [f"in one world {line}" if number == 0 else line for number, line in enumerate(trials.refused)]
    return [f"not scored: {line}" for line in trials.unscored] + refused


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"

"""``match --disorder``: precision, recall and delay of rules against how much the order of arrival is disturbed."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from astrocyte.pipeline.console import counted, pipe_may_close, print_json, say
from astrocyte.schemas.errors import InvalidSettings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from astrocyte.agents.rules.model import RuleSet
    from astrocyte.pipeline.analysis.history.disorder import Disordered, RuleUnderDisorder
    from astrocyte.pipeline.analysis.report.palette import Palette

__all__ = ["DEFAULT_AMOUNTS", "measure_disorder"]

DEFAULT_AMOUNTS: Final = "0s,10ms,100ms,500ms,1s,2s"
_EVERY_US: Final = 10_000
_MOST_EVENTS: Final = 20_000_000
_HEAD: Final = (
    "disorder", "late", "on arrival", "precision", "recall", "retracted", "delay p50, p95", "in order", "recall",
    "delay p50, p95",
)  # fmt: skip


def measure_disorder(
    ruleset: RuleSet,
    paths: Sequence[str],
    amounts: str,
    *,
    stream: str | None,
    event_time: Any,
    as_json: bool,
    plot: str | None,
) -> None:
    """Print a table, or JSON, and write the figure. Raises InvalidSettings, InvalidLog, InvalidRule."""
    from astrocyte.agents.rules.steps import format_duration
    from astrocyte.pipeline.analysis.history.disorder import early_rules, run_disordered
    from astrocyte.pipeline.analysis.history.tapes import History, TooLarge
    from astrocyte.pipeline.analysis.inputs import Inputs

    amounts_us = _amounts(amounts)
    if plot is not None:
        _check_plot(plot)
    rules = early_rules(ruleset)
    left = [rule.name for rule in ruleset.rules if rule.name not in {each.name for each in rules.rules}]
    if not rules.rules:
        raise InvalidSettings("no rule reads incoming streams alone, so none can be matched on arrival")
    lateness_us = event_time["lateness_us"]
    history = History(
        lambda own: Inputs(own, paths, stream=stream, domains=event_time["domains"]),
        max(lateness_us, *amounts_us), event_time["clock_tolerance_us"], _MOST_EVENTS,
    )  # fmt: skip
    try:
        tapes = history.tapes(rules)
    except TooLarge:
        raise InvalidSettings(
            f"the input holds more than {_MOST_EVENTS:,} events; cut a part of it with astrocyte record or replay"
        ) from None
    found = []
    for each in run_disordered(rules, tapes, amounts_us, lateness_us=lateness_us, every_us=_EVERY_US):
        found.append(each)
        if not as_json:
            _print_row(each, first=len(found) == 1)
    if as_json:
        print_json({"lateness_s": lateness_us / 1e6, "amounts": [each.as_json() for each in found]})
    about = f"{counted(found[0].events, 'event')} of {counted(len(rules.rules), 'rule')}"
    say(f"{about}, lateness {format_duration(lateness_us)}; delays in seconds of event time, read every 10 ms")
    if left:
        say(f"left out, since they read results, which are never made on arrival: {', '.join(left)}")
    if plot is not None:
        from astrocyte.pipeline.analysis.report.plotting import as_png

        Path(plot).write_bytes(as_png(_figure(found)))
        say(f"the figure is in {plot}")


def _amounts(text: str) -> list[int]:
    from astrocyte.agents.rules.steps import parse_duration

    found = []
    for each in text.split(","):
        try:
            found.append(0 if each.strip() in ("0", "0s") else int(parse_duration(each.strip())))
        except ValueError as error:
            raise InvalidSettings(f"--disorder: {error}; expected durations such as {DEFAULT_AMOUNTS}") from None
    return sorted(set(found))


def _check_plot(path: str) -> None:
    from astrocyte.pipeline.analysis.report.plotting import require_matplotlib

    require_matplotlib()
    if not path.lower().endswith(".png"):
        raise InvalidSettings(f"--plot {path}: the figure is a PNG; give a name that ends in .png")
    if not Path(path).absolute().parent.is_dir():
        raise InvalidSettings(f"--plot {path}: there is no folder {Path(path).absolute().parent}")


def _print_row(each: Disordered, *, first: bool) -> None:
    from astrocyte.agents.rules.steps import format_duration

    whole = each.together()
    cells = (
        format_duration(each.amount_us) if each.amount_us else "none", f"{each.late:,}", f"{len(whole.early):,}",
        _share(whole.precision), _share(whole.recall), _share(whole.corrected), _delays(whole, early=True),
        f"{len(whole.ordered):,}", _share(whole.ordered_recall), _delays(whole, early=False),
    )  # fmt: skip
    with pipe_may_close():
        if first:
            sys.stdout.write("  ".join(f"{name:>{_width(name)}}" for name in _HEAD) + "\n")
        sys.stdout.write("  ".join(f"{cell:>{_width(name)}}" for name, cell in zip(_HEAD, cells, strict=True)) + "\n")
        sys.stdout.flush()


def _width(name: str) -> int:
    return max(len(name), 9)


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _delays(rule: RuleUnderDisorder, *, early: bool) -> str:
    from astrocyte.pipeline.analysis.history.disorder import quantiles_s

    found = quantiles_s(rule.early_delays_us if early else rule.ordered_delays_us)
    return "-" if found is None else f"{found['p50']:.2f}, {found['p95']:.2f}"


def _figure(found: Sequence[Disordered]) -> Any:
    from astrocyte.pipeline.analysis.history.disorder import quantiles_s
    from astrocyte.pipeline.analysis.report.content import Figure

    places = [max(each.amount_us / 1e6, 1e-3) for each in found]
    wholes = [each.together() for each in found]

    def draw(axes: Any, palette: Palette) -> None:
        canvas = axes.figure
        axes.remove()
        upper, lower = canvas.subplots(2, sharex=True)
        shares = (
            ("precision, on arrival", "o-", palette.blue, [each.precision for each in wholes]),
            ("recall, on arrival", "s--", palette.orange, [each.recall for each in wholes]),
            ("recall, in order", "^:", palette.green, [each.ordered_recall for each in wholes]),
        )
        for label, style, colour, values in shares:
            upper.plot(places, [float("nan") if each is None else each for each in values], style, color=colour,
                       label=label, markersize=4)  # fmt: skip
        upper.set_ylim(0, 1.05)
        upper.set_ylabel("share")
        for label, style, colour, early in (
            ("on arrival", "o-", palette.blue, True),
            ("in order", "^:", palette.green, False),
        ):
            delays = [quantiles_s(each.early_delays_us if early else each.ordered_delays_us) for each in wholes]
            lower.plot(places, [float("nan") if each is None else each["p50"] for each in delays], style, color=colour,
                       label=f"median, {label}", markersize=4)  # fmt: skip
        lower.set_ylim(bottom=0)
        lower.set_ylabel("delay, s")
        lower.set_xlabel("disorder, s (none is drawn at 0.001)")
        lower.set_xscale("log")
        for each in (upper, lower):
            each.grid(visible=True, linewidth=0.6)
            each.legend(loc="best")

    caption = "Shares and median delays of matches made on arrival and in order, against the amount of disorder."
    return Figure("disorder", "Disorder", caption, draw, tall=True)

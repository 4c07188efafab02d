"""Output of a demo: live progress while it runs, then a table and three commands to try."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from shutil import which
from types import TracebackType
from typing import Any, Self

from astrocyte.agents.accounting import accounted
from astrocyte.agents.sinks.sql.url import database_url
from astrocyte.pipeline.analysis.score import Score
from astrocyte.pipeline.console import live_terminal, say
from astrocyte.pipeline.demo.stores import count_points, read_database
from astrocyte.pipeline.demo.world import sparkline

__all__ = ["DemoView", "Summary"]


class DemoView:
    """Progress on stderr: a live line on a terminal, a line every few seconds elsewhere."""

    def __init__(self, scenario: str, seconds: float, *, quiet: bool) -> None:
        self._scenario = scenario
        self._seconds = seconds
        self._quiet = quiet
        self._live: Any = None
        self._task: Any = None
        self._printed_s = 0.0
        self._printed = ""

    def __enter__(self) -> Self:
        if not self._quiet and live_terminal():
            from rich.console import Console
            from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn

            columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(bar_width=24))
            self._live = Progress(*columns, console=Console(stderr=True), transient=True)
            self._live.start()
            self._task = self._live.add_task(self._scenario, total=self._seconds)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def note(self, text: str) -> None:
        """Write a line that stays."""
        if self._live is not None:
            self._live.console.print(text, soft_wrap=True, markup=False, highlight=False)
        elif not self._quiet:
            say(text)

    def stage(self, what: str) -> None:
        """Show what is done while no events flow."""
        if not self._quiet:
            self._show(f"{self._scenario}: {what} ...", every_s=0.0)

    def update(
        self, simulated_s: float, totals: Mapping[str, int], world: Mapping[str, float] | None = None, *,
        sent: int = 0, draining: bool = False,
    ) -> None:  # fmt: skip
        """Show the progress of the run and the state of the world."""
        if self._quiet:
            return
        what = "finishing" if draining else f"{simulated_s:.0f} of {self._seconds:.0f} s"
        text = (
            f"{self._scenario}: {what}, {sent:,} events sent, {totals['processed']:,} processed, "
            f"{totals['matches']:,} multi events, {totals['alerts']:,} alerts"
        )
        text += "".join(f", {name} {_figure(value)}" for name, value in (world or {}).items())
        self._show(text, simulated_s)

    def _show(self, text: str, completed: float = 0.0, *, every_s: float = 2.0) -> None:
        if self._live is not None:
            self._live.update(self._task, description=text, completed=completed)
        elif time.monotonic() - self._printed_s >= every_s and text != self._printed:
            self._printed_s, self._printed = time.monotonic(), text
            say(text)


@dataclass(frozen=True, slots=True)
class Summary:
    """Results of a demo. ``lost`` is the number of emitted events minus those that are accounted for."""

    mono_events: int
    multi_events: int
    alerts: int
    late: int
    dead_letters: int
    sampled: int
    """Events that a validator's sample, or the policy of a stream whose reader was behind, left out."""
    sql_rows: int
    influx_points: int
    lost: int
    seconds: float
    events_per_s: float
    """From the first event until all were stored."""
    run: str
    data: Path
    database: str
    """SQLAlchemy URL."""
    rules: tuple[Path, ...]
    world: Mapping[str, list[float]]
    scores: tuple[Score, ...]
    """Of the rules for which something was planted."""
    example: str | None
    raised: tuple[tuple[str, str], ...]
    """Severity and message of the last alerts."""
    statistics: tuple[str, ...] = ()
    """What the newest statistics of the run say, a line each."""

    @classmethod
    def gather(
        cls,
        *,
        data: Path,
        database: str,
        emitted: int,
        counts: Mapping[str, int],
        seconds: float,
        sent_s: float,
        run: str,
        rules: tuple[Path, ...],
        world: Mapping[str, list[float]],
        scores: Sequence[Score] = (),
    ) -> Self:
        """Count the content of the stores."""
        stored = read_database(database)
        return cls(
            mono_events=emitted,
            multi_events=stored.rows.get("multi_events", 0),
            alerts=stored.rows.get("alerts", 0),
            late=counts["late"],
            # ``counts`` has those of the domains only; the rows include those of the sinks.
            dead_letters=max(counts["dead"], stored.rows.get("dead_letters", 0)),
            sampled=counts["sampled"],
            sql_rows=sum(stored.rows.values()),
            influx_points=count_points(data / "influx"),
            lost=emitted - accounted(counts),
            seconds=round(seconds, 2),
            events_per_s=round(emitted / sent_s, 1) if sent_s > 0 else 0.0,
            run=run,
            data=data,
            database=database,
            rules=rules,
            world=world,
            scores=tuple(scores),
            example=stored.example,
            raised=stored.alerts,
            statistics=stored.statistics,
        )

    def as_json(self) -> dict[str, Any]:
        """The figures as JSON values."""
        names = (
            "mono_events", "multi_events", "alerts", "late", "dead_letters", "sampled", "sql_rows", "influx_points",
            "lost", "seconds", "events_per_s", "run",
        )  # fmt: skip
        scores = [score.as_json() for score in self.scores]
        found = {name: getattr(self, name) for name in names}
        return found | {"data": str(self.data), "scores": scores, "statistics": list(self.statistics)}

    def show(self) -> None:
        """Print the table and the commands to try next."""
        from rich.console import Console
        from rich.table import Table

        console = Console()
        table = Table(title=f"run {self.run} of experiment demo, {self.seconds:.0f} s", title_justify="left")
        table.add_column("what")
        table.add_column("count", justify="right")
        table.add_column("where")
        database = database_url(self.database).render_as_string().removeprefix("sqlite:///")
        for what, count, where in (
            ("mono events", self.mono_events, f"topics mono.*, {self.events_per_s:,.0f} in each second"),
            ("multi events", self.multi_events, "topic multi.events"),
            ("alerts", self.alerts, "topic alerts"),
            ("late events", self.late, "topic late"),
            ("dead letters", self.dead_letters, "topic dead_letters"),
            *([("left out", self.sampled, "by a sample, or while a worker was behind")] if self.sampled else []),
            ("SQL rows", self.sql_rows, database),
            ("InfluxDB points", self.influx_points, str(self.data / "influx")),
            ("lost events", self.lost, "emitted, and neither processed, late, refused nor left out"),
        ):
            table.add_row(what, f"{count:,}", where)
        console.print(table)
        for name, values in self.world.items():
            console.print(
                f"{name:>11}  {sparkline(values)}  {_figure(min(values))} to {_figure(max(values))}, "
                f"at the end {_figure(values[-1])}",
                highlight=False,
                soft_wrap=True,
            )
        for line in self.statistics:
            console.print(line, soft_wrap=True, markup=False, highlight=False)
        if self.raised:
            console.print(f"\nThe last {len(self.raised)} of {self.alerts:,} alerts:")
        for severity, message in self.raised:
            console.print(f"  {severity:<8}  {message}", soft_wrap=True, markup=False, highlight=False)
        if self.scores:
            console.print(_score_table(self.scores))
        console.print("\nTry next, on the data of this demo:")
        for line in self.commands():
            console.print(f"  {line}", soft_wrap=True, markup=False, highlight=False)

    def commands(self) -> list[str]:
        """Commands that work as printed, in the folder in which the demo ran."""
        program = _program()
        log = self.data / "events.jsonl.zst"
        lines = [f"{program} page {self.data} --open", f"{program} tap multi.events --log {log} -c 5"]
        if self.example is not None:
            lines.append(f"{program} explain {self.example} --db {self.database}")
        rules = " ".join(f"--rules {each}" for each in self.rules)
        stores = f"--db {self.database} --influx-dir {self.data / 'influx'}"
        lines.append(f"{program} verify {log} {rules} {stores}")
        if any(each.stem == "cells" for each in self.rules):
            lines.append(f"{program} analyze {log} --report {self.data / 'report.html'}")
        return lines


def _score_table(scores: Sequence[Score]) -> Any:
    from rich.table import Table

    table = Table(title="\nalerts against what was planted", title_justify="left")
    table.add_column("rule")
    for name in ("planted", "found", "recall", "alerts", "precision", "delay"):
        table.add_column(name, justify="right")
    for score in scores:
        delay = "-" if not score.delays_us else f"{sum(score.delays_us) / len(score.delays_us) / 1e6:.1f} s"
        shares = ["-" if share is None else f"{share:.2f}" for share in (score.recall, score.precision)]
        table.add_row(score.rule, str(score.planted), str(score.found), shares[0], str(score.matches), shares[1], delay)
    return table


def _program() -> str:
    """Command that calls this program: its name if that resolves to it, else its path."""
    called = Path(sys.argv[0])
    found = which("astrocyte")
    if called.name == "astrocyte":
        if found is not None and Path(found).resolve() == called.resolve():
            return "astrocyte"
        relative = os.path.relpath(called)
        return relative if not relative.startswith("..") else str(called)
    return "astrocyte"


def _figure(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 10 or value == int(value) else f"{value:.2f}"

"""Verification: what the rules and sinks should have made of the input, against what is there."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final, Literal

from astrocyte.agents.accounting import OUTCOMES, DomainOutput
from astrocyte.agents.rules.model import RuleSet
from astrocyte.agents.sinks.base import Sink
from astrocyte.agents.sinks.influx.address import influx_tls
from astrocyte.agents.sinks.influx.points import PointRules
from astrocyte.agents.sinks.influx.query import BucketReader
from astrocyte.agents.sinks.sql.sink import SqlSink
from astrocyte.pipeline.analysis.inputs import Inputs, survey
from astrocyte.pipeline.analysis.offline import OfflineRun
from astrocyte.pipeline.analysis.verify import live
from astrocyte.pipeline.analysis.verify.excuses import Excuses, Gaps, truncated_lines
from astrocyte.pipeline.analysis.verify.ledger import Ledger
from astrocyte.pipeline.analysis.verify.outputs import Outputs, Span
from astrocyte.pipeline.analysis.verify.points import (
    FILES,
    SERVER,
    PointSink,
    compare_points,
    enter_bucket,
    enter_files,
)
from astrocyte.pipeline.analysis.verify.replica import Positions, Replica
from astrocyte.pipeline.analysis.verify.report import Difference, Verification
from astrocyte.pipeline.analysis.verify.retries import Retries
from astrocyte.pipeline.analysis.verify.tables import ReadDatabase, compare_table, compared_tables, read_only
from astrocyte.pipeline.kafka.record import ConsumedRecord
from astrocyte.pipeline.recording.reader import read_log
from astrocyte.pipeline.roles.correlation.domains import policies_of
from astrocyte.pipeline.settings import Settings
from astrocyte.pipeline.topology.topics import KnownTopics, output_topics
from astrocyte.pipeline.transport.producer_record import ProducerRecord
from astrocyte.schemas.errors import InvalidSettings
from astrocyte.schemas.topics import ALERTS, MULTI_EVENTS, SAMPLING, SIMULATIONS, is_derived

__all__ = ["EVERYWHERE", "Places", "verify"]

Where = Literal["topics", "sql", "influx"]
Places = tuple[Where, ...]
EVERYWHERE: Final[Places] = ("topics", "sql", "influx")
_CONFIGURED: Final = "simulation_config"
"""Table that is filled from the topic ``simulations`` alone."""
_EACH: Final = 10_000
"""Messages after which progress is reported."""


def verify(
    settings: Settings,
    *,
    logs: Sequence[str | Path] = (),
    ruleset: RuleSet | None = None,
    where: Places | None = None,
    span: Span | None = None,
    wait_s: float = 0.0,
    show: int = 10,
    now_us: int,
    scratch: Path | None = None,
    progress: Callable[[int, int | None], None] | None = None,
    on_difference: Callable[[Difference], None] | None = None,
) -> Verification:
    """Recompute what rules and sinks should have made, and compare it with the topics and stores.

    The input is that of the broker of the settings, with the rules in force there, or that of recorded ``logs``, with
    those of ``ruleset``. ``where``: the places; None: of a broker the topics and the stores of the roles that have a
    consumer group there, of logs the output topics in them and the stores that are set in the settings. ``span``: event
    times of the outputs that are compared. ``wait_s``: for how many seconds to wait for roles that are behind, or have
    not begun. ``show``: number of differences of each kind and place that are kept; ``on_difference`` is called with
    all of them. ``now_us``: the wall clock, for retention.

    Files of the size of inputs and outputs are made below ``scratch``, and removed. Memory is that of the rules' state
    and of some caches, whatever the number of events. Nothing is written to broker or stores, and no group is joined.
    Raises AstrocyteError where it cannot be checked.
    """
    with TemporaryDirectory(prefix="astrocyte-verify-", dir=scratch) as folder, ExitStack() as stack:
        job = _Job(settings, span or Span(), show, now_us, Path(folder), stack, on_difference)
        if logs:
            job.take_logs(logs, ruleset or RuleSet(), where)
        else:
            job.take_live(where, wait_s)
        job.compute(progress)
        return job.compare()


@dataclass(slots=True)
class _Points:
    """What is known of the points of the role influx."""

    ledger: Ledger
    kind: str = FILES
    name: str = ""
    files: Sequence[str] = ()
    """Names of the files, in the order in which they were read."""
    reached: Mapping[tuple[str, int], int] = field(default_factory=dict)
    """How far the writers of the files had read."""
    kept_s: int | None = None
    """For how long a bucket keeps them."""


@dataclass(slots=True)
class _Job:
    settings: Settings
    span: Span
    show: int
    now_us: int
    folder: Path
    stack: ExitStack
    tell: Callable[[Difference], None] | None
    ruleset: RuleSet = field(default_factory=RuleSet)
    logs: Sequence[str | Path] = ()
    outputs: Outputs = field(init=False)
    compared: tuple[str, ...] = ()
    """Output topics that are compared."""
    points: _Points | None = None
    found: ReadDatabase | None = None
    written: Positions = field(default_factory=dict)
    """How far the database was written."""
    replicas: dict[str, Replica] = field(default_factory=dict)
    letters: list[tuple[ProducerRecord, bool]] = field(default_factory=list)
    """Dead letters of the replicas, and whether they are due."""
    done: live.Progress | None = None
    """How far the roles of a running system had come; None: everything in the logs was processed."""
    published: Mapping[str, int] = field(default_factory=dict)
    gaps: Gaps = field(default_factory=Gaps)
    retries: Retries = field(default_factory=Retries)
    result: Verification = field(default_factory=Verification)

    # -- what there is

    def take_live(self, where: Places | None, wait_s: float) -> None:
        """How far the roles of a broker have come, their stores, and copies of the topics, in this order."""
        chosen = where or EVERYWHERE
        settings, notes = self.settings, self.result.not_compared
        system = asyncio.run(live.live_system(settings, [each for each in chosen if each != "topics"], wait_s))
        self.ruleset = system.ruleset
        if wait_s and (behind := asyncio.run(live.wait_for_lag(settings, system.roles, wait_s))) is not None:
            notes.append(behind)
        self.done = asyncio.run(live.progress_of(settings, system))
        notes += self.done.notes
        self.published = asyncio.run(live.published_times(settings, system))
        sinks = [role for role in ("sql", "influx") if role in system.roles]
        notes += [
            f"{role}: the broker has no consumer group {settings.group}-{role}"
            for role in chosen
            if role not in ("topics", *sinks)
        ]
        self._open_stores(sinks, system.partitions, self.done.sinks)
        copied = self.folder / "outputs.jsonl.zst"
        topics = asyncio.run(live.copy_outputs(settings, system, copied))
        self._enter_outputs([copied], topics, compared="topics" in chosen)
        self.logs = [self.folder / "inputs.jsonl.zst"]
        asyncio.run(live.copy_inputs(settings, system, sinks, Path(self.logs[0])))

    def take_logs(self, logs: Sequence[str | Path], ruleset: RuleSet, where: Places | None) -> None:
        """Recorded logs, and the stores that are set in the settings."""
        self.ruleset, self.logs = ruleset, logs
        named = self.settings.model_fields_set
        if where is None:
            sql: Places = ("sql",) if "sql_url" in named else ()
            influx: Places = ("influx",) if named & {"influx_dir", "influx_url"} else ()
            where = ("topics", *sql, *influx)
        there = survey(logs)
        if there.domains is None and "partitions" in named:
            there.domains = self.settings.partitions
        known = KnownTopics(there.partitions, there.count)
        plan = known.plan(ruleset)
        self._open_stores([each for each in where if each != "topics"], there.partitions, {})
        made, compared = output_topics(plan), "topics" in where
        self.result.not_compared += [
            f"topic {topic}: the log does not hold it" for topic in made if compared and topic not in there.partitions
        ]
        if SAMPLING not in there.partitions and (policies := policies_of("correlate", ruleset, known, self.settings)):
            self.result.not_compared.append(
                f"topic {SAMPLING}: the log does not hold it; events of {', '.join(policies)} that a worker left out "
                "while it was behind are taken for processed, and what would have come of them for lost"
            )
        topics = [topic for topic in made if topic in there.partitions]
        if not (compared and topics) and not self.replicas:
            raise InvalidSettings(
                f"{', '.join(map(str, logs))}: nothing to compare; record {MULTI_EVENTS} and {ALERTS} beside the "
                "input, or name a database (--db) or a folder of points (--influx-dir)"
            )
        self._enter_outputs(logs, topics, compared=compared)

    def _open_stores(
        self, sinks: Sequence[str], existing: Mapping[str, int], committed: Mapping[str, Positions]
    ) -> None:
        if "sql" in sinks:
            self.found = self.stack.enter_context(read_only(self.settings.sql_url.get_secret_value()))
            written, own = self.found.positions("sql"), committed.get("sql", {})
            self.written = {place: max(written.get(place, 0), own.get(place, 0)) for place in {*written, *own}}
            sink = SqlSink(
                f"sqlite:///{self.folder / 'expected.db'}",
                now_us=lambda: self.replicas["sql"].newest_ms * 1_000,
                experiment_id=self.settings.experiment,
            )
            self._replicate("sql", sink, None, existing, self.written or None)
        if "influx" in sinks:
            points = self.points = _Points(self.stack.enter_context(closing(Ledger(self.folder / "points.db"))))
            self._enter_points(points)
            rules = PointRules(self.settings.influx_cell_tags, self.settings.influx_run_tag)
            must, may = (PointSink(points.ledger, points.kind, rules, self.span, due=due) for due in (True, False))
            self._replicate("influx", must, may, existing, committed.get("influx"))

    def _enter_points(self, points: _Points) -> None:
        settings = self.settings
        if settings.influx_url is None or settings.influx_token is None:
            points.name = f"influx {settings.influx_dir}"
            points.files, points.reached = enter_files(settings.influx_dir, points.ledger, self.span)
            return
        token = settings.influx_token.get_secret_value()
        reader = BucketReader(
            settings.influx_url,
            token=token,
            org=settings.influx_org,
            bucket=settings.influx_bucket,
            tls=influx_tls(settings.of("influx")),
        )
        points.kind, points.name, points.kept_s = SERVER, f"influx {reader.name}", reader.retention_s()
        enter_bucket(reader, points.ledger, self.span)

    def _replicate(
        self, role: str, must: Sink, may: Sink | None, existing: Mapping[str, int], positions: Positions | None
    ) -> None:
        replica = Replica(
            role, must, may, settings=self.settings, ruleset=self.ruleset, existing=existing, positions=positions,
            on_letter=lambda letter, due: self.letters.append((letter, due)),
        )  # fmt: skip
        replica.open()
        self.stack.callback(replica.close)
        self.replicas[role] = replica

    def _enter_outputs(self, logs: Sequence[str | Path], topics: Sequence[str], *, compared: bool) -> None:
        """Enter the records of the output topics that are there; what a store must hold follows from them as well."""
        self.compared = tuple(topics) if compared else ()

        def foreign(record: ConsumedRecord) -> None:
            if "sql" in self.replicas:
                self.replicas["sql"].letter(record)

        ledger = self.stack.enter_context(closing(Ledger(self.folder / "outputs.db")))
        versions = {rule.name: rule.content_version for rule in self.ruleset.rules}
        self.outputs = Outputs(
            ledger, topics, span=self.span, versions=versions, retries=self.retries, on_foreign=foreign
        )
        for path in logs if topics else ():
            for record in read_log(path):
                self.outputs.found(record)

    # -- what should be there

    def compute(self, progress: Callable[[int, int | None], None] | None) -> None:
        """Run rules and sinks over the input."""
        settings, done = self.settings, self.done
        known = done is not None or "partitions" in settings.model_fields_set
        inputs = Inputs(self.ruleset, self.logs, domains=settings.partitions if known else None)
        run = OfflineRun(
            self.ruleset, inputs, lateness_us=settings.lateness, clock_tolerance_us=settings.clock_tolerance
        )

        behind = False

        def messages() -> Iterator[ConsumedRecord]:
            nonlocal behind
            for number, record in enumerate(inputs.records()):
                if progress is not None and number % _EACH == 0:
                    progress(number, inputs.found.records)
                if not is_derived(record.topic):
                    self.gaps.note(record, inputs.decoders)
                    self.retries.note(record)
                    for replica in self.replicas.values():
                        replica.message(record)
                    if self._is_done(record):
                        yield record
                    else:
                        behind |= record.topic in run.inputs

        for output in run.feed(messages()):
            self._expect(output, due=True)
        for output in run.settle(None if done is None else done.clock):
            self._expect(output, due=True)
        if behind:
            for output in run.feed(record for record in inputs.records() if not self._is_done(record)):
                self._expect(output, due=False)
        for output in run.finish():
            self._expect(output, due=False)
        for replica in self.replicas.values():
            replica.finish()
        self._expect_letters()
        counters = run.counters.as_dict()
        self.result.events = {name: counters[name] for name in ("received", *OUTCOMES)}

    def _is_done(self, record: ConsumedRecord) -> bool:
        """Whether what follows from a message must be in the topics by now."""
        return self.done is None or record.offset < self.done.inputs.get((record.topic, record.partition), 0)

    def _expect(self, output: DomainOutput, *, due: bool) -> None:
        unsettled = frozenset[str]() if self.done is None else self.done.unsettled
        self.outputs.expect(output, due=due, unsettled=unsettled)
        for replica in self.replicas.values():
            replica.output(output, 0, self.outputs, due=due)
        self._expect_letters()

    def _expect_letters(self) -> None:
        """Dead letters that sinks write of what no rule reads; they are rows of the database in turn."""
        letters, self.letters = self.letters, []
        for letter, due in letters:
            if self.outputs.expect_letter(letter, due=due) and "sql" in self.replicas:
                self.replicas["sql"].record(letter, letter.partition or 0, self.outputs, due=due)
        if letters and "sql" in self.replicas:
            self.replicas["sql"].finish()

    # -- the comparison

    def compare(self) -> Verification:
        """Differences of all places."""
        result, show = self.result, self.show
        excuses = Excuses(
            self.ruleset, self.outputs, self.gaps, lateness_us=self.settings.lateness, now_us=self.now_us,
            published=self.published, retries=self.retries,
        )  # fmt: skip
        excuses.runs |= self.outputs.runs
        result.since_us, result.until_us = self.span.since_us, self.span.until_us
        if excuses.horizon_us is not None:
            result.since_us = max(excuses.horizon_us, result.since_us or excuses.horizon_us)
        result.not_compared += truncated_lines(self.gaps)
        result.places += [
            self.outputs.compare(topic, show=show, excuse=excuses.record, tell=self.tell) for topic in self.compared
        ]
        if self.found is not None:
            self._compare_tables(self.found, excuses)
        if self.points is not None:
            points = self.points
            excuses.ahead = self.done is None and self.gaps.is_behind(points.reached)
            excuses.bucket_s = points.kept_s
            place = compare_points(
                points.ledger, points.kind, points.name, show=show, excuse=excuses.point, files=points.files,
                tell=self.tell,
            )  # fmt: skip
            result.places.append(place)
        return result

    def _compare_tables(self, found: ReadDatabase, excuses: Excuses) -> None:
        excuses.ahead = self.done is None and self.gaps.is_behind(self.written)
        configured = any(topic == SIMULATIONS for topic, _ in self.gaps.next_offsets)
        with read_only(f"sqlite:///{self.folder / 'expected.db'}") as expected:
            excuses.runs |= expected.runs()
            for table in compared_tables(expected, found):
                place = compare_table(
                    table,
                    expected,
                    found,
                    span=self.span,
                    show=self.show,
                    excuses=excuses,
                    tell=self.tell if configured or table.name != _CONFIGURED else None,
                )
                if table.name == _CONFIGURED and not configured:
                    if place.found:
                        self.result.not_compared.append(f"{place.name}: the input does not hold topic {SIMULATIONS}")
                elif place.expected or place.found or place.left_out:
                    self.result.places.append(place)

"""Everything that the page shows, advanced by messages as they were read, in any portions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import numpy as np
import orjson
from numpy.typing import NDArray

from astrocyte.agents.accounting import OUTCOMES
from astrocyte.agents.ingest.decode import decode_chunk
from astrocyte.agents.ingest.decoders import Decoders
from astrocyte.agents.sinks.base import SourcedFrame
from astrocyte.pipeline.kafka.record import ConsumedRecord
from astrocyte.pipeline.page.content.document import Document, Shown, array
from astrocyte.pipeline.page.content.findings import (
    MOST_FINDINGS,
    MOST_LETTERS,
    Finding,
    Findings,
    finding_of,
    letter_of,
)
from astrocyte.pipeline.page.content.past_findings import PastFindings
from astrocyte.pipeline.page.content.rows import rows_of
from astrocyte.pipeline.page.content.run import Run, is_drawn, step, took_findings
from astrocyte.pipeline.page.content.traffic import Traffic
from astrocyte.pipeline.page.content.worlds import FORECASTS, SCENES
from astrocyte.pipeline.recording.frames import raw_record
from astrocyte.schemas.arrow.messages import holds_no_rows
from astrocyte.schemas.catalog import CATALOG, Catalog
from astrocyte.schemas.frames import Frame
from astrocyte.schemas.topics import (
    ALERTS,
    DEAD_LETTERS,
    MULTI_EVENTS,
    SIMULATIONS,
    STATS,
    TRUTH,
    is_derived,
    metrics_topic,
    mono_topic,
    stream_of,
)

__all__ = ["PageState", "is_read"]

_MOST_RUNS: Final = 4
"""Runs whose charts are kept; a new one takes the place of that which has been silent for longest."""
_MOST_PLANTED: Final = 200
_MOST_DOMAINS: Final = 1024
_EXACT: Final = 12
"""Digits of what a row says: a count of millions is shown as it is."""
_SHOWN_COUNTERS: Final = (*OUTCOMES, "received", "matches", "alerts", "waiting")
_FINDINGS: Final = (ALERTS, MULTI_EVENTS, DEAD_LETTERS)
_RECORDS: Final = (*_FINDINGS, SIMULATIONS, STATS)


def is_read(topic: str) -> bool:
    """Whether the page reads the messages of a topic."""
    if topic in _RECORDS or topic in (metrics_topic(FORECASTS), mono_topic(TRUTH)):
        return True
    return not is_derived(topic) and is_drawn(stream_of(topic) or topic)


class PageState:
    """The state of all views. Its size is bounded, whatever was read."""

    def __init__(self, catalog: Catalog = CATALOG, decoders: Decoders | None = None) -> None:
        self._catalog = catalog
        self._decoders = decoders
        self.runs: dict[str, Run] = {}
        """By name, the one that was silent for longest first."""
        self.findings = Findings()
        self.traffic = Traffic()
        self.described: dict[str, dict[str, Any]] = {}
        """Scenario, seed and configuration by run."""
        self.domains: dict[str, dict[str, Any]] = {}
        """Last counters of each domain, by role and partition."""
        self.planted: dict[str, list[dict[str, Any]]] = {}
        self.unreadable = 0
        """Messages that hold no event."""
        self.read = 0
        """Messages that were read."""
        self._past: dict[str, PastFindings] = {}
        self._shown_alerts = Shown(finding_of, MOST_FINDINGS)
        self._shown_matches = Shown(finding_of, MOST_FINDINGS)
        self._shown_letters = Shown(letter_of, MOST_LETTERS)

    def take(self, records: Sequence[ConsumedRecord]) -> None:
        """Take messages, in the order of each partition."""
        self.read += len(records)
        found: dict[tuple[str, bool], list[tuple[Finding, int]]] = {}
        chunks: dict[tuple[str, int], list[ConsumedRecord]] = {}
        for record in records:
            if record.topic in _FINDINGS:
                finding = self.findings.take(record)
                if finding is not None:
                    written_us = _written_us(record.timestamp_ms, finding.time_us)
                    place = (finding.run, finding.is_alert)
                    found.setdefault(place, []).append((finding, written_us))
            elif record.topic == SIMULATIONS:
                self._describe(record)
            elif record.topic == STATS:
                self._count_domain(record)
            elif is_read(record.topic) and not (record.value and holds_no_rows(record.value)):
                chunks.setdefault((record.topic, record.partition), []).append(record)
        self.take_frames(_framed(self._decode(place, own), own) for place, own in chunks.items())
        for (name, is_alert), each in found.items():
            self._take_findings(name, is_alert, each)

    def take_frames(self, parts: Iterable[list[tuple[Frame, NDArray[np.int64]]]]) -> None:
        """Take frames, each with the Kafka times of its rows in microseconds, in lists."""
        for (name, stream), rows in rows_of(pair for part in parts for pair in part).items():
            if stream == TRUTH:
                self._plant(name, rows.frames)
            else:
                self._put(step(self._run(name), stream, rows))

    def _run(self, name: str) -> Run:
        return self.runs.get(name) or Run(name)

    def _put(self, run: Run) -> None:
        self.runs.pop(run.name, None)
        self.runs[run.name] = run
        while len(self.runs) > _MOST_RUNS:
            gone = next(iter(self.runs))
            del self.runs[gone]
            self.planted.pop(gone, None)
            self.described.pop(gone, None)
            self._past.pop(gone, None)

    def _take_findings(self, name: str, is_alert: bool, found: Sequence[tuple[Finding, int]]) -> None:
        times_us = np.array([finding.time_us for finding, _ in found])
        written_us = np.array([written_us for _, written_us in found])
        severities = [finding.severity for finding, _ in found] if is_alert else None
        numbers = np.array([finding.number for finding, _ in found])
        run = took_findings(self._run(name), times_us, written_us, severities, numbers)
        self._put(run)
        axis = run.axis
        added = [finding for finding, _ in found if finding.number > 0]
        inside = [finding for finding in added if axis.oldest_us <= finding.time_us <= axis.newest_us]
        self._past.setdefault(name, PastFindings()).take(inside, axis.width_us)

    def findings_until(self, run: str, at_us: int, most: int) -> list[dict[str, Any]]:
        """Findings of a run up to an instant as the page lists them, by time.

        Those are the newest ``most`` alerts, and as many multi events, of those that are kept.
        """
        past = self._past.get(run)
        return [] if past is None else [finding_of(each) for each in past.until(at_us, most)]

    def _decode(self, place: tuple[str, int], records: Sequence[ConsumedRecord]) -> list[SourcedFrame]:
        raws = [raw_record(record) for record in records]
        frames, letters = decode_chunk(*place, raws, self._catalog, self._decoders)
        self.unreadable += len(letters)
        return frames

    def _describe(self, record: ConsumedRecord) -> None:
        try:
            body = orjson.loads(record.value or b"")
            name, parameters = str(body["simulation_id"]), dict(body["parameters"])
            self.described[name] = {
                "scenario": str(parameters.get("scenario", "")),
                "seed": parameters.get("seed"),
                "experiment": body.get("experiment_id"),
            }
        except (orjson.JSONDecodeError, KeyError, TypeError, ValueError):
            self.unreadable += 1
            return
        while len(self.described) > 4 * _MOST_RUNS:
            del self.described[next(iter(self.described))]

    def _count_domain(self, record: ConsumedRecord) -> None:
        try:
            body = orjson.loads(record.value or b"")
            name = (record.key or b"").decode()
            if isinstance(body, dict) and (name in self.domains or len(self.domains) < _MOST_DOMAINS):
                self.domains[name] = body | {"written_ms": record.timestamp_ms}
        except (orjson.JSONDecodeError, UnicodeDecodeError):
            self.unreadable += 1

    def _plant(self, name: str, frames: Sequence[Frame]) -> None:
        planted = self.planted.setdefault(name, [])
        for frame in frames:
            for row in frame.rows():
                if row.get("type") == "planted":
                    planted.append({"t": row["timestamp"], "kind": row.get("kind"), "until": row.get("until")})
        del planted[_MOST_PLANTED:]

    def document(self) -> Document:
        """Everything that does not come from the broker's own figures, by name."""
        found: dict[str, Any] = {"runs": [self._about(run) for run in reversed(self.runs.values())]}
        for run in self.runs.values():
            found |= _run_document(run)
            found[f"run/{run.name}/planted"] = self.planted.get(run.name, [])
        found["findings/alerts"] = self._shown_alerts.feed(self.findings.newest_alerts)
        found["findings/matches"] = self._shown_matches.feed(self.findings.newest_matches)
        found["findings/statuses"] = dict(self.findings.standing.statuses)
        found["letters"] = self._shown_letters.feed(self.findings.letters)
        found["rules/alerts"] = dict(self.findings.alerts)
        found["rules/matches"] = dict(self.findings.matches)
        found["counts"] = {
            "read": self.read,
            "unreadable": self.unreadable,
            "letters": self.findings.letters.count,
            "alerts": self.findings.all_alerts,
            "matches": self.findings.all_matches,
        }
        found["domains"] = {name: self._domain(each) for name, each in sorted(self.domains.items())}
        found |= self._traffic_document()
        return found

    def _about(self, run: Run) -> dict[str, Any]:
        axis = run.axis
        return {
            "name": run.name,
            **self.described.get(run.name, {}),
            "start": axis.start_us,
            "width": axis.width_us,
            "used": axis.used,
            "newest": None if axis.is_empty else axis.newest_us,
            "oldest": None if axis.is_empty else axis.oldest_us,
            "outside": run.outside,
            "scenes": [name for name, stream in SCENES.items() if stream in run.streams],
        }

    def _domain(self, stats: dict[str, Any]) -> dict[str, Any]:
        """Counters of one domain, and how far its watermark is behind the newest event that the page has seen."""
        newest = [run.axis.newest_us for run in self.runs.values() if not run.axis.is_empty]
        watermark_us = stats.get("watermark_us")
        shown = {name: stats.get(name, 0) for name in _SHOWN_COUNTERS}
        stalls = [str(each.get("line")) for each in stats.get("stalls", ()) if isinstance(each, dict)]
        behind_s = None
        if newest and isinstance(watermark_us, int) and watermark_us > 0:
            behind_s = max(max(newest) - watermark_us, 0) / 1e6
        joined = stats.get("joined")
        pairs = {name: each for name, each in joined.items() if type(each) is int} if isinstance(joined, dict) else {}
        return {**shown, "behind_s": behind_s, "stalls": stalls, "joined": pairs}

    def _traffic_document(self) -> dict[str, Any]:
        traffic, axis = self.traffic, self.traffic.axis
        found: dict[str, Any] = {
            "traffic": {
                "start": axis.start_us, "width": axis.width_us, "used": axis.used, "newest": axis.newest_us,
                "messages": dict(sorted(traffic.messages.items())), "bytes": dict(sorted(traffic.bytes.items())),
                "unlisted": traffic.unlisted, "spans": dict(sorted(traffic.spans_us.items())),
            }
        }  # fmt: skip
        return found | {f"traffic/{topic}": array(traffic.rates(topic)) for topic in traffic.topics()}


def _written_us(timestamp_ms: int, otherwise_us: int) -> int:
    return timestamp_ms * 1000 if timestamp_ms >= 0 else otherwise_us


def _framed(frames: Sequence[SourcedFrame], records: Sequence[ConsumedRecord]) -> list[tuple[Frame, NDArray[np.int64]]]:
    """Frames with the Kafka time of each row."""
    times = {record.offset: record.timestamp_ms for record in records}
    return [(each.frame, _written_rows_us(each, times)) for each in frames]


def _written_rows_us(sourced: SourcedFrame, times_ms: Mapping[int, int]) -> NDArray[np.int64]:
    """Kafka time of each row, by that of the messages; where these have none, the event's."""
    if sourced.offsets is None:
        time_ms = times_ms.get(sourced.offset, -1)
        rows = sourced.frame.num_rows
        return sourced.frame.timestamps() if time_ms < 0 else np.full(rows, time_ms * 1000, np.int64)
    known, places = np.unique(sourced.offsets, return_inverse=True)
    written_us = np.array([times_ms.get(offset, -1) for offset in known.tolist()], np.int64)[places] * 1000
    return np.where(written_us < 0, sourced.frame.timestamps(), written_us)


def _run_document(run: Run) -> dict[str, Any]:
    at = f"run/{run.name}"
    charts = run.charts
    found: dict[str, Any] = {f"{at}/charts": [chart.as_json() for chart in charts]}
    for chart in charts:
        for line in chart.lines:
            digits = (_EXACT,) if line.how == "last" else ()
            found[f"{at}/{line.name}"] = array(run.values(line), *digits)
            if line.band:
                low, high = run.band(line)
                found |= {f"{at}/{line.name}/low": array(low, *digits), f"{at}/{line.name}/high": array(high, *digits)}
        for measure in chart.classes:
            found[f"{at}/{measure.name}"] = run.classes(measure).T.ravel()
    for name, counts in run.findings().items():
        found[f"{at}/found/{name}"] = counts
    found[f"{at}/firsts"] = run.firsts()
    found[f"{at}/spans"] = dict(run.spans_us)
    found[f"{at}/instants"] = run.instants()
    found[f"{at}/written"] = run.written_us[: run.axis.used]
    found[f"{at}/forecasts"] = [
        {"target": target, "horizon_us": horizon_us, **values} for (target, horizon_us), values in run.forecasts.items()
    ]
    return found

"""Alerts of a recorded log, found by rules as workers would have found them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from astrocyte.agents.event_time.clock_guard import CLOCK_TOLERANCE_US
from astrocyte.agents.ingest.decode import decode_chunk
from astrocyte.agents.rules.model import RuleSet
from astrocyte.pipeline.analysis.evolution.history import History, joined_frames
from astrocyte.pipeline.analysis.offline import run_rules
from astrocyte.pipeline.analysis.sources import frames_by_run, is_database, source_path
from astrocyte.schemas.catalog import CATALOG
from astrocyte.schemas.errors import InvalidSettings
from astrocyte.schemas.json.reader import RawRecord
from astrocyte.schemas.topics import ALERTS

if TYPE_CHECKING:
    from astrocyte.schemas.frames import Frame

__all__ = ["with_alerts_of"]


def with_alerts_of(
    history: History,
    ruleset: RuleSet,
    source: str | Path,
    *,
    lateness_us: int,
    clock_tolerance_us: int = CLOCK_TOLERANCE_US,
    domains: int | None = None,
) -> History:
    """The run with the alerts of rules over its recorded log, in place of those that the log holds.

    Raises InvalidSettings for a database, which has the alerts of its own workers.
    """
    path = source_path(source)
    if is_database(path):
        raise InvalidSettings(
            f"--rules: {source} is a database, which has the alerts of its workers' rules; rules run over recorded logs"
        )
    _, outputs = run_rules(
        ruleset, [path], lateness_us=lateness_us, clock_tolerance_us=clock_tolerance_us, domains=domains
    )
    records = [alert for output in outputs for alert in output.alerts]
    raws = [RawRecord(place, 0, each.key, each.value, tuple(each.headers)) for place, each in enumerate(records)]
    chunks, _ = decode_chunk(ALERTS, 0, raws, CATALOG, None)
    own: list[Frame] = [
        frame for chunk in chunks for run, frame in frames_by_run(chunk.frame) if run in ("", history.run)
    ]
    names = [rule.name for rule in ruleset.rules]
    return history.with_alerts(joined_frames(own, history.run) if own else None, names)

"""The interface for authors of studies: many worlds at once, intervals, and a report that answers one question.

JAX is loaded when worlds are run, not on import. docs/extending/study.md shows a study of one's own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from astrocyte._lazy import lazy

if TYPE_CHECKING:
    from astrocyte.pipeline.studies.evolution_models import fit_models
    from astrocyte.pipeline.studies.intervals import mean_interval, share_interval
    from astrocyte.pipeline.studies.report import Report, Table, interval_text, markdown
    from astrocyte.pipeline.studies.study import StudyRun, register_study, run_study
    from astrocyte.simulator.batch import BatchWorld, run_batch

_HOME = {
    "BatchWorld": "simulator.batch",
    "Report": "pipeline.studies.report",
    "StudyRun": "pipeline.studies.study",
    "Table": "pipeline.studies.report",
    "fit_models": "pipeline.studies.evolution_models",
    "interval_text": "pipeline.studies.report",
    "markdown": "pipeline.studies.report",
    "mean_interval": "pipeline.studies.intervals",
    "register_study": "pipeline.studies.study",
    "run_batch": "simulator.batch",
    "run_study": "pipeline.studies.study",
    "share_interval": "pipeline.studies.intervals",
}

__all__ = [
    "BatchWorld",
    "Report",
    "StudyRun",
    "Table",
    "fit_models",
    "interval_text",
    "markdown",
    "mean_interval",
    "register_study",
    "run_batch",
    "run_study",
    "share_interval",
]


def __getattr__(name: str) -> Any:
    return lazy(__name__, _HOME, name, globals())


def __dir__() -> list[str]:
    return sorted(__all__)

"""One way to run a fault: inject it, add its line to the table at the end of the run, and check what came out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.support.fault_acts import Fault, inject


@pytest.fixture
def check(request, tmp_path, record_property) -> Callable[..., None]:
    """``check(broker, name, fault)`` runs an experiment with a fault, whose schedule is drawn from the run's seed."""

    seed = int(request.config.getoption("--hypothesis-seed") or 0)

    def injected(broker: Any, name: str, fault: Fault, *, form: str = "json", **options: Any) -> None:
        found, kind = inject(broker, tmp_path, fault, form=form, seed=seed, name=name, **options)
        line = {"fault": name, "form": form, "broker": kind, "seed": seed}
        record_property("experiment", line | found.line())
        found.check(repeats=fault.repeats)

    return injected

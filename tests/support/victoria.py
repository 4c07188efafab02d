"""A real victoria-metrics for tests. Absent, the test is skipped with the reason; in CI absence is a failure."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from astrocyte.pipeline.bench.servers.victoria import VictoriaServer, VictoriaUnavailable, victoria_server


@pytest.fixture
def victoria() -> Iterator[VictoriaServer]:
    """An empty server for one test."""
    context = victoria_server()
    try:
        server = context.__enter__()
    except VictoriaUnavailable as error:
        if os.environ.get("CI"):
            pytest.fail(f"no victoria-metrics in CI: {error}")
        pytest.skip(f"no victoria-metrics: {error}")
    try:
        yield server
    finally:
        context.__exit__(None, None, None)

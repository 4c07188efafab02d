"""The rule ``pair`` and a log of its events."""

from __future__ import annotations

import pytest

from astrocyte.agents.loading import load_rules
from tests.support.logs import write_log
from tests.support.pair_log import PAIR, in_frames, spikes


@pytest.fixture(scope="module")
def pair():
    return load_rules(PAIR)


@pytest.fixture
def log(tmp_path):
    return write_log(tmp_path / "run.jsonl.zst", in_frames(spikes()))

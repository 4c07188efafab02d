"""A source that reported silence delays event time until that is proven."""

import numpy as np
import pytest

from astrocyte.agents.event_time.sources import Source
from astrocyte.agents.event_time.watermarks import Watermarks

ONE, OTHER = Source("led", 0, "key/0"), Source("led", 0, "key/1")


@pytest.fixture
def marks():
    marks = Watermarks(doubting=True)
    for source in (ONE, OTHER):
        marks.observe(source, np.array([10]), watermark_us=10, trusted=True)
    marks.silence(OTHER)
    marks.observe(ONE, np.array([50]), watermark_us=50, trusted=True)
    return marks


def test_event_time_goes_on_once_it_is_proven(marks):
    assert marks.watermark_us == 10
    supposed = marks.suppose()
    assert supposed.until_us == 50
    marks.observe(ONE, np.array([90]), watermark_us=90, trusted=True)
    assert marks.prove(supposed)
    assert marks.watermark_us == 50, "what came after the question is not proven"
    assert marks.suppose().until_us == 90


def test_nothing_is_proven_of_one_that_was_heard_of_since(marks):
    supposed = marks.suppose()
    marks.observe(OTHER, np.array([20]), watermark_us=20, trusted=True)
    marks.silence(OTHER)
    assert not marks.prove(supposed)
    assert marks.watermark_us == 20


def test_a_report_that_is_repeated_leaves_the_question_as_it_is(marks):
    supposed = marks.suppose()
    marks.silence(OTHER)
    assert marks.prove(supposed)


def test_event_time_is_not_over_before_it_is_proven():
    marks = Watermarks(doubting=True)
    marks.announce(OTHER)
    marks.silence(OTHER)
    marks.observe(ONE, np.array([10]), end=True)
    assert not marks.finished
    assert marks.suppose().over
    assert marks.prove(marks.suppose())
    assert marks.finished


def test_a_restart_doubts_the_same(marks):
    restored = Watermarks(doubting=True)
    restored.restore(marks.snapshot())
    restored.observe(ONE, np.array([60]), watermark_us=60, trusted=True)
    assert restored.watermark_us == 10
    assert restored.reported == [OTHER]

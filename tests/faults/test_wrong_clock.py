"""One device's clock is two hours ahead: only its events are refused, also when workers die while some of them wait."""

from __future__ import annotations

import pytest

from tests.support.live import FORMS, running

ALL = [(form, by) for form in FORMS for by in ("key", "place")]
SHORT = {("json", "place")}


@pytest.mark.parametrize(
    ("form", "by"), [each if each in SHORT else pytest.param(*each, marks=pytest.mark.soak) for each in ALL]
)
def test_only_the_events_of_a_wrong_clock_are_refused_although_every_worker_is_killed(own_embedded, tmp_path, form, by):
    limits = {"lateness": "200ms", "idle_timeout": "1s", "session_timeout": "3s"}
    with running(own_embedded, tmp_path, form=form, by=by, **limits) as live:
        live.sending.wait(1)
        live.sending.wrong_clock = True
        live.sending.wait(2)
        for worker in live.workers:
            worker.kill()
            worker.start()
        live.sending.wait(2)
        live.sending.wrong_clock = False
        # The events that follow decide about the last of them.
        live.sending.wait(2)
        assert live.sending.refused > 50
        live.outcome().check(repeats=True)

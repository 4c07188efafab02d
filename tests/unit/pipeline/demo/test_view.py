"""Progress of a demo outside a terminal."""

from astrocyte.pipeline.demo.view import DemoView, accounted

TOTALS = {"processed": 0, "matches": 0, "alerts": 0}


def test_each_stage_is_a_line_at_once_and_progress_one_every_two_seconds(capsys, monkeypatch):
    now_s = [100.0]
    monkeypatch.setattr("astrocyte.pipeline.demo.view.time.monotonic", lambda: now_s[0])
    with DemoView("cells", 20, quiet=False) as view:
        for what in ("starting the broker", "starting the broker", "compiling the world"):
            view.stage(what)
        view.note("look")
        for simulated_s in (0.0, 0.5, 2.0, 2.0, 4.0):
            now_s[0] += 1.5
            view.update(simulated_s, TOTALS, sent=1000)
    lines = capsys.readouterr().err.splitlines()
    assert [line.partition(",")[0] for line in lines] == [
        "cells: starting the broker ...", "cells: compiling the world ...", "look",
        "cells: 0 of 20 s", "cells: 2 of 20 s",
    ]  # fmt: skip
    assert lines[-1] == "cells: 2 of 20 s, 1,000 events sent, 0 processed, 0 multi events, 0 alerts"


def test_a_quiet_demo_prints_nothing(capsys):
    with DemoView("cells", 20, quiet=True) as view:
        view.stage("starting")
        view.note("look")
        view.update(1.0, TOTALS)
    assert capsys.readouterr() == ("", "")


def test_events_that_were_left_out_or_came_twice_are_accounted_for():
    assert accounted({"processed": 5, "late": 1, "dead": 1, "duplicate": 2, "sampled": 3, "matches": 9}) == 12

"""Progress of a demo outside a terminal."""

from astrocyte.pipeline.demo.view import DemoView, accounted

TOTALS = {"processed": 0, "matches": 0, "alerts": 0}


def test_a_line_is_printed_when_it_says_something_new(capsys, monkeypatch):
    now_s = [100.0]
    monkeypatch.setattr("astrocyte.pipeline.demo.view.time.monotonic", lambda: now_s[0])
    with DemoView("cells", 20, quiet=False) as view:
        for simulated_s in (0.0, 0.0, 0.0, 2.0, 2.0):
            view.update(simulated_s, TOTALS)
            now_s[0] += 5
    lines = capsys.readouterr().err.splitlines()
    assert [line.partition(",")[0] for line in lines] == [
        "cells: starting workers and compiling the simulation", "cells: 2 of 20 s"
    ]  # fmt: skip


def test_events_that_were_left_out_or_came_twice_are_accounted_for():
    assert accounted({"processed": 5, "late": 1, "dead": 1, "duplicate": 2, "sampled": 3, "matches": 9}) == 12

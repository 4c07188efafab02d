"""Commands on a real terminal: colours only where they are wanted, no control sequences where none are understood."""

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[3] / "examples" / "fraud"
RUN = "from astrocyte.pipeline.cli.app import main; main()"
COLOUR = re.compile(r"\x1b\[(?:\d+;)*(?:3[0-8]|4[0-8]|9\d|10\d)(?:;\d+)*m")
SUMMARY = """
from pathlib import Path
from astrocyte.pipeline.demo.view import DemoView, Summary
totals = {"processed": 5, "matches": 1, "alerts": 0}
with DemoView("axons", 20, quiet=False) as view:
    view.stage("starting the broker")
    view.note("look")
    view.update(1.0, totals, sent=7)
Summary(
    mono_events=7, multi_events=1, alerts=1, late=0, dead_letters=0, sampled=0, sql_rows=9, influx_points=7, lost=0,
    seconds=3.0, events_per_s=3.5, run="axons-7", data=Path("data"), database="sqlite:///data/a.db",
    rules=(Path("axons"),),
    world={}, scores=(), example=None, raised=(("warning", "hot"),),
).show()
"""
LOG = """
import logging
from astrocyte.pipeline.logging import configure_logging
configure_logging("info", json=False)
logging.getLogger("astrocyte").warning("a line")
"""


def on_terminal(*arguments: str, columns: int = 100, **environment: str) -> str:
    """What a program of Python writes to a terminal of that width, both streams."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    kept = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "COLUMNS", "TERM")}
    process = subprocess.Popen(
        [sys.executable, *arguments], stdin=theirs, stdout=theirs, stderr=theirs,
        env={"TERM": "xterm-256color"} | kept | environment, start_new_session=True,
    )  # fmt: skip
    os.close(theirs)
    parts = []
    while True:
        try:
            part = os.read(ours, 65_536)
        except OSError:  # the last one that held the terminal has ended
            break
        if not part:
            break
        parts.append(part)
    os.close(ours)
    process.wait()
    return b"".join(parts).decode().replace("\r\n", "\n")


PROGRAMS = {
    "help": ["-c", RUN, "--help"],
    "wrong use": ["-c", RUN, "match"],
    "match": ["-c", RUN, "match", str(EXAMPLE / "rules.yaml"), str(EXAMPLE / "payments.jsonl"), "--alerts"],
    "inspect": ["-c", RUN, "inspect", str(EXAMPLE / "payments.jsonl")],
    "a demo": ["-c", SUMMARY],
    "a log": ["-c", LOG],
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_terminal_without_control_sequences_gets_none(name):
    shown = on_terminal(*PROGRAMS[name], TERM="dumb")
    assert shown.strip()
    assert "\x1b" not in shown
    assert "\r" not in shown


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_user_who_declines_colours_gets_none(name):
    shown = on_terminal(*PROGRAMS[name], NO_COLOR="1")
    assert shown.strip()
    assert not COLOUR.search(shown)


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_pipe_gets_no_control_sequences(name):
    done = subprocess.run(
        [sys.executable, *PROGRAMS[name]], env=os.environ | {"TERM": "xterm-256color"}, capture_output=True, check=False
    )
    assert (done.stdout + done.stderr).strip()
    assert b"\x1b" not in done.stdout + done.stderr


def test_a_terminal_with_colours_gets_them():
    """The tests above look for what is there."""
    assert COLOUR.search(on_terminal(*PROGRAMS["a log"]))
    assert "\x1b" in on_terminal(*PROGRAMS["a demo"])


def test_match_prints_columns_on_a_terminal_and_json_into_a_pipe():
    shown = on_terminal(*PROGRAMS["match"])
    assert "card-07      critical tried_then_used: card-07: 1.00 at donation, then 879.00 at phones\n" in shown
    done = subprocess.run([sys.executable, *PROGRAMS["match"]], capture_output=True, check=True)
    assert done.stdout.count(b'{"alert_id":') == 4


@pytest.mark.parametrize("columns", [40, 80, 200])
def test_help_keeps_to_the_width_of_the_terminal(columns):
    shown = on_terminal("-c", RUN, "inspect", "--help", columns=columns)
    text = shown.partition("EXAMPLES")[0]
    assert max(map(len, text.splitlines())) <= min(columns, 80)
    assert "…" not in shown

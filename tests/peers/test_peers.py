"""How ``make peers`` judges, skips and limits; no other engine runs here."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.peers.children.hashing import hash_sum
from tests.peers.children.protocol import match_hash
from tests.peers.compare import chosen, set_up
from tests.peers.peers import HERE, PEERS, Form, Peer, Unavailable, java_command
from tests.peers.runs import Child, Limits, Measured, Silent, measure
from tests.peers.table import as_json, judged, leads, summary, table, without_form
from tests.peers.workloads import WORKLOADS, Workload

WORKLOAD = WORKLOADS[0]
KIND = str(WORKLOAD.arguments["kind"])
OURS = PEERS[0]
QUICK = Limits(answer_s=20, warm_events=0, turns=1, turn_s=0)
FOUND = Measured(start_s=1, cold_s=0.2, turns=[0.1, 0.3, 0.123], peak_mb=10, count=7, hash="ab")


def other(**more: object) -> Peer:
    return replace(Peer("other", "Other", "1.0", list, {KIND: Form("its form")}), **more)


@pytest.mark.parametrize("wrong", [{"count": 8}, {"hash": "ac"}])
def test_no_speed_is_shown_where_the_matches_differ(wrong):
    row = judged(WORKLOAD, other(), replace(FOUND, **wrong), FOUND)
    assert not row.shown
    assert "speed withheld" in row.remark
    assert f"{row.warm_per_s / 1e3:,.0f}" not in table([row], [other()])
    assert not [name for name in as_json([row])[0] if name.endswith("_s")]


def test_a_stated_difference_shows_the_speed_with_its_reason():
    peer = other(forms={KIND: Form("its form", differs="it keeps one of them")})
    row = judged(WORKLOAD, peer, replace(FOUND, count=3), FOUND)
    assert row.shown
    assert "3 matches: it keeps one of them" in row.remark


def test_the_same_matches_show_the_speed_and_the_ratio():
    ours = judged(WORKLOAD, OURS, FOUND, FOUND)
    row = judged(WORKLOAD, other(), replace(FOUND, turns=[0.246]), FOUND)
    assert row.shown
    assert row.remark == "its form"
    assert "| 2 |" in table([ours, row], [OURS, other()])
    assert as_json([row])[0]["warm_events_per_cpu_s"] == WORKLOAD.events / 0.246


def test_nothing_is_shown_beside_a_run_of_ours_that_failed():
    row = judged(WORKLOAD, other(), FOUND, Measured(error="none in 60 s"))
    assert not row.shown


def test_a_form_that_is_missing_is_named_with_its_reason():
    peers = [OURS, other(forms={}, without={KIND: "no joins"}), other(title="Third", forms={}, without_others="none")]
    assert without_form(WORKLOADS[:2], peers) == [
        "Other has no form for W1/1k, W1/100k: no joins",
        "Third has no form for W1/1k, W1/100k: none",
    ]


def test_every_row_in_which_a_peer_leads_is_named_with_its_reason():
    peers = [OURS, other(leads={KIND: "it looks at less"}), other(name="slow")]
    ours = judged(WORKLOAD, OURS, FOUND, FOUND)
    faster = judged(WORKLOAD, peers[1], replace(FOUND, turns=[0.1], start_s=0.5), FOUND)
    slower = judged(WORKLOAD, peers[2], replace(FOUND, turns=[0.2], start_s=2), FOUND)
    assert leads(as_json([ours, faster, slower]), peers) == [
        "W1/1k, warm: other, 1.2 times ours: it looks at less",
        "start-up: other, in 1 workloads, we need up to 2 times that: ours imports NumPy, pyarrow and Numba",
    ]


def test_the_summary_has_a_line_for_each_workload_and_no_speed_that_was_withheld():
    keeps_one = {KIND: Form("its form", differs="it keeps one of them")}
    peers = [OURS, other(), other(name="wrong", title="Wrong"), other(name="slow", title="Slow"),
             other(name="one", title="One", forms=keeps_one)]  # fmt: skip
    half = replace(FOUND, turns=[0.246])
    found = [FOUND, half, replace(FOUND, count=8), Measured(error="none in 60 s"), replace(half, hash="ac")]
    rows = as_json([judged(WORKLOAD, peer, each, FOUND) for peer, each in zip(peers, found, strict=True)])
    lines = summary(rows, peers).splitlines()
    assert lines[0] == "| workload | matches | Astrocyte | Other | Wrong | Slow | One | ours / best of the others |"
    assert lines[2] == "| W1/1k | 7 | 1,626 (1,000) | 813 (1,000) | withheld | none in 60 s | 813 (1,000) \\* | 2 |"
    assert lines[6:] == [
        "| Astrocyte this checkout | 1.0 | 10 to 10 |",
        "| Other 1.0 | 1.0 | 10 to 10 |",
        "| One 1.0 | 1.0 | 10 to 10 |",
    ]


def test_an_engine_whose_tools_are_missing_is_skipped_with_the_reason(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("PATH", str(tmp_path))
    commands, missing = set_up([OURS, other(command=java_command("esper", "EsperPeer"))])
    assert list(commands) == ["astrocyte"]
    assert missing == {"other": "java, javac, mvn not found; it needs a JDK of Java 17 or newer, and Maven"}
    assert "Other is skipped: java" in capsys.readouterr().err


def test_a_library_that_cannot_be_fetched_is_a_reason_to_skip(monkeypatch, tmp_path):
    for tool in ("java", "javac", "mvn"):
        (tmp_path / tool).write_text("#!/bin/sh\necho 'no such artifact'\nexit 1\n")
        (tmp_path / tool).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with pytest.raises(Unavailable, match="Maven: no such artifact"):
        java_command("esper", "EsperPeer")()


def test_workloads_and_engines_are_chosen_by_name_or_by_what_precedes_a_slash():
    assert chosen("", ["W1/1k", "W2/1k"]) == ["W1/1k", "W2/1k"]
    assert chosen("W2,W1/1k", ["W1/1k", "W1/100k", "W2/1k"]) == ["W1/1k", "W2/1k"]
    with pytest.raises(SystemExit, match="unknown: W3"):
        chosen("W3", ["W1/1k"])


def test_every_kind_of_query_has_our_form_and_each_engine_knows_only_these():
    kinds = {str(workload.arguments["kind"]) for workload in WORKLOADS}
    assert set(OURS.forms) == kinds
    for peer in PEERS:
        assert set(peer.forms) | set(peer.without) <= kinds, peer.name
        assert not set(peer.forms) & set(peer.without), peer.name


@pytest.mark.parametrize("workload", WORKLOADS, ids=lambda workload: workload.name)
def test_events_follow_from_the_seed_and_no_two_are_at_one_time(workload: Workload):
    first, second = (workload.make(np.random.default_rng(3), 500) for _ in range(2))
    assert first.tobytes() == second.tobytes()
    assert (np.diff(first["t"]) > 0).all()
    assert first.itemsize == 24
    assert (first["value"] * 1024 % 1 == 0).all()


def test_the_hash_is_one_for_single_matches_and_for_many():
    lists = [[], [5], [1, 2], [2, 1], [3, 2**40, 7], [-1]]
    numbers = np.array([number for each in lists for number in each], np.int64)
    offsets = np.cumsum([0, *map(len, lists)])
    assert hash_sum(numbers, offsets) == sum(map(match_hash, lists)) % 2**64
    # What java/Matches.java gives for the same lists.
    assert match_hash([1, 2]) == 11256899944907698678
    assert len({match_hash(each) for each in lists}) == len(lists)


@pytest.fixture
def script(tmp_path) -> Path:
    """Program of a child that answers as the protocol says, up to what a test changes in it."""
    path = tmp_path / "child.py"
    path.write_text(
        f"import sys\nsys.path.append({str(HERE / 'children')!r})\nfrom protocol import serve\n"
        "passes = iter([(2, 5), (2, 5), (2, 5)])\n"
        "def run(state, events):\n    return next(passes)\n"
        "serve(len, run)\n"
    )
    return path


def command_of(script: Path) -> list[str]:
    events = script.with_suffix(".bin")
    events.write_bytes(bytes(48))
    return [sys.executable, str(script), f"events={events}"]


def test_a_child_is_measured(script, tmp_path):
    found = measure({"it": command_of(script)}, tmp_path / "logs", QUICK)["it"]
    assert (found.error, found.count, found.hash, found.warmed) == ("", 2, "5", 2)
    assert found.start_s > 0
    assert found.peak_mb > 1
    assert len(found.turns) == 1


def test_a_child_that_does_not_answer_in_time_is_ended_and_said_so(script, tmp_path):
    script.write_text(script.read_text().replace("return next(passes)", "sys.stdin.read()"))
    child = Child(command_of(script), tmp_path / "log", replace(QUICK, answer_s=10))
    child._limits = replace(QUICK, answer_s=0.2)
    with pytest.raises(Silent, match=r"none in 0 s"):
        child.one_pass()
    child.end()


def test_a_child_that_fails_says_why(script, tmp_path):
    script.write_text(script.read_text().replace("return next(passes)", "raise ValueError('no such query')"))
    found = measure({"it": command_of(script)}, tmp_path / "logs", QUICK)["it"]
    assert found.error == "ended with 1: ValueError: no such query"


def test_passes_with_different_matches_are_no_figure(script, tmp_path):
    script.write_text(script.read_text().replace("(2, 5), (2, 5), (2, 5)", "(2, 5), (3, 5)"))
    found = measure({"it": command_of(script)}, tmp_path / "logs", QUICK)["it"]
    assert found.error == "passes differ: 2 and 3 matches"


def test_our_own_child_finds_the_pairs_of_a_small_file(tmp_path):
    events = WORKLOAD.make(np.random.default_rng(1), 400)
    events["key"] %= 3
    (tmp_path / "events.bin").write_bytes(events.tobytes())
    within = WORKLOAD.arguments["within"]
    command = [*OURS.command(), f"events={tmp_path / 'events.bin'}", f"kind={KIND}", f"within={within}"]
    done = subprocess.run(command, input="pass\n", capture_output=True, text=True, check=True)
    pairs = [
        (a, b)
        for a in range(len(events))
        for b in range(len(events))
        if (events["type"][a], events["type"][b]) == (0, 1)
        and events["key"][a] == events["key"][b]
        and abs(int(events["t"][a]) - int(events["t"][b])) < within
    ]
    assert f'"count": {len(pairs)}, "hash": "{sum(map(match_hash, pairs)) % 2**64:x}"' in done.stdout

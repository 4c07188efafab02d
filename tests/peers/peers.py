"""The engines: how each is set up, what it can express, and where its semantics differ.

What is fetched and built lies in a cache folder outside the checkout. An engine that cannot be had here is
`Unavailable`, with the reason.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).parent
SETUP_LIMIT_S = 900.0


class Unavailable(Exception):
    """The engine cannot be set up on this machine; the text says why."""


@dataclass(frozen=True)
class Form:
    """How an engine expresses a kind of query. ``differs``: why its matches may be others than ours; empty: never."""

    text: str
    differs: str = ""


@dataclass(frozen=True)
class Peer:
    """An engine. ``command`` sets it up and gives the command of its child process; it raises `Unavailable`."""

    name: str
    title: str
    version: str
    command: Callable[[], list[str]]
    forms: Mapping[str, Form]
    """By kind of query; what is not among them the engine has no form for."""
    without: Mapping[str, str] = field(default_factory=dict)
    """Why it has none, by kind of query."""
    without_others: str = "none in its documentation"
    """Why it has none for kinds that are in neither."""
    leads: Mapping[str, str] = field(default_factory=dict)
    """Why it is ahead of ours, by kind of query, where it is."""


def cache_folder() -> Path:
    """Folder of what is built, of the event files and of the results."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "astrocyte" / "peers"


def _checked(command: list[str], what: str, cwd: Path) -> str:
    """Output of a command. Raises Unavailable, with the last lines of what it printed."""
    try:
        done = subprocess.run(command, check=False, cwd=cwd, capture_output=True, text=True, timeout=SETUP_LIMIT_S)
    except OSError as error:
        raise Unavailable(f"{what}: {error}") from error
    except subprocess.TimeoutExpired:
        raise Unavailable(f"{what}: not done in {SETUP_LIMIT_S:.0f} s") from None
    if done.returncode:
        lines = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
        raise Unavailable(f"{what}: {' '.join(lines[-3:])[:300] or f'ended with {done.returncode}'}")
    return done.stdout


def _once(folder: Path, make: Callable[[Path], None]) -> Path:
    """The folder, filled by ``make`` the first time; a part of it is never taken for the whole."""
    if not folder.exists():
        partial = folder.with_name(f"{folder.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        make(partial)
        partial.rename(folder)
    return folder


def _digest(*files: Path) -> str:
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:12]


JAVA = ("-Xms256m", "-Xmx3g", "-XX:+UseParallelGC")
"""A heap of 3 GB at most; the collector that costs the least processor time."""
OPENED = ("java.base/java.lang", "java.base/java.util", "java.base/java.time")
"""Packages that serializers reach into."""


def java_command(profile: str, program: str) -> Callable[[], list[str]]:
    """Fetches the libraries of a profile of java/pom.xml, and compiles the program beside them."""

    def command() -> list[str]:
        missing = [tool for tool in ("java", "javac", "mvn") if shutil.which(tool) is None]
        if missing:
            raise Unavailable(f"{', '.join(missing)} not found; it needs a JDK of Java 17 or newer, and Maven")
        pom = HERE / "java/pom.xml"
        sources = [HERE / f"java/{name}.java" for name in ("Event", "Matches", "Peer", program)]

        def fetch(folder: Path) -> None:
            copy = ["dependency:copy-dependencies", "-DincludeScope=runtime", f"-DoutputDirectory={folder}"]
            _checked(["mvn", "-q", "-B", "-f", str(pom), "-P", profile, *copy], "Maven", folder)

        def build(folder: Path) -> None:
            _checked(
                ["javac", "-proc:none", "-cp", f"{libraries}/*", "-d", str(folder), *map(str, sources)], "javac", folder
            )

        libraries = _once(cache_folder() / f"{profile}-libraries-{_digest(pom)}", fetch)
        classes = _once(cache_folder() / f"{profile}-classes-{_digest(pom, *sources)}", build)
        opened = [f"--add-opens={package}=ALL-UNNAMED" for package in OPENED]
        return ["java", *JAVA, *opened, "-cp", f"{classes}:{libraries}/*", program]

    return command


def python_command(
    program: str, requirement: str, find: Callable[[], str] = lambda: sys.executable
) -> Callable[[], list[str]]:
    """Installs the requirement into an environment of its own, of the interpreter that ``find`` names."""

    def command() -> list[str]:
        interpreter = find()

        def make(folder: Path) -> None:
            # Not in `folder`, which is renamed: scripts of an environment name their place.
            _checked([interpreter, "-m", "venv", str(place)], "venv", folder)
            pip = [str(place / "bin/python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
            _checked([*pip, requirement], "pip", folder)

        place = cache_folder() / f"{requirement.replace('==', '-')}-environment"
        _once(place.with_name(f"{place.name}-done"), make)
        return [str(place / "bin/python"), str(HERE / f"children/{program}.py")]

    return command


def _ours() -> list[str]:
    return [sys.executable, str(HERE / "children/ours.py")]


def _python_313() -> str:
    """An interpreter of Python 3.13, for which alone CORE's wheels are made."""
    homes = [Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv").glob("versions/3.13*/bin/python")]
    for candidate in ["python3.13", *(str(path) for home in homes for path in home)]:
        with contextlib.suppress(OSError):
            done = subprocess.run([candidate, "--version"], check=False, capture_output=True, text=True)
            if done.stdout.startswith("Python 3.13"):
                return candidate
    raise Unavailable("Python 3.13 not found; its wheels are made for no other")


def _only_from_a_broker() -> list[str]:
    raise Unavailable("it reads its events from a Kafka broker alone, which would be measured instead")


NO_PATTERNS = "no patterns"
DENSE = {
    "combinations": "a thousand matches an event, which we order and whose events we locate: three quarters of our pass"
}
BATCH = "a batch over all events"

PEERS: tuple[Peer, ...] = (
    Peer(
        "astrocyte",
        "Astrocyte",
        "this checkout",
        _ours,
        {
            "pairs": Form("`all`, `pairing: each`"),
            "followed": Form("`seq`"),
            "strict_loop": Form("`seq`, `contiguity: next`, `min: 1`, `consecutive`"),
            "relaxed_loop": Form("`seq`, `min: 1`"),
            "absence": Form("`seq` with a last `not`"),
            "combinations": Form("`seq`, `followed_by_any`"),
            "windows": Form("`windows`, `every`"),
            "rules": Form("`seq`"),
            "adjacent": Form("`seq`, `contiguity: next`, `skip: past_last`"),
        },
    ),
    Peer(
        "esper",
        "Esper",
        "9.0.0",
        java_command("esper", "EsperPeer"),
        {
            "pairs": Form("join of two time windows on the key"),
            "followed": Form("pattern `every a -> b(key = a.key) where timer:within`"),
            "strict_loop": Form("`match_recognize (partition by key ... pattern (A B+ C))`"),
            "absence": Form("pattern `every a -> (timer:interval and not b(key = a.key))`"),
            "combinations": Form("pattern `every a -> (every b -> every c ...) where timer:within`"),
            "windows": Form("a context for each window, `group by key`"),
            "rules": Form("a statement as in W2 for each rule"),
            "adjacent": Form("`match_recognize`"),
        },
        {"relaxed_loop": "patterns repeat up to a bound of events, `match_recognize` takes rows in a row"},
        leads=DENSE,
    ),
    Peer(
        "siddhi",
        "Siddhi",
        "5.1.30",
        java_command("siddhi", "SiddhiPeer"),
        {
            "pairs": Form("join of two `externalTime` windows in a partition of each key"),
            "followed": Form("pattern `every a -> b within` in a partition"),
            "strict_loop": Form("sequence `every a, b+, c within` in a partition"),
            "relaxed_loop": Form(
                "pattern `every a -> b<1:> -> c within` in a partition",
                differs="one match with all of B, not one a length",
            ),
            "absence": Form("pattern `every a -> not b for`, `@app:playback`, in a partition"),
            "combinations": Form("pattern `every a -> every b[t - a.t < n] -> every c ... within`"),
            "windows": Form("`externalTimeBatch`, `group by key`"),
            "rules": Form("a query as in W2 for each rule, in a partition"),
            "adjacent": Form("sequence `every a, b, c`", differs="it has no skip, so matches overlap"),
        },
        leads=DENSE,
    ),
    Peer(
        "flink",
        "Flink CEP",
        "2.3.0",
        java_command("flink", "FlinkPeer"),
        {
            "pairs": Form("no pattern: DataStream's interval join"),
            "followed": Form("`followedBy`"),
            "strict_loop": Form("`next`, `oneOrMore().consecutive()`"),
            "relaxed_loop": Form("`followedBy`, `oneOrMore()`"),
            "absence": Form("a last `notFollowedBy`"),
            "combinations": Form("`followedByAny`"),
            "windows": Form("no pattern: `TumblingEventTimeWindows`, `aggregate`"),
            "rules": Form("a filter and a pattern for each rule, in one job"),
            "adjacent": Form("`next`, `skipPastLastEvent`"),
        },
    ),
    Peer(
        "core",
        "CORE (pycer)",
        "0.1.6",
        python_command("core", "pycer==0.1.6", _python_313),
        {"combinations": Form("`SELECT ALL * ... WHERE a; b; c ... WITHIN n EVENTS`; matches are written as text")},
        without_others="its `;` is every combination, never the first event that fits",
    ),
    Peer(
        "epigrep",
        "epigrep",
        "0.2.0",
        python_command("epigrep_", "epigrep==0.2.0"),
        {"followed": Form(f"`then(within=)`, {BATCH} that were sorted by key before")},
        {"combinations": "it bounds each step, not the whole", "absence": "`no=` only between two steps"},
    ),
    Peer(
        "bytewax",
        "bytewax",
        "0.21.1",
        python_command("bytewax_", "bytewax==0.21.1"),
        {"windows": Form("`fold_window`, `TumblingWindower`, its clock held so that nothing is late")},
        without_others=NO_PATTERNS,
    ),
    Peer(
        "pathway",
        "Pathway",
        "0.33.0",
        python_command("pathway_", "pathway==0.33.0"),
        {"windows": Form(f"`windowby`, `tumbling`, {BATCH}; graph and threads start in every pass")},
        without_others=NO_PATTERNS,
    ),
    Peer("quixstreams", "Quix Streams", "3.28.1", _only_from_a_broker, {}),
)

"""The process that tries rules: it holds the history, and forks one more for each trial.

The fork shares the history, and is killed once its answer is not wanted any more, takes too long, or needs too much
memory. One JSON object a line comes in and goes out: ``config`` first, then ``try``, ``cancel`` and ``why``.
"""

from __future__ import annotations

import contextlib
import gc
import os
import resource
import select
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import orjson
import pyarrow as pa

from astrocyte.agents.rules.model import RuleSet
from astrocyte.pipeline.analysis.history.comparison import Compared, compare_rule_sets, to_compare
from astrocyte.pipeline.analysis.history.results import RuleMatches, TooManyMatches, find_matches
from astrocyte.pipeline.analysis.history.tapes import History, Interrupted, Tapes, TooLarge
from astrocyte.pipeline.analysis.score import Planted
from astrocyte.pipeline.page.rules.history import Messages, messages_of
from astrocyte.pipeline.page.rules.in_force import InForce
from astrocyte.pipeline.page.rules.report import report
from astrocyte.schemas.errors import AstrocyteError

__all__ = ["LIMIT_S", "MOST_EVENTS", "MOST_MATCHES", "MOST_MEMORY"]

MOST_EVENTS: Final = 20_000_000
"""Events that are kept for one set of rules."""
MOST_MATCHES: Final = 2_000_000
MOST_MEMORY: Final = 2 << 30
"""Bytes that a trial may need beyond the history."""
LIMIT_S: Final = 30.0
"""How long a trial may take, without the time in which the history is read."""
_SAY_S: Final = 0.5
_TOO_LONG: Final = (
    "cut after {:.0f} s: these rules have too many partial matches over this history; bound them by a shorter within, "
    "by max_partials or by skip"
)
_TOO_BIG: Final = (
    f"cut: these rules need more memory than a trial may take ({MOST_MEMORY >> 30} GiB); bound their partial matches "
    "by a shorter within, by max_partials or by skip"
)


class _Lines:
    """Lines of a file descriptor."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.ended = False
        self._rest = b""

    def read(self) -> list[Any]:
        """The objects that have come; waits for some."""
        data = os.read(self.number, 1 << 20)
        self.ended = not data
        *lines, self._rest = (self._rest + data).split(b"\n")
        return [orjson.loads(line) for line in lines if line]


class _Fork:
    """One trial in a process of its own."""

    def __init__(self, number: int, work: Any, *, most_memory: int, limit_s: float) -> None:
        self.number = number
        self.until_s: float | None = time.monotonic() + limit_s
        down, up = os.pipe(), os.pipe()
        gc.freeze()  # the collector of the child does not touch, and so copy, what both share
        self.pid = os.fork()
        if self.pid == 0:
            status = 1
            try:
                os.close(down[1])
                os.close(up[0])
                _bound(most_memory)
                work(_Lines(down[0]), up[1])
                status = 0
            finally:
                os._exit(status)
        gc.unfreeze()
        os.close(down[0])
        os.close(up[1])
        self._down = down[1]
        self.answers = _Lines(up[0])

    def send(self, body: Any) -> None:
        """Ask the process."""
        with contextlib.suppress(BrokenPipeError):
            os.write(self._down, orjson.dumps(body) + b"\n")

    def end(self) -> None:
        """Kill it."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        os.close(self._down)
        os.close(self.answers.number)


def _bound(most_memory: int) -> None:
    now = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0]) * resource.getpagesize()
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (now + most_memory, hard))


class _Trials:
    def __init__(self, config: dict[str, Any]) -> None:
        self._messages: Messages = messages_of(config["messages"])
        self._most_memory = config.get("most_memory", MOST_MEMORY)
        self._limit_s = config.get("limit_s", LIMIT_S)
        self._history = History(
            self._messages.inputs,
            config["lateness_us"],
            config["clock_tolerance_us"],
            config.get("most_events", MOST_EVENTS),
        )
        self._planted: list[Planted] | None = None
        self._known: dict[str, RuleMatches] = {}
        self._known_of: tuple[RuleSet, int] | None = None
        self._fork: _Fork | None = None
        self._waiting: list[dict[str, Any]] = []
        self._said_s = 0.0

    def run(self, questions: _Lines) -> None:
        """Answer until the input ends."""
        while not questions.ended:
            while self._waiting:
                self._take(self._waiting.pop(0), questions)
            fork = self._fork
            numbers = [questions.number] + ([] if fork is None else [fork.answers.number])
            limit = None if fork is None or fork.until_s is None else max(fork.until_s - time.monotonic(), 0)
            ready, _, _ = select.select(numbers, [], [], limit)
            if questions.number in ready:
                self._waiting += questions.read()
            elif fork is not None and fork.answers.number in ready:
                self._relay(fork)
            elif fork is not None:
                _say({"number": fork.number, "failed": _TOO_LONG.format(self._limit_s)})
                self._drop()
        self._drop()

    def _relay(self, fork: _Fork) -> None:
        for answer in fork.answers.read():
            fork.until_s = None
            _say(answer | {"number": fork.number})
        if fork.answers.ended:
            if fork.until_s is not None:
                _say({"number": fork.number, "failed": "the process that tries the rules was ended by the system: "
                      "these rules probably need too much memory over this history"})  # fmt: skip
            self._drop()

    def _drop(self) -> None:
        if self._fork is not None:
            self._fork.end()
            self._fork = None

    def _take(self, question: dict[str, Any], questions: _Lines) -> None:
        match question["op"]:
            case "why":
                if self._fork is None:
                    _say({"question": question["question"], "failed": "the trial has ended; try the rules again"})
                else:
                    self._fork.send(question)
            case "cancel":
                self._drop()
            case "try":
                self._drop()
                try:
                    self._try(question, questions)
                except Interrupted:
                    _say({"number": question["number"], "superseded": True})
                except TooLarge:
                    _say({"number": question["number"], "failed": "the history is too large to be kept in memory "
                          f"(at most {self._history.most_events:,} events); shorten it, such as by --since 1h, or "
                          "record less"})  # fmt: skip
                except MemoryError:
                    _say({"number": question["number"], "failed": "there is not enough memory for this history"})
                except AstrocyteError as error:
                    _say({"number": question["number"], "failed": str(error)})

    def _try(self, question: dict[str, Any], questions: _Lines) -> None:
        number = question["number"]
        before = InForce.of_json(question["before"]).ruleset()
        after = InForce.of_json(question["after"]).checked(question["name"])

        def wanted() -> bool:
            if select.select([questions.number], [], [], 0)[0]:
                self._waiting += questions.read()
            return not questions.ended and not any(each["op"] in ("try", "cancel") for each in self._waiting)

        def progress(messages: int) -> None:
            if time.monotonic() - self._said_s > _SAY_S:
                self._said_s = time.monotonic()
                _say({"number": number, "progress": messages})

        began_s = time.monotonic()
        tapes, new_tapes = (
            self._history.tapes(ruleset, wanted=wanted, progress=progress) for ruleset in (before, after)
        )
        if self._planted is None:
            self._planted = self._messages.planted()
        read_s = time.monotonic() - began_s
        began_s = time.monotonic()
        names = to_compare(before, after, anew=new_tapes is not tapes)
        compared_before = self._before(before, tapes, names & {rule.name for rule in before.rules})
        old_s = time.monotonic() - began_s
        work = _Work(self._history, before, after, compared_before, self._planted, {"read_s": read_s, "old_s": old_s})
        self._fork = _Fork(number, work.run, most_memory=self._most_memory, limit_s=self._limit_s)

    def _before(self, before: RuleSet, tapes: Tapes, wanted: set[str]) -> dict[str, RuleMatches]:
        """Matches of the rules that run, which are kept: each trial compares with them."""
        if self._known_of != (before, id(tapes)):
            self._known, self._known_of = {}, (before, id(tapes))
        if missing := wanted - self._known.keys():
            self._known |= find_matches(before, tapes, only=missing, most_matches=MOST_MATCHES)
        return {name: self._known[name] for name in wanted}


@dataclass(frozen=True, slots=True)
class _Work:
    """What the fork does: compare, answer, then show single matches until it is killed."""

    history: History
    before: RuleSet
    after: RuleSet
    known: dict[str, RuleMatches]
    planted: list[Planted]
    times: dict[str, float]

    def run(self, lines: _Lines, out: int) -> None:
        """Write the answers as lines."""
        began_s = time.monotonic()
        try:
            compared = compare_rule_sets(
                self.history, self.before, self.after, known=self.known, most_matches=MOST_MATCHES
            )
            found = report(compared, self.planted)
        except TooManyMatches:
            _write(out, {"failed": f"more than {MOST_MATCHES:,} matches; make the conditions narrower"})
            return
        except MemoryError:
            _write(out, {"failed": _TOO_BIG})
            return
        except AstrocyteError as error:
            _write(out, {"failed": str(error)})
            return
        took = {"took_s": time.monotonic() - began_s, "processor_s": time.process_time()}
        _write(out, {"result": found | self.times | took})
        while not lines.ended:
            for question in lines.read():
                _write(out, {"question": question["question"], **_why(compared, question)})


def _why(compared: Compared, question: dict[str, Any]) -> dict[str, Any]:
    side = compared.side(question["rule"], after=question["after"])
    if side is None or not 0 <= question["match"] < side.count:
        return {"failed": "there is no such match in the last trial"}
    return {"explained": side.explained(question["match"]).as_json()}


def _write(out: int, body: Any) -> None:
    data = orjson.dumps(body, default=str, option=orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_NON_STR_KEYS) + b"\n"
    while data:
        data = data[os.write(out, data) :]


def _say(body: dict[str, Any]) -> None:
    _write(1, body)


def _main() -> None:
    pa.set_cpu_count(1)  # a fork has no threads of its parent's pools
    questions = _Lines(0)
    first: list[Any] = []
    while not first and not questions.ended:
        first = questions.read()
    if first:
        trials = _Trials(first[0])
        trials._waiting += first[1:]
        trials.run(questions)


if __name__ == "__main__":
    _main()

"""``astrocyte worker``: one Faust worker for one role, or one child process for each of several roles."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import FrameType
from typing import IO, TYPE_CHECKING, Final

from astrocyte.pipeline.roles.parent import END_WITH_PARENT
from astrocyte.pipeline.roles.refusals import STOPPED_STATUS
from astrocyte.pipeline.settings import DURATIONS, Settings
from astrocyte.pipeline.watch.children import Cause, ChildWatch, Restarts, pages_of
from astrocyte.pipeline.watch.link import Link
from astrocyte.pipeline.watch.web import METRICS_TYPE, Answer, WebServer, json_answer, serve
from astrocyte.schemas.errors import AstrocyteError, InvalidSettings, TransientError

if TYPE_CHECKING:
    from astrocyte.agents.rules.model import RuleSet

__all__ = [
    "REFUSED_STATUS",
    "RESTART_STATUS",
    "RoleProcesses",
    "check_topics",
    "environment_of",
    "needed_roles",
    "run_roles",
    "worker_command",
]

REFUSED_STATUS: Final = 2
"""Exit status of a worker whose settings or rules cannot work, so that starting it again would not help."""
RESTART_STATUS: Final = 75
"""Exit status of a worker that must be restarted, because changed rules read other topics, or topics have changed."""


def environment_of(settings: Settings) -> dict[str, str]:
    """The environment that gives a child process these settings."""
    environment = dict(os.environ)
    for name, value in settings.model_dump(exclude_defaults=True).items():
        if hasattr(value, "get_secret_value"):
            text = value.get_secret_value()
        elif isinstance(value, tuple | list):
            text = ",".join(str(item) for item in value)
        elif isinstance(value, dict):
            text = json.dumps(value, default=str)
        elif name in DURATIONS:
            text = f"{value}us" if value else "0"
        else:
            text = str(value)
        environment[f"ASTROCYTE_{name.upper()}"] = text
    return environment


def worker_command(extra: Sequence[str] = ()) -> list[str]:
    """Command line of one Faust worker; ``extra`` are Faust's own options."""
    command = [sys.executable, "-m", "faust", "-A", "astrocyte.pipeline.app", "--quiet", "worker", "--without-web"]
    return [*command, *extra]


_GRACE_S: Final[Mapping[str, float]] = {"hangs": 20.0, "blocked": 2.0, "silent": 2.0}
"""Time from SIGTERM to SIGKILL. Only a role whose event loop runs can use it."""
_QUIET_S: Final = 10.0
"""A child of which nothing was heard for so long is not ready."""
_ALIVE_S: Final = 30.0
"""A supervisor that has not looked after its children for so long is not healthy."""


@dataclass(slots=True)
class _Ending:
    """A child that was asked to end."""

    cause: Cause
    line: str
    kill_s: float


@dataclass(slots=True)
class RoleProcesses:
    """One child process for each role. A role that ends is started again, and one that hangs is ended first.

    One that refuses to start, or that keeps failing, ends them all. With ``metrics_port`` set, the pages of health and
    metrics of all children are served there.

    The children end with this process, also if it is killed.
    """

    settings: Settings
    roles: tuple[str, ...]
    faust_options: tuple[str, ...] = ()
    output: IO[str] | None = None
    most_restarts: int = 5
    needed: Callable[[], Iterable[str]] = tuple
    """Gives the roles that rules and topics need when a role asks for its restart; new ones among them are started.

    Raises TransientError while the broker does not say: it is asked again at the next check.
    """
    _children: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    _links: dict[str, Link] = field(default_factory=dict)
    _watches: dict[str, ChildWatch] = field(default_factory=dict)
    _ending: dict[str, _Ending] = field(default_factory=dict)
    _due_s: dict[str, float] = field(default_factory=dict)
    """By role without a process: when it is started again."""
    _restarts: Restarts = field(default_factory=Restarts)
    _checked_s: float | None = None
    _web: WebServer | None = None
    _asking: bool = False
    _stopping: bool = False

    def start(self) -> None:
        """Start every role. Raises InvalidSettings if the port of health and metrics is in use."""
        self._stopping = False
        self._restarts = Restarts(self.most_restarts, self.settings.liveness_timeout / 1e6)
        self._web = serve(self.settings, self._page)
        for role in self.roles:
            self._start(role)

    def _start(self, role: str) -> None:
        if self._stopping:
            return
        ended = self._children.get(role)
        if ended is not None and ended.stdin is not None:
            ended.stdin.close()
        if role in self._links:
            self._links[role].close()
        link = Link()
        environment = environment_of(self.settings) | {"ASTROCYTE_ROLES": role, END_WITH_PARENT: "1"}
        self._children[role] = subprocess.Popen(
            worker_command(self.faust_options), env=environment | link.environment, stdout=self.output,
            stderr=self.output, stdin=subprocess.PIPE, start_new_session=True, pass_fds=(link.theirs.fileno(),),
        )  # fmt: skip
        link.begin()
        self._links[role], self._watches[role] = link, ChildWatch(self._restarts.timeout_s)

    def add(self, roles: Iterable[str]) -> None:
        """Start further roles; those that run already stay as they are."""
        for role in roles:
            if role not in self._children:
                self._start(role)

    @property
    def pids(self) -> dict[str, int]:
        """Process id of each role."""
        return {role: child.pid for role, child in self._children.items()}

    @property
    def starting(self) -> list[str]:
        """Roles that do not yet have their partitions, their state, broker and store."""
        status = {role: link.status for role, link in self._links.items()}
        return [role for role in self._children if not (status[role] or {}).get("ready")]

    def check(self, now_s: float) -> None:
        """End roles that hang, and restart those that have ended. Called a few times a second.

        Raises AstrocyteError for one that ended too often, that stopped for good, or that cannot start as it is set up.
        """
        self._checked_s = time.monotonic()
        for role, child in list(self._children.items()):
            if self._stopping:
                return
            if role in self._due_s:
                if now_s >= self._due_s[role]:
                    del self._due_s[role]
                    self._start(role)
                continue
            status = child.poll()
            if status is None:
                self._watch(role, child, now_s)
            else:
                self._ended(role, status, now_s)
        if self._asking and not self._stopping:
            self._start_needed()

    def _watch(self, role: str, child: subprocess.Popen[bytes], now_s: float) -> None:
        ending, link = self._ending.get(role), self._links[role]
        if ending is not None:
            if now_s >= ending.kill_s:
                child.kill()
            return
        found = self._watches[role].look(link.heard, link.status, now_s)
        if found is not None:
            cause, line = found
            self._say(f"role {role!r} is ended and started again: {line}")
            self._ending[role] = _Ending(cause, line, now_s + _GRACE_S[cause])
            child.terminate()

    def _ended(self, role: str, status: int, now_s: float) -> None:
        ending = self._ending.pop(role, None)
        if ending is None and status == REFUSED_STATUS:
            raise InvalidSettings(f"role {role!r} cannot start with these settings or rules; see its message above")
        if ending is None and status == STOPPED_STATUS:
            raise AstrocyteError(f"role {role!r} has stopped; its last log line says why")
        if ending is not None:
            wait_s = self._restarts.ended(role, ending.cause, ending.line, now_s)
        elif status == RESTART_STATUS:
            wait_s = self._restarts.ended(role, "asked", status, now_s)
            self._asking = True
        else:
            wait_s = self._restarts.ended(role, "ended", status, now_s)
        if wait_s:
            self._say(f"role {role!r} has ended with status {status}; it is started again in {wait_s:.0f} s")
            self._due_s[role] = now_s + wait_s
        else:
            self._start(role)

    def _say(self, line: str) -> None:
        print(f"astrocyte: {line}", file=self.output or sys.stderr, flush=True)

    def _page(self, path: str) -> Answer | None:
        alive = self._checked_s is None or time.monotonic() - self._checked_s < _ALIVE_S
        waits = {
            role: f"nothing has been heard of it for {watch.quiet_s:.0f} s"
            for role, watch in tuple(self._watches.items())
            if watch.quiet_s >= _QUIET_S
        }
        waits |= dict.fromkeys(tuple(self._due_s), "it has ended, and is started again soon")
        waits |= {role: f"it is ended: {each.line}" for role, each in tuple(self._ending.items())}
        return pages_of(path, dict(self._links), waits, self._restarts, alive=alive)

    def _start_needed(self) -> None:
        try:
            needed = self.needed()
        except TransientError:
            return
        self._asking = False
        self.add(needed)

    def stop(self, timeout_s: float = 20.0) -> None:
        """Ask every role to finish, wait, and kill those that do not. None is started any more; from any thread."""
        self._stopping = True
        if self._web is not None:
            self._web.stop()
            self._web = None
        children = list(self._children.values())
        for child in children:
            if child.poll() is None:
                child.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + timeout_s
        for child in children:
            try:
                child.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
            if child.stdin is not None:
                child.stdin.close()
        for link in self._links.values():
            link.close()


def needed_roles(
    settings: Settings, ruleset: RuleSet | None = None, partitions: Mapping[str, int] | None = None
) -> tuple[str, ...]:
    """The roles of the settings, with ``repartition`` and ``insight`` where the rule files need them beside correlate.

    ``ruleset`` are the rules, by default those of the files; ``partitions`` the topics of the broker with their
    partition counts.
    """
    roles = settings.roles
    if "correlate" in roles and not {"repartition", "insight"} <= set(roles):
        from astrocyte.pipeline.topology.topics import KnownTopics

        plan = KnownTopics(partitions or {}, settings.partitions).plan(ruleset or _ruleset_of(settings))
        needed = {"repartition": plan.repartitions, "insight": plan.part("insight").groups}
        roles = (*roles, *(role for role in needed if needed[role] and role not in roles))
    return roles


async def _roles_now(settings: Settings) -> tuple[str, ...]:
    """The roles that the rules in force and the topics of the broker need. Raises BrokerUnavailable."""
    if "correlate" not in settings.roles:
        return settings.roles
    from astrocyte.pipeline.kafka.client import topic_partitions
    from astrocyte.pipeline.topology.plan import make_plan, refuse_topics
    from astrocyte.pipeline.topology.rule_updates import LiveRules, load_live_rules
    from astrocyte.pipeline.topology.topics import KnownTopics

    ruleset = _ruleset_of(settings)
    refuse_topics(make_plan(ruleset))  # refused without a broker
    there = await topic_partitions(settings.broker)
    known = KnownTopics(there, settings.partitions)
    live = LiveRules(ruleset, accept=lambda rules: refuse_topics(known.plan(rules)))
    await load_live_rules(settings.broker, live)
    return needed_roles(settings, live.ruleset, there)


def _ruleset_of(settings: Settings) -> RuleSet:
    from astrocyte.pipeline.topology.rule_files import DEFAULT_RULES, read_rule_files

    return read_rule_files(settings.rules or DEFAULT_RULES)


def check_topics(settings: Settings) -> None:
    """Compare the topics of all roles with the settings, before one of them creates any; waits for the broker.

    Roles that start together would otherwise create topics while one of them refuses. Raises InvalidSettings.
    """
    from astrocyte.pipeline.kafka.client import topic_partitions, until_available
    from astrocyte.pipeline.topology.plan import contracts_of, make_plan, refuse_topics
    from astrocyte.pipeline.topology.topics import KnownTopics, check_partitions, role_topics

    ruleset = _ruleset_of(settings)
    refuse_topics(make_plan(ruleset))  # refused without a broker
    there = asyncio.run(until_available(lambda: topic_partitions(settings.broker)))
    contracts = contracts_of(ruleset, existing=there, streams=settings.streams)
    topics = role_topics(settings, KnownTopics(there, settings.partitions).plan(ruleset), contracts)
    check_partitions(there, dict.fromkeys(topics, settings.partitions))


def _waiting_page(path: str) -> Answer | None:
    """Health before any role is started."""
    state = {"healthy": True, "ready": False, "waits": ["it starts, or waits for the broker"], "roles": {}}
    pages = {"/healthz": json_answer(200, state), "/readyz": json_answer(503, state)}
    return pages.get(path, Answer(200, METRICS_TYPE, b"") if path == "/metrics" else None)


def run_roles(settings: Settings, faust_options: Sequence[str] = ()) -> None:
    """Run the roles of the settings until SIGINT or SIGTERM; a single role replaces this process.

    Raises InvalidSettings or InvalidRule, with nothing created, for settings that the broker's topics contradict.
    """
    from astrocyte.pipeline.kafka.client import until_available

    chosen = settings
    # A worker that waits for its broker is alive.
    web = serve(settings, _waiting_page)
    try:
        settings = settings.model_copy(update={"roles": asyncio.run(until_available(lambda: _roles_now(chosen)))})
        if len(settings.roles) > 1:
            check_topics(settings)
    finally:
        if web is not None:
            web.stop()
    if len(settings.roles) == 1:
        command = worker_command(faust_options)
        sys.stdout.flush()
        os.execve(command[0], command, environment_of(settings))
    processes = RoleProcesses(
        settings, settings.roles, tuple(faust_options), needed=lambda: asyncio.run(_roles_now(chosen))
    )
    stopping = False

    def stop(_signal: int, _frame: FrameType | None) -> None:
        nonlocal stopping
        stopping = True

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    processes.start()
    try:
        while not stopping:
            processes.check(time.monotonic())
            time.sleep(0.2)
    finally:
        processes.stop()

"""What a supervisor decides of its children, in virtual time, and the pages that it merges."""

from __future__ import annotations

import json
import signal
from types import SimpleNamespace

import pytest
from prometheus_client.parser import text_string_to_metric_families

from astrocyte.pipeline.roles import worker
from astrocyte.pipeline.roles.worker import RoleProcesses
from astrocyte.pipeline.settings import load_settings
from astrocyte.pipeline.watch.children import ChildWatch, Restarts, merged_metrics, pages_of
from astrocyte.pipeline.watch.link import Link, Supervisor
from astrocyte.schemas.errors import AstrocyteError
from tests.support.waiting import wait_until

WELL = {"role": "sql", "healthy": True, "ready": True, "end": "", "line": "", "waits": []}
HANGS = WELL | {"healthy": False, "end": "hangs", "line": "nothing was read"}


def test_a_child_that_says_nothing_for_the_limit_is_ended():
    watch = ChildWatch(10.0)
    assert [watch.look(1, WELL, second) for second in range(10)] == [None] * 10
    cause, line = watch.look(1, WELL, 10)
    assert (cause, line.split(":")[0]) == ("silent", "nothing has been heard for 10 s")


def test_a_child_that_reports_is_not():
    watch = ChildWatch(10.0)
    assert not any(watch.look(second // 9, WELL, second) for second in range(9, 200))


def test_a_child_that_imports_its_plugins_has_ten_times_the_limit():
    watch = ChildWatch(10.0)
    found = [watch.look(0, None, second) for second in range(110)]
    assert found.index(next(filter(None, found))) == 100


def test_time_in_which_the_supervisor_itself_was_stopped_does_not_count():
    watch = ChildWatch(10.0)
    watch.look(1, WELL, 0)
    watch.look(1, WELL, 1)
    assert watch.look(1, WELL, 1000) is None


def test_what_a_child_says_of_itself_ends_it():
    assert ChildWatch(10.0).look(1, HANGS, 0) == ("hangs", "nothing was read")


def test_a_limit_of_zero_ends_no_child():
    watch = ChildWatch(0.0)
    assert not any(watch.look(0, HANGS, second) for second in range(10_000))


def test_restarts_come_later_and_later_and_then_no_more():
    restarts = Restarts()
    assert [restarts.ended("sql", "ended", 1, second) for second in range(5)] == [0, 1, 2, 4, 8]
    with pytest.raises(AstrocyteError, match="role 'sql' ended 6 times within a minute, last with status 1"):
        restarts.ended("sql", "ended", 1, 5)
    assert restarts.ended("influx", "ended", 1, 5) == 0


def test_a_role_that_hangs_again_and_again_is_given_up():
    restarts = Restarts(timeout_s=120)
    waits = [restarts.ended("sql", "hangs", "nothing was read", second) for second in range(0, 1000, 200)]
    assert waits == [0, 1, 2, 4, 8]
    with pytest.raises(AstrocyteError, match="had to be ended 6 times within 60 minutes, last because nothing was"):
        restarts.ended("sql", "blocked", "nothing was read", 1001)


def test_restarts_of_long_ago_do_not_count():
    restarts = Restarts(timeout_s=120)
    assert {restarts.ended("sql", "hangs", "", hour * 3600) for hour in range(20)} == {0.0}
    assert restarts.counts == {("sql", "hangs"): 20}


def test_a_role_that_asks_for_its_restart_gets_it_at_once():
    restarts = Restarts()
    assert {restarts.ended("sql", "asked", 75, second) for second in range(20)} == {0.0}


def test_families_of_several_roles_stand_together():
    head = "# HELP a_total text\n# TYPE a_total counter\n"
    one = head + 'a_total{role="x"} 1.0\n# HELP b text\n# TYPE b gauge\nb{role="x"} 2.0\n'
    two = head + 'a_total{role="y"} 3.0\n'
    text = merged_metrics([one, two, ""])
    assert text.count("# TYPE a_total counter") == 1
    families = {family.name: family for family in text_string_to_metric_families(text)}
    assert {each.labels["role"]: each.value for each in families["a"].samples} == {"x": 1.0, "y": 3.0}
    assert families["b"].samples[0].value == 2.0


def link_of(status) -> SimpleNamespace:
    return SimpleNamespace(status=status, metrics=lambda _timeout_s: "")


@pytest.mark.parametrize(
    ("statuses", "waits", "alive", "expected"),
    [
        ({"sql": WELL, "influx": WELL}, {}, True, (200, 200)),
        ({"sql": WELL, "influx": HANGS}, {}, True, (503, 503)),
        ({"sql": WELL, "influx": None}, {}, True, (200, 503)),
        ({"sql": WELL, "influx": HANGS}, {"influx": "it is ended"}, True, (200, 503)),
        ({"sql": WELL | {"ready": False}}, {}, True, (200, 503)),
        ({"sql": WELL}, {}, False, (503, 503)),
    ],
    ids=["well", "hangs", "starts", "ended", "not ready", "nobody looks"],
)
def test_the_page_of_a_supervisor_is_that_of_its_worst_role(statuses, waits, alive, expected):
    links = {role: link_of(status) for role, status in statuses.items()}
    pages = [pages_of(path, links, waits, Restarts(), alive=alive) for path in ("/healthz", "/readyz")]
    assert tuple(page.status for page in pages) == expected
    assert json.loads(pages[0].body)["roles"].keys() == statuses.keys()
    assert pages_of("/other", links, waits, Restarts(), alive=alive) is None


def test_the_metrics_of_a_supervisor_hold_its_restarts_and_its_roles():
    restarts = Restarts()
    restarts.ended("sql", "hangs", "nothing was read", 0)
    link = SimpleNamespace(status=WELL, metrics=lambda _timeout_s: '# TYPE up gauge\nup{role="sql"} 1.0\n')
    page = pages_of("/metrics", {"sql": link}, {}, restarts, alive=True)
    families = {family.name: family for family in text_string_to_metric_families(page.body.decode())}
    assert families["astrocyte_restarts"].samples[0].labels == {"role": "sql", "cause": "hangs"}
    assert families["up"].samples[0].value == 1.0


def test_reports_and_metrics_come_over_the_link(monkeypatch):
    link = Link()
    monkeypatch.setenv("ASTROCYTE_SUPERVISOR_FD", str(link.theirs.detach()))
    child = Supervisor.of_environment()
    assert child is not None
    assert Supervisor.of_environment() is None, "children of the child have no such supervisor"
    child.answer_with(lambda: "a 1\n")
    link.begin()
    child.report(WELL)
    wait_until(lambda: link.heard == 1)
    assert link.status == WELL
    assert [link.metrics(30), link.metrics(30)] == ["a 1\n", "a 1\n"]
    link.close()
    child.report(WELL)
    assert link.metrics(30) == ""
    child._connection.close()


class Child:
    """A process that ends when the test says so."""

    stdin = None

    def __init__(self) -> None:
        self.status: int | None = None
        self.signals: list[int] = []

    def poll(self):
        return self.status

    def terminate(self):
        self.signals.append(signal.SIGTERM)

    def kill(self):
        self.signals.append(signal.SIGKILL)
        self.status = -9


@pytest.fixture
def supervisor(monkeypatch, tmp_path):
    """A supervisor of one role, and the processes that it has started."""
    started: list[Child] = []

    def start(*_arguments, **_options):
        started.append(Child())
        return started[-1]

    monkeypatch.setattr(worker.subprocess, "Popen", start)
    with (tmp_path / "log").open("w+") as log:
        found = RoleProcesses(load_settings(liveness_timeout="10s"), ("sql",), output=log)
        found.start()
        yield found, started
        for link in found._links.values():
            link.close()


def test_a_child_that_hangs_is_asked_to_end_then_killed_and_started_again(supervisor):
    processes, started = supervisor
    processes._links["sql"].status = HANGS
    processes.check(100.0)
    processes.check(110.0)
    assert started[0].signals == [signal.SIGTERM]
    page = processes._page("/readyz")
    assert (page.status, json.loads(page.body)["roles"]["sql"]["waits"]) == (503, ["it is ended: nothing was read"])
    processes.check(121.0)
    assert started[0].signals == [signal.SIGTERM, signal.SIGKILL]
    processes.check(121.2)
    assert len(started) == 2
    assert json.loads(processes._page("/healthz").body)["roles"]["sql"]["restarts"] == {"hangs": 1}

    # The second time it ends in order, and waits a second.
    processes._links["sql"].status = HANGS
    processes.check(300.0)
    started[1].status = 0
    processes.check(301.0)
    assert len(started) == 2
    processes.check(301.5)
    assert len(started) == 2
    processes.check(302.0)
    assert len(started) == 3
    assert started[1].signals == [signal.SIGTERM]


def test_a_child_that_is_silent_is_not_ready_before_it_is_ended(supervisor):
    processes, started = supervisor
    processes._watches["sql"].timeout_s = 120.0
    processes._links["sql"].status = WELL
    for second in range(12):
        assert processes._page("/readyz").status == (200 if second <= 10 else 503), second
        processes.check(float(second))
    assert processes._page("/healthz").status == 200
    assert "nothing has been heard of it for 11 s" in processes._page("/readyz").body.decode()
    assert started[0].signals == []


def test_a_child_that_ends_by_itself_is_started_again_later_each_time(supervisor):
    processes, started = supervisor
    for _ in range(3):
        started[-1].status = 1
        processes.check(0.0)
        processes.check(100.0)
    assert len(started) == 4

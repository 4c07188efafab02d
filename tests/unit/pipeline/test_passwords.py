"""No password of an address is shown, whatever fails: errors, logs, JSON, retry notices."""

import json
import logging
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from astrocyte.agents.sinks.base import SinkError, SinkStopped
from astrocyte.agents.sinks.influx.setup import setup_influx
from astrocyte.agents.sinks.influx.sink import InfluxSink
from astrocyte.agents.sinks.retry import RetryPolicy
from astrocyte.agents.sinks.sql.sink import SqlSink
from astrocyte.pipeline.cli import app as command
from astrocyte.pipeline.logging import configure_logging
from astrocyte.schemas.errors import AstrocyteError, redacted
from tests.support.batches import a_batch

SECRET = "hunter2/Secret"
SQL = f"postgresql://me:{SECRET}@127.0.0.1:9/x?sslpassword={SECRET}"
PLAIN = "hunter3Secret"
INFLUX = f"http://me:{PLAIN}@127.0.0.1:9"
BROKER = f"me:{SECRET}@127.0.0.1:9"
COMMANDS = [
    ["db", "url"],
    ["db", "url", "--json"],
    ["db", "upgrade"],
    ["db", "retention"],
    ["audit", "verify"],
    ["audit", "verify", "--json"],
    ["audit", "export"],
    ["experiment", "ls"],
    ["explain", "no-event", "--db", SQL],
    ["influx", "setup"],
    ["health"],
    ["tap", "alerts", "-b", BROKER],
    ["record", "alerts", "-b", f"kafka://{BROKER}", "-o", "-"],
    ["inspect", "alerts", "-b", BROKER],
    ["dead-letters", "ls", "-b", BROKER],
    ["rules", "publish", "--list", "-b", BROKER],
    ["simulate", "axons", "--ticks", "1", "-b", BROKER],
    ["worker", "--role", "sql", "-b", BROKER],
]


@pytest.mark.parametrize("arguments", COMMANDS, ids=" ".join)
def test_a_command_that_fails_shows_no_password_and_no_traceback(arguments, monkeypatch, capfd, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ASTROCYTE_SQL_URL", SQL)
    monkeypatch.setenv("ASTROCYTE_INFLUX_URL", INFLUX)
    monkeypatch.setenv("ASTROCYTE_INFLUX_TOKEN", PLAIN)
    if arguments[0] == "health":
        monkeypatch.setenv("ASTROCYTE_BROKER", BROKER)
    monkeypatch.setattr(sys, "argv", ["astrocyte", *arguments])
    with pytest.raises(SystemExit) as ended:
        command.main()
    said = "".join(capfd.readouterr())
    assert ended.value.code in (1, 2)
    assert "astrocyte: " in said
    assert SECRET not in said
    assert PLAIN not in said
    assert "Traceback" not in said
    assert len(said.splitlines()) == 1


def test_a_worker_refuses_an_address_with_a_password_without_showing_it(tmp_path):
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "ASTROCYTE_BROKER": BROKER}
    done = subprocess.run(
        [sys.executable, "-m", "faust", "-A", "astrocyte.pipeline.app", "worker"], cwd=tmp_path, env=environment,
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == 2
    assert "me:***@127.0.0.1:9" in done.stderr
    assert SECRET not in done.stderr + done.stdout


@pytest.mark.parametrize("kind", ["sql", "influx"])
async def test_the_notices_of_a_sink_whose_store_is_away_show_no_password(kind):
    notices = []
    retry = RetryPolicy(kind, on_retry=lambda notice: (notices.append(notice.reason), retry.stop.set()))
    if kind == "sql":
        sink = SqlSink(SQL, now_us=lambda: 0, retry=retry)
    else:
        sink = InfluxSink("http://127.0.0.1:9", token=PLAIN, org="o", bucket="b", retry=retry)

    async def use():
        await sink.open()
        await sink.write(a_batch())

    with pytest.raises(SinkStopped) as stopped:
        await use()
    await sink.close()
    assert len(notices) >= 1
    said = " ".join([*notices, str(stopped.value)])
    assert SECRET not in said
    assert PLAIN not in said


@pytest.mark.parametrize(
    ("url", "match"),
    [
        (INFLUX, r"http://me:\*\*\*@127\.0\.0\.1:9' holds a user or password; .*ASTROCYTE_INFLUX_TOKEN"),
        (f"http://me:{SECRET}@127.0.0.1:9", r"http://me:\*\*\*@127\.0\.0\.1:9'; expected one such as http://host:8086"),
        ("http://127.0.0.1:x9", "expected one such as http://host:8086"),
        ("127.0.0.1:9", "expected one such as http://host:8086"),
    ],
)
async def test_an_address_of_influxdb_that_cannot_work_is_one_error_without_its_password(url, match):
    # The client raises ValueError for it at every write, which would make each row a dead letter.
    with pytest.raises(SinkError, match=match):
        await InfluxSink(url, token=PLAIN, org="o", bucket="b").open()
    with pytest.raises(SinkError, match=match):
        list(setup_influx(url, token=PLAIN, org="o", bucket="b"))


@pytest.mark.parametrize("as_json", [False, True])
def test_logs_and_their_tracebacks_show_no_password(as_json, capfd, monkeypatch):
    root = logging.getLogger()
    monkeypatch.setattr(root, "handlers", [])
    level = root.level
    configure_logging("info", json=as_json)
    try:
        raise ValueError(f"cannot connect to {SQL}")
    except ValueError:
        logging.getLogger("some.library").exception("the address %s failed", INFLUX)
    finally:
        for handler in root.handlers:
            handler.flush()
        root.setLevel(level)
    said = capfd.readouterr().err
    assert "cannot connect to postgresql://me:***@127.0.0.1:9/x?sslpassword=***" in said
    assert SECRET not in said
    assert PLAIN not in said
    if as_json:
        assert json.loads(said.splitlines()[0])["event"] == "the address http://me:***@127.0.0.1:9 failed"


@given(
    st.text(st.characters(exclude_characters="\"' \n", categories=["L", "N", "P", "S"]), min_size=1).filter(
        lambda text: not text.split("/")[0].split("?")[0].split("#")[0].split(",")[0].split(";")[0].isdigit()
    ),
    st.sampled_from(["postgresql://me:{}@db:5432/x", "http://:{}@h", "broker is 'http://u.v:{}@h:1/path?a=b'"]),
)
def test_any_password_in_a_url_is_hidden(password, form):
    assert redacted(form.format(password)) == form.format("***")
    assert str(AstrocyteError(form.format(password))) == form.format("***")


@pytest.mark.parametrize(
    "text",
    [
        "http://influx:8086/api?mail=a@b",
        "InfluxDB at http://influx:8086: sent by me@example.org",
        "127.0.0.1:9092,127.0.0.1:9093",
        "postgresql://db/x?user=me",
        "at 12:30 me@home",
        "step 'a': temp=30 and b = 1",
    ],
)
def test_what_is_no_password_stays(text):
    assert redacted(text) == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("host=db user=me password=x1 dbname=y", "host=db user=me password=*** dbname=y"),
        ("http://h:8086/write?u=me&p=1&token=abc&q=1", "http://h:8086/write?u=me&p=1&token=***&q=1"),
        ("me:x1@h1:9092,me:x2@h2:9092", "me:***@h1:9092,me:***@h2:9092"),
    ],
)
def test_passwords_outside_of_the_place_for_users_are_hidden(text, shown):
    assert redacted(text) == shown

"""A user's own modules: imported at the start, in every process, with their settings."""

import sys

import pytest

from astrocyte.agents.controllers.base import Controller, register_controller
from astrocyte.agents.ingest.decoders import register_decoder
from astrocyte.agents.rules.validator_functions import register_validator
from astrocyte.agents.sinks.base import Sink
from astrocyte.agents.sinks.registry import SINKS, SinkContext, SinkType, register_sink
from astrocyte.agents.sinks.retry import RetryPolicy
from astrocyte.agents.sinks.sql.targets import register_table
from astrocyte.pipeline.role_registry import ROLES, register_role, role_names
from astrocyte.pipeline.roles.worker import environment_of
from astrocyte.pipeline.settings import load_settings
from astrocyte.pipeline.topology.topics import sink_topics
from astrocyte.schemas.catalog import CATALOG, Catalog, EventType
from astrocyte.schemas.contract import Contracts
from astrocyte.schemas.errors import InvalidSettings, PluginError
from astrocyte.simulator.scenario import Scenario, register_scenario


@pytest.fixture(autouse=True)
def _own_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))


def test_a_plugin_of_the_working_folder_registers_a_role_that_settings_may_name(tmp_path, monkeypatch):
    (tmp_path / "own_roles_a.py").write_text(
        "from astrocyte import register_role\nregister_role('test_own_a', lambda app, settings: None)\n"
    )
    monkeypatch.setenv("ASTROCYTE_PLUGINS", "own_roles_a")
    settings = load_settings(roles=("test_own_a",))
    assert environment_of(settings)["ASTROCYTE_PLUGINS"] == "own_roles_a"
    assert "test_own_a" in ROLES
    with pytest.raises(InvalidSettings, match=r"no role 'test_own_b'; known: correlate, .*did you mean 'test_own_a'"):
        load_settings(roles=("test_own_b",))


def test_a_plugin_that_needs_an_extra_says_which(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "jax", None)  # as if it were not installed
    (tmp_path / "own_world.py").write_text("import jax.numpy\n")
    monkeypatch.setenv("ASTROCYTE_PLUGINS", "own_world")
    with pytest.raises(InvalidSettings, match=r"which is not installed; pip install 'astrocyte\[simulator\]'$"):
        load_settings()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("import no_such_package", "it imports 'no_such_package', which is not installed"),
        ("raise ValueError('broken')", "importing it failed: ValueError: broken"),
        ("raise ValueError('broken\\nin two lines')", "importing it failed: ValueError: broken in two lines"),
        ("raise SystemExit(3)", "importing it failed: SystemExit: 3"),
        ("from astrocyte import register_sink\nregister_sink('sql', print)", "there is a sink 'sql' already"),
    ],
)
def test_a_plugin_that_fails_is_named_in_one_line(tmp_path, text, message):
    name = f"broken_{abs(hash(text))}"
    (tmp_path / f"{name}.py").write_text(text)
    with pytest.raises(InvalidSettings) as caught:
        load_settings(plugins=(name,))
    assert str(caught.value).startswith(f"plugin '{name}' (ASTROCYTE_PLUGINS): ")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_sink_gets_its_settings_from_the_environment_over_the_file(tmp_path, monkeypatch):
    (tmp_path / "astrocyte.toml").write_text('[options.web-hook]\nurl = "file"\ntries = 3\n')
    monkeypatch.setenv("ASTROCYTE_WEB_HOOK_URL", "http://here")
    settings = load_settings()
    assert settings.of("web-hook") == {"url": "http://here", "tries": 3}
    assert settings.of("influx")["bucket"] == "astrocyte"
    for name, value in environment_of(settings).items():
        monkeypatch.setenv(name, value)
    (tmp_path / "astrocyte.toml").unlink()
    assert load_settings() == settings


def test_a_setting_that_a_sink_needs_is_named_with_its_variable():
    context = SinkContext("web-hook", {}, RetryPolicy("web-hook"), lambda: 0)
    with pytest.raises(InvalidSettings, match=r"set ASTROCYTE_WEB_HOOK_URL, or url in the table \[options.web-hook\]"):
        context.require("url")


def test_shipped_roles_keep_their_order_and_every_sink_is_a_role():
    names = role_names()
    assert names[:8] == ("correlate", "repartition", "insight", "control", "sql", "influx", "audit", "file")
    register_sink("test_narrow", lambda context: None, streams=("axon_1",), records=("alerts",))
    assert "test_narrow" in role_names()
    assert sink_topics(load_settings(), SINKS.get("test_narrow"), Contracts(), ()) == ["mono.axon_1", "alerts"]
    with pytest.raises(InvalidSettings, match="there is a sink 'test_narrow' already, and every sink is a role"):
        register_role("test_narrow", lambda app, settings: None)
    with pytest.raises(InvalidSettings, match=r"records of the kind 'alert'; known: .*did you mean 'alerts'"):
        register_sink("test_wrong", lambda context: None, records=("alert",))


@pytest.mark.parametrize("name", ["json", "astrocyte"])
def test_a_plugin_named_like_a_loaded_module_is_refused(tmp_path, name):
    (tmp_path / f"{name}.py").write_text("raise ValueError('imported')")
    with pytest.raises(InvalidSettings, match=rf"plugin '{name}' .*another module is called '{name}'.*rename the file"):
        load_settings(plugins=(name,))


async def waits(_given):
    pass


class Sinkless:
    def __init__(self, context):
        self.context = context

    async def open(self):
        pass


class Inherits(Sink):
    def __init__(self, context):
        self.context = context


class Bare(Controller):
    def step(self, state, frame):
        return state, []


class Halfway(Scenario):
    name = "halfway"


class Anonymous(Scenario):
    pass


REFUSED = {
    "sink without methods": (lambda: register_sink("x", Sinkless), "Sinkless has no method write and no close"),
    "sink of the contract alone": (lambda: register_sink("x", Inherits), "Inherits has no method open and no write"),
    "sink that is no function": (lambda: register_sink("x", 5), "expected a function or class that makes a sink"),
    "sink without context": (lambda: register_sink("x", lambda: None), r"got the function <lambda>\(\)"),
    "sink of one stream": (lambda: register_sink("x", print, streams="axon_1"), r"such as streams=\('axon_1',\)"),
    "sink of one kind": (lambda: register_sink("x", print, records="alerts"), r"such as records=\('alerts',\)"),
    "sink of numbers": (lambda: register_sink("x", print, streams=(1,)), "streams is .1,.; expected several names"),
    "sink of no rows": (lambda: register_sink("x", print, batch_rows=0), "batch_rows is 0; expected a whole number"),
    "role that is no function": (lambda: register_role("x", 5), "expected a function of the app and settings, got 5"),
    "role of one argument": (lambda: register_role("x", lambda app: None), "a function of the app and settings"),
    "validator": (lambda: register_validator("x")(5), "expected a function of an event or a frame, got 5"),
    "async validator": (lambda: register_validator("x", waits), r"an event or a frame, got the async function waits\("),
    "async decoder": (lambda: register_decoder("x", waits), r"a message, got the async function waits\("),
    "validator of nothing": (lambda: register_validator("x", lambda: None), "expected a function of an event or"),
    "decoder": (lambda: register_decoder("x", 5), "decoder 'x': expected a function of a message, got 5"),
    "decoder by bytes": (lambda: register_decoder("x", print, content_type=b"a/b"), "content_type to be text"),
    "decoder by a name": (lambda: register_decoder("x", print, recognise="FX"), "recognise to be a function"),
    "controller": (lambda: register_controller("x", 5), "controller 'x' is a int; expected a Controller, or a func"),
    "controller without step": (lambda: register_controller("x", Controller), "Controller has no step; define each"),
    "controller without stream": (lambda: register_controller("x", Bare), "stream is None; expected the name of"),
    "controller of a source": (
        lambda: register_controller("x", print, stream="a", source="windows"), "source is 'windows'; expected window"
    ),
    "scenario": (lambda: register_scenario(5), "int has no name; expected a Scenario or its class"),
    "scenario without name": (lambda: register_scenario(Anonymous), "Anonymous has no name; expected a Scenario"),
    "scenario without methods": (lambda: register_scenario(Halfway), "Halfway has no events, init, islands, params"),
    "table": (lambda: register_table("x", 5), "table of stream 'x' is a int; expected a sqlalchemy Table"),
    "stream": (lambda: CATALOG.register({"stream": "x"}), "expected an EventType, got {'stream': 'x'}"),
    "stream of odd types": (
        lambda: CATALOG.register(EventType("x", "k", {"value": "float"})), "field 'value' has the type 'float'"
    ),
    "shipped stream": (
        lambda: CATALOG.register(EventType("axon_1", "k")), "there is a stream 'axon_1' in the catalog already"
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_lacks_the_contract_is_refused_in_one_line_when_it_is_registered(case):
    register, message = REFUSED[case]
    with pytest.raises(InvalidSettings, match=message) as caught:
        register()
    assert "\n" not in str(caught.value)


def test_a_stream_may_be_registered_again_and_replaced_on_purpose():
    catalog = Catalog()
    first, second = (EventType("ovens", "oven", {"heat": kind}) for kind in ("float32", "float64"))
    catalog.register(first)
    assert catalog.register(first) is first
    with pytest.raises(InvalidSettings, match="there is a stream 'ovens' in the catalog already"):
        catalog.register(second)
    catalog.register(second, replace=True)
    assert catalog["ovens"] is second


def test_a_sink_that_a_function_makes_is_checked_before_it_is_opened():
    context = SinkContext("lambda", {}, RetryPolicy("lambda"), lambda: 0)
    with pytest.raises(PluginError, match="sink 'lambda': object has no method open and no write and no close"):
        SinkType(lambda _context: object()).make(context)

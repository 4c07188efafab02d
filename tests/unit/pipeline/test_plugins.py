"""A user's own modules: imported at the start, in every process, with their settings."""

import pytest

from astrocyte.agents.sinks.registry import SINKS, SinkContext, register_sink
from astrocyte.agents.sinks.retry import RetryPolicy
from astrocyte.pipeline.role_registry import ROLES, register_role, role_names
from astrocyte.pipeline.roles.worker import environment_of
from astrocyte.pipeline.settings import load_settings
from astrocyte.pipeline.topology.topics import sink_topics
from astrocyte.schemas.contract import Contracts
from astrocyte.schemas.errors import InvalidSettings


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


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("import no_such_package", "it imports 'no_such_package', which is not installed"),
        ("raise ValueError('broken')", "importing it failed: ValueError: broken"),
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
    assert names[:7] == ("correlate", "repartition", "control", "sql", "influx", "audit", "file")
    register_sink("test_narrow", lambda context: None, streams=("axon_1",), records=("alerts",))
    assert "test_narrow" in role_names()
    assert sink_topics(load_settings(), SINKS.get("test_narrow"), Contracts(), ()) == ["mono.axon_1", "alerts"]
    with pytest.raises(InvalidSettings, match="there is a sink 'test_narrow' already, and every sink is a role"):
        register_role("test_narrow", lambda app, settings: None)
    with pytest.raises(InvalidSettings, match=r"records of the kind 'alert'; known: .*did you mean 'alerts'"):
        register_sink("test_wrong", lambda context: None, records=("alert",))

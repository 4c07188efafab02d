import pytest
from pydantic import BeforeValidator

from astrocyte.pipeline.roles.worker import environment_of
from astrocyte.pipeline.settings import Settings, load_settings
from astrocyte.schemas.errors import InvalidSettings

DURATIONS = [
    name for name, field in Settings.model_fields.items()
    if field.annotation is int and any(isinstance(each, BeforeValidator) for each in field.metadata)
]  # fmt: skip


@pytest.fixture(autouse=True)
def _nowhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_the_environment_overrides_the_file_and_arguments_override_both(tmp_path, monkeypatch):
    (tmp_path / "astrocyte.toml").write_text('broker = "file:1"\npartitions = 3\nlateness = "250ms"\n')
    monkeypatch.setenv("ASTROCYTE_BROKER", "env:2")
    settings = load_settings(partitions=5)
    assert (settings.broker, settings.partitions, settings.lateness) == ("env:2", 5, 250_000)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("broker", "localhost", "expected host:port"),
        ("lateness", "soon", "expected a duration such as 2s, got 'soon'"),
        ("partitions", "0", "greater than or equal to 1"),
        (
            "roles",
            "correlate,cook",
            "there is no role 'cook'; known: correlate, repartition, insight, control, sql, influx, audit, file",
        ),
        ("influx_url", "http://127.0.0.1:8086", "influx_token is not"),
        ("influx_ca_file", "ca.pem", "influx_ca_file is set and has no effect with no influx_url"),
    ],
)
def test_a_wrong_setting_names_its_variable_and_what_was_expected(name, value, message, monkeypatch):
    monkeypatch.setenv(f"ASTROCYTE_{name.upper()}", value)
    with pytest.raises(InvalidSettings, match=message):
        load_settings()


def test_a_misspelt_setting_in_the_file_is_an_error(tmp_path):
    (tmp_path / "astrocyte.toml").write_text('brokr = "a:1"\n')
    with pytest.raises(InvalidSettings, match="brokr"):
        load_settings()


def test_secrets_are_not_shown(monkeypatch):
    monkeypatch.setenv("ASTROCYTE_SQL_URL", "postgresql://me:hunter2@db/x")
    monkeypatch.setenv("ASTROCYTE_INFLUX_TOKEN", "hunter2")
    assert "hunter2" not in repr(load_settings())
    assert "hunter2" not in str(load_settings().model_dump())


def test_a_child_process_gets_the_same_settings(monkeypatch):
    settings = load_settings(
        broker="kafka:9092", rules=("a.yaml", "b.yaml"), lateness="250ms", influx_token="t", influx_url="http://h:1"
    )
    for name, value in environment_of(settings).items():
        monkeypatch.setenv(name, value)
    assert load_settings() == settings


@pytest.mark.parametrize("name", DURATIONS)
def test_a_child_process_gets_the_same_duration(name, monkeypatch):
    settings = load_settings(**{name: "90s"})
    monkeypatch.setenv(f"ASTROCYTE_{name.upper()}", environment_of(settings)[f"ASTROCYTE_{name.upper()}"])
    assert getattr(load_settings(), name) == 90_000_000


def test_a_variable_that_is_almost_a_setting_is_said_once_with_the_setting(monkeypatch, caplog):
    monkeypatch.setenv("ASTROCYTE_LATENES", "5s")
    monkeypatch.setenv("ASTROCYTE_WEBHOOK_URL", "http://127.0.0.1")
    for _ in range(2):
        load_settings()
    assert [each.getMessage() for each in caplog.records] == [
        "ASTROCYTE_LATENES is no setting of Astrocyte; did you mean ASTROCYTE_LATENESS?"
    ]


@pytest.mark.parametrize(
    ("url", "values", "said"),
    [
        ("http://h:1", {"influx_ca_file": "ca.pem"}, "no effect with an influx_url without TLS"),
        ("http://h:1", {"influx_key_password": "hunter2"}, "no effect with an influx_url without TLS"),
        ("https://h:1", {"influx_key_file": "key.pem"}, "influx_key_file is set but influx_cert_file is not"),
    ],
)
def test_settings_of_tls_to_influxdb_that_have_no_effect_are_refused(url, values, said):
    with pytest.raises(InvalidSettings, match=said) as raised:
        load_settings(influx_url=url, influx_token="t", **values)
    assert "hunter2" not in str(raised.value)

"""TLS and SASL of every Kafka client, by settings alone."""

import ssl
from types import SimpleNamespace

import pytest
from faust.transport.drivers.aiokafka import SASLCredentials

from astrocyte.pipeline.embed.consumer import Consumer
from astrocyte.pipeline.kafka import client
from astrocyte.pipeline.kafka.security import security_arguments
from astrocyte.pipeline.roles.worker_app import make_app
from astrocyte.pipeline.settings import load_settings
from astrocyte.pipeline.transport.options import client_security
from astrocyte.pipeline.transport.producer_record import producer_settings
from astrocyte.pipeline.transport.transport import Producer
from astrocyte.schemas.errors import InvalidSettings

LOGIN = {"username": "me", "password": "secret"}


@pytest.fixture
def chosen(monkeypatch, tmp_path):
    """Set settings of Kafka by their names without the prefix."""
    monkeypatch.chdir(tmp_path)

    def choose(**values):
        for name, value in values.items():
            monkeypatch.setenv(f"ASTROCYTE_KAFKA_{name.upper()}", str(value))

    return choose


def test_without_settings_clients_get_no_arguments():
    assert security_arguments() == {}


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"])
@pytest.mark.parametrize("protocol", ["SASL_PLAINTEXT", "SASL_SSL"])
def test_a_login_is_passed_on(chosen, protocol, mechanism):
    chosen(security_protocol=protocol, sasl_mechanism=mechanism, **LOGIN)
    found = security_arguments()
    context = found.pop("ssl_context", None)
    assert found == {
        "security_protocol": protocol,
        "sasl_mechanism": mechanism,
        "sasl_plain_username": "me",
        "sasl_plain_password": "secret",
    }
    assert (context is not None) == (protocol == "SASL_SSL")


async def test_a_token_is_given_at_each_connection_and_read_anew_from_a_file(chosen, tmp_path):
    chosen(security_protocol="SASL_PLAINTEXT", sasl_mechanism="OAUTHBEARER", token="abc")
    assert await security_arguments()["sasl_oauth_token_provider"].token() == "abc"
    file = tmp_path / "token"
    chosen(token_file=file)
    provider = security_arguments()["sasl_oauth_token_provider"]
    with pytest.raises(ConnectionError, match="token cannot be read: No such file"):
        await provider.token()
    for token in ("one", "two"):
        file.write_text(token + "\n")
        assert await provider.token() == token


def test_the_certificate_of_the_broker_and_its_name_are_verified(chosen):
    chosen(security_protocol="SSL")
    context = security_arguments()["ssl_context"]
    assert context.verify_mode == ssl.CERT_REQUIRED
    assert context.check_hostname


@pytest.mark.parametrize(
    ("values", "match"),
    [
        ({"security_protocol": "SASL_SSL"}, "needs ASTROCYTE_KAFKA_SASL_MECHANISM"),
        ({"security_protocol": "SASL_SSL", "sasl_mechanism": "PLAIN"}, "PLAIN needs ASTROCYTE_KAFKA_USERNAME"),
        (
            {"security_protocol": "SASL_SSL", "sasl_mechanism": "SCRAM-SHA-256", "username": "me"},
            "SCRAM-SHA-256 needs ASTROCYTE_KAFKA_PASSWORD",
        ),
        (
            {"security_protocol": "SASL_SSL", "sasl_mechanism": "OAUTHBEARER"},
            "needs ASTROCYTE_KAFKA_TOKEN or ASTROCYTE_KAFKA_TOKEN_FILE",
        ),
        ({"password": "secret"}, "kafka_password is set and has no effect with kafka_security_protocol PLAINTEXT"),
        (
            {"security_protocol": "SASL_PLAINTEXT", "sasl_mechanism": "PLAIN", **LOGIN, "ca_file": "ca.pem"},
            "kafka_ca_file is set and has no effect .* to SSL or SASL_SSL",
        ),
        ({"security_protocol": "SSL", "key_file": "key.pem"}, "set ASTROCYTE_KAFKA_CERT_FILE as well"),
        ({"security_protocol": "TLS"}, "ASTROCYTE_KAFKA_SECURITY_PROTOCOL"),
        ({"security_protocol": "SSL", "ca_file": "absent.pem"}, "absent.pem cannot be used: No such file"),
        ({"security_protocol": "SSL", "cert_file": "absent.pem"}, "absent.pem and its key cannot be used: No such"),
    ],
)
def test_settings_that_cannot_work_are_one_error(chosen, values, match):
    chosen(**values)
    with pytest.raises(InvalidSettings, match=match) as raised:
        security_arguments()
    assert "secret" not in str(raised.value)


async def test_every_client_gets_the_arguments(chosen, monkeypatch):
    chosen(security_protocol="SASL_PLAINTEXT", sasl_mechanism="PLAIN", **LOGIN)
    wanted = security_arguments()
    made = []

    class Refused(Exception):
        pass

    def refuse(*_, **arguments):
        made.append(arguments)
        raise Refused

    for name in ("aiokafka.AIOKafkaConsumer", "aiokafka.AIOKafkaProducer", "aiokafka.admin.AIOKafkaAdminClient"):
        monkeypatch.setattr(name, refuse)
    for make in (client.admin_client, client.consumer_client, client.producer_client):
        with pytest.raises(Refused):
            await make("h:1").__aenter__()
    with pytest.raises(Refused):
        await Consumer("127.0.0.1:1")._connected()
    made.append(producer_settings("127.0.0.1:1"))  # of publishers and of simulations
    app = make_app(load_settings(), "correlate")
    made.append(Producer(SimpleNamespace(app=app, url=app.conf.broker, default_port=9092))._settings())
    made.append(client_security(app.conf))
    for arguments in made:
        assert wanted.items() <= arguments.items()
    assert len(made) == 7


def test_credentials_of_a_programs_own_app_win():
    credentials = SASLCredentials(username="own", password="other", mechanism="PLAIN")
    conf = SimpleNamespace(broker_credentials=credentials, ssl_context=None)
    assert client_security(conf)["sasl_plain_username"] == "own"

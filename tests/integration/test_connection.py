"""Both clients on a secured broker, and the cause named when a connection fails."""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme
from aiokafka.admin import AIOKafkaAdminClient
from cryptography.hazmat.primitives import serialization
from kafka.admin import KafkaAdminClient, ScramMechanism, UserScramCredentialUpsertion

from stream.admin import admin_client
from stream.broker import Broker
from stream.config import Kafka, config_from
from stream.connection import KafkaUnreachableError, aiokafka_settings
from tests.integration.worker_bench import Bench, assert_equal_to_recount

SASL = "listener.name.sasl_ssl"
SCRAM = "org.apache.kafka.common.security.scram.ScramLoginModule required;"
PLAIN = 'org.apache.kafka.common.security.plain.PlainLoginModule required user_driftline="secret";'


def pkcs8(pem: bytes) -> bytes:
    """The only form of a key that Java reads."""
    key = serialization.load_pem_private_key(pem, None)
    kind = serialization.PrivateFormat.PKCS8
    return key.private_bytes(serialization.Encoding.PEM, kind, serialization.NoEncryption())


class Secured:
    def __init__(self, folder: Path) -> None:
        authority, other = trustme.CA(), trustme.CA()
        self.ca_file, self.other_ca_file = folder / "ca.pem", folder / "other-ca.pem"
        authority.cert_pem.write_to_path(self.ca_file)
        other.cert_pem.write_to_path(self.other_ca_file)
        client = authority.issue_cert("driftline@example.org")
        self.certificate_file, self.key_file = folder / "client.pem", folder / "client-key.pem"
        client.cert_chain_pems[0].write_to_path(self.certificate_file)
        client.private_key_pem.write_to_path(self.key_file)
        server_file = folder / "server.pem"
        server = authority.issue_cert("127.0.0.1")
        server_file.write_bytes(pkcs8(server.private_key_pem.bytes()) + server.cert_chain_pems[0].bytes())
        authority.cert_pem.write_to_path(server_file, append=True)
        properties = {
            "ssl.keystore.type": "PEM",
            "ssl.keystore.location": str(server_file),
            "ssl.truststore.type": "PEM",
            "ssl.truststore.location": str(self.ca_file),
            "listener.name.ssl.ssl.client.auth": "required",
            f"{SASL}.sasl.enabled.mechanisms": "PLAIN,SCRAM-SHA-256,SCRAM-SHA-512",
            f"{SASL}.plain.sasl.jaas.config": PLAIN,
            f"{SASL}.scram-sha-256.sasl.jaas.config": SCRAM,
            f"{SASL}.scram-sha-512.sasl.jaas.config": SCRAM,
        }
        self.broker = Broker(listeners=("SASL_SSL", "SSL"), properties=properties)

    def add_users(self) -> None:
        with contextlib.closing(KafkaAdminClient(bootstrap_servers=self.broker.bootstrap_servers)) as admin:
            for name in ("SCRAM_SHA_256", "SCRAM_SHA_512"):
                user = UserScramCredentialUpsertion("driftline", ScramMechanism[name], b"secret")
                assert admin.alter_user_scram_credentials([user]) == {"driftline": None}

    def kafka(self, address: str, **security: Any) -> Kafka:
        given = {key: str(value) if isinstance(value, Path) else value for key, value in security.items()}
        config = config_from(
            {
                "kafka": {"bootstrap_servers": self.broker.addresses[address], "security": given},
                "topics": {"predictions": "p"},
                "models": {"m": {"reference": {"first": 10_000}}},
            }
        )
        return config.kafka

    def sasl(self, mechanism: str, **other: Any) -> Kafka:
        user = {"username": "driftline", "password": "secret", "ca_file": self.ca_file}
        return self.kafka("SASL_SSL", protocol="SASL_SSL", mechanism=mechanism, **(user | other))


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    it = Secured(tmp_path_factory.mktemp("certificates"))
    with it.broker:
        it.add_users()
        yield it


async def both_clients(kafka: Kafka) -> None:
    with admin_client(kafka) as client:
        assert len(client.describe_cluster()["brokers"]) == 1
    other = AIOKafkaAdminClient(**aiokafka_settings(kafka))
    try:
        await other.start()
        assert await other.list_topics() == []
    finally:
        await other.close()


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"])
async def test_sasl_over_tls(secured: Secured, mechanism: str) -> None:
    await both_clients(secured.sasl(mechanism))


async def test_client_certificate(secured: Secured) -> None:
    files = {name: getattr(secured, name) for name in ("ca_file", "certificate_file", "key_file")}
    await both_clients(secured.kafka("SSL", protocol="SSL", **files))


def refusal(kafka: Kafka) -> str:
    with pytest.raises(KafkaUnreachableError) as caught, admin_client(kafka, connect_s=3):
        pass
    return str(caught.value)


def test_each_cause_is_named(secured: Secured) -> None:
    s = secured
    assert "user driftline was refused (SCRAM-SHA-512)" in refusal(s.sasl("SCRAM-SHA-512", password="wrong"))
    assert "user driftline was refused (PLAIN)" in refusal(s.sasl("PLAIN", password="wrong"))
    assert "its certificate is not trusted" in refusal(s.sasl("PLAIN", ca_file=s.other_ca_file))
    assert "it wants a client certificate" in refusal(s.kafka("SSL", protocol="SSL", ca_file=s.ca_file))
    assert "it speaks TLS" in refusal(s.kafka("SSL", protocol="PLAINTEXT"))
    assert "it speaks no TLS" in refusal(s.kafka("PLAINTEXT", protocol="SSL", ca_file=s.ca_file))


def test_the_secret_is_not_in_the_text(secured: Secured) -> None:
    assert "wrong-one" not in refusal(secured.sasl("PLAIN", password="wrong-one"))


def kafka_at(server: str, **security: str) -> Kafka:
    data = {
        "kafka": {"bootstrap_servers": server, "security": security},
        "topics": {"predictions": "p"},
        "models": {"m": {"reference": {"first": 10_000}}},
    }
    return config_from(data).kafka


def test_nobody_there(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        assert refusal(kafka_at(f"127.0.0.1:{port}")) == (
            f"cannot use Kafka at 127.0.0.1:{port}: 127.0.0.1:{port}: connection refused"
        )
    assert "no address is known for nowhere.invalid" in refusal(kafka_at("nowhere.invalid:9092"))
    absent = refusal(kafka_at("127.0.0.1:9", protocol="SSL", ca_file=str(tmp_path / "absent.pem")))
    assert "kafka.security.ca_file" in absent
    assert "does not exist" in absent
    (tmp_path / "bad.pem").write_text("nothing")
    assert "cannot be used" in refusal(kafka_at("127.0.0.1:9", protocol="SSL", ca_file=str(tmp_path / "bad.pem")))


ASKS_TWICE = """
import sys
from stream.admin import admin_client
from stream.config import config_from
kafka = {"bootstrap_servers": sys.argv[1]}
config = config_from({"kafka": kafka, "topics": {"predictions": "p"}, "models": {"m": {"reference": {"first": 10000}}}})
try:
    with admin_client(config.kafka) as client:
        client.describe_cluster()
        print("asked", flush=True)
        sys.stdin.readline()
        client.describe_cluster()
except Exception as error:
    print(type(error).__name__, error)
"""


def test_a_broker_that_goes_while_it_is_asked_may_come_again() -> None:
    """No refusal, which would say that trying again is no use: a worker that starts just then ends with exit code 3.

    In a process of its own: the client leaves a socket behind.
    """
    with Broker() as going:
        command = [sys.executable, "-c", ASKS_TWICE, going.bootstrap_servers]
        asking = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        with asking:
            assert asking.stdin is not None
            assert asking.stdout is not None
            assert asking.stdout.readline() == "asked\n"
            going.kill()
            said, _ = asking.communicate("\n", timeout=60)
    assert said.startswith(f"KafkaUnreachableError Kafka at {going.bootstrap_servers} went away")


@pytest.mark.parametrize("protocol", ["SASL_SSL", "SSL"])
def test_a_whole_worker_on_a_secured_listener(
    secured: Secured, protocol: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Faust's own connections included. The topics are made and looked at through the plain listener."""
    bench = Bench(secured.broker.bootstrap_servers, f"worker-{protocol.lower()}.", tmp_path, partitions=2)
    security = {"protocol": protocol, "ca_file": str(secured.ca_file)}
    if protocol == "SASL_SSL":
        monkeypatch.setenv("KAFKA_PASSWORD", "secret")
        security |= {"mechanism": "SCRAM-SHA-512", "username": "driftline", "password": "${KAFKA_PASSWORD}"}
    else:
        security |= {"certificate_file": str(secured.certificate_file), "key_file": str(secured.key_file)}
    kafka = {"bootstrap_servers": secured.broker.addresses[protocol], "security": security}
    _, _, rest = bench.config_path.read_text().partition("\n")
    bench.config_path.write_text(f"kafka: {json.dumps(kafka)}\n{rest}")
    bench.produce(bench.events(1_000))
    bench.drain()
    assert_equal_to_recount(bench)

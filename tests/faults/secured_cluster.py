"""One Apache Kafka with every kind of secured listener and its authorizer on, shared by the tests of secured brokers."""

from __future__ import annotations

import base64
import contextlib
import datetime as dt
import json
import time
from pathlib import Path
from typing import Any

import trustme
from cryptography.hazmat.primitives import serialization
from kafka.admin import (
    ACL,
    ACLFilter,
    ACLOperation,
    ACLPermissionType,
    ACLResourcePatternType,
    KafkaAdminClient,
    ResourcePattern,
    ResourcePatternFilter,
    ResourceType,
    ScramMechanism,
    UserScramCredentialUpsertion,
)

from stream.broker import Broker
from stream.rights import Operation, Right

NOW = dt.datetime.now(dt.UTC)
EXPIRED = {"not_before": NOW - dt.timedelta(days=30), "not_after": NOW - dt.timedelta(days=1)}
CANARY = "canary-7Jq2fXw9"  # the password of every user and key here; nothing may ever say it
SCRAM = "org.apache.kafka.common.security.scram.ScramLoginModule required;"
OAUTH = (
    'org.apache.kafka.common.security.oauthbearer.OAuthBearerLoginModule required unsecuredLoginStringClaim_sub="b";'
)
REAUTHENTICATE_MS = 2_000
LISTENERS = {
    "SASL_SSL": "SASL_SSL",
    "SSL": "SSL",
    "OAUTH": "SASL_SSL",
    "EXPIRED": "SSL",
    "OTHERNAME": "SSL",
}


def pem_key(private: bytes, password: str | None = None) -> bytes:
    """PKCS 8, the only form of a key that Java reads."""
    key = serialization.load_pem_private_key(private, None)
    kind = serialization.PrivateFormat.PKCS8
    hidden = (
        serialization.NoEncryption() if password is None else serialization.BestAvailableEncryption(password.encode())
    )
    return key.private_bytes(serialization.Encoding.PEM, kind, hidden)


def token(subject: str, seconds: float = 3600.0) -> str:
    """An unsigned JSON Web Token, which Kafka's validator for development believes."""
    now = time.time()
    parts = ({"alg": "none"}, {"sub": subject, "iat": min(now, now + seconds - 60), "exp": now + seconds})
    return ".".join(base64.urlsafe_b64encode(json.dumps(p).encode()).decode().rstrip("=") for p in parts) + "."


class SecuredCluster:
    """Users: `driftline` of every mechanism, and SCRAM users made by `add_user`. The plain listener is the superuser's."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.authority, self.other_authority = trustme.CA(), trustme.CA()
        self.ca_file, self.other_ca_file = folder / "ca.pem", folder / "other-ca.pem"
        self.authority.cert_pem.write_to_path(self.ca_file)
        self.other_authority.cert_pem.write_to_path(self.other_ca_file)
        self.broker = Broker(listeners=tuple(LISTENERS), properties=self._properties())

    def _properties(self) -> dict[str, str]:
        kinds = {"CONTROLLER": "PLAINTEXT", "PLAINTEXT": "PLAINTEXT"} | LISTENERS
        return {
            "listener.security.protocol.map": ",".join(f"{name}:{kind}" for name, kind in kinds.items()),
            "ssl.keystore.type": "PEM",
            "ssl.keystore.location": str(self._server("server", "127.0.0.1")),
            "ssl.truststore.type": "PEM",
            "ssl.truststore.location": str(self.ca_file),
            "ssl.principal.mapping.rules": "RULE:^.*CN=([^,]+).*$/$1/,DEFAULT",
            "listener.name.ssl.ssl.client.auth": "required",
            "listener.name.expired.ssl.keystore.location": str(self._server("expired", "127.0.0.1", **EXPIRED)),
            "listener.name.othername.ssl.keystore.location": str(self._server("othername", "kafka.example.org")),
            "listener.name.sasl_ssl.sasl.enabled.mechanisms": "PLAIN,SCRAM-SHA-256,SCRAM-SHA-512",
            "listener.name.sasl_ssl.plain.sasl.jaas.config": (
                f'org.apache.kafka.common.security.plain.PlainLoginModule required user_driftline="{CANARY}";'
            ),
            "listener.name.sasl_ssl.scram-sha-256.sasl.jaas.config": SCRAM,
            "listener.name.sasl_ssl.scram-sha-512.sasl.jaas.config": SCRAM,
            "listener.name.oauth.sasl.enabled.mechanisms": "OAUTHBEARER",
            "listener.name.oauth.oauthbearer.sasl.jaas.config": OAUTH,
            "listener.name.oauth.oauthbearer.connections.max.reauth.ms": str(REAUTHENTICATE_MS),
            "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
            "super.users": "User:ANONYMOUS",
        }

    def _server(self, name: str, host: str, **validity: Any) -> Path:
        issued = self.authority.issue_cert(host, **validity)
        path = self.folder / f"{name}.pem"
        path.write_bytes(pem_key(issued.private_key_pem.bytes()) + issued.cert_chain_pems[0].bytes())
        self.authority.cert_pem.write_to_path(path, append=True)
        return path

    def client_certificate(self, name: str, *, authority: trustme.CA | None = None, **validity: Any) -> dict[str, str]:
        """Settings of a client certificate for the user `driftline`; its key has a passphrase."""
        issued = (authority or self.authority).issue_cert(f"{name}@example.org", common_name="driftline", **validity)
        certificate, key = self.folder / f"{name}-client.pem", self.folder / f"{name}-key.pem"
        certificate.write_bytes(b"".join(pem.bytes() for pem in issued.cert_chain_pems))
        key.write_bytes(pem_key(issued.private_key_pem.bytes(), CANARY))
        return {"certificate_file": str(certificate), "key_file": str(key), "key_password": "${KAFKA_SECRET}"}

    # -- users and rights, as the superuser

    @contextlib.contextmanager
    def admin(self):
        with contextlib.closing(KafkaAdminClient(bootstrap_servers=self.broker.bootstrap_servers)) as client:
            yield client

    def add_user(self, name: str) -> None:
        users = [
            UserScramCredentialUpsertion(name, ScramMechanism[kind], CANARY.encode())
            for kind in ("SCRAM_SHA_256", "SCRAM_SHA_512")
        ]
        with self.admin() as client:
            for user in users:
                assert client.alter_user_scram_credentials([user]) == {name: None}

    def grant(self, user: str, rights: list[Right]) -> None:
        with self.admin() as client:
            client.create_acls([acl for right in rights for acl in acls(user, right)])

    def withdraw(self, user: str, resource: str, name: str, operation: Operation) -> None:
        pattern = ResourcePatternFilter(ResourceType[resource.upper()], name, ACLResourcePatternType.LITERAL)
        kind = ACLOperation[constant(operation)]
        with self.admin() as client:
            client.delete_acls([ACLFilter(f"User:{user}", "*", kind, ACLPermissionType.ALLOW, pattern)])

    # -- what stands in a configuration

    def sasl(self, mechanism: str, user: str = "driftline", **other: str) -> dict[str, str]:
        login = {"mechanism": mechanism, "username": user, "password": "${KAFKA_SECRET}"}
        return {"protocol": "SASL_SSL", "ca_file": str(self.ca_file)} | login | other

    def oauth(self, **source: str) -> dict[str, str]:
        return {"protocol": "SASL_SSL", "ca_file": str(self.ca_file), "mechanism": "OAUTHBEARER"} | source

    def ssl(self, **other: str) -> dict[str, str]:
        return {"protocol": "SSL", "ca_file": str(self.ca_file)} | other


def constant(operation: Operation) -> str:
    """kafka-python's name: DESCRIBE_CONFIGS."""
    return "".join(f"_{letter}" if letter.isupper() else letter for letter in operation.value).strip("_").upper()


def acls(user: str, right: Right) -> list[ACL]:
    pattern = ResourcePattern(ResourceType[right.resource.upper()], right.name)
    return [
        ACL(f"User:{user}", "*", ACLOperation[constant(operation)], ACLPermissionType.ALLOW, pattern)
        for operation in right.operations
    ]

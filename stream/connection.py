"""From the configuration's `kafka` section to what the two clients are called with, and why a connection failed.

Both clients report a wrong password, an untrusted authority, a missing client certificate and a plain-text client on a
TLS port with the same sentence. `why_unreachable` takes the connection apart step by step and names the cause.
"""

from __future__ import annotations

import contextlib
import logging
import socket
import ssl
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stream.config_kafka import Kafka, Security

PROBE_S = 5.0  # each step of a diagnosis; the clients themselves wait longer
TLS_ALERT = b"\x15\x03"
API_VERSIONS = struct.pack(">hhih", 18, 0, 1, -1)


class KafkaUnreachableError(Exception):
    """No connection to Kafka; the text names address and cause. Exit code 3."""


def kafka_python_settings(kafka: Kafka) -> dict[str, Any]:
    """Keyword arguments of every kafka-python client. Raises KafkaUnreachableError when a certificate cannot be read."""
    return _settings(kafka)


def aiokafka_settings(kafka: Kafka) -> dict[str, Any]:
    """Keyword arguments of every aiokafka client. Raises KafkaUnreachableError when a certificate cannot be read."""
    return _settings(kafka)


def _settings(kafka: Kafka) -> dict[str, Any]:
    """The two clients share these names; each call gives a TLS context of its own."""
    security = kafka.security
    settings: dict[str, Any] = {
        "bootstrap_servers": list(kafka.bootstrap_servers),
        "security_protocol": security.protocol,
    }
    context = tls_context(security)
    if context is not None:
        settings["ssl_context"] = context
    if security.protocol.startswith("SASL"):
        assert security.password is not None
        settings["sasl_mechanism"] = security.mechanism
        settings["sasl_plain_username"] = security.username
        settings["sasl_plain_password"] = security.password.reveal()
    return settings


def tls_context(security: Security) -> ssl.SSLContext | None:
    """TLS 1.2 and up with the given authorities (else the system's) and client certificate; None without TLS."""
    if not security.protocol.endswith("SSL"):
        return None
    context = ssl.create_default_context(ssl.Purpose.SERVER_AUTH)
    with _naming("ca_file", security.ca_file):
        if security.ca_file is not None:
            context = ssl.create_default_context(ssl.Purpose.SERVER_AUTH, cafile=str(security.ca_file))
    context.check_hostname = security.check_hostname
    with _naming("certificate_file and key_file", security.certificate_file):
        if security.certificate_file is not None:
            key_password = security.key_password.reveal() if security.key_password is not None else ""
            # a text, even an empty one: else OpenSSL would ask at the terminal for the password of an encrypted key
            context.load_cert_chain(security.certificate_file, security.key_file, key_password)
    return context


@contextlib.contextmanager
def _naming(key: str, path: Path | None) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise KafkaUnreachableError(f"kafka.security.{key}: {path} (or its key) does not exist") from error
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError; a wrong key password may be either
        reason = getattr(error, "reason", None) or str(error)
        raise KafkaUnreachableError(f"kafka.security.{key}: {path} cannot be used: {reason}") from error


def why_unreachable(kafka: Kafka) -> str | None:
    """The cause for each bootstrap server, None as soon as one answers. Tries TCP, TLS and a request that needs no rights."""
    causes: list[str] = []
    for server in kafka.bootstrap_servers:
        cause = _probe(server, kafka.security)
        if cause is None:
            return None
        causes.append(f"{server}: {cause}")
    return "; ".join(causes)


def why_refused(kafka: Kafka, client_log: Sequence[str]) -> str:
    """One sentence for a client that did not get in where `why_unreachable` finds nothing, from what the client logged."""
    security = kafka.security
    text = " ".join(client_log).lower()
    # the broker hangs up after a refusal, and its word is often lost: it answered without credentials, so they are it
    if security.protocol.startswith("SASL") and ("authentication" in text or "disconnected" in text):
        return f"user {security.username} was refused ({security.mechanism}): wrong user, password or mechanism"
    return client_log[-1] if client_log else "it answers, but gave no metadata in time"


def _probe(server: str, security: Security) -> str | None:
    """TCP, then TLS, then one request that needs no rights; the first step that fails."""
    host, _, port = server.rpartition(":")
    try:
        connection = socket.create_connection((host.strip("[]"), int(port)), timeout=PROBE_S)
    except socket.gaierror:
        return f"no address is known for {host}"
    except TimeoutError:
        return f"no answer within {PROBE_S:.0f} s"
    except OSError as error:
        return f"{error.strerror or error}".lower()
    with connection:
        context = tls_context(security)
        try:
            if context is None:
                return _ask(connection)
            with context.wrap_socket(connection, server_hostname=host.strip("[]")) as secured:
                return _ask(secured)
        except ssl.SSLCertVerificationError as error:
            return f"its certificate is not trusted: {error.verify_message} (kafka.security.ca_file)"
        except ssl.SSLError as error:
            if "CERTIFICATE_REQUIRED" in (error.reason or "") or "HANDSHAKE_FAILURE" in (error.reason or ""):
                return "it wants a client certificate (kafka.security.certificate_file and key_file)"
            return f"no TLS there ({error.reason}); is kafka.security.protocol right?"
        except OSError as error:
            return f"closed the connection ({error.strerror or error}); is kafka.security.protocol right?"


def _ask(connection: socket.socket) -> str | None:
    connection.sendall(struct.pack(">i", len(API_VERSIONS)) + API_VERSIONS)
    head = connection.recv(8)
    if head.startswith(TLS_ALERT):
        return "it speaks TLS: kafka.security.protocol must be SSL or SASL_SSL"
    if not head:
        return "closed the connection at the first request; is kafka.security.protocol right?"
    return None


@contextlib.contextmanager
def client_log(name: str) -> Iterator[list[str]]:
    """Collects what the client's logger (`kafka` or `aiokafka`) says at WARNING and above while the block runs."""
    lines: list[str] = []

    class Collect(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(record.getMessage())

    handler = Collect(logging.WARNING)
    logger = logging.getLogger(name)
    before = logger.propagate
    logger.addHandler(handler)
    logger.propagate = False
    try:
        yield lines
    finally:
        logger.propagate = before
        logger.removeHandler(handler)

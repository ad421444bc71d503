"""From the configuration's `kafka` section to what the two clients are called with. probe.py says why a connection failed."""

from __future__ import annotations

import contextlib
import logging
import ssl
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from stream.certificates import CertificateError, FreshContext
from stream.tokens import FileTokens, FunctionTokens, TokenSource, aiokafka_provider, kafka_python_provider

if TYPE_CHECKING:
    from stream.config_kafka import Kafka, Security


class KafkaUnreachableError(Exception):
    """No connection to Kafka; the text names address and cause. Exit code 3: the broker may come."""


class KafkaRefusedError(KafkaUnreachableError):
    """A broker is there and does not let us in, or our own credentials cannot be used. Exit code 1: trying again is no use."""


def kafka_python_settings(kafka: Kafka) -> dict[str, Any]:
    """Keyword arguments of every kafka-python client. Raises KafkaRefusedError when a certificate cannot be read."""
    settings, source = _settings(kafka), token_source(kafka.security)
    return settings if source is None else settings | {"sasl_oauth_token_provider": kafka_python_provider(source)}


def aiokafka_settings(kafka: Kafka) -> dict[str, Any]:
    """Keyword arguments of every aiokafka client. Raises KafkaRefusedError when a certificate cannot be read."""
    settings, source = _settings(kafka), token_source(kafka.security)
    return settings if source is None else settings | {"sasl_oauth_token_provider": aiokafka_provider(source)}


def token_source(security: Security) -> TokenSource | None:
    """Where OAUTHBEARER's tokens come from; None for other mechanisms."""
    if security.token is not None:
        return FunctionTokens(security.token)
    return FileTokens(security.token_file) if security.token_file is not None else None


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
        settings["sasl_mechanism"] = security.mechanism
        if security.password is not None:
            settings["sasl_plain_username"] = security.username
            settings["sasl_plain_password"] = security.password.reveal()
    return settings


def tls_context(security: Security) -> ssl.SSLContext | None:
    """TLS 1.2 and up with the given authorities (else the system's) and client certificate; None without TLS.

    Files that are replaced are read again by the next connection.
    """
    if not security.protocol.endswith("SSL"):
        return None
    certificate = None
    if security.certificate_file is not None and security.key_file is not None:
        # a text, even an empty one: else OpenSSL would ask at the terminal for the password of an encrypted key
        password = security.key_password.reveal() if security.key_password is not None else ""
        certificate = (security.certificate_file, security.key_file, password)
    try:
        context = FreshContext.over(security.ca_file, certificate)
    except CertificateError as error:
        raise KafkaRefusedError(str(error)) from error
    context.check_hostname = security.check_hostname
    return context


def why_refused(client_log: Sequence[str]) -> str:
    """One sentence for a client that did not get in where probe.py got in, from what the client logged."""
    return client_log[-1] if client_log else "it answers, but gave no metadata in time"


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

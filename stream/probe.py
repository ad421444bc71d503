"""Why a connection to Kafka fails: taken apart step by step, TCP, TLS, one request, SASL; the first step that fails is the cause.

Both clients report a wrong password, an untrusted authority, a missing client certificate and a plain-text client on a
TLS port with the same sentence; here each has its own. Nothing is asked that needs a right.
"""

from __future__ import annotations

import socket
import ssl
import struct
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from stream.certificates import validity
from stream.connection import KafkaRefusedError, kafka_python_settings, tls_context, token_source
from stream.tokens import TokenError, expiry, kafka_python_provider

if TYPE_CHECKING:
    from stream.config_kafka import Kafka, Security

PROBE_S = 5.0  # each step of a diagnosis; the clients themselves wait longer
TLS_ALERT = b"\x15\x03"
API_VERSIONS, SASL_HANDSHAKE, SASL_AUTHENTICATE = 18, 17, 36
UNSUPPORTED_MECHANISM, ILLEGAL_STATE = 33, 34
ANSWER_BYTES_MAX = 1 << 20
EXPIRED, NOT_YET_VALID = 10, 9  # OpenSSL's verification results
OTHER_NAME = (62, 64)  # of a host, of an address
OF_CERTIFICATE = ("CERTIFICATE", "UNKNOWN_CA")  # in the name of a TLS alert: it is about ours


@dataclass(frozen=True, slots=True)
class Cause:
    """`lasting`: another try meets it again (wrong password, certificate, protocol); otherwise the broker may come back."""

    text: str
    lasting: bool = True


class _Failed(Exception):  # noqa: N818 - carries a finding
    def __init__(self, text: str, *, lasting: bool = True) -> None:
        super().__init__(text)
        self.cause = Cause(text, lasting)


def why_unreachable(kafka: Kafka) -> Cause | None:
    """The causes of all bootstrap servers, None as soon as one lets us in. Cost: milliseconds; PROBE_S for each step."""
    causes: list[tuple[str, Cause]] = []
    for server in kafka.bootstrap_servers:
        try:
            _probe(server, kafka)
        except _Failed as failed:
            causes.append((server, failed.cause))
        else:
            return None
    text = "; ".join(f"{server}: {cause.text}" for server, cause in causes)
    return Cause(text, lasting=all(cause.lasting for _, cause in causes))


def _probe(server: str, kafka: Kafka) -> None:
    host, _, port = server.rpartition(":")
    host = host.strip("[]")
    try:
        connection = socket.create_connection((host, int(port)), timeout=PROBE_S)
    except socket.gaierror:
        raise _Failed(f"no address is known for {host}", lasting=False) from None
    except TimeoutError:
        raise _Failed(f"no answer within {PROBE_S:.0f} s", lasting=False) from None
    except OSError as error:
        raise _Failed(f"{error.strerror or error}".lower(), lasting=False) from None
    with connection:
        try:
            _step(connection, (host, int(port)), kafka)
        except KafkaRefusedError as error:
            raise _Failed(str(error)) from None
        except ssl.SSLCertVerificationError as error:
            raise _Failed(_not_trusted(error, host)) from None
        except ssl.SSLError as error:
            raise _Failed(_tls_refusal(error.reason or str(error), kafka.security)) from None
        except TimeoutError:
            raise _Failed(f"no answer within {PROBE_S:.0f} s", lasting=False) from None
        except OSError as error:
            text = f"closed the connection ({error.strerror or error}); is kafka.security.protocol right?"
            raise _Failed(text, lasting=False) from None


def _step(connection: socket.socket, address: tuple[str, int], kafka: Kafka) -> None:
    """TLS, where it is wanted, and what comes after it."""
    context = tls_context(kafka.security)
    if context is None:
        _converse(connection, address[0], kafka)
        return
    try:
        secured = context.wrap_socket(connection, server_hostname=address[0])
    except ssl.SSLCertVerificationError:
        raise
    except OSError:  # ssl.SSLError among them: Kafka hangs up on what it takes for a request of 369 MB
        if _speaks_plain(address):
            text = "it speaks no TLS: kafka.security.protocol must be PLAINTEXT or SASL_PLAINTEXT"
            raise _Failed(text) from None
        raise
    with secured:
        _converse(secured, address[0], kafka)


def _speaks_plain(address: tuple[str, int]) -> bool:
    """Whether Kafka answers there without TLS."""
    try:
        with socket.create_connection(address, timeout=PROBE_S) as connection:
            _Talk(connection).ask(API_VERSIONS, 0)
    except (OSError, _Failed):
        return False
    return True


def _not_trusted(error: ssl.SSLCertVerificationError, host: str) -> str:
    if error.verify_code == EXPIRED:
        return "its certificate has expired: the broker needs a new one"
    if error.verify_code == NOT_YET_VALID:
        return "its certificate is not valid yet: is this machine's clock right?"
    if error.verify_code in OTHER_NAME:
        return f"its certificate is made out to another host name than {host}: {error.verify_message}"
    return f"its certificate is not trusted: {error.verify_message} (kafka.security.ca_file)"


def _tls_refusal(reason: str, security: Security) -> str:
    """What an alert of the broker, or an answer that is no TLS, comes to."""
    if security.certificate_file is None:
        if "CERTIFICATE" in reason or "HANDSHAKE_FAILURE" in reason:
            return "it wants a client certificate (kafka.security.certificate_file and key_file)"
    elif any(word in reason for word in OF_CERTIFICATE):
        valid = validity(security.certificate_file)
        now = datetime.now(UTC)
        if valid is not None and now > valid[1]:
            return (
                f"the client certificate has expired at {valid[1]:%Y-%m-%d %H:%M} UTC (kafka.security.certificate_file)"
            )
        if valid is not None and now < valid[0]:
            return (
                f"the client certificate is valid from {valid[0]:%Y-%m-%d %H:%M} UTC (kafka.security.certificate_file)"
            )
        return f"it does not accept the client certificate ({reason}; kafka.security.certificate_file)"
    return f"no TLS there ({reason}); is kafka.security.protocol right?"


class _Talk:
    """Requests of the Kafka protocol over a connected socket, one at a time."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection

    def ask(self, key: int, version: int, body: bytes = b"") -> bytes:
        """The answer behind its correlation id."""
        request = struct.pack(">hhih", key, version, key, -1) + body
        self._connection.sendall(struct.pack(">i", len(request)) + request)
        head = self._read(4)
        if head.startswith(TLS_ALERT):
            raise _Failed("it speaks TLS: kafka.security.protocol must be SSL or SASL_SSL")
        size = struct.unpack(">i", head)[0]
        if not 4 <= size <= ANSWER_BYTES_MAX:
            raise _Failed("what answers is not Kafka")
        return self._read(size)[4:]

    def _read(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            part = self._connection.recv(size - len(data))
            if not part and data.startswith(TLS_ALERT):
                return data
            if not part:
                raise ConnectionError("no answer")
            data += part
        return data


def _converse(connection: socket.socket, host: str, kafka: Kafka) -> None:
    """What a client says first. A listener with SASL takes only a handshake after the versions, one without takes anything."""
    talk = _Talk(connection)
    talk.ask(API_VERSIONS, 0)
    if kafka.security.protocol.startswith("SASL"):
        _log_in(talk, host, kafka)
        return
    try:
        talk.ask(API_VERSIONS, 0)
    except ConnectionError:
        wanted = "SASL_SSL" if kafka.security.protocol == "SSL" else "SASL_PLAINTEXT"
        raise _Failed(f"it wants a login: kafka.security.protocol must be {wanted}") from None


def _log_in(talk: _Talk, host: str, kafka: Kafka) -> None:
    from kafka.net.sasl import get_sasl_mechanism

    security = kafka.security
    assert security.mechanism is not None
    answer = talk.ask(SASL_HANDSHAKE, 1, _text(security.mechanism))
    code = struct.unpack_from(">h", answer)[0]
    if code == ILLEGAL_STATE:
        raise _Failed(f"no login is wanted there: kafka.security.protocol must be {security.protocol[5:]}")
    if code == UNSUPPORTED_MECHANISM:
        known = ", ".join(_texts(answer[2:]))
        raise _Failed(f"kafka.security.mechanism {security.mechanism} is not offered there, but {known}")
    if code:
        raise _Failed(f"refused the login (Kafka's error {code})")
    settings, token = {**kafka_python_settings(kafka)}, ""
    if (source := token_source(security)) is not None:
        try:
            token = source.token()
        except TokenError as error:
            raise _Failed(str(error), lasting=error.lasting) from None
        settings["sasl_oauth_token_provider"] = kafka_python_provider(_Given(token))
    mechanism = get_sasl_mechanism(security.mechanism)(host=host, **settings)
    while not mechanism.is_done():
        payload = mechanism.auth_bytes()
        answer = talk.ask(SASL_AUTHENTICATE, 0, struct.pack(">i", len(payload)) + payload)
        code, size = struct.unpack_from(">hh", answer)
        if code:
            said = answer[4 : 4 + max(size, 0)].decode(errors="replace")
            raise _Failed(_login_refusal(security, said, token))
        try:
            mechanism.receive(answer[4 + max(size, 0) + 4 :])
        except (KeyError, ValueError) as error:
            raise _Failed(f"answered the login in a way that {security.mechanism} does not know") from error


@dataclass(frozen=True, slots=True)
class _Given:
    """tokens.TokenSource of one token, so that a diagnosis asks for no second one."""

    text: str = field(repr=False)

    def token(self) -> str:
        return self.text


def _login_refusal(security: Security, said: str, token: str) -> str:
    if not token:
        return f"user {security.username} was refused ({security.mechanism}): wrong user, password or mechanism"
    where = "kafka.security.token" if security.token is not None else "kafka.security.token_file"
    expires = expiry(token)
    if expires is not None and expires <= datetime.now(UTC):
        return f"the token was refused (OAUTHBEARER): it has expired at {expires:%Y-%m-%d %H:%M:%S} UTC ({where})"
    return f"the token was refused (OAUTHBEARER; {where}): {said}"


def _text(text: str) -> bytes:
    return struct.pack(">h", len(text)) + text.encode()


def _texts(data: bytes) -> list[str]:
    count, at, found = struct.unpack_from(">i", data)[0], 4, []
    for _ in range(count):
        size = struct.unpack_from(">h", data, at)[0]
        found.append(data[at + 2 : at + 2 + size].decode(errors="replace"))
        at += 2 + size
    return sorted(found)

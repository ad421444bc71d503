"""Tokens, certificates that are replaced, the section `security`, and the list of rights: what needs no broker."""

from __future__ import annotations

import asyncio
import datetime as dt
import json
import os
import ssl
from pathlib import Path

import pytest
import trustme
from aiokafka.errors import KafkaConnectionError
from faust.transport.drivers.aiokafka import credentials_to_aiokafka_auth
from typer.testing import CliRunner

from stream.certificates import CertificateError, FreshContext, validity
from stream.cli import app
from stream.config import Config, config_from
from stream.config_errors import ConfigError
from stream.connection import aiokafka_settings, kafka_python_settings
from stream.engine import make_app
from stream.rights import Operation, Use, rights, table
from stream.tokens import FileTokens, FunctionTokens, TokenError, aiokafka_provider, expiry

CANARY = "canary-3hT8"


def config(**security: str) -> Config:
    data = {
        "kafka": {"bootstrap_servers": "127.0.0.1:9", "security": security},
        "topics": {"predictions": "scored"},
        "models": {"m": {"reference": {"first": 10_000}}},
    }
    return config_from(data)


# -- tokens


def test_a_token_file_is_read_anew(tmp_path: Path) -> None:
    source = FileTokens(tmp_path / "token")
    with pytest.raises(TokenError, match="No such file") as absent:
        source.token()
    assert not absent.value.lasting
    for text in ("one", "two"):
        (tmp_path / "token").write_text(f"{text}\n")
        assert source.token() == text


@pytest.mark.parametrize("text", ["", " ", "a b", "a\x01auth=Bearer b", "ä", "x" * 70_000])
def test_what_is_no_token_is_refused_and_not_shown(tmp_path: Path, text: str) -> None:
    (tmp_path / "token").write_text(text)
    with pytest.raises(TokenError) as refused:
        FileTokens(tmp_path / "token").token()
    assert not text.strip() or text not in str(refused.value)


FUNCTIONS = """
def many(made=[]):
    made.append(1)
    return f"token-{len(made)}"

def number():
    return 7

def broken():
    raise ValueError("no\\nluck")

async def later():
    return "x"

text = "x"
"""


def test_a_function_is_called_for_every_token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "some_tokens.py").write_text(FUNCTIONS)
    monkeypatch.syspath_prepend(str(tmp_path))
    assert [FunctionTokens("some_tokens:many").token() for _ in range(2)] == ["token-1", "token-2"]
    for name, said, lasting in (
        ("number", "returned int", True), ("broken", "raised ValueError: no luck", False), ("later", "is no function", True),
        ("text", "is no function", True), ("absent", "cannot be imported: AttributeError", True),
    ):  # fmt: skip
        with pytest.raises(TokenError, match=said) as refused:
            FunctionTokens(f"some_tokens:{name}").token()
        assert refused.value.lasting is lasting
    with pytest.raises(KafkaConnectionError, match="no luck"):
        asyncio.run(aiokafka_provider(FunctionTokens("some_tokens:broken")).token())


def test_expiry_of_a_token() -> None:
    assert expiry("e30.eyJleHAiOjB9.") == dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
    for other in ("", "opaque", "a.b.c", "a.e30.c", "a.eyJleHAiOjFlOTl9.c"):
        assert expiry(other) is None


def test_every_client_gets_the_token(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("abc")
    loaded = config(protocol="SASL_PLAINTEXT", mechanism="OAUTHBEARER", token_file=str(tmp_path / "token"))
    assert kafka_python_settings(loaded.kafka)["sasl_oauth_token_provider"].token() == "abc"
    assert asyncio.run(aiokafka_settings(loaded.kafka)["sasl_oauth_token_provider"].token()) == "abc"
    settings = credentials_to_aiokafka_auth(make_app(loaded).conf.broker_credentials)
    assert settings["sasl_mechanism"] == "OAUTHBEARER"
    assert settings["security_protocol"] == "SASL_PLAINTEXT"
    assert asyncio.run(settings["sasl_oauth_token_provider"].token()) == "abc"


# -- the section `security`

SASL = {"protocol": "SASL_SSL", "mechanism": "OAUTHBEARER"}


@pytest.mark.parametrize(
    ("security", "said"),
    [
        pytest.param(SASL, "OAUTHBEARER with nothing", id="no-token"),
        pytest.param(SASL | {"token": "a:b", "token_file": "c"}, "with token, token_file", id="two-sources"),
        pytest.param(SASL | {"token": "a:b", "password": CANARY}, "with password, token", id="password"),
        pytest.param(SASL | {"token": f"eyJ.{CANARY}"}, "no name of a function", id="literal-token"),
        pytest.param({"protocol": "SSL", "token": "a:b"}, "token has no effect with protocol SSL", id="no-sasl"),
        pytest.param(
            {"protocol": "SASL_SSL", "mechanism": "PLAIN", "username": "u", "password": CANARY, "token": "a:b"},
            "token has no effect with PLAIN", id="plain-with-token",
        ),
    ],
)  # fmt: skip
def test_credentials_that_do_not_fit(security: dict[str, str], said: str) -> None:
    with pytest.raises(ConfigError) as refused:
        config(**security)
    assert said in str(refused.value)
    assert CANARY not in str(refused.value)


# -- certificates


def write(issued: trustme.LeafCert, folder: Path) -> tuple[Path, Path, str]:
    issued.cert_chain_pems[0].write_to_path(folder / "client.pem")
    issued.private_key_pem.write_to_path(folder / "key.pem")
    return folder / "client.pem", folder / "key.pem", ""


def shown_to_a_server(client: FreshContext, authority: trustme.CA) -> bytes | None:
    """The certificate that a new connection shows, after a handshake in memory."""
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.verify_mode = ssl.CERT_REQUIRED
    authority.configure_trust(server)
    authority.issue_cert("kafka").configure_cert(server)
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [
        client.wrap_bio(to_client, to_server, server_hostname="kafka"),
        server.wrap_bio(to_server, to_client, server_side=True),
    ]
    for _ in range(4):
        for end in ends:
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                continue
    return ends[1].getpeercert(binary_form=True)


def test_a_replaced_certificate_is_shown_by_the_next_connection(tmp_path: Path, caplog) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    certificate = write(authority.issue_cert("a@example.org"), tmp_path)
    context = FreshContext.over(tmp_path / "ca.pem", certificate)
    first = shown_to_a_server(context, authority)
    assert shown_to_a_server(context, authority) == first
    write(authority.issue_cert("b@example.org"), tmp_path)
    second = shown_to_a_server(context, authority)
    assert second is not None
    assert second != first
    (tmp_path / "client.pem").write_text("half")
    assert shown_to_a_server(context, authority) == second
    assert "stays in use" in caplog.text
    other = trustme.CA()
    other.cert_pem.write_to_path(tmp_path / "ca.pem")
    write(other.issue_cert("c@example.org"), tmp_path)
    assert shown_to_a_server(context, other) not in (None, first, second)


def test_files_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    with pytest.raises(CertificateError, match=r"ca_file: .*does not exist"):
        FreshContext.over(tmp_path / "absent.pem", None)
    (tmp_path / "bad.pem").write_text("nothing")
    with pytest.raises(CertificateError, match=r"ca_file: .*cannot be used"):
        FreshContext.over(tmp_path / "bad.pem", None)


@pytest.mark.parametrize("year", [2030, 2049, 2050, 2070])
def test_validity_is_read(tmp_path: Path, year: int) -> None:
    first, last = dt.datetime(2020, 1, 2, 3, 4, 5, tzinfo=dt.UTC), dt.datetime(year, 6, 7, 8, 9, 10, tzinfo=dt.UTC)
    issued = trustme.CA().issue_cert("a@example.org", not_before=first, not_after=last)
    assert validity(write(issued, tmp_path)[0]) == (first, last)
    (tmp_path / "cut.pem").write_text(ssl.DER_cert_to_PEM_cert(b"\x30\x82\xff\xff\x30"))
    assert validity(tmp_path / "cut.pem") is None
    assert validity(tmp_path / "absent.pem") is None


# -- rights


def test_rights_are_complete_and_least() -> None:
    loaded = config()
    for role in loaded.roles():
        operations = {right.name: right.operations for right in rights(loaded, Use.RUN)}[loaded.topic(role)]
        assert operations
        assert Operation.DESCRIBE not in operations  # implied
        assert Operation.CREATE not in operations
    assert [right.name for right in rights(loaded, Use.RUN) if right.resource == "group"] == ["driftline.workers"]
    assert {who.split("`")[1] for who, _, _ in table()} == {use.value for use in Use}


def test_rights_are_printed(tmp_path: Path) -> None:
    path = tmp_path / "monitor.yaml"
    path.write_text(json.dumps(config().model_dump(mode="json", exclude_defaults=True)))
    arguments = ["topics", "rights", "--config", str(path)]
    text = CliRunner().invoke(app, [*arguments, "--for", "run", "--principal", "User:me"]).stdout
    assert "  topic driftline.panes: Read, Write, DescribeConfigs\n" in text
    assert (
        "  kafka-acls.sh --add --allow-principal User:me --operation Read --operation Write --operation DescribeConfigs"
        " --topic driftline.panes\n" in text
    )
    assert "--operation Read --group driftline.workers" in text
    listed = json.loads(CliRunner().invoke(app, [*arguments, "--output", "json"]).stdout)
    assert len(listed) == sum(len(list(rights(config(), use))) for use in Use)
    unknown = CliRunner().invoke(app, [*arguments, "--for", "dlq retyr"])
    assert unknown.exit_code == 2
    assert "dlq retry" in unknown.stderr
    assert os.linesep in unknown.stderr

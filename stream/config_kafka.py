"""The section `kafka` of the configuration, and what every section is made of."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationInfo, WithJsonSchema, model_validator

from stream.quantities import Secret, refusal, shown

NAME_MAX = 200
_TOPIC = re.compile(r"[A-Za-z0-9._-]{1,200}")  # Kafka allows 249 characters; the prefix needs some
_SERVER = re.compile(r"(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:]+\]):(\d{1,5})")

_FUNCTION = re.compile(r"[^\W\d]\w*(?:\.[^\W\d]\w*)*:[^\W\d]\w*")


def _server(value: str) -> str:
    match = _SERVER.fullmatch(value)
    if match is None or not 0 < int(match[1]) < 65536:
        raise refusal("DL-C014", f"{shown(value)} is no broker address", "host:port (only secret keys read ${...})")
    return value


def _topic(value: str) -> str:
    if _TOPIC.fullmatch(value) is None or value in {".", ".."}:
        raise refusal("DL-C014", f"{shown(value)} is no topic name", "letters, digits, '.', '_' and '-', at most 200")
    return value


def _one_or_many(value: Any) -> Any:
    return (value,) if isinstance(value, str) else value


def _path(value: Any, info: ValidationInfo) -> Any:
    if not isinstance(value, str) or not value:
        return value
    return (info.context or {}).get("base", Path()) / value


def _function(value: Any) -> Any:
    """The value is not shown: somebody may have put a token there."""
    if isinstance(value, str) and _FUNCTION.fullmatch(value) is None:
        expected = "the name of a function, package.module:function; a file with a token: token_file"
        raise refusal("DL-C014", "no name of a function", expected)
    return value


Name = Annotated[str, Field(min_length=1, max_length=NAME_MAX)]
TopicName = Annotated[str, BeforeValidator(lambda value: _topic(value) if isinstance(value, str) else value)]
Server = Annotated[str, BeforeValidator(lambda value: _server(value) if isinstance(value, str) else value)]
TokenFunction = Annotated[str, Field(max_length=NAME_MAX), BeforeValidator(_function)]
File = Annotated[Path, BeforeValidator(_path), WithJsonSchema({"type": "string"})]


class Section(BaseModel):
    """One mapping of the file: unknown keys are errors, nothing is coerced, nothing changes afterwards."""

    model_config = ConfigDict(
        extra="forbid", strict=True, frozen=True, hide_input_in_errors=True, validate_default=False
    )


class Security(Section):
    """How the connection to Kafka is secured."""

    protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = Field(
        default="PLAINTEXT", description="security protocol of the listener"
    )
    mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER"] | None = Field(
        default=None, description="SASL mechanism, with SASL_* protocols"
    )
    username: Name | None = Field(default=None, description="SASL user")
    password: Secret | None = Field(default=None, description="SASL password: ${NAME} or ${file:PATH}")
    token: TokenFunction | None = Field(
        default=None,
        description="for OAUTHBEARER: package.module:function, called without arguments for each new connection",
    )
    token_file: File | None = Field(
        default=None, description="for OAUTHBEARER: file with the token, read anew for each new connection"
    )
    ca_file: File | None = Field(
        default=None, description="PEM file with the authorities to trust; without it the system's"
    )
    certificate_file: File | None = Field(default=None, description="PEM file with the client certificate (mutual TLS)")
    key_file: File | None = Field(default=None, description="PEM file with the client's private key")
    key_password: Secret | None = Field(default=None, description="password of key_file: ${NAME} or ${file:PATH}")
    check_hostname: bool = Field(default=True, description="whether the broker's certificate must carry its host name")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        self._credentials()
        tls = [
            name
            for name in ("ca_file", "certificate_file", "key_file", "key_password")
            if getattr(self, name) is not None
        ]
        if tls and not self.protocol.endswith("SSL"):
            raise refusal(
                "DL-C020", f"{tls[0]} has no effect with protocol {self.protocol}", "protocol SSL or SASL_SSL"
            )
        if (self.certificate_file is None) != (self.key_file is None):
            raise refusal("DL-C010", "certificate_file and key_file go together", "both or none")
        return self

    def _credentials(self) -> None:
        """Raises a coded error unless exactly what the mechanism needs is given."""
        names = ("mechanism", "username", "password", "token", "token_file")
        given = [name for name in names if getattr(self, name) is not None]
        if not self.protocol.startswith("SASL"):
            if given:
                raise refusal(
                    "DL-C020",
                    f"{given[0]} has no effect with protocol {self.protocol}",
                    "protocol SASL_SSL or SASL_PLAINTEXT",
                )
            return
        if self.mechanism == "OAUTHBEARER":
            if len(given) != 2 or given[1] not in ("token", "token_file"):
                raise refusal("DL-C020", f"OAUTHBEARER with {', '.join(given[1:]) or 'nothing'}", "token or token_file")
            return
        if lacking := [name for name in names[:3] if name not in given]:
            raise refusal("DL-C010", f"{self.protocol} lacks {', '.join(lacking)}", "mechanism, username and password")
        if given[3:]:
            raise refusal("DL-C020", f"{given[3]} has no effect with {self.mechanism}", "mechanism: OAUTHBEARER")


class Kafka(Section):
    """The cluster."""

    bootstrap_servers: Annotated[
        tuple[Server, ...],
        BeforeValidator(_one_or_many),
        Field(min_length=1, max_length=100),
        WithJsonSchema({"oneOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}, "minItems": 1}]}),
    ] = Field(description="host:port of one or more brokers")
    security: Security = Field(default=Security(), description="TLS and SASL; plain text without it")

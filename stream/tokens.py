"""Tokens for SASL OAUTHBEARER: from a Python function or a file of the user's, asked for again by every new connection.

Both clients take an object with a method `token`, each of a class of its own and one of them awaits it: `aiokafka_provider`
and `kafka_python_provider` make the two from one source. Nothing is kept: a function that is dear keeps its token itself.
"""

from __future__ import annotations

import asyncio
import base64
import inspect
import json
import re
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

TOKEN_BYTES_MAX = 65_536
REASON_MAX = 200
_TOKEN = re.compile(r"[\x21-\x7e]+")  # RFC 6750 allows less; a control character would end it within the SASL message


class TokenError(Exception):
    """No token to show; the text names where it should come from and why there is none, never a token.

    `lasting`: it will be so the next time too (no such function); otherwise who issues tokens may be away.
    """

    def __init__(self, text: str, *, lasting: bool) -> None:
        super().__init__(text)
        self.lasting = lasting


class TokenSource(Protocol):
    def token(self) -> str:
        """A token for a connection that is opened now. Blocks. Raises TokenError."""


class FileTokens:
    """The content of a file, read anew each time: whoever writes it replaces it before the token in it expires."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def token(self) -> str:
        where = f"kafka.security.token_file: {self._path}"
        try:
            text = self._path.read_bytes()[: TOKEN_BYTES_MAX + 1].decode("ascii").strip()
        except OSError as error:
            raise TokenError(f"{where} cannot be read: {error.strerror}", lasting=False) from None
        except UnicodeDecodeError:
            raise TokenError(f"{where} does not hold a token", lasting=False) from None
        return _checked(text, where)


class FunctionTokens:
    """What `package.module:function` returns, called without arguments in a thread, at once if need be by several.

    What it raises is shown by type and text, cut to one line: it must not raise its secrets.
    """

    def __init__(self, name: str) -> None:
        self._name = name

    def token(self) -> str:
        where = f"kafka.security.token: {self._name}"
        function = _function(self._name)
        try:
            text = function()
        except Exception as error:  # noqa: BLE001  it is the user's
            reason = " ".join(f"{type(error).__name__}: {error}".split())[:REASON_MAX]
            raise TokenError(f"{where} raised {reason}", lasting=False) from None
        if not isinstance(text, str):
            raise TokenError(f"{where} returned {type(text).__name__}, expected the token's text", lasting=True)
        return _checked(text, where)


@cache
def _function(name: str) -> Callable[[], Any]:
    """Imported as Python does, and from the folder that the command was started in."""
    where = f"kafka.security.token: {name}"
    module, _, attribute = name.partition(":")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.append(here)
    try:
        function = getattr(import_module(module), attribute)
    except Exception as error:  # noqa: BLE001  whatever the module does
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:REASON_MAX]
        raise TokenError(f"{where} cannot be imported: {reason}", lasting=True) from None
    if not callable(function) or inspect.iscoroutinefunction(function):
        raise TokenError(f"{where} is no function that returns a token", lasting=True)
    return function  # type: ignore[no-any-return]


def _checked(text: str, where: str) -> str:
    if not text or len(text) > TOKEN_BYTES_MAX or _TOKEN.fullmatch(text) is None:
        what = "is empty" if not text else "is no token: visible ASCII characters, at most 64 KiB"
        raise TokenError(f"{where}: what it holds {what}", lasting=False)
    return text


def expiry(token: str) -> datetime | None:
    """When a token says that it expires (`exp` of a JSON Web Token); None where it does not say. Nothing is verified."""
    try:
        body = token.split(".")[1]
        claims = json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
        return datetime.fromtimestamp(float(claims["exp"]), UTC)
    except (IndexError, KeyError, TypeError, ValueError, OverflowError, OSError):
        return None


def aiokafka_provider(source: TokenSource) -> Any:
    """For aiokafka and Faust; the function runs in a thread, so that heartbeats go on.

    A TokenError becomes a connection error of the client's, which tries again: any other would end its loops.
    """
    from aiokafka.abc import AbstractTokenProvider
    from aiokafka.errors import KafkaConnectionError

    class Provider(AbstractTokenProvider):  # type: ignore[misc]
        async def token(self) -> str:
            try:
                return await asyncio.to_thread(source.token)
            except TokenError as error:
                raise KafkaConnectionError(str(error)) from None

    return Provider()


def kafka_python_provider(source: TokenSource) -> Any:
    """For kafka-python; a TokenError becomes a connection error of the client's."""
    from kafka.errors import KafkaConnectionError
    from kafka.net.sasl.oauth import AbstractTokenProvider

    class Provider(AbstractTokenProvider):  # type: ignore[misc]
        def token(self) -> str:
            try:
                return source.token()
            except TokenError as error:
                raise KafkaConnectionError(str(error)) from None

    return Provider()

"""TLS contexts whose files may be replaced while a process runs, and how long a client certificate is valid."""

from __future__ import annotations

import contextlib
import logging
import ssl
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

log = logging.getLogger(__name__)

_VERSION, _UTC_TIME = 0xA0, 0x17  # DER tags
Stamp = tuple[int, int, int]


class CertificateError(Exception):
    """A file of the TLS settings cannot be used; the text names setting, file and reason."""


class FreshContext(ssl.SSLContext):
    """A client context that loads its files again before a connection when one of them was replaced.

    Both clients and asyncio come through `wrap_bio` or `wrap_socket` for every new connection; connections that are open
    keep what they were made with. Files that cannot be loaded (half written) leave what was loaded in force, with a warning.
    An authority that is taken out of the file is trusted until the process ends.
    """

    _ca_file: Path | None
    _certificate: tuple[Path, Path, str] | None
    _seen: tuple[Stamp, ...]

    def __new__(cls, protocol: Any = ssl.PROTOCOL_TLS_CLIENT) -> Self:
        return super().__new__(cls, protocol)

    @classmethod
    def over(cls, ca_file: Path | None, certificate: tuple[Path, Path, str] | None) -> Self:
        """TLS 1.2 and up, host names checked; certificate: file, key's file, key's password. Raises CertificateError."""
        context = cls()
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context._ca_file, context._certificate = ca_file, certificate
        if ca_file is None:
            context.load_default_certs(ssl.Purpose.SERVER_AUTH)
        context._seen = context._stamps()
        context._load()
        return context

    def wrap_bio(self, *args: Any, **kwargs: Any) -> ssl.SSLObject:
        self._refresh()
        return super().wrap_bio(*args, **kwargs)

    def wrap_socket(self, *args: Any, **kwargs: Any) -> ssl.SSLSocket:
        self._refresh()
        return super().wrap_socket(*args, **kwargs)

    def _refresh(self) -> None:
        if (stamps := self._stamps()) == self._seen:
            return
        try:
            self._load()
        except CertificateError as error:
            log.warning("%s; the one before stays in use", error)
        else:
            self._seen = stamps

    def _load(self) -> None:
        if self._ca_file is not None:
            with _naming("ca_file", self._ca_file):
                self.load_verify_locations(cafile=self._ca_file)
        if self._certificate is not None:
            with _naming("certificate_file and key_file", self._certificate[0]):
                self.load_cert_chain(*self._certificate)

    def _stamps(self) -> tuple[Stamp, ...]:
        """What changes when a file is replaced, also by turning a symbolic link to another folder."""
        files = [self._ca_file, *(self._certificate or ())[:2]]
        return tuple(_stamp(file) for file in files if isinstance(file, Path))


def _stamp(path: Path) -> Stamp:
    with contextlib.suppress(OSError):
        found = path.stat()
        return found.st_mtime_ns, found.st_ino, found.st_size
    return 0, 0, 0


@contextlib.contextmanager
def _naming(key: str, path: Path) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise CertificateError(f"kafka.security.{key}: {path} (or its key) does not exist") from error
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError; a wrong key password may be either
        reason = getattr(error, "reason", None) or str(error)
        raise CertificateError(f"kafka.security.{key}: {path} cannot be used: {reason}") from error


def validity(path: Path) -> tuple[datetime, datetime] | None:
    """First and last moment of the first certificate of a PEM file; None where it cannot be read."""
    try:
        text = path.read_text("ascii", errors="ignore")
        start, end = text.index(ssl.PEM_HEADER), text.index(ssl.PEM_FOOTER) + len(ssl.PEM_FOOTER)
        body = _fields(ssl.PEM_cert_to_DER_cert(text[start:end]))[0][1]
        fields = [field for field in _fields(_fields(body)[0][1]) if field[0] != _VERSION]
        # serial number, algorithm, issuer, then the validity
        first, last = (_moment(*field) for field in _fields(fields[3][1]))
    except (OSError, ValueError, IndexError):
        return None
    return first, last


def _fields(data: bytes) -> list[tuple[int, bytes]]:
    """The DER elements that stand one after the other: tag and content. Raises IndexError, ValueError."""
    found, at = [], 0
    while at < len(data):
        tag, size, at = data[at], data[at + 1], at + 2
        if size & 0x80:
            octets = size & 0x7F
            size, at = int.from_bytes(data[at : at + octets], "big"), at + octets
        if at + size > len(data):
            raise ValueError("cut off")
        found.append((tag, data[at : at + size]))
        at += size
    return found


def _moment(tag: int, content: bytes) -> datetime:
    """UTCTime has two digits of the year, up to 2049; GeneralizedTime four."""
    text = content.decode("ascii")
    if tag == _UTC_TIME:
        text = ("20" if int(text[:2]) < 50 else "19") + text
    return datetime.strptime(text, "%Y%m%d%H%M%SZ").replace(tzinfo=UTC)

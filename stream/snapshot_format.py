"""What stands in a state log: keys, manifests, claims, blobs in chunks, held outputs.

    key                                              value
    P/c/EPOCH/WRITER/0/DECIDED/BASE~CHECK            a manifest: the claim of EPOCH, with the state that it starts from
    P/m/EPOCH/WRITER/SEQUENCE/DECIDED~CHECK          a manifest
    P/b/EPOCH/WRITER/SEQUENCE/NAME#CHUNK~CHECK       a piece of a blob, at most CHUNK_BYTES

P is the partition number. Every key is written once with a value (retries repeat the same bytes) and once as a tombstone,
so compaction can only remove what was given up. DECIDED, the number of the last decision in the manifest, and BASE, the
manifest that a claim's state was copied from ("EPOCH:WRITER:SEQUENCE", empty = none), stand in the key so that a damaged
one still says what passing over it would forget. CHECK is the crc32c of what stands before it, in hexadecimal digits: no
flip turns one key into another, or into one of a newer version. A manifest repeats its key, and names the cluster it was
made for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

import crc32c
import numpy as np

from stream.container import Container, Malformed, decode, encode
from stream.stage import Decision, Output

MANIFEST_VERSION = 1
HELD_VERSION = 1
CHUNK_BYTES = 900_000  # Kafka's default record limit is 1,048,588
MANIFEST_BYTES_MAX = 900_000
HELD = "!held"  # the blob of held outputs; "!" opens no name of a stage's own
METADATA_PREFIX = "state:"


class Key(NamedTuple):
    """A parsed key. `kind` is c, m or b; `name` and `chunk` are a blob's, `decided` a manifest's, `base` a claim's."""

    partition: int
    kind: str
    epoch: int
    writer: str
    sequence: int
    decided: int
    name: str = ""
    chunk: int = 0
    base: str = ""


@dataclass(frozen=True, slots=True)
class BlobRef:
    """Where a blob stands. `offsets`: of its chunks. `log_bytes`: how much had been written to the log before it."""

    prefix: str
    length: int
    crc: int
    offsets: tuple[int, ...]
    log_bytes: int

    @property
    def keys(self) -> tuple[bytes, ...]:
        return tuple(checked_key(f"{self.prefix}#{chunk}") for chunk in range(len(self.offsets)))


@dataclass(frozen=True, slots=True)
class Manifest:
    """One consistent cut. `decisions`: those whose journal copy is not acknowledged yet; `decided`: the last number.
    `applied`: the last one that the blobs hold: a claim, which writes no blobs, may carry newer ones, and its stage is told of them
    after it has loaded the blobs, by every owner until one has saved its state.
    `base`: name of the manifest that the epoch began with. `home`: id of the cluster whose offsets the vector names; `topics`:
    source -> id of the topic that they are offsets of, where the broker knows ids.
    """

    stage: str
    partition: int
    epoch: int
    writer: str
    sequence: int
    vector: dict[str, int]
    decided: int
    decisions: tuple[Decision, ...]
    refs: dict[str, BlobRef]
    log_bytes: int
    base: str = ""
    home: str = ""
    topics: dict[str, str] = field(default_factory=dict)
    applied: int = 0

    @property
    def key(self) -> bytes:
        kind, base = ("m", "") if self.sequence else ("c", f"/{self.base}")
        at = f"{self.partition}/{kind}/{self.epoch:08d}/{self.writer}/{self.sequence}/{self.decided}"
        return checked_key(at + base)

    @property
    def name(self) -> str:
        """What a claim that starts from this one calls its base."""
        return f"{self.epoch}:{self.writer}:{self.sequence}"

    @property
    def live_bytes(self) -> int:
        return sum(ref.length for ref in self.refs.values())


def checked_key(text: str) -> bytes:
    """The key with its check."""
    data = text.encode()
    return b"%s~%08x" % (data, crc32c.crc32c(data))


def key_is_whole(key: bytes) -> bool:
    """Whether the key is as some version of driftline wrote it."""
    data, _, check = key.rpartition(b"~")
    return check == b"%08x" % crc32c.crc32c(data)


def parse_key(key: bytes) -> Key | None:
    """The key's parts; None if it is none of this version's."""
    if not key_is_whole(key):
        return None
    try:
        partition, kind, epoch, writer, sequence, rest = key[: key.rindex(b"~")].decode().split("/", 5)
        at = (int(partition), kind, int(epoch), writer, int(sequence))
        if kind == "m":
            return Key(*at, int(rest))
        if kind == "c":
            decided, base = rest.split("/", 1)
            return Key(*at, int(decided), base=base)
        name, chunk = rest.rsplit("#", 1)
        return Key(*at, 0, name, int(chunk)) if kind == "b" else None
    except ValueError:  # includes UnicodeDecodeError
        return None


def parse_base(base: str) -> tuple[int, str, int] | None:
    """Epoch, writer and sequence of the manifest that a claim came after; None = it started empty."""
    try:
        epoch, writer, sequence = base.split(":")
        return int(epoch), writer, int(sequence)
    except ValueError:
        return None


def blob_prefix(partition: int, epoch: int, writer: str, sequence: int, name: str) -> str:
    """Key of a blob without its chunk number."""
    return f"{partition}/b/{epoch:08d}/{writer}/{sequence}/{name}"


def chunks(data: bytes) -> tuple[bytes, ...]:
    """Pieces of at most CHUNK_BYTES, at least one."""
    return tuple(data[start : start + CHUNK_BYTES] for start in range(0, len(data), CHUNK_BYTES)) or (b"",)


def join_chunks(ref: BlobRef, pieces: Sequence[bytes | None]) -> bytes | None:
    """The blob, None if a piece is missing or the bytes are not those that were written."""
    present = [piece for piece in pieces if piece is not None]
    data = b"".join(present)
    if len(present) != len(ref.offsets) or len(data) != ref.length or crc32c.crc32c(data) != ref.crc:
        return None
    return data


def encode_manifest(manifest: Manifest) -> bytes:
    """Container "manifest"; its checksum covers everything."""
    header = asdict(manifest)
    header["refs"] = {
        name: [ref.prefix, ref.length, ref.crc, list(ref.offsets), ref.log_bytes] for name, ref in manifest.refs.items()
    }
    return encode("manifest", MANIFEST_VERSION, header, {})


def decode_manifest(data: bytes) -> Manifest:
    """Inverse of encode_manifest. Raises ContainerError; UnknownVersion means that a newer version wrote it."""
    header = _expect(decode(data), "manifest", MANIFEST_VERSION, ())
    try:
        refs = {name: BlobRef(a, b, c, tuple(offsets), d) for name, (a, b, c, offsets, d) in header.pop("refs").items()}
        decisions = tuple(Decision(**decision) for decision in header.pop("decisions"))
        return Manifest(**header, decisions=decisions, refs=refs)
    except (KeyError, TypeError, ValueError) as error:
        raise Malformed(f"manifest: {error!r}") from error


def encode_outputs(outputs: Sequence[Output]) -> bytes:
    """Outputs in order: container "held"; keys, values and header values lie in one buffer. -1 = null, or by key."""
    flat: list[bytes | None] = []
    listing: list[list[Any]] = []
    for output in outputs:
        flat += [output.key, output.value, *(value for _, value in output.headers)]
        names = [str(name) for name, _ in output.headers]
        listing.append([str(output.topic), -1 if output.partition is None else output.partition, output.barrier, names])
    lengths = np.array([-1 if item is None else len(item) for item in flat], np.int64)
    buffer = np.frombuffer(b"".join(item for item in flat if item), np.uint8)
    return encode("held", HELD_VERSION, {"outputs": listing}, {"buffer": buffer, "lengths": lengths})


def decode_outputs(data: bytes) -> list[Output]:
    """Inverse of encode_outputs. Raises ContainerError."""
    container = decode(data)
    header = _expect(container, "held", HELD_VERSION, ("buffer", "lengths"))
    buffer, place, flat = container.sections["buffer"].tobytes(), 0, []
    for length in container.sections["lengths"].tolist():
        flat.append(None if length < 0 else buffer[place : place + length])
        place += max(length, 0)
    items = iter(flat)
    try:
        return [
            Output(
                topic, next(items), next(items), None if partition < 0 else partition, _headers(names, items), barrier
            )
            for topic, partition, barrier, names in header["outputs"]
        ]
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise Malformed(f"held: {error!r}") from error


def commit_metadata(offset: int) -> str:
    """Metadata of a commit: the lowest offset of the state log that a restore needs."""
    return f"{METADATA_PREFIX}{offset}"


def metadata_offset(metadata: str) -> int | None:
    """Inverse of commit_metadata; None for anything else, which means: read from the beginning."""
    digits = metadata.removeprefix(METADATA_PREFIX)
    return int(digits) if digits != metadata and digits.isdecimal() else None


def _headers(names: Sequence[str], items: Any) -> tuple[tuple[str, bytes], ...]:
    return tuple((name, next(items) or b"") for name in names)


def _expect(container: Container, kind: str, version: int, sections: tuple[str, ...]) -> dict[str, Any]:
    return container.expect(kind, (version,), sections).header


def record_bytes(key: bytes, value: bytes | None) -> int:
    """Size of a record in the log, near enough for the rule about blobs that lie far back."""
    return len(key) + len(value or b"")

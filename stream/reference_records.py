"""Reference profiles as records of the references topic, and back. Pure.

    key    ID/CHUNK/CHUNKS       value  a piece of container "reference", at most CHUNK_BYTES

One id may be written more than once: a learnt reference first with its cut points only, later complete. The set of chunks
that was finished last counts; a set with a missing piece never does.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from detectors.reference import ReferenceProfile, from_sections, to_sections
from stream import container
from stream.stage import Output
from stream.topics import TopicRole

KIND = "reference"
VERSION = 1
CHUNK_BYTES = 900_000  # Kafka's default record limit is 1,048,588
CHUNKS_MAX = 1_000


def encode_reference(profile: ReferenceProfile) -> bytes:
    header, sections = to_sections(profile)
    return container.encode(KIND, VERSION, header, sections)


def decode_reference(data: bytes) -> ReferenceProfile:
    """Inverse of encode_reference. Raises container.ContainerError, detectors.reference.BadReference."""
    stored = container.decode(data)
    if stored.kind != KIND or stored.version != VERSION:
        raise container.UnknownVersion(stored.kind, stored.version, (VERSION,))
    return from_sections(stored.header, stored.sections)


def reference_outputs(profile: ReferenceProfile) -> tuple[Output, ...]:
    """The records of one profile, in order."""
    data = encode_reference(profile)
    pieces = [data[at : at + CHUNK_BYTES] for at in range(0, len(data), CHUNK_BYTES)]
    return tuple(
        Output(TopicRole.REFERENCES.value, f"{profile.id}/{index}/{len(pieces)}".encode(), piece, 0)
        for index, piece in enumerate(pieces)
    )


def tombstones(reference_id: str, chunks: int) -> tuple[Output, ...]:
    """What removes a profile."""
    return tuple(
        Output(TopicRole.REFERENCES.value, f"{reference_id}/{index}/{chunks}".encode(), None, 0)
        for index in range(chunks)
    )


@dataclass
class ReferenceLog:
    """The references topic as read so far."""

    _pieces: dict[tuple[str, int], dict[int, bytes]] = field(default_factory=dict)
    _whole: dict[str, tuple[int, bytes]] = field(default_factory=dict)

    def add(self, key: bytes | None, value: bytes | None) -> str | None:
        """Take in one record; the id that it completed or removed, else None. Foreign keys are passed over."""
        parsed = _parse(key)
        if parsed is None:
            return None
        name, index, count = parsed
        pieces = self._pieces.setdefault((name, count), {})
        if value is None:
            pieces.pop(index, None)
            if self._whole.get(name, (0, b""))[0] == count:
                del self._whole[name]
                return name
            return None
        pieces[index] = value
        if len(pieces) < count:
            return None
        self._whole[name] = (count, b"".join(pieces[at] for at in range(count)))
        return name

    def ids(self) -> tuple[str, ...]:
        return tuple(self._whole)

    def get(self, reference_id: str) -> ReferenceProfile | None:
        """Raises what decode_reference raises: a damaged reference is refused by name, never taken for a missing one."""
        found = self._whole.get(reference_id)
        return None if found is None else decode_reference(found[1])


def _parse(key: bytes | None) -> tuple[str, int, int] | None:
    try:
        name, index, count = (key or b"").decode().rsplit("/", 2)
        place, total = int(index), int(count)
    except ValueError:
        return None
    return (name, place, total) if 0 <= place < total <= CHUNKS_MAX else None

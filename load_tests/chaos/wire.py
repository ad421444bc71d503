"""A reader of driftline's own records, written from the format and sharing no code with the product.

container    "DRFT" u16 format, u32 crc32c of all other bytes, u16 zero, u32 header length, msgpack header, then sections at multiples of 8
record       a container of kind pane, marker or announcement (panes topic); the owner's epoch is a Kafka header
reference    chunks under the keys ID/CHUNK/CHUNKS, joined: a container of kind reference
plan         named by the first 16 hex digits of the sha256 of its container
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import msgpack
import numpy as np
import xxhash
from crc32c import crc32c

PREFIX = struct.Struct("<4sHIHI")
ALL = "all"


class WireError(ValueError):
    """Bytes that are no record of this format."""


class Box(NamedTuple):
    """One container: sections are numpy arrays."""

    kind: str
    header: dict[str, Any]
    sections: dict[str, Any]


def unbox(data: bytes) -> Box:
    """Read one container, all of it. Raises WireError."""
    if len(data) < PREFIX.size:
        raise WireError(f"{len(data)} bytes")
    magic, form, crc, zero, length = PREFIX.unpack_from(data)
    if magic != b"DRFT" or form != 1 or zero or crc != crc32c(data[10:], crc32c(data[:6])):
        raise WireError("magic, format or checksum is wrong")
    at = PREFIX.size + length
    body = msgpack.unpackb(data[PREFIX.size : at], raw=False)
    sections = {}
    for name, dtype, shape in body["sections"]:
        at += -at % 8
        kind = np.dtype(dtype)
        count = int(np.prod(shape, dtype=np.int64))
        sections[name] = np.frombuffer(data, kind, count, at).reshape(shape)
        at += count * kind.itemsize
    if at != len(data):
        raise WireError(f"{len(data) - at} bytes after the last section")
    return Box(body["kind"], body["header"], sections)


def rebox(kind: str, header: Mapping[str, Any], sections: Mapping[str, tuple[str, bytes]]) -> bytes:
    """The bytes of a container: maps sorted, sections sorted by name, each (dtype, bytes) one-dimensional."""
    listing, parts = [], []
    for name in sorted(sections):
        dtype, data = sections[name]
        listing.append([name, dtype, [len(data) // np.dtype(dtype).itemsize]])
        parts += [data, bytes(-len(data) % 8)]
    body = {"kind": kind, "version": 1, "header": _sorted(header), "sections": listing}
    packed = msgpack.packb(body, use_bin_type=True)
    tail = struct.pack("<HI", 0, len(packed)) + packed + bytes(-(PREFIX.size + len(packed)) % 8) + b"".join(parts[:-1])
    start = struct.pack("<4sH", b"DRFT", 1)
    return start + struct.pack("<I", crc32c(tail, crc32c(start))) + tail


def _sorted(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _sorted(value[key]) for key in sorted(value)}
    return [_sorted(each) for each in value] if isinstance(value, list) else value


# ---- the panes topic


@dataclass(slots=True)
class Pane:
    """One record: a block of one pane's targets. bins: place -> count, of each target; registers: of the tracked targets."""

    partition: int
    edge_ms: int
    model: str
    version: str
    segment: str
    plan: str
    reference: str
    events: int
    names: list[str]
    first_target: int
    last_block: bool
    bins: list[dict[int, int]]
    sums: list[list[float]]
    extremes: list[list[float]]
    tally: list[list[int]]  # missing, invalid, out of range
    registers: dict[int, dict[int, int]]
    sample: list[int] | None = None  # the hashes of the sampled rows, ascending
    schema: list[Any] | None = (
        None  # looked at, crowd, names of no plan -> counts by type, [place, *counts by type] of features
    )

    @property
    def block(self) -> tuple[Any, ...]:
        """What one record is, within its source partition: the key by which monitors drop repeats."""
        return self.edge_ms, self.model, self.version, self.segment, self.plan, self.reference, self.first_target


@dataclass(slots=True)
class Marker:
    """`partition` has sent every pane before `edge_ms`."""

    partition: int
    stream: str
    edge_ms: int
    next_offset: dict[str, int]
    counters: dict[str, int]
    plans: dict[str, str]
    largest_ms: int
    idle: bool


@dataclass(slots=True)
class Announcement:
    """A new owner of `partition`: lower epochs are void."""

    partition: int


def record(data: bytes) -> Pane | Marker | Announcement:
    """A record of the panes topic. Raises WireError."""
    box = unbox(data)
    if box.kind == "marker":
        return Marker(**box.header)
    if box.kind == "announcement":
        return Announcement(**box.header)
    if box.kind != "pane":
        raise WireError(f"a {box.kind} in the panes topic")
    head, sections = box.header, box.sections
    registers, tracked = head.pop("registers"), head.pop("tracked")
    ends = np.cumsum(sections["width"], dtype=np.int64)
    bins: list[dict[int, int]] = [{} for _ in ends]
    for place, count in _spread(sections, "bins"):
        target = int(np.searchsorted(ends, place, side="right"))
        bins[target][place - (int(ends[target - 1]) if target else 0)] = count
    distinct: dict[int, dict[int, int]] = {target: {} for target in tracked}
    for place, rank in _spread(sections, "distinct"):
        distinct[tracked[place // registers]][place % registers] = rank
    sample = sections["sample_hash"].tolist() if "sample_hash" in sections else None
    lists = (sections[name].tolist() for name in ("sums", "extremes", "tally"))
    return Pane(**head, bins=bins, **dict(zip(("sums", "extremes", "tally"), lists, strict=True)),
                registers=distinct, sample=sample)  # fmt: skip


def _spread(sections: Mapping[str, Any], name: str) -> Iterable[tuple[int, int]]:
    """(place, count) of what is not zero."""
    values = sections[name]
    at = sections[name + "_at"] if name + "_at" in sections else range(len(values))
    return [(int(place), int(count)) for place, count in zip(at, values, strict=True) if count]


def epoch(headers: Iterable[Sequence[Any]]) -> int:
    """The epoch that a record was written under; 0 = none."""
    return next((int(value) for name, value in headers if name == "epoch"), 0)


# ---- references and plans


@dataclass(slots=True)
class Target:
    """What a reference says about one target. codes: category hash -> bin."""

    name: str
    role: str
    kind: str
    core: list[int]
    centre: float
    low: float
    high: float
    labels: list[str]
    cuts: list[float]
    codes: dict[int, int]

    @property
    def bins(self) -> int:
        return len(self.cuts) + 1 if self.kind == "numeric" else len(self.labels)


@dataclass(slots=True)
class Reference:
    """One stored reference; `windows`: its own window rule; `complete`: everything is learnt."""

    id: str
    model: str
    complete: bool
    windows: dict[str, Any]
    targets: list[Target]


def references(records: Iterable[tuple[bytes | None, bytes | None]]) -> dict[str, Reference]:
    """Every reference of the topic, by id: of one that was written more than once the last whole version."""
    pieces: dict[tuple[str, int], dict[int, bytes]] = {}
    found: dict[str, Reference] = {}
    for key, value in records:
        name, place, count = (key or b"//").decode().rsplit("/", 2)
        if value is None or not count.isdigit():
            continue
        own = pieces.setdefault((name, int(count)), {})
        own[int(place)] = value
        if len(own) == int(count):
            found[name] = _reference(b"".join(own[at] for at in range(int(count))))
    return found


def _reference(data: bytes) -> Reference:
    box = unbox(data)
    split = {
        name: np.split(box.sections[name], np.cumsum(box.sections[name + ".length"])[:-1])
        for name in ("cuts", "key", "code")
    }
    targets = [
        Target(
            **{name: head[name] for name in ("name", "role", "kind", "core", "centre", "low", "high", "labels")},
            cuts=split["cuts"][at].tolist(),
            codes=dict(zip(split["key"][at].tolist(), split["code"][at].tolist(), strict=True)),
        )
        for at, head in enumerate(box.header["targets"])
    ]
    head = box.header
    return Reference(head["id"], head["model"], head["covers"] == "content", head["windows"], targets)


@dataclass(slots=True)
class Plan:
    """How the events of one model are counted. A learning plan has no bins."""

    hash: str
    model: str
    reference: str
    targets: list[Target]
    segments: dict[str, tuple[str, ...]] = field(default_factory=dict)
    learning: bool = False
    known: list[str] = field(default_factory=list)  # names that events may have besides


def plan_of(reference: Reference, model: Any) -> Plan:
    """What collectors count under this reference with the model's settings (`unwatched`, `columns`, `ranges`, `segments`)."""
    targets = []
    watched = {target.name for target in reference.targets if target.role == "feature"} - model.unwatched
    known = sorted((model.unwatched | model.columns) - watched)
    for target in reference.targets:
        if target.name in model.unwatched:
            continue
        low, high = target.low, target.high
        if target.kind == "numeric":
            low, high = model.ranges.get(target.name, (low, high))
        own = {name: getattr(target, name) for name in Target.__slots__}
        targets.append(Target(**{**own, "low": float(low), "high": float(high)}))
    header = {
        "model": reference.model,
        "reference": reference.id,
        "sample_rows": 0,
        "learning": False,
        "targets": [_plan_target(target) for target in targets],
        "segments": [{"key": key, "values": list(values)} for key, values in model.segments.items()],
    } | ({"known": known} if known else {})
    hashes = [text_hash(value) for values in model.segments.values() for value in values]
    codes = [sorted(target.codes.items()) for target in targets]
    sections = {
        "cuts": ("<f8", b"".join(struct.pack("<d", cut) for target in targets for cut in target.cuts)),
        "key": ("<u8", b"".join(struct.pack("<Q", key) for own in codes for key, _ in own)),
        "code": ("<i4", b"".join(struct.pack("<i", code) for own in codes for _, code in own)),
        "value_hash": ("<u8", b"".join(struct.pack("<Q", each) for each in hashes)),
    }
    name = hashlib.sha256(rebox("plan", header, sections)).hexdigest()[:16]
    return Plan(name, reference.model, reference.id, targets, dict(model.segments), known=known)


def _plan_target(target: Target) -> dict[str, Any]:
    return {
        "name": target.name,
        "role": target.role,
        "kind": target.kind,
        "cuts": len(target.cuts),
        "keys": len(target.codes),
        "core": [int(each) for each in target.core],
        "centre": float(target.centre),
        "low": target.low,
        "high": target.high,
        "labels": list(target.labels),
    }


def text_hash(text: str) -> int:
    return xxhash.xxh3_64_intdigest(text.encode())

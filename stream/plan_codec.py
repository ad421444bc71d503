"""Plans as bytes, and the hash that names them.

A plan's hash covers what is counted and how (names, roles, binnings, segments, reference, sampling), not the columns: these
depend on the layout of the running configuration and are bound anew where a stored plan is loaded.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from detectors.binning import Binning, Kind
from stream import container
from stream.plan import CollectorPlan, ModelPlan, Role, RowSumsPlan, SegmentPlan, TargetPlan

KIND = "plan"
VERSION = 1
VERSIONS = (VERSION,)
HASH_CHARACTERS = 16  # 64 bits of sha256 name a plan among the few of one model
NO_COLUMN = -1  # a stored target or segment that the running layout does not read

Columns = Mapping[tuple[str, str], int]  # (role or "segment", name) -> column


def encode_plan(plan: ModelPlan) -> bytes:
    """The plan as a container, without hash and columns: equal plans give equal bytes."""
    header: dict[str, Any] = {
        "model": plan.model,
        "reference": plan.reference,
        "sample_rows": plan.sample_rows,
        "learning": plan.learning,
        "targets": [_target_header(target) for target in plan.targets],
        "segments": [{"key": segment.key, "values": list(segment.values)} for segment in plan.segments],
    }
    if plan.known:
        header["known"] = list(plan.known)
    binnings = [target.binning for target in plan.targets]
    hashes = [segment.value_hash for segment in plan.segments]
    sections = {
        "cuts": np.concatenate([np.empty(0), *(b.cuts for b in binnings)]),
        "key": np.concatenate([np.empty(0, np.uint64), *(b.key for b in binnings)]),
        "code": np.concatenate([np.empty(0, np.int32), *(b.code for b in binnings)]),
        "value_hash": np.concatenate([np.empty(0, np.uint64), *hashes]),
    }
    if plan.row_sums:  # a plan without keeps its bytes and its hash
        header["row_sums"] = [_row_sums_header(each) for each in plan.row_sums]
        parts = [each.tables[name].reshape(-1) for each in plan.row_sums for name in sorted(each.tables)]
        sections["row_tables"] = np.concatenate(parts)
    return container.encode(KIND, VERSION, header, sections)


def decode_plan(data: bytes) -> ModelPlan:
    """What `encode_plan` was given, sealed, every column NO_COLUMN. Raises ContainerError."""
    stored = container.decode(data).expect(KIND, VERSIONS, ("cuts", "key", "code", "value_hash"), ("row_tables",))
    header, sections = stored.header, stored.sections
    targets, cut, key = [], 0, 0
    for entry in header["targets"]:
        cut_stop, key_stop = cut + entry["cuts"], key + entry["keys"]
        binning = Binning(
            kind=Kind(entry["kind"]),
            cuts=sections["cuts"][cut:cut_stop],
            core=(entry["core"][0], entry["core"][1]),
            centre=entry["centre"],
            low=entry["low"],
            high=entry["high"],
            key=sections["key"][key:key_stop],
            code=sections["code"][key:key_stop],
            labels=tuple(entry["labels"]),
        )
        targets.append(TargetPlan(entry["name"], Role(entry["role"]), NO_COLUMN, binning))
        cut, key = cut_stop, key_stop
    segments, first = [], 0
    for entry in header["segments"]:
        stop = first + len(entry["values"])
        hashes = sections["value_hash"][first:stop]
        segments.append(SegmentPlan(entry["key"], NO_COLUMN, tuple(entry["values"]), hashes))
        first = stop
    return ModelPlan(
        model=header["model"],
        reference=header["reference"],
        targets=tuple(targets),
        segments=tuple(segments),
        sample_rows=header["sample_rows"],
        learning=header["learning"],
        known=tuple(header.get("known", ())),
        row_sums=_row_sums(header.get("row_sums", ()), sections),
        hash=_hash(data),
    )


def plan_hash(plan: ModelPlan) -> str:
    """The name of what the plan counts; equal for equal plans whatever their columns and stored hash."""
    return _hash(encode_plan(plan))


def sealed(plan: ModelPlan) -> ModelPlan:
    """The plan with its hash."""
    return replace(plan, hash=plan_hash(plan))


def layout_columns(plan: CollectorPlan) -> dict[tuple[str, str], int]:
    """Where the running layout has each target and segment: a name means the same column in every model."""
    columns: dict[tuple[str, str], int] = {}
    for model in plan.models:
        columns |= model_columns(model)
    return columns


def model_columns(plan: ModelPlan) -> dict[tuple[str, str], int]:
    """Columns of one plan's targets and segments, those that it has."""
    found = {(target.role.value, target.name): target.column for target in plan.targets}
    found |= {("segment", segment.key): segment.column for segment in plan.segments}
    return {name: column for name, column in found.items() if column != NO_COLUMN}


def bind(plan: ModelPlan, columns: Columns) -> ModelPlan:
    """The plan with the columns of the running layout; NO_COLUMN where it does not read the name."""
    targets = tuple(replace(t, column=columns.get((t.role.value, t.name), NO_COLUMN)) for t in plan.targets)
    segments = tuple(replace(s, column=columns.get(("segment", s.key), NO_COLUMN)) for s in plan.segments)
    return replace(plan, targets=targets, segments=segments)


def _hash(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:HASH_CHARACTERS]


def _target_header(target: TargetPlan) -> dict[str, Any]:
    binning = target.binning
    return {
        "name": target.name,
        "role": target.role.value,
        "kind": binning.kind.value,
        "cuts": len(binning.cuts),
        "keys": len(binning.key),
        "core": [int(edge) for edge in binning.core],
        "centre": float(binning.centre),
        "low": float(binning.low),
        "high": float(binning.high),
        "labels": list(binning.labels),
    }


def _row_sums_header(row_sums: RowSumsPlan) -> dict[str, Any]:
    header = {
        "detector": row_sums.detector,
        "series": row_sums.series,
        "places": list(row_sums.places),
        "tables": [[name, list(table.shape)] for name, table in sorted(row_sums.tables.items())],
    }
    return header | {"length": row_sums.length} if row_sums.length else header


def _row_sums(heads: Sequence[Mapping[str, Any]], sections: container.Sections) -> tuple[RowSumsPlan, ...]:
    found, first = [], 0
    for head in heads:
        tables = {}
        for name, shape in head["tables"]:
            stop = first + int(np.prod(shape, dtype=np.int64))
            if stop > len(sections["row_tables"]):
                raise container.Malformed(f"{KIND}: row_tables end before those of {head['series']} do")
            tables[name] = sections["row_tables"][first:stop].reshape(shape)
            first = stop
        places = tuple(head["places"])
        found.append(RowSumsPlan(head["detector"], head["series"], places, tables, head.get("length", 0)))
    return tuple(found)

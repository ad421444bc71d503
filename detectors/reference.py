"""ReferenceProfile: what normal is. Cut points, bin counts, window order statistics, summary; named by a hash of its content.

A profile holds counts (integers), order statistics rounded to 2^-20 and summaries rounded to 10 digits, so that the same
rows give the same id on every machine. Cost: about 4 KB a numeric target, 300 bytes a category.
"""

# ruff: noqa: N818 - the errors are named after what is wrong

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from sys import intern
from typing import Any

import numpy as np
from numpy.typing import NDArray

from detectors.binning import Binning, Kind
from detectors.reference_digest import digest
from detectors.reference_kept import KeptWindows, kept_from, kept_sections
from detectors.reference_performance import ReferencePerformance, performance_content, performance_from
from detectors.reference_rows import ReferenceRows, rows_content, rows_from
from detectors.reference_strata import Put, Strata, slim_strata, strata_of, strata_sections
from detectors.reference_versions import VERSION, VERSION_KEPT, VERSION_NEWEST, version_needed

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
I64 = NDArray[np.int64]
U64 = NDArray[np.uint64]

COVERS_CONTENT = "content"
COVERS_BINNINGS = "binnings"


class BadReference(ValueError):
    """Base of everything that can be wrong with a reference."""


class UnknownReferenceVersion(BadReference):
    """Written by a newer version of the program."""


class CorruptReference(BadReference):
    """The content does not give the id that it carries, or sections are missing."""


class NotWritableError(BadReference):
    """A profile that was made small for reading."""


@dataclass(frozen=True, slots=True)
class WindowRule:
    """How windows are cut. A window starts at a non-empty pane edge and closes once `every_ms` has passed and `min_events`
    are in it; at `max_duration_ms` (0 = never) it closes as insufficient data. `auto`: `every_ms` is chosen from the reference.
    """

    auto: bool = True
    every_ms: int = 0
    min_events: int = 0
    max_duration_ms: int = 0
    resolution_ms: int = 60_000


@dataclass(frozen=True, slots=True)
class WindowInfo:
    """The reference's windows, and the rule that live windows follow.

    size_min, size_max   events of the smallest and largest reference window: a smaller live one is carried, a larger thinned
    checked              False = rows without time: exchangeability with live windows cannot be checked
    auto                 how `window: auto` decided: {} or {"lengths_ms": [...], "worst": {length: ratio}, ...} (JSON values)
    """

    count: int
    every_ms: int
    min_events: int
    max_duration_ms: int
    resolution_ms: int
    size_min: int
    size_max: int
    checked: bool
    auto: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class BlockEffects:
    """What whole blocks (days) of the reference do to a target, for `tolerance: auto` (tolerance_auto.py).

    values, absent   standard deviations in probit units, of its values and of its shares of missing and invalid values (a
                     categorical target: of all shares, twice); 0 = nothing beyond sampling noise
    length_ms        of the blocks that are meant; events, windows: of the largest of them
    blocks           how many of the longest length that was looked at
    """

    length_ms: int
    events: int
    windows: int
    blocks: int
    values: float
    absent: float


@dataclass(frozen=True, slots=True, eq=False)
class TargetReference:
    """One watched column of the reference. b = binning.bins; columns b and b + 1 of all counts are missing and invalid.

    first        I64[b + 2]: the rows that chose the cuts (scores and nominal ranks come from them)
    counts       I64[b + 2]: the other rows, those that the windows are made of
    rank         I64[r], increasing, 1 .. windows: which order statistics are kept, both record ranks included
    order, tie   F64[s, r]: value and tie-break of each statistic at those ranks; s = statistics of the target. F32 in a
                 profile that is only read (`slim`)
    size_min, size_max, size_median   events of its windows
    group        that many list windows make one window of this target (slow targets)
    summary      {mean, std, p01, p05, p25, median, p75, p95, p99, missing, invalid, distinct}; a categorical target has
                 only the last three
    minimum, maximum   of valid values; NaN where there is none
    strata       None: its windows are ranked among all of the reference's
    effects      of blocks; None where its windows follow each other as if independent, or too few blocks show them
    kept         windows, for limits that are made of them; None in a reference that was stored without. No part of the id
    """

    name: str
    role: str
    binning: Binning
    first: I64
    counts: I64
    rank: I64
    order: F64 | F32
    tie: F64 | F32
    windows: int
    size_min: int
    size_max: int
    size_median: int
    group: int
    summary: Mapping[str, float]
    minimum: float
    maximum: float
    effects: BlockEffects | None = None
    strata: Strata | None = None
    kept: KeptWindows | None = None

    @property
    def histogram(self) -> I64:
        """I64[b + 2]: all rows of the reference, far bins, missing and invalid included."""
        return self.first + self.counts

    @property
    def masses(self) -> F64:
        """F64[core bins (far ones folded into the outer), missing, invalid]: (n + 1/2) / (rows + bins / 2) of `counts`."""
        return masses(self.binning, self.counts)


@dataclass(frozen=True, slots=True, eq=False)
class ReferenceProfile:
    """What normal is for one model. `id` = "sha256:<hex>" of the content, or of the binnings only (a learnt reference).

    `notes` are sentences for people: what could not be checked, what was left out.
    """

    id: str
    model: str
    targets: tuple[TargetReference, ...]
    windows: WindowInfo
    rows: int
    origin: Mapping[str, Any]
    notes: tuple[str, ...] = ()
    covers: str = COVERS_CONTENT
    row_sample: ReferenceRows | None = None  # for multivariate detectors
    performance: ReferencePerformance | None = None  # of its labelled rows

    @property
    def complete(self) -> bool:
        """False while a learnt reference has cut points only."""
        return self.windows.count > 0

    def target(self, name: str) -> TargetReference:
        for target in self.targets:
            if target.name == name:
                return target
        raise KeyError(name)


def slim(profile: ReferenceProfile, put: Put | None = None) -> ReferenceProfile:
    """The same profile for detectors and plans, under the same id, 3 KB a target smaller; it cannot be written again.

    Detectors compare in float32, so `order` and `tie` need no more; texts that models share are kept once. One that is
    still being learnt stays as it is: whoever goes on learning writes it. `put`: where the ranks of strata are kept; None: here.
    """
    if not profile.complete:
        return profile
    equal: dict[bytes, I64] = {}
    return replace(profile, targets=tuple(_slim_target(target, equal, put) for target in profile.targets))


def _slim_target(target: TargetReference, equal: dict[bytes, I64], put: Put | None) -> TargetReference:
    order, tie = target.order.astype(np.float32), target.tie.astype(np.float32)
    # as those of a whole profile's tables: numba would compile the detector once more for arrays that can be written
    order.flags.writeable = tie.flags.writeable = False
    labels = tuple(intern(label) for label in target.binning.labels)
    summary = {intern(name): value for name, value in target.summary.items()}
    binning = replace(target.binning, labels=labels)
    strata = target.strata
    if strata is not None:  # whose tables are used in place of the target's own
        strata, order, tie = slim_strata(strata, equal, put), order[:, :0].copy(), tie[:, :0].copy()
    return replace(
        target, name=intern(target.name), order=order, tie=tie, binning=binning, summary=summary, strata=strata
    )


def fold(binning: Binning, counts: I64) -> I64:
    """Counts[..., b + 2] with the far bins of a numeric target added to its outer core bins; categorical: unchanged."""
    if binning.kind is not Kind.NUMERIC:
        return counts
    first, stop = binning.core
    bins = binning.bins
    core = counts[..., first : stop + 1].copy()
    core[..., 0] += counts[..., :first].sum(axis=-1)
    core[..., -1] += counts[..., stop + 1 : bins].sum(axis=-1)
    return np.concatenate([core, counts[..., bins:]], axis=-1)


def masses(binning: Binning, counts: I64) -> F64:
    """Of `fold`, smoothed: (n + 1/2) / (rows + bins / 2)."""
    raised = fold(binning, counts).astype(np.float64) + 0.5
    shares: F64 = raised / raised.sum()
    return shares


# ---- codec ----------------------------------------------------------------------------------------------------------

_RAGGED = (("cuts", "<f8"), ("key", "<u8"), ("code", "<i4"), ("first", "<i8"))
_PROFILE_RAGGED = (("counts", "<i8"), ("rank", "<i8"), ("order", "<f8"), ("tie", "<f8"))


def _array(target: TargetReference, name: str) -> NDArray[Any]:
    if target.order.dtype != np.float64:
        raise NotWritableError(f"{target.name}: what is left of this reference (slim) does not give its id")
    owner: Any = target.binning if name in {"cuts", "key", "code"} else target
    flat: NDArray[Any] = np.asarray(getattr(owner, name)).reshape(-1)
    return flat


def _sections(targets: Sequence[TargetReference], names: Sequence[tuple[str, str]]) -> dict[str, NDArray[Any]]:
    """Every array of all targets, one after the other, under one name; "<name>.length" says where they are split."""
    sections: dict[str, NDArray[Any]] = {}
    for name, dtype in names:
        parts = [_array(target, name).astype(dtype) for target in targets]
        sections[name] = np.concatenate(parts) if parts else np.empty(0, dtype)
        sections[name + ".length"] = np.array([len(part) for part in parts], "<i8")
    return sections


def _binning_header(target: TargetReference) -> dict[str, Any]:
    b = target.binning
    return {
        "name": target.name,
        "role": target.role,
        "kind": str(b.kind),
        "core": list(b.core),
        "centre": b.centre,
        "low": b.low,
        "high": b.high,
        "labels": list(b.labels),
    }


def _target_header(target: TargetReference) -> dict[str, Any]:
    header = _binning_header(target) | {
        "windows": target.windows,
        "size": [target.size_min, target.size_max, target.size_median],
        "group": target.group,
        "summary": dict(target.summary),
        "extremes": [None if np.isnan(x) else x for x in (target.minimum, target.maximum)],
    }
    if target.effects is not None:  # a reference stored before there were any keeps its header and its id
        header["effects"] = asdict(target.effects)
    if target.strata is not None:
        header["season"] = target.strata.by  # the name that it had when there were hours alone
    return header


def binnings_id(model: str, targets: Sequence[TargetReference]) -> str:
    """The id of a learnt reference: what the cut points are, and nothing that is learnt after them."""
    header = {"version": VERSION, "model": model, "targets": [_binning_header(t) for t in targets]}
    return digest(header, _sections(targets, _RAGGED))


def _content(profile: ReferenceProfile) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    strata = strata_sections([target.strata for target in profile.targets])
    rows, row_sections = rows_content(profile.row_sample)
    told, told_sections = performance_content(profile.performance)
    header = {
        "version": version_needed(strata, rows, told),
        "model": profile.model,
        "covers": profile.covers,
        "rows": profile.rows,
        "origin": dict(profile.origin),
        "notes": list(profile.notes),
        "windows": asdict(profile.windows),
        "targets": [_target_header(t) for t in profile.targets],
    }
    sections = _sections(profile.targets, _RAGGED + _PROFILE_RAGGED) | strata | row_sections | told_sections
    return header | rows | told, sections


def with_id(profile: ReferenceProfile) -> ReferenceProfile:
    """The same profile under its own id (any id that it has is ignored)."""
    if profile.covers == COVERS_BINNINGS:
        return replace(profile, id=binnings_id(profile.model, profile.targets))
    return replace(profile, id=digest(*_content(profile)))


def to_sections(profile: ReferenceProfile) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """(header of JSON values, named little-endian arrays) for stream.container; `content` guards the whole."""
    header, sections = _content(profile)
    windows = kept_sections([target.kept for target in profile.targets])
    if windows:  # the id says what it said before there were any: the same rows, the same id
        header, sections = header | {"version": max(header["version"], VERSION_KEPT)}, sections | windows
    content = digest(header, sections)
    return header | {"id": profile.id, "content": content}, sections


def from_sections(header: Mapping[str, Any], sections: Mapping[str, NDArray[Any]]) -> ReferenceProfile:
    """Inverse of `to_sections`. Raises UnknownReferenceVersion, CorruptReference."""
    if (read := header.get("version")) not in range(VERSION, VERSION_NEWEST + 1):
        raise UnknownReferenceVersion(f"reference format {read!r}; this program reads up to {VERSION_NEWEST}")
    bare = {key: value for key, value in header.items() if key not in {"id", "content"}}
    if digest(bare, sections) != header.get("content"):
        raise CorruptReference("the content does not match the hash it carries")
    parts: dict[str, list[NDArray[Any]]] = {}
    for name, _ in _RAGGED + _PROFILE_RAGGED:
        ends = np.cumsum(sections[name + ".length"])
        parts[name] = np.split(sections[name], ends[:-1]) if len(ends) else []
    heads = header["targets"]
    strata = strata_of([head.get("season") for head in heads], sections, [len(part) for part in parts["counts"]])
    arrays = [{name: parts[name][i] for name in parts} for i in range(len(heads))]
    kept = kept_from(sections, len(heads))
    targets = tuple(_target(*each) for each in zip(heads, arrays, strata, kept, strict=True))
    profile = ReferenceProfile(
        id=header["id"],
        model=header["model"],
        targets=targets,
        windows=WindowInfo(**header["windows"]),
        rows=header["rows"],
        origin=header["origin"],
        notes=tuple(header["notes"]),
        covers=header["covers"],
        row_sample=rows_from(header, sections),
        performance=performance_from(header, sections),
    )
    if with_id(profile).id != profile.id:
        raise CorruptReference(f"the content does not give the id {profile.id}")
    return profile


def _target(
    head: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]], strata: Strata | None, kept: KeptWindows | None
) -> TargetReference:
    binning = Binning(
        kind=Kind(head["kind"]),
        cuts=arrays["cuts"].astype(np.float64),
        core=(head["core"][0], head["core"][1]),
        centre=head["centre"],
        low=head["low"],
        high=head["high"],
        key=arrays["key"].astype(np.uint64),
        code=arrays["code"].astype(np.int32),
        labels=tuple(head["labels"]),
    )
    rank = arrays["rank"].astype(np.int64)
    shape = (-1, len(rank)) if len(rank) else (0, 0)
    low, high = (np.nan if x is None else x for x in head["extremes"])
    return TargetReference(
        name=head["name"],
        role=head["role"],
        binning=binning,
        first=arrays["first"].astype(np.int64),
        counts=arrays["counts"].astype(np.int64),
        rank=rank,
        order=arrays["order"].astype(np.float64).reshape(shape),
        tie=arrays["tie"].astype(np.float64).reshape(shape),
        windows=head["windows"],
        size_min=head["size"][0],
        size_max=head["size"][1],
        size_median=head["size"][2],
        group=head["group"],
        summary=dict(head["summary"]),
        minimum=low,
        maximum=high,
        effects=BlockEffects(**head["effects"]) if "effects" in head else None,
        strata=strata,
        kept=kept,
    )

"""What a collector sends to the monitors of predictions and their feedback: one pane of one stream at one horizon.

A pane says itself what its sums are of (the layout), so that who reads it needs no configuration, and panes of different
layouts are told apart by `kept`. Sent once, when nothing that could change it is missing; the marker of its series follows: a
panes.Marker whose `stream` is `series_name(stream, horizon_ms)`, `edge_ms` what Join.closed_ms says.

Size: about 1 kB of two classes with scores, .6 kB of a numeric target; `bytes_max` bounds it for any rows of one model.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from detectors.performance import Layout, PerformanceSums, default_score_cuts, from_sections
from detectors.performance.exact import LIMB_BITS, LIMBS
from detectors.performance.paired import BOXES, PairedSums, paired_from_sections
from detectors.verdict import DetectorError
from stream import container
from stream.columns import F64
from stream.limits import RECORD_BYTES_MAX
from stream.sparse import dense, smallest, sparse

KIND = "performance"
VERSION = 1
VERSIONS = (VERSION,)
SEPARATOR = "@"  # between a stream's name and its horizon; no name of a stream has one
HEAD_BYTES_MAX = 16_384  # container, header with its names but for those of classes, and the padding of the sections
CLASS_NAME_BYTES_MAX = 803  # 200 characters, as the configuration lets them be, in UTF-8, and how msgpack begins a text
LAYOUTS_CACHED = 256
_HEAD, _SUMS, _CUTS = "head", "sums", "cuts"
_PARTS = ("scores", "class_scores", "errors", "proxies")  # flags of a layout, by their names there


class PerformancePaneTooLargeError(ValueError):
    """A layout whose panes would not fit a record."""


@dataclass(frozen=True, slots=True)
class PerformancePane:
    """Sums over the predictions of one (source partition, model, version, segment) in [edge_ms, edge_ms + resolution), each with
    its feedback of `stream` within `horizon_ms`. Horizon 0 (join.CARRIED): feedback that brought its prediction with it, by when
    it became known.

    kind       of the stream: a FeedbackKind's value       segment    "all" or "key=value"
    rows       predictions counted                         observed   of them with feedback
    complete   False: the cap of waiting predictions has cost this pane rows
    against    () or model and version of a challenger: `sums` are of pairs of predictions, the challenger's side is a
    classes    what the layout's codes of classes stand for, in order; () = no classes
    """

    partition: int
    model: str
    version: str
    segment: str
    stream: str
    kind: str
    horizon_ms: int
    edge_ms: int
    rows: int
    observed: int
    complete: bool
    classes: tuple[str, ...]
    sums: PerformanceSums | PairedSums
    against: tuple[str, ...] = ()

    @property
    def kept(self) -> str:
        """Names what the sums are of: panes are added only with their like."""
        own = kept_name(self.sums.layout, self.classes)
        return own + "".join(f"\0\0{name}" for name in self.against)


def kept_name(layout: Layout, classes: tuple[str, ...]) -> str:
    """Equal names: sums of one meaning."""
    return layout.identity + "".join(f"\0{name}" for name in classes)


def series_name(stream: str, horizon_ms: int) -> str:
    """The name of one series of a stream in markers: "clicks@60000". Raises ValueError for a name that has the separator."""
    if SEPARATOR in stream or not stream:
        raise ValueError(f"{stream!r} cannot name a stream: empty, or with {SEPARATOR!r}")
    return f"{stream}{SEPARATOR}{horizon_ms}"


def series_of(name: str) -> tuple[str, int] | None:
    """(stream, horizon_ms) of a marker's stream; None if it names no series of feedback."""
    stream, separator, horizon = name.rpartition(SEPARATOR)
    return (stream, int(horizon)) if separator and stream and horizon.isascii() and horizon.isdigit() else None


def bytes_max(layout: Layout) -> int:
    """No record of one model's sums in this layout is longer, whatever its rows are, where the names of model, version and segment
    leave HEAD_BYTES_MAX the 2 kB that the rest of the header needs. Not of pairs, which are two such sums and what they have in
    common: 36 kB at most with two classes and the usual cuts; of them `encode_performance_pane` alone judges.
    """
    counts = sum(math.prod(shape) for shape in layout.shape.counts.values())
    sums = (1 + LIMBS * LIMB_BITS // 64) * len(layout.shape.sums)
    names = layout.classes * CLASS_NAME_BYTES_MAX
    return HEAD_BYTES_MAX + names + 8 * (counts + sums + len(layout.cuts)) + 80 * (len(layout.shape.counts) + 3)


def check_layout(layout: Layout) -> None:
    """Raises PerformancePaneTooLargeError for a layout whose panes might not fit a record."""
    if bytes_max(layout) > RECORD_BYTES_MAX:
        raise PerformancePaneTooLargeError(
            f"performance of {layout.classes} classes with {layout.bins} bins of scores may need {bytes_max(layout)} bytes a pane,"
            f" at most {RECORD_BYTES_MAX}"
        )


def encode_performance_pane(pane: PerformancePane) -> bytes:
    """The record of one pane: one form only, so equal panes are equal bytes. Raises PerformancePaneTooLargeError."""
    layout = pane.sums.layout
    header: dict[str, Any] = {
        "partition": pane.partition,
        "model": pane.model,
        "version": pane.version,
        "segment": pane.segment,
        "stream": pane.stream,
        "kind": pane.kind,
        "horizon_ms": pane.horizon_ms,
        "edge_ms": pane.edge_ms,
        "rows": pane.rows,
        "observed": pane.observed,
        "complete": pane.complete,
        "classes": list(pane.classes),
        "layout": layout_header(layout),
    }
    if pane.against:  # others keep their bytes
        header["against"] = list(pane.against)
    record = container.encode(KIND, VERSION, header, sums_sections(pane.sums) | cuts_section(layout))
    if len(record) > RECORD_BYTES_MAX:
        raise PerformancePaneTooLargeError(
            f"model {pane.model!r}, {pane.stream}: a pane of {len(record)} bytes, at most {RECORD_BYTES_MAX}"
        )
    return record


def performance_pane_of(record: container.Container) -> PerformancePane:
    """What `encode_performance_pane` had. Raises ContainerError; an unknown version, part or section is named."""
    header = dict(record.expect(KIND, VERSIONS).header)
    try:
        layout = layout_from(header.pop("layout"), record.sections)
        found = {name: each for name, each in record.sections.items() if name != _CUTS}
        texts: dict[str, Any] = {name: tuple(header[name]) for name in ("classes", "against") if name in header}
        read = paired_sums_from if texts.get("against") else sums_from
        return PerformancePane(**header | texts, sums=read(layout, found))
    except (DetectorError, KeyError, TypeError) as error:
        raise container.Malformed(f"{KIND}: {error}") from None


def layout_header(layout: Layout) -> dict[str, Any]:
    """A layout without its cuts, as plain values."""
    return {
        "classes": layout.classes,
        "positive": layout.positive,
        "parts": [name for name in _PARTS if getattr(layout, name)],
        "quantiles": list(layout.quantiles),
        "centre": layout.centre,
    }


def cuts_section(layout: Layout) -> dict[str, NDArray[Any]]:
    """The cuts, unless they are the usual ones."""
    return {} if layout.has_usual_cuts else {_CUTS: layout.cuts}


def layout_from(header: Mapping[str, Any], sections: Mapping[str, NDArray[Any]]) -> Layout:
    """What `layout_header` and `cuts_section` had. Raises Malformed, BadSettings. Cached: a layout is that of many panes."""
    unknown = sorted(set(header["parts"]) - set(_PARTS))
    if unknown:
        raise container.Malformed(f"{KIND}: unknown parts {', '.join(unknown)}")
    cuts = sections[_CUTS].astype("<f8").tobytes() if _CUTS in sections else None
    key = (header["classes"], header["positive"], tuple(header["parts"]), tuple(header["quantiles"]), header["centre"])
    return _layout(key, cuts)


@lru_cache(LAYOUTS_CACHED)
def _layout(key: tuple[int, int, tuple[str, ...], tuple[float, ...], float], cuts: bytes | None) -> Layout:
    classes, positive, parts, quantiles, centre = key
    own: F64 = default_score_cuts() if cuts is None else np.frombuffer(cuts, "<f8").astype(np.float64)
    flags = {name: name in parts for name in _PARTS}
    return Layout(classes, positive, **flags, quantiles=quantiles, centre=centre, cuts=own)


def sums_sections(sums: PerformanceSums | PairedSums) -> dict[str, NDArray[Any]]:
    """Sections of sums, the counts sparse and in the smallest dtype that holds them."""
    found: dict[str, NDArray[Any]] = {}
    for name, values in sums.to_sections().items():
        if name.rpartition(".")[2] in {_HEAD, _SUMS}:
            found[name] = values
        else:
            found |= sparse(name, values) if len(values) > 16 else {name: smallest(values)}
    return found


def sums_from(layout: Layout, sections: Mapping[str, NDArray[Any]]) -> PerformanceSums:
    """What `sums_sections` had. Raises Malformed, UnknownSection, BadState."""
    return from_sections(layout, _whole([_HEAD, _SUMS], layout.shape.counts, sections))


def paired_sums_from(layout: Layout, sections: Mapping[str, NDArray[Any]]) -> PairedSums:
    """The same of pairs."""
    shapes = {f"{side}.{name}": shape for side in "ab" for name, shape in layout.shape.counts.items()}
    own = {name: each.shape for name, each in PairedSums(layout, layout).counts.items()}
    if f"paired.{BOXES}" in sections:  # of a version before
        own[BOXES] = own.pop("joint")
    shapes |= {f"paired.{name}": shape for name, shape in own.items()}
    whole = [f"paired.{_SUMS}", *(f"{side}.{name}" for side in "ab" for name in (_HEAD, _SUMS))]
    return paired_from_sections(layout, layout, _whole(whole, shapes, sections))


def _whole(
    names: Sequence[str], shapes: Mapping[str, tuple[int, ...]], sections: Mapping[str, NDArray[Any]]
) -> dict[str, NDArray[Any]]:
    """Sections as sums give them: `names` as they are, counts of `shapes` dense. Raises Malformed, UnknownSection."""
    known = {*names, *shapes, *(f"{name}_at" for name in shapes)}
    for name in sections:
        if name not in known:
            raise container.UnknownSection(KIND, name, "unknown")
    for name in (*names, *shapes):
        if name not in sections:
            raise container.UnknownSection(KIND, name, "missing")
    counts = {name: dense(name, sections, math.prod(shape)).astype("<i8") for name, shape in shapes.items()}
    return {name: sections[name] for name in names} | counts

"""What a collector counts: derived from the configuration and each model's active reference, frozen, named by hash."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

from detectors.binning import Binning
from stream.columns import U64

if TYPE_CHECKING:
    from detectors.multivariate import Tables
    from stream.performance_plan import FeedbackPlan

ALL = "all"
OTHER = "__other__"
UNKNOWN_MODEL = "__unknown__"


class Role(StrEnum):
    FEATURE = "feature"
    PREDICTION = "prediction"
    SCORE = "score"
    SHARE = "segment_share"  # of the values of a segment key, among the events: an input


INPUT_ROLES = frozenset({Role.FEATURE, Role.SHARE})
SHARE_PREFIX = "segment:"


def share_name(key: str) -> str:
    """Name of the target that is the shares of a segment key's values."""
    return SHARE_PREFIX + key


@dataclass(frozen=True, slots=True)
class TargetPlan:
    """One watched column. `column` indexes Columns.cell; `binning` says how values become bins."""

    name: str
    role: Role
    column: int
    binning: Binning


@dataclass(frozen=True, slots=True)
class SegmentPlan:
    """One configured key; value i of `values` is the segment "key=value"; any other value is "key=__other__"."""

    key: str
    column: int
    values: tuple[str, ...]
    value_hash: U64  # xxh3-64 of each value's text, same order


@dataclass(frozen=True, slots=True)
class RowSumsPlan:
    """What one multivariate detector adds up over the rows of segment "all": its name, the series that the sums are for, the
    features of a row (places among the plan's targets), and the tables by which it adds.

    `length`: a row is an array of so many numbers, which stands in the one column of `places`; 0 = it is the features themselves.
    """

    detector: str
    series: str
    places: tuple[int, ...]
    tables: Tables
    length: int = 0


@dataclass(frozen=True, slots=True)
class ModelPlan:
    """What is counted of one model. `reference` is the id of the reference that the binnings come from ("" = only rows are sampled).

    `known`: names of features that are not watched and are no news in the traffic, ascending (stream.schema_sample).
    `learning` marks a plan without cuts: its panes carry a bottom-k sample of `sample_rows` whole rows and no bins. Another has
    such a sample besides where multivariate detectors are configured; `row_sums` travel with it, so it has one row at least.
    """

    model: str
    reference: str
    targets: tuple[TargetPlan, ...]
    segments: tuple[SegmentPlan, ...] = ()
    sample_rows: int = 0
    learning: bool = False
    known: tuple[str, ...] = ()
    row_sums: tuple[RowSumsPlan, ...] = ()
    hash: str = ""


@dataclass(frozen=True, slots=True)
class CollectorPlan:
    """All models of one predictions topic, and the rules of its time. `feedback`: what is joined to them, if anything is."""

    models: tuple[ModelPlan, ...]
    resolution_ms: int
    lateness_ms: int
    max_future_skew_ms: int
    dedup: bool = True
    versions_max: int = 20
    feedback: FeedbackPlan | None = None
    names: dict[str, int] = field(default_factory=dict)

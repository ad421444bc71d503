"""What a configuration costs: memory of one worker and bytes of its snapshots, by the arithmetic of the design. Pure.

An estimate for `check-config`, from the plan alone: what is allocated on first touch counts as touched, and all partitions
are taken to be on one worker, so that the figure holds when the others are down.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

from stream.alignment import ahead_edges_max
from stream.plan import CollectorPlan, ModelPlan, Role

OPEN_EDGES = 3  # the current pane, the one that lateness keeps open, and one of skew
ROW_BYTES = 4  # int32
IMPORTS_BYTES = 225_000_000  # interpreter, numpy, numba, the client: measured 200-250 MB
REGISTERS_BYTES = 1 << 11  # of one distinct counter
ID_BYTES = 36  # 12 bytes of hash in a table that is at most a third empty, and its segment for the snapshot
NUMERIC_BINS = 38 + 20 * 2  # before a reference is known
CATEGORICAL_BINS = 100
MONITOR_TARGET_BYTES = 20_000  # detector state, rank counts, window tallies of one target
SAMPLE_CELL_BYTES = 9
PANE_BYTES = 8_000  # objects and keys around the counts of one decoded pane
EVENTS_PER_S = 10_000
SNAPSHOT_EVERY_S = 10


@dataclass(frozen=True, slots=True)
class Estimate:
    """Bytes. `edge_bytes`: all open statistics of one pane edge, all partitions."""

    edge_bytes: int
    panes_bytes: int
    ids_bytes: int
    sample_bytes: int
    monitor_bytes: int
    imports_bytes: int
    snapshot_bytes_per_s: int

    @property
    def total_bytes(self) -> int:
        return self.panes_bytes + self.ids_bytes + self.sample_bytes + self.monitor_bytes + self.imports_bytes

    def as_json(self) -> dict[str, int]:
        return asdict(self) | {"total_bytes": self.total_bytes}


def estimate(plan: CollectorPlan, partitions: int, *, events_per_s: int = EVENTS_PER_S) -> Estimate:
    """Cost of `plan` with P source partitions at a rate of events (all partitions together)."""
    edge = partitions * sum(_edge_bytes(model) for model in plan.models)
    held_s = plan.resolution_ms * OPEN_EDGES / 1000
    ids = round(events_per_s * held_s * ID_BYTES) if plan.dedup else 0
    sample = partitions * OPEN_EDGES * sum(m.sample_rows * len(m.targets) * SAMPLE_CELL_BYTES for m in plan.models)
    monitor = sum(len(model.targets) for model in plan.models) * MONITOR_TARGET_BYTES
    changed = edge + (events_per_s * SNAPSHOT_EVERY_S * 12 if plan.dedup else 0)
    return Estimate(edge, edge * OPEN_EDGES, ids, sample, monitor, IMPORTS_BYTES, round(changed / SNAPSHOT_EVERY_S))


def ahead_ms_max(plan: CollectorPlan, sources: int) -> int:
    """How far in event time a source partition may be ahead of the slowest (alignment.py)."""
    panes = sum(1 + sum(len(segment.values) + 1 for segment in model.segments) for model in plan.models)
    edge_bytes = sum(_edge_bytes(model) for model in plan.models) + panes * PANE_BYTES
    return ahead_edges_max(sources, edge_bytes, panes) * plan.resolution_ms


def _edge_bytes(model: ModelPlan) -> int:
    bins = distinct = 0
    for target in model.targets:
        categorical = target.binning.kind.value == "categorical"
        known = target.binning.bins if len(target.binning.cuts) or target.binning.labels else 0
        bins += known or (CATEGORICAL_BINS if categorical else NUMERIC_BINS)
        distinct += REGISTERS_BYTES if categorical and target.role is not Role.SCORE else 0
    segments = 1 + sum(len(segment.values) + 1 for segment in model.segments)
    about = 8 * 7 * len(model.targets)  # sums, extremes and the three counts
    return segments * (bins * ROW_BYTES + about) + distinct

"""Cells of performance: which series of a model its default detector judges, and what of the budget each may spend. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from detectors.performance.judged import NOT_JUDGED
from detectors.sequential.rank_alone import Settings
from stream.performance_detection import Chosen
from stream.performance_plan import ModelPerformance, StreamPerformance, wanted
from stream.performance_told import Told
from stream.plan import ALL

PERFORMANCE_SHARE = 0.2  # of a model's false alarms, once its performance is judged; inputs and outputs keep the rest


class CellName(NamedTuple):
    """One series that pages, of every version. `metric`: with what was told of it (performance_told.py)."""

    stream: str
    horizon_ms: int
    segment: str
    metric: str


def judged(stream: StreamPerformance, told: Told) -> tuple[str, ...]:
    """Series of a topic that are judged."""
    asked = wanted(stream.kind.value, stream.layout, stream.metrics, told)
    return tuple(name for name in asked if name not in NOT_JUDGED)


def segments_of(plan: ModelPerformance) -> tuple[str, ...]:
    """Segments whose performance pages: `all`, and every value that the configuration follows."""
    return (ALL, *(f"{segment.key}={value}" for segment in plan.segments for value in segment.values))


def cells_of(plan: ModelPerformance | None) -> tuple[CellName, ...]:
    """All cells of a model: d of contracts.md is their number, whatever versions there are."""
    if plan is None:
        return ()
    return tuple(
        CellName(stream.stream, horizon_ms, segment, metric)
        for stream in plan.streams
        for horizon_ms in stream.series_ms
        for segment in segments_of(plan)
        for metric in judged(stream, plan.told)
    )


def rank_settings(plan: ModelPerformance, budget_ms: float) -> Settings:
    """Of every cell of a model whose false alarms may be one in `budget_ms`."""
    cells = max(len(cells_of(plan)), 1)
    own = plan.detection
    return Settings(budget_ms * cells / PERFORMANCE_SHARE, own.learning, own.tolerance, own.least_rows)


def meant(chosen: Chosen, cells: Sequence[CellName]) -> int:
    """How many cells an operator's entry is on."""
    return sum(chosen.means(cell.metric, cell.horizon_ms, cell.segment) for cell in cells)

"""How far a source partition may run ahead of the slowest one. Pure.

A window waits for the slowest partition, so what a faster one sends before that only waits in the monitor's memory and
in its snapshots: after an outage, or over history, it may be months. Holding its consumer back costs no alert a second, and
leaves the events where they are cheap: in Kafka. Idle partitions tick, so they hold nobody up for longer than that.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from stream.limits import limit
from stream.panes import EDGE_END, EDGE_MIN

PENDING_BYTES_MAX = limit("pending_bytes_max", 64 << 20, "panes that may wait in the monitors for slower partitions")
PENDING_PANES_MAX = limit("pending_panes_max", 4_000, "each is a blob that a snapshot's manifest (900 kB) must name")
AHEAD_EDGES_MIN = 8  # below this a hold would be taken and released with every chunk


def ahead_edges_max(sources: int, edge_bytes: int, panes_per_edge: int) -> int:
    """Edges that a partition may be ahead; `edge_bytes`, `panes_per_edge`: of one source partition and edge."""
    by_bytes = PENDING_BYTES_MAX // max(sources * edge_bytes, 1)
    by_panes = PENDING_PANES_MAX // max(sources * panes_per_edge, 1)
    return max(min(by_bytes, by_panes), AHEAD_EDGES_MIN)


@dataclass
class Alignment:
    """Judges partitions by what is marked. `slack_ms`: how far ahead of the slowest one a partition may be, in event time."""

    sources: int
    slack_ms: int
    _first: dict[int, int] = field(default_factory=dict)

    def ahead(self, source: int, marked_ms: Mapping[int, int]) -> bool:
        """Whether `source` must wait. One that has marked nothing yet is taken to stand where `source` began."""
        own = marked_ms.get(source, EDGE_MIN)
        if own in (EDGE_MIN, EDGE_END):
            return False
        first = self._first.setdefault(source, own)
        slowest = min(max(marked_ms.get(other, EDGE_MIN), EDGE_MIN) for other in range(self.sources))
        return own - (first if slowest == EDGE_MIN else slowest) > self.slack_ms

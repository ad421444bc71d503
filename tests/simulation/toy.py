"""Two small honest stages: the collector's rules and the monitor's merging on a handful of dictionaries.

They show the ownership protocol by itself, and keep its tests quick; the real stages run in the same world (kits.py).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import orjson

from stream.merging import Merger, PaneRecord
from stream.panes import EDGE_MIN, INPUTS, Marker, Pane, encode_marker, encode_pane
from stream.registers import Registers
from stream.stage import Decision, Output

BINS = 8
Event = tuple[int, int, int, float]  # event time, record time, id, value


def toy_bin(value: float) -> int:
    return min(int(value * BINS), BINS - 1)


class ToyCollector:
    """Late, duplicate, future by the rules of contracts.md; one model "m", one target "x", plan = a revision number."""

    def __init__(self, partition: int, monitors: int, resolution_ms: int, lateness_ms: int, skew_ms: int) -> None:
        self.outbox: list[Output] = []
        self._partition, self._monitors = partition, monitors
        self._resolution, self._lateness, self._skew = resolution_ms, lateness_ms, skew_ms
        self._meta: dict[str, Any] = {
            "max": EDGE_MIN,
            "floor": EDGE_MIN,
            "marked": EDGE_MIN,
            "offset": 0,
            "schedule": [[EDGE_MIN, "1"]],
            "counters": dict.fromkeys(("consumed", "applied", "dead_letters", "duplicates", "late", "tombstones"), 0),
        }
        self._open: dict[int, dict[str, Any]] = {}
        self._dirty: set[int] = set()

    def apply(self, source: str, batch: Any) -> None:
        assert source == "predictions"
        for event in batch:
            self._count(event)
            self._meta["offset"] += 1
            self._close()

    def _watermark(self) -> int:
        return max(self._meta["max"] - self._lateness, self._meta["floor"])

    def _count(self, event: Event | None) -> None:
        meta, counters = self._meta, self._meta["counters"]
        counters["consumed"] += 1
        if event is None:
            counters["tombstones"] += 1
            return
        time, recorded, ident, value = event
        if time > recorded + self._skew:
            counters["dead_letters"] += 1
            offset = meta["offset"]
            self.outbox.append(Output("dead-letters", str(offset).encode(), b"", self._partition))
            return
        if time < self._watermark():
            counters["late"] += 1
            return
        edge = time // self._resolution * self._resolution
        pane = self._open.get(edge)
        if pane is None:
            plan = [plan for first, plan in meta["schedule"] if first <= edge][-1]
            pane = self._open[edge] = {"ids": [], "bins": [0] * BINS, "sum": 0.0, "plan": plan}
        if ident in pane["ids"]:
            counters["duplicates"] += 1
            return
        counters["applied"] += 1
        self._dirty.add(edge)
        pane["ids"].append(ident)
        pane["bins"][toy_bin(value)] += 1
        pane["sum"] += value
        meta["max"] = max(meta["max"], time)

    def _close(self) -> None:
        low = self._watermark() // self._resolution * self._resolution
        if low <= self._meta["marked"]:
            return
        for edge in sorted(edge for edge in self._open if edge < low):
            pane = self._open.pop(edge)
            self._dirty.add(edge)
            for value in encode_pane(self._pane(edge, pane)):
                self.outbox.append(Output("panes", b"m", value, edge // self._resolution % self._monitors))
        self._meta["marked"] = low
        meta = self._meta
        marker = Marker(
            self._partition,
            INPUTS,
            low,
            {"predictions": meta["offset"] + 1},
            dict(meta["counters"]),
            {"m": meta["schedule"][-1][1]},
            max(meta["max"], 0),
        )
        for monitor in range(self._monitors):
            self.outbox.append(Output("panes", None, encode_marker(marker), monitor, (), True))

    def _pane(self, edge: int, pane: dict[str, Any]) -> Pane:
        zero = np.zeros(1, np.int64)
        return Pane(
            self._partition,
            edge,
            "m",
            "1",
            "all",
            pane["plan"],
            "r",
            len(pane["ids"]),
            ("x",),
            0,
            True,
            np.array([0, BINS]),
            np.array(pane["bins"], np.int64),
            np.array([[pane["sum"], 0.0]]),
            np.full((1, 2), np.nan),
            zero,
            zero,
            zero,
            Registers.none(),
        )

    def decide(self, decision: Decision) -> None:
        meta = self._meta
        if decision.kind == "tick":
            meta["floor"] = max(meta["floor"], decision.body["until_ms"])
            self._close()
        else:
            first = max([meta["marked"], *(edge + self._resolution for edge in self._open)])
            meta["schedule"].append([first, decision.body["plan"]])

    def changed_blobs(self) -> dict[str, bytes | None]:
        blobs: dict[str, bytes | None] = {"meta": orjson.dumps(self._meta)}
        for edge in self._dirty:
            blobs[f"pane/{edge}"] = orjson.dumps(self._open[edge]) if edge in self._open else None
        self._dirty.clear()
        return blobs

    def load(self, blobs: Mapping[str, bytes]) -> None:
        self._meta = orjson.loads(blobs["meta"])
        self._open = {int(n.split("/")[1]): orjson.loads(b) for n, b in blobs.items() if n.startswith("pane/")}


class ToyMonitor:
    """Every complete edge becomes one window: events, bins, sum."""

    def __init__(self, partition: int, sources: int) -> None:
        self.outbox: list[Output] = []
        self._partition = partition
        self._merger = Merger(sources)

    def apply(self, source: str, batch: Sequence[PaneRecord]) -> None:
        assert source == "panes"
        for record in batch:
            if self._merger.add(record):
                for edge, models in self._merger.complete():
                    self._window(edge, models)
                self._merger.release()

    def _window(self, edge: int, models: dict[str, Any]) -> None:
        tallies = [tally for groups in models.values() for tally in groups.values()]
        body = {
            "edge": edge,
            "events": sum(tally.events for tally in tallies),
            "bins": [int(sum(tally.counts[i] for tally in tallies)) for i in range(BINS)],
        }
        self.outbox.append(Output("windows", str(edge).encode(), orjson.dumps(body), self._partition))

    def decide(self, decision: Decision) -> None:
        raise AssertionError(decision)

    def changed_blobs(self) -> dict[str, bytes | None]:
        return {"meta": orjson.dumps(self._merger.header()), **self._merger.changed_blobs()}

    def load(self, blobs: Mapping[str, bytes]) -> None:
        self._merger.load(orjson.loads(blobs["meta"]), blobs)

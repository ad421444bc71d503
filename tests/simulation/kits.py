"""What runs in the world: the stages, their events, and how their outputs are compared with the recount."""

from __future__ import annotations

import json
import random
from typing import Any

import xxhash
from recount import Cell, Recount, distinct_outputs
from toy import BINS, ToyCollector, ToyMonitor, toy_bin

from stream.merging import Group, Merger, PaneRecord, block_key
from stream.ownership import PartitionOwner
from stream.panes import EDGE_END, Announcement, Pane, decode_record, encode_announcement, encode_pane
from stream.stage import Output
from stream.tally import Tally

DECODED_MAX = 20_000


class CarelessMerger(Merger):
    """Without pane deduplication: of an edge that is not complete yet, what arrives twice counts twice."""

    def add(self, record: PaneRecord) -> bool:
        body = record.body
        source = self.sources[body.partition]
        if not isinstance(body, Pane) or record.epoch < source.epoch or body.edge_ms < self.low_ms:
            return super().add(record)
        blocks, key = source.panes.setdefault(body.edge_ms, {}), block_key(body)
        blocks[key] = (*blocks.get(key, ()), *encode_pane(body))
        self._dirty.add((body.partition, body.edge_ms))
        return False

    def _merge(self, edge_ms: int) -> dict[str, dict[Group, Tally]]:
        merged: dict[str, dict[Group, Tally]] = {}
        for source in self.sources:
            for wire in (wire for wires in source.panes.get(edge_ms, {}).values() for wire in wires):
                pane = decode_record(wire)
                assert isinstance(pane, Pane)
                group = Group(pane.plan, pane.reference, pane.version, pane.segment)
                groups = merged.setdefault(pane.model, {})
                if group in groups:
                    groups[group].add(Tally.of([pane]))
                else:
                    groups[group] = Tally.of([pane])
        return {model: dict(sorted(merged[model].items())) for model in sorted(merged)}


class BaseKit:
    partitions, monitors = 3, 2
    resolution_ms, lateness_ms, skew_ms = 1_000, 2_500, 60_000
    end_ms = EDGE_END
    feedback: tuple[str, ...] = ()  # streams that are joined
    burst = 1  # events and records where others have one
    scale = 1  # ms of event time in one of the world
    eager = False  # whether a switch is tried after all work
    world: Any  # set by the world

    def wall_ms(self, now_ms: int) -> int:
        """What the broker's clock shows."""
        return now_ms

    def __init__(self, generator: random.Random, rules: Any) -> None:
        self.rules = rules
        self._ident = 0
        self._decoded: dict[bytes, Any] = {}

    def owner(self, stage: str, partition: int, writer: str) -> PartitionOwner:
        if stage == "monitor":
            return PartitionOwner(stage, partition, self.monitor(partition), writer, sources=("panes",))
        value = encode_announcement(Announcement(partition))
        to = range(self.monitors) if self.rules.announce else ()
        announcements = [Output("panes", None, value, monitor, (), True) for monitor in to]
        return PartitionOwner(
            stage,
            partition,
            self.collector(partition),
            writer,
            sources=("predictions", *self.feedback),
            announcements=announcements,
        )

    def collector(self, partition: int) -> Any:
        raise NotImplementedError

    def monitor(self, partition: int) -> Any:
        raise NotImplementedError

    def body(self, value: bytes) -> Any:
        if value not in self._decoded:
            if len(self._decoded) > DECODED_MAX:
                self._decoded.clear()
            self._decoded[value] = decode_record(value)
        return self._decoded[value]

    def partition_of(self, output: Output) -> int:
        return xxhash.xxh3_64_intdigest(output.key or b"") % self.monitors

    def output_id(self, output: Output) -> bytes:
        return output.key or b""

    def letter_topic(self, output: Output) -> str:
        """Where a dead letter's event came from."""
        return "predictions"

    def provide(self, stage: Any, waits: Any) -> None:
        raise AssertionError(waits)

    def draw_time(self, generator: random.Random, now_ms: int) -> int:
        """By the producer's clock: mostly within lateness, sometimes beyond it, seldom far ahead."""
        if generator.random() < 0.01:
            return now_ms + self.skew_ms + generator.randrange(1, 10**7)
        return now_ms - int(generator.expovariate(1 / 700))


class ToyKit(BaseKit):
    """The protocol alone: dictionaries instead of kernels."""

    def collector(self, partition: int) -> ToyCollector:
        return ToyCollector(partition, self.monitors, self.resolution_ms, self.lateness_ms, self.skew_ms)

    def monitor(self, partition: int) -> ToyMonitor:
        monitor = ToyMonitor(partition, self.partitions)
        if not self.rules.deduplicate:
            monitor._merger = CarelessMerger(self.partitions)
        return monitor

    def event(self, generator: random.Random, now_ms: int, recorded_ms: int, log: list[Any]) -> Any:
        draw = generator.random()
        if draw < 0.01:
            return None
        if draw < 0.06 and log and log[-1] is not None:
            return (*log[-1][:1], recorded_ms, *log[-1][2:])
        self._ident += 1
        return self.draw_time(generator, now_ms), recorded_ms, self._ident, generator.random()

    def batch(self, log: list[Any], start: int, stop: int) -> Any:
        return log[start:stop]

    def plain(self, event: Any) -> tuple[Any, ...]:
        time, recorded, ident, value = event
        return time, recorded, ident, "m", "1", value

    def first_plans(self) -> dict[str, str]:
        return {"m": "1"}

    def switch(self, owner: PartitionOwner, generator: random.Random) -> bool:
        owner.decide("plan", {"model": "m", "plan": str(owner.decided + 2)})
        return True

    def watermark_ms(self, stage: ToyCollector) -> int:
        return stage._watermark()

    def dead_letter_offset(self, output: Output) -> int:
        return int(output.key or b"")

    def said(self, pane: Pane) -> Any:
        return pane.events, pane.plan, pane.bins.tolist(), float(pane.sums[0, 0])

    def expected(self, key: tuple[Any, ...], cell: Cell) -> dict[str, Any]:
        bins, total = [0] * BINS, 0.0
        for value in cell.rows:
            bins[toy_bin(value)] += 1
            total += value
        return {"all": (len(cell.rows), cell.plan, bins, total)}

    def compare_windows(self, world: Any, result: Recount) -> list[str]:
        windows, wrong = distinct_outputs(world, "windows")
        expected: dict[int, tuple[int, list[int]]] = {}
        for (_, _, _, edge), cell in result.panes.items():
            events, bins = expected.setdefault(edge, (0, [0] * BINS))
            for value in cell.rows:
                bins[toy_bin(value)] += 1
            expected[edge] = (events + len(cell.rows), bins)
        world.counts["windows"] = len(expected)
        got = {body["edge"]: (body["events"], body["bins"]) for body in map(json.loads, windows.values())}
        return wrong + [
            f"window {edge}: {got.get(edge)}, recounted {expected.get(edge)}"
            for edge in sorted(set(got) | set(expected))
            if got.get(edge) != expected.get(edge)
        ]

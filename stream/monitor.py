"""Monitor: the second stage. Panes and markers of all source partitions in; windows, alerts and learnt references out.

A deterministic function of its panes partition: outputs are the same bytes under any batching, and a state saved at any
record and loaded again goes on as if nothing had happened (tests/laws/test_monitor_laws.py). No clock, no generator, no I/O.

Cost grows with targets x windows, never with events. Memory: the open window and the detectors of every model, and the panes
between the slowest and the fastest source partition.

The partition that the topic's name falls on also watches the job (job_alerts.py).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import xxhash

from detectors.reference import ReferenceProfile
from stream import container
from stream.claims import GAP, RESET
from stream.job_alerts import JobWatch
from stream.merging import Hole, Merger, PaneRecord, UnknownSourceError
from stream.model_monitor import ModelMonitor
from stream.monitor_settings import ModelSettings, MonitorSettings
from stream.panes import Announcement, Marker, Pane
from stream.performance_arrivals import going_together
from stream.performance_merging import Horizon, PerformanceMerger
from stream.performance_panes import series_of
from stream.performance_windows import horizons_of
from stream.stage import Decision, Output, StageWaits
from stream.topics import TopicRole
from stream.window_series import Threshold

__all__ = [
    "MissingReference",
    "ModelSettings",
    "Monitor",
    "MonitorSettings",
    "PaneRecord",
    "Threshold",
    "UnknownSourceError",
]

VERSION = 1


class MissingReference(StageWaits):
    """The next record needs a reference that is not loaded. Put it into `profiles` and apply the same batch again."""

    def __init__(self, reference: str, next_offset: int) -> None:
        super().__init__(f"reference {reference} is not loaded", next_offset)
        self.reference = reference


class UnknownDecisionError(ValueError):
    """A decision that this stage does not take."""


class Monitor:
    """Stage of one panes partition. `position`: the next offset to apply; records below it are passed over.

    `profiles` is the caller's and may grow at any time; `sources` is the number of source partitions.
    """

    def __init__(
        self,
        partition: int,
        *,
        sources: int,
        settings: MonitorSettings,
        profiles: Mapping[str, ReferenceProfile],
        app_version: str,
    ) -> None:
        self.partition = partition
        self.settings = settings
        self.profiles = profiles
        self.app_version = app_version
        self.outbox: list[Output] = []
        self.position = 0
        self.merger = Merger(sources)
        self.performance = self._performance()
        self._together = going_together(model.performance for model in settings.models.values())
        self.models: dict[str, ModelMonitor] = {}
        speaks = xxhash.xxh3_64_intdigest(settings.topic.encode()) % settings.partitions == partition
        self.job = JobWatch(settings.job, settings.topic, settings.resolution_ms) if speaks else None
        self._resuming = False
        self._saved_meta = b""

    def apply(self, source: str, batch: Sequence[PaneRecord]) -> None:
        """Take in records of the panes topic in offset order.

        Raises MissingReference before the record that needs it changes anything; UnknownSourceError, WindowOrderError,
        PlanMismatchError: an invariant is broken.
        """
        if source != TopicRole.PANES.value:
            raise ValueError(f"the monitor reads panes, not {source!r}")
        for record in batch:
            if record.offset < self.position:
                continue
            self._require(record)
            if self._resuming:
                self._resume(record.timestamp_ms)
            self._take(record)
            self.position = record.offset + 1

    def _take(self, record: PaneRecord) -> None:
        body = record.body
        if self.performance.takes(body):
            if self.performance.add(record) and isinstance(body, Marker):
                named = series_of(body.stream)
                assert named is not None
                self._advance_performance([Horizon(*named)], record.timestamp_ms)
            return
        if self.merger.add(record):
            self._advance(record.timestamp_ms)
        if isinstance(body, Announcement):
            self.performance.add(record)

    def decide(self, decision: Decision) -> None:
        """Only claims.GAP and claims.RESET: panes were lost before they were read. All else that it needs comes with the panes."""
        if decision.kind not in (GAP, RESET):
            raise UnknownDecisionError(f"monitor: no decision {decision.kind!r} is known")
        said = decision.body[TopicRole.PANES.value]
        first, stop = said if decision.kind == GAP else (said["from"], said["to"])
        records = max(stop - first, 1)  # of a log that was given up nobody knows how many: at least one
        self.merger.lose(records)
        self.performance.lose(records)
        self.position = stop

    def changed_blobs(self) -> dict[str, bytes | None]:
        """Every blob that changed since the last call; None = gone."""
        blobs = self.merger.changed_blobs() | self.performance.changed_blobs()
        for name in sorted(self.models):
            blobs |= self.models[name].changed_blobs()
        header = {
            "position": self.position,
            "app_version": self.app_version,
            "merger": self.merger.header(),
            "performance": self.performance.header(),
            "models": sorted(self.models),
            "job": None if self.job is None else self.job.header(),
        }
        meta = container.encode("monitor", VERSION, header, {})
        if meta != self._saved_meta:
            blobs["meta"] = self._saved_meta = meta
        return blobs

    def load(self, blobs: Mapping[str, bytes]) -> None:
        """Become the state that these blobs, all live ones, describe. References are asked for at the next record."""
        self.outbox, self.models = [], {}
        header = container.decode(blobs["meta"]).expect("monitor", (VERSION,), ()).header
        self._saved_meta = blobs["meta"]
        self.position = header["position"]
        self.merger = Merger(len(self.merger.sources))
        self.merger.load(header["merger"], blobs)
        self.performance = self._performance()
        self.performance.load(header.get("performance"), blobs)
        if self.job is not None and header["job"] is not None:
            self.job.load(header["job"])
        for name in header["models"]:
            self._model(name).load(blobs)
        self._resuming = True

    def _model(self, name: str) -> ModelMonitor:
        if name not in self.models:
            self.models[name] = ModelMonitor(self.settings, name, self._emit, self.profiles.__getitem__, self._holes_in)
        return self.models[name]

    def _emit(self, output: Output) -> None:
        """What is keyed by the model lies where the model's panes do, whichever partitioner the client has."""
        placed = output._replace(partition=self.partition) if output.partition is None else output
        self.outbox.append(placed)  # looked up each time: the owner takes the list away

    def _holes_in(self, start_ms: int, end_ms: int) -> list[Hole]:
        return self.merger.holes_in(start_ms, end_ms)

    def _advance(self, log_ms: int) -> None:
        """Edges have become complete: windows close, in the order of edges and models."""
        for edge_ms, models in self.merger.complete():
            for name, groups in models.items():
                model = self._model(name)
                model.log_ms = log_ms
                model.add(edge_ms, groups, self.merger.plans_at(edge_ms, name))
        for name in sorted(self.models):
            self.models[name].log_ms = log_ms
            self.models[name].close(self.merger.low_ms)
        if self.job is not None:
            for output in self.job.advance(self.merger, log_ms):
                self._emit(output)
        unjudged = (model.unjudged_ms for model in self.models.values())
        self.merger.forget_holes(min([self.merger.low_ms, *(start for start in unjudged if start is not None)]))
        self.merger.release()
        self._advance_performance(self.performance.series, log_ms)

    def _performance(self) -> PerformanceMerger:
        """Of all series that some model has."""
        settings = self.settings
        wanted = {each for model in settings.models.values() for each in horizons_of(model.performance)}
        return PerformanceMerger(len(self.merger.sources), wanted, settings.resolution_ms)

    def _advance_performance(self, changed: Iterable[Horizon], log_ms: int) -> None:
        """Windows of these series, and of those that go with them, become final: those that all partitions have passed, and whose
        list is known.
        """
        for model in self.models.values():
            model.performance.log_ms = log_ms
        for group in dict.fromkeys(self._together[series] for series in changed if series in self._together):
            for series, until_ms in self._steps(group):
                self._advance_series(series, until_ms)

    def _steps(self, group: Sequence[Horizon]) -> list[tuple[Horizon, int]]:
        """How far each series goes, one after the other. Those that are ages and horizons of each other go as far as all of them are
        known, in the order in which windows become as old, whatever the markers' order.
        """
        reached_ms = min(self.performance.low_ms(series) + series.horizon_ms for series in group)
        until = {series: min(reached_ms - series.horizon_ms, self.merger.low_ms) for series in group}
        steps: list[tuple[Horizon, int]] = []
        if len(group) > 1:
            models = self.models.values()
            ends = {
                (end_ms + s.horizon_ms, s) for s in group for m in models for end_ms in m.performance.ends(s, until[s])
            }
            for time_ms, series in sorted(ends):
                if steps and steps[-1][0] == series:
                    steps.pop()
                steps.append((series, time_ms - series.horizon_ms))
        return [*steps, *until.items()]

    def _advance_series(self, series: Horizon, until_ms: int) -> None:
        """One series, up to an edge before which it is complete."""
        merged, lost = self.performance, self.performance.lost
        for edge_ms, models in merged.complete(series, until_ms):
            for name, groups in models.items():
                self._emit_all(self._model(name).performance.add(series, edge_ms, groups, lost))
        starts = [until_ms]
        for name in sorted(self.models):
            model = self.models[name]
            self._emit_all(model.performance.advance(series, until_ms, lost))
            starts += [
                start for start in (model.performance.start_ms(series), model.windows.start_ms) if start is not None
            ]
        merged.forget_losses(series, min(starts))

    def _emit_all(self, outputs: Iterable[Output]) -> None:
        for output in outputs:
            self._emit(output)

    def _require(self, record: PaneRecord) -> None:
        body = record.body
        if self._resuming:
            needed = {name for model in self.models.values() for name in model.required()}
            for reference in sorted(needed | self.merger.references()):
                self._check(reference)
        if isinstance(body, Pane):
            self._check(body.reference)

    def _resume(self, log_ms: int) -> None:
        """A loaded state goes on. Series that waited for one that is configured no more wait for nothing, and perhaps no marker of theirs
        follows.
        """
        for model in self.models.values():
            model.resume()
        self._resuming = False
        self._advance_performance(self.performance.series, log_ms)

    def _check(self, reference: str) -> None:
        if reference and reference not in self.profiles and not any(m.knows(reference) for m in self.models.values()):
            raise MissingReference(reference, self.position)

"""The monitor of one model: from complete edges to windows, judgements, alerts and, where asked for, a learnt reference.

Order of everything: edges ascending; at an edge first the window that is due, then what the edge brings; in a window
references, versions and segments as they sort, `all` first. So outputs are a function of the panes alone.

Plans. Panes are merged only with their like. While partitions count with different plans, windows are recorded and not
judged; the transition ends at the first edge whose panes, and the markers of all partitions, carry one plan.

Holes. A window of which events were lost is recorded and not judged: what retention took is a stretch of time of one
source partition, so what is left is no sample of the traffic, and the bound on false alarms is for windows exchangeable
with the reference's. Evidence, alerts, learning and the window before stay as if it had not been; its time is in the
weight of the next one. Which windows are left out does not depend on what is in them, so the bound holds for the others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import orjson

from detectors.reference import ReferenceProfile, WindowRule
from detectors.sequential import default
from detectors.verdict import Level
from stream.alert_bodies import Case, alert_data, observations, resolved_data
from stream.alerts import (
    INSIDE,
    NEW_REFERENCE,
    NO_TARGET,
    RETIRED,
    Incident,
    Observation,
    Transition,
)
from stream.learning import Learner
from stream.merging import Group, Hole
from stream.model_state import SERIES_NAME_SLASHES, Context, ModelState, Previous
from stream.monitor_settings import RETIRED_MS, SPLIT, MonitorSettings
from stream.plan import ALL
from stream.reference_limits import ReferenceLimits
from stream.reference_records import reference_outputs
from stream.series import INPUTS_VERSION, Judgement, Promise, Series, SeriesKey
from stream.stage import Output
from stream.tally import Tally, pooled
from stream.tolerances import detection
from stream.topics import TopicRole
from stream.traffic import Traffic
from stream.window_records import Recorded, State, window_outputs
from stream.window_statistics import Lens
from stream.windows import Lengths, Window

Profiles = Callable[[str], ReferenceProfile]


class ModelMonitor(ModelState):
    """Steps of one model. `emit` takes every output, in order; `profiles` finds a reference by its id; `holes_in` says what
    [start_ms, end_ms) lacks.
    """

    def __init__(
        self,
        settings: MonitorSettings,
        model: str,
        emit: Callable[[Output], None],
        profiles: Profiles,
        holes_in: Callable[[int, int], Sequence[Hole]],
    ) -> None:
        super().__init__(settings, model)
        self.all_settings = settings
        self.emit = emit
        self.profiles = profiles
        self.holes_in = holes_in
        self.performance.profile = lambda: self._profile(self.reference)
        self._lenses: dict[tuple[str, tuple[str, ...]], Lens] = {}
        self._prepared: dict[tuple[str, str, Promise], default.Prepared] = {}
        self._limits: dict[str, ReferenceLimits] = {}

    # ---- edges ------------------------------------------------------------------------------------------------------

    def add(self, edge_ms: int, groups: Mapping[Group, Tally], plans: set[str]) -> None:
        """One complete edge; `plans`: in force in the markers of all partitions that passed it."""
        self.changed = True
        self.close(edge_ms)
        present = {group.plan for group in groups}
        if present != {self.steady}:
            if self.steady is not None:
                self._end(self.windows.cut(edge_ms))
                self.steady = None
            if len(present) == 1 and plans == present:
                self._end(self.windows.cut(edge_ms))
                self._activate(edge_ms, groups)
        self._learn_rows(groups)
        for group, tally in groups.items():
            if not group.reference:  # its rows were for learning
                tally.sample = None
        events = sum(tally.events for group, tally in groups.items() if group.segment == ALL)
        self.windows.add(edge_ms, self.all_settings.resolution_ms, events)
        for group, tally in groups.items():
            if group in self.groups:
                self.groups[group].add(tally)
            else:
                self.groups[group] = tally

    def close(self, until_ms: int) -> None:
        """Close the window that ends at or before `until_ms`, everything before which is complete."""
        self._end(self.windows.due(until_ms, self._lengths()))
        if self.windows.start_ms is None:
            before = self.volume.judged_ms
            self._emit_all(self.volume.silence(until_ms, self._lengths(), self._whole, self._late))
            self.changed |= self.volume.judged_ms != before

    def _whole(self, start_ms: int, end_ms: int) -> bool:
        return not self.holes_in(start_ms, end_ms)

    def _lengths(self) -> Lengths:
        profile = self._profile(self.reference)
        found = profile.windows if profile is not None and profile.complete else None
        return self.all_settings.lengths(self.model, found)

    def _profile(self, reference: str) -> ReferenceProfile | None:
        if not reference:
            return None
        return self.learnt if self.knows(reference) else self.profiles(reference)

    def _activate(self, edge_ms: int, groups: Mapping[Group, Tally]) -> None:
        """All partitions count alike from here on."""
        group, tally = next(iter(groups.items()))
        self.steady = group.plan
        profile, late = self._profile(group.reference), self._late(edge_ms)
        if group.reference != self.reference:
            self._emit_all(self.book.end(NEW_REFERENCE, edge_ms, historical=late))
            self._emit_all(self.schema.end(NEW_REFERENCE, edge_ms, historical=late))
            self._drop(set(self.series))
            self.previous = None
        elif tally.names != self.names:
            gone = sorted(set(self.names) - set(tally.names))
            for target in gone:
                self._emit_all(self.book.end(NO_TARGET, edge_ms, historical=late, target=target))
            self._emit_all(self.schema.forget(gone, NO_TARGET, edge_ms, historical=late))
            self._drop(set(self.series))
        self.reference, self.names = group.reference, tally.names
        if profile is None:
            return
        if profile.complete:
            self.learner = None
        elif self.learner is None or self.learner.profile is None:  # this monitor did not choose the cuts itself
            self.learner, self.learnt = Learner(self.settings, profile=profile), profile

    # ---- windows ----------------------------------------------------------------------------------------------------

    def _emit_all(self, outputs: Iterable[Output]) -> None:
        for output in outputs:
            self.emit(output)

    def _end(self, closed: Iterable[Window]) -> None:
        for window in closed:
            self.changed = True
            groups, self.groups = self.groups, {}
            self._close(window, groups)

    def _close(self, window: Window, groups: dict[Group, Tally]) -> None:
        now: dict[str, int] = {}
        for group, tally in groups.items():
            if group.segment == ALL:
                now[group.version] = now.get(group.version, 0) + tally.events
        previous = self.previous
        elapsed_ms = window.start_ms - previous.start_ms if previous else self._lengths().every_ms
        traffic = Traffic(elapsed_ms, previous.events if previous else now, now)
        holes = self.holes_in(window.start_ms, window.end_ms)
        for plan, reference in sorted({(group.plan, group.reference) for group in groups}):
            part = {group: tally for group, tally in groups.items() if group[:2] == (plan, reference)}
            profile = self._profile(reference)
            context = Context(window, plan, reference, profile, self.state_of(window, profile, holes), holes)
            self._close_plan(context, part, traffic)
        self.performance.close(window, lost=bool(holes))
        self._emit_all(self.performance.unwatched(window, late=self._late(window.end_ms)))
        self._emit_all(
            self.volume.window(window, self._lengths(), lost=bool(holes), historical=self._late(window.end_ms))
        )
        if self.steady is not None and not holes:
            self.previous = Previous(window.start_ms, now)
        self._retire(window.end_ms)

    def _close_plan(self, context: Context, groups: dict[Group, Tally], traffic: Traffic) -> None:
        """Everything of one plan in a window: inputs of the reference, then outputs of each version."""
        plan, reference, profile = context.plan, context.reference, context.profile
        segments = sorted({group.segment for group in groups}, key=lambda segment: (segment != ALL, segment))
        versions = sorted({group.version for group in groups})
        feeding = versions if self.settings.traffic == SPLIT else [traffic.main_version]
        everything = next(iter(groups.values()))
        names = everything.names
        features, outputs = self.split(names, profile) if profile is not None else (None, None)
        for segment in segments:
            fed = [
                groups[group] for version in feeding if (group := Group(plan, reference, version, segment)) in groups
            ]
            if features is None or (not fed and segment != ALL):
                continue
            whole = pooled(fed) if fed else everything.empty()
            rows: Mapping[str, Any] = {}
            if segment == ALL:
                self._see_schema(context, feeding, whole)
                rows, alerts = self.see_rows(context, feeding, whole)
                self._emit_all(alerts)
            key = SeriesKey(reference, INPUTS_VERSION, segment)
            self._window(
                key, replace(context, rows=rows), tuple(feeding), whole.only(features), float(traffic.elapsed_ms)
            )
        for version in versions:
            for segment in segments:
                tally = groups.get(Group(plan, reference, version, segment))
                if tally is not None:
                    chosen = tally if outputs is None else tally.only(outputs)
                    self._window(
                        SeriesKey(reference, version, segment), context, (version,), chosen, traffic.weight(version)
                    )
        for key in self.series:
            if key.outputs and key.version not in versions and not context.holes:
                self.series[key].skip(traffic.weight(key.version))
                self.changed_series.add(key)
        if context.state is State.LEARNING and profile is not None:
            fed = [tally for group, tally in groups.items() if group.segment == ALL and group.version in feeding]
            self._learn_window(context.window, fed)

    def _see_schema(self, context: Context, versions: Sequence[str], whole: Tally) -> None:
        profile = context.profile
        if context.state is State.LEARNING:
            self.schema.learn(whole.schema)
        elif context.state is State.JUDGED and profile is not None:
            late = self._late(context.window.end_ms)
            self._emit_all(self.schema.observe(context.window, whole, profile, versions, historical=late))

    def _window(
        self, key: SeriesKey, context: Context, versions: tuple[str, ...], tally: Tally, weight_ms: float
    ) -> None:
        """One series in one window: to the detectors if it may page, and in any case to the windows topic."""
        state, window, profile = context.state, context.window, context.profile
        judged = state in (State.JUDGED, State.INSUFFICIENT_DATA)
        lens = None if profile is None or not tally.names else self._lens(profile, tally.names)
        left_out = State.RECORDED  # what becomes of a window that is not judged, though it might be
        if profile is None or lens is None:
            judgement = Judgement(tally, None, verdicts=None)
        elif not judged or not self.pages(key) or not self.follows(key):
            judgement = Judgement(tally, lens.statistics(tally), verdicts=None)
        else:
            series = self._series(key, profile, tally.names, window.end_ms)
            judgement, left_out = series.feed(tally, weight_ms, window), State.CARRIED
            self.changed_series.add(key)
            if judgement.verdicts is not None:
                self._observe(series, judgement, window, versions)
        if judgement.verdicts is None and state is State.JUDGED:
            state = left_out
        recorded = Recorded(
            series=key.name,
            reference=context.reference,
            versions=versions,
            segment=key.segment,
            window=window,
            state=state,
            plan=context.plan,
            tally=tally,
            statistics=judgement.statistics,
            verdicts=judgement.verdicts,
            online=judgement.online,
            drifting=self.book.targets(key.name, key.segment, quality=False),
            labels={} if lens is None else lens.labels,
            learning=self.learner.progress if self.learner is not None and state is State.LEARNING else None,
            holes=context.holes,
            rows=context.rows,
        )
        self._emit_all(window_outputs(recorded, self.settings))

    def _observe(self, series: Series, judgement: Judgement, window: Window, versions: tuple[str, ...]) -> None:
        assert judgement.verdicts is not None
        late = self._late(window.end_ms)
        levels = judgement.verdicts.levels
        places: Iterable[int] = range(len(levels))
        if not self.settings.thresholds:  # by far the most have nothing open and are quiet
            open_here = self.book.targets(series.key.name, series.key.segment) & series.lens.places.keys()
            known = (series.lens.places[target] for target in open_here)
            places = sorted({*judgement.verdicts.alarms(), *judgement.online, *known})
        for place in places:
            level = levels[place]
            fired = any(said.fired for said in judgement.online.get(place, ()))
            quiet = level != Level.ALARM and not self.settings.thresholds and not fired
            named = (series.key.name, series.key.segment, series.lens.names[place])
            quality_open = (*named, True) in self.book.open
            if level == Level.INSUFFICIENT_DATA or (
                quiet and not quality_open and (*named, False) not in self.book.open
            ):
                continue
            case = Case(series, judgement, place, window, self.settings, self._limits[series.profile.id])
            for seen in observations(case, quality_open=quality_open):
                change = self.book.observe(seen)
                if change is not None:
                    change[1].versions = versions
                    self.emit(self._told(case, seen, *change, late=late))

    def _told(self, case: Case, seen: Observation, transition: Transition, incident: Incident, *, late: bool) -> Output:
        """The event of what a window changed."""
        if transition is Transition.RESOLVED:
            data = resolved_data(case, incident, seen, historical=late)
            return self.book.resolved(incident, INSIDE, case.window.end_ms, data)
        data = alert_data(case, incident, seen, historical=late)
        return self.book.event(transition, incident, case.window.end_ms, data)

    def _lens(self, profile: ReferenceProfile, names: tuple[str, ...]) -> Lens:
        key = (profile.id, names)
        if key not in self._lenses:
            self._lenses[key] = Lens(names, profile, self.settings.compared)
        return self._lenses[key]

    def _series(self, key: SeriesKey, profile: ReferenceProfile, names: tuple[str, ...], end_ms: int) -> Series:
        if key not in self.series:
            features, outputs = self.split(self.names, profile)
            cells = len(features) * (1 + len(self.settings.segments)) + len(outputs)
            promise = Promise(self.settings.inputs_budget_ms, cells)
            prepared = [self._prepare(profile, name, promise) for name in names]
            self.series[key] = Series(
                key, profile, self._lens(profile, names), promise, prepared, watched=self.settings.watchers
            )
            self.series[key].last_ms = end_ms
            if profile.id not in self._limits:
                self._limits[profile.id] = ReferenceLimits(profile, self.settings.thresholds)
        return self.series[key]

    def _prepare(self, profile: ReferenceProfile, name: str, promise: Promise) -> default.Prepared:
        key = (profile.id, name, promise)
        if key not in self._prepared:
            target = profile.target(name)
            chosen = detection(self.settings, target, profile.windows, promise.budget_ms, promise.cells)
            self._prepared[key] = default.prepare(target, chosen, profile.id)
        return self._prepared[key]

    def _drop(self, keys: Iterable[SeriesKey]) -> None:
        for key in keys:
            del self.series[key]
        self._lenses.clear()
        self._prepared.clear()
        self._limits.clear()

    def _retire(self, end_ms: int) -> None:
        for key in sorted(self.series):
            if key.outputs and end_ms - self.series[key].last_ms > RETIRED_MS:
                del self.series[key]
                self._emit_all(self.book.end(RETIRED, end_ms, historical=self._late(end_ms), series=key.name))

    # ---- learning ---------------------------------------------------------------------------------------------------

    def _learn_rows(self, groups: Mapping[Group, Tally]) -> None:
        if self.settings.learn_first is None or self.learnt is not None:
            return
        for group, tally in groups.items():
            if group.segment == ALL and not group.reference and self.learnt is None:
                self.learner = self.learner or Learner(self.settings)
                self.learnt = self.learner.sample(tally)
        if self.learnt is not None:
            self._publish(self.learnt, "learning")

    def _learn_window(self, window: Window, fed: Sequence[Tally]) -> None:
        """Count one more window of what is being learnt; when that was the last one needed, the next one is judged."""
        if self.learner is None or not fed:
            return
        lengths, configured = self._lengths(), self.settings.window
        rule = WindowRule(
            auto=configured is None or configured.auto,  # then slow targets take several windows as one
            every_ms=lengths.every_ms,
            min_events=lengths.min_events,
            max_duration_ms=lengths.longest_ms or 0,
            resolution_ms=self.all_settings.resolution_ms,
        )
        complete = self.learner.count(window, pooled(fed), rule)
        if complete is not None:
            self.learner, self.learnt = None, complete
            self._drop(set(self.series))
            self._publish(complete, "pinned")

    def _publish(self, profile: ReferenceProfile, state: str) -> None:
        """The reference first, then the control record that names it: who reads the one finds the other."""
        self.revision += 1
        body = {"reference": profile.id, "revision": self.revision, "state": state, "history": []}
        self._emit_all(reference_outputs(profile))
        value = orjson.dumps(body, option=orjson.OPT_SORT_KEYS)
        key = f"learnt/{self.model}".encode()
        self.emit(Output(TopicRole.CONTROL.value, key, value, 0, barrier=True))

    def resume(self) -> None:
        """Rebuild the series of a loaded state; all `required` references are there. New detection settings start afresh."""
        if self.resumable is None:
            return
        blobs, self.resumable = self.resumable, None
        profile = self._profile(self.reference)
        heads = [name for name in blobs if name.count("/") == SERIES_NAME_SLASHES]
        for name in heads:
            key, names = Series.key_of(blobs[name])
            assert profile is not None
            series = self._series(key, profile, names, 0)
            series.load(blobs[name], [data for other, data in blobs.items() if other.startswith(f"{name}/")])

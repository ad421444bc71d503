"""What a monitor is told of each model: window rule, promise, tolerances, thresholds, and what alerts carry."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

import orjson

from detectors.reference import WindowInfo, WindowRule
from stream.performance_cells import PERFORMANCE_SHARE, cells_of
from stream.performance_plan import ModelPerformance
from stream.plan import Role
from stream.topics import TopicRole
from stream.watchers import Watcher
from stream.window_series import Threshold
from stream.windows import Lengths

DAY_MS = 86_400_000
RETIRED_MS = 30 * DAY_MS  # a version silent for so long is gone
HASH_LENGTH = 32  # hex digits of every id that the monitor makes: 128 bits
ALGORITHM = 4  # part of the detection hash: raised when equal settings would decide differently

SHADOW = "shadow"
SPLIT = "split"


def digest(*parts: str | int) -> str:
    """Id of these parts, in this order: the first half of their SHA-256, in hexadecimal. Used for every id of a monitor."""
    return hashlib.sha256(orjson.dumps(parts)).hexdigest()[:HASH_LENGTH]


@dataclass(frozen=True)  # without slots, for what is computed once
class ModelSettings:
    """One model. `window` None or auto: what the reference found, and until it is known the rule of `learning_rule`.

    budget_ms       time in which one false alarm is allowed, over all cells of the model
    tolerance, auto   in probit units; auto: the least, widened as the reference's block effects ask
    tolerances      target -> (tolerance, auto), where they differ from the model's
    rows            thresholds and watchers of row series: of all features together (row_series.py)
    resolve_after   r: so many windows inside the tube and without a crossing end an incident
    volume_thresholds, volume_watchers   those of the model's volume, which is no target's (volume_watch.py)
    learn_first     N of `reference: {first: N}`; None: the reference comes from elsewhere
    roles, kinds    target -> role, target -> "numeric" or "categorical": needed only while there is no reference
    arrays          feature -> how many numbers its arrays have: words of alerts, it decides about none
    performance     what is said of the model's feedback; None: it has none
    segments        segments ("key=value") whose inputs may page; they share the budget. All others are recorded
    """

    model: str
    window: WindowRule | None = None  # None or auto: as the reference found
    min_events: int = 500  # while learning, with `auto`
    budget_ms: int = 30 * DAY_MS
    false_alarms: str = "1 per 30d"
    tolerance: float = 0.05
    auto: bool = True
    tolerances: Mapping[str, tuple[float, bool]] = field(default_factory=dict)
    thresholds: tuple[Threshold, ...] = ()
    watchers: tuple[Watcher, ...] = ()
    volume_thresholds: tuple[Threshold, ...] = ()
    volume_watchers: tuple[Watcher, ...] = ()
    rows: tuple[Threshold | Watcher, ...] = ()
    traffic: str = SHADOW
    segments: tuple[str, ...] = ()
    resolve_after: int = 12
    learn_first: int | None = None
    roles: Mapping[str, Role] = field(default_factory=dict)
    kinds: Mapping[str, str] = field(default_factory=dict)
    arrays: Mapping[str, int] = field(default_factory=dict)
    owner: str | None = None
    criticality: str = "medium"
    runbook: str | None = None
    performance: ModelPerformance | None = None

    @property
    def inputs_budget_ms(self) -> int:
        """A of inputs and outputs together: what performance leaves of the model's false alarms, if it is judged."""
        return round(self.budget_ms / (1.0 - PERFORMANCE_SHARE)) if cells_of(self.performance) else self.budget_ms

    @property
    def compared(self) -> tuple[Threshold, ...]:
        """What has to be computed of each window for thresholds and watchers."""
        return (*self.thresholds, *(Threshold(watcher.series, None) for watcher in self.watchers))

    def tolerance_of(self, target: str) -> tuple[float, bool]:
        """(least tolerance, whether it is widened)."""
        return self.tolerances.get(target, (self.tolerance, self.auto))

    def role_of(self, target: str) -> Role:
        """Role of a target that no reference describes: as configured, else by its usual name."""
        usual = {"prediction": Role.PREDICTION, "score": Role.SCORE}
        return self.roles.get(target, usual.get(target, Role.FEATURE))

    def detection_hash(self) -> str:
        """Names everything that decides about alarms; part of every event id. Receivers and display are not in it."""
        return self._detection_hash

    @cached_property
    def _detection_hash(self) -> str:
        """It is in every record of every window."""
        window = self.window
        deciding: dict[str, Any] = {
            "algorithm": ALGORITHM,
            "model": self.model,
            "window": None if window is None else [window.every_ms, window.min_events, window.max_duration_ms],
            "min_events": self.min_events,
            "budget_ms": self.budget_ms,
            "tolerance": self.tolerance,
            "tolerances": {target: least for target, (least, _) in self.tolerances.items()},
            "thresholds": [threshold.deciding for threshold in self.thresholds],
            "traffic": self.traffic,
            "segments": list(self.segments),
            "resolve_after": self.resolve_after,
            "learn_first": self.learn_first,
        }
        widened = sorted(target for target, (_, auto) in self.tolerances.items() if auto)
        if self.auto or widened:
            deciding["auto"] = [self.auto, widened]
        if self.watchers:
            deciding["watchers"] = [watcher.deciding for watcher in self.watchers]
        if self.volume_thresholds or self.volume_watchers:
            limits = [threshold.deciding for threshold in self.volume_thresholds]
            deciding["volume"] = [*limits, *(watcher.deciding for watcher in self.volume_watchers)]
        cells = cells_of(self.performance)
        if self.performance is not None and cells:
            deciding["performance"] = [self.performance.detection.deciding, [list(cell) for cell in cells]]
            meanings = {
                cell.metric: meaning for cell in cells if (meaning := self.performance.told.meaning(cell.metric))
            }
            if meanings:
                deciding["meanings"] = meanings
        if self.rows:
            deciding["rows"] = [each.deciding for each in self.rows]
        return digest(orjson.dumps(deciding, option=orjson.OPT_SORT_KEYS).decode())


@dataclass(frozen=True, slots=True)
class JobSettings:
    """Limits of the job alerts (job_alerts.py), as shares of the events consumed; a stretch has at least `min_events`."""

    dead_letter_share: float = 0.05
    future_share: float = 0.01
    late_share: float = 0.01
    min_events: int = 1000
    every_ms: int = 60_000
    resolve_after: int = 3

    def detection_hash(self) -> str:
        """Names everything that decides about job alerts; part of every event id."""
        return digest(orjson.dumps(asdict(self), option=orjson.OPT_SORT_KEYS).decode())


@dataclass(frozen=True, slots=True)
class MonitorSettings:
    """All models, and the length of a pane. A model that is not listed is recorded with the defaults.

    topic, partitions, job: name of the predictions topic, number of panes partitions, limits of the topic's job alerts.
    """

    models: Mapping[str, ModelSettings]
    resolution_ms: int = 60_000
    topic: str = TopicRole.PREDICTIONS.value
    partitions: int = 1
    job: JobSettings = JobSettings()

    def model(self, name: str) -> ModelSettings:
        return self.models[name] if name in self.models else ModelSettings(name)

    def lengths(self, model: str, found: WindowInfo | None) -> Lengths:
        """The window rule in force: the configured one, else the one that the reference found, in whole panes."""
        settings = self.model(model)
        configured = settings.window if settings.window is not None and not settings.window.auto else None
        return Lengths.of(configured or found or learning_rule(settings, self.resolution_ms), self.resolution_ms)


def learning_rule(settings: ModelSettings, resolution_ms: int) -> WindowRule:
    """Windows while nothing is known of the model: `min_events` and a minute, open for at most an hour."""
    every_ms = max(resolution_ms, 60_000)
    return WindowRule(False, every_ms, settings.min_events, max(12 * every_ms, 3_600_000), resolution_ms)

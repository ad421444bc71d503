"""From the configuration and the active references to what the stages work with. Pure.

Three hashes (contracts.md): of the collector (what counting depends on, on panes and dead letters), of detection (one a
model, in alert ids: ModelSettings.detection_hash) and of the file (display: LoadedConfig.file_hash).
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import orjson

from detectors.binning import Binning, Kind
from detectors.reference import ReferenceProfile, WindowRule
from detectors.verdict import AUTO_EVENTS_MIN
from stream import mapping as event_mapping
from stream.config import Config, Model
from stream.config_checks import mapping_of
from stream.config_errors import unknown_name
from stream.deadletter import Policy
from stream.feedback_planning import feedback_deciding, feedback_plan, performance_of, performance_paths, segment_plan
from stream.layout_settings import array_lengths, coerced_paths, lengths_of, read_otherwise
from stream.mapping import Layout
from stream.monitor_settings import JobSettings, ModelSettings, MonitorSettings
from stream.plan import SHARE_PREFIX, CollectorPlan, ModelPlan, Role, TargetPlan, share_name
from stream.plan_codec import sealed
from stream.row_series import NoRowsError, RowSeries, is_row_series
from stream.topics import TopicRole
from stream.watchers import Watcher
from stream.window_series import VOLUME, Threshold

SAMPLE_ROWS_MIN = 5_000  # the outermost cuts, at .0002, need as many rows
SAMPLE_ROWS_MAX = 20_000  # bounds a learning pane; more rows move a cut by less than its own sampling error
CUTS_SHARE = 0.15  # of the reference chooses the cuts (default-detector.md, 1)
WINDOW_EVENTS_MIN = 500  # where nothing shows that fewer are independent, or an operator's own limits look at them
MAX_DURATION_FACTOR = 12  # a window may stay open for 12 times `every` when the configuration does not say


class PlanningError(ValueError):
    """The configuration and what is known of a model do not make a plan; the message says which model and what to do."""


class UnknownTargetsError(PlanningError):
    """A model learns from the stream, and neither the configuration nor a sample of events says what its targets are."""


@dataclass(frozen=True, slots=True)
class DeclaredTarget:
    """A target that no reference describes yet: from the configuration, or from a sample of events (stream.discover)."""

    name: str
    role: Role
    kind: Kind


def target_path(name: str, role: Role) -> str:
    """Path of a target's cell in a Layout."""
    if role is Role.PREDICTION:
        return event_mapping.PREDICTION
    if role is Role.SHARE:
        return f"{event_mapping.SEGMENTS}.{name.removeprefix(SHARE_PREFIX)}"
    return name if role is Role.SCORE else f"{event_mapping.FEATURES}.{name}"


def declared_targets(config: Config, model: str) -> tuple[DeclaredTarget, ...]:
    """The watched targets that the configuration names with their kind, in its order."""
    scores = config.topics.predictions.mapping.scores
    declared = []
    for name, settings in config.models[model].targets.items():
        if not settings.watch:
            continue
        role = _usual_role(name, scores)
        kind = Kind(settings.kind) if settings.kind else Kind.NUMERIC
        if settings.kind or settings.range is not None or settings.dimension is not None or role is Role.SCORE:
            declared.append(DeclaredTarget(name, role, kind))
    return tuple(declared)


def _usual_role(name: str, scores: Mapping[str, str]) -> Role:
    if name == event_mapping.PREDICTION:
        return Role.PREDICTION
    if name.startswith(SHARE_PREFIX):
        return Role.SHARE
    return Role.SCORE if name in scores else Role.FEATURE


def share_targets(config: Config, model: str, watched: Collection[str]) -> tuple[DeclaredTarget, ...]:
    """Shares of the segment keys that a model that learns watches: of a key that is a watched feature, too, the feature's are."""
    settings = config.models[model]
    if settings.reference.first is None:
        return ()
    names = {key: share_name(key) for key in settings.segments if key not in watched}
    unwatched = {name for name, target in settings.targets.items() if not target.watch}
    return tuple(
        DeclaredTarget(name, Role.SHARE, Kind.CATEGORICAL)
        for name in names.values()
        if name not in unwatched and name not in watched
    )


def learning_targets(
    config: Config, model: str, discovered: Sequence[DeclaredTarget] = ()
) -> tuple[DeclaredTarget, ...]:
    """Targets of a model that learns: what a sample showed, as the configuration corrects it. Raises UnknownTargetsError."""
    chosen = {target.name: target for target in discovered}
    chosen |= {target.name: target for target in declared_targets(config, model)}
    watched = [target for name, target in chosen.items() if _is_watched(config.models[model], name)]
    if not any(target.role is Role.FEATURE for target in watched) and not discovered:
        raise UnknownTargetsError(
            f"models.{model}: reference.first needs to know what to watch: no events to sample, and no targets with a kind"
        )
    watched += share_targets(config, model, {target.name for target in watched})
    return tuple(sorted(watched, key=lambda target: (list(Role).index(target.role), target.name)))


def _is_watched(settings: Model, target: str) -> bool:
    return target not in settings.targets or settings.targets[target].watch


def layout_paths(
    config: Config,
    references: Mapping[str, ReferenceProfile | None],
    discovered: Mapping[str, Sequence[DeclaredTarget]],
) -> list[str]:
    """Every cell that any model needs, each once, in a canonical order."""
    paths: dict[str, None] = {}
    for name, model in config.models.items():
        for target, role in _watched(config, name, references.get(name), discovered.get(name, ())):
            paths[target_path(target, role)] = None
        for key in model.segments:
            paths[f"{event_mapping.SEGMENTS}.{key}"] = None
    return list(paths | dict.fromkeys(performance_paths(config)))


def _watched(
    config: Config, model: str, profile: ReferenceProfile | None, discovered: Sequence[DeclaredTarget]
) -> list[tuple[str, Role]]:
    if profile is None:
        return [(target.name, target.role) for target in learning_targets(config, model, discovered)]
    settings = config.models[model].targets
    return [
        (target.name, Role(target.role))
        for target in profile.targets
        if target.name not in settings or settings[target.name].watch
    ]


def model_plan(
    config: Config,
    model: str,
    profile: ReferenceProfile | None,
    paths: Sequence[str],
    discovered: Sequence[DeclaredTarget] = (),
) -> ModelPlan:
    """What is counted of one model under this reference (None = it is still to be learnt); `paths` are the layout's.

    Raises PlanningError where the reference has a target whose cell the layout does not read: that needs a restart.
    """
    column = {path: index for index, path in enumerate(paths)}
    settings = config.models[model]
    binnings = _learning_binnings(config, model, discovered) if profile is None else _binnings(settings, profile)
    targets = []
    for name, role in _watched(config, model, profile, discovered):
        path = target_path(name, role)
        if path not in column:
            raise PlanningError(
                f"models.{model}: {path} is not read by this worker; restart it to follow the new reference"
            )
        targets.append(TargetPlan(name, role, column[path], binnings[name]))
    segments = tuple(
        segment_plan(key, values, column[f"{event_mapping.SEGMENTS}.{key}"])
        for key, values in settings.segments.items()
    )
    learning = profile is None
    rows = None if profile is None else _row_series(config, model, profile, [target.name for target in targets])
    plan = ModelPlan(
        model=model,
        reference="" if profile is None else profile.id,
        targets=tuple(targets),
        segments=segments,
        sample_rows=_sample_rows(settings) if rows is None else rows.sample_rows,
        learning=learning,
        known=() if profile is None else known_names(settings, profile),
        row_sums=() if rows is None else rows.plans(),
    )
    return sealed(plan)


def known_names(settings: Model, profile: ReferenceProfile) -> tuple[str, ...]:
    """Features that are not watched on purpose: the configuration names them, or the reference has them; ascending."""
    own = settings.reference
    columns = (own.label, own.time, own.prediction, own.score, *own.ignore)
    named = {name for name in columns if name is not None}
    unwatched = {name for name, target in settings.targets.items() if not target.watch}
    features = {target.name for target in profile.targets if target.role == Role.FEATURE}
    return tuple(sorted((named | unwatched | features) - {name for name in features if _is_watched(settings, name)}))


def _row_series(config: Config, model: str, profile: ReferenceProfile, names: Sequence[str]) -> RowSeries:
    """Of a reference that is still being learnt, no multivariate detector can be asked: the configuration refuses it."""
    own = config.models[model]
    try:
        return RowSeries([each.read() for each in own.detectors], profile, names, lengths_of(own))
    except NoRowsError as error:
        raise PlanningError(f"models.{model}: {error}") from None


def _sample_rows(settings: Model) -> int:
    first = settings.reference.first or 0
    return int(min(max(CUTS_SHARE * first, SAMPLE_ROWS_MIN), SAMPLE_ROWS_MAX))


def _learning_binnings(config: Config, model: str, discovered: Sequence[DeclaredTarget]) -> dict[str, Binning]:
    settings = config.models[model].targets
    found = {}
    for target in learning_targets(config, model, discovered):
        limits = settings[target.name].range if target.name in settings else None
        low, high = limits or (-np.inf, np.inf)
        nothing = np.empty(0, np.float64)
        found[target.name] = Binning(
            kind=target.kind,
            cuts=nothing,
            core=(0, 0),
            centre=0.0,
            low=low,
            high=high,
            key=np.empty(0, np.uint64),
            code=np.empty(0, np.int32),
            labels=(),
        )
    return found


def _binnings(settings: Model, profile: ReferenceProfile) -> dict[str, Binning]:
    """The reference's bins; an operator's range replaces the reference's."""
    found = {}
    for target in profile.targets:
        own = settings.targets.get(target.name)
        limits = own.range if own is not None else None
        binning = target.binning
        if limits is not None and binning.kind is Kind.NUMERIC:
            binning = replace(binning, low=limits[0], high=limits[1])
        found[target.name] = binning
    return found


def collector_plan(
    config: Config,
    references: Mapping[str, ReferenceProfile | None],
    discovered: Mapping[str, Sequence[DeclaredTarget]] | None = None,
) -> tuple[CollectorPlan, Layout]:
    """What the collectors count, and how events are read for it. `references` names the active ones, None = to be learnt.

    Raises PlanningError, mapping.MappingError.
    """
    discovered = discovered or {}
    paths = layout_paths(config, references, discovered)
    models = tuple(
        model_plan(config, name, references.get(name), paths, discovered.get(name, ())) for name in config.models
    )
    plan = CollectorPlan(
        models=models,
        resolution_ms=config.resolution.ms,
        lateness_ms=config.topics.predictions.lateness.ms,
        max_future_skew_ms=config.max_future_skew.ms,
        dedup=config.dedup,
        feedback=feedback_plan(config, paths),
    )
    with_features = [model.model for model in models if any(target.role is Role.FEATURE for target in model.targets)]
    mapping = mapping_of(config.topics.predictions.mapping)
    names = [model.model for model in models]
    coerce, arrays = coerced_paths(config), array_lengths(config)
    return plan, Layout.compile(mapping, names, paths, with_features=with_features, coerce=coerce, arrays=arrays)


def policy_of(config: Config) -> Policy:
    """What of a refused event may be written down. It decides no count, so it is in no hash."""
    return Policy(config.dead_letters.payload, config.dead_letters.redact)


def collector_hash(config: Config, plan: CollectorPlan) -> str:
    """Name of everything that counting depends on: mapping, plans, and the rules of time."""
    deciding: dict[str, Any] = {
        "mapping": config.topics.predictions.mapping.model_dump(exclude_none=True),
        "models": [model.hash for model in plan.models],
        "resolution_ms": plan.resolution_ms,
        "lateness_ms": plan.lateness_ms,
        "max_future_skew_ms": plan.max_future_skew_ms,
        "dedup": plan.dedup,
        **read_otherwise(config),
    }
    deciding |= {f"rekey.{role.value}": list(keys) for role, keys in config.rekeyed().items()}
    if plan.feedback is not None:  # a configuration without keeps its hash
        deciding["feedback"] = feedback_deciding(config)
    return hashlib.sha256(orjson.dumps(deciding, option=orjson.OPT_SORT_KEYS)).hexdigest()[:32]


def min_events(config: Config, model: str) -> int:
    """Events of a window: as configured, else by what its length rests on."""
    window, own = config.window_of(model), config.models[model]
    if window.min_events is not None:
        return window.min_events
    shown = window.every is None and own.reference.time is not None and not own.detectors
    return AUTO_EVENTS_MIN if shown else WINDOW_EVENTS_MIN


def window_rule(config: Config, model: str) -> WindowRule:
    """How windows are cut, of this model's reference and live: as configured, or auto."""
    window = config.window_of(model)
    if window.every is None:
        return WindowRule(auto=True, min_events=min_events(config, model), resolution_ms=config.resolution.ms)
    longest_ms = window.max_duration.ms if window.max_duration else MAX_DURATION_FACTOR * window.every.ms
    return WindowRule(
        auto=False,
        every_ms=window.every.ms,
        min_events=min_events(config, model),
        max_duration_ms=longest_ms,
        resolution_ms=config.resolution.ms,
    )


def monitor_settings(
    config: Config, discovered: Mapping[str, Sequence[DeclaredTarget]] | None = None
) -> MonitorSettings:
    """What the monitors are told of every model."""
    found = discovered or {}
    models = {name: _model_settings(config, name, found.get(name, ())) for name in config.models}
    own = config.job_alerts
    job = JobSettings(
        dead_letter_share=own.dead_letter_share,
        future_share=own.future_share,
        late_share=own.late_share,
        min_events=own.min_events,
        every_ms=own.every.ms,
        resolve_after=own.resolve_after,
    )
    topic = config.topic(TopicRole.PREDICTIONS)
    return MonitorSettings(models, config.resolution.ms, topic, config.monitors, job)


def _model_settings(config: Config, name: str, discovered: Sequence[DeclaredTarget]) -> ModelSettings:
    model = config.models[name]
    rate = config.false_alarms_of(name)
    named = (*discovered, *declared_targets(config, name))
    known = (*named, *share_targets(config, name, {target.name for target in named if _is_watched(model, target.name)}))
    read = [detector.read() for detector in model.detectors]
    detectors = [own for own in read if not is_row_series(own)]
    tolerance, auto = config.tolerance_of(name)
    return ModelSettings(
        model=name,
        window=window_rule(config, name),
        min_events=min_events(config, name),
        budget_ms=round(rate.budget_ms),
        false_alarms=str(rate),
        tolerance=tolerance,
        auto=auto,
        tolerances={
            target: config.tolerance_of(name, target)
            for target, settings in model.targets.items()
            if settings.tolerance is not None and settings.watch
        },
        thresholds=tuple(own for own in detectors if isinstance(own, Threshold) and own.type != VOLUME),
        watchers=tuple(own for own in detectors if isinstance(own, Watcher) and own.series != VOLUME),
        volume_thresholds=tuple(own for own in detectors if isinstance(own, Threshold) and own.type == VOLUME),
        volume_watchers=tuple(own for own in detectors if isinstance(own, Watcher) and own.series == VOLUME),
        rows=tuple(own for own in read if is_row_series(own)),
        traffic=model.traffic,
        learn_first=model.reference.first,
        roles={target.name: target.role for target in known},
        kinds={target.name: target.kind.value for target in known},
        arrays=lengths_of(model),
        owner=model.owner,
        criticality=model.criticality,
        runbook=model.runbook,
        performance=performance_of(config, name),
    )


def check_names(config: Config, model: str, known: Collection[str]) -> list[tuple[tuple[str | int, ...], str, str]]:
    """Names in the configuration that the reference, with targets `known`, does not have: (path, what was read, what was
    expected).
    """
    settings = config.models[model]
    findings: list[tuple[tuple[str | int, ...], str, str]] = []
    for name, target in settings.targets.items():
        if target.watch and name not in known:
            path: tuple[str | int, ...] = ("models", model, "targets", name)
            findings.append((path, f"the reference has no {name}", unknown_name(name, known)))
    for index, detector in enumerate(settings.detectors):
        for place, name in enumerate(detector.targets):
            if name not in known:
                path = ("models", model, "detectors", index, "targets", place)
                findings.append((path, f"the reference has no {name}", unknown_name(name, known)))
    return findings

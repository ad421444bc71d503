"""What `check-config` does beyond reading the file: are the reference files there, do they have the named columns, is the
memory enough.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from detectors.binning import Kind
from detectors.column_values import PREDICTION, read_column
from detectors.multivariate.rows import ROWS_MIN
from detectors.reference import BadReference, ReferenceProfile, with_id
from detectors.reference_build import FIRST_SHARE, build_with_windows
from detectors.reference_sample import sampled_rows
from detectors.reference_windows import window_ends, window_starts, windows_in_time
from detectors.sequential.reference_ranks import common_ranks
from detectors.sequential.size_strata import size_bounds, size_strata
from detectors.sequential.strata import LENGTH_MAX_MS, WINDOWS_MIN, Season, carries, hours_of, within_hours
from detectors.verdict import AUTO_EVENTS_MIN
from stream.config import Config, Model
from stream.config_checks import names_taken, without_value
from stream.config_detectors import targets_with_limits
from stream.config_errors import Problem, Severity, unknown_name
from stream.config_loader import LoadedConfig, load
from stream.layout_settings import lengths_of
from stream.left_out import findings, without_bins
from stream.plan import CollectorPlan, Role
from stream.planning import DeclaredTarget, UnknownTargetsError, check_names, collector_plan, window_rule
from stream.reference_performance import measured_rows
from stream.rights import Use
from stream.row_series import NoRowsError, RowSeries, array_of, is_row_series, rows_sampled
from stream.sizing import Estimate, StrataPlan, estimate, with_categories
from stream.sizing_feedback import kept_ms, reach_ms, waits
from stream.tables import ReferenceRows, TableError, read_table, reference_rows
from stream.topics import INPUTS
from stream.wording import period
from stream.yaml_places import Key, dotted

MB = 1_000_000


@dataclass(frozen=True, slots=True)
class Preflight:
    """What was found; `estimate` None: a model's targets are known only from the stream."""

    loaded: LoadedConfig
    problems: tuple[Problem, ...]
    estimate: Estimate | None


def rows_of(config: Config, model: str) -> ReferenceRows:
    """The rows of the model's reference file. Raises TableError, also where the file is not there."""
    return reference_rows(config, model, read_table(_file_of(config, model)))


def _file_of(config: Config, model: str) -> Path:
    file = config.models[model].reference.file
    if file is None:
        raise TableError(f"models.{model}: its reference is learnt from the stream, not from a file")
    return file


def build_from_file(config: Config, model: str) -> ReferenceProfile:
    """The reference of the configured file. Raises TableError, BadReference. Cost: about a second per 100k rows of 20 columns."""
    return build_from_file_with_windows(config, model)[0]


def build_from_file_with_windows(
    config: Config, model: str
) -> tuple[ReferenceProfile, tuple[NDArray[np.int64], ...], NDArray[np.int64] | None]:
    """`build_from_file`, and the counts of each target's windows in time order, and their starts in ms."""
    file = _file_of(config, model)
    table = read_table(file)
    rows = reference_rows(config, model, table)
    measured, why_not = measured_rows(config, model, table)
    del table  # half of the memory
    profile, windows, start_ms = build_with_windows(
        model,
        rows.columns,
        rows.roles,
        kinds=rows.kinds,
        time_ms=rows.time_ms,
        window=window_rule(config, model),
        ranges=rows.ranges,
        origin={"file": file.name, "rows": rows.rows, "time": rows.time_ms is not None},
        season=Season(config.season_of(model)),
    )
    settings = config.models[model]
    asked = arrays_asked(settings)
    if asked is not None:
        watched = {target.name: rows.columns[target.name] for target in profile.targets}
        arrays = {name: of for name, of in rows.arrays.items() if name in asked and name in watched}
        sample = sampled_rows(watched, rows.roles, rows.kinds, Role.FEATURE, arrays)
        profile = with_id(replace(profile, row_sample=sample))
        _usable(settings, profile)
    if measured is not None or why_not:
        notes = (*profile.notes, why_not) if why_not else profile.notes
        profile = with_id(replace(profile, performance=measured, notes=notes))
    return profile, windows, start_ms


def _usable(settings: Model, profile: ReferenceProfile) -> None:
    """Raises NoRowsError where the rows of a new reference give one of the multivariate detectors nothing: workers would refuse it."""
    names = [target.name for target in profile.targets]
    try:
        RowSeries([detector.read() for detector in settings.detectors], profile, names, lengths_of(settings))
    except NoRowsError as error:
        raise NoRowsError(f"models.{profile.model}: {error}") from None


def arrays_asked(model: Model) -> set[str] | None:
    """Features whose arrays multivariate detectors are about; None = there is no such detector."""
    asked = [each for each in (detector.read() for detector in model.detectors) if is_row_series(each)]
    return set(filter(None, map(array_of, asked))) if asked else None


def _few_arrays(settings: Model, model: str, rows: ReferenceRows) -> Iterator[tuple[Key, str, str]]:
    """Arrays that detectors are about and of which the file has too few: path, what was read, what was expected."""
    for name in sorted(arrays_asked(settings) or ()):
        valid = int(np.isfinite(rows.columns[name]).sum()) if name in rows.arrays else ROWS_MIN
        if valid < ROWS_MIN:
            read = f"{valid} rows of the file have an array of {settings.targets[name].dimension} numbers in {name}"
            path: Key = ("models", model, "targets", name, "dimension")
            yield path, read, f"at least {ROWS_MIN} for the detectors of it, or none of them"


def built_references(loaded: LoadedConfig) -> dict[str, ReferenceProfile]:
    """References of all models that name a file which can be read; others are left out."""
    found = {}
    for model, settings in loaded.config.models.items():
        if settings.reference.file is not None and settings.reference.file.is_file():
            found[model] = build_from_file(loaded.config, model)
    return found


def preflight(path: Path, *, partitions: int, events_per_s: int) -> Preflight:
    """Read the file and all that it names; no broker is asked. Raises ConfigError where the file itself is wrong."""
    loaded = load(path)
    config = loaded.config
    problems = list(loaded.warnings)
    known: dict[str, tuple[DeclaredTarget, ...]] = {}
    categories: dict[str, dict[str, int]] = {}
    strata: dict[str, StrataPlan] = {}
    for model, settings in config.models.items():
        if settings.reference.file is None:
            continue
        where: Key = ("models", model, "reference", "file")
        if not settings.reference.file.is_file():
            read = f"{settings.reference.file} is not there"
            problems.append(_problem(loaded, "DL-C024", where, read, "a Parquet or CSV file"))
            continue
        try:
            rows = rows_of(config, model)
        except (TableError, BadReference) as error:
            problems.append(_problem(loaded, "DL-C023", where, str(error), "columns that can be watched"))
            continue
        lacking, count = without_bins(rows)
        problems += [
            replace(_problem(loaded, "DL-C023", path, read, expected), severity=severity)
            for path, read, expected, severity in findings(settings, model, rows, lacking, count)
        ]
        known[model] = _declared(rows, lacking)
        categories[model] = {
            target.name: _categories(rows.columns[target.name])
            for target in known[model]
            if target.kind is Kind.CATEGORICAL
        }
        planned = _strata(config, model, rows)
        if planned is not None:
            strata[model] = planned
        problems += [
            _problem(loaded, "DL-C023", path, read, expected)
            for path, read, expected in check_names(config, model, rows.columns)
        ]
        numbers, texts = ({t.name for t in known[model] if t.kind is kind} for kind in (Kind.NUMERIC, Kind.CATEGORICAL))
        of = ("models", model)
        problems += [_problem(loaded, *found) for found in without_value(settings, of, numbers, texts)]
        problems += [_problem(loaded, *found) for found in names_taken(settings, of, rows.columns)]
        problems += [_problem(loaded, "DL-C023", *found) for found in _few_arrays(settings, model, rows)]
    plan = _plan(config, known)
    if plan is not None:
        problems += [
            _problem(loaded, "DL-C028", *found) for found in too_much_waits(config, plan, partitions, events_per_s)
        ]
    size = None if plan is None else _estimate(config, plan, categories, strata, (partitions, events_per_s))
    if size is not None and size.total_bytes > config.memory_budget.bytes:
        read = f"about {size.total_bytes / MB:.0f} MB are needed, memory_budget is {config.memory_budget}"
        expected = "fewer segment values or targets, a shorter resolution, dedup: false, or a larger budget"
        if size.feedback_bytes * 2 > size.total_bytes:
            expected = f"of it {size.feedback_bytes / MB:.0f} MB wait for feedback at {events_per_s:,} events a second (--rate): "
            expected += "shorter horizons, a smaller feedback.waiting_predictions_max, or a larger budget"
        problems.append(_problem(loaded, "DL-C025", ("memory_budget",), read, expected))
    return Preflight(loaded, tuple(problems), size)


def _problem(loaded: LoadedConfig, code: str, path: Key, read: str, expected: str) -> Problem:
    for length in range(len(path), 0, -1):
        place = loaded.places.get(path[:length])
        if place is not None:
            return Problem(code, dotted(path), read, expected, loaded.file, *place.value)
    return Problem(code, dotted(path), read, expected, loaded.file, 1, 1, Severity.ERROR)


def too_much_waits(
    config: Config, plan: CollectorPlan, partitions: int, events_per_s: int
) -> Iterator[tuple[Key, str, str]]:
    """Where what waits for feedback exceeds its cap: path, what was read, what was expected."""
    at = f"at {events_per_s:,} events a second (--rate) in {partitions} partitions"
    for each in waits(plan, partitions, events_per_s):
        if each.needed <= each.most:
            continue
        share = 1 - each.most / each.needed
        if each.name:
            read = f"{at} {each.needed:,} events a partition wait for the lateness, feedback.waiting_events_max is {each.most:,}"
            yield (
                ("topics", each.name, "lateness"),
                f"{read}: {share:.0%} are dropped, counted as overflow",
                "a shorter lateness, more partitions, or a larger cap",
            )
            continue
        longest = max(
            (horizon.ms, name, place)
            for name, model in config.models.items() if model.performance is not None
            for place, horizon in enumerate(model.performance.horizons)
        )  # fmt: skip
        read = f"{at} {each.needed:,} predictions a partition wait {period(reach_ms(plan))} for their feedback"
        kept = period(kept_ms(plan, partitions, events_per_s))
        lost = f"the oldest {share:.0%} go after {kept}, and their windows are incomplete"
        yield (
            ("models", longest[1], "performance", "horizons", longest[2]),
            f"{read}; feedback.waiting_predictions_max is {each.most:,}: {lost}",
            "shorter horizons, more partitions, or a larger cap",
        )


def topic_problems(loaded: LoadedConfig, use: Use = Use.TOPICS_LIST) -> list[Problem]:
    """The configuration's topics against those of the cluster, nothing changed.

    Raises KafkaUnreachableError, AdminError, the latter also where a right that `use` needs is missing.
    """
    from stream.admin import admin_client, compare_topics
    from stream.rights_check import require_rights

    config = loaded.config
    require_rights(config, use)
    states = compare_topics(config)
    wrong = [state for state in states if state.difference]
    problems = []
    missing = [state.name for state in wrong if state.difference == "missing"]
    inputs = [state for state in wrong if state.role in INPUTS and state.difference == "missing"]
    if inputs:
        with admin_client(config.kafka) as client:
            there = [topic for topic in client.list_topics() if not topic.startswith(("__", config.prefix))]
        for state in inputs:
            read, expected = f"there is no topic {state.name} on this cluster", unknown_name(state.name, there)
            problems.append(_problem(loaded, "DL-C027", ("topics", state.role.value), read, expected))
            missing.remove(state.name)
    if missing:
        shown = ", ".join(missing[:3]) + (f" and {len(missing) - 3} more" if len(missing) > 3 else "")
        problems.append(
            _problem(loaded, "DL-C027", ("prefix",), f"{shown} are not there", "driftline topics create makes them")
        )
    for state in wrong:
        if state.difference != "missing" and state.role in INPUTS:
            read = f"{state.name}: {state.detail}"
            problems.append(_problem(loaded, "DL-C027", ("topics", state.role.value), read, "as many partitions"))
        elif state.difference != "missing":
            expected = "as driftline topics create makes it"
            problems.append(_problem(loaded, "DL-C027", ("prefix",), f"{state.name}: {state.detail}", expected))
    return problems


def _declared(rows: ReferenceRows, lacking: Collection[str]) -> tuple[DeclaredTarget, ...]:
    """Targets as the columns' types suggest, without those that the reference will lack."""
    found = []
    for name, values in rows.columns.items():
        if name in lacking:
            continue
        kind = Kind.NUMERIC if values.dtype == np.float64 else Kind.CATEGORICAL
        if name in rows.kinds:
            kind = Kind(rows.kinds[name])
        elif rows.roles[name] == PREDICTION:  # of few numbers, which are classes then
            kind = read_column(name, values, PREDICTION).kind
        found.append(DeclaredTarget(name, Role(rows.roles[name]), kind))
    return tuple(found)


def _categories(values: NDArray[Any]) -> int:
    """How many there are: float64 (NaN = missing), bool or object (None = missing)."""
    if values.dtype == np.float64:
        return len(np.unique(values[~np.isnan(values)]))
    return len(set(values.tolist()) - {None})


def _plan(config: Config, known: Mapping[str, tuple[DeclaredTarget, ...]]) -> CollectorPlan | None:
    """Without what references will say; None where only the stream tells what is watched."""
    nothing: dict[str, ReferenceProfile | None] = dict.fromkeys(config.models)
    try:
        return collector_plan(config, nothing, known)[0]
    except UnknownTargetsError:
        return None


def _estimate(
    config: Config,
    plan: CollectorPlan,
    categories: Mapping[str, Mapping[str, int]],
    strata: Mapping[str, StrataPlan],
    traffic: tuple[int, int],
) -> Estimate:
    learning = {name for name, model in config.models.items() if model.reference.first is not None}
    models = tuple(with_categories(model, categories.get(model.model, {})) for model in plan.models)
    partitions, events_per_s = traffic
    kept = {
        m.model: len(targets_with_limits(config.models[m.model].detectors, [target.name for target in m.targets]))
        for m in models
    }
    rows = {
        name: rows_sampled(detector.read() for detector in model.detectors) for name, model in config.models.items()
    }
    arrays = sum(
        model.targets[array].dimension or 0 for model in config.models.values() for array in arrays_asked(model) or ()
    )
    return estimate(
        replace(plan, models=models),
        partitions,
        events_per_s=events_per_s,
        learning=learning,
        planned_strata=strata,
        kept=kept,
        row_samples=rows,
        copied=len(config.rekeyed()),
        array_numbers=arrays,
        monitors=config.monitors,
    )


def _strata(config: Config, model: str, rows: ReferenceRows) -> StrataPlan | None:
    """Strata that the model's targets have, or under `auto` may have; None where its rows carry none.

    A length that `window: auto` would choose is not looked for: the shortest has the most windows, and so the most memory.
    """
    wanted, rule = Season(config.season_of(model)), window_rule(config, model)
    if rows.time_ms is None:
        return None
    time_ms = np.sort(rows.time_ms)[int(FIRST_SHARE * len(rows.time_ms)) :]
    every_ms = rule.every_ms or rule.resolution_ms
    of_row, count = windows_in_time(time_ms, replace(rule, min_events=rule.min_events or AUTO_EVENTS_MIN), every_ms)
    if not count:
        return None
    start_ms, auto = window_starts(time_ms, of_row, count), wanted is Season.AUTO
    start_ms = start_ms[within_hours(start_ms, window_ends(time_ms, of_row, count, every_ms, rule.resolution_ms))]
    seasons = () if wanted is Season.NONE or every_ms > LENGTH_MAX_MS else (wanted,)
    for season in (Season.HOUR_OF_WEEK, Season.HOUR_OF_DAY) if auto and seasons else seasons:
        windows = np.bincount(hours_of(season, start_ms))
        windows = windows[windows >= WINDOWS_MIN]
        if carries(season, start_ms, every_ms) if auto else len(windows):
            return StrataPlan(len(windows), common_ranks(windows).shape[1], auto)
    sizes = np.bincount(of_row[of_row >= 0])
    bounds = size_bounds(sizes)
    if not len(bounds):
        return None
    windows = np.bincount(size_strata(bounds, sizes))
    return StrataPlan(len(windows), common_ranks(windows).shape[1], rule.auto, by_clock=False)

"""check-reference: do the windows of the reference files bear the promise on false alarms?"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from stream.commands.shared import (
    CONFIG_FILE,
    ConfigOption,
    ExitCode,
    Output,
    OutputOption,
    exits,
    loaded_config,
    print_json,
    print_table,
    stop,
)

if TYPE_CHECKING:
    from detectors.exchangeability import TargetCheck
    from detectors.reference import ReferenceProfile, WindowInfo
    from stream.limit_report import LimitRow
    from stream.tolerances import Taken
    from stream.window_series import Threshold

COLUMNS = ["target", "exchangeable", "windows", "lag-1", "trend", "variance ratio (95 % limit, allowed)", "because"]


@exits
def check_reference(config: ConfigOption = Path(CONFIG_FILE), output: OutputOption = Output.TEXT) -> None:
    """Say for which targets of the reference files `false_alarms` is promised: those whose windows look exchangeable.

    Nothing is stored and no broker is asked. Exit code 0: all look exchangeable. 1: some do not, or it cannot be told.
    """
    from detectors.exchangeability import Exchangeable, check_target
    from stream.left_out import not_watched
    from stream.limit_report import limit_rows
    from stream.planning import monitor_settings
    from stream.preflight import build_from_file_with_windows
    from stream.seasons import season_reason
    from stream.tolerances import taken

    settings = loaded_config(config).config
    named = [name for name, own in settings.models.items() if own.reference.file is not None]
    if not named:
        stop("no model names a reference file: all are learnt from the stream", ExitCode.USAGE)
    reports: list[dict[str, Any]] = []
    shown = True
    for name in named:
        profile, windows, start_ms = build_from_file_with_windows(settings, name)
        checks = [check_target(t, w, profile.windows, start_ms) for t, w in zip(profile.targets, windows, strict=True)]
        season = season_reason(profile, start_ms, settings.season_of(name))
        told = monitor_settings(settings)
        tolerances = taken(told.models[name], profile, windows, start_ms)
        limits = limit_rows(told, profile)
        shown = shown and all(check.exchangeable is Exchangeable.YES for check in checks)
        if output is Output.JSON:
            made = [row.as_json for row in limits]
            report = _as_json(profile, checks, tolerances) | {"season": season, "limits": made}
            reports.append(report | {"not_watched": not_watched(settings, profile)})
        else:
            _print(profile, checks, tolerances, season, not_watched(settings, profile))
            _print_limits(limits, told.models[name].thresholds)
    if output is Output.JSON:
        print_json(reports)
    if not shown:
        raise typer.Exit(int(ExitCode.PROBLEMS))


def _print(
    profile: ReferenceProfile,
    checks: Sequence[TargetCheck],
    tolerances: Sequence[Taken],
    season: str,
    lacking: Sequence[str],
) -> None:
    from stream.tolerances import sentences

    info = profile.windows
    print(
        f"{profile.model}: {profile.rows:,} rows, {len(checks)} targets, {info.count:,} windows of "
        f"{info.size_min:,} to {info.size_max:,} events"
    )
    print(f"  {length_reason(info)}")
    print(f"  {season}")
    print_table(COLUMNS, [_row(check) for check in checks])
    for sentence in lacking:
        print(f"  {sentence}")
    for sentence in sentences(tolerances, dependent(checks)):
        print(f"  {sentence}")
    print(f"{profile.model}: {conclusion(checks, tolerances)}")


def _print_limits(rows: Sequence[LimitRow], thresholds: Sequence[Threshold]) -> None:
    from stream.limit_report import COLUMNS as LIMIT_COLUMNS
    from stream.limit_report import sentences

    if rows:
        print_table(LIMIT_COLUMNS, [row.cells for row in rows])
        for sentence in sentences(rows, thresholds):
            print(f"  {sentence}")


def dependent(checks: Sequence[TargetCheck]) -> set[str]:
    """Targets whose windows are known not to be exchangeable."""
    from detectors.exchangeability import Exchangeable

    return {check.name for check in checks if check.exchangeable is Exchangeable.NO}


def length_reason(info: WindowInfo) -> str:
    """How long the windows are, and why."""
    from detectors.sequential.windows_auto import WINDOWS_MIN
    from stream.quantities import Duration

    if not info.checked:
        return f"no time column: rows shuffled into windows of {info.min_events:,} events"
    rule = f"at least {Duration(info.every_ms)} and {info.min_events:,} events each"
    if not info.auto:
        return f"{rule}, as configured"
    tried = ", ".join(
        f"{Duration(one['every_ms'])}: {one['targets_that_hold']:.0%} of the targets in {one['windows']:,} windows"
        for one in info.auto["tried"]
    )
    if info.auto["holds"]:
        why = "the shortest at which the windows of 80% of the targets follow each other as if independent"
    elif info.count < WINDOWS_MIN:
        why = f"the shortest there is, for none makes the {WINDOWS_MIN} windows that it takes to choose"
    else:
        why = "the length at which the windows of most targets follow each other as if independent, for none has 80%"
    return f"{rule}, by window auto: {why} ({tried})"


def _row(check: TargetCheck) -> list[str]:
    windows = f"{check.windows:,}" + (f" ({check.group} in one)" if check.group > 1 else "")
    figures = ["", "", ""]
    block = check.worst
    if block is not None:
        figures = [
            f"{check.lag1:+.2f} ± {check.lag1_error:.2f}",
            f"{check.trend:+.2f} ± {check.trend_error:.2f}",
            f"{block.ratio:.2f} ({block.upper:.2f}, {block.allowed:g}), blocks of {block.size}",
        ]
    because = " and ".join(cause.value.replace("_", " ") for cause in check.causes)
    return [check.name, check.exchangeable.value, windows, *figures, because]


def conclusion(checks: Sequence[TargetCheck], tolerances: Sequence[Taken] = ()) -> str:
    """One sentence: for which targets the bound on false alarms is promised, and what the others may do."""
    from detectors.exchangeability import Cause, Exchangeable
    from detectors.sequential.windows_auto import WINDOWS_MIN

    total = len(checks)
    widened = {each.name for each in tolerances if each.widened}
    no = [check for check in checks if check.exchangeable is Exchangeable.NO]
    held = [check for check in no if check.name in widened and Cause.TREND not in check.causes]
    no = [check for check in no if check not in held]
    untimed = sum(Cause.NO_TIME in check.causes for check in checks)
    few = [check.windows for check in checks if Cause.TOO_FEW in check.causes]
    yes = total - len(no) - len(held) - untimed - len(few)
    if untimed:
        return (
            f"without a time column (`reference: {{time: …}}`) nothing shows whether the windows of its {total} targets are "
            "exchangeable: `false_alarms` is promised only if they are"
        )
    parts = []
    if no:
        causes = {cause for check in no for cause in check.causes}
        words = ["depend on the windows before them"] if causes - {Cause.TREND} else []
        words += ["follow a trend"] if Cause.TREND in causes else []
        parts.append(
            f"{len(no)} of {total} targets {' or '.join(words)}: `false_alarms` is not promised for them, they may alarm for "
            "what they did in the reference already, unless it stays inside `tolerance`"
        )
    if held:
        parts.append(
            f"for {len(held)} of {total}, whose windows depend on each other, the tolerance is wide enough for what blocks of the "
            "reference do: `false_alarms` is promised for them as long as later blocks are like those, and independent"
        )
    if few:
        least = f"at least {WINDOWS_MIN}; " if min(few) < WINDOWS_MIN else ""
        parts.append(
            f"for {len(few)} of {total} it is not known and not promised: {min(few):,} windows are too few to show it ({least}"
            "a longer reference or a smaller `min_events` makes more)"
        )
    if yes:
        parts.append(
            f"for {yes} of {total} it is promised, as long as live windows follow each other as the reference's did"
            if parts
            else f"all {total} targets look exchangeable: `false_alarms` is promised, as long as live windows follow each "
            "other as the reference's did"
        )
    return "; ".join(parts)


def _as_json(profile: ReferenceProfile, checks: Sequence[TargetCheck], tolerances: Sequence[Taken]) -> dict[str, Any]:
    from stream.tolerances import as_json

    info = profile.windows
    return {
        "model": profile.model,
        "reference": profile.id,
        "rows": profile.rows,
        "windows": {
            "count": info.count,
            "every_ms": info.every_ms,
            "min_events": info.min_events,
            "size_min": info.size_min,
            "size_max": info.size_max,
            "checked": info.checked,
            "auto": dict(info.auto),
        },
        "targets": [
            {
                "target": check.name,
                "exchangeable": check.exchangeable.value,
                "causes": [cause.value for cause in check.causes],
                "windows": check.windows,
                "list_windows_in_one": check.group,
                "season": target.strata.by if target.strata is not None and target.strata.by_clock else "none",
                "size_bounds": [] if target.strata is None else target.strata.bounds.tolist(),
                "events_median": check.size_median,
                "lag1": check.lag1,
                "lag1_error": check.lag1_error,
                "trend": check.trend,
                "trend_error": check.trend_error,
                "variance_ratios": [
                    {"windows": block.size, "ratio": block.ratio, "upper": block.upper, "allowed": block.allowed}
                    for block in check.blocks
                ],
                "tolerance": as_json(tolerance, dependent=check.name in dependent(checks)),
            }
            for check, tolerance, target in zip(checks, tolerances, profile.targets, strict=True)
        ],
        "conclusion": conclusion(checks, tolerances),
    }

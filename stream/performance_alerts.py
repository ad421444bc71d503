"""What an alert on performance says: from a judged window of one series to the data of its event. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from detectors.performance.judged import worse
from detectors.sequential.rank_alone import Level, RankAlone
from stream.alerts import TOLERANCE_MIN, Breach, Incident, Kind, Observation, Transition, breach_evidence
from stream.monitor_settings import ModelSettings
from stream.performance_cell import Cell, Judgement
from stream.performance_cells import CellName
from stream.performance_records import Measured
from stream.performance_told import metric_of
from stream.quantities import Duration
from stream.window_records import evidence, window_body
from stream.windows import Window
from stream.wording import chance, since

UNIT = "standard deviations of one row"
SUDDEN_SHARE = 0.5  # of the effect: one that began with half of what it is now came suddenly


@dataclass(frozen=True, slots=True)
class Seen:
    """One judged window of one cell, with everything that a sentence about it needs."""

    name: CellName
    version: str
    measured: Measured
    cell: Cell
    judgement: Judgement
    breaches: tuple[Breach, ...]

    @property
    def since_ms(self) -> int:
        found = self.judgement.verdict.since_ms
        return self.judgement.start_ms if found is None else found


def target_of(name: CellName) -> str:
    """As alerts name a series: its metric and horizon."""
    return f"{name.metric}@{Duration(name.horizon_ms)}" if name.horizon_ms else name.metric


def series_of_version(version: str) -> str:
    """As SeriesKey.name has it."""
    return f"version:{version}"


def observation(seen: Seen) -> Observation:
    """What the state machine needs to know."""
    verdict, judged = seen.judgement.verdict, seen.judgement.verdict.level is Level.JUDGED
    return Observation(
        kind=Kind.PERFORMANCE,
        series=series_of_version(seen.version),
        segment=seen.name.segment,
        target=target_of(seen.name),
        end_ms=seen.measured.window.end_ms,
        since_ms=seen.since_ms,
        alarm=verdict.alarm,
        quiet=verdict.quiet and not seen.breaches,
        effect=min(abs(verdict.shift) / max(seen.cell.ranks.settings.tolerance, TOLERANCE_MIN), 1e12)
        if judged
        else 0.0,
        breaches=seen.breaches,
        judged=judged,
    )


def performance_data(
    seen: Seen, incident: Incident, transition: Transition, settings: ModelSettings, *, historical: bool
) -> dict[str, Any]:
    """Data of one event."""
    judgement, ranks, window = seen.judgement, seen.cell.ranks, seen.measured.window
    rows, onset = _excursion(ranks, seen)
    data: dict[str, Any] = {
        "historical": historical,
        "onset": incident.data["onset"] if transition is Transition.RESOLVED and incident.data else onset,
        "evidence": _evidence(seen, incident, settings),
        "effect": _effect(seen),
        "largest_changes": [],
        "consequence": _consequence(seen),
        "events": rows,
        "metric": metric_of(seen.name.metric),
        "feedback": seen.name.stream,
        "horizon_ms": seen.name.horizon_ms,
        "window": window_body(Window(judgement.start_ms, window.end_ms, window.events, sufficient=True)),
        "reference": "",
        **seen.measured.told.beside(seen.name.metric),
    }
    if transition is not Transition.RESOLVED:
        data["summary"] = _summary(seen, incident, settings, rows)
    return data


def _excursion(ranks: RankAlone, seen: Seen) -> tuple[int, str]:
    """(rows of the last windows since it began, "sudden" or "gradual")."""
    recent = ranks.recent[ranks.recent[:, 0] >= seen.since_ms]
    if not len(recent) or seen.judgement.verdict.level is not Level.JUDGED:
        return seen.judgement.number.rows, "sudden"
    shifts = recent[:, 1] - ranks.centre
    quarter = max(1, len(shifts) // 4)
    first, last = float(shifts[:quarter].mean()), float(shifts[-quarter:].mean())
    sudden = first * math.copysign(1.0, last) >= SUDDEN_SHARE * abs(last)
    return int(recent[:, 2].sum()), "sudden" if sudden else "gradual"


def _evidence(seen: Seen, incident: Incident, settings: ModelSettings) -> dict[str, Any]:
    verdict, ranks = seen.judgement.verdict, seen.cell.ranks
    learnt = f"windows exchangeable with the first {ranks.settings.learning} of the series"
    body: dict[str, Any] = {
        "statistic": evidence(verdict.log10),
        "threshold": evidence(verdict.threshold_log10),
        "false_alarms": settings.false_alarms,
        "promise": learnt if incident.promised else "none: an operator's threshold",
        "tolerance": ranks.settings.tolerance,
    }
    return body | breach_evidence(seen.breaches)


def _effect(seen: Seen) -> dict[str, Any]:
    verdict, ranks, metric = seen.judgement.verdict, seen.cell.ranks, seen.name.metric
    if verdict.level is not Level.JUDGED:
        return {"shift": None, "unit": UNIT, "reference": {}, "now": {metric: seen.judgement.number.value}}
    return {
        "shift": verdict.shift,
        "unit": UNIT,
        "direction": "up" if verdict.shift > 0 else "down",
        "reference": {metric: ranks.centre},
        "now": {metric: verdict.now},
    }


def _consequence(seen: Seen) -> dict[str, str]:
    """Whether the model got worse, by the metric that alarms."""
    verdict, ranks = seen.judgement.verdict, seen.cell.ranks
    if verdict.level is not Level.JUDGED:
        return {"verdict": "unknown", "why": "its first windows are still being learnt from"}
    worse_now = worse(seen.measured.told.direction(seen.name.metric), ranks.centre, verdict.now)
    said = "changed" if worse_now is None else "worse" if worse_now else "better"
    return {"verdict": said, "why": f"{_moved(seen)} of its first windows"}


def _moved(seen: Seen) -> str:
    ranks, now = seen.cell.ranks, seen.judgement.verdict.now
    return f"{_named(seen)} {now:.4g} against {ranks.centre:.4g}{_unit(seen)}"


def _named(seen: Seen) -> str:
    return seen.measured.told.named(seen.name.metric)


def _unit(seen: Seen) -> str:
    unit = seen.measured.told.unit(seen.name.metric)
    return f" {unit}" if unit else ""


def _summary(seen: Seen, incident: Incident, settings: ModelSettings, rows: int) -> str:
    within = f" within {Duration(seen.name.horizon_ms)}" if seen.name.horizon_ms else ""
    when = since(incident.since_ms, seen.measured.window.end_ms, rows)
    judged = seen.judgement.verdict.level is Level.JUDGED
    what = f"{_moved(seen)} as learnt" if judged else f"{_named(seen)} {seen.judgement.number.value:.4g}{_unit(seen)}"
    if incident.promised:
        odds = chance(settings.budget_ms)
    elif seen.breaches:
        odds = f"{seen.breaches[0].text}; nothing is promised about false alarms"
    else:
        odds = "opened by a configured threshold or detector; nothing is promised about false alarms"
    return f"{what}{within} {when}; {odds}."

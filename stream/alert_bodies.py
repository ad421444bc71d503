"""What an alert says: from a judged window of one target to the data of its event."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from detectors.binning import Kind as BinKind
from detectors.reference import COVERS_BINNINGS, TargetReference
from detectors.sequential.tolerance_auto import Tolerances
from detectors.verdict import Level, Verdict
from stream.alerts import TOLERANCE_MIN, Breach, Incident, Kind, Observation, breach_evidence
from stream.monitor_settings import ModelSettings
from stream.plan import Role
from stream.quantities import Duration
from stream.reference_limits import ReferenceLimits, made_words
from stream.series import Excursion, Judgement, Series
from stream.watchers import Watcher
from stream.window_records import columns, evidence, window_body
from stream.window_series import Threshold, passed
from stream.window_statistics import Statistics
from stream.windows import Window
from stream.wording import UNSEEN, Movement, chance, movement, since

SHOWN = ("mean", "std", "p50", "p99", "missing", "invalid")
SUMMARY_NAMES = {"p50": "median"}  # as the reference's summary calls it
FACTORS = (
    1000.0,
    1e6,
    100.0,
    60.0,
    3600.0,
)  # units that are taken for each other: milli, micro, per cent, minutes, hours
FACTOR_TOLERANCE = 0.25  # relative: traffic differs a little from training data anyway
STANDARD_MEAN_MAX, STANDARD_STD = 0.5, (0.5, 2.0)  # what standardised values look like
RAW_DISTANCE_MIN = 5.0  # and raw ones: their mean as many standard deviations away, or a spread as many times larger
CHANGE_MIN = 0.0005  # of the events; below it a bin's change says nothing to anybody
UNSEEN_SHARE_MIN = 0.2  # of the events; below it new categories are new categories
KINDS = {
    Role.FEATURE: Kind.FEATURE_DRIFT,
    Role.SHARE: Kind.FEATURE_DRIFT,
    Role.PREDICTION: Kind.PREDICTION_DRIFT,
    Role.SCORE: Kind.SCORE_DRIFT,
}


@dataclass(frozen=True, slots=True)
class Case:
    """One target of a judged window, with everything that a sentence about it needs."""

    series: Series
    judgement: Judgement
    place: int
    window: Window
    settings: ModelSettings
    limits: ReferenceLimits

    @property
    def target(self) -> TargetReference:
        return self.series.lens.targets[self.place]

    @property
    def tolerances(self) -> Tolerances:
        """In force for the target: as configured, or wider."""
        return self.series.prepared[self.place].tolerances

    @property
    def verdict(self) -> Verdict:
        assert self.judgement.verdicts is not None
        return self.judgement.verdicts[self.place]


def breaches(case: Case, *, quality: bool) -> tuple[Breach, ...]:
    """The operator's thresholds and detectors that this window passes, of the data's quality or of the others."""
    found = []
    for threshold in case.settings.thresholds:
        if threshold.quality is not quality or (threshold.targets and case.target.name not in threshold.targets):
            continue
        assert case.judgement.whole is not None
        value = float(case.judgement.whole.series(threshold.series)[case.place])
        events, duration_ms = int(case.series.history.events[-1]), case.window.end_ms - case.window.start_ms
        sides = case.limits.of(threshold, case.target.name, events, duration_ms)
        limit = passed(value, sides.above, sides.below)
        if limit is not None:
            made = made_words(threshold, above=limit == sides.above, size=sides.size)
            found.append(Breach(threshold.series, value, limit, made))
    for said in case.judgement.online.get(case.place, ()):
        if said.fired and said.watcher.quality is quality:
            assert said.statistic is not None
            found.append(Breach(said.watcher.name, said.statistic, None))
    return tuple(found)


def observations(case: Case, *, quality_open: bool) -> Iterator[Observation]:
    """What the state machine needs to know: of the target's law, and where thresholds on it are set, of its data's quality.

    A window that the detector only collected is seen by thresholds and watchers alone. `quality_open`: an incident of
    quality must end, too, where a new configuration sets no limit any more.
    """
    law = _law(case)
    if law.judged or law.breaches:
        yield law
    name = case.target.name
    asked: tuple[Threshold | Watcher, ...] = (*case.settings.thresholds, *case.settings.watchers)
    if quality_open or any(each.quality and (not each.targets or name in each.targets) for each in asked):
        yield _quality(case)


def _law(case: Case) -> Observation:
    series, verdict, place = case.series, case.verdict, case.place
    found = breaches(case, quality=False)
    crossing = verdict.rank_crossed or verdict.tube_crossed
    alarm = verdict.level is Level.ALARM
    since_ms = case.window.start_ms
    kind = KINDS[Role(case.target.role)]
    if verdict.since_ms is not None:
        since_ms = series.since(place, verdict.since_ms)
        trained = series.profile.covers != COVERS_BINNINGS
        if alarm and trained and series.from_the_start(since_ms):
            kind = Kind.SKEW
    return Observation(
        kind=kind,
        series=series.key.name,
        segment=series.key.segment,
        target=case.target.name,
        end_ms=case.window.end_ms,
        since_ms=since_ms,
        alarm=alarm,
        quiet=verdict.inside_tube and not crossing and not found,
        effect=abs(verdict.shift) / max(case.tolerances.values, TOLERANCE_MIN),
        breaches=found,
        judged=verdict.judged,
    )


def _quality(case: Case) -> Observation:
    """Rates have limits and no size in tolerances: they never escalate, and are quiet within their limits."""
    found = breaches(case, quality=True)
    return Observation(
        kind=Kind.DATA_QUALITY,
        series=case.series.key.name,
        segment=case.series.key.segment,
        target=case.target.name,
        end_ms=case.window.end_ms,
        since_ms=case.window.start_ms,
        alarm=False,
        quiet=not found,
        effect=0.0,
        breaches=found,
    )


def alert_data(case: Case, incident: Incident, seen: Observation, *, historical: bool) -> dict[str, Any]:
    """Data of an opened or escalated alert."""
    excursion = case.series.effect(case.place, incident.since_ms)
    cause = likely_cause(case.target, excursion.now) if incident.kind is Kind.SKEW else None
    said = {
        "summary": _summary(case, incident, seen, excursion, cause),
        "onset": excursion.onset,
        "likely_cause": cause,
    }
    return said | _facts(case, incident, seen, excursion, historical=historical)


def resolved_data(case: Case, incident: Incident, seen: Observation, *, historical: bool) -> dict[str, Any]:
    """Data of an alert that ends because its target is inside the tolerance again: "now" is the quiet windows."""
    quiet = case.series.effect(case.place, case.series.start_of_last(case.settings.resolve_after))
    onset = {"onset": incident.data["onset"]}
    return onset | _facts(case, incident, seen, quiet, historical=historical)


def _facts(
    case: Case, incident: Incident, seen: Observation, excursion: Excursion, *, historical: bool
) -> dict[str, Any]:
    found = excursion.effect.largest_changes
    changes = [each for each in found if abs(each.now - each.reference) >= CHANGE_MIN] or found[:1]
    return {
        "historical": historical,
        "evidence": _evidence(case, incident, seen),
        "effect": _effect(case, excursion),
        "largest_changes": [{"bin": each.bin, "reference": each.reference, "now": each.now} for each in changes],
        "consequence": {"verdict": "unknown", "why": "no labels yet"},
        "events": excursion.events,
        "window": window_body(case.window),
        "reference": case.series.profile.id,
    }


def likely_cause(target: TargetReference, now: Statistics) -> str | None:
    """Why live values may differ from training data from the very first window; None = nothing typical."""
    if target.binning.kind is BinKind.CATEGORICAL:
        share = float(now.unseen[0])
        if share >= UNSEEN_SHARE_MIN:
            return "another spelling or coding of the categories: most new values are not in the reference"
        return None
    was_mean, was_std, was_middle = (target.summary.get(name, math.nan) for name in ("mean", "std", "median"))
    mean, std, middle = float(now.mean[0]), float(now.std[0]), float(now.quantiles["p50"][0])
    if not all(map(math.isfinite, (was_mean, was_std, was_middle, mean, std, middle))):
        return None
    factor = _factor(middle, was_middle) if _factor(std, was_std) else None
    if factor is not None:
        larger = factor > 1
        return f"another unit: values are about {(factor if larger else 1 / factor):,.0f} times {'larger' if larger else 'smaller'}"
    if _standardised(mean, std) and _raw(was_mean, was_std):
        return "standardised values live, raw values in the reference"
    if _standardised(was_mean, was_std) and _raw(mean, std):
        return "raw values live, standardised values in the reference"
    return None


def _factor(now: float, reference: float) -> float | None:
    """The factor of FACTORS, or its inverse, by which `now` differs from `reference`."""
    if reference == 0 or now == 0 or (now > 0) != (reference > 0):
        return None
    ratio = now / reference
    for factor in (*FACTORS, *(1 / factor for factor in FACTORS)):
        if abs(ratio / factor - 1) <= FACTOR_TOLERANCE:
            return factor
    return None


def _standardised(mean: float, std: float) -> bool:
    return abs(mean) <= STANDARD_MEAN_MAX and STANDARD_STD[0] <= std <= STANDARD_STD[1]


def _raw(mean: float, std: float) -> bool:
    return std > RAW_DISTANCE_MIN or abs(mean) > RAW_DISTANCE_MIN * max(std, 1e-300)


def _movement(case: Case, excursion: Excursion) -> Movement:
    was = float(case.target.summary.get("std", math.nan))
    std = float(excursion.now.std[0])
    effect = excursion.effect
    return Movement(
        target=case.target.name,
        shift=effect.shift,
        direction=effect.direction,
        share=effect.share,
        std_ratio=std / was if math.isfinite(std) and was > 0 and std > 0 else None,
        changes=effect.largest_changes,
    )


def _summary(case: Case, incident: Incident, seen: Observation, excursion: Excursion, cause: str | None) -> str:
    what = movement(_movement(case, excursion))
    when = since(incident.since_ms, case.window.end_ms, excursion.events)
    if incident.promised:
        odds = chance(case.settings.budget_ms)
    elif seen.breaches:
        odds = f"{seen.breaches[0].text}; nothing is promised about false alarms"
    else:
        odds = "opened by a configured threshold or detector; nothing is promised about false alarms"
    if incident.kind is Kind.DATA_QUALITY:
        return f"{case.target.name}: {odds}; {when}."
    if incident.kind is Kind.SKEW:
        origin = f"; likely cause: {cause}" if cause else ""
        return f"{what} against its training data, from the first window on{origin}; {when}; {odds}."
    return f"{what} {when}; {odds}."


def _evidence(case: Case, incident: Incident, seen: Observation) -> dict[str, Any]:
    verdict, settings = case.verdict, case.settings
    layers = ((verdict.rank_crossed, verdict.rank_log10), (verdict.tube_crossed, verdict.tube_log10))
    crossing = [log10 for crossed, log10 in layers if crossed] or [log10 for _, log10 in layers]
    body: dict[str, Any] = {
        "statistic": evidence(min(crossing)),  # of the layer that crossed in this window; the other did before
        "rank": evidence(verdict.rank_log10),
        "tube": evidence(verdict.tube_log10),
        "threshold": evidence(verdict.threshold_log10),
        "false_alarms": settings.false_alarms,
        "promise": promise(case) if incident.promised else "none: an operator's threshold",
        "tolerance": case.tolerances.values,
    }
    if case.tolerances.absent != case.tolerances.values:
        body["tolerance_of_missing"] = case.tolerances.absent
    return body | breach_evidence(seen.breaches)


def promise(case: Case) -> str:
    """Under which condition the bound on false alarms holds (default-detector.md, 6)."""
    effects = case.target.effects
    if effects is not None and max(case.tolerances) > case.settings.tolerance_of(case.target.name)[0]:
        return f"what blocks of {Duration(effects.length_ms)} do is like the reference's"
    return "windows exchangeable" if case.series.profile.windows.checked else "exchangeability not checkable"


def _effect(case: Case, excursion: Excursion) -> dict[str, Any]:
    named = columns(excursion.now)
    reference = {name: case.target.summary.get(SUMMARY_NAMES.get(name, name), math.nan) for name in SHOWN}
    current = {name: named[name][0] for name in SHOWN}
    if case.target.binning.kind is BinKind.CATEGORICAL:
        current[UNSEEN.strip("_")] = named["unseen"][0]
    return {
        "shift": excursion.effect.shift,
        "unit": "change of a share in probit units" if excursion.effect.share else "reference standard deviations",
        "direction": excursion.effect.direction,
        "reference": _finite(reference),
        "now": _finite(current),
    }


def _finite(named: Mapping[str, float]) -> dict[str, float]:
    """What a target of this kind has."""
    return {name: float(value) for name, value in named.items() if math.isfinite(value)}

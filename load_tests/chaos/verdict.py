"""The verdict on a run: what is lost, counted twice, wrong, or there without a reason.

    python -m load_tests.chaos.verdict FOLDER [CONFIG]        judges saved evidence again; CONFIG: FOLDER/monitor.yaml

Accounting, panes, markers, dead letters and windows are compared with the independent recount (recount.py, kept.py, windowing.py:
no code of the product). What is found in the windows, alerts above all, is compared with one uninterrupted run of the
product's own Monitor over the panes that the recount has found right.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

from load_tests.chaos import kept as panes_kept
from load_tests.chaos import recount, windowing, wire
from load_tests.chaos.evidence import Evidence
from load_tests.chaos.reading import Shape
from load_tests.chaos.recount import Compiled, Counted, Finding, ModelRules, Recount, Rules
from stream.config import Config
from stream.config_loader import load as load_config
from stream.epochs import epoch_of
from stream.merging import PaneRecord
from stream.monitor import Monitor
from stream.panes import decode_record
from stream.planning import monitor_settings
from stream.reference_records import ReferenceLog
from stream.references import ControlLog
from stream.stage import Output
from stream.topics import TopicRole

EVERY_FACTOR = 12  # a window stays open for 12 times `every` where the configuration does not say
EVENTS_MIN = 500  # of a window, where neither the configuration nor a reference says: while one is learnt
KINDS = ("lost", "double", "wrong", "spurious")


@dataclass(frozen=True)
class Verdict:
    """What was judged, counted without repeats, and every finding in words. notes: what is worth knowing and no finding."""

    events: int
    applied: int
    panes: int
    windows: int
    alerts: int
    dead_letters: int
    decisions: int
    lost: tuple[str, ...]
    double: tuple[str, ...]
    wrong: tuple[str, ...]
    spurious: tuple[str, ...]
    accounting: dict[str, int]
    repeats: int  # records of the panes topic that monitors drop: sent again, or by an owner that was one no more
    notes: tuple[str, ...] = ()

    @property
    def right(self) -> bool:
        return not (self.lost or self.double or self.wrong or self.spurious)

    def as_json(self) -> dict[str, Any]:
        return {name: list(each) if isinstance(each, tuple) else each for name, each in vars(self).items()}


def judge(evidence: Evidence, config_path: Path | str) -> Verdict:
    """Raises ValueError for a configuration that the recount does not know."""
    config = load_config(config_path).config
    return judge_config(evidence, config)


def judge_config(evidence: Evidence, config: Config) -> Verdict:
    """The verdict under a configuration that is loaded already."""
    findings: list[Finding] = []
    notes: list[str] = []
    rules = rules_of(config, evidence.partitions(TopicRole.PREDICTIONS))
    profiles = wire.references((r.key, r.value) for r in evidence.of(TopicRole.REFERENCES))
    journal = recount.journal((r.value for r in evidence.of(TopicRole.JOURNAL) if r.value), findings)
    kept = [
        panes_kept.keep(evidence.of(TopicRole.PANES, monitor), rules.partitions, findings)
        for monitor in range(rules.monitors)
    ]
    counted = _recounted(Judged(evidence, rules, profiles, journal, kept), findings, notes)
    panes = panes_kept.compare_panes(kept, counted, rules.monitors) + panes_kept.compare_markers(kept, counted)
    findings += panes
    sources = {record[:2]: record for record in evidence.of(TopicRole.PREDICTIONS)}
    findings += panes_kept.compare_letters(evidence.of(TopicRole.DEAD_LETTERS), sources, rules.topic, counted)
    said = windowing.bodies(evidence.of(TopicRole.WINDOWS), findings, rules.monitors)
    learning = [name for name, model in rules.models.items() if model.learns and model.window is None]
    if learning:
        notes.append(
            f"windows of {', '.join(learning)} are compared with the uninterrupted run only: their length is learnt"
        )
    else:
        findings += windowing.compare_windows(said, windowing.expected_windows(counted, rules, profiles))
    if panes:  # what monitors made of wrong panes follows from them
        notes.append("the uninterrupted run was left out: the panes are wrong already")
    else:
        findings += compare_monitors(evidence, config)
    total = sum((one.counters for one in counted), Counter[str]())
    return Verdict(
        events=total["consumed"],
        applied=total["applied"],
        panes=sum(len(one.panes) for one in counted),
        windows=len(said),
        alerts=len({json.loads(record.value or b"{}").get("id") for record in evidence.of(TopicRole.ALERTS)}),
        dead_letters=total["dead_letters"],
        decisions=sum(map(len, journal.values())),
        **{kind: tuple(dict.fromkeys(what for name, what in findings if name == kind)) for kind in KINDS},
        accounting={name: total[name] for name in ("consumed", *recount.TERMS, "gap")},
        repeats=sum(each.repeats for each in kept),
        notes=tuple(notes),
    )


def rules_of(config: Config, partitions: int) -> Rules:
    """The configuration as plain values. Raises ValueError for a setting whose effect the recount does not restate."""
    mapping = config.topics.predictions.mapping.model_dump()
    unknown = [name for name in ("strict_duplicate_keys", "coerce") if mapping.get(name)]
    if unknown:
        raise ValueError(f"the recount does not know topics.predictions.mapping.{unknown[0]}")
    models = {}
    for name, model in config.models.items():
        for target, settings in model.targets.items():
            if getattr(settings, "coerce", False):
                raise ValueError(f"the recount does not know models.{name}.targets.{target}.coerce")
        window = config.window_of(name)
        length = None
        if window.every is not None:
            longest = window.max_duration.ms if window.max_duration else EVERY_FACTOR * window.every.ms
            length = (window.every.ms, window.min_events or EVENTS_MIN, longest)
        own = model.reference
        models[name] = ModelRules(
            unwatched={target for target, settings in model.targets.items() if not settings.watch},
            columns={
                name for name in (own.label, own.time, own.prediction, own.score, *own.ignore) if name is not None
            },
            ranges={target: each.range for target, each in model.targets.items() if each.range is not None},
            segments={key: tuple(values) for key, values in model.segments.items()},
            window=length,
            min_events=window.min_events or EVENTS_MIN,
            split=model.traffic == "split",
            learns=model.reference.first is not None,
        )
    return Rules(
        topic=config.topics.predictions.name,
        partitions=partitions,
        monitors=config.monitors,
        resolution_ms=config.resolution.ms,
        lateness_ms=config.topics.predictions.lateness.ms,
        skew_ms=config.max_future_skew.ms,
        dedup=config.dedup,
        mapping=mapping,
        models=models,
    )


class Judged(NamedTuple):
    """What is read out of the evidence before anything is compared."""

    evidence: Evidence
    rules: Rules
    profiles: Mapping[str, wire.Reference]
    journal: Mapping[tuple[str, int], list[recount.Decision]]
    kept: Sequence[panes_kept.Kept]


def _recounted(judged: Judged, findings: list[Finding], notes: list[str]) -> list[Counted]:
    rules = judged.rules
    plans = _plans(rules, judged.profiles, judged.kept)
    shape = _shape(rules, plans)
    compiled = {name: Compiled(plan, shape) for name, plan in plans.items()}
    counted = []
    for partition in range(rules.partitions):
        records = judged.evidence.of(TopicRole.PREDICTIONS, partition)
        decisions = judged.journal.get(("collector", partition), [])
        begin = judged.evidence.begins[str(TopicRole.PREDICTIONS)][partition]
        if begin and not any(decision.kind == "gap" for decision in decisions):
            notes.append(f"partition {partition} begins at {begin}: join an earlier collection of evidence")
        first = _first_plans(judged, partition, begin, notes)
        each = Recount(partition, rules, shape, compiled)
        findings += each.run(records, decisions, first)
        counted.append(each.out)
    return counted


def _plans(
    rules: Rules, profiles: Mapping[str, wire.Reference], kept: Sequence[panes_kept.Kept]
) -> dict[str, wire.Plan]:
    """Every plan that follows from a stored reference; and those of learning panes, which have no bins to be wrong."""
    plans = {}
    for profile in profiles.values():
        if profile.model in rules.models:
            plan = wire.plan_of(profile, rules.models[profile.model])
            plans[plan.hash] = plan
    for each in kept:
        for name, pane in each.plans.items():
            if name and name not in plans and not pane.reference and rules.models[pane.model].learns:
                targets = [wire.Target(target, _usual_role(target, rules), "learning", [0, 0], 0.0, 0.0, 0.0, [], [], {})
                           for target in pane.names]  # fmt: skip
                plans[name] = wire.Plan(name, pane.model, "", targets, learning=True)
    return plans


def _usual_role(name: str, rules: Rules) -> str:
    if name == "prediction":
        return "prediction"
    return "score" if name in rules.mapping["scores"] else "feature"


def _shape(rules: Rules, plans: Mapping[str, wire.Plan]) -> Shape:
    """The outputs that are watched, of models in the order of the configuration: a bad one refuses the event."""
    outputs: dict[tuple[tuple[str, ...], bool], None] = {}
    with_features = set()
    shape = Shape(rules.mapping, tuple(rules.models), [], with_features)
    for model in rules.models:
        for plan in plans.values():
            if plan.model != model:
                continue
            for target in plan.targets:
                if target.role != "feature":
                    outputs[shape.keys(target.name, target.role), target.role == "score"] = None
                elif rules.mapping["features"]:
                    with_features.add(model)
    shape.outputs = list(outputs)
    return shape


def _first_plans(judged: Judged, partition: int, begin: int, notes: list[str]) -> dict[str, str]:
    """Plans in force before any decision. The journal has them all, unless its first owner died before it could decide."""
    decisions = judged.journal.get(("collector", partition), [])
    decided = {each.body["model"] for each in decisions if each.kind == "plan" and each.position <= begin}
    first = {}
    for model in sorted(set(judged.rules.models) - decided):
        seen = [each.first_plans[partition, model] for each in judged.kept if (partition, model) in each.first_plans]
        if seen:
            first[model] = seen[0]
            what = f"the first plan of {model} in partition {partition}; its panes say {seen[0]}"
            notes.append(f"the journal does not name {what}")
    return first


# ---- one uninterrupted run of the monitors


def uninterrupted(evidence: Evidence, config: Config) -> list[tuple[int, Output]]:
    """(monitor, output) of the product's own Monitor, fed with every record of the panes topic, from one process."""
    stored, control = ReferenceLog(), ControlLog()
    for record in evidence.of(TopicRole.REFERENCES):
        stored.add(record.key, record.value)
    for record in evidence.of(TopicRole.CONTROL):
        control.add(record.key, record.value)
    profiles = {name: profile for name in stored.ids() if (profile := stored.get(name)) is not None}
    settings = monitor_settings(config, {model: tuple(targets) for model, targets in control.targets.items()})
    outputs: list[tuple[int, Output]] = []
    for partition in range(config.monitors):
        monitor = Monitor(
            partition,
            sources=evidence.partitions(TopicRole.PREDICTIONS),
            settings=settings,
            profiles=profiles,
            app_version=version("driftline"),
        )
        for record in evidence.of(TopicRole.PANES, partition):
            value = record.value or b""
            body = decode_record(value)
            fed = PaneRecord(record.offset, record.timestamp_ms, epoch_of(record.headers), body, value)
            monitor.apply(TopicRole.PANES.value, [fed])
        outputs += [(partition, output) for output in monitor.outbox]
    return outputs


def compare_monitors(evidence: Evidence, config: Config) -> list[Finding]:
    """Alerts, windows and learnt references against the uninterrupted run: ids, bodies without `historical`, multiplicity >= 1."""
    findings: list[Finding] = []
    try:
        outputs = uninterrupted(evidence, config)
    except Exception as error:  # noqa: BLE001 - whatever it is: the panes were right, and one run over them fails
        return [("wrong", f"the uninterrupted run failed: {error!r}")]
    for role, name_of in ((TopicRole.ALERTS, _alert), (TopicRole.WINDOWS, _window)):
        expected = {}
        for place, output in outputs:
            if output.topic == role:
                name, body = name_of(output.value or b"")
                expected[name] = (place, output.key, body)
        said: dict[Any, Any] = {}
        for record in evidence.of(role):
            name, body = name_of(record.value or b"")
            content = (record.partition, record.key, body)
            if name in said and not _alike(said[name], content):
                findings.append(("wrong", f"{role} {name} was written twice, and not the same"))
            said.setdefault(name, content)
        findings += [("lost", f"{role} {name}: the uninterrupted run has it") for name in expected if name not in said]
        findings += [
            ("spurious", f"{role} {name}: the uninterrupted run has none") for name in said if name not in expected
        ]
        findings += [
            ("wrong", f"{role} {name}: {said[name]}, uninterrupted {expected[name]}")
            for name in expected
            if name in said and not _alike(said[name], expected[name])
        ]
    for role in (TopicRole.REFERENCES, TopicRole.CONTROL):
        written = {(record.key, record.value) for record in evidence.of(role)}
        findings += [
            ("lost", f"{role} {output.key!r}: the uninterrupted run has it")
            for _, output in outputs
            if output.topic == role and (output.key, output.value) not in written
        ]
    return findings


def _alert(value: bytes) -> tuple[Any, Any]:
    body = json.loads(value)
    body.get("data", {}).pop("historical", None)
    return body.get("id"), body


def _window(value: bytes) -> tuple[Any, Any]:
    body = json.loads(value)
    window = body["window"]
    name = (body["model"], body["series"], body["segment"], window["start_ms"], window["end_ms"], body["collector"])
    return (*name, body.get("part", 0)), body


def _alike(one: Any, other: Any) -> bool:
    """Equal; floats to 1e-9."""
    if isinstance(one, float) and isinstance(other, float | int):
        return panes_kept.close(one, float(other))
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_alike(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(map(_alike, one, other))
    return bool(one == other)


def main(arguments: Sequence[str]) -> int:
    folder = Path(arguments[0])
    config = Path(arguments[1]) if len(arguments) > 1 else folder / "monitor.yaml"
    verdict = judge(Evidence.load(folder), config)
    print(json.dumps(verdict.as_json(), indent=2))
    return 0 if verdict.right else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""Plans, layouts, hashes and settings from a configuration and references."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from xxhash import xxh3_64_intdigest

from detectors.binning import Binning, Kind
from detectors.reference import ReferenceProfile, TargetReference, WindowInfo, WindowRule
from stream.config import Config, config_from
from stream.discover import discover
from stream.mapping import NATIVE
from stream.plan import CollectorPlan, Role
from stream.planning import (
    DeclaredTarget,
    PlanningError,
    UnknownTargetsError,
    check_names,
    collector_hash,
    collector_plan,
    declared_targets,
    model_plan,
    monitor_settings,
    window_rule,
)
from stream.sizing import (
    CATEGORICAL_BINS,
    NUMERIC_BINS,
    OPEN_WINDOW_TARGET_BYTES,
    STRATA_BYTES,
    WINDOW_TARGET_BYTES,
    StrataPlan,
    estimate,
    with_categories,
)


def config(model: dict[str, Any] | None = None, **more: Any) -> Config:
    data = {
        "kafka": {"bootstrap_servers": "a:1"},
        "topics": {"predictions": "p"},
        "models": {"fraud": {"reference": {"first": 100_000}} | (model or {})},
    }
    return config_from(data | more)


def numeric(name: str, role: str = "feature") -> TargetReference:
    binning = Binning(
        kind=Kind.NUMERIC,
        cuts=np.array([0.0, 1.0, 2.0]),
        core=(0, 3),
        centre=1.0,
        low=-5.0,
        high=5.0,
        key=np.empty(0, np.uint64),
        code=np.empty(0, np.int32),
        labels=(),
    )
    counts = np.full(6, 10, np.int64)
    return TargetReference(
        name=name,
        role=role,
        binning=binning,
        first=counts,
        counts=counts,
        rank=np.array([1, 2]),
        order=np.zeros((5, 2)),
        tie=np.zeros((5, 2)),
        windows=2,
        size_min=20,
        size_max=40,
        size_median=30,
        group=1,
        summary={},
        minimum=0.0,
        maximum=2.0,
    )


def profile(*targets: TargetReference) -> ReferenceProfile:
    windows = WindowInfo(2, 300_000, 500, 3_600_000, 60_000, 20, 40, checked=True)
    return ReferenceProfile("sha256:abc", "fraud", targets, windows, 120, {})


def test_a_reference_becomes_a_plan_and_a_layout() -> None:
    segments = {"segments": {"country": ["DE", 1]}}
    plan, layout = collector_plan(
        config(segments),
        {"fraud": profile(numeric("amount"), numeric("score", "score"), numeric("prediction", "prediction"))},
    )
    (model,) = plan.models
    assert layout.paths == ("features.amount", "score", "prediction", "segments.country")
    assert [(target.name, target.role, target.column) for target in model.targets] == [
        ("amount", Role.FEATURE, 0),
        ("score", Role.SCORE, 1),
        ("prediction", Role.PREDICTION, 2),
    ]
    assert model.reference == "sha256:abc"
    assert not model.learning
    assert model.sample_rows == 0
    assert model.segments[0].values == ("DE", "1")
    assert model.segments[0].value_hash[0] == xxh3_64_intdigest(b"DE")
    assert (plan.resolution_ms, plan.lateness_ms, plan.max_future_skew_ms, plan.dedup) == (
        60_000,
        60_000,
        300_000,
        True,
    )
    assert layout.models == ("fraud",)


def test_an_operators_range_replaces_the_references_and_an_unwatched_target_is_not_read() -> None:
    settings = {"targets": {"amount": {"range": [0, 2]}, "noise": {"watch": False}}}
    plan, layout = collector_plan(config(settings), {"fraud": profile(numeric("amount"), numeric("noise"))})
    (target,) = plan.models[0].targets
    assert (target.binning.low, target.binning.high) == (0.0, 2.0)
    assert layout.paths == ("features.amount",)


def test_the_hashes_name_what_counting_depends_on_and_nothing_else() -> None:
    references = {"fraud": profile(numeric("amount"))}

    def hash_of(made: Config) -> str:
        return collector_hash(made, collector_plan(made, references)[0])

    base = hash_of(config())
    assert hash_of(config({"owner": "me", "tolerance": 0.3}, prefix="x.")) == base
    changes = [
        config({"targets": {"amount": {"range": [0, 2]}}}),
        config({"segments": {"country": ["DE"]}}),
        config(resolution="30s"),
        config(dedup=False),
        config(max_future_skew="1m"),
        config(topics={"predictions": {"name": "p", "lateness": "5s"}}),
        config(topics={"predictions": {"name": "p", "mapping": {"timestamp": "at"}}}),
    ]
    assert len({base, *map(hash_of, changes)}) == len(changes) + 1
    moved = replace(numeric("amount"), binning=replace(numeric("amount").binning, cuts=np.array([0.0, 1.0, 2.5])))
    assert collector_hash(config(), collector_plan(config(), {"fraud": profile(moved)})[0]) != base


def test_a_learning_model_samples_whole_rows_of_the_declared_targets() -> None:
    settings = {
        "targets": {
            "amount": {"kind": "numeric", "range": [0, 9]},
            "prediction": {"kind": "categorical"},
            "x": {"tolerance": 0.1},
        }
    }
    made = config(settings)
    assert declared_targets(made, "fraud") == (
        DeclaredTarget("amount", Role.FEATURE, Kind.NUMERIC),
        DeclaredTarget("prediction", Role.PREDICTION, Kind.CATEGORICAL),
    )
    plan, layout = collector_plan(made, {"fraud": None})
    (model,) = plan.models
    assert model.learning
    assert model.reference == ""
    assert model.sample_rows == 15_000
    assert layout.paths == ("features.amount", "prediction")
    assert model.targets[0].binning.high == 9


@pytest.mark.parametrize(("first", "rows"), [(5_000, 5_000), (50_000, 7_500), (10_000_000, 20_000)])
def test_the_sample_is_a_share_of_what_is_learnt_from_within_limits(first: int, rows: int) -> None:
    made = config({"reference": {"first": first}, "targets": {"a": {"kind": "numeric"}}})
    assert collector_plan(made, {"fraud": None})[0].models[0].sample_rows == rows


def test_learning_without_any_target_is_refused_by_name() -> None:
    with pytest.raises(UnknownTargetsError, match=r"models\.fraud: reference\.first needs to know what to watch"):
        collector_plan(config(), {"fraud": None})


def test_what_a_sample_showed_is_corrected_by_the_configuration() -> None:
    found = (DeclaredTarget("amount", Role.FEATURE, Kind.NUMERIC), DeclaredTarget("id", Role.FEATURE, Kind.NUMERIC))
    made = config({"targets": {"amount": {"kind": "categorical"}, "id": {"watch": False}}})
    plan, _ = collector_plan(made, {"fraud": None}, {"fraud": found})
    assert [(target.name, target.binning.kind) for target in plan.models[0].targets] == [("amount", Kind.CATEGORICAL)]


def test_a_new_reference_with_a_column_that_is_not_read_needs_a_restart() -> None:
    with pytest.raises(PlanningError, match=r"features\.other is not read by this worker; restart"):
        model_plan(config(), "fraud", profile(numeric("other")), ["features.amount"])


def test_monitor_settings_carry_what_decides() -> None:
    made = config(
        {
            "false_alarms": "2 per 10d",
            "targets": {
                "amount": {"tolerance": 0.2},
                "age": {"tolerance": "auto"},
                "noise": {"watch": False, "tolerance": 1.0},
            },
            "detectors": [{"type": "psi", "targets": ["amount"], "threshold": 0.25}],
            "window": {"every": "5m"},
            "owner": "payments",
            "runbook": "https://wiki",
            "criticality": "high",
            "traffic": "split",
        }
    )
    settings = monitor_settings(made)
    model = settings.models["fraud"]
    assert settings.resolution_ms == 60_000
    assert model.budget_ms == 5 * 86_400_000
    assert model.tolerance_of("amount") == (0.2, False)
    assert model.tolerance_of("other") == (0.05, True)
    assert dict(model.tolerances) == {"amount": (0.2, False), "age": (0.05, True)}
    hashes = {
        monitor_settings(config({"tolerance": value, "targets": {"age": {"tolerance": own}}}))
        .models["fraud"]
        .detection_hash()
        for value in (0.05, "auto")
        for own in (0.05, "auto")
    }
    assert len(hashes) == 4, "auto decides about alarms"
    assert model.window == WindowRule(False, 300_000, 500, 3_600_000, 60_000)
    assert [(own.type, own.above, own.targets) for own in model.thresholds] == [("psi", 0.25, ("amount",))]
    assert (model.owner, model.runbook, model.criticality, model.traffic) == (
        "payments",
        "https://wiki",
        "high",
        "split",
    )
    assert model.learn_first == 100_000
    assert model.detection_hash() != monitor_settings(config()).models["fraud"].detection_hash()


def test_auto_windows_leave_the_length_to_the_reference() -> None:
    assert window_rule(config(), "fraud") == WindowRule(True, 0, 500, 0, 60_000)


@pytest.mark.parametrize(
    ("more", "events"),
    [
        ({"reference": {"file": "rows.parquet", "time": "at"}}, 10),
        ({"reference": {"file": "rows.parquet", "time": "at"}, "window": {"min_events": 70}}, 70),
        ({"reference": {"file": "rows.parquet", "time": "at"}, "window": {"every": "5m"}}, 500),
        ({"reference": {"file": "rows.parquet", "time": "at"}, "detectors": [{"type": "psi", "threshold": 0.2}]}, 500),
        ({"reference": {"file": "rows.parquet"}}, 500),
        ({"reference": {"first": 100_000}}, 500),
    ],
)
def test_windows_are_small_only_where_the_reference_shows_that_they_may_be(more, events) -> None:
    made = config(more)
    assert window_rule(made, "fraud").min_events == events
    assert monitor_settings(made).models["fraud"].min_events == events


def test_names_that_the_reference_does_not_have() -> None:
    made = config(
        {
            "targets": {"amuont": {"tolerance": 0.1}},
            "detectors": [{"type": "psi", "targets": ["score"], "threshold": 1}],
        }
    )
    assert check_names(made, "fraud", ["amount"]) == [
        (
            ("models", "fraud", "targets", "amuont"),
            "the reference has no amuont",
            "did you mean `amount`?  Known here: amount",
        ),
        (("models", "fraud", "detectors", 0, "targets", 0), "the reference has no score", "Known here: amount"),
    ]


def test_the_memory_grows_as_the_arithmetic_says() -> None:
    references = {"fraud": profile(*(numeric(f"f{n}") for n in range(100)))}
    plain, _ = collector_plan(config(), references)
    eight = estimate(plain, 8)
    assert eight.edge_bytes == 8 * (100 * ((4 + 3) * 4 + 32) + 1_500)  # 75,000 events a pane
    assert estimate(plain, 8, events_per_s=8_700).edge_bytes == 8 * (100 * ((4 + 3) * 2 + 32) + 1_500)  # 65,250
    assert estimate(plain, 8, events_per_s=1 << 30).edge_bytes == 8 * (100 * ((4 + 3) * 8 + 32) + 1_500)
    assert (
        eight.panes_bytes == 2 * eight.edge_bytes
    )  # the current one, and the one that a lateness of a minute keeps open
    assert eight.ids_bytes == 10_000 * 120 * 26
    assert eight.sample_bytes == 0
    assert eight.detectors_bytes == 100 * 5_000
    assert estimate(plain, 16, events_per_s=20_000).edge_bytes == 2 * eight.edge_bytes
    segments = {"segments": {"country": [f"c{n}" for n in range(9)]}}
    assert estimate(collector_plan(config(segments), references)[0], 8).edge_bytes == 11 * eight.edge_bytes
    assert estimate(collector_plan(config(dedup=False), references)[0], 8).ids_bytes == 0
    assert eight.as_json()["total_bytes"] == eight.total_bytes == sum(eight.terms.values())
    learning, _ = collector_plan(
        config(), dict.fromkeys(references), {"fraud": (DeclaredTarget("f0", Role.FEATURE, Kind.NUMERIC),)}
    )
    rows = learning.models[0].sample_rows
    hours = StrataPlan(24, 35)
    told, auto = (
        estimate(plain, 8, planned_strata={"fraud": hours}),
        estimate(plain, 8, planned_strata={"fraud": replace(hours, auto=True)}),
    )
    each = STRATA_BYTES[Kind.NUMERIC] + 24 * (
        7 * 36 * 2 + (4 + 2 + 3) * 2
    )  # 7 statistics; 4 bins, missing, invalid, and the rows that chose them
    assert told.strata_bytes == auto.auto_strata_bytes == 100 * each
    assert (
        told.total_bytes - eight.total_bytes == told.strata_bytes * 9 // 8
    )  # its snapshot, of one of 8 monitors at a time
    assert auto.total_bytes == eight.total_bytes
    sizes = estimate(plain, 8, planned_strata={"fraud": replace(hours, by_clock=False)})
    assert sizes.strata_bytes - told.strata_bytes == 100 * 23 * STRATA_BYTES[Kind.NUMERIC]  # all are in force
    assert estimate(learning, 8).sample_bytes == 8 * 2 * rows * 9
    assert estimate(learning, 8, learning=()).sample_bytes == 0  # its reference is in a file that was not built yet


def test_registers_are_expected_where_values_share_a_bin_or_are_not_known() -> None:
    """Nothing but these differs between the plans of one target with so many categories."""
    declared = {"fraud": (DeclaredTarget("c", Role.FEATURE, Kind.CATEGORICAL),)}
    unknown = collector_plan(config(), {"fraud": None}, declared)[0].models[0]

    def edge(categories: dict[str, int]) -> tuple[int, int]:
        model = with_categories(unknown, categories)
        binning = model.targets[0].binning
        plan = CollectorPlan((model,), resolution_ms=60_000, lateness_ms=0, max_future_skew_ms=0)
        counts = ((binning.bins or CATEGORICAL_BINS) + 3) * 2
        return estimate(plan, 1, events_per_s=1_000).edge_bytes - counts - 32 - 1_500, binning.bins

    assert edge({}) == edge({"other": 3}) == (2_048, 0)
    assert [edge({"c": n}) for n in (0, 3, 30, 31)] == [(0, 2), (0, 5), (0, 32), (0, 32)]
    assert [edge({"c": n}) for n in (32, 500)] == [(2_048, 32), (2_048, 32)]


def test_open_windows_keep_registers_of_categorical_targets_only() -> None:
    kinds = {f"t{n}": Kind.CATEGORICAL if n < 2 else Kind.NUMERIC for n in range(9)}
    declared = {"fraud": tuple(DeclaredTarget(name, Role.FEATURE, kind) for name, kind in kinds.items())}
    plan, _ = collector_plan(config(), {"fraud": None}, declared)
    bins = 2 * CATEGORICAL_BINS + 7 * NUMERIC_BINS
    windows = estimate(plan, 8).windows_bytes - 9 * WINDOW_TARGET_BYTES
    assert windows == bins * 8 + 9 * OPEN_WINDOW_TARGET_BYTES + 2 * 2_048


def test_targets_are_proposed_from_a_sample() -> None:
    events = [
        {
            "model": "fraud",
            "features": {
                "amount": n * 1.5,
                "country": "DE" if n % 3 else "FR",
                "text": f"session {n}",
                "new": bool(n % 2),
                "empty": None,
                "nested": {"a": 1},
                "mixed": "x" if n % 10 == 0 else n,
            },
            "prediction": n % 2,
            "score": n / 100,
        }
        for n in range(100)
    ]
    found = discover([*events, {"model": "other", "features": {"x": 1}}, b"{", b"[1]"], NATIVE, ["fraud", "quiet"])
    assert found["quiet"] == ()
    assert [(target.name, target.role.value, target.kind.value) for target in found["fraud"]] == [
        ("amount", "feature", "numeric"),
        ("country", "feature", "categorical"),
        ("mixed", "feature", "numeric"),
        ("new", "feature", "categorical"),
        ("prediction", "prediction", "categorical"),
        ("score", "score", "numeric"),
    ]


def test_a_prediction_with_many_values_is_numeric() -> None:
    events = [{"model": "fraud", "features": {"a": 1}, "prediction": n} for n in range(100)]
    found = discover(events, NATIVE, ["fraud"])["fraud"]
    assert DeclaredTarget("prediction", Role.PREDICTION, Kind.NUMERIC) in found

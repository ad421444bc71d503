"""Limits that a reference makes: what it keeps, windows of another size, the rate they hold, and what alerts and commands say."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray
from pyarrow import parquet
from typer.testing import CliRunner

from detectors.column_values import read_column
from detectors.reference import (
    CorruptReference,
    ReferenceProfile,
    UnknownReferenceVersion,
    WindowRule,
    from_sections,
    to_sections,
)
from detectors.reference_build import build_reference
from detectors.reference_kept import KEPT_MAX, KeptWindows, Resized, kept_places, resize_seed, resized, sizes
from detectors.reference_versions import VERSION_NEWEST
from detectors.reference_windows import bins_of, count_windows
from stream.cli import app
from stream.config import config_from
from stream.config_errors import ConfigError
from stream.config_loader import load
from stream.planning import monitor_settings
from stream.preflight import preflight
from stream.reference_limits import (
    ReferenceLimits,
    Tail,
    poisson_limit,
    series_of,
    steps_around,
    without_windows,
)
from stream.references import for_use
from stream.replay import ReplayResult, replay
from stream.sizing import KEPT_TARGET_BYTES
from stream.window_series import FromReference, Threshold, named

F64 = NDArray[np.float64]
HOUR_MS = 3_600_000
WINDOWS, EVENTS = 470, 300
THOUSANDTH = FromReference(period_ms=1000.0 * HOUR_MS, text="1 per 1000h")
THREE = FromReference(deviations=3.0, text="3 std")


def built(
    g: np.random.Generator, sizes_of: NDArray[np.int64], draw: str = "normal", **columns: Any
) -> ReferenceProfile:
    """An hour a window, so many events in each; x has .2 % missing values."""
    n = int(sizes_of.sum())
    x = g.normal(size=n) if draw == "normal" else g.lognormal(size=n)
    x[g.random(n) < 0.002] = np.nan
    time_ms = np.repeat(np.arange(len(sizes_of), dtype=np.int64) * HOUR_MS, sizes_of)
    columns = {"x": x} | columns
    rule = WindowRule(auto=False, every_ms=HOUR_MS, min_events=1, resolution_ms=HOUR_MS)
    roles = dict.fromkeys(columns, "feature")
    return build_reference("m", columns, roles, time_ms=time_ms, window=rule, ranges={"x": (-3.0, 3.0)})


@pytest.fixture(scope="module")
def profile() -> ReferenceProfile:
    g = np.random.default_rng(1)
    events = g.integers(100, 1000, WINDOWS)
    return built(g, events, c=g.choice(np.array(["a", "b", "c"], object), int(events.sum()), p=[0.6, 0.3, 0.1]))


def cut(profile: ReferenceProfile, values: F64, size: int) -> Resized:
    """Windows of live values, counted as the product counts them; sums and extremes by numpy."""
    binning = profile.target("x").binning
    rows = values.reshape(-1, size)
    of_row = np.repeat(np.arange(len(rows)), size).astype(np.int32)
    bins = bins_of(binning, read_column("x", values, "feature"))
    moved = rows - binning.centre
    return Resized(
        count_windows(bins, binning.bins + 2, of_row, len(rows)),
        np.stack([np.nansum(moved, axis=1), np.nansum(moved**2, axis=1)], axis=1),
        np.stack([np.nanmin(rows, axis=1), np.nanmax(rows, axis=1)], axis=1),
        (np.abs(rows) > 3.0).sum(axis=1),
    )


def kept_of(profile: ReferenceProfile, name: str = "x") -> KeptWindows:
    found = profile.target(name).kept
    assert found is not None
    return found


def test_what_is_kept_is_what_the_rows_give() -> None:
    g = np.random.default_rng(2)
    x = g.normal(size=500 * 100)
    time_ms = np.repeat(np.arange(500, dtype=np.int64) * HOUR_MS, 100)
    rule = WindowRule(auto=False, every_ms=HOUR_MS, min_events=1, resolution_ms=HOUR_MS)
    found = build_reference("m", {"x": x}, {"x": "feature"}, time_ms=time_ms, window=rule, ranges={"x": (-3.0, 3.0)})
    rows = x[7500:].reshape(-1, 100)[kept_places(found.windows.count)]
    kept = kept_of(found)
    assert len(kept.counts) == KEPT_MAX
    centre = found.target("x").binning.centre
    assert kept.sums[:, 0] == pytest.approx((rows - centre).sum(axis=1), abs=1e-9)
    assert kept.sums[:, 1] == pytest.approx(((rows - centre) ** 2).sum(axis=1), rel=1e-12)
    assert np.array_equal(kept.extremes, np.stack([rows.min(axis=1), rows.max(axis=1)], axis=1))
    assert np.array_equal(kept.out_of_range, (np.abs(rows) > 3.0).sum(axis=1))
    whole = np.zeros((KEPT_MAX, found.target("x").binning.bins + 2), np.int64)
    whole[:, kept.bin] = kept.counts
    expected = cut(found, rows.reshape(-1), 100)
    assert np.array_equal(whole, expected.counts)
    # brought to the size that they have, they are what they were, bit for bit
    same = resized(kept, found.target("x").binning, found.windows.count, 100, resize_seed("x", found.id, 100))
    assert np.array_equal(same.counts, whole)
    assert np.array_equal(same.sums, kept.sums)
    assert np.array_equal(same.extremes, kept.extremes)
    assert np.array_equal(same.out_of_range, kept.out_of_range)
    half = resized(kept, found.target("x").binning, found.windows.count, 50, resize_seed("x", found.id, 50))
    assert (half.out_of_range <= kept.out_of_range).all()
    assert half.out_of_range.sum() == pytest.approx(kept.out_of_range.sum() / 2, rel=0.3)


def test_a_long_reference_keeps_neighbours_from_all_over(profile: ReferenceProfile) -> None:
    places = kept_places(50_000)
    assert len(places) == len(np.unique(places)) == KEPT_MAX
    assert (places[0], places[-1]) == (0, 49_999)
    assert (np.diff(places) == 1).sum() == KEPT_MAX - 20
    assert np.array_equal(kept_places(37), np.arange(37))
    # neighbours are put together, never the end of one stretch and the start of the next
    n = np.full((KEPT_MAX, 1), 100)
    nothing = np.full((KEPT_MAX, 2), np.nan)
    few = KeptWindows(np.array([1]), n, np.zeros((KEPT_MAX, 2)), nothing, np.zeros(KEPT_MAX, np.int64))
    binning = profile.target("c").binning
    for count, pools in ((KEPT_MAX, KEPT_MAX // 3), (50_000, 20 * (KEPT_MAX // 20 // 3))):
        assert len(resized(few, binning, count, 300, np.uint64(1)).counts) == pools


def test_windows_of_another_size_have_exactly_so_many_of_the_same_events(profile: ReferenceProfile) -> None:
    binning, kept, count = profile.target("x").binning, kept_of(profile), profile.windows.count
    low, high = sizes(kept, count)
    events = kept.counts.sum(axis=1, dtype=np.int64)
    assert low == profile.windows.size_min == events.min()
    for size in (low, 555, 3000, high):
        found = resized(kept, binning, count, size, resize_seed("x", profile.id, size))
        assert (found.counts.sum(axis=1) == size).all()
        assert len(found.counts) >= 20
        again = resized(kept, binning, count, size, resize_seed("x", profile.id, size))
        assert np.array_equal(found.sums, again.sums)
        # neighbours, one after the other, as long as they have too few
        total, pools = 0, 0
        for now in events.tolist():
            total += now
            if total >= size:
                total, pools = 0, pools + 1
        assert len(found.counts) == pools
        # moments as those of so many rows: the mean of values of deviation 1
        mean = found.sums[:, 0] / found.counts[:, : binning.bins].sum(axis=1) + binning.centre
        assert mean.std() * np.sqrt(size) == pytest.approx(1.0, abs=4 / np.sqrt(2 * pools))
        std = np.sqrt(found.sums[:, 1] / found.counts[:, : binning.bins].sum(axis=1) - (mean - binning.centre) ** 2)
        assert std.mean() == pytest.approx(1.0, abs=0.01)


def test_the_format_keeps_windows_reads_older_ones_and_refuses_newer(profile: ReferenceProfile) -> None:
    header, sections = to_sections(profile)
    assert header["version"] == 3
    again = from_sections(header, sections)
    for name in ("x", "c"):
        for part in ("bin", "counts", "sums", "extremes", "out_of_range"):
            before, after = getattr(kept_of(profile, name), part), getattr(kept_of(again, name), part)
            assert np.array_equal(before, after, equal_nan=part == "extremes"), (name, part)
            assert before.dtype == after.dtype
    with pytest.raises(CorruptReference):
        from_sections(header, sections | {"kept_counts": sections["kept_counts"][::-1]})
    old = without_windows(profile)
    header, sections = to_sections(old)
    assert header["version"] == 1
    assert not [name for name in sections if name.startswith("kept")]
    read = from_sections(header, sections)
    assert read.id == profile.id, "the same rows, the same id: an older reference can be built again in its place"
    assert read.target("x").kept is None
    assert ReferenceLimits(read, [Threshold("psi", THREE)]).of(Threshold("psi", THREE), "x", 300, HOUR_MS).above is None
    with pytest.raises(
        UnknownReferenceVersion,
        match=f"format {VERSION_NEWEST + 1}; this program reads up to {VERSION_NEWEST}",
    ):
        from_sections(header | {"version": VERSION_NEWEST + 1}, sections)
    sized = sum(part.nbytes for part in (kept_of(profile).counts, kept_of(profile).sums, kept_of(profile).extremes))
    assert sized < 50_000


def test_a_tail_is_passed_as_often_as_it_says_the_error_of_its_estimate_included() -> None:
    g = np.random.default_rng(3)
    runs, wanted = 4000, (0.05, 0.01, 1e-3, 1e-4)
    above = np.zeros(len(wanted))
    for _ in range(runs):
        tail = Tail.of(g.exponential(size=200))
        above += [np.exp(-tail.limit(p)) for p in wanted]  # the probability that a new value is beyond
    assert above / runs == pytest.approx(np.array(wanted), rel=0.12)
    assert Tail.of(np.arange(100.0)).limit(0.5) == Tail.of(np.arange(100.0)).limit(0.11) == 89.0


def test_small_numbers_by_hand() -> None:
    assert poisson_limit(1.0, 0.3) == 1  # P(> 1) = 1 - 2/e = .26
    assert poisson_limit(1.0, 0.26) == 2
    assert poisson_limit(0.0025, 2e-5) == 1
    assert [steps_around(size, 100, 190) for size in (100, 101, 141, 150, 190)] == [
        (100, 100), (100, 141), (141, 141), (141, 190), (190, 190)
    ]  # fmt: skip
    assert steps_around(2, 1, 3) == (2, 2)
    assert named([Threshold("psi", THREE, None, ("a", "q")), Threshold("psi", 0.2)], ["a", "b"]) == {"a"}


@pytest.mark.parametrize("name", ["mean", "p50", "psi", "kolmogorov_smirnov", "wasserstein", "missing", "out_of_range"])
def test_a_calibrated_limit_holds_its_rate_at_every_size_of_window(profile: ReferenceProfile, name: str) -> None:
    """Live windows of 110, 300 and 900 events against a reference whose windows have 100 to 1000."""
    g = np.random.default_rng(4)
    limit = Threshold(name, THOUSANDTH, None, ("x",))
    limits, windows = ReferenceLimits(profile, [limit]), 6000
    values, made = {}, {}
    for size in (110, 300, 900):
        live = g.normal(size=size * windows)
        live[g.random(len(live)) < 0.002] = np.nan
        values[size] = series_of(profile, "x", cut(profile, live, size), size, [limit])[name]
        above = limits.of(limit, "x", size, HOUR_MS).above
        assert above is not None
        made[size] = above
        # a thousandth: Poisson of mean 6, below 18 but for 3 in 100,000; the reference's own error on top
        assert (values[size] > above).sum() <= 18, (size, above)
        # and it is no limit that nothing passes: twice an hour's rate is a tenth of the windows at most
        often = limits.of(limit, "x", size, 50 * HOUR_MS).above
        assert often is not None
        if name not in {"missing", "out_of_range"}:  # counts of few events jump
            assert 0.015 < (values[size] > often).mean() < 0.12  # .05, of a tail of 39 windows
    if name == "psi":  # what one constant for all sizes would do
        assert (values[110] > made[900]).mean() > 0.2
        assert made[110] > 5 * made[900]


def test_deviations_are_those_of_windows_of_the_live_size(profile: ReferenceProfile) -> None:
    limit = Threshold("mean", THREE, THREE)
    limits = ReferenceLimits(profile, [limit])
    for size in (100, 400, 900):
        sides = limits.of(limit, "x", size, HOUR_MS)
        assert sides.above is not None
        assert sides.below is not None
        assert (sides.above - sides.below) / 2 * np.sqrt(sides.size) == pytest.approx(3.0, rel=0.15)
        assert sides.size == max(size, profile.windows.size_min)
    # more events than all of the reference's windows together could show: as far as they go
    assert limits.of(limit, "x", 10**9, HOUR_MS) == limits.of(limit, "x", 10**8, HOUR_MS)
    assert limits.of(limit, "c", 300, HOUR_MS).above is None, "a category has no mean"


def test_slow_movement_of_the_reference_is_in_its_limits() -> None:
    """Hours that move together: put together they do not scatter less, as those of independent rows would."""
    g = np.random.default_rng(5)
    events = np.full(WINDOWS, EVENTS)
    steps = np.repeat(np.repeat(g.normal(size=WINDOWS // 10), 10) * 0.5, EVENTS)
    plain, moving = Threshold("mean", THREE, None, ("x",)), Threshold("mean", THREE, None, ("y",))
    limits = ReferenceLimits(built(g, events, y=g.normal(size=len(steps)) + steps), [plain, moving])
    for size in (EVENTS, 4 * EVENTS):
        still, slow = (limits.of(t, n, size, HOUR_MS).above for t, n in ((plain, "x"), (moving, "y")))
        assert still is not None
        assert slow is not None
        assert still * np.sqrt(size) < 4
        assert slow > 1.0


def test_a_rate_that_never_was_is_not_passed_by_the_first_event() -> None:
    g = np.random.default_rng(6)
    found = build_reference("m", {"x": g.normal(size=40_000)}, {"x": "feature"})
    limit = Threshold("missing", FromReference(period_ms=43_200 * HOUR_MS), None, ("x",))
    above = ReferenceLimits(found, [limit]).of(limit, "x", found.windows.size_min, HOUR_MS).above
    assert above is not None
    assert 1 <= above * found.windows.size_min < 3


def test_the_rate_of_an_entry_is_shared_by_its_targets_and_grows_with_the_window(profile: ReferenceProfile) -> None:
    both, one = Threshold("psi", THOUSANDTH), Threshold("psi", THOUSANDTH, None, ("x",))
    limits = ReferenceLimits(profile, [both, one])
    assert limits.of(both, "x", 300, 2 * HOUR_MS) == limits.of(one, "x", 300, HOUR_MS)
    wide, narrow = limits.of(one, "x", 300, HOUR_MS).above, limits.of(one, "x", 300, 2 * HOUR_MS).above
    assert wide is not None
    assert narrow is not None
    assert wide > narrow
    test = Threshold("chi_squared", None, THOUSANDTH, ("x",))
    p = ReferenceLimits(profile, [test]).of(test, "x", 300, HOUR_MS).below
    assert p is not None
    assert 1e-6 < p < 2e-3


# ---- what users see ---------------------------------------------------------------------------------------------------

LIMITS = [
    {"type": "psi", "threshold": "1 per 30d", "targets": ["amount"]},
    {"type": "p50", "threshold": "6 std", "below": "6 std", "targets": ["amount"]},
]


def config_of(folder: Path, detectors: list[dict[str, Any]], **reference: Any) -> Any:
    return config_from(
        {
            "kafka": {"bootstrap_servers": "unused:9092"},
            "topics": {"predictions": {"name": "predictions", "lateness": "1s", "mapping": {"timestamp_unit": "s"}}},
            "resolution": "1s",
            "defaults": {"window": {"every": "1s", "min_events": 50}, "tolerance": 3.0},
            "models": {"m": {"reference": reference, "detectors": detectors}},
        },
        base=folder,
    )


def lines(seconds: int, shift_from: int, seed: int = 1, start_s: int = 1_763_806_500) -> list[bytes]:
    r = random.Random(seed)
    found = []
    for second in range(seconds):
        for i in range(100):
            amount = r.gauss(0.0, 1.0) + (2.0 if second >= shift_from else 0.0)
            event = {"prediction_id": f"{second}-{i}", "model": "m", "version": "1", "features": {"amount": amount}}
            found.append(json.dumps(event | {"timestamp": start_s + second + i / 100, "prediction": 1}).encode())
    return found


def replayed(folder: Path, detectors: list[dict[str, Any]], shift_from: int, **reference: Any) -> ReplayResult:
    return replay(config_of(folder, detectors, **reference), lines(shift_from + 20, shift_from))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    g = np.random.default_rng(7)
    rows = 47_000
    time_ms = np.arange(rows, dtype=np.int64) * 10
    table = {"timestamp": time_ms.astype("datetime64[ms]"), "amount": g.normal(size=rows), "prediction": np.ones(rows)}
    parquet.write_table(pa.table(table), tmp_path / "rows.parquet")
    return tmp_path


def opened(result: ReplayResult) -> list[dict[str, Any]]:
    return [alert["data"] for alert in result.alerts if ".opened." in alert["type"]]


@pytest.mark.parametrize("reference", [{"file": "rows.parquet", "time": "timestamp"}, {"first": 40_000}])
def test_an_alert_carries_the_limit_and_how_it_was_made(folder: Path, reference: dict[str, Any]) -> None:
    """Of a file and of what was learnt; the detector itself is told that nothing matters."""
    shift_from = 40 if "file" in reference else 520
    (alert,) = opened(replayed(folder, LIMITS, shift_from, **reference))
    assert alert["target"] == "amount"
    assert alert["evidence"]["promise"] == "none: an operator's threshold"
    found = {each["type"]: each for each in alert["evidence"]["thresholds"]}
    assert set(found) == {"psi", "p50"}
    assert found["psi"]["made"] == "1 per 30d by the reference's windows of 100 events"
    assert found["p50"]["made"] == "6 std by the reference's windows of 100 events"
    assert 0.5 < found["p50"]["threshold"] < 1.2, "six times 1.25 / sqrt(100)"
    assert 1.5 < found["p50"]["value"] < 2.5
    assert "(1 per 30d by the reference's windows of 100 events); nothing is promised" in alert["summary"]


def test_a_limit_that_the_reference_cannot_make_pages_never(folder: Path) -> None:
    assert not opened(replayed(folder, [{"type": "unseen", "threshold": "3 std"}], 40, file="rows.parquet"))


def test_what_is_decided_by_limits_is_in_the_hash(folder: Path) -> None:
    def hashed(threshold: Any) -> str:
        config = config_of(folder, [{"type": "psi", "threshold": threshold}], file="rows.parquet")
        return monitor_settings(config).models["m"].detection_hash()

    assert len({hashed(0.2), hashed("3 std"), hashed("4 std"), hashed("1 per 30d"), hashed("2 per 30d")}) == 5
    assert hashed("1 per 30d") == hashed("1 per 720h")


@pytest.mark.parametrize(
    ("entry", "code", "read", "expected"),
    [
        ("threshold: 3 stds", "DL-C011", "'3 stds' is no limit", 'a number, "3 std" or "1 per 30d"'),
        ("threshold: true", "DL-C011", "true is no limit", 'a number, "3 std" or "1 per 30d"'),
        ("threshold: .inf", "DL-C014", "inf is not finite", 'a number, "3 std" or "1 per 30d"'),
        ("threshold: 0 std", "DL-C014", "0 std is out of range", "more than 0 and at most 1000 std"),
        (
            "threshold: 1 per month",
            "DL-C015",
            "'1 per month' is no rate",
            '"1 per 30d"',
        ),
        ("threshold: 0 per 1d", "DL-C014", "0 per 1d is out of range", "more than 0"),
    ],
)
def test_what_is_no_limit_is_refused_where_it_stands(
    tmp_path: Path, entry: str, code: str, read: str, expected: str
) -> None:
    (tmp_path / "monitor.yaml").write_text(
        'kafka: {bootstrap_servers: "127.0.0.1:1"}\ntopics: {predictions: predictions}\nmodels:\n  m:\n'
        f"    reference: {{first: 20000}}\n    detectors:\n      - {{type: psi, {entry}}}\n"
    )
    with pytest.raises(ConfigError) as caught:
        load(tmp_path / "monitor.yaml")
    (problem,) = caught.value.problems
    assert (problem.code, problem.line, problem.column) == (code, 7, 32)
    assert problem.path == "models.m.detectors[0].threshold"
    assert problem.read == read
    assert problem.expected.startswith(f"expected: {expected}")


def test_a_worker_keeps_the_windows_of_targets_with_such_limits_alone(
    folder: Path, profile: ReferenceProfile, caplog: pytest.LogCaptureFixture
) -> None:
    config = config_of(folder, [{"type": "psi", "threshold": "3 std", "targets": ["x"]}], file="rows.parquet")
    used = for_use(config, profile)
    assert used.id == profile.id
    assert used.target("x").kept is profile.target("x").kept
    assert used.target("c").kept is None
    assert not caplog.records
    assert for_use(config_of(folder, [], file="rows.parquet"), profile).target("x").kept is None
    for_use(config, without_windows(profile))
    (said,) = caplog.records
    assert "limits on x that it is to make page never; build it again" in said.getMessage()
    size = {n: preflight(write(folder, limit), partitions=1, events_per_s=10).estimate for n, limit in (
        ("constant", "0.2"), ("made", "3 std"))}  # fmt: skip
    assert size["constant"] is not None
    assert size["made"] is not None
    assert size["made"].references_bytes - size["constant"].references_bytes == KEPT_TARGET_BYTES


def write(folder: Path, limit: str) -> Path:
    path = folder / "monitor.yaml"
    path.write_text(
        'kafka: {bootstrap_servers: "127.0.0.1:1"}\ntopics: {predictions: predictions}\nmodels:\n  m:\n'
        f"    reference: {{file: rows.parquet}}\n    detectors: [{{type: psi, threshold: {limit}, targets: [amount]}}]\n"
    )
    return path


@pytest.mark.parametrize(
    ("entry", "read"),
    [
        ({"type": "distinct", "threshold": "3 std"}, "a reference keeps no distinct of its windows"),
        ({"type": "g_test", "below": "3 std"}, "p of g_test has no deviations that mean anything"),
        ({"type": "g_test", "threshold": "1 per 30d"}, "g_test pages where p is small"),
        ({"type": "psi", "below": "1 per 30d"}, "psi pages where it is large"),
    ],
)
def test_limits_that_no_series_can_have_are_refused(tmp_path: Path, entry: dict[str, Any], read: str) -> None:
    with pytest.raises(Exception, match=read):
        config_of(tmp_path, [entry], first=20_000)


def test_check_reference_shows_the_limits(folder: Path) -> None:
    (folder / "monitor.yaml").write_text(
        'kafka: {bootstrap_servers: "127.0.0.1:1"}\ntopics: {predictions: predictions}\nresolution: 1s\n'
        "defaults: {window: {every: 1s, min_events: 50}}\nmodels:\n  m:\n"
        "    reference: {file: rows.parquet, time: timestamp}\n    detectors:\n"
        "      - {type: psi, threshold: 1 per 30d, targets: [amount]}\n      - {type: mean, threshold: 3 std, below: -1}\n"
    )
    result = CliRunner().invoke(app, ["check-reference", "-c", str(folder / "monitor.yaml")])
    lines = [line.split("  ") for line in result.stdout.splitlines()]
    rows = [[cell.strip() for cell in line if cell.strip()] for line in lines if line[0] == "psi"]
    assert [row[1:4] for row in rows] == [["amount", "above 1 per 30d", size] for size in ("50", "100")]
    assert "limits that the reference makes page outside the promise of `false_alarms`" in result.stdout
    assert "if what exceeds the largest tenth of them is exponential" in result.stdout
    result = CliRunner().invoke(app, ["check-reference", "-o", "json", "-c", str(folder / "monitor.yaml")])
    (report,) = json.loads(result.stdout)
    found = {(row["series"], row["target"]): row for row in report["limits"] if row["events"] == 100}
    assert found["mean", "amount"]["configured"] == {"above": "3 std", "below": "-1.0"}
    assert found["mean", "amount"]["limits"]["above"] == pytest.approx(0.3, rel=0.15)
    assert found["mean", "amount"]["limits"]["below"] == -1.0
    assert float(rows[1][-1].removeprefix("above ")) == pytest.approx(
        found["psi", "amount"]["limits"]["above"], rel=1e-3
    )

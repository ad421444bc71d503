"""check-reference: independent windows pass, dependent, alternating and trending ones are named, without time nothing is known."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray
from pyarrow import parquet
from typer.testing import CliRunner

sys.path.insert(0, str(Path(__file__).parents[1]))
import detector_kits as kit

from detectors.exchangeability import Cause, Exchangeable, TargetCheck, autocorrelation, check_target, rank_trend
from detectors.reference import WindowRule
from detectors.reference_build import build_reference, build_with_windows
from stream.cli import app
from stream.commands.check_reference import conclusion

EVENTS, WINDOWS = 60, 500
ROWS = EVENTS * WINDOWS
HOUR_MS = 3_600_000
TIME_MS = np.arange(ROWS, dtype=np.int64) * (HOUR_MS // EVENTS)
HOURLY = WindowRule(auto=False, every_ms=HOUR_MS, min_events=1, resolution_ms=HOUR_MS)


def checked(time_ms: NDArray[np.int64] | None = TIME_MS, **columns: NDArray[np.float64]) -> dict[str, TargetCheck]:
    roles = dict.fromkeys(columns, "feature")
    profile, windows, start_ms = build_with_windows("m", columns, roles, time_ms=time_ms, window=HOURLY)
    assert profile.id == build_reference("m", columns, roles, time_ms=time_ms, window=HOURLY).id
    return {
        t.name: check_target(t, w, profile.windows, start_ms) for t, w in zip(profile.targets, windows, strict=True)
    }


def test_figures_by_hand() -> None:
    assert rank_trend(np.arange(1.0, 8.0)) == pytest.approx(1.0)
    assert rank_trend(np.arange(7.0, 0.0, -1.0)) == pytest.approx(-1.0)
    assert rank_trend(np.array([2.0, 1.0, 4.0, 3.0])) == pytest.approx(0.6)
    assert autocorrelation(np.array([1.0, -1.0, 1.0, -1.0])) == pytest.approx(-0.75)


def test_independent_rows_are_exchangeable() -> None:
    g = np.random.default_rng(1)
    found = checked(x=g.normal(size=ROWS), atom=np.maximum(0.0, g.normal(size=ROWS)), constant=np.ones(ROWS))
    assert set(found) == {"x", "atom", "constant"}
    for check in found.values():
        assert check.exchangeable is Exchangeable.YES, check
        assert abs(check.lag1 or 0.0) < 3 * (check.lag1_error or 0.0)


def test_weather_a_trend_and_day_and_night_are_named() -> None:
    g = np.random.default_rng(2)
    weather = np.repeat(kit.autoregressive(g, WINDOWS // 20, 0.9), EVENTS * 20)
    found = checked(
        weather=g.normal(size=ROWS) + weather,
        trend=g.normal(size=ROWS) + np.linspace(0.0, 0.3, ROWS),
        alternating=g.normal(size=ROWS) + np.repeat(np.tile([0.5, -0.5], WINDOWS // 2), EVENTS),
        still=g.normal(size=ROWS),
    )
    assert {name: check.exchangeable.value for name, check in found.items()} == {
        "weather": "no",
        "trend": "no",
        "alternating": "no",
        "still": "yes",
    }
    assert Cause.DEPENDENCE in found["weather"].causes
    assert (found["weather"].lag1 or 0.0) > 0.6
    assert Cause.TREND in found["trend"].causes
    assert (found["trend"].trend or 0.0) > 0.3
    assert found["alternating"].causes == (Cause.ALTERNATION,)


def test_chance_seldom_says_no() -> None:
    g = np.random.default_rng(3)
    found = checked(**{f"x{i}": g.normal(size=ROWS) for i in range(40)})
    said = [check.exchangeable for check in found.values()]
    assert said.count(Exchangeable.NO) <= 1
    assert said.count(Exchangeable.YES) >= 36


def test_few_windows_show_nothing() -> None:
    g = np.random.default_rng(4)
    few = ROWS // 8
    check = checked(TIME_MS[:few], x=g.normal(size=few))["x"]
    assert (check.exchangeable, check.causes) == (Exchangeable.UNKNOWN, (Cause.TOO_FEW,))


def command(
    folder: Path, *arguments: str, time: bool = True, targets: str = "", **columns: NDArray[np.float64]
) -> tuple[int, str]:
    table = ({"timestamp": TIME_MS.astype("datetime64[ms]")} if time else {}) | columns
    parquet.write_table(pa.table(table), folder / "rows.parquet")
    (folder / "monitor.yaml").write_text(
        'kafka: {bootstrap_servers: "127.0.0.1:1"}\ntopics: {predictions: predictions}\nresolution: 1h\n'
        "defaults: {window: {every: 1h, min_events: 50}}\nmodels: {m: {reference: {file: rows.parquet}%s}}\n"
        % (f", targets: {targets}" if targets else "")
    )
    result = CliRunner().invoke(app, ["check-reference", "-c", str(folder / "monitor.yaml"), *arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.stdout


def test_the_command_ends_with_0_where_all_are_exchangeable(tmp_path: Path) -> None:
    code, out = command(tmp_path, x=np.random.default_rng(1).normal(size=ROWS))
    assert code == 0, out
    assert "at least 1h and 50 events each, as configured" in out
    assert "m: all 1 targets look exchangeable: `false_alarms` is promised" in out


def test_the_command_names_what_is_not(tmp_path: Path) -> None:
    g = np.random.default_rng(5)
    still, drifting = g.normal(size=ROWS), g.normal(size=ROWS) + np.linspace(0.0, 1.0, ROWS)
    code, out = command(tmp_path, x=still, drifting=drifting)
    assert code == 1
    assert "1 of 2 targets depend on the windows before them or follow a trend: `false_alarms` is not promised" in out
    assert "for 1 of 2 it is promised" in out
    code, out = command(tmp_path, "--output", "json", x=still, drifting=drifting)
    (report,) = json.loads(out)
    assert code == 1
    assert {target["target"]: target["exchangeable"] for target in report["targets"]} == {"x": "yes", "drifting": "no"}


@pytest.mark.parametrize(
    ("windows", "said"),
    [
        (60, "60 windows are too few to show it (at least 100; a longer"),
        (150, "150 windows are too few to show it (a longer"),
    ],
)
def test_how_many_windows_are_too_few_is_told_where_it_is_their_number(windows: int, said: str) -> None:
    few = TargetCheck("x", Exchangeable.UNKNOWN, (Cause.TOO_FEW,), windows, 1, 50)
    assert f"for 1 of 1 it is not known and not promised: {said} reference" in conclusion([few])


def of_days(g: np.random.Generator, size: float) -> NDArray[np.float64]:
    """Some twenty days of rows, each with a shift of its own."""
    effects = size * g.normal(size=ROWS // (24 * EVENTS) + 1)
    return g.normal(size=ROWS) + effects[(TIME_MS // (24 * HOUR_MS)).astype(int)]


def test_the_command_says_which_tolerance_holds_the_days_and_what_it_costs(tmp_path: Path) -> None:
    g = np.random.default_rng(8)
    columns = {"still": g.normal(size=ROWS), "days": of_days(g, 0.3), "fixed": of_days(g, 0.3)}
    code, out = command(tmp_path, targets="{fixed: {tolerance: 0.02}}", **columns)
    assert code == 1
    (report,) = json.loads(command(tmp_path, "-o", "json", targets="{fixed: {tolerance: 0.02}}", **columns)[1])
    found = {target["target"]: target["tolerance"] for target in report["targets"]}
    assert (found["still"]["values"], found["still"]["block_effects"]) == (0.05, None)
    days, fixed = found["days"], found["fixed"]
    assert days["block_effects"]["length_ms"] >= 6 * HOUR_MS
    assert 0.15 < days["block_effects"]["values"] < 0.45
    assert days["values"] > 2 * days["block_effects"]["values"]
    assert (days["least"], days["auto"], days["missing_and_invalid"]) == (0.05, True, 0.05)
    assert (fixed["values"], fixed["auto"]) == (0.02, False)
    now, least = ([d[key] for d in days["delays"]] for key in ("events", "events_at_least_tolerance"))
    assert now == [None] * 3, "what days do without drift, and more, is held"
    assert all(d["looked_at"] > 50_000 for d in days["delays"]), "the tolerance alone does not hold it on every day"
    assert least == sorted(least, reverse=True)
    assert None not in least
    lines = {line.strip().partition(":")[0]: line for line in out.splitlines()}
    assert f"days: tolerance {days['values']:.2g} (missing and invalid values 0.05) instead of 0.05, blocks of" in out
    assert "found after over " in lines["days"]
    assert "tolerance 0.02, as configured, although blocks of" in lines["fixed"]
    assert "auto would take" in lines["fixed"]
    assert "the other 1 targets: tolerance 0.05, as configured; found after" in out
    assert "for 1 of 3, whose windows depend on each other, the tolerance is wide enough" in out
    assert "1 of 3 targets depend on the windows before them: `false_alarms` is not promised" in out


def test_what_is_always_one_value_has_no_delay_and_hides_no_other(tmp_path: Path) -> None:
    columns = {"still": np.random.default_rng(9).normal(size=ROWS), "one": np.ones(ROWS)}
    (report,) = json.loads(command(tmp_path, "-o", "json", **columns)[1])
    found = {target["target"]: target["tolerance"]["delays"] for target in report["targets"]}
    still = found["still"]
    assert found["one"] == []
    assert [delay["shift"] for delay in still] == [0.25, 0.5, 1.0]
    events = [delay["events"] for delay in still]
    assert events == sorted(events, reverse=True)
    assert 100 < events[0] < 5_000
    said = " / ".join(f"{each:,.0f}" for each in events)
    _, out = command(tmp_path, **columns)
    assert f"as configured; found after {said} events; one: the reference has one value alone" in out


def test_too_few_days_are_said_and_not_guessed(tmp_path: Path) -> None:
    g = np.random.default_rng(7)
    few = ROWS // 16  # 26 hours after those that choose the cuts: 13 blocks of two windows
    hours = g.normal(size=few) + np.repeat(0.4 * g.normal(size=few // EVENTS // 4 + 1), 4 * EVENTS)[:few]
    table = {"timestamp": TIME_MS[:few].astype("datetime64[ms]"), "x": hours}
    parquet.write_table(pa.table(table), tmp_path / "rows.parquet")
    (tmp_path / "monitor.yaml").write_text(
        'kafka: {bootstrap_servers: "127.0.0.1:1"}\ntopics: {predictions: predictions}\nresolution: 1h\n'
        "defaults: {window: {every: 1h, min_events: 50}}\nmodels: {m: {reference: {file: rows.parquet}}}\n"
    )
    result = CliRunner().invoke(app, ["check-reference", "-c", str(tmp_path / "monitor.yaml")])
    assert "its windows depend on each other: there are not 20 blocks to tell how much" in result.stdout, result.stdout


@pytest.mark.parametrize(
    ("season", "x_has", "code"), [("auto", "hour_of_day", 0), ("hour_of_week", "none", 1), ("none", "none", 1)]
)
def test_it_says_which_targets_are_told_by_the_hour(tmp_path: Path, season: str, x_has: str, code: int) -> None:
    """40 days of windows of half an hour; hours of the week would have 10 windows each."""
    time_ms = np.arange(40 * 24 * 50, dtype=np.int64) * (HOUR_MS // 50)
    g = np.random.default_rng(6)
    columns = {
        "at": pa.array(time_ms, pa.timestamp("ms", "UTC")),
        "x": g.normal(size=len(time_ms)) + 0.7 * np.sin(2 * np.pi * time_ms / (24 * HOUR_MS)),
        "still": g.normal(size=len(time_ms)),
    }
    parquet.write_table(pa.table(columns), tmp_path / "rows.parquet")
    (tmp_path / "monitor.yaml").write_text(
        'kafka: {bootstrap_servers: "127.0.0.1:1"}\ntopics: {predictions: predictions}\n'
        f"defaults: {{window: {{every: 30m, min_events: 25}}, tolerance: 0.05, season: {season}}}\n"
        "models: {m: {reference: {file: rows.parquet, time: at}}}\n"
    )
    arguments = ["check-reference", "-c", str(tmp_path / "monitor.yaml")]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == code, result.stdout
    (report,) = json.loads(CliRunner().invoke(app, [*arguments, "-o", "json"]).stdout)
    assert report["season"] in result.stdout
    still, x = report["targets"]
    assert (x["season"], still["season"]) == (x_has, "none")
    assert x["exchangeable"] == ("yes" if code == 0 else "no")
    said = {
        "auto": "season auto: windows of x are ranked within their hour of the day (UTC); windows of 1 of 2 targets do not "
        "differ between the hours; its windows cannot be told by hour of the week: 20 windows an hour (for 95% of the "
        "windows) in 21 days, none longer than half an hour, are needed; it has 10 in 34 days",
        "hour_of_week": "season hour_of_week: 2 targets have no hours: no hour has 20 windows, or windows are longer than half an hour",
        "none": "season none, as configured: windows of all hours are ranked together",
    }
    assert report["season"] == said[season]


def test_without_time_it_is_not_checkable(tmp_path: Path) -> None:
    code, out = command(tmp_path, time=False, x=np.random.default_rng(1).normal(size=ROWS))
    assert code == 1
    assert "no time column" in out
    assert "nothing shows whether" in out
    (report,) = json.loads(command(tmp_path, "-o", "json", time=False, x=np.ones(ROWS))[1])
    (target,) = report["targets"]
    assert (target["exchangeable"], target["causes"], target["lag1"]) == ("unknown", ["no_time"], None)


def test_a_model_without_a_file_has_nothing_to_check(tmp_path: Path) -> None:
    config = tmp_path / "monitor.yaml"
    config.write_text(
        'kafka: {bootstrap_servers: "127.0.0.1:1"}\ntopics: {predictions: p}\nmodels: {m: {reference: {first: 5000}}}\n'
    )
    assert CliRunner().invoke(app, ["check-reference", "-c", str(config)]).exit_code == 2

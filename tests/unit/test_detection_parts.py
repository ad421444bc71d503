"""Finished parts of the detection load test survive a stop, and are taken over only where the same would be measured."""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from load_tests.detection import __main__ as command
from load_tests.detection.measure import Size
from load_tests.detection.parts import MEASURED, ROOT, Parts, code_digest
from load_tests.detection.streams import CASES, STREAMS
from tests.inline_pool import Inline, StopError

SIZE = Size(
    pairs=2, live=4_000, reference=20_000, delays=2, slow_pairs=0, kswin_events=0, kswin_delays=0, clean_runs=2,
    clean_events=2_000, longer=((1, 1), (20, 1), (200, 1)),
)  # fmt: skip
NAMES = ["normal", "AR .5"]
CHANGES = ["1 sd", ".5 sd"]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(command, "ProcessPoolExecutor", Inline)

    def run(out: Path | None, *, stop_at: int = -1, seed: int = 1, size: Size = SIZE, calibrate: bool = True) -> Any:
        Inline.ran, Inline.stop_at = [], stop_at
        return command.measure(size, seed, 1, streams=NAMES, cases=CHANGES, rivals=None, calibrate=calibrate, out=out)

    return run


def asked() -> list[str]:
    """Streams and changes that tasks were run for."""
    names = [
        CASES[what].name if task == "delay_task" else str(what) for task, what in Inline.ran if task != "clean_task"
    ]
    return list(dict.fromkeys(names))


def text(result: Any) -> str:
    return json.dumps({key: value for key, value in result.items() if key != "commit"})


def test_a_run_after_a_stop_measures_only_what_is_missing_and_gives_the_same(run: Any, tmp_path: Path) -> None:
    whole = text(run(None))
    assert asked() == NAMES + CHANGES
    tasks = len(Inline.ran)
    folder = tmp_path / "parts"
    stops = (1, SIZE.clean_runs + 3, tasks - 1)  # while calibrating, in the second stream, in the last change
    for stop_at, left in zip(stops, (NAMES + CHANGES, [*NAMES[1:], *CHANGES], CHANGES[1:]), strict=True):
        shutil.rmtree(folder, ignore_errors=True)
        with pytest.raises(StopError):
            run(folder, stop_at=stop_at)
        assert text(run(folder)) == whole
        assert asked() == left
        calibrated_again = [task for task, _ in Inline.ran if task == "clean_task"]
        assert len(calibrated_again) == (SIZE.clean_runs if stop_at == 1 else 0)
    assert text(run(folder)) == whole
    assert Inline.ran == [], "all is there"


def test_parts_of_another_seed_size_or_way_are_measured_anew(
    run: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run(tmp_path, calibrate=False)
    for change, word in (
        ({"seed": 2}, "seed"),
        ({"size": replace(SIZE, live=5_000)}, "size"),
        ({"calibrate": True}, "calibrated"),
    ):
        run(tmp_path / word, calibrate=False)
        run(tmp_path / word, **{"calibrate": False, **change})
        assert asked() == NAMES + CHANGES
        assert f"for it is of another {word}" in capsys.readouterr().err
    monkeypatch.setattr(command, "code_digest", lambda: "other code")
    run(tmp_path, calibrate=False)
    assert asked() == NAMES + CHANGES
    assert "for it is of another code" in capsys.readouterr().err


def test_the_digest_is_of_every_file_that_is_measured(tmp_path: Path) -> None:
    for folder in MEASURED:
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    assert code_digest(tmp_path) == code_digest()
    before = code_digest()
    kernel = tmp_path / "detectors" / "sequential" / "default_kernel.py"
    content = kernel.read_bytes()
    kernel.write_bytes(content + b"\n")
    assert code_digest(tmp_path) != before
    kernel.write_bytes(content)
    assert code_digest(tmp_path) == before
    (tmp_path / "load_tests" / "detection" / "streams.py").rename(tmp_path / "load_tests" / "detection" / "rows.py")
    assert code_digest(tmp_path) != before


def test_names_do_not_meet_and_values_come_back(tmp_path: Path) -> None:
    parts = Parts(tmp_path, {"seed": 1})
    names = [stream.name for stream in STREAMS] + [case.name for case in CASES] + ["5 sd", "Normal"]
    for name in names:
        assert parts.get("case", name) is None
        parts.keep("case", name, [{"of": name, "delay": math.nan}])
    for name in names:
        kept = parts.get("case", name)
        assert kept is not None
        (value,) = kept
        assert value["of"] == name
        assert math.isnan(value["delay"])
    assert not list(tmp_path.glob("*.part"))
    assert Parts(None, {}).get("case", "normal") is None

"""The workers of a chaos run: a process that is frozen when the run ends is thawed and told to stop, not called stuck."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from load_tests.chaos import workers
from load_tests.chaos.faults import Arm
from load_tests.chaos.workers import Place, Tally, is_stopped

FREEZES = "import os, signal, time\nos.kill(os.getpid(), signal.SIGSTOP)\ntime.sleep(60)\n"
DEAF = "import signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\nprint('deaf', flush=True)\ntime.sleep(60)\n"
HANG_S = 20.0


@pytest.fixture
def places(tmp_path: Path) -> Iterator[Callable[[float], Place]]:
    """Makes a place whose only worker is armed to freeze for so long; whatever is left of it is killed."""
    made: list[Place] = []

    def make(freeze_s: float) -> Place:
        arm = Arm("send:panes", 1, "freeze", freeze_s)
        made.append(Place(0, tmp_path / "c.yaml", 1, Tally(), lambda _: arm, lambda _: None, lambda *_: None))
        return made[-1]

    yield make
    for place in made:
        assert place.process is not None
        place.process.kill()
        place.process.communicate()


async def until(what: str, holds: Callable[[], object]) -> None:
    for _ in range(int(HANG_S / 0.02)):
        if holds():
            return
        await asyncio.sleep(0.02)
    raise AssertionError(what)


async def ended_run(place: Place) -> None:
    """Its worker started and frozen, then the run ended."""
    place.wanted.set()
    run = asyncio.create_task(place.run())
    await until("not frozen", lambda: place.process is not None and is_stopped(place.process.pid))
    run.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await run


async def test_a_process_frozen_when_the_run_ends_is_thawed_and_stops(
    places: Callable[[float], Place], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers, "ENTRY", FREEZES)
    place = places(60.0)
    await ended_run(place)
    await asyncio.wait_for(place.stop(), HANG_S)
    assert place.process is not None
    assert place.process.returncode == -signal.SIGTERM
    assert place.tally.refused == []


async def test_the_time_of_a_freeze_does_not_count_as_time_to_stop(
    places: Callable[[float], Place], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers, "ENTRY", FREEZES)
    monkeypatch.setattr(workers, "STOP_S", 1.0)
    place = places(3.0)
    place.wanted.set()
    run = asyncio.create_task(place.run())
    await until("not frozen", lambda: place.tally.freezes == 1)
    place.wanted.clear()
    began = time.monotonic()
    await place.stop()
    assert time.monotonic() - began > 1.0
    await until("not judged", lambda: place.tally.exits)
    run.cancel()
    assert place.tally.exits == {-signal.SIGTERM: 1}
    assert place.tally.refused == []


async def test_a_process_that_does_not_end_is_killed_and_told(
    places: Callable[[float], Place], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers, "ENTRY", DEAF)
    monkeypatch.setattr(workers, "STOP_S", 0.5)
    place = places(1.0)
    place.start(None)
    await until("not deaf yet", lambda: "deaf" in (tmp_path / "worker-0.log").read_text().split())
    await place.stop()
    assert place.process is not None
    assert place.process.returncode == -signal.SIGKILL
    assert place.tally.refused == ["worker 0, start 1, did not end within 0 s"]

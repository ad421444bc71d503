"""What a worker's start leaves behind is not looked at by the garbage collector again."""

import gc
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from stream import app


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    before = gc.get_threshold()
    yield
    gc.unfreeze()
    gc.set_threshold(*before)


class Knot:
    """Part of a cycle."""

    def __init__(self) -> None:
        self.itself = self


def test_what_lasts_is_left_alone_and_later_cycles_are_still_collected() -> None:
    lasting, gone = [Knot()], weakref.ref(Knot())
    app.settle()
    assert gone() is None
    assert gc.get_freeze_count() > len(lasting)
    assert not any(found is lasting for found in gc.get_objects())
    assert gc.get_threshold()[0] == app.COLLECT_OBJECTS
    later = weakref.ref(Knot())
    gc.collect()
    assert later() is None


def test_a_worker_settles_before_it_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    frozen: list[int] = []

    def run(coroutine: Any) -> int:
        coroutine.close()
        frozen.append(gc.get_freeze_count())
        return 0

    def prepared(_config: Any) -> Path:  # anything but an exit code
        return Path()

    monkeypatch.setattr(app, "_prepared", prepared)
    monkeypatch.setattr("asyncio.run", run)
    assert app.run_worker(None) == 0  # type: ignore[arg-type]
    assert frozen[0] > 0

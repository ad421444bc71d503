"""A drain ends once every state of the worker has taken everything: also one that is being loaded again just then."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from stream.assignment import COLLECTOR, MONITOR, Owners
from stream.collector import Collector
from stream.metrics import Metrics
from stream.panes import EDGE_END, decode_record
from stream.protocol import Restored, Saved
from stream.stage import Decision
from stream.topics import TopicRole
from stream.upkeep import Rhythm, Upkeep
from stream.watch import MarkerWatch
from tests.unit.test_feedback_wiring import collector, config

PANES = TopicRole.PANES.value


class Lane:
    """Makes its owner ready with everything read and saved, once `go` is set."""

    go: asyncio.Event
    blocked = False

    async def drive_restore(self, steps: Any) -> Restored:
        await Lane.go.wait()
        owner = steps.gi_frame.f_locals["self"]
        owner.vector, owner.ready = {PANES: 9}, True
        owner._log = SimpleNamespace(saved=SimpleNamespace(sequence=1, vector={PANES: 9}))
        return Restored(1, {PANES: 9}, 0, 1, 0, 1, 0, 0, 0)

    async def drive_snapshot(self, _steps: Any) -> Saved | None:
        return None

    async def close(self) -> None: ...


class Logs:
    """Every log ends at 9; the topic of panes says nothing new."""

    async def ends(self, _role: str, partitions: int) -> dict[int, int]:
        return dict.fromkeys(range(partitions), 9)

    async def stretch(self, *_: Any) -> Any:
        return SimpleNamespace(records=[], position=9)


@pytest.fixture
def stopped() -> list[int]:
    return []


async def drain(stopped: list[int]) -> tuple[Upkeep, Owners]:
    Lane.go = asyncio.Event()
    Lane.go.set()
    owners = Owners(
        lambda *_: SimpleNamespace(outbox=[]),
        lambda *_: Lane(),  # type: ignore[arg-type]
        begin=lambda _slot: None,
        is_transient=lambda _error: True,
        monitors=1,
        metrics=Metrics(),
    )
    engine = SimpleNamespace(rebalancing=False, generation=1, stop=lambda code, _why: stopped.append(code))
    config = SimpleNamespace(idle_timeout=SimpleNamespace(ms=60_000), monitors=1)
    setup = SimpleNamespace(
        config=config,
        sources=1,
        plan=SimpleNamespace(lateness_ms=0, resolution_ms=1, models=(), feedback=None),
        feedback={},
    )
    watch = MarkerWatch(1, {0: EDGE_END})  # an earlier drain, or another worker, has ended every source partition
    worker: Any = SimpleNamespace(owners=owners, setup=setup, watch=watch, engine=engine)
    await owners.restore([(MONITOR, 0)], 1, lambda: True)
    return Upkeep(worker, Logs(), Metrics(), Rhythm(), drain=True), owners  # type: ignore[arg-type]


async def test_it_ends_when_everything_is_taken_and_saved(stopped: list[int]) -> None:
    upkeep, _ = await drain(stopped)
    await upkeep.finish()
    assert stopped == [0]


async def test_it_does_not_end_while_a_state_is_loaded_again(stopped: list[int]) -> None:
    upkeep, owners = await drain(stopped)
    slot = owners.get(MONITOR, 0)
    assert slot is not None
    Lane.go.clear()
    loading = asyncio.ensure_future(owners.reload(slot, OSError(), lambda: True))
    for _ in range(5):
        await asyncio.sleep(0)
    assert owners.get(MONITOR, 0) is None
    await upkeep.finish()
    assert stopped == []
    Lane.go.set()
    await loading
    await upkeep.finish()
    assert stopped == [0]


async def test_it_does_not_end_before_the_monitors_have_what_was_written_at_last(stopped: list[int]) -> None:
    upkeep, _ = await drain(stopped)
    ends, save = upkeep.logs.ends, upkeep.save

    async def one_more(role: str, partitions: int) -> dict[int, int]:
        return {partition: end + 1 for partition, end in (await ends(role, partitions)).items()}

    async def saving() -> None:
        upkeep.logs.ends = one_more  # type: ignore[method-assign]
        await save()

    upkeep.save = saving  # type: ignore[method-assign]
    await upkeep.finish()
    assert stopped == []


def feedback_of(ages: str | list[str]) -> Collector:
    own = config(performance={"horizons": ["2m"], "proxies": ["ctr"], "provisional": ages}, topics={"labels": None})
    return collector(own)


async def test_series_that_were_added_after_the_end_say_so_once(stopped: list[int]) -> None:
    """Else what goes together with them waits for their markers."""
    upkeep, _ = await drain(stopped)
    saved: list[list[Any]] = []

    async def save(slot: Any) -> bool:
        saved.append([decode_record(output.value).edge_ms for output in slot.owner.stage.outbox])
        return True

    upkeep._saved = save  # type: ignore[method-assign]
    state = feedback_of("none")
    for ages, expected in (("none", [EDGE_END] * 2), (["1m"], [EDGE_END])):
        own = feedback_of(ages)
        own.load(state.full_blobs())
        decisions: list[Decision] = []

        def decide(kind: str, body: Any, own: Collector = own, decisions: list[Decision] = decisions) -> None:
            decisions.append(Decision(1, kind, {}, body))
            own.decide(decisions[-1])

        owner = SimpleNamespace(stage=own, may_decide=lambda: True, decide=decide)
        slot: Any = SimpleNamespace(stage=COLLECTOR, owner=owner, lane=SimpleNamespace(blocked=False))
        await upkeep._end(slot)
        assert saved.pop() == expected
        assert not saved
        taken = len(decisions)
        await upkeep._end(slot)
        assert len(decisions) == taken
        state = own


async def test_it_waits_for_no_more_than_a_log_that_was_made_anew_meanwhile_holds(
    stopped: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    upkeep, owners = await drain(stopped)
    ends, ended, monitors = {"predictions": 9}, [], owners.of
    collecting: Any = SimpleNamespace(
        partition=0, read=4, is_short_of=lambda goal: collecting.read < goal["predictions"]
    )

    async def told(role: str, partitions: int) -> dict[int, int]:
        return dict.fromkeys(range(partitions), ends.get(role, 9))

    async def end(slot: Any) -> None:
        ended.append(slot)

    monkeypatch.setattr(upkeep.logs, "ends", told)
    monkeypatch.setattr(upkeep, "_end", end)
    monkeypatch.setattr(owners, "of", lambda stage: [collecting] if stage == COLLECTOR else monitors(stage))
    await upkeep.finish()
    assert (ended, stopped) == ([], [])
    ends["predictions"] = 20  # what came later is not waited for
    collecting.read = 8
    await upkeep.finish()
    assert (ended, stopped) == ([], [])
    ends["predictions"], collecting.read = 5, 4  # another log, read from its beginning
    await upkeep.finish()
    assert (ended, stopped) == ([], [])
    collecting.read = 5
    await upkeep.finish()
    assert (ended, stopped) == ([collecting], [0])

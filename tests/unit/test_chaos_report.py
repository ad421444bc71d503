"""The chaos run's own judgement: percentiles, what restores read, and the traffic's seed."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest

from load_tests.chaos import workers
from load_tests.chaos.__main__ import said
from load_tests.chaos.faults import HITS_MIN, LONG, Arm, Plan
from load_tests.chaos.report import SEEN, allowed_bytes, percentile, report, restores, story
from load_tests.chaos.traffic import SPOILT, Source
from load_tests.chaos.verdict import Verdict
from load_tests.chaos.workers import Place, Tally
from stream.assignment import Owners, Slot
from stream.failpoints import FAILPOINTS
from stream.metrics import Metrics
from stream.protocol import Restored
from stream.supervisor import Exit


@pytest.mark.parametrize(
    ("values", "share", "expected"),
    [([], 0.95, None), ([7.0], 0.95, 7.0), (range(1, 101), 0.95, 95), (range(1, 101), 0.5, 50), ((1, 2, 3), 1.0, 3)],
)
def test_a_percentile_is_one_of_the_values(values, share, expected):
    assert percentile(list(values), share) == expected


def restored(**changes) -> Restored:
    plain = {"epoch": 3, "vector": {"predictions": 7}, "records": 9, "attempts": 1, "corrupt": 0, "blobs": 2}
    return Restored(
        **plain
        | {"live_bytes": 700_000, "decisions": 0, "held": 0, "interval_bytes": 1_000, "claims_bytes": 300}
        | {"unfinished_bytes": 5_000, "unfinished": 2, "owners_before": 2, "largest_live_bytes": 900_000}
        | changes
    )


def test_a_restore_that_read_too_much_is_found_in_the_log_that_a_worker_writes(tmp_path, caplog):
    caplog.set_level("INFO")
    owners = Owners(None, None, begin=None, is_transient=None, monitors=1, metrics=Metrics())
    most = allowed_bytes(900_000, 1_000, 300, 5_000)
    assert most == 1_807_300
    for slot in (Slot("collector", 1, None, None, 1), Slot("monitor", 0, None, None, 1)):
        owners._note_restore(slot, restored(read_bytes=most), 0.1)
        owners._note_restore(slot, restored(read_bytes=most + 1, whole=True), 0.1)
    (tmp_path / "worker-0.log").write_text(caplog.text)
    found = restores(tmp_path)
    assert (found["n"], found["whole_log"], found["read_bytes"]["max"], found["over"]) == (4, 2, most, [])
    owners._note_restore(slot, restored(read_bytes=most + 1), 0.1)
    (tmp_path / "worker-1.log").write_text(caplog.text)
    assert len(restores(tmp_path)["over"]) == 1
    owners._note_restore(slot, restored(read_bytes=most, unfinished=3), 0.1)  # an owner that left two
    (tmp_path / "worker-1.log").write_text(caplog.text)
    assert len(restores(tmp_path)["over"]) == 2


def test_traffic_is_a_function_of_the_seed_and_has_every_kind_of_event_and_silence():
    def events(seed: int) -> tuple[Source, list[list[tuple[int, bytes | None]]]]:
        source = Source(seed, 1_800_000_000_000)
        return source, [source.step() for _ in range(2_000)]

    source, steps = events(1)
    assert steps == events(1)[1]
    assert steps != events(2)[1]
    assert {*SPOILT, "good", "cut", "tombstone", "empty", "twice", "again"} == set(source.kinds)
    for partition in range(4):
        marks = "".join("x" if any(place == partition for place, _ in step) else "." for step in steps)
        assert re.search(r"x\.{150,}x", marks), marks  # silent for longer than the idle timeout, and back


RIGHT = {
    "events": 9, "applied": 8, "panes": 7, "windows": 6, "alerts": 5, "dead_letters": 1, "decisions": 2, "repeats": 0,
    "lost": (), "double": (), "wrong": (), "spurious": (), "accounting": {},
}  # fmt: skip


def holds(
    kills: int = 8, drained: int | None = 0, idles: int = 20, restored: int = 3, over=(), ready=(10.0,), **changes
) -> bool:
    """`holds` of a run in which all went well but for what is named; changes: of the tally, the cluster or the verdict."""
    tally = Tally(kills=changes.pop("killed", kills), ready_s=list(ready), refused=changes.pop("refused", []))
    tally.hits.update(dict.fromkeys(FAILPOINTS, HITS_MIN) | changes.pop("hits", {}))
    director = SimpleNamespace(
        tally=tally, plan=Plan(1, kills, 2), drained=[0, drained], broker_restarts=0, hidden=0,
        cluster=SimpleNamespace(switches=changes.pop("switches", 20)),
        traffic=SimpleNamespace(published=9, source=SimpleNamespace(kinds={})),
    )  # fmt: skip
    read = {"n": restored, "over": list(over)}
    found = report(director, Verdict(**RIGHT | changes), idles, read, 60.0)  # type: ignore[arg-type]
    return bool(found["holds"])


@pytest.mark.parametrize(
    "wrong",
    [
        *({kind: ("something",)} for kind in ("lost", "double", "wrong", "spurious")),
        *({name: 0} for name in SEEN),
        {"drained": 1}, {"drained": None}, {"refused": ["exit 1"]}, {"over": ["a restore"]}, {"killed": 7}, {"restored": 0},
    ],
    ids=str,
)  # fmt: skip
def test_a_run_holds_unless_anything_is_wrong_or_was_not_seen(wrong) -> None:
    assert holds()
    assert not holds(**wrong)


@pytest.mark.parametrize(
    "short",
    [
        {"hits": {FAILPOINTS[0]: HITS_MIN - 1}}, {"switches": 19}, {"idles": 19}, {"ready": ()},
        {"ready": [10.0] * 94 + [15.1] * 6},
    ],
    ids=str,
)  # fmt: skip
def test_a_long_run_must_show_what_a_short_one_need_not(short) -> None:
    assert holds(LONG, ready=[10.0] * 95 + [99.0] * 5)
    assert holds(**short)
    assert not holds(LONG, **short)


def place(tmp_path, tally: Tally) -> Place:
    return Place(0, tmp_path / "monitor.yaml", 1, tally, lambda _: None, lambda _: None, lambda *_: None)


def sleeper() -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])


@pytest.mark.parametrize("disturbed", [False, True])
async def test_a_start_that_is_given_up_before_it_was_ready_took_at_least_so_long(
    tmp_path, monkeypatch, disturbed
) -> None:
    monkeypatch.setattr(workers, "START_S", 0.3)
    monkeypatch.setattr(workers, "is_ready", lambda _: False)
    tally = Tally()
    own = place(tmp_path, tally)
    own.arm, own._killed_at = Arm("stop.began"), time.monotonic()
    tally.disturbed_at = own._killed_at + (2.0 if disturbed else 0.0)
    own.process = sleeper()
    await asyncio.wait_for(own._watch(time.monotonic()), 30)
    (noted,) = tally.ready_disturbed_s if disturbed else tally.ready_s
    assert noted > 0.3
    assert len(tally.ready_s) + len(tally.ready_disturbed_s) == 1


@pytest.mark.parametrize(
    ("code", "explained"),
    [(Exit.OK, True), (Exit.UNREACHABLE, True), (Exit.REFUSED, False), (Exit.USAGE, False), (Exit.CRASHED, False)],
)
def test_an_exit_that_no_fault_explains_is_noted(tmp_path, code, explained) -> None:
    tally = Tally()
    own = place(tmp_path, tally)
    own.process = SimpleNamespace(returncode=int(code), pid=1)  # type: ignore[assignment]
    own._judge()
    assert (tally.refused == []) is explained


def test_the_report_for_people_counts_only_what_was_reached() -> None:
    found = {"seed": 3, "hits": {"send:panes": 0, "stop.saved": 2}, "tries": {"send:panes": 4, "stop.saved": 0}}
    lines = [line.split(maxsplit=1) for line in said(found).splitlines()]
    assert lines == [["seed", "3"], ["hits", "{'stop.saved': 2}"], ["tries", "{'send:panes': 4}"]]


def test_a_failed_run_tells_its_faults_and_how_the_logs_end(tmp_path) -> None:
    (tmp_path / "faults.log").write_text("1.0 s  kill\n")
    (tmp_path / "worker-1.log").write_text("".join(f"line {i}\n" for i in range(1, 101)))
    (tmp_path / "broker.log").write_text("not told\n")
    told = story(tmp_path).splitlines()
    assert told[:3] == [
        "--- the end of faults.log, of 1 lines",
        "1.0 s  kill",
        "--- the end of worker-1.log, of 100 lines",
    ]
    assert told[3:] == [f"line {i}" for i in range(61, 101)]
    assert story(tmp_path / "none") == "--- the end of faults.log, of 0 lines"

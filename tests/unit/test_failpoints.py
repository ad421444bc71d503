"""Failpoints: what may be armed, what each action does to a process, that every protocol step has its two places."""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from load_tests.chaos.faults import HIDDEN, HITS_MIN, LONG, RARE, RARE_HITS, Arm, Plan, covered
from load_tests.chaos.workers import Place, Tally
from stream import failpoints
from stream.failpoints import COPYING, FAILPOINTS, FAILPOINTS_ENV, LOG_ENV, SENT, FailpointError, parse, reach
from stream.protocol import STEPS

ROOT = Path(__file__).resolve().parents[2]
PLACE = "before:snapshot.5-manifest"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("before:snapshot.55=kill", "no failpoint 'before:snapshot.55'"),
        ("=kill", "no failpoint ''"),
        (PLACE, "no action ''"),
        (f"{PLACE}=explode", "no action 'explode'"),
        (f"{PLACE}@x=kill", "invalid literal"),
        (f"{PLACE}=stall:soon", "could not convert"),
        ("acknowledged:alerts=fail", "nobody would hear"),
    ],
)
def test_what_cannot_be_armed_is_refused(text, says):
    with pytest.raises(ValueError, match=re.escape(says)):
        parse(text)


def test_several_are_armed_at_once():
    armed = parse(f" {PLACE}@3=kill, ingest.applied=stall:0.5,, ")
    assert {name: (a.action, a.left, a.seconds) for name, a in armed.items()} == {
        PLACE: ("kill", 3, 0.0),
        "ingest.applied": ("stall", 1, 0.5),
    }
    assert parse("") == {}


def test_it_happens_at_the_nth_time_and_once(monkeypatch, tmp_path):
    monkeypatch.setenv(LOG_ENV, str(tmp_path / "hits"))
    monkeypatch.setattr(failpoints, "_armed", parse(f"{PLACE}@3=fail"))
    reach(PLACE)
    reach("ingest.applied")
    reach(PLACE)
    assert not (tmp_path / "hits").exists()
    with pytest.raises(FailpointError):
        reach(PLACE)
    reach(PLACE)
    assert (tmp_path / "hits").read_text() == f"{PLACE} fail {os.getpid()}\n"


def child(action: str, log: Path) -> subprocess.Popen[str]:
    code = f"from stream.failpoints import reach\nreach({PLACE!r})\nprint('went on', flush=True)"
    environment = os.environ | {FAILPOINTS_ENV: f"{PLACE}={action}", LOG_ENV: str(log)}
    return subprocess.Popen(
        [sys.executable, "-c", code], env=environment, cwd=ROOT, text=True, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("action", "code", "goes_on"),
    [("kill", -signal.SIGKILL, False), ("term", -signal.SIGTERM, False), ("stall:0.5", 0, True), ("fail", 1, False)],
)
def test_each_action_in_a_process_of_its_own(action, code, goes_on, tmp_path):
    started = time.monotonic()
    with child(action, tmp_path / "hits") as process:
        out, err = process.communicate(timeout=30)
    assert process.returncode == code
    assert ("went on" in out) == goes_on
    assert ("FailpointError" in err) == (action == "fail")
    if action.startswith("stall"):
        assert time.monotonic() - started > 0.5
    assert (tmp_path / "hits").read_text() == f"{PLACE} {action.partition(':')[0]} {process.pid}\n"


def test_a_frozen_process_stands_until_it_is_continued(tmp_path):
    with child("freeze", tmp_path / "hits") as process:
        _, status = os.waitpid(process.pid, os.WUNTRACED)
        assert os.WIFSTOPPED(status)
        assert (tmp_path / "hits").read_text() == f"{PLACE} freeze {process.pid}\n"
        process.send_signal(signal.SIGCONT)
        out, _ = process.communicate(timeout=30)
    assert out == "went on\n"
    assert process.returncode == 0


def test_names_are_unique_and_every_step_has_a_place_before_and_after():
    assert len(set(FAILPOINTS)) == len(FAILPOINTS)
    assert {name.partition(":")[2] for name in FAILPOINTS if name.startswith("before:")} == set(STEPS)
    assert {name.partition(":")[2] for name in FAILPOINTS if name.startswith("after:")} == set(STEPS)
    assert {name.partition(":")[2] for name in FAILPOINTS if name.startswith("send:")} == set(SENT)


def test_every_name_stands_in_the_product():
    text = "".join(path.read_text() for path in (ROOT / "stream").glob("*.py") if path.stem != "failpoints")
    reached = set(re.findall(r'(?:reach\(|\bplace = )f?"([^"]+)"', text))
    general = {name.partition("{")[0] for name in reached if "{" in name}
    assert general == {"before:", "after:", "send:", "acknowledged:"}
    plain = {name for name in (*FAILPOINTS, *COPYING) if not name.startswith(tuple(general))}
    assert plain == {name for name in reached if "{" not in name}


def test_a_place_that_is_not_armed_costs_next_to_nothing():
    assert failpoints._armed == {}
    started = time.perf_counter()
    for _ in range(100_000):
        reach(PLACE)
    assert time.perf_counter() - started < 0.5  # 5 us each, where some 50 ns are usual


@pytest.mark.parametrize("seed", range(5))
def test_the_plan_of_a_chaos_run_reaches_for_every_failpoint(seed):
    plan = Plan(seed, LONG, 2)
    assert covered(plan) == set(FAILPOINTS)
    for name in set(FAILPOINTS) - set(HIDDEN):
        assert sum(name in {a.name, a.then} for a in plan.arms) >= 3
    for a in plan.arms:
        parse(a.text)  # raises where it is none
    again, other = Plan(seed, LONG, 2), Plan(seed + 1, LONG, 2)
    assert (list(again.arms), again.faults) == (list(plan.arms), plan.faults)
    assert list(other.arms) != list(plan.arms)


def test_an_arm_that_was_missed_comes_again_and_what_is_short_of_hits_comes_beyond_the_plan():
    plan = Plan(1, 8, 2)
    plan_hits: Counter[str] = Counter()
    missed = plan.next_arm(plan_hits)
    plan.put_back(missed)
    assert any((a.name, a.then) == (missed.name, missed.then) for a in list(plan.arms)[:10])
    plan.arms.clear()
    plan_hits.update(dict.fromkeys(FAILPOINTS, 3))
    plan_hits["stop.saved"] = 2
    assert plan.next_arm(plan_hits).name == "stop.saved"


def rare_hits(seed: int, kills: int, a_kill_meets: float) -> tuple[Counter[str], Counter[str]]:
    """(hits, tries) of rare failpoints when a start with one meets it with this probability, and else is killed elsewhere."""
    plan, r = Plan(seed, kills, 2), random.Random(seed)
    hits, tries = Counter[str](), Counter[str]()
    for done in range(kills):
        arm = plan.with_rare(plan.next_arm(hits), hits, done)
        tries.update(name for name in arm.names if name in RARE)
        met = [name for name in arm.names if name in RARE and r.random() < a_kill_meets]
        hits.update(met[:1] or ([arm.name] if arm.name not in RARE else []))
        if arm.name in RARE and arm.name not in met:
            plan.put_back(arm)
    return hits, tries


@pytest.mark.parametrize("seed", range(5))
def test_a_rare_failpoint_is_met_often_enough_in_a_long_run(seed):
    hits, tries = rare_hits(seed, LONG, 0.12)  # as counted: 5 of 43 starts
    for name in RARE:
        assert hits[name] >= RARE_HITS, (hits, tries)
        assert tries[name] > 20  # the plan alone: 4
    assert RARE_HITS > 2 * HITS_MIN


def test_rare_failpoints_do_not_take_a_run_over():
    hits, _ = rare_hits(1, 12, 1.0)
    assert sum(hits[name] for name in RARE) <= 2 + 4  # of the plan's own arms, at most
    plan = Plan(1, LONG, 2)
    first = Arm("ingest.applied", 7)
    assert plan.with_rare(first, Counter(dict.fromkeys(RARE, RARE_HITS)), LONG) == first
    assert plan.with_rare(first, Counter({RARE[0]: 4, RARE[1]: 3}), LONG // 2).also == RARE[1]
    assert plan.with_rare(Arm(RARE[1]), Counter(), 0).also == RARE[0]
    assert plan.with_rare(first, Counter(dict.fromkeys(RARE, 1)), 0) == first  # not more than by a share of the kills
    armed = plan.with_rare(first, Counter(), 0)
    assert set(parse(armed.text)) == {"ingest.applied", armed.also}


@pytest.mark.parametrize(
    ("lines", "hits", "missed", "died_at"),
    [
        (["send:alerts kill 7"], ["send:alerts"], 1, "send:alerts"),
        (["ingest.applied freeze 7", "send:alerts kill 7"], ["ingest.applied", "send:alerts"], 0, "ingest.applied"),
        (["ingest.applied kill 8"], [], 1, None),
    ],
)
def test_hits_of_an_arm_and_of_what_it_carries_are_counted_apart(tmp_path, lines, hits, missed, died_at):
    tally, back, deaths = Tally(), [], []
    place = Place(
        0, tmp_path / "monitor.yaml", 0, tally, lambda _: None, back.append,
        lambda _, hit: deaths.append(hit.name if hit else None),
    )  # fmt: skip
    place.arm = Arm("ingest.applied", 2, also="send:alerts")
    place.process = subprocess.Popen([sys.executable, "-c", ""])
    place.process.wait()
    (tmp_path / "hits.log").write_text("".join(line + "\n" for line in lines).replace(" 7", f" {place.process.pid}"))
    place._judge()
    assert (tally.hits, tally.tries) == (Counter(hits), Counter(["ingest.applied", "send:alerts"]))
    assert (tally.missed, len(back), deaths) == (missed, missed, [died_at])

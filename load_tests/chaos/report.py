"""What a chaos run says of itself: one JSON object, and whether it holds."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from load_tests import harness
from load_tests.chaos.cluster import Cluster
from load_tests.chaos.director import FAULTS_LOG, Director
from load_tests.chaos.faults import HITS_MIN, IDLES_MIN, LONG, SWITCHES_MIN
from load_tests.chaos.verdict import Verdict
from load_tests.chaos.workers import FAR_FLOOR_BYTES
from stream.failpoints import FAILPOINTS
from stream.journal import fold
from stream.panes import EDGE_END
from stream.state_writer import FAR_FACTOR
from stream.supervisor import Exit
from stream.topics import TopicRole

READY_P95_S = 15.0
JUDGED = ("events", "applied", "panes", "windows", "alerts", "dead_letters", "decisions", "repeats", "notes")
FINDINGS = ("lost", "double", "wrong", "spurious")
SEEN = (
    "events",
    "applied",
    "panes",
    "windows",
    "alerts",
    "dead_letters",
    "decisions",
)  # without any a run shows nothing of them
SHOWN = 20
TOLD_LINES = 40  # of each log, after a run that failed


def commit() -> str:
    """The commit of the working tree, with + where it has changes."""
    done = subprocess.run(
        ["git", "describe", "--always", "--dirty=+", "--abbrev=12"], capture_output=True, text=True, check=False,
        cwd=Path(__file__).parent,
    )  # fmt: skip
    return done.stdout.strip() or "unknown"


def percentile(values: Sequence[float], share: float) -> float | None:
    """The smallest value that so large a share of all does not exceed."""
    if not values:
        return None
    ordered = sorted(values)
    return round(ordered[max(0, -(-int(share * 100) * len(ordered) // 100) - 1)], 2)


def spread(values: Sequence[float]) -> dict[str, Any]:
    return {
        "n": len(values),
        "p50": percentile(values, 0.5),
        "p95": percentile(values, 0.95),
        "max": percentile(values, 1.0),
    }


def idle_then_active(cluster: Cluster) -> int:
    """How often a partition ticked as idle and then got events: places of its log where it ticked, and that it went past."""
    topic = cluster.config.topic(TopicRole.JOURNAL)
    journal = fold([value for _, _, _, value in harness.read_topic(cluster.servers, topic) if value is not None])
    places = set()
    last: dict[int, int] = {}
    for (stage, partition), decisions in journal.items():
        if stage != "collector":
            continue
        for decision in decisions:
            at = decision.position["predictions"]
            last[partition] = max(last.get(partition, 0), at)
            if decision.kind == "tick" and decision.body["until_ms"] != EDGE_END:
                places.add((partition, at))
    return sum(at < last[partition] for partition, at in places)


def conditions(director: Director, idles: int) -> dict[str, bool]:
    """What a long run must show besides the verdict."""
    p95 = percentile(director.tally.ready_s, 0.95)
    return {
        f"every failpoint hit {HITS_MIN} times": not director.plan.short_of(director.tally.hits),
        f"{SWITCHES_MIN} switches": director.cluster.switches >= SWITCHES_MIN,
        f"{IDLES_MIN} idle partitions became active": idles >= IDLES_MIN,
        f"ready within {READY_P95_S:.0f} s (p95)": p95 is not None and p95 <= READY_P95_S,
    }


def report(
    director: Director, verdict: Verdict, idles: int, restores: dict[str, Any], seconds: float
) -> dict[str, Any]:
    """The run in figures. `holds`: whether the exit code is 0."""
    tally = director.tally
    found = {name: list(getattr(verdict, name)) for name in FINDINGS}
    unexplained = [*tally.refused, *(f"drain: exit {code}" for code in director.drained if code != Exit.OK)]
    unexplained += [f"the run has no {name.replace('_', ' ')}" for name in SEEN if not getattr(verdict, name)]
    unexplained += [] if restores["n"] else ["no log names a restore"]
    met = conditions(director, idles)
    long = director.plan.kills >= LONG
    holds = not any(found.values()) and not unexplained and not restores["over"] and tally.kills >= director.plan.kills
    return {
        "commit": commit(),
        "seed": director.plan.seed,
        "holds": holds and (not long or all(met.values())),
        "seconds": round(seconds),
        "kills": tally.kills,
        "terms": tally.terms,
        "freezes": tally.freezes,
        "restarts": tally.restarts,
        "broker_restarts": director.broker_restarts,
        "switches": director.cluster.switches,
        "hidden_states": director.hidden,
        "idle_then_active": idles,
        "published": director.traffic.published,
        "kinds": dict(sorted(director.traffic.source.kinds.items())),
        **{name: getattr(verdict, name) for name in JUDGED},
        **{name: len(texts) for name, texts in found.items()},
        "findings": {name: texts[:SHOWN] for name, texts in found.items() if texts},
        "unexplained": unexplained,
        "exits": {str(code): n for code, n in sorted(tally.exits.items())},
        "ready_s": spread(tally.ready_s),
        "ready_while_other_faults_s": spread(tally.ready_disturbed_s),
        "restores": restores,
        "missed_arms": tally.missed,
        "hits": {name: tally.hits[name] for name in FAILPOINTS},
        "tries": {name: tally.tries[name] for name in FAILPOINTS},
        "conditions": met,
    }


RESTORED = re.compile(
    r"(?P<stage>collector|monitor) (?P<partition>\d+): epoch \d+ at .*, \d+ bytes, at most (?P<live>\d+) of late, read (?P<read>\d+)"
    r"(?P<whole> \(the whole log\))?, an interval (?P<interval>\d+), claims (?P<claims>\d+),"
    r" unfinished (?P<unfinished>\d+) \((?P<snapshots>\d+) snapshots, (?P<owners>\d+) owners before\),"
)


TERMS = ("live", "read", "interval", "claims", "unfinished", "snapshots", "owners")


def allowed_bytes(live: int, interval: int, claims: int, unfinished: int) -> int:
    """What a restore may read: twice the live state, the largest of the last three (small ones need not move,
    FAR_FLOOR_BYTES); the records of two snapshots, as the commit of the newest may be missing; the claims: every owner that
    dies before its first snapshot leaves one, and only a snapshot moves the log's start; what owners left that died within one.
    """
    return max(FAR_FACTOR * live, FAR_FLOOR_BYTES) + 2 * interval + claims + unfinished


def is_over(restore: Mapping[str, int]) -> bool:
    """Whether a restore read more, or found more unfinished snapshots than there were owners before: each leaves one at most."""
    allowed = allowed_bytes(*(restore[term] for term in ("live", "interval", "claims", "unfinished")))
    return restore["read"] > allowed or restore["snapshots"] > restore["owners"]


def restores(folder: Path) -> dict[str, Any]:
    """Every restore that the workers logged: what it read of the state log."""
    logs = [path.read_text(errors="replace") for path in sorted(folder.glob("worker-*.log"))]
    found = [match for log in logs for match in RESTORED.finditer(log)]
    bounded = [match for match in found if not match["whole"]]
    over = [m.group(0) for m in bounded if is_over({term: int(m[term]) for term in TERMS})]
    return {
        "n": len(found),
        "whole_log": len(found) - len(bounded),
        "read_bytes": spread([int(match["read"]) for match in bounded]),
        "live_bytes_max": max((int(match["live"]) for match in found), default=0),
        "interval_bytes_max": max((int(match["interval"]) for match in found), default=0),
        "unfinished_bytes": spread([int(match["unfinished"]) for match in found if int(match["snapshots"])]),
        "over": over[:SHOWN],
    }


def story(folder: Path) -> str:
    """What was done in the run and how each worker's log ends: what a failure is looked into with."""
    parts = []
    for path in (folder / FAULTS_LOG, *sorted(folder.glob("worker-*.log"))):
        lines = path.read_text(errors="replace").splitlines() if path.exists() else []
        parts.append("\n".join([f"--- the end of {path.name}, of {len(lines)} lines", *lines[-TOLD_LINES:]]))
    return "\n".join(parts)

"""F16: the wall clock is read only where a wall time is meant; everything that waits or measures uses a monotonic clock."""

from __future__ import annotations

import ast
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
WALL = {
    "time.time",
    "time.time_ns",
    "datetime.now",
    "datetime.utcnow",
    "dt.datetime.now",
    "datetime.datetime.now",
    "date.today",
}

#: module and function -> why a wall time is meant there
MEANT = {
    ("stream/assignment.py", "_note_snapshot"): "a metric: the time of the last snapshot",
    ("stream/commands/dlq.py", "_since_ms"): "--since is a time of the broker's records",
    ("stream/copy_session.py", "_add"): "a record stamped later than now does not hold the others up",
    ("stream/demo.py", "now_ms"): "the demo's events happen now",
    ("stream/letter_desk.py", "_now"): "stamps an audit mark",
    ("stream/probe.py", "_tls_refusal"): "a certificate's dates are wall times",
    ("stream/probe.py", "_login_refusal"): "so is a token's",
}


def wall_clock_calls() -> set[tuple[str, str]]:
    found = set()
    for path in sorted([*(ROOT / "stream").rglob("*.py"), *(ROOT / "detectors").rglob("*.py")]):
        tree = ast.parse(path.read_text())
        functions = [n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)]
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in WALL:
                inside = [f for f in functions if f.lineno <= node.lineno <= (f.end_lineno or 0)]
                name = max(inside, key=lambda f: f.lineno).name if inside else ""
                found.add((path.relative_to(ROOT).as_posix(), name))
    return found


def test_the_wall_clock_is_read_where_a_wall_time_is_meant() -> None:
    found = wall_clock_calls()
    assert found - set(MEANT) == set()
    assert set(MEANT) - found == set()

"""F4: the broker is killed under load and stays away for 1, 30 or 600 seconds; the worker waits, quietly, and goes on."""

from __future__ import annotations

import signal
import time
from collections import Counter
from functools import partial
from typing import Any

from load_tests.faults.stage import Row, Stage, verdict
from stream.broker import free_port

LINES_PER_S_MAX = 1.5  # one of the libraries; a text of our own passes once in ten seconds whatever others say
BACK_S_MAX = 5.0
UNREADY_S = 15.0  # away for so long, the broker is missed
SLACK_LINES = 5  # when it dies, when it is back, and the first of each text of ours
EVENTS, SHIFTED = 4_000, 20_000  # of drift: ten windows


def away(stage: Stage, seconds: float) -> dict[str, Any]:
    """One worker, the broker killed (-9) at a seeded moment of its work."""
    b = stage.bench()
    b.produce(b.events(EVENTS))
    with b.worker(free_port()) as worker:
        worker.until_ready(150)
        b.settle(worker)
        b.produce(b.shifted(SHIFTED, 40.0))
        time.sleep(stage.random.uniform(0, 2))
        stage.broker.kill()
        before, began, states = len(worker.log()), time.monotonic(), Counter()
        while time.monotonic() - began < seconds:
            states[worker.get("/ready")[0], worker.get("/live")[0]] += 1
            time.sleep(0.5)
        lines = len(worker.log()[before:].splitlines())
        stage.broker.start()
        back = time.monotonic()
        b.produce(b.events(EVENTS))  # new ones: all others may have been read before it went
        produced_s, ends = time.monotonic() - back, sum(b.ends().values())
        while worker.metric("position", stage="collector") < ends and time.monotonic() - back < 60:
            time.sleep(0.1)
        drained_s = time.monotonic() - back
        b.settle(worker)
        worker.send(signal.SIGTERM)
        code = worker.wait(15)
    seen = {
        "away s": seconds,
        "log lines": lines,
        "produced after s": round(produced_s, 1),
        "drained after s": round(drained_s, 1),
        "ready and live": {f"{ready} {live}": n for (ready, live), n in states.items()},
        "exit code": code,
    }
    assert code == 0, seen
    assert lines <= seconds * LINES_PER_S_MAX + SLACK_LINES, seen
    assert drained_s <= BACK_S_MAX, seen
    assert {live for _, live in states} == {200}, seen
    assert seconds < UNREADY_S or 503 in {ready for ready, _ in states}, seen
    return seen | verdict(b, drifted=True)


ROWS: dict[str, Row] = {
    "F4-1": partial(away, seconds=1.0),
    "F4-30": partial(away, seconds=30.0),
    "F4": partial(away, seconds=600.0),
}

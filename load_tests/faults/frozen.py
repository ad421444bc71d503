"""F3: a worker is frozen for 5, 30 or 120 seconds under load, and comes back as a zombie owner."""

from __future__ import annotations

import signal
import time
from functools import partial
from typing import Any

from load_tests.faults.stage import Row, Stage, verdict
from stream.broker import _free_ports

EVERY_S = 2.0
EVENTS, SHIFTED = 800, 4_000  # each time; once both are awake, so many that the drift is found
SHIFT = 40.0


def frozen(stage: Stage, seconds: float) -> dict[str, Any]:
    """Two workers; one stops dead while events, then drifted ones, go on coming; the other takes over; both go on."""
    b, r = stage.bench(), stage.random
    ports = _free_ports(2, None)
    b.produce(b.events(4_000))
    with b.worker(ports[0]) as zombie, b.worker(ports[1]) as other:
        for worker in (zombie, other):
            worker.until_ready()
        b.settle(zombie, other)
        time.sleep(r.uniform(0, 2))
        zombie.send(signal.SIGSTOP)
        began = time.monotonic()
        b.produce(b.events(EVENTS))
        taken_over = None
        if seconds > 12:  # longer than a session: somebody else must have taken over
            taken_over = round(b.settle(other), 1)
        while time.monotonic() - began < seconds:
            b.produce(b.shifted(EVENTS, SHIFT))
            time.sleep(EVERY_S)
        zombie.send(signal.SIGCONT)
        for _ in range(5):
            b.produce(b.shifted(SHIFTED, SHIFT))
            time.sleep(EVERY_S)
        settled = round(b.settle(zombie, other), 1)
        owned = [worker.metric("owned_partitions") for worker in (zombie, other)]
        stall = round(zombie.metric("loop_stall_seconds_max"), 1)
        for worker in (zombie, other):
            worker.send(signal.SIGTERM)
        codes = [worker.wait(15) for worker in (zombie, other)]
    seen = {
        "frozen s": seconds,
        "taken over after s": taken_over,
        "settled after s": settled,
        "owned at the end": owned,
    }
    seen |= {"longest stall s": stall, "exit codes": codes}
    assert codes == [0, 0], seen
    return seen | verdict(b, drifted=True)


ROWS: dict[str, Row] = {f"F3-{seconds}": partial(frozen, seconds=seconds) for seconds in (5, 30, 120)}

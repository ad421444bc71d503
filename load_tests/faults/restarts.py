"""F10: workers are restarted one after the other while a watcher stays; each restart is a leave and a join."""

from __future__ import annotations

import contextlib
import signal
import time
from functools import partial
from typing import Any

from load_tests.faults.stage import Row, Stage, kit, verdict
from stream.broker import _free_ports

EVENTS = 800  # during each restart
REBALANCES_MAX = 3  # of each: leave, join, and one more


def rolling(stage: Stage, workers: int) -> dict[str, Any]:
    """`workers` beside the watcher, each stopped in order and started again."""
    b = stage.bench()
    ports = _free_ports(workers + 1, None)
    b.produce(b.events(3_000))
    with contextlib.ExitStack() as everybody:
        watcher = everybody.enter_context(b.worker(ports[0]))
        running = [everybody.enter_context(b.worker(port)) for port in ports[1:]]
        for worker in (watcher, *running):
            worker.until_ready()
        kit.until(lambda: watcher.metric("owned_partitions", stage="collector") < b.partitions, why=watcher.log)
        before = watcher.metric("rebalances_total")
        seconds = []
        for worker, port in zip(running, ports[1:], strict=True):
            started = time.monotonic()
            worker.send(signal.SIGTERM)
            assert worker.wait(30) == 0, worker.log()[-3000:]
            b.produce(b.events(EVENTS))
            everybody.enter_context(b.worker(port)).until_ready()
            seconds.append(round(time.monotonic() - started, 1))
        rebalances = watcher.metric("rebalances_total") - before
        b.settle(watcher)
    seen = {"restarts": workers, "rebalances": rebalances, "restart s": seconds}
    assert 2 * workers <= rebalances <= REBALANCES_MAX * workers, seen
    seen |= verdict(b)
    assert not seen["alerts"], "nothing drifted"
    return seen


ROWS: dict[str, Row] = {"F10": partial(rolling, workers=3)}

"""F9: workers join and leave every two seconds for five minutes, one to six at a time."""

from __future__ import annotations

import contextlib
import signal
import time
from functools import partial
from typing import Any

import psutil

from load_tests.faults.stage import Row, Stage, verdict
from stream.broker import _free_ports

EVERY_S = 2.0
WORKERS_MAX = 6
PROGRESS_S = 60.0
THREADS_MORE_MAX, FILES_MORE_MAX = 4, 10
REBALANCES_MIN = 4  # else nobody stormed


def storm(stage: Stage, seconds: float) -> dict[str, Any]:
    """One worker stays, up to five more come and go, by SIGTERM or SIGKILL; every minute must see progress."""
    b, r = stage.bench(), stage.random
    ports = _free_ports(WORKERS_MAX, None)
    changes, longest, progress_at, before = 0, 0.0, 0.0, -1
    with contextlib.ExitStack() as everybody:
        b.produce(b.events(4_000))
        stays = everybody.enter_context(b.worker(ports[0])).until_ready()
        process, others = psutil.Process(stays.process.pid), {}
        threads = process.num_threads()
        files = process.num_fds()
        began = progress_at = time.monotonic()
        while time.monotonic() - began < seconds:
            free = [port for port in ports[1:] if port not in others]
            at_work = [port for port, (_, worker) in sorted(others.items()) if worker.get("/ready")[0] == 200]
            if at_work and (not free or r.random() < 0.5):  # one that has not joined yet would leave unnoticed
                port = r.choice(at_work)
                context, worker = others.pop(port)
                worker.send(r.choice((signal.SIGTERM, signal.SIGTERM, signal.SIGKILL)))
                worker.wait(15)
                context.close()
                changes += 1
            elif free:
                context = contextlib.ExitStack()
                others[free[0]] = (context, context.enter_context(b.worker(free[0])))
                everybody.push(context)
                changes += 1
            b.produce(b.events(200))
            done = sum(b.committed().values())
            now = time.monotonic()
            if done > before:
                before, progress_at = done, now
            longest = max(longest, now - progress_at)
            assert longest <= PROGRESS_S, f"no progress for {longest:.0f} s"
            time.sleep(EVERY_S)
        for context, worker in others.values():
            worker.send(signal.SIGTERM)
            worker.wait(15)
            context.close()
        settled = round(b.settle(stays), 1)
        grown = process.num_threads() - threads, process.num_fds() - files
        rebalances = stays.metric("rebalances_total")
        stays.send(signal.SIGTERM)
        code = stays.wait(15)
    seen = {"changes": changes, "rebalances": rebalances, "longest without progress s": round(longest, 1)}
    seen |= {"settled after s": settled, "threads, descriptors more": grown, "exit code": code}
    assert code == 0, seen
    assert rebalances >= REBALANCES_MIN, seen
    assert grown[0] <= THREADS_MORE_MAX, seen
    assert grown[1] <= FILES_MORE_MAX, seen
    return seen | verdict(b)


ROWS: dict[str, Row] = {"F9": partial(storm, seconds=300.0), "F9-short": partial(storm, seconds=40.0)}

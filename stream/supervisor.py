"""`run --workers N`: N worker processes, one a core, restarted when they die, all ended together.

First one process prepares what all of them need (references from files, compiled kernels) and ends, so that the workers
stay small and do not do it all at once. A worker that fell is started again after 1, 2, 4, … 30 s; a minute of work
resets the pause. What a restart cannot mend (a wrong configuration, a named refusal) ends everything with that exit
code. Workers are sessions of their own, so that a Ctrl-C in the terminal reaches them once, through here; each holds a
pipe from here and dies with it (worker_main).
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path
from types import FrameType

log = logging.getLogger(__name__)

WORKERS_MAX = 256
BACKOFF_FIRST_S = 1.0
BACKOFF_MAX_S = 30.0
HEALTHY_S = 60.0  # a worker that lived so long starts again at once
STOP_S = 12.0  # a worker drains in at most 10 s
POLL_S = 0.05


class Exit(IntEnum):
    """Exit codes of a worker and of the command. Everything that is not in FINAL is worth another start."""

    OK = 0
    REFUSED = 1  # a named refusal: the state is newer, an input was lost, partition counts differ
    USAGE = 2  # the configuration
    UNREACHABLE = 3  # the broker did not answer
    CRASHED = 70  # an error that nobody foresaw; EX_SOFTWARE of sysexits.h


FINAL = frozenset({Exit.REFUSED, Exit.USAGE})

#: glibc keeps an arena for each of a worker's threads otherwise, and what one has freed the others cannot use; and once a
#: large block was freed, the next ones come from the heap, which grows by what lies between them.
ARENAS = {"MALLOC_ARENA_MAX": "2", "MALLOC_MMAP_THRESHOLD_": "1048576", "MALLOC_TRIM_THRESHOLD_": "1048576"}

Command = Callable[[int], Sequence[str]]


def worker_command(config_path: Path | str, *flags: str) -> Command:
    """Command line of worker number i; flags: --drain, or --prepare."""

    def command(index: int) -> list[str]:
        arguments = [str(config_path), "--index", str(index), "--parent", str(os.getpid())]
        return [sys.executable, "-m", "stream.worker_main", *arguments, *flags]

    return command


@dataclass
class Child:
    """One worker's place: its process, when it may start (again), how often it has fallen."""

    index: int
    process: subprocess.Popen[bytes] | None = None
    started: float = 0.0
    start_at: float = 0.0
    falls: int = 0
    done: bool = False

    def start(self, command: Command) -> None:
        self.process = subprocess.Popen(  # noqa: S603
            command(self.index), stdin=subprocess.PIPE, start_new_session=True, env=ARENAS | os.environ
        )
        self.started = time.monotonic()

    def send(self, number: int) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(number)

    def close(self) -> None:
        if self.process is not None and self.process.stdin is not None:
            self.process.stdin.close()

    def plan_restart(self, first_s: float) -> float:
        """Seconds until the next start."""
        self.close()
        now = time.monotonic()
        self.falls = 1 if now - self.started >= HEALTHY_S else self.falls + 1
        pause: float = min(first_s * 2.0 ** (self.falls - 1), BACKOFF_MAX_S)
        self.start_at, self.process = now + pause, None
        return pause


@dataclass
class Supervisor:
    """Keeps `workers` children of `command` alive until it is told to stop or all are done."""

    command: Command
    workers: int
    drain: bool = False
    backoff_first_s: float = BACKOFF_FIRST_S
    signals: int = field(default=0, init=False)

    def run(self) -> int:
        """Exit code: 0 after a stop or a finished drain, else that of the worker that cannot be helped."""
        children = [Child(index) for index in range(self.workers)]
        with self._handlers():
            try:
                code = self._watch(children)
            finally:
                clean = self._stop(children)
        return code if code or clean else Exit.CRASHED

    def _watch(self, children: list[Child]) -> int:
        while not self.signals:
            for child in children:
                if child.done:
                    continue
                if child.process is None:
                    if time.monotonic() >= child.start_at:
                        child.start(self.command)
                    continue
                code = child.process.poll()
                if code is None:
                    continue
                if code in FINAL:
                    log.error("worker %d: exit code %d (%s), not restarted", child.index, code, Exit(code).name)
                    return code
                if code == Exit.OK and self.drain:
                    child.done = True
                    continue
                pause = child.plan_restart(self.backoff_first_s)
                log.warning("worker %d: %s, again in %.1f s", child.index, _how(code), pause)
            if all(child.done for child in children):
                return Exit.OK
            time.sleep(POLL_S)
        return Exit.OK

    def _stop(self, children: list[Child]) -> bool:
        """Ask all to stop, pass a second signal on, kill what is left after STOP_S. True = all ended by themselves."""
        forwarded, deadline, clean = 1, time.monotonic() + STOP_S, True
        for child in children:
            child.send(signal.SIGTERM)
        while any(child.process is not None and child.process.poll() is None for child in children):
            if self.signals > forwarded:
                forwarded = self.signals
                for child in children:
                    child.send(signal.SIGTERM)
            if time.monotonic() > deadline:
                clean = False
                for child in children:
                    child.send(signal.SIGKILL)
            time.sleep(POLL_S)
        for child in children:
            child.close()
        return clean

    @contextlib.contextmanager
    def _handlers(self) -> Iterator[None]:
        def note(_number: int, _frame: FrameType | None) -> None:
            self.signals += 1

        previous = {number: signal.signal(number, note) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)


def _how(code: int) -> str:
    if code < 0:
        return f"ended by signal {-code}"
    return f"exit code {code}" + (f" ({Exit(code).name})" if code in set(Exit) else "")


def run_supervisor(config_path: Path | str, workers: int, drain: bool = False) -> int:
    """Run `workers` processes over one configuration file; the exit code of the command. ValueError for a silly number."""
    if not 1 <= workers <= WORKERS_MAX:
        raise ValueError(f"workers: {workers}, expected 1 to {WORKERS_MAX}")
    preparation = Supervisor(worker_command(config_path, "--prepare"), 1, drain=True)
    code = preparation.run()
    if code or preparation.signals:
        return code
    return Supervisor(worker_command(config_path, *(["--drain"] if drain else [])), workers, drain).run()

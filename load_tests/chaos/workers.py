"""The workers of a chaos run: started with a failpoint each, watched, killed, frozen, told to stop, started again."""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from load_tests.chaos.faults import Arm
from stream.failpoints import FAILPOINTS_ENV, LOG_ENV
from stream.supervisor import ARENAS, Exit

POLL_S = 0.05
REACH_S = 25.0  # after it was ready; an arm that is not reached by then is put back
AFTER_FREEZE_S = 8.0  # a process that was frozen at its failpoint lives so long after
PROBE_S = 0.25
START_S = 60.0  # with an arm, until it is ready
STOP_S = 25.0

#: As large states have it, though these are small: what lies further back than twice the live size is written again.
FAR_FLOOR_BYTES = 40_000
# The entry of a worker without the one comparison that refuses topics whose compaction is as quick as here.
ENTRY = (
    "import os, sys\n"
    "import stream.admin, stream.state_writer\n"
    "stream.admin.AT_LEAST = ()\n"
    f"stream.state_writer.FAR_FLOOR_BYTES = {FAR_FLOOR_BYTES}\n"
    "from stream.worker_main import main\n"
    "code = main()\n"
    "import logging\n"
    "logging.shutdown(); sys.stdout.flush(); os._exit(code)\n"
)


@dataclass
class Tally:
    """What was done to the processes, and what became of them."""

    kills: int = 0
    terms: int = 0
    freezes: int = 0
    restarts: int = 0
    missed: int = 0  # arms that were not reached
    hits: Counter[str] = field(default_factory=Counter)
    tries: Counter[str] = field(default_factory=Counter)  # starts that were armed with it
    exits: Counter[int] = field(default_factory=Counter)
    ready_s: list[float] = field(
        default_factory=list
    )  # starts after a kill that nothing else befell; given up: how long it was
    ready_disturbed_s: list[float] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)  # processes that ended with an exit code that no fault explains
    disturbed_at: float = 0.0  # monotonic; the last fault that could delay another start


@dataclass
class Place:
    """Worker number `index`: one process after the other. `next_arm` gives the arm of each start."""

    index: int
    config_path: Path
    port: int
    tally: Tally
    next_arm: Callable[[Place], Arm | None]
    put_back: Callable[[Arm], None]
    on_death: Callable[[Place, Arm | None], None]
    snapshot_s: float = 1.0
    process: subprocess.Popen[bytes] | None = None
    arm: Arm | None = None
    wanted: asyncio.Event = field(default_factory=asyncio.Event)  # not set: no new start for the time being
    starts: int = 0
    ready: bool = False
    _watched: bool = False  # by `run`, which thaws it after the time of its freeze; nobody else would
    _frozen: bool = False
    _killed_at: float = 0.0
    _hits_before: int = 0  # characters of the hit log, which all places share

    @property
    def folder(self) -> Path:
        return self.config_path.parent

    @property
    def alive(self) -> bool:
        return self.process is not None and self.process.poll() is None

    # -- one process

    def start(self, arm: Arm | None, *arguments: str) -> None:
        self.starts += 1
        self.arm, self.ready, self._frozen = arm, False, False
        self._hits_before = self.hit_log.stat().st_size if self.hit_log.exists() else 0
        environment = ARENAS | os.environ | {LOG_ENV: str(self.hit_log)}
        environment[FAILPOINTS_ENV] = arm.text if arm is not None else ""
        command = [sys.executable, "-c", ENTRY, str(self.config_path), "--index", str(self.index)]
        command += ["--parent", str(os.getpid()), "--snapshot-seconds", str(self.snapshot_s), *arguments]
        with (self.folder / f"worker-{self.index}.log").open("ab") as output:
            output.write(f"--- start {self.starts}, armed: {environment[FAILPOINTS_ENV] or 'nothing'}\n".encode())
            output.flush()
            self.process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=output, stderr=subprocess.STDOUT, start_new_session=True,
                env=environment,
            )  # fmt: skip

    @property
    def hit_log(self) -> Path:
        return self.folder / "hits.log"

    def send(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            if self.process is not None:
                self.process.send_signal(number)

    def kill(self) -> bool:
        """SIGKILL; whether there was something to kill."""
        if not self.alive:
            return False
        self.send(signal.SIGKILL)
        return True

    async def freeze(self, seconds: float) -> None:
        if not self.alive:
            return
        self.tally.freezes += 1
        self.send(signal.SIGSTOP)
        await self._thaw(seconds)

    async def _thaw(self, seconds: float) -> None:
        process, self._frozen = self.process, True
        self.tally.disturbed_at = time.monotonic()
        await asyncio.sleep(seconds)
        self.tally.disturbed_at = time.monotonic()
        if process is not None and process.poll() is None:
            process.send_signal(signal.SIGCONT)
        self._frozen = False

    async def stop(self) -> None:
        """SIGTERM, and SIGKILL to what does not end."""
        if not self.alive:
            return
        self.tally.terms += 1
        self.send(signal.SIGTERM)
        await self.ended(STOP_S)

    async def ended(self, seconds: float) -> int | None:
        """The exit code once it is there; a process that takes longer is killed: None. The time that it is frozen does not
        count, for it cannot hear a signal then; one frozen at its failpoint after the end of its watch is thawed here.
        """
        process = self.process  # the next one may start meanwhile
        assert process is not None
        before = time.monotonic()
        left = seconds
        while process.poll() is None:
            now = time.monotonic()
            if not is_stopped(process.pid):
                left -= now - before
            elif not self._watched:
                process.send_signal(signal.SIGCONT)
            before = now
            if left < 0.0:
                self.tally.refused.append(
                    f"worker {self.index}, start {self.starts}, did not end within {seconds:.0f} s"
                )
                process.kill()
                process.wait()
                return None
            await asyncio.sleep(POLL_S)
        return process.returncode

    # -- one after the other

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await self.wanted.wait()
            started = time.monotonic()
            self.start(self.next_arm(self))
            self._watched = True
            try:
                await self._watch(started)
            finally:
                self._watched = False
            self._judge()

    async def _watch(self, started: float) -> None:
        """Until the process has ended: ask whether it is ready, thaw it, give up an arm that is not reached."""
        assert self.process is not None
        arm, process, ready_at, probed = self.arm, self.process, 0.0, 0.0
        deadline, stop_at = started + START_S, 0.0
        while process.poll() is None:
            await asyncio.sleep(POLL_S)
            now = time.monotonic()
            if not ready_at and now - probed > PROBE_S and not self._frozen:
                probed = now
                if await asyncio.to_thread(is_ready, self.port + self.index):
                    ready_at, self.ready = time.monotonic(), True
                    deadline, stop_at = ready_at + REACH_S, ready_at + 1.0 + self.starts % 3
                    self._note_ready(started, ready_at)
            if arm is None:
                continue
            if arm.name.startswith("stop.") and ready_at and stop_at and now > stop_at:
                stop_at = 0.0
                self.tally.terms += 1
                self.send(signal.SIGTERM)
            if arm.action == "freeze" and not self._frozen and is_stopped(process.pid):
                self.tally.freezes += 1
                await self._thaw(arm.freeze_s)
                deadline = time.monotonic() + AFTER_FREEZE_S
            if now > deadline and not self._frozen:
                if not ready_at:
                    self._note_ready(started, now)  # it took longer than this
                deadline = math.inf
                self.kill()

    def _note_ready(self, started: float, now: float) -> None:
        if not self._killed_at:
            return
        disturbed = self.tally.disturbed_at > self._killed_at + 1.0
        (self.tally.ready_disturbed_s if disturbed else self.tally.ready_s).append(now - started)

    def _judge(self) -> None:
        assert self.process is not None
        code, tally = self.process.returncode, self.tally
        tally.exits[code] += 1
        tally.restarts += 1
        now = time.monotonic()
        hits, arm = self._hits(self.process.pid), self.arm
        tally.hits.update(hits)
        if arm is not None:
            tally.tries.update(arm.names)
        if arm is not None and arm.name not in hits:
            tally.missed += 1
            self.put_back(arm)
            arm = Arm(arm.also) if arm.also in hits else None
        self._killed_at = 0.0
        if code == -signal.SIGKILL:
            tally.kills += 1
            tally.disturbed_at = self._killed_at = now
        elif code in (Exit.REFUSED, Exit.USAGE, Exit.CRASHED):
            tally.refused.append(f"worker {self.index}, start {self.starts}: exit {code}")
        self.on_death(self, arm)

    def _hits(self, pid: int) -> list[str]:
        """The failpoints that the process was at, in their order: a second one if it went on after the first."""
        if not self.hit_log.exists():
            return []
        lines = [line.split() for line in self.hit_log.read_text()[self._hits_before :].splitlines()]
        return [name for name, _, at in lines if int(at) == pid]


def is_ready(port: int) -> bool:
    """Whether the worker answers that it is ready and holds at least one partition."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/ready", timeout=1) as answer:
            text: str = answer.read().decode()
    except (OSError, urllib.error.URLError, ValueError):
        return False
    return any(word.isdigit() and int(word) for word in text.split())


def is_stopped(pid: int) -> bool:
    """Whether the process is stopped by a signal (Linux)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"
    except OSError:
        return False

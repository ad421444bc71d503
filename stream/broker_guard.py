"""Runs one command and ends it with whoever asked for it: `Guarded` is the parent's side, this file run as a script the other.

    python broker_guard.py LOG SCRATCH COMMAND …          (imports nothing of ours, so that it starts in no time)

Standard input is a pipe from the parent. Its end (the parent died, however that was) or a byte on it means: stop. Then the
command gets SIGTERM, after STOP_S SIGKILL. Without the byte the folder SCRATCH goes too ("" = none). The command lives
in the guard's own session, so a Ctrl-C in the terminal does not reach it, and has PR_SET_PDEATHSIG, so that it ends with
the guard as well. First line of output: the command's process id. Exit code: the command's, 128 + signal.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

STOP_S = 15.0
GRACE_S = 5.0
PR_SET_PDEATHSIG = 1


def end_with_guard() -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


class Guarded:
    """A running command that cannot outlive this process. Output goes to the end of `log`.

    scratch: a folder that goes when this process dies or `stop(keep=False)` is called. Raises OSError where the command
    cannot be started.
    """

    def __init__(self, command: Sequence[str], log: Path, scratch: Path | None = None) -> None:
        self._process = subprocess.Popen(  # noqa: S603
            [sys.executable, "-I", "-S", __file__, str(log), str(scratch or ""), *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        assert self._process.stdout is not None
        first = self._process.stdout.readline()
        if not first.strip().isdigit():
            self.stop()
            raise OSError(f"cannot run {command[0]}; see {log}")
        self.pid = int(first)
        self.guard_pid = self._process.pid

    @property
    def running(self) -> bool:
        return self._process.poll() is None

    @property
    def exit_code(self) -> int | None:
        """The command's, 128 + signal; None while it runs."""
        return self._process.poll()

    def send_signal(self, number: int) -> None:
        if self.running:
            os.kill(self.pid, number)

    def stop(self, *, keep: bool = True) -> None:
        """SIGTERM, later SIGKILL; returns when it is gone. Safe to call twice."""
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        with contextlib.suppress(BrokenPipeError, ValueError):
            if keep:
                stdin.write(b"k")
            stdin.close()
        stdout.close()
        try:
            self._process.wait(STOP_S + GRACE_S)
        except subprocess.TimeoutExpired:  # the guard itself is stopped: its end takes the command along
            self._process.kill()
            self._process.wait()


def main(log: str, scratch: str, command: list[str]) -> int:
    wake_read, wake_write = os.pipe()
    for end in (wake_read, wake_write):
        os.set_blocking(end, False)
    signal.set_wakeup_fd(wake_write)
    for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: None)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with Path(log).open("ab") as output:
        # the guard has one thread, so code between fork and exec is safe, and the thread that "is" the parent never ends
        child = subprocess.Popen(  # noqa: S603
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            preexec_fn=end_with_guard,  # noqa: PLW1509
        )
    with contextlib.suppress(BrokenPipeError):  # the parent died meanwhile: the end of its pipe says so below
        print(child.pid, flush=True)
    keep = False
    while child.poll() is None:
        ready, _, _ = select.select([0, wake_read], [], [])
        if 0 in ready:
            keep = bool(os.read(0, 1))
            break
        if set(os.read(wake_read, 64)) - {signal.SIGCHLD}:
            break
    else:
        keep = True  # it died by itself: whoever asked for it may start it again on the same data
    if child.poll() is None:
        child.terminate()
        try:
            child.wait(STOP_S)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
    if scratch and not keep:
        with contextlib.suppress(OSError):
            shutil.rmtree(scratch)
    return child.returncode if child.returncode >= 0 else 128 - child.returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2], sys.argv[3:]))

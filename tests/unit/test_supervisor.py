"""The supervisor with children that are small scripts: restarts, exit codes, signals, kill -9."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from stream.supervisor import Exit, Supervisor, run_supervisor


def script(text: str):
    return lambda index: [sys.executable, "-c", text.replace("INDEX", str(index))]


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"


def wait_for(condition, seconds: float = 10.0):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        value = condition()
        if value:
            return value
        time.sleep(0.02)
    raise AssertionError("waited in vain")


@pytest.mark.parametrize("code", [Exit.REFUSED, Exit.USAGE])
def test_what_a_restart_cannot_mend_ends_everything_with_its_code(code, tmp_path):
    command = script(
        f"import sys, time, pathlib; pathlib.Path({str(tmp_path)!r}, 'INDEX').touch(exist_ok=False)\n"
        f"sys.exit({int(code)}) if INDEX == 1 else time.sleep(60)"
    )
    assert Supervisor(command, 2, backoff_first_s=0.01).run() == code
    assert {path.name for path in tmp_path.iterdir()} >= {"1"}  # started once: touch(exist_ok=False) would fail


def test_the_fallen_are_restarted_and_a_drain_that_ends_is_not(tmp_path):
    command = script(
        f"import os, pathlib, signal, sys\nlog = pathlib.Path({str(tmp_path)!r}, 'starts')\n"
        "with log.open('a') as f: f.write('x')\n"
        "n = log.stat().st_size\n"
        "if n == 1: os.kill(os.getpid(), signal.SIGKILL)\n"
        "sys.exit(70 if n == 2 else 0)"
    )
    assert Supervisor(command, 1, drain=True, backoff_first_s=0.01).run() == Exit.OK
    assert (tmp_path / "starts").stat().st_size == 3


def test_pauses_grow_and_are_bounded():
    from stream.supervisor import BACKOFF_MAX_S, Child

    child = Child(0, started=time.monotonic())
    assert [child.plan_restart(1.0) for _ in range(7)] == [1, 2, 4, 8, 16, BACKOFF_MAX_S, BACKOFF_MAX_S]
    child.started -= 120
    assert child.plan_restart(1.0) == 1


def test_sigterm_stops_all_and_a_second_one_is_passed_on(tmp_path):
    command = script(
        "import pathlib, signal, sys, time\nseen = []\n"
        "def stop(*_):\n    seen.append(1)\n    if len(seen) == 2: sys.exit(0)\n"
        "signal.signal(signal.SIGTERM, stop)\n"
        f"pathlib.Path({str(tmp_path)!r}, 'INDEX').touch()\n"
        "while True: time.sleep(.01)"
    )
    supervisor = Supervisor(command, 2)

    def interrupt() -> None:
        wait_for(lambda: len(list(tmp_path.iterdir())) == 2)
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.3)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=interrupt).start()
    started = time.monotonic()
    assert supervisor.run() == Exit.OK
    assert time.monotonic() - started < 8


def test_children_end_with_a_killed_parent(tmp_path):
    child = (
        "import os, pathlib, time\nfrom stream.lifeline import end_with_parent\n"
        "end_with_parent({})\n"
        f"pathlib.Path({str(tmp_path)!r}, str(os.getpid())).touch()\ntime.sleep(60)"
    )
    text = (
        "import os, sys\nfrom stream.supervisor import Supervisor\n"
        f"Supervisor(lambda i: [sys.executable, '-c', {child!r}.format(os.getpid())], 2).run()"
    )
    parent = subprocess.Popen([sys.executable, "-c", text])
    pids = wait_for(lambda: len(list(tmp_path.iterdir())) == 2 and [int(p.name) for p in tmp_path.iterdir()])
    parent.kill()
    parent.wait()
    wait_for(lambda: not any(alive(pid) for pid in pids))


def test_a_silly_number_of_workers_is_refused():
    with pytest.raises(ValueError, match="expected 1 to"):
        run_supervisor("monitor.yaml", 0)


def test_nothing_is_started_before_the_preparation_has_succeeded(tmp_path, monkeypatch):
    calls = tmp_path / "calls"

    def command(_path, *flags):
        return script(
            f"import pathlib, sys\nopen({str(calls)!r}, 'a').write({' '.join(flags) + ';'!r})\nsys.exit(CODE)".replace(
                "CODE", code
            )
        )

    monkeypatch.setattr("stream.supervisor.worker_command", command)
    code = str(int(Exit.REFUSED))
    assert run_supervisor("monitor.yaml", 2, drain=True) == Exit.REFUSED
    assert calls.read_text() == "--prepare;"
    code = "0"
    assert run_supervisor("monitor.yaml", 2, drain=True) == Exit.OK
    assert calls.read_text() == "--prepare;--prepare;--drain;--drain;"

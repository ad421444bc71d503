"""`driftline demo` as a person runs it: it finds its drift, ends when told to, and leaves nothing behind however it ends."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

START_S = 240.0  # the very first worker on a machine compiles its kernels


class Running:
    """A demo in a session of its own, with its output as it comes."""

    def __init__(self, log: Path, *arguments: str) -> None:
        self.log = log
        with log.open("wb") as output:
            command = [sys.executable, "-m", "stream.cli", "demo", *arguments]
            self.process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, start_new_session=True)

    def text(self) -> str:
        return self.log.read_text()

    def until(self, pattern: str, wait_s: float) -> re.Match[str]:
        deadline = time.monotonic() + wait_s
        while (found := re.search(pattern, self.text(), re.MULTILINE)) is None:
            assert self.process.poll() is None, self.text()
            assert time.monotonic() < deadline, self.text()
            time.sleep(0.1)
        return found

    def family(self) -> list[psutil.Process]:
        return [self.process_of(), *self.process_of().children(recursive=True)]

    def process_of(self) -> psutil.Process:
        return psutil.Process(self.process.pid)


def wait_gone(family: list[psutil.Process], folder: str) -> None:
    _, alive = psutil.wait_procs(family, timeout=40)
    assert not alive
    deadline = time.monotonic() + 10
    while Path(folder).exists():
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.fixture
def demo(tmp_path: Path) -> Iterator[Callable[..., Running]]:
    started: list[Running] = []

    def start(*arguments: str) -> Running:
        started.append(Running(tmp_path / f"demo-{len(started)}.log", *arguments))
        return started[-1]

    yield start
    for running in started:
        running.process.kill()
        running.process.wait()


FOLDER = r"all else are in (\S+)"


def test_it_finds_the_drift_and_ctrl_c_ends_it(demo: Callable[..., Running]) -> None:
    running = demo()
    folder = running.until(FOLDER, 60)[1]
    running.until(r"predictions a second from now on", START_S)
    family = running.family()
    assert any("kafka.Kafka" in member.cmdline() for member in family)
    alert = running.until(r"WARNING +fraud · (.+)$", 60)
    running.until("What to try next", 5)
    os.kill(running.process.pid, signal.SIGINT)
    assert running.process.wait(40) == 0
    text = running.text()
    assert alert[1].startswith("amount moved up by about 0.")
    assert len(re.findall("WARNING|CRITICAL", text)) == 1
    assert "resolution 1 s, lateness 2 s and windows of 5 s" in text
    wait_gone(family, folder)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_however_it_ends_nothing_stays(demo: Callable[..., Running], number: int) -> None:
    running = demo()
    folder = running.until(FOLDER, 60)[1]
    running.until(r"the worker starts", 60)
    deadline = time.monotonic() + 60
    while len(family := running.family()) < 6:  # itself, two guards, broker, supervisor, worker
        assert time.monotonic() < deadline
        time.sleep(0.1)
    os.kill(running.process.pid, number)
    code = running.process.wait(40)
    assert code == (0 if number == signal.SIGINT else -signal.SIGKILL)
    wait_gone(family, folder)


def test_it_ends_by_itself_and_without_a_terminal(demo: Callable[..., Running]) -> None:
    running = demo("--duration", "1")
    folder = running.until(FOLDER, 60)[1]
    family = running.family()
    assert running.process.wait(START_S) == 0
    assert "0 alerts" in running.text()
    wait_gone(family, folder)

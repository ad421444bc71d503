"""The worker's log: its own errors whole, everything that an absent broker causes at one line a second."""

from __future__ import annotations

import itertools
import logging
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from stream.worker_main import Seldom


def record(name: str, text: str, *args: object, level: int = logging.ERROR) -> logging.LogRecord:
    return logging.LogRecord(name, level, "", 0, text, args, None)


def test_a_storm_of_all_loggers_is_one_line_a_second_with_a_count() -> None:
    """But for the first of each of our own texts in ten seconds."""
    clock = [0.0]
    seldom = Seldom(lambda: clock[0])
    shown = []
    for tick in range(3_000):  # 30 s, a hundred lines a second, six texts of four loggers
        clock[0] = tick / 100
        name = ("aiokafka.client", "faust.app", "asyncio", "stream.sender")[tick % 4]
        line = record(name, f"text {tick % 6}: %s", tick, level=logging.WARNING)
        if seldom.filter(line):
            shown.append((clock[0], name, line.getMessage()))
    own = {tick % 6 for tick in range(3_000) if tick % 4 == 3}
    assert 10 <= len(shown) <= 30 + 3 * len(own)
    libraries = [at for at, name, _ in shown if name != "stream.sender"]
    assert all(b - a >= 1 for a, b in itertools.pairwise(libraries))
    kept = sum(int(text.rpartition("(and ")[2].split()[0]) for _, _, text in shown if "(and" in text)
    assert 0 <= 3_000 - len(shown) - kept < 300  # the rest is told by the next line


def test_what_we_warn_of_once_is_told_among_whatever_others_say() -> None:
    clock, told = [0.0], []
    seldom = Seldom(lambda: clock[0])
    for tick in range(1_000):
        clock[0] = tick / 100
        seldom.filter(record("aiokafka.client", f"text {tick}", level=logging.WARNING))
        if tick in (333, 377, 420, 481):
            line = record("stream.app", "state %s" if tick != 420 else "another %s", tick, level=logging.WARNING)
            told += [tick] if seldom.filter(line) else []
    assert told == [333, 420]  # the others within a second of other lines, with a text that was told


def test_a_librarys_text_comes_once_in_ten_seconds_and_our_errors_always() -> None:
    clock = [0.0]
    seldom = Seldom(lambda: clock[0])
    assert seldom.filter(record("aiokafka.client", "cannot reach %s", 1))
    assert all(seldom.filter(record("stream.engine", "stopping: %s", i)) for i in range(5))
    assert all(seldom.filter(record("stream.app", "said", level=logging.INFO)) for _ in range(5))
    clock[0] = 5.0
    assert not seldom.filter(record("aiokafka.client", "cannot reach %s", 2))
    other = record("aiokafka.client", "another text")
    assert seldom.filter(other)
    assert other.getMessage() == "another text (and 1 lines kept back)"
    clock[0] = 10.1
    again = record("aiokafka.client", "cannot reach %s", 7)
    assert seldom.filter(again)
    assert again.getMessage() == "cannot reach 7"


def test_the_inside_of_a_library_is_one_line() -> None:
    line = record("aiokafka.consumer", "failed")
    line.exc_info = (ValueError, ValueError("two\nlines"), None)
    assert Seldom().filter(line)
    text = logging.Formatter("%(message)s").format(line)
    assert text == "failed: ValueError('two\\nlines')"


def test_a_signal_before_anything_is_owned_ends_the_worker_in_order(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:  # accepts, never answers: the worker asks for metadata
        config = tmp_path / "monitor.yaml"
        config.write_text(
            f"kafka: {{bootstrap_servers: '127.0.0.1:{silent.getsockname()[1]}'}}\n"
            "topics: {predictions: p}\nmodels: {m: {reference: {first: 10000}}}\n"
        )
        worker = subprocess.Popen([sys.executable, "-m", "stream.worker_main", str(config)])
        try:
            with silent.accept()[0]:  # held: closed, the worker might see that first, and end for it
                worker.terminate()
                assert worker.wait(10) == 0
        finally:
            worker.kill()
            worker.wait()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_does_not_wait_for_the_compiler(number: int) -> None:
    """Half a minute in a library that lets other threads run, as LLVM does."""
    code = (
        "import hashlib\nfrom stream.worker_main import end_at_signals\nend_at_signals()\nprint('busy', flush=True)\n"
        "hashlib.pbkdf2_hmac('sha256', b'x', b'y', 60_000_000)\nprint('done', flush=True)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as worker:
        try:
            assert worker.stdout is not None
            assert worker.stdout.readline() == "busy\n"
            time.sleep(0.3)
            worker.send_signal(number)
            assert worker.wait(8) == 0
            assert worker.stdout.read() == ""
        finally:
            worker.kill()

"""The worker's log: its own errors whole, everything that an absent broker causes at one line a second."""

from __future__ import annotations

import itertools
import logging

from stream.worker_main import Seldom


def record(name: str, text: str, *args: object, level: int = logging.ERROR) -> logging.LogRecord:
    return logging.LogRecord(name, level, "", 0, text, args, None)


def test_a_storm_of_all_loggers_is_one_line_a_second_with_a_count() -> None:
    clock = [0.0]
    seldom = Seldom(lambda: clock[0])
    shown = []
    for tick in range(3_000):  # 30 s, a hundred lines a second, six texts of four loggers
        clock[0] = tick / 100
        name = ("aiokafka.client", "faust.app", "asyncio", "stream.sender")[tick % 4]
        line = record(name, f"text {tick % 6}: %s", tick, level=logging.WARNING)
        if seldom.filter(line):
            shown.append((clock[0], line.getMessage()))
    assert 10 <= len(shown) <= 30
    assert all(b[0] - a[0] >= 1 for a, b in itertools.pairwise(shown))
    kept = sum(int(text.rpartition("(and ")[2].split()[0]) for _, text in shown if "(and" in text)
    assert 0 <= 3_000 - len(shown) - kept < 300  # the rest is told by the next line


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

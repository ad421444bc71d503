"""The worker's log: its own lines whole, a client library's storms as one line with a count."""

from __future__ import annotations

import logging

from stream import worker_main


def record(name: str, text: str, *args: object) -> logging.LogRecord:
    return logging.LogRecord(name, logging.ERROR, "", 0, text, args, None)


def test_repeated_lines_of_a_client_are_counted(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(worker_main.time, "monotonic", lambda: clock[0])
    seldom = worker_main.Seldom()
    passed = [seldom.filter(record("aiokafka.client", "cannot reach %s", i)) for i in range(100)]
    assert passed == [True] + [False] * 99
    assert all(seldom.filter(record("stream.upkeep", "look: %s", i)) for i in range(5))
    assert seldom.filter(record("aiokafka.client", "another text"))
    clock[0] = 10.1
    again = record("aiokafka.client", "cannot reach %s", 7)
    assert seldom.filter(again)
    assert again.getMessage() == "cannot reach 7 (and 99 more like it)"

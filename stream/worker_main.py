"""One worker process, started by the supervisor: python -m stream.worker_main CONFIG --index I --parent PID [--drain] [--prepare]."""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType

from stream.lifeline import end_with_parent
from stream.supervisor import Exit

TEXTS_MAX = 1_000
SELDOM_S = 10.0  # the same text of a client library again
LINE_S = 1.0  # any two lines of what is limited
LIBRARIES = ("aiokafka", "faust", "mode", "kafka", "stream.transport")  # Faust names its services by our module
QUIET = (*LIBRARIES, "asyncio")
STOPS = (signal.SIGTERM, signal.SIGINT)


class Seldom(logging.Filter):
    """At most one line a second of client libraries and of our own warnings together, and how many were kept back.

    With the broker away aiokafka writes some fifty lines a second, and every partition says that it waits. Of a library a
    text comes once in SELDOM_S, without the trace of its own insides. Our errors and the reason of a stop always pass, and
    so does a text of ours that was not told for SELDOM_S: one that is said once must not be lost among those of others.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._clock = clock
        self._texts: dict[str, float] = {}
        self._line = -SELDOM_S
        self._kept = 0

    def filter(self, record: logging.LogRecord) -> bool:
        library = record.name.startswith(QUIET)
        if not library and record.levelno != logging.WARNING:
            return True
        now, text = self._clock(), f"{record.name} {record.msg}"
        soon, again = now - self._line < LINE_S, now - self._texts.get(text, -SELDOM_S) < SELDOM_S
        if (soon or again) if library else (soon and again):
            self._kept += 1
            return False
        if len(self._texts) > TEXTS_MAX:
            self._texts.clear()
        self._texts[text] = self._line = now
        said = record.getMessage()
        if library and record.exc_info and record.exc_info[1] is not None:
            said += f": {record.exc_info[1]!r}"
            record.exc_info, record.exc_text = None, None
        if self._kept:
            said += f" (and {self._kept} lines kept back)"
        record.msg, record.args, self._kept = said.replace("\n", " "), (), 0
        return True


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="driftline worker")
    parser.add_argument("config", type=Path)
    parser.add_argument("--index", type=int, default=0)
    parser.add_argument("--parent", type=int, default=0)
    parser.add_argument("--drain", action="store_true")
    parser.add_argument("--prepare", action="store_true", help="build references and compile, then end")
    parser.add_argument("--snapshot-seconds", type=float, default=10.0)
    given = parser.parse_args(arguments)
    end_at_signals()
    if given.parent:
        end_with_parent(given.parent)
    logging.basicConfig(
        level=logging.INFO,
        format=f"%(asctime)s worker {given.index} %(levelname)s %(name)s: %(message)s",
        stream=sys.stderr,
    )
    for handler in logging.getLogger().handlers:
        handler.addFilter(Seldom())
    for name in LIBRARIES:
        logging.getLogger(name).setLevel(logging.WARNING)
    return _run(given)


def end_at_signals() -> None:
    """End at the first SIGTERM or SIGINT, with exit code 0, until a loop listens (app.py), which takes the descriptor over: nothing is
    owned before that would have to be given up.

    By a thread too: one kernel takes a compiler seconds, ten and more on a machine that is crowded, and a handler waits for it;
    the supervisor kills whoever takes longer than supervisor.STOP_S.
    """
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    for number in STOPS:
        signal.signal(number, _end_at_once)
    signal.set_wakeup_fd(writing)
    threading.Thread(target=_end_when_told, args=(reading,), name="signals", daemon=True).start()


def _end_at_once(_number: int, _frame: FrameType | None) -> None:
    os._exit(Exit.OK)


def _end_when_told(reading: int) -> None:
    while not set(os.read(reading, 64)) & set(STOPS):
        pass
    os._exit(Exit.OK)


def _run(given: argparse.Namespace) -> int:
    from stream.config_errors import ConfigError
    from stream.config_loader import load

    try:
        config = load(given.config).config
    except ConfigError as error:
        print(error, file=sys.stderr)
        return Exit.USAGE
    from stream.app import prepare, run_worker
    from stream.upkeep import Rhythm

    try:
        if given.prepare:
            return prepare(config)
        return run_worker(
            config, drain=given.drain, index=given.index, rhythm=Rhythm(snapshot_s=given.snapshot_seconds)
        )
    except Exception:
        logging.getLogger(__name__).exception("the worker crashed")
        return Exit.CRASHED


if __name__ == "__main__":
    code = main()
    logging.shutdown()
    sys.stdout.flush()
    os._exit(code)  # whatever thread a client library left behind

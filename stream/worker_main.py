"""One worker process, started by the supervisor: python -m stream.worker_main CONFIG --index I --parent PID [--drain] [--prepare]."""

from __future__ import annotations

import argparse
import logging
import os
import sys
import time
from pathlib import Path

from stream.lifeline import end_with_parent
from stream.supervisor import Exit

SELDOM_S = 10.0
QUIET = ("aiokafka", "faust", "mode", "kafka", "stream.transport")  # Faust names its services by our module


class Seldom(logging.Filter):
    """Lets one line of a client library through per text and SELDOM_S, and says how many it kept back.

    With the broker away aiokafka writes some twenty lines a second.
    """

    def __init__(self) -> None:
        super().__init__()
        self._last: dict[str, tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        if not record.name.startswith(QUIET):
            return True
        now = time.monotonic()
        last, kept = self._last.get(str(record.msg), (-SELDOM_S, 0))
        if now - last < SELDOM_S:
            self._last[str(record.msg)] = (last, kept + 1)
            return False
        self._last[str(record.msg)] = (now, 0)
        if kept:
            record.msg = f"{record.getMessage()} (and {kept} more like it)"
            record.args = ()
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
    if given.parent:
        end_with_parent(given.parent)
    logging.basicConfig(
        level=logging.INFO,
        format=f"%(asctime)s worker {given.index} %(levelname)s %(name)s: %(message)s",
        stream=sys.stderr,
    )
    for handler in logging.getLogger().handlers:
        handler.addFilter(Seldom())
    for name in QUIET:
        logging.getLogger(name).setLevel(logging.WARNING)
    return _run(given)


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

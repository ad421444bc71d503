"""Rows of the fault list that take minutes, on real processes and a real Kafka of their own.

    python -m load_tests.faults ROW [--seed S] [--json] [--keep FOLDER]

Every module of this package has `ROWS`: name -> function(stage: Stage) -> what was seen, a dictionary with "ok". The
verdict is the plain recount of the tests. Exit code 1 when something did not hold.
"""

from __future__ import annotations

import argparse
import importlib
import json
import pkgutil
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import Any

from load_tests import faults
from load_tests.faults.stage import Row, Stage
from stream.broker import Broker


def rows() -> dict[str, Row]:
    """Every row by name."""
    found: dict[str, Row] = {}
    for module in pkgutil.iter_modules(faults.__path__):
        if module.name != "__main__":
            found |= getattr(importlib.import_module(f"load_tests.faults.{module.name}"), "ROWS", {})
    return found


def main() -> int:
    known = rows()
    parser = argparse.ArgumentParser(prog="python -m load_tests.faults", description=__doc__)
    parser.add_argument("row", choices=sorted(known))
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", action="store_true", help="one line of JSON")
    parser.add_argument("--keep", type=Path, help="folder for the logs of the workers")
    given = parser.parse_args()
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as temporary, Broker() as broker:
        folder = given.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        seen: dict[str, Any] = {"row": given.row, "seed": given.seed}
        try:
            seen |= known[given.row](Stage(broker, folder, given.seed))
        except AssertionError as error:
            traceback.print_exc()
            seen |= {"ok": False, "why": str(error)[:2_000]}
    seen["seconds"] = round(time.monotonic() - started, 1)
    print(json.dumps(seen) if given.json else "\n".join(f"{key}: {value}" for key, value in seen.items()))
    return 0 if seen["ok"] else 1


if __name__ == "__main__":
    sys.exit(main())

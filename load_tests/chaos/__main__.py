"""Workers, their broker and their input made to fail for an hour, and every result compared with an independent recount.

    python -m load_tests.chaos --kills N --workers W --seed S [--json] [--keep DIR]

Starts its own Apache Kafka, publishes continuously, and ends, freezes, stops and starts workers at every named step of
their work (stream/failpoints.py), the broker too. Then everything is drained, and what is in the topics is judged.
Exit code 0: nothing lost, double, wrong or spurious; and, from 300 kills on, every condition of report.py holds.
The same seed gives the same plan and the same events; when what happens is up to the machine.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from load_tests.chaos.cluster import Cluster
from load_tests.chaos.director import Director
from load_tests.chaos.evidence import collect
from load_tests.chaos.faults import Plan
from load_tests.chaos.report import idle_then_active, report, restores, story
from load_tests.chaos.verdict import judge


async def run(folder: Path, *, kills: int, workers: int, seed: int, snapshot_s: float) -> dict[str, Any]:
    """One whole run; everything it leaves is in `folder`."""
    began = time.monotonic()
    cluster = Cluster(folder, workers)
    try:
        await asyncio.to_thread(cluster.start)
        director = Director(cluster, Plan(seed, kills, workers), workers, snapshot_s)
        try:
            await director.run()
        finally:
            director.end()
        evidence = await collect(cluster.servers, cluster.config)
        evidence.save(folder / "evidence")
        verdict = await asyncio.to_thread(judge, evidence, cluster.config_path)
        idles = await asyncio.to_thread(idle_then_active, cluster)
        return report(director, verdict, idles, restores(folder), time.monotonic() - began)
    finally:
        await asyncio.to_thread(cluster.close)


def said(found: dict[str, Any]) -> str:
    """The report for people: of the failpoints those that something was counted of."""
    found = found | {name: {point: n for point, n in found[name].items() if n} for name in ("hits", "tries")}
    return "\n".join(f"{name:<28} {value}" for name, value in found.items())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=300)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--snapshot-seconds", type=float, default=1.0)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--keep", type=Path, help="leave logs, configuration and report in this folder")
    given = parser.parse_args()
    for name in ("aiokafka", "kafka"):  # a broker that is away is no news here
        logging.getLogger(name).setLevel(logging.CRITICAL)
    folder: Path = given.keep or Path(tempfile.mkdtemp(prefix="driftline-chaos-"))
    folder.mkdir(parents=True, exist_ok=True)
    kept = True
    try:
        found = asyncio.run(
            run(folder, kills=given.kills, workers=given.workers, seed=given.seed, snapshot_s=given.snapshot_seconds)
        )
        text = json.dumps(found, indent=2)
        (folder / "report.json").write_text(text + "\n")
        print(text if given.json else said(found))
        if not found["holds"]:  # where the folder is out of reach, as after a CI run, this is all there is
            print(story(folder), file=sys.stderr)
        kept = given.keep is not None or not found["holds"]
        return 0 if found["holds"] else 1
    finally:
        if kept:
            print(f"logs, configuration and report: {folder}", file=sys.stderr)
        else:
            shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())

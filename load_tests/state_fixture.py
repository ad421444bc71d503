"""The state logs of a small run, as a fixture of this version: python -m load_tests.state_fixture [FOLDER].

Writes FOLDER (tests/data/state/VERSION) with `records.json`: every record of the state topics and of the references topic,
base64, with topic role, partition and offset; `monitor.yaml`: the configuration; `summary.json`: what the states say
(state_summary.py). A worker is killed at the right place, so that the newest manifest of a collector holds decisions
and outputs that have not left. Run it once per release, after the version has been raised, and commit the folder.
"""

from __future__ import annotations

import argparse
import base64
import json
import signal
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

from load_tests.faults.stage import Stage, kit
from stream.broker import Broker
from stream.snapshot_format import HELD, decode_manifest, parse_key

ROOT = Path(__file__).resolve().parents[1]
ROLES = ("state.collector", "state.monitor", "references")
EVENTS = 4_000  # two windows
TRIES_MAX = 12


def records(bench: Any) -> list[dict[str, Any]]:
    """Every record of the topics of ROLES."""
    found = []
    for role in ROLES:
        for record in bench.read(f"{bench.prefix}{role}"):
            value = None if record.value is None else base64.b64encode(record.value).decode()
            key = base64.b64encode(record.key).decode()
            found.append(
                {"role": role, "partition": record.partition, "offset": record.offset, "key": key, "value": value}
            )
    return sorted(found, key=lambda item: (item["role"], item["partition"], item["offset"]))


def holds_outputs(bench: Any) -> bool:
    """Whether the newest manifest of some collector has outputs that wait for its commit."""
    newest: dict[int, tuple[tuple[int, int], bytes]] = {}
    for record in bench.read(f"{bench.prefix}state.collector"):
        key = parse_key(record.key)
        if key is not None and key.kind in "cm" and record.value is not None:
            at = (key.epoch, key.sequence)
            newest[record.partition] = max(newest.get(record.partition, (at, record.value)), (at, record.value))
    return any(HELD in decode_manifest(value).refs for _, value in newest.values())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "folder", type=Path, nargs="?", default=ROOT / "tests" / "data" / "state" / version("driftline")
    )
    folder = parser.parse_args().folder
    with tempfile.TemporaryDirectory() as temporary, Broker() as broker:
        bench = Stage(broker, Path(temporary), 1).bench(partitions=2, settings="metrics: {port: 0}\n")
        bench.produce(bench.events(EVENTS), compressions=(None,))
        with bench.running() as process:
            kit.until(bench.windows, 150)
            time.sleep(2)
            process.send_signal(signal.SIGTERM)
            process.wait(15)
        for nth in range(1, TRIES_MAX):
            command = ["env", f"DRIFTLINE_FAILPOINTS=before:snapshot.6-commit@{nth}=kill", *bench.command("--drain")]
            with bench.running(command=command) as process:
                process.wait(150)
            if holds_outputs(bench):
                break
        else:
            raise RuntimeError("no manifest holds outputs")
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "records.json").write_text(json.dumps(records(bench), indent=0) + "\n")
        (folder / "monitor.yaml").write_text(bench.config_path.read_text())
    from load_tests.state_summary import summaries

    (folder / "summary.json").write_text(json.dumps(summaries(folder), indent=1, sort_keys=True) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())

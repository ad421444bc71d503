"""What the states of a fixture say, in plain numbers: what any later version must read out of the same records."""

from __future__ import annotations

import base64
import hashlib
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from stream.collector import Collector
from stream.config_loader import load
from stream.monitor import Monitor
from stream.ownership import PartitionOwner
from stream.panes import EDGE_END, Pane, decode_record
from stream.protocol import Append, Bounds, Commit, LogRecord, LogSlice, ReadLog, ReadMetadata, Steps
from stream.reference_records import ReferenceLog
from stream.references import Known
from stream.stage import Output
from stream.worker import Setup

SOURCES = {"collector": "predictions", "monitor": "panes"}


def summaries(folder: Path) -> dict[str, Any]:
    """By stage and partition. Raises what a worker would refuse with."""
    stored = [
        (
            r["role"],
            r["partition"],
            r["offset"],
            base64.b64decode(r["key"]),
            r["value"] and base64.b64decode(r["value"]),
        )
        for r in json.loads((folder / "records.json").read_text())
    ]
    references = ReferenceLog()
    for role, _, _, key, value in stored:
        if role == "references":
            references.add(key, value)
    (name,) = references.ids()
    profile = references.get(name)
    assert profile is not None
    config = load(folder / "monitor.yaml").config
    setup = Setup.of(config, 2, Known({"m": profile}, {}, {profile.id: profile}))
    found = {}
    for stage, source in SOURCES.items():
        for partition in sorted({p for role, p, *_ in stored if role == f"state.{stage}"}):
            log = [LogRecord(o, k, v) for role, p, o, k, v in stored if (role, p) == (f"state.{stage}", partition)]
            found[f"{stage} {partition}"] = _summary(setup, stage, source, partition, log)
    return found


def _summary(setup: Setup, stage: str, source: str, partition: int, log: list[LogRecord]) -> dict[str, Any]:
    home = "" if (found := _home(log)) is None else found
    owner = PartitionOwner(stage, partition, setup.make_stage(stage, partition), "reader", sources=(source,), home=home)
    sent: list[Output] = []
    restored = _drive(owner.restore(), log, source, sent)
    decisions = [json.loads(output.value or b"") for output in sent if output.topic == "journal"]
    held = [output for output in sent if output.topic not in ("journal", f"state.{stage}")]
    body: dict[str, Any] = {
        "vector": dict(owner.vector),
        "decided": owner.decided,
        "journalled again": len(decisions),
        "held outputs": [[output.topic, hashlib.sha256(output.value or b"").hexdigest()[:16]] for output in held],
        "corrupt": restored.corrupt,
    }
    if isinstance(owner.stage, Collector):
        body |= {"accounting": asdict(owner.stage.accounting()), "marked_ms": owner.stage.marked_ms}
        if owner.stage.marked_ms < EDGE_END:
            owner.vector[source] = 1 << 60  # past everything: the end may be told
            owner.decide("tick", {"until_ms": EDGE_END})
            panes = [decode_record(output.value or b"") for output in owner.held if output.topic == "panes"]
            body["open panes"] = sorted([p.edge_ms, p.model, p.events] for p in panes if isinstance(p, Pane))
    if isinstance(owner.stage, Monitor):
        merger = owner.stage.merger
        body |= {"models": sorted(owner.stage.models), "position": owner.stage.position}
        body["marked_ms"] = [source.marked_ms for source in merger.sources]
        body["waiting panes"] = [sorted(source.panes) for source in merger.sources]
    return body


def _home(log: list[LogRecord]) -> str | None:
    from stream.snapshot_format import decode_manifest, parse_key

    for record in log:
        key = parse_key(record.key)
        if key is not None and key.kind in "cm" and record.value is not None:
            return decode_manifest(record.value).home
    return None


def _drive(steps: Steps[Any], log: list[LogRecord], source: str, sent: list[Output]) -> Any:
    """A broker that holds this log and takes what is written."""
    log, reply = list(log), None
    while True:
        try:
            effect = steps.send(reply)
        except StopIteration as stop:
            return stop.value
        match effect:
            case ReadMetadata():
                reply = ""
            case ReadLog(start=start):
                end = log[-1].offset + 1
                reply = LogSlice(0, end, start or 0, end, [r for r in log if r.offset >= (start or 0)])
            case Bounds():
                reply = {source: (0, 1 << 50)}
            case Commit():
                reply = True
            case Append(outputs=outputs):
                sent += outputs
                end = log[-1].offset + 1
                if outputs and outputs[0].topic.startswith("state."):
                    log += [LogRecord(end + n, output.key or b"", output.value) for n, output in enumerate(outputs)]
                reply = tuple(range(end, end + len(outputs)))
            case _:
                raise TypeError(effect)

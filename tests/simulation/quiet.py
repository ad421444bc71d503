"""What the same stages write where nothing ever fails, and how what was written differs from it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from stream.monitor import MissingReference
from stream.stage import Output


def quiet_outputs(world: Any) -> Iterator[Output]:
    """Everything that monitors write that read their panes once, each log in one batch."""
    kit = world.kit
    for partition in range(kit.monitors):
        log, monitor = world.log("panes", partition), kit.monitor(partition)
        records = [world.pane_record(partition, place) for place in range(log.end)]
        while monitor.position < log.end:
            try:
                monitor.apply("panes", records)
            except MissingReference as waits:
                kit.provide(monitor, waits)
        yield from monitor.outbox


def differences(written: Mapping[Any, bytes | None], quiet: Mapping[Any, bytes | None]) -> list[str]:
    """Of two sets of outputs by id, each with its body."""
    return [
        f"{ident!r}: written {written.get(ident)!r}, without a fault {quiet.get(ident)!r}"
        for ident in sorted(set(written) | set(quiet))
        if written.get(ident) != quiet.get(ident)
    ]

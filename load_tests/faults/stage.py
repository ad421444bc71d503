"""What a row plays on: a broker, a folder, a seed, and the bench of the fault tests."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any, TypeAlias

from stream.broker import Broker

_path = Path(__file__).resolve().parents[2] / "tests" / "faults" / "fault_bench.py"
_spec = spec_from_file_location("fault_bench", _path)
assert _spec is not None
assert _spec.loader is not None
kit: Any = sys.modules.setdefault("fault_bench", module_from_spec(_spec))
_spec.loader.exec_module(kit)


@dataclass(frozen=True)
class Stage:
    """`random` gives the same choices for the same seed."""

    broker: Broker
    folder: Path
    seed: int

    @property
    def random(self) -> random.Random:
        return random.Random(self.seed)

    def bench(self, **changes: Any) -> Any:
        """A watched topic with the seed's events; its recount is the verdict."""
        bench = kit.FaultBench(self.broker.bootstrap_servers, f"faults-{self.seed}.", self.folder, **changes)
        bench.r = random.Random(self.seed)
        return bench


def verdict(bench: Any, *, drifted: bool = False) -> dict[str, Any]:
    """Read everything to its end and compare with the recount; `drifted`: there must be alerts. Raises AssertionError."""
    bench.drain(300)
    kit.bench_module.assert_equal_to_recount(bench)
    alerts = bench.alerts()
    assert alerts or not drifted, "the drift was not found"
    assert all(len(set(bodies)) == 1 for bodies in alerts.values()), "one alert id with two bodies"
    repeats = sum(len(bodies) - 1 for bodies in alerts.values())
    return {"ok": True, "events": bench.number, "alerts": len(alerts), "repeated alerts": repeats}


Row: TypeAlias = Callable[[Stage], dict[str, Any]]
